//! Whether the result of a finished task can be trusted.

use throng_ledger::{SyncRun, Verdict};

use crate::PlatformSize;

/// What is known about a finished task.
#[derive(Debug, Clone)]
pub struct CheckFacts<'a> {
    /// The run.
    pub run: &'a SyncRun,
    /// Users in the delivered snapshot.
    pub members: u64,
    /// What the platform says, or why it could not be asked.
    pub size: Result<&'a PlatformSize, String>,
}

/// Above this share of refused rows the data deserves a look.
const SUSPECT_REJECTED_PERCENT: u64 = 5;
/// Above this share of refused rows the upload did not do its job.
const FAILED_REJECTED_PERCENT: u64 = 30;
/// Above this share of users without a usable identifier the identifier query deserves a look.
const SUSPECT_SKIPPED_PERCENT: u64 = 50;
/// Platforms round sizes, and count only those they know: being below the snapshot is normal,
/// being above it by more than this is not.
const SIZE_SLACK_PERCENT: u64 = 10;
const SIZE_SLACK_USERS: u64 = 1_000;

/// Judges. Pure. The verdict is the worst of all reasons; no reason means `Passed`.
pub fn judge(facts: &CheckFacts<'_>) -> (Verdict, Vec<String>) {
    let run = facts.run;
    let mut findings: Vec<(Verdict, String)> = Vec::new();
    let skipped: u64 = run.skipped.values().sum();
    let rejected: u64 = run.rejected.values().sum();
    if run.read != run.sent + skipped + rejected + run.pending || run.pending != 0 {
        findings.push((
            Verdict::Failed,
            format!(
                "the counts do not add up: {} read, {} sent, {skipped} skipped, {rejected} rejected, {} pending",
                run.read, run.sent, run.pending
            ),
        ));
    }
    let share = |part: u64, percent: u64| part * 100 > run.read * percent;
    if run.read > 0 && run.sent == 0 {
        findings
            .push((Verdict::Failed, format!("none of {} users reached the platform", run.read)));
    } else if share(rejected, FAILED_REJECTED_PERCENT) {
        findings
            .push((Verdict::Failed, format!("the platform refused {rejected} of {}", run.read)));
    } else if share(rejected, SUSPECT_REJECTED_PERCENT) {
        findings
            .push((Verdict::Suspect, format!("the platform refused {rejected} of {}", run.read)));
    }
    if share(skipped, SUSPECT_SKIPPED_PERCENT) {
        findings.push((
            Verdict::Suspect,
            format!("{skipped} of {} users had no usable identifier; look at the sync's identifiers.sql", run.read),
        ));
    }
    size_findings(facts, &mut findings);
    let worst = |a: Verdict, b: Verdict| match (a, b) {
        (Verdict::Failed, _) | (_, Verdict::Failed) => Verdict::Failed,
        (Verdict::Suspect, _) | (_, Verdict::Suspect) => Verdict::Suspect,
        _ => Verdict::Passed,
    };
    let verdict = findings.iter().fold(Verdict::Passed, |v, (w, _)| worst(v, *w));
    (verdict, findings.into_iter().map(|(_, reason)| reason).collect())
}

fn size_findings(facts: &CheckFacts<'_>, findings: &mut Vec<(Verdict, String)>) {
    let size = match &facts.size {
        Ok(size) => size,
        Err(why) => {
            findings.push((Verdict::Suspect, format!("the size could not be read back: {why}")));
            return;
        }
    };
    if let Some(trouble) = &size.trouble {
        findings.push((Verdict::Suspect, format!("the platform says: {trouble}")));
    }
    if size.settling {
        findings.push((
            Verdict::Passed,
            "the platform is still filling the audience; its size is not judged".to_owned(),
        ));
        return;
    }
    let most = facts.members.saturating_add(
        (facts.members / 100).saturating_mul(SIZE_SLACK_PERCENT).max(SIZE_SLACK_USERS),
    );
    if let Some(lower) = size.lower.filter(|lower| *lower > most) {
        findings.push((
            Verdict::Suspect,
            format!(
                "the platform has at least {lower} people, the snapshot {}; does something else write to this audience?",
                facts.members
            ),
        ));
    }
    if size.upper == Some(0) && facts.members > SIZE_SLACK_USERS && facts.run.sent > 0 {
        findings.push((
            Verdict::Failed,
            format!("the platform has nobody, the snapshot {}", facts.members),
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use throng_ledger::{RunState, SyncMode};
    use throng_model::{SyncRunId, Timestamp};

    use super::*;

    fn run(sent: u64, skipped: u64, rejected: u64, pending: u64) -> SyncRun {
        let counts =
            |n: u64| if n == 0 { BTreeMap::new() } else { BTreeMap::from([("why".into(), n)]) };
        SyncRun {
            id: SyncRunId(1),
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode: SyncMode::Mirror,
            from_version: None,
            to_version: 1,
            state: RunState::Completed,
            adds: sent + skipped + rejected + pending,
            removes: 0,
            read: sent + skipped + rejected + pending,
            sent,
            skipped: counts(skipped),
            rejected: counts(rejected),
            pending,
            created_at: Timestamp(0),
            finished_at: None,
            reason: None,
        }
    }

    #[test]
    fn verdicts_follow_counts_and_sizes() {
        let sized = |lower, upper| Ok(PlatformSize { lower, upper, ..PlatformSize::default() });
        let cases: [(SyncRun, Result<PlatformSize, String>, Verdict); 9] = [
            (run(100, 0, 0, 0), sized(Some(90), Some(95)), Verdict::Passed),
            (run(0, 0, 0, 0), sized(None, None), Verdict::Passed),
            (run(90, 0, 10, 0), sized(None, None), Verdict::Suspect),
            (run(60, 0, 40, 0), sized(None, None), Verdict::Failed),
            (run(40, 60, 0, 0), sized(None, None), Verdict::Suspect),
            (run(99, 0, 0, 1), sized(None, None), Verdict::Failed),
            (run(100, 0, 0, 0), sized(Some(20_000), None), Verdict::Suspect),
            (run(10_000, 0, 0, 0), sized(Some(0), Some(0)), Verdict::Failed),
            (run(100, 0, 0, 0), Err("timeout".into()), Verdict::Suspect),
        ];
        for (run, size, expected) in cases {
            let facts = CheckFacts {
                run: &run,
                members: run.adds,
                size: size.as_ref().map_err(Clone::clone),
            };
            let (verdict, reasons) = judge(&facts);
            assert_eq!(verdict, expected, "{run:?}: {reasons:?}");
            assert_eq!(reasons.is_empty(), verdict == Verdict::Passed);
        }
    }
}
