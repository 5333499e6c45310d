//! The gates that report which frames they have applied.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use throng_model::Timestamp;

/// A gate that has not reported for this long is forgotten.
const REPORT_TTL: Duration = Duration::from_secs(3_600);
/// The most gates that are remembered.
const MAX_GATES: usize = 20_000;

/// What a gate reported last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateReport {
    /// The gate's name.
    pub id: String,
    /// Partition and version of the last frame applied.
    pub versions: Vec<(u32, u64)>,
    /// When.
    pub at: Timestamp,
}

/// Gates by their names.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<HashMap<String, GateReport>>);

impl Gates {
    /// Records what a gate has applied. `false` if there are too many gates to record another one.
    pub(super) fn report(&self, id: &str, versions: Vec<(u32, u64)>, at: Timestamp) -> bool {
        let mut gates = self.0.lock();
        // A known gate is never refused. New names are limited, as a client that sends another name
        // each time would fill the memory.
        if gates.len() >= MAX_GATES && !gates.contains_key(id) {
            gates.retain(|_, gate| at.since(gate.at) < REPORT_TTL);
            if gates.len() >= MAX_GATES {
                return false;
            }
        }
        gates.insert(id.to_owned(), GateReport { id: id.to_owned(), versions, at });
        true
    }

    /// The gates that have reported within the last hour.
    pub(super) fn all(&self, now: Timestamp) -> Vec<GateReport> {
        let mut gates = self.0.lock();
        gates.retain(|_, gate| now.since(gate.at) < REPORT_TTL);
        let mut all: Vec<GateReport> = gates.values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }
}
