//! The current state of every ad group, and which of them are not current.

use std::time::Duration;

use throng_model::Clock as _;

use super::replica::PartitionReplica;
use super::{AdGroupState, Budgets};

/// In real time; twice the longest interval of frames.
const STALE_AFTER: Duration = Duration::from_secs(120);

/// Why the figures of a partition that this process leads are not current.
fn problem_of(partition: &PartitionReplica) -> Option<String> {
    if partition.is_failed() {
        Some("its partition has failed, and events are not counted until it is reopened".to_owned())
    } else if partition.is_fenced() {
        Some("another process has its partition".to_owned())
    } else if partition.has_backlog() {
        Some("it waits for the newest spec, and has not counted all events in the log".to_owned())
    } else {
        None
    }
}

/// A state that says in its reason why it is not current. `is_known`: its figures were current once.
fn marked(mut state: AdGroupState, problem: Option<&str>, is_known: bool) -> AdGroupState {
    if let Some(problem) = problem {
        state.reason = match is_known {
            true => format!("not current: {problem}; as last known, {}", state.reason),
            false => format!("not current: {problem}"),
        };
    }
    state
}

impl Budgets {
    /// The state of every ad group of the applied spec, by name: the current one for the partitions
    /// that this process leads, the last one of the feed for the others. The reason of one that is not current,
    /// because its partition has failed or has no new frames, begins with `not current`.
    pub fn states(&self) -> Vec<AdGroupState> {
        let (led, applied) = (self.led.load_full(), self.applied.load_full());
        let now = self.clock.now();
        let mut states: Vec<AdGroupState> = Vec::new();
        for partition in led.iter() {
            // First: if it fails in between, they are marked although they were current, never the other way round.
            let figures = partition.states(now);
            let problem = problem_of(partition);
            let problem = problem.as_deref();
            states.extend(figures.into_iter().map(|state| marked(state, problem, true)));
        }
        let positions = self.feed_state.positions();
        for (number, configs) in (0..).zip(&applied.configs) {
            if led.iter().any(|p| p.number() == number) {
                continue;
            }
            let frame = positions.iter().find(|frame| frame.partition == number);
            let problem = match frame.map(|frame| frame.at) {
                None => Some("there is no frame of its partition yet".to_owned()),
                Some(at) if self.clock.wall_duration(now.since(at)) > STALE_AFTER => {
                    Some(format!("there is no frame of its partition since {at}"))
                }
                Some(_) => None,
            };
            states.extend(configs.iter().map(|config| {
                let entry = self.feed_state.entry(number, config.index);
                let mut state = AdGroupState::of_entry(config, entry);
                // Nothing is known of its spend: it is not open.
                (state.is_known, state.open) = (frame.is_some(), state.open && frame.is_some());
                marked(state, problem.as_deref(), entry.is_some())
            }));
        }
        states.sort_by(|a, b| a.name.cmp(&b.name));
        states
    }
}
