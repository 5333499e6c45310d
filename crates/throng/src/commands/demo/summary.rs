//! The results of the demo, and whether they are as expected.

use std::collections::BTreeMap;

use serde::Serialize;
use throng_model::Micros;

use crate::out;

#[derive(Debug, Serialize)]
pub(super) struct Audience {
    pub(super) name: String,
    pub(super) members: u64,
    pub(super) rows_read: u64,
    pub(super) null_keys: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Lookups {
    pub(super) checked: u64,
    pub(super) wrong: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Sync {
    pub(super) sync: String,
    pub(super) read: u64,
    pub(super) sent: u64,
    pub(super) skipped: u64,
    pub(super) rejected: u64,
    pub(super) pending: u64,
    /// Members of the audience on the platform, as the simulator counts them.
    pub(super) on_platform: u64,
    pub(super) verdict: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Decisions {
    pub(super) requests: u64,
    pub(super) allowed: u64,
    pub(super) refused: u64,
    pub(super) reasons: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Outcome {
    pub(super) spend_micros: i64,
    pub(super) overdelivery_micros: i64,
    /// Budget that was not spent although there was traffic for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) underdelivery_micros: Option<i64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Budget {
    pub(super) ad_group: String,
    pub(super) budget_micros: i64,
    pub(super) without_prediction: Outcome,
    pub(super) with_prediction: Outcome,
}

/// The results of the ad traffic.
pub(super) struct Traffic {
    pub(super) decisions: Decisions,
    pub(super) budgets: Vec<Budget>,
    /// Spend as the node counted it, and as it follows from the ads that were shown. If they differ, an
    /// event was lost or counted twice.
    pub(super) counted_micros: i64,
    pub(super) delivered_micros: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct Shares {
    pub(super) without_prediction: f64,
    pub(super) with_prediction: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) audiences: Vec<Audience>,
    pub(super) lookups: Lookups,
    pub(super) syncs: Vec<Sync>,
    pub(super) decisions: Decisions,
    pub(super) budgets: Vec<Budget>,
    pub(super) overdelivery: Shares,
    pub(super) plain_identifiers_found: u64,
    pub(super) failures: Vec<String>,
}

impl Summary {
    pub(super) fn new(
        audiences: Vec<Audience>,
        lookups: Lookups,
        syncs: Vec<Sync>,
        traffic: Traffic,
        plain_identifiers_found: u64,
    ) -> Self {
        let budget: i64 = traffic.budgets.iter().map(|b| b.budget_micros).sum();
        let share = |of: &dyn Fn(&Budget) -> i64| {
            traffic.budgets.iter().map(of).sum::<i64>() as f64 / budget.max(1) as f64
        };
        let overdelivery = Shares {
            without_prediction: share(&|b| b.without_prediction.overdelivery_micros),
            with_prediction: share(&|b| b.with_prediction.overdelivery_micros),
        };
        let mut failures = Vec::new();
        for audience in audiences.iter().filter(|a| a.members == 0) {
            failures.push(format!("audience {} is empty", audience.name));
        }
        if lookups.wrong > 0 {
            failures.push(format!("{} of {} lookups were wrong", lookups.wrong, lookups.checked));
        }
        for sync in &syncs {
            failures.extend(sync_failure(sync));
        }
        if traffic.counted_micros != traffic.delivered_micros {
            failures.push(format!(
                "the node counted {} but the ads shown are worth {}",
                Micros(traffic.counted_micros),
                Micros(traffic.delivered_micros)
            ));
        }
        if overdelivery.with_prediction >= overdelivery.without_prediction {
            failures.push("the prediction did not lower overdelivery".to_owned());
        }
        if plain_identifiers_found > 0 {
            failures.push(format!("{plain_identifiers_found} plain identifiers are on disk"));
        }
        Self {
            audiences,
            lookups,
            syncs,
            decisions: traffic.decisions,
            budgets: traffic.budgets,
            overdelivery,
            plain_identifiers_found,
            failures,
        }
    }

    /// Whether all results are as expected.
    pub(super) fn is_ok(&self) -> bool {
        self.failures.is_empty()
    }

    pub(super) fn print(&self) {
        let rows = self
            .audiences
            .iter()
            .map(|a| vec![a.name.clone(), out::count(a.members), out::count(a.rows_read)])
            .collect();
        out::table(&["AUDIENCE", "MEMBERS", "ROWS READ"], rows);
        out::line(format!(
            "\nlookups: {} checked, {} wrong\n",
            self.lookups.checked, self.lookups.wrong
        ));
        let rows = self
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
        let d = &self.decisions;
        out::line(format!(
            "\nad requests: {}, allowed {}, refused {}",
            out::count(d.requests),
            out::count(d.allowed),
            out::count(d.refused)
        ));
        out::line(format!(
            "overdelivery: {:.2} % of the budgets without the prediction, {:.2} % with it",
            self.overdelivery.without_prediction * 100.0,
            self.overdelivery.with_prediction * 100.0
        ));
        out::line(format!("plain identifiers on disk: {}", self.plain_identifiers_found));
    }
}

fn sync_failure(sync: &Sync) -> Option<String> {
    let Sync { sync: name, read, sent, skipped, rejected, pending, .. } = sync;
    if *read != sent + skipped + rejected + pending {
        return Some(format!("sync {name}: {read} is not {sent}+{skipped}+{rejected}+{pending}"));
    }
    if *pending > 0 {
        return Some(format!("sync {name} has {pending} rows pending"));
    }
    if sync.on_platform != *sent {
        return Some(format!("sync {name}: {sent} sent, but {} on the platform", sync.on_platform));
    }
    (sync.verdict != "passed")
        .then(|| format!("sync {name}: the verdict of its check is {}", sync.verdict))
}
