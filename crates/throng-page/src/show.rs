//! Formats values for the pages. Pure.

use throng_api::{
    ActivationRun, ActivationRunState, ActivationTaskState, ActivationVerdict,
    AudienceRefreshState, AudienceSnapshotState, BulkOffer, BulkOperation, HistoryItem,
};
pub(crate) use throng_model::count;
use throng_model::{Micros, Timestamp};

/// A value with a label, shown in a box.
pub(crate) struct Card {
    pub(crate) id: &'static str,
    pub(crate) value: String,
    pub(crate) label: String,
    pub(crate) link: &'static str,
    /// Whether the value is a text, which is not shown in the large type of numbers.
    pub(crate) is_text: bool,
}

pub(crate) fn card(id: &'static str, value: impl ToString, label: impl Into<String>) -> Card {
    Card { id, value: value.to_string(), label: label.into(), link: "", is_text: false }
}

/// A card whose value is a text.
pub(crate) fn text_card(id: &'static str, value: String, label: &str) -> Card {
    Card { is_text: true, ..card(id, value, label) }
}

pub(crate) fn linked(mut card: Card, link: &'static str) -> Card {
    card.link = link;
    card
}

/// A button that sends a request after a confirmation.
pub(crate) struct Action {
    pub(crate) label: &'static str,
    /// The path of the request.
    pub(crate) post: String,
    /// The body of the request.
    pub(crate) body: String,
    /// The question, with the numbers that the operation is about.
    pub(crate) confirm: String,
}

/// The buttons of operations on all objects of a filtered list.
pub(crate) fn bulk(offers: &[BulkOffer]) -> Vec<Action> {
    let action = |offer: &BulkOffer| Action {
        label: match offer.operation {
            BulkOperation::RequeueTasks => "Queue all again",
            BulkOperation::ApproveRuns | BulkOperation::ApproveSnapshots => "Approve all",
            BulkOperation::RejectSnapshots => "Reject all",
        },
        post: offer.operation.path(),
        body: offer.request.to_json(),
        confirm: offer.question.clone(),
    };
    offers.iter().map(action).collect()
}

/// A row of the history.
pub(crate) struct Entry {
    pub(crate) when: String,
    pub(crate) subject: String,
    pub(crate) what: String,
    pub(crate) why: String,
    /// The name of the token of the caller; empty if the node acted by itself.
    pub(crate) actor: String,
}

pub(crate) fn entries(history: &[HistoryItem]) -> Vec<Entry> {
    let entry = |item: &HistoryItem| Entry {
        when: when(item.at),
        subject: item.subject.clone(),
        // Some names of events have spaces, and some underscores; a page has one form of words.
        what: item.what.replace('_', " "),
        why: item.why.clone(),
        actor: item.actor.clone().unwrap_or_default(),
    };
    history.iter().map(entry).collect()
}

/// Money rounded to cents; the API has the exact micros.
pub(crate) fn money(amount: Micros) -> String {
    let cents = (u128::from(amount.0.unsigned_abs()) + 5_000) / 10_000;
    let sign = if amount.0 < 0 && cents > 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

/// As [`money`], of a sum. One that does not fit is the largest amount.
pub(crate) fn sum_of_money(sum: Micros) -> String {
    let at_least = if sum == Micros(i64::MAX) { "at least " } else { "" };
    format!("{at_least}{}", money(sum))
}

/// `2026-11-23 15:04:05`, in UTC.
pub(crate) fn when(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// When something is retried: a time in the future, rounded up to a second, in UTC.
pub(crate) fn next_retry(at: Timestamp, now: Timestamp) -> String {
    if at <= now {
        return "next retry as soon as a worker is free".to_owned();
    }
    let rounded_up = at.plus(std::time::Duration::from_micros(999_999));
    format!("next retry at {} UTC", when(rounded_up))
}

/// `15:04`, in UTC.
pub(crate) fn clock(micros: f64) -> String {
    let text = Timestamp(micros as i64).to_string();
    text.get(11..16).unwrap_or(&text).to_owned()
}

/// `3 min`, `4.2 s`.
pub(crate) fn duration(duration: std::time::Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// The text and the color class of a state.
pub(crate) fn refresh(state: AudienceRefreshState) -> (&'static str, &'static str) {
    match state {
        AudienceRefreshState::Scheduled => ("scheduled", "busy"),
        AudienceRefreshState::Processing => ("processing", "busy"),
        AudienceRefreshState::Halted => ("halted", "warn"),
        AudienceRefreshState::Completed => ("completed", "good"),
        AudienceRefreshState::Failed => ("failed", "bad"),
        AudienceRefreshState::Held => ("held", "warn"),
    }
}

pub(crate) fn snapshot(state: AudienceSnapshotState) -> (&'static str, &'static str) {
    match state {
        AudienceSnapshotState::Held => ("held", "warn"),
        AudienceSnapshotState::Published => ("published", "good"),
        // A person has decided: nothing is broken. The state of its audience has the same color.
        AudienceSnapshotState::Rejected => ("rejected", "warn"),
    }
}

pub(crate) fn run(run: &ActivationRun) -> (&'static str, &'static str) {
    match run.state {
        ActivationRunState::Active => ("active", "busy"),
        // All of its rows that were sent were rejected.
        ActivationRunState::Completed if run.sent == 0 && !run.rejected.is_empty() => {
            ("completed", "bad")
        }
        ActivationRunState::Completed => ("completed", "good"),
        ActivationRunState::Failed => ("failed", "bad"),
        ActivationRunState::Held => ("held", "warn"),
    }
}

pub(crate) fn task(state: ActivationTaskState) -> (&'static str, &'static str) {
    match state {
        ActivationTaskState::Queued => ("queued", "busy"),
        ActivationTaskState::Running => ("running", "busy"),
        ActivationTaskState::Done => ("done", "good"),
        ActivationTaskState::Failed => ("failed", "bad"),
        ActivationTaskState::Held => ("held", "warn"),
    }
}

pub(crate) fn verdict(verdict: ActivationVerdict) -> (&'static str, &'static str) {
    match verdict {
        ActivationVerdict::Passed => ("passed", "good"),
        ActivationVerdict::Suspect => ("suspect", "warn"),
        ActivationVerdict::Failed => ("failed", "bad"),
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
        assert_eq!([-4_999, -1_500_000].map(|micros| money(Micros(micros))), ["0.00", "-1.50"]);
    }

    #[test]
    fn events_have_one_form_of_words() {
        let item = |what: &str| HistoryItem {
            at: Timestamp(0),
            subject_kind: "sync".to_owned(),
            subject: "s".to_owned(),
            what: what.to_owned(),
            why: "a_b".to_owned(),
            actor: None,
        };
        let shown = entries(&[item("check_passed"), item("refresh requested")]);
        let words: Vec<&str> = shown.iter().map(|entry| entry.what.as_str()).collect();
        assert_eq!(words, ["check passed", "refresh requested"]);
        assert_eq!(shown[0].why, "a_b");
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
