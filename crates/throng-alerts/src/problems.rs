//! Raises alerts for problems of this node, such as a full disk or a damaged snapshot, so that they are sent to the
//! receivers like other alerts.

use std::collections::BTreeSet;
use std::time::Duration;

use throng_model::Timestamp;
use throng_store::{AlertKind, LedgerError, NewAlert};
use tokio_util::sync::CancellationToken;

use crate::deps::{AlertsDeps, NodeProblem};

/// The interval in which problems are polled.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// A problem that ends sooner does not raise an alert: services restart, connections close.
const MIN_DURATION: Duration = Duration::from_secs(10);
/// The maximum number of alerts that are read at the start.
const MAX_ALERTS: u32 = 1_000;

/// The cause of an alert: kind and subject.
type Cause = (AlertKind, String);

/// Raises and resolves the alerts of this process until `shutdown`. While the ledger cannot be written, alerts wait in
/// memory.
pub async fn raise_node_problems(deps: AlertsDeps, shutdown: CancellationToken) {
    let mut raised: Option<BTreeSet<Cause>> = None;
    loop {
        if let Err(error) = round(&deps, &mut raised).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to write alerts of node problems, retrying"
            );
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(deps.poll_delay(POLL_INTERVAL)) => {}
        }
    }
}

async fn round(deps: &AlertsDeps, raised: &mut Option<BTreeSet<Cause>>) -> Result<(), LedgerError> {
    let place = deps.host.place();
    let place = place.as_str();
    let raised = match raised {
        Some(raised) => raised,
        // Alerts that the previous process raised and did not resolve.
        None => {
            let all = deps.ledger.alerts(MAX_ALERTS).await?;
            let of_this_node = all
                .into_iter()
                .filter(|alert| alert.resolved_at.is_none() && alert.subject.ends_with(place))
                .map(|alert| (alert.kind, alert.subject));
            raised.insert(of_this_node.collect())
        }
    };
    let now = deps.clock.now();
    let wanted = alerts(&deps.host.problems(), place, now);
    let kept: BTreeSet<Cause> =
        wanted.iter().map(|alert| (alert.kind, alert.subject.clone())).collect();
    let ended: Vec<Cause> = raised.difference(&kept).cloned().collect();
    for cause in ended {
        deps.ledger.resolve_alert(cause.0, &cause.1, now).await?;
        raised.remove(&cause);
    }
    for alert in wanted {
        let cause = (alert.kind, alert.subject.clone());
        if !raised.contains(&cause) {
            deps.ledger.raise_alert(&alert, now).await?;
            raised.insert(cause);
        }
    }
    Ok(())
}

/// The alerts for problems that have lasted long enough.
fn alerts(problems: &[NodeProblem], place: &str, now: Timestamp) -> Vec<NewAlert> {
    let lasting = problems.iter().filter(|problem| now.since(problem.since) >= MIN_DURATION);
    lasting
        .map(|problem| {
            let parts = [problem.class, &problem.key, place];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            NewAlert {
                kind: problem.kind,
                subject: parts.join(" "),
                message: problem.detail.clone(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasting_problems_raise_alerts_with_distinct_subjects() {
        let problem = |kind, class, key: &str, since| NodeProblem {
            kind,
            class,
            key: key.to_owned(),
            detail: "no room".to_owned(),
            since: Timestamp(since),
        };
        let problems = [
            problem(AlertKind::DiskFull, "disk", "", 0),
            problem(AlertKind::PartitionFailed, "partition", "3", 0),
            problem(AlertKind::Damaged, "snapshot", "buyers", 1),
        ];
        let now = Timestamp(0).plus(MIN_DURATION);
        let all: Vec<(AlertKind, String)> = alerts(&problems, "on this node", now)
            .into_iter()
            .map(|alert| (alert.kind, alert.subject))
            .collect();
        let subject = |text: &str| format!("{text} on this node");
        assert_eq!(
            all,
            [
                (AlertKind::DiskFull, subject("disk")),
                (AlertKind::PartitionFailed, subject("partition 3")),
            ]
        );
    }
}
