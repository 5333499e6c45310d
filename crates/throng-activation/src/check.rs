//! Whether the result of a finished task can be trusted.

use throng_delivered::{REFUSAL, SKIP_NO_IDENTIFIERS, SKIP_SAME_EXTERN_ID, USABLE};
use throng_model::count;
use throng_store::{Batch, Operation, ReasonCounts, SyncRun, Verdict};

use crate::sending::{NOT_CONFIRMED, REMOVAL_NOT_CONFIRMED};
use crate::size_evaluation::recently_delivered;
use crate::{PlatformSize, SizeLimits, SizePoint, evaluate_sizes};

/// What is known about a finished task.
#[derive(Debug, Clone)]
pub(crate) struct CheckFacts<'a> {
    /// The run.
    pub(crate) run: &'a SyncRun,
    /// The results of its removals.
    pub(crate) removals: RemovalCounts,
    /// Users in the delivered snapshot.
    pub(crate) members: u64,
    /// The size that the platform reports, or why it cannot be read.
    pub(crate) size: Result<&'a PlatformSize, String>,
    /// The sizes of the audience over time, oldest first, including this one.
    pub(crate) sizes: &'a [SizePoint],
    /// What the platform documents about its sizes; `None` if they are not numbers of people. Those are exact, and
    /// are not evaluated over time.
    pub(crate) size_limits: Option<SizeLimits>,
}

/// The results of the removals of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RemovalCounts {
    /// Rows that the platform removed.
    pub(crate) sent: u64,
    /// Rows that were not sent, because members have the same identifiers.
    pub(crate) skipped: u64,
    /// Rows that the platform refused to remove.
    pub(crate) rejected: u64,
}

impl RemovalCounts {
    /// Sums up the batches of a task.
    pub(crate) fn of(batches: &[Batch]) -> Self {
        let mut removals = Self::default();
        let remove_batches = batches.iter().filter(|batch| batch.operation == Operation::Remove);
        for outcome in remove_batches.filter_map(|batch| batch.outcome.as_ref()) {
            removals.sent += outcome.sent;
            removals.skipped += outcome.skipped.values().sum::<u64>();
            removals.rejected += outcome.rejected.values().sum::<u64>();
        }
        removals
    }
}

/// Above this share of rejected rows a person should inspect the data.
const SUSPECT_REJECTED_PERCENT: u64 = 5;
/// Above this share of rejected rows the upload has failed.
const FAILED_REJECTED_PERCENT: u64 = 30;
/// Above this share of users without a usable identifier a person should inspect the identifier query.
const SUSPECT_SKIPPED_PERCENT: u64 = 50;
/// From this share of unusable identifiers on the columns are likely to be wrong: of the users of a run, and of the
/// values of a column.
const SUSPECT_UNUSABLE_PERCENT: u64 = 50;
/// Fewer unusable values, or users, say little about a column, unless they are half of the audience.
const MIN_UNUSABLE: u64 = 5;
/// Platforms round sizes, and count only people they can match: a size below the snapshot is normal,
/// one that exceeds it by more than this, and by more than the smallest size that the platform shows, is not.
const SIZE_SLACK_PERCENT: u64 = 10;

