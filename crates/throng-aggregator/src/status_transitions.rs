//! When ad groups open and close, for `throng why`.

use std::collections::HashMap;

use throng_model::{AdGroupName, Timestamp};
use throng_store::{HistoryEntry, HistoryEvent};

use super::AdGroupState;

/// Which ad groups were open at the last call of [`record`](Self::record).
#[derive(Debug, Default)]
pub(super) struct StatusTransitions(HashMap<AdGroupName, bool>);

impl StatusTransitions {
    /// One entry for each ad group whose status has changed. At the first call after a start every ad
    /// group counts as open before: those that are closed get an entry, so that a transition that the
    /// last process did not record is not lost.
    pub(super) fn record(&mut self, states: &[AdGroupState], now: Timestamp) -> Vec<HistoryEntry> {
        let mut entries = Vec::new();
        for state in states {
            let was_open = self.0.insert(state.name.clone(), state.open).unwrap_or(true);
            if was_open != state.open {
                entries.push(HistoryEntry {
                    subject_kind: throng_store::SubjectKind::AdGroup,
                    subject: state.name.to_string(),
                    what: match state.open {
                        true => HistoryEvent::Opened,
                        false => HistoryEvent::Closed,
                    },
                    why: state.reason.clone(),
                    at: now,
                    actor: None,
                });
            }
        }
        // Of removed ad groups and of partitions that were revoked: the map would grow to every ad
        // group that there ever was.
        if self.0.len() > states.len() {
            self.0.retain(|name, _| states.iter().any(|s| s.name == *name));
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use throng_model::{AdGroupIndex, Micros};

    use super::*;

    #[test]
    fn every_change_is_recorded_once() {
        let state = |open| AdGroupState {
            name: AdGroupName::new("red").unwrap(),
            index: AdGroupIndex(0),
            currency: "USD".parse().unwrap(),
            budget: Micros(1),
            actual: Micros(1),
            in_flight: Micros(0),
            projected: Micros(1),
            open,
            reason: "because".to_owned(),
            is_known: true,
        };
        let mut transitions = StatusTransitions::default();
        let mut recorded = Vec::new();
        for open in [true, true, false, false, true] {
            let entries = transitions.record(&[state(open)], Timestamp(5));
            recorded.push(entries.into_iter().map(|entry| entry.what).collect::<Vec<_>>());
        }
        let (closed, opened) = (vec![HistoryEvent::Closed], vec![HistoryEvent::Opened]);
        assert_eq!(recorded, [vec![], vec![], closed, vec![], opened]);
    }
}
