//! The results of the demo, for a person.

use throng_demo::summary::Summary;

use crate::out;

/// Prints the results for a person.
pub(super) fn print(summary: &Summary) {
    let rows = summary
        .audiences
        .iter()
        .map(|a| vec![a.name.clone(), out::count(a.members), out::count(a.rows_read)])
        .collect();
    out::table(&["AUDIENCE", "MEMBERS", "ROWS READ"], rows);
    out::line(format!(
        "\nlookups: {} checked, {} wrong\n",
        summary.lookups.checked, summary.lookups.wrong
    ));
    let rows = summary
        .syncs
        .iter()
        .map(|s| {
            let mut row = vec![s.sync.clone()];
            row.extend([s.read, s.sent, s.skipped, s.rejected, s.pending].map(out::count));
            row.push(s.verdict.clone());
            row
        })
        .collect();
    out::table(&["SYNC", "READ", "SENT", "SKIPPED", "REJECTED", "PENDING", "CHECK"], rows);
    let d = &summary.decisions;
    out::line(format!(
        "\nad requests: {}, allowed {}, refused {}",
        out::count(d.requests),
        out::count(d.allowed),
        out::count(d.refused)
    ));
    out::line(format!(
        "overdelivery: {:.2} % of the budgets without the prediction, {:.2} % with it",
        summary.overdelivery.without_prediction * 100.0,
        summary.overdelivery.with_prediction * 100.0
    ));
    out::line(format!("plain identifiers on disk: {}", summary.plain_identifiers_found));
}