/// Evaluates the check of a task. Pure. The verdict is the worst of all findings; without a finding it is
/// `Passed`.
pub(crate) fn evaluate_check(facts: &CheckFacts<'_>) -> (Verdict, Vec<String>) {
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
    // Additions and removals are evaluated separately: a few refused removals leave the wrong people on
    // the list, however many additions succeeded.
    let removals = facts.removals;
    if removals.rejected > 0 {
        let of = removals.sent + removals.skipped + removals.rejected;
        let reason = match run.rejected.get(REMOVAL_NOT_CONFIRMED).copied().unwrap_or_default() {
            0 => format!(
                "the platform refused {} of {of} removals: these users are still on its list; the \
                 removals are retried",
                removals.rejected
            ),
            unconfirmed => format!(
                "the platform refused {} of {of} removals, and {unconfirmed} are not confirmed: these users may \
                 still be on its list; the removals are retried",
                removals.rejected.saturating_sub(unconfirmed)
            ),
        };
        findings.push((Verdict::Failed, reason));
    }
    let sent = run.sent.saturating_sub(removals.sent);
    // These users are on the list with another row.
    let same_extern_id = run.skipped.get(SKIP_SAME_EXTERN_ID).copied().unwrap_or_default();
    let skipped = skipped.saturating_sub(removals.skipped + same_extern_id);
    let rejected = rejected.saturating_sub(removals.rejected);
    let adds = sent + skipped + rejected;
    let share = |part: u64, percent: u64| part * 100 > adds * percent;
    findings.extend(skipped_finding(facts, adds, skipped, sent + rejected == 0));
    findings.extend(
        refused_columns(&run.normalised, facts.members).map(|reason| (Verdict::Suspect, reason)),
    );
    if rejected > 0 && sent == 0 {
        findings.push((Verdict::Failed, not_accepted_text(run, adds, rejected, false)));
    } else if share(rejected, FAILED_REJECTED_PERCENT) {
        findings.push((Verdict::Failed, not_accepted_text(run, adds, rejected, true)));
    } else if share(rejected, SUSPECT_REJECTED_PERCENT) {
        findings.push((Verdict::Suspect, not_accepted_text(run, adds, rejected, true)));
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

/// What the users of a run say who have no usable identifier.
fn skipped_finding(
    facts: &CheckFacts<'_>,
    adds: u64,
    skipped: u64,
    nobody_was_added: bool,
) -> Option<(Verdict, String)> {
    let without = facts.run.skipped.get(SKIP_NO_IDENTIFIERS).copied().unwrap_or_default();
    if adds > 0 && nobody_was_added {
        // A run that removed users, and had a few others to add, has done what it could.
        let is_small = facts.removals.sent > 0 && adds < MIN_UNUSABLE.min(facts.members);
        // Users without identifiers are of the audience, such as guests. Identifiers of which not one is usable are
        // a fault of the data, as if the platform had refused them.
        let verdict = match (is_small, without >= adds) {
            (true, _) => Verdict::Passed,
            (false, true) => Verdict::Suspect,
            (false, false) => Verdict::Failed,
        };
        let message = format!(
            "nobody could be added: none of {adds} users has a usable identifier; check the sync's identifiers.sql"
        );
        return Some((verdict, message));
    }
    let unusable = skipped.saturating_sub(without);
    let is_suspect = skipped * 100 > adds * SUSPECT_SKIPPED_PERCENT
        || is_telling(unusable, facts.members) && unusable * 100 >= adds * SUSPECT_UNUSABLE_PERCENT;
    is_suspect.then(|| {
        let message = format!(
            "{skipped} of {adds} users had no usable identifier; check the sync's identifiers.sql"
        );
        (Verdict::Suspect, message)
    })
}

/// Whether so many unusable values, or users, say something about the data, in an audience of `members` users.
fn is_telling(unusable: u64, members: u64) -> bool {
    unusable >= MIN_UNUSABLE || (unusable > 1 && unusable * 2 >= members)
}

/// The columns of which most values were refused in normalisation: their other identifiers are sent, so that the users
/// are not missing. Runs that were planned by an earlier version have no counts of usable values.
fn refused_columns(normalised: &ReasonCounts, members: u64) -> impl Iterator<Item = String> {
    let counted = normalised.iter().filter_map(|(name, usable)| {
        let (key, _) = name.split_once('.').filter(|(_, reason)| *reason == USABLE)?;
        Some((key, *usable))
    });
    counted.filter_map(move |(key, usable)| {
        let of_key = normalised.iter().filter_map(|(name, count)| {
            let (of, reason) = name.split_once('.')?;
            (of == key && reason.starts_with(REFUSAL)).then_some((reason, *count))
        });
        let reasons: Vec<(&str, u64)> = of_key.collect();
        let refused: u64 = reasons.iter().map(|(_, count)| count).sum();
        let all = refused + usable;
        let is_suspect = is_telling(refused, members)
            && refused * 100 >= all * SUSPECT_UNUSABLE_PERCENT;
        is_suspect.then(|| {
            let of_reason = |(reason, rows): &(&str, u64)| format!("{reason} {}", count(*rows));
            let reasons: Vec<String> = reasons.iter().map(of_reason).collect();
            let (refused, all, why) = (count(refused), count(all), reasons.join(", "));
            format!(
                "{refused} of {all} values of {key} were refused and not sent ({why}); check the sync's identifiers.sql"
            )
        })
    })
}

fn size_findings(facts: &CheckFacts<'_>, findings: &mut Vec<(Verdict, String)>) {
    let size = match &facts.size {
        Ok(size) => size,
        Err(why) => {
            findings.push((Verdict::Suspect, format!("the size could not be read back: {why}")));
            return;
        }
    };
    if let Some(problem) = &size.problem {
        findings.push((Verdict::Suspect, format!("the platform reports a problem: {problem}")));
    }
    let limits = facts.size_limits;
    if let Some(finding) = limits.and_then(|limits| evaluate_sizes(facts.sizes, limits)) {
        findings.push((finding.verdict, finding.reason));
    }
    if size.settling {
        findings.push((
            Verdict::Passed,
            "the platform is still filling the audience; its size is not evaluated".to_owned(),
        ));
        return;
    }
    let most = limits.map_or(facts.members, |limits| {
        // The platform may still show users who were removed.
        let members = facts.members.max(recently_delivered(facts.sizes, limits));
        let slack = (members / 100).saturating_mul(SIZE_SLACK_PERCENT).max(limits.min_shown);
        members.saturating_add(slack)
    });
    if let Some(lower) = size.lower.filter(|lower| *lower > most) {
        findings.push((
            Verdict::Suspect,
            format!(
                "the platform has at least {lower} people, the snapshot {}; does something else write to this audience?",
                facts.members
            ),
        ));
    }
}

/// What the check says about added users of whom the platform has not accepted all. Those of the rejected ones
/// who are not confirmed may be on its list nevertheless.
fn not_accepted_text(run: &SyncRun, adds: u64, rejected: u64, has_accepted: bool) -> String {
    let unconfirmed = run.rejected.get(NOT_CONFIRMED).copied().unwrap_or_default();
    let refused = rejected.saturating_sub(unconfirmed);
    match (unconfirmed, refused) {
        (0, _) if !has_accepted => format!("none of {adds} users reached the platform"),
        (0, _) => format!("the platform refused {rejected} of {adds}"),
        (_, 0) => format!(
            "{unconfirmed} of {adds} users are not confirmed: the platform reports them as not received, and they may \
             be on its list; they are sent again"
        ),
        _ => format!(
            "the platform refused {refused} of {adds} users, and {unconfirmed} are not confirmed: it reports them as \
             not received, and they may be on its list; they are sent again"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use throng_model::{SyncMode, SyncRunId, Timestamp};
    use throng_store::RunState;

    use super::*;

    const LIMITS: Option<SizeLimits> =
        Some(SizeLimits { min_shown: 1_000, lag: Duration::from_secs(24 * 3_600) });

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
            normalised: BTreeMap::new(),
            plan: None,
            users_removed: 0,
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
            // Soon after a delivery; a size is evaluated together with those of other times.
            (run(10_000, 0, 0, 0), sized(Some(0), Some(0)), Verdict::Passed),
            (run(100, 0, 0, 0), Err("timeout".into()), Verdict::Suspect),
        ];
        for (run, size, expected) in cases {
            let facts = CheckFacts {
                run: &run,
                removals: RemovalCounts::default(),
                members: run.adds,
                size: size.as_ref().map_err(Clone::clone),
                sizes: &[],
                size_limits: LIMITS,
            };
            let (verdict, reasons) = evaluate_check(&facts);
            assert_eq!(verdict, expected, "{run:?}: {reasons:?}");
            assert_eq!(reasons.is_empty(), verdict == Verdict::Passed);
        }
    }

    #[test]
    fn users_without_identifiers_are_not_a_failure_of_the_platform() {
        let size = PlatformSize::default();
        for (sent, skipped, why, rejected, verdict, reason) in [
            (0, 25, SKIP_NO_IDENTIFIERS, 0, Verdict::Suspect, "none of 25 users has a usable"),
            (0, 25, "unusable", 0, Verdict::Failed, "none of 25 users has a usable"),
            (
                0,
                25,
                SKIP_NO_IDENTIFIERS,
                1,
                Verdict::Failed,
                "none of 26 users reached the platform",
            ),
            (0, 0, "", 3, Verdict::Failed, "none of 3 users reached the platform"),
            (1, 25, "unusable", 0, Verdict::Suspect, "25 of 26 users had no usable identifier"),
        ] {
            let mut run = run(sent, skipped, rejected, 0);
            if skipped > 0 {
                run.skipped = BTreeMap::from([(why.to_owned(), skipped)]);
            }
            let (found, reasons) = evaluate_check(&CheckFacts {
                run: &run,
                removals: RemovalCounts::default(),
                members: 1_000,
                size: Ok(&size),
                sizes: &[],
                size_limits: LIMITS,
            });
            assert_eq!(found, verdict, "{reasons:?}");
            assert!(reasons.iter().any(|found| found.contains(reason)), "{reasons:?}");
        }
    }

    /// The verdict on a run that added users of an audience of `members`, and removed one if `removed` is set.
    fn verdict_on(run: &SyncRun, members: u64, removed: u64) -> (Verdict, Vec<String>) {
        evaluate_check(&CheckFacts {
            run,
            removals: RemovalCounts { sent: removed, ..RemovalCounts::default() },
            members,
            size: Ok(&PlatformSize::default()),
            sizes: &[],
            size_limits: LIMITS,
        })
    }

    /// Counts of a run, the members of its audience, and the beginning of a finding.
    type RefusedCase<'a> = (&'a [(&'a str, u64)], u64, Option<&'a str>);

    #[test]
    fn a_column_of_which_most_values_were_refused_is_suspect() {
        let cases: [RefusedCase<'_>; 9] = [
            (
                &[("PHONE.refused_invalid", 8), ("PHONE.usable", 0)],
                8,
                Some("8 of 8 values of PHONE"),
            ),
            (&[("PHONE.refused_invalid", 8), ("PHONE.usable", 0)], 9_000, Some("8 of 8 values")),
            (
                &[("EMAIL.refused_invalid", 2), ("EMAIL.usable", 2)],
                4,
                Some("2 of 4 values of EMAIL"),
            ),
            (
                &[("ZIP.refused_invalid", 3), ("ZIP.refused_other", 3), ("ZIP.usable", 6)],
                12,
                Some(
                    "6 of 12 values of ZIP were refused and not sent (refused_invalid 3, refused_other 3)",
                ),
            ),
            (&[("PHONE.refused_invalid", 40), ("PHONE.usable", 60)], 100, None),
            // One value of a small run, changed values, and a run that an earlier version has planned.
            (&[("PHONE.refused_invalid", 1), ("PHONE.usable", 0)], 1, None),
            (&[("PHONE.refused_invalid", 2), ("PHONE.usable", 0)], 100, None),
            (&[("EMAIL.mailto_removed", 100)], 100, None),
            (&[("PHONE.refused_invalid", 100)], 100, None),
        ];
        for (counts, members, expected) in cases {
            let mut run = run(100, 0, 0, 0);
            run.normalised = counts.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect();
            let (verdict, reasons) = verdict_on(&run, members, 0);
            match expected {
                Some(text) => {
                    assert_eq!(verdict, Verdict::Suspect, "{counts:?}");
                    assert!(reasons.len() == 1 && reasons[0].contains(text), "{reasons:?}");
                }
                None => assert_eq!((verdict, reasons), (Verdict::Passed, vec![]), "{counts:?}"),
            }
        }
    }

    #[test]
    fn half_of_the_users_of_an_audience_without_a_usable_identifier_are_suspect() {
        for (sent, skipped, why, members, verdict) in [
            (2, 2, "unusable", 4, Verdict::Suspect),
            (50, 50, "unusable", 9_000, Verdict::Suspect),
            (50, 49, "unusable", 99, Verdict::Passed),
            (1, 1, "unusable", 9_000, Verdict::Passed),
            // Guests.
            (50, 50, SKIP_NO_IDENTIFIERS, 100, Verdict::Passed),
            (49, 50, SKIP_NO_IDENTIFIERS, 100, Verdict::Suspect),
        ] {
            let mut run = run(sent, skipped, 0, 0);
            run.skipped = BTreeMap::from([(why.to_owned(), skipped)]);
            assert_eq!(verdict_on(&run, members, 0).0, verdict, "{sent} {skipped} {why}");
        }
    }

    #[test]
    fn a_run_that_removes_users_passes_although_a_few_new_ones_have_no_identifier() {
        for (adds, members, removed, verdict) in [
            (1, 2, 1, Verdict::Passed),
            (4, 9_000, 1, Verdict::Passed),
            (1, 2, 0, Verdict::Failed),
            (1, 1, 1, Verdict::Failed),
            (5, 9_000, 1, Verdict::Failed),
        ] {
            let mut run = run(removed, adds, 0, 0);
            run.skipped = BTreeMap::from([("unusable".to_owned(), adds)]);
            let (found, reasons) = verdict_on(&run, members, removed);
            assert_eq!(found, verdict, "{adds} of {members}: {reasons:?}");
        }
    }

    #[test]
    fn rows_that_are_not_confirmed_are_not_called_refused() {
        let size = PlatformSize::default();
        let evaluated = |sent, rejected: &[(&str, u64)], removals: RemovalCounts| {
            let mut run = run(sent, 0, rejected.iter().map(|(_, rows)| rows).sum(), 0);
            run.rejected = rejected.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect();
            evaluate_check(&CheckFacts {
                run: &run,
                removals,
                members: 1_000,
                size: Ok(&size),
                sizes: &[],
                size_limits: LIMITS,
            })
        };
        let none = RemovalCounts::default();
        let (verdict, reasons) = evaluated(0, &[(NOT_CONFIRMED, 9)], none);
        assert_eq!(verdict, Verdict::Failed);
        assert!(reasons[0].starts_with("9 of 9 users are not confirmed"), "{reasons:?}");
        let (verdict, reasons) = evaluated(90, &[(NOT_CONFIRMED, 6), ("bad", 4)], none);
        assert_eq!(verdict, Verdict::Suspect);
        let expected = "the platform refused 4 of 100 users, and 6 are not confirmed";
        assert!(reasons[0].starts_with(expected), "{reasons:?}");
        let removals = RemovalCounts { rejected: 5, ..none };
        let (verdict, reasons) = evaluated(9, &[(REMOVAL_NOT_CONFIRMED, 3), ("bad", 2)], removals);
        assert_eq!((verdict, reasons.len()), (Verdict::Failed, 1));
        let expected = "the platform refused 2 of 5 removals, and 3 are not confirmed";
        assert!(reasons[0].starts_with(expected), "{reasons:?}");
    }

    #[test]
    fn sizes_over_time_are_part_of_the_verdict() {
        let point = |hour: u64, size: u64| SizePoint {
            at: Timestamp(0).plus(Duration::from_secs(hour * 3_600)),
            delivered: 5_000,
            lower: Some(size),
            upper: Some(size),
            settling: false,
            removed: Some(0),
        };
        let size = PlatformSize { lower: Some(0), upper: Some(0), ..PlatformSize::default() };
        let evaluated = |sizes: &[SizePoint]| {
            let (run, removals) = (run(10, 0, 0, 0), RemovalCounts::default());
            evaluate_check(&CheckFacts {
                run: &run,
                removals,
                members: 5_000,
                size: Ok(&size),
                sizes,
                size_limits: LIMITS,
            })
        };
        let (verdict, reasons) = evaluated(&[point(0, 4_000), point(9, 0)]);
        assert_eq!(verdict, Verdict::Failed);
        assert!(reasons[0].contains("4000 people"), "{reasons:?}");
        assert_eq!(evaluated(&[point(0, 0), point(9, 0)]), (Verdict::Passed, vec![]));
    }

    #[test]
    fn sizes_that_are_not_people_are_exact() {
        let run = run(100, 0, 0, 0);
        for (rows, limits, expected) in [
            (100, None, Verdict::Passed),
            (101, None, Verdict::Suspect),
            (101, LIMITS, Verdict::Passed),
            (1_101, LIMITS, Verdict::Suspect),
        ] {
            let size =
                PlatformSize { lower: Some(rows), upper: Some(rows), ..PlatformSize::default() };
            let (verdict, reasons) = evaluate_check(&CheckFacts {
                run: &run,
                removals: RemovalCounts::default(),
                members: 100,
                size: Ok(&size),
                sizes: &[],
                size_limits: limits,
            });
            assert_eq!(verdict, expected, "{rows}: {reasons:?}");
        }
    }

    #[test]
    fn removals_are_evaluated_separately_from_additions() {
        let size = PlatformSize::default();
        let evaluated = |run: SyncRun, removals| {
            evaluate_check(&CheckFacts {
                run: &run,
                removals,
                members: 1_000,
                size: Ok(&size),
                sizes: &[],
                size_limits: LIMITS,
            })
        };
        let refused = RemovalCounts { sent: 0, skipped: 0, rejected: 1 };
        let (verdict, reasons) = evaluated(run(999, 0, 1, 0), refused);
        assert_eq!(verdict, Verdict::Failed);
        assert!(reasons[0].contains("refused 1 of 1 removals"), "{reasons:?}");
        // Identifiers that members share are not removed, which is correct.
        let shared = RemovalCounts { sent: 0, skipped: 3, rejected: 0 };
        assert_eq!(evaluated(run(0, 3, 0, 0), shared).0, Verdict::Passed);
    }

    #[test]
    fn users_with_further_rows_of_an_extern_id_are_not_missing() {
        let size = PlatformSize::default();
        for sent in [0, 2] {
            let mut run = run(sent, 0, 0, 0);
            run.read += 7;
            run.skipped = BTreeMap::from([(SKIP_SAME_EXTERN_ID.to_owned(), 7)]);
            let (verdict, reasons) = evaluate_check(&CheckFacts {
                run: &run,
                removals: RemovalCounts::default(),
                members: 1_000,
                size: Ok(&size),
                sizes: &[],
                size_limits: LIMITS,
            });
            assert_eq!(verdict, Verdict::Passed, "{reasons:?}");
        }
    }
}
