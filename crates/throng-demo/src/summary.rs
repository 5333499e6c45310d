//! The results of the demo, and whether they are as expected.

use std::collections::BTreeMap;

use serde::Serialize;
use throng_model::Micros;

/// An audience that the demo has built.
#[derive(Debug, Serialize)]
pub struct Audience {
    /// Its name.
    pub name: String,
    /// Its members.
    pub members: u64,
    /// Rows of its query.
    pub rows_read: u64,
    /// Rows without a key.
    pub null_keys: u64,
}

/// Lookups that were compared with the rows of the example.
#[derive(Debug, Serialize)]
pub struct Lookups {
    /// How many.
    pub checked: u64,
    /// How many had another result.
    pub wrong: u64,
}

/// A sync, with its rows.
#[derive(Debug, Serialize)]
pub struct Sync {
    /// Its name.
    pub sync: String,
    /// Rows that it has read.
    pub read: u64,
    /// Rows that the platform has received.
    pub sent: u64,
    /// Rows without a usable identifier.
    pub skipped: u64,
    /// Rows that the platform has refused.
    pub rejected: u64,
    /// Rows without a result.
    pub pending: u64,
    /// Members of the audience on the platform, as the simulator counts them.
    pub on_platform: u64,
    /// The verdict of its check.
    pub verdict: String,
}

/// Decisions of the ad servers.
#[derive(Debug, Serialize)]
pub struct Decisions {
    /// Ad requests.
    pub requests: u64,
    /// Ad groups that were allowed.
    pub allowed: u64,
    /// Ad groups that were refused.
    pub refused: u64,
    /// Refused ad groups by reason.
    pub reasons: BTreeMap<String, u64>,
}

/// What became of the budget of an ad group.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Outcome {
    /// Spend, in micros.
    pub spend_micros: i64,
    /// Spend above the budget, in micros.
    pub overdelivery_micros: i64,
    /// Budget that was not spent although there was traffic for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underdelivery_micros: Option<i64>,
}

/// An ad group, without and with the prediction of in-flight spend.
#[derive(Debug, Serialize)]
pub struct Budget {
    /// Its name.
    pub ad_group: String,
    /// Its budget, in micros.
    pub budget_micros: i64,
    /// Without the prediction.
    pub without_prediction: Outcome,
    /// With the prediction.
    pub with_prediction: Outcome,
}

/// The results of the ad traffic.
#[derive(Debug)]
pub struct Traffic {
    /// The decisions.
    pub decisions: Decisions,
    /// The ad groups.
    pub budgets: Vec<Budget>,
    /// Spend as the node counted it, in micros. If it is not that of the ads that were shown, an event was lost or counted
    /// twice.
    pub counted_micros: i64,
    /// Spend as it follows from the ads that were shown, in micros.
    pub delivered_micros: i64,
}

/// Overdelivery as a share of all budgets.
#[derive(Debug, Serialize)]
pub struct Shares {
    /// Without the prediction.
    pub without_prediction: f64,
    /// With the prediction.
    pub with_prediction: f64,
}

/// All results.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The audiences.
    pub audiences: Vec<Audience>,
    /// The lookups.
    pub lookups: Lookups,
    /// The syncs.
    pub syncs: Vec<Sync>,
    /// The decisions.
    pub decisions: Decisions,
    /// The ad groups.
    pub budgets: Vec<Budget>,
    /// Overdelivery.
    pub overdelivery: Shares,
    /// Identifiers of users that were found in the clear in what the demo wrote.
    pub plain_identifiers_found: u64,
    /// What is not as expected.
    pub failures: Vec<String>,
}

impl Summary {
    /// Compares the results with what is expected of them.
    pub fn new(
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
    pub fn is_ok(&self) -> bool {
        self.failures.is_empty()
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
