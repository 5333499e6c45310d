//! Plans a run: its batches, and whether it waits for approval.

use throng_model::{AudienceName, DestinationName, SyncMode, SyncName, count};
use throng_store::{Hold, HoldCause, NewRun, Operation, ReasonCounts};

use crate::{PlanMeta, RunUsers};

/// The rows of a run.
#[derive(Debug, Clone, Copy)]
pub enum RunRows<'a> {
    /// Users by their ranks; the worker reads their identifiers.
    Users(&'a RunUsers),
    /// Rows of a plan that was written to an object.
    Planned {
        /// The plan's metadata.
        meta: &'a PlanMeta,
        /// The object's name.
        object: &'a str,
        /// Identifiers that were changed or refused.
        normalised: &'a ReasonCounts,
    },
}

impl RunRows<'_> {
    /// Operations with their counts, in the order in which they are sent.
    fn phases(&self) -> Vec<(Operation, u64)> {
        match self {
            Self::Users(users) => {
                vec![(users.add_operation(), users.adds()), (Operation::Remove, users.removes())]
            }
            Self::Planned { meta, .. } => {
                let [first, remove, after] = meta.rows;
                vec![(meta.put, first), (Operation::Remove, remove), (meta.put, after)]
            }
        }
    }
}

/// The inputs of a run's plan.
#[derive(Debug, Clone)]
pub struct PlanFacts<'a> {
    /// The sync.
    pub sync: SyncName,
    /// Its audience.
    pub audience: AudienceName,
    /// Its destination.
    pub destination: DestinationName,
    /// Its mode.
    pub mode: SyncMode,
    /// Rows in a batch: the sync's setting or the platform's limit, whichever is lower.
    pub batch_rows: u32,
    /// A larger one is sent first.
    pub priority: i32,
    /// A run that would remove more than this share of the delivered users is held.
    pub max_removed_percent: u32,
    /// The delivered version.
    pub from_version: Option<u64>,
    /// Users on the platform before the run, those whom a failed run may have added included; `None` if that is not
    /// known.
    pub users_before: Option<u64>,
    /// The version to deliver.
    pub to_version: u64,
    /// Those of [`PlanFacts::users_before`] who are not on the list after the run, including those that a replace
    /// drops.
    pub users_removed: u64,
    /// The rows.
    pub rows: RunRows<'a>,
    /// Another reason why the run waits for approval. That its account is held counts only if there is no other: an
    /// approval is for one cause.
    pub hold: Option<Hold>,
}

/// Plans a run: batches of `batch_rows` rows, first additions, then removals, then rows that are added
/// again. A run without rows has no batch; it only advances the delivered version. Pure.
pub fn plan_run(facts: PlanFacts<'_>) -> NewRun {
    let phases = facts.rows.phases();
    let rows = u64::from(facts.batch_rows.max(1));
    let mut batches = Vec::new();
    let (mut adds, mut removes) = (0, 0);
    for (operation, count) in phases {
        *(if operation == Operation::Remove { &mut removes } else { &mut adds }) += count;
        let mut remaining = count;
        while remaining > 0 {
            let batch = remaining.min(rows);
            batches.push((operation, batch));
            remaining -= batch;
        }
    }
    let (plan, normalised) = match facts.rows {
        RunRows::Users(_) => (None, ReasonCounts::new()),
        RunRows::Planned { object, normalised, .. } => {
            (Some(object.to_owned()), normalised.clone())
        }
    };
    NewRun {
        held: hold_of(&facts),
        sync: facts.sync,
        audience: facts.audience,
        destination: facts.destination,
        mode: facts.mode,
        from_version: facts.from_version,
        to_version: facts.to_version,
        adds,
        removes,
        batches,
        priority: facts.priority,
        plan,
        normalised,
        users_removed: facts.users_removed,
    }
}

/// The one cause that a run is held for. With that of the account, approving the account, or the run for it, would also
/// release removals that nobody has approved.
fn hold_of(facts: &PlanFacts<'_>) -> Option<Hold> {
    match &facts.hold {
        Some(hold) if hold.cause != HoldCause::Account => Some(hold.clone()),
        account => exceeds_guard(facts).or_else(|| account.clone()),
    }
}

fn exceeds_guard(facts: &PlanFacts<'_>) -> Option<Hold> {
    let (percent, removed) = (facts.max_removed_percent, facts.users_removed);
    if facts.mode == SyncMode::Add {
        return None;
    }
    let reason = match facts.users_before {
        Some(users) => {
            let is_over = u128::from(removed) * 100 > u128::from(users) * u128::from(percent);
            is_over.then(|| {
                let (removed, users) = (count(removed), count(users));
                format!(
                    "{removed} of the {users} users delivered so far would be removed, more than \
                     max_removed_percent = {percent} allows; approve the run if that is intended"
                )
            })
        }
        // With 100 every removal is allowed.
        None => (percent < 100 && may_remove(facts)).then(|| {
            format!(
                "users would be removed, and how many of those delivered so far is not known, so that \
                 max_removed_percent = {percent} cannot be checked; approve the run if that is intended"
            )
        }),
    };
    reason.map(|reason| Hold::new(HoldCause::Guard, reason))
}

