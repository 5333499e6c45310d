//! Problems of this node become alerts: whoever watches the receivers hears of a full disk or a
//! damaged snapshot as of a failed refresh.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use throng_model::Timestamp;
use throng_store::{AlertKind, LedgerError, NewAlert};
use tokio_util::sync::CancellationToken;

use crate::{HealthProblem, NodeContext, ProblemClass};

/// How often problems are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// A problem that is gone sooner is no alert: engines start again, connections are cut.
const SETTLE: Duration = Duration::from_secs(10);
/// Open alerts that are read at the start.
const MOST_OPEN: u32 = 1_000;

/// The cause of an alert: kind and subject.
type Cause = (AlertKind, String);

/// Runs until `shutdown`. While the ledger cannot be written, alerts wait in memory.
pub(crate) async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let mut raised: Option<BTreeSet<Cause>> = None;
    loop {
        if let Err(error) = round(&ctx, &mut raised).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the alerts of this node's problems cannot be written; they are kept"
            );
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(ctx.pause(POLL_INTERVAL)) => {}
        }
    }
}

async fn round(ctx: &NodeContext, raised: &mut Option<BTreeSet<Cause>>) -> Result<(), LedgerError> {
    let place = match ctx.spec.load().node.is_shared() {
        true => format!("on {}", ctx.url.get().map_or("a node", String::as_str)),
        false => "on this node".to_owned(),
    };
    let raised = match raised {
        Some(raised) => raised,
        // What the process before this one raised, and could not resolve any more.
        None => {
            let all = ctx.ledger.alerts(MOST_OPEN).await?;
            let of_here = all
                .into_iter()
                .filter(|alert| alert.resolved_at.is_none() && alert.subject.ends_with(&place))
                .map(|alert| (alert.kind, alert.subject));
            raised.insert(of_here.collect())
        }
    };
    let now = ctx.clock.now();
    let wanted = alerts(&ctx.health.problems(), &place, now);
    let kept: BTreeSet<Cause> =
        wanted.iter().map(|alert| (alert.kind, alert.subject.clone())).collect();
    let gone: Vec<Cause> = raised.difference(&kept).cloned().collect();
    for cause in gone {
        ctx.ledger.resolve_alert(cause.0, &cause.1, now).await?;
        raised.remove(&cause);
    }
    for alert in wanted {
        let cause = (alert.kind, alert.subject.clone());
        if !raised.contains(&cause) {
            ctx.ledger.raise_alert(&alert, now).await?;
            raised.insert(cause);
        }
    }
    Ok(())
}

/// The alerts of these problems.
fn alerts(problems: &[HealthProblem], place: &str, now: Timestamp) -> Vec<NewAlert> {
    let lasting = problems.iter().filter(|problem| now.since(problem.since) >= SETTLE);
    lasting
        .filter_map(|problem| {
            let kind = kind(problem.class)?;
            let words = [problem.class.name(), &problem.key, place];
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            Some(NewAlert { kind, subject: words.join(" "), message: problem.detail.clone() })
        })
        .collect()
}

/// The kind of a class's alerts; `None` for a problem with alerts themselves.
fn kind(class: ProblemClass) -> Option<AlertKind> {
    match class {
        ProblemClass::Disk => Some(AlertKind::DiskFull),
        ProblemClass::Ledger
        | ProblemClass::DataDirectory
        | ProblemClass::Log
        | ProblemClass::Objects => Some(AlertKind::StorageFailed),
        ProblemClass::Partition => Some(AlertKind::PartitionFailed),
        ProblemClass::Snapshot => Some(AlertKind::Damaged),
        ProblemClass::Query | ProblemClass::Certificate | ProblemClass::Config => {
            Some(AlertKind::NodeProblem)
        }
        ProblemClass::Alert => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Impact;

    #[test]
    fn lasting_problems_are_alerts_with_a_subject_of_their_own() {
        let problem = |class, key: &str, since| HealthProblem {
            class,
            key: key.to_owned(),
            impact: Impact::NotReady,
            detail: "no room".to_owned(),
            since: Timestamp(since),
        };
        let problems = [
            problem(ProblemClass::Disk, "", 0),
            problem(ProblemClass::Partition, "3", 0),
            problem(ProblemClass::Snapshot, "buyers", 1),
            problem(ProblemClass::Alert, "", 0),
        ];
        let now = Timestamp(0).plus(SETTLE);
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
        for class in ProblemClass::ALL {
            assert_eq!(kind(class).is_none(), class == ProblemClass::Alert);
        }
    }
}
