//! Formats values for the pages. Pure.

use throng_model::{Micros, Timestamp};
use throng_store::{HistoryEntry, RefreshState, RunState, SnapshotState, TaskState, Verdict};

/// A value with a label, shown in a box.
pub(super) struct Card {
    pub(super) id: &'static str,
    pub(super) value: String,
    pub(super) label: String,
    pub(super) link: &'static str,
}

pub(super) fn card(id: &'static str, value: impl ToString, label: impl Into<String>) -> Card {
    Card { id, value: value.to_string(), label: label.into(), link: "" }
}

pub(super) fn linked(mut card: Card, link: &'static str) -> Card {
    card.link = link;
    card
}

/// A row of the history.
pub(super) struct Entry {
    pub(super) when: String,
    pub(super) subject: String,
    pub(super) what: String,
    pub(super) why: String,
    /// The name of the token of the caller; empty if the node acted by itself.
    pub(super) actor: String,
}

pub(super) fn entries(history: Vec<HistoryEntry>) -> Vec<Entry> {
    history
        .into_iter()
        .map(|h| Entry {
            when: when(h.at),
            subject: h.subject,
            what: h.what.into(),
            why: h.why,
            actor: h.actor.unwrap_or_default(),
        })
        .collect()
}

/// `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Money rounded to cents; the API has the exact micros.
pub(super) fn money(amount: Micros) -> String {
    let cents = (i128::from(amount.0) + 5_000).div_euclid(10_000);
    format!("{}.{:02}", cents.div_euclid(100), cents.rem_euclid(100))
}

/// `2026-11-23 15:04:05`, in UTC.
pub(super) fn when(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// When something is retried: a time in the future, rounded up to a second, in UTC.
pub(super) fn next_retry(at: Timestamp, now: Timestamp) -> String {
    if at <= now {
        return "next retry as soon as a worker is free".to_owned();
    }
    let rounded_up = at.plus(std::time::Duration::from_micros(999_999));
    format!("next retry at {} UTC", when(rounded_up))
}

/// `15:04`, in UTC.
pub(super) fn clock(micros: f64) -> String {
    let text = Timestamp(micros as i64).to_string();
    text.get(11..16).unwrap_or(&text).to_owned()
}

/// `3 min`, `4.2 s`.
pub(super) fn duration(duration: std::time::Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// The text and the color class of a state.
pub(super) fn refresh(state: RefreshState) -> (&'static str, &'static str) {
    match state {
        RefreshState::Scheduled => ("scheduled", "busy"),
        RefreshState::Processing => ("processing", "busy"),
        RefreshState::Halted => ("halted", "warn"),
        RefreshState::Completed => ("completed", "good"),
        RefreshState::Failed => ("failed", "bad"),
        RefreshState::Held => ("held", "warn"),
    }
}

pub(super) fn snapshot(state: SnapshotState) -> (&'static str, &'static str) {
    match state {
        SnapshotState::Held => ("held", "warn"),
        SnapshotState::Published => ("published", "good"),
        SnapshotState::Rejected => ("rejected", "bad"),
    }
}

pub(super) fn run(state: RunState) -> (&'static str, &'static str) {
    match state {
        RunState::Active => ("active", "busy"),
        RunState::Completed => ("completed", "good"),
        RunState::Failed => ("failed", "bad"),
        RunState::Held => ("held", "warn"),
    }
}

pub(super) fn task(state: TaskState) -> (&'static str, &'static str) {
    match state {
        TaskState::Queued => ("queued", "busy"),
        TaskState::Running => ("running", "busy"),
        TaskState::Done => ("done", "good"),
        TaskState::Failed => ("failed", "bad"),
        TaskState::Held => ("held", "warn"),
    }
}

pub(super) fn verdict(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Passed => ("passed", "good"),
        Verdict::Suspect => ("suspect", "warn"),
        Verdict::Failed => ("failed", "bad"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_rounded_to_the_nearest_cent() {
        assert_eq!(money(Micros(4_999)), "0.00");
        assert_eq!(money(Micros(5_000)), "0.01");
        assert_eq!(money(Micros(100_000_000)), "100.00");
        assert_eq!(money(Micros(i64::MAX)), "9223372036854.78");
    }

    #[test]
    fn times_are_short() {
        let at: Timestamp = "2026-11-23T15:04:05.678Z".parse().unwrap();
        assert_eq!(when(at), "2026-11-23 15:04:05");
        assert_eq!(clock(at.0 as f64), "15:04");
    }

    #[test]
    fn the_next_retry_is_in_the_future() {
        let now: Timestamp = "2026-11-23T15:04:05.2Z".parse().unwrap();
        let at = now.plus(std::time::Duration::from_millis(500));
        assert_eq!(next_retry(at, now), "next retry at 2026-11-23 15:04:06 UTC");
        for due in [now, Timestamp(0)] {
            assert_eq!(next_retry(due, now), "next retry as soon as a worker is free");
        }
    }
}