/// Whether a run may remove users: it replaces the list, or has rows to remove.
fn may_remove(facts: &PlanFacts<'_>) -> bool {
    let removes =
        |(operation, rows): &(Operation, u64)| *operation == Operation::Remove && *rows > 0;
    facts.mode == SyncMode::Replace || facts.rows.phases().iter().any(removes)
}

#[cfg(test)]
mod tests {
    use roaring::RoaringBitmap;
    use throng_membership::MemberSet;

    use super::*;

    fn plan(mode: SyncMode, old: u32, kept: u32, new: u32, percent: u32) -> NewRun {
        plan_from(mode, (old, kept, new), percent, Some(u64::from(old)))
    }

    fn plan_from(
        mode: SyncMode,
        users: (u32, u32, u32),
        percent: u32,
        users_before: Option<u64>,
    ) -> NewRun {
        plan_with(mode, users, percent, users_before, None)
    }

    fn plan_with(
        mode: SyncMode,
        (old, kept, new): (u32, u32, u32),
        percent: u32,
        users_before: Option<u64>,
        hold: Option<Hold>,
    ) -> NewRun {
        let set = |values: &mut dyn Iterator<Item = u32>| {
            MemberSet::new(vec![values.collect::<RoaringBitmap>()])
        };
        let target = set(&mut (0..kept).chain(10_000..10_000 + new));
        let users = RunUsers::compute(mode, &target, &[set(&mut (0..old))]);
        plan_run(PlanFacts {
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode,
            batch_rows: 4,
            priority: 0,
            max_removed_percent: percent,
            from_version: None,
            users_before,
            to_version: 2,
            users_removed: users_before.map_or(0, |_| u64::from(old - kept)),
            rows: RunRows::Users(&users),
            hold,
        })
    }

    #[test]
    fn batches_are_cut_by_rank_and_add_up() {
        let run = plan(SyncMode::Mirror, 10, 7, 9, 50);
        assert_eq!(
            run.batches,
            [(Operation::Add, 4), (Operation::Add, 4), (Operation::Add, 1), (Operation::Remove, 3)]
        );
        assert_eq!((run.adds, run.removes, run.users_removed, run.held), (9, 3, 3, None));
    }

    #[test]
    fn too_many_removals_are_held_in_the_modes_that_remove() {
        for (mode, kept, held) in [
            (SyncMode::Mirror, 5, false),
            (SyncMode::Mirror, 4, true),
            (SyncMode::Replace, 4, true),
            (SyncMode::Add, 0, false),
        ] {
            let cause = plan(mode, 10, kept, 1, 50).held.map(|hold| hold.cause);
            assert_eq!(cause, held.then_some(HoldCause::Guard), "{mode:?} {kept}");
        }
    }

    #[test]
    fn the_hold_of_an_account_does_not_hide_another_cause() {
        for (cause, kept, expected) in [
            (HoldCause::Account, 4, HoldCause::Guard),
            (HoldCause::Account, 5, HoldCause::Account),
            (HoldCause::Adoption, 4, HoldCause::Adoption),
            (HoldCause::Adoption, 5, HoldCause::Adoption),
        ] {
            let hold = Some(Hold::new(cause, "because"));
            let run = plan_with(SyncMode::Mirror, (10, kept, 1), 50, Some(10), hold);
            assert_eq!(run.held.unwrap().cause, expected, "{cause:?} {kept}");
        }
    }

    #[test]
    fn removals_without_a_delivered_version_are_held_by_their_number() {
        // Of a first run that failed.
        let held = plan(SyncMode::Mirror, 10, 4, 1, 50).held.unwrap();
        assert!(held.reason.starts_with("6 of the 10 users delivered so far"), "{}", held.reason);
    }

    #[test]
    fn removals_of_an_unknown_share_are_held() {
        for (mode, kept, percent, held) in [
            (SyncMode::Mirror, 9, 50, true),
            (SyncMode::Mirror, 10, 50, false),
            // What a replace session drops is not among the rows.
            (SyncMode::Replace, 10, 50, true),
            (SyncMode::Replace, 10, 99, true),
            (SyncMode::Replace, 10, 100, false),
            (SyncMode::Mirror, 0, 100, false),
            (SyncMode::Add, 0, 0, false),
        ] {
            let hold = plan_from(mode, (10, kept, 1), percent, None).held;
            let is_guard = hold.as_ref().is_some_and(|hold| hold.cause == HoldCause::Guard);
            assert_eq!(is_guard, held, "{mode:?} {kept} {percent}");
            assert!(hold.is_none_or(|hold| hold.reason.contains("is not known")));
        }
        // Nothing was delivered, which is known.
        let first = plan(SyncMode::Replace, 0, 0, 9, 0);
        assert_eq!(first.held, None);
    }

    #[test]
    fn an_empty_difference_is_a_run_without_batches() {
        let run = plan(SyncMode::Mirror, 5, 5, 0, 50);
        assert_eq!((run.batches.len(), run.adds, run.removes), (0, 0, 0));
    }
}
