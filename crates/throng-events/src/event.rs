//! Events of ad servers, their limits, and the checks of one event. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use throng_model::{AdGroupName, Timestamp, edit_distance};

use crate::missing_id::is_missing_id;
use crate::money::{EventMoney, MoneyProblem, placement_problem};
use crate::time_unit::unit_of;

/// The longest id.
pub const MAX_ID_BYTES: usize = 128;
/// Events further in the future are rejected: the sender's clock is wrong.
pub const MAX_AHEAD: Duration = Duration::from_secs(5 * 60);

/// An `inserted_at` longer before its event than this, or after it, is ignored: the event counts, and no
/// delay is learned from it.
pub const MAX_INSERTION_AGE: Duration = Duration::from_secs(24 * 3600);
/// The longest line of NDJSON. It bounds what the parser allocates for one line.
pub const MAX_LINE_BYTES: usize = 64 << 10;
/// The most problems of one request that are listed; more are only counted.
pub const MAX_PROBLEMS: usize = 1_000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// An ad was chosen and put into a response.
    Insertion,
    /// It was seen.
    Impression,
    /// It was clicked.
    Click,
}

impl EventKind {
    /// The number in `throng.events.v1.Kind`.
    #[inline]
    pub fn number(self) -> i32 {
        match self {
            Self::Insertion => 1,
            Self::Impression => 2,
            Self::Click => 3,
        }
    }
}

/// The event of an ad group that is billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BilledEvent {
    /// Every impression.
    Impression,
    /// Every click.
    Click,
}

impl BilledEvent {
    /// The kind of the event.
    #[inline]
    pub fn kind(self) -> EventKind {
        match self {
            Self::Impression => EventKind::Impression,
            Self::Click => EventKind::Click,
        }
    }

    /// The one whose kind has a number in `throng.events.v1.Kind`.
    #[inline]
    pub fn of_number(number: i32) -> Option<Self> {
        [Self::Impression, Self::Click].into_iter().find(|it| it.kind().number() == number)
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unique among the events of its kind and ad group, 1 to [`MAX_ID_BYTES`] bytes.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
    /// To which ad group.
    pub ad_group: AdGroupName,
    /// The insertion that it belongs to.
    pub insertion_id: Option<String>,
    /// When it happened.
    pub at: Timestamp,
    /// On impressions and clicks: when the insertion was made.
    pub inserted_at: Option<Timestamp>,
    /// Its own price and, on insertions, its own rates.
    pub money: EventMoney,
    /// On insertions: where the ad is shown, as the sender names it. Rates are learned by it.
    pub placement: Option<String>,
}

/// Why one event is rejected. The others of the same request are not affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("event {line}: {field}: {message}")]
pub struct EventProblem {
    /// Which event of the request: the line of NDJSON, or the index among protobuf events; from 1.
    pub line: usize,
    /// The field, or `event`.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: String,
}

impl EventProblem {
    pub(crate) fn new(field: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { line: 0, field: field.to_owned(), message: message.into(), help: help.into() }
    }

    /// The same problem, of another event of the request.
    pub fn at_line(mut self, line: usize) -> Self {
        self.line = line;
        self
    }

    fn of_money(problem: MoneyProblem) -> Self {
        Self::new(problem.field, problem.message, problem.help)
    }

    /// The ad group is not in the applied spec. `known`: the names in it, of which a similar one is shown.
    pub fn unknown_ad_group<'a>(name: &str, known: impl Iterator<Item = &'a AdGroupName>) -> Self {
        let help = match nearest(name, known) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "declare it in the spec and apply that first".to_owned(),
        };
        let message = match is_shown(name) {
            true => format!("there is no ad group `{name}` in the applied spec"),
            false => "there is no such ad group in the applied spec".to_owned(),
        };
        Self::new("ad_group", message, help)
    }
}

/// The existing name that `wrong` is probably a typo of: it differs by one or two letters.
fn nearest<'a>(
    wrong: &str,
    names: impl Iterator<Item = &'a AdGroupName>,
) -> Option<&'a AdGroupName> {
    names
        .filter(|name| name.as_str().len().abs_diff(wrong.len()) <= 2)
        .map(|name| (edit_distance(name.as_str(), wrong), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2 && *distance < wrong.len())
        .map(|(_, name)| name)
}

/// The fields of an event in JSON.
pub(crate) const FIELDS: [&str; 11] = [
    "id",
    "kind",
    "ad_group",
    "insertion_id",
    "at",
    "inserted_at",
    "price",
    "cpm",
    "impression_rate",
    "action_rate",
    "placement",
];

/// What is wrong with the events of one request. Memory: that of the first [`MAX_PROBLEMS`] problems.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefusedEvents {
    /// Why events are rejected: the first [`MAX_PROBLEMS`] of them.
    pub problems: Vec<EventProblem>,
    /// How many are rejected.
    pub count: u64,
    /// How many of the valid events have an `inserted_at` that is out of bounds
    /// ([`Event::plausible_inserted_at`]).
    pub inserted_at_ignored: u64,
}

impl RefusedEvents {
    pub(crate) fn add(&mut self, line: usize, problem: EventProblem) {
        self.count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem.at_line(line));
        }
    }
}

/// The events of one request. Memory: at most some 20 bytes for each byte of the request, and that of the problems.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ParsedEvents {
    /// Valid events, each with its line or its index in an array; from 1.
    pub events: Vec<(usize, Event)>,
    /// What is wrong with others.
    pub refused: RefusedEvents,
}

impl ParsedEvents {
    pub(crate) fn add(&mut self, line: usize, parsed: Result<Event, EventProblem>) {
        match parsed {
            Ok(event) => {
                self.refused.inserted_at_ignored +=
                    u64::from(is_ignored(event.inserted_at, event.at));
                self.events.push((line, event));
            }
            Err(problem) => self.refused.add(line, problem),
        }
    }
}

pub(crate) fn missing(field: &str) -> EventProblem {
    EventProblem::new(field, "is missing", format!("every event has `{field}`"))
}

/// Whether a message may have a text of an event: it looks like a name that somebody has chosen. Others may be a value
/// of another column: an address, a telephone number, or the id of a user or device.
pub(crate) fn is_shown(text: &str) -> bool {
    let is_in_names = |byte: u8| byte.is_ascii_alphanumeric() || b"-_. ".contains(&byte);
    // Dates have eight.
    let has_few_digits = text.bytes().filter(u8::is_ascii_digit).count() <= 8;
    let has_letters = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    text.len() <= 40 && has_letters && has_few_digits && text.bytes().all(is_in_names)
}

/// `shown`: what it has instead, unless that may be a value of another column.
pub(crate) fn unknown_kind(shown: Option<&str>) -> EventProblem {
    let message = match shown {
        Some(shown) => format!("`{shown}` is not a kind of event"),
        None => "is not a kind of event".to_owned(),
    };
    EventProblem::new("kind", message, "use insertion, impression or click")
}

pub(crate) fn ad_group(text: &str) -> Result<AdGroupName, EventProblem> {
    AdGroupName::new(text).map_err(|error| {
        let message = error.to_string();
        let message = match message.rsplit_once("is not a name") {
            Some((_, rule)) if !is_shown(text) => format!("is not a name{rule}"),
            _ => message,
        };
        EventProblem::new("ad_group", message, "send the ad group's name in the spec")
    })
}

/// The event, if it is valid.
pub(crate) fn checked(event: Event) -> Result<Event, EventProblem> {
    let insertion_id = event.insertion_id.as_deref().map(str::as_bytes);
    let placement = event.placement.as_deref().unwrap_or_default().as_bytes();
    check(event.id.as_bytes(), insertion_id, event.kind, event.money, placement)?;
    Ok(event)
}

/// Checks the fields of an event for what is the same in every form that it may have. `placement` is empty if it has
/// none.
pub(crate) fn check(
    id: &[u8],
    insertion_id: Option<&[u8]>,
    kind: EventKind,
    money: EventMoney,
    placement: &[u8],
) -> Result<(), EventProblem> {
    let length = |field: &str, text: &[u8]| {
        if text.is_empty() {
            Err(EventProblem::new(field, "is empty", "send a text that no other event has"))
        } else if text.len() > MAX_ID_BYTES {
            Err(EventProblem::new(
                field,
                format!("is {} bytes long", text.len()),
                format!("use at most {MAX_ID_BYTES}"),
            ))
        } else {
            Ok(())
        }
    };
    length("id", id)?;
    if is_missing_id(id) {
        let message = "is a text that senders write where they have no id";
        let help = "send an id that no other event has: of events with the same id only the first one counts";
        return Err(EventProblem::new("id", message, help));
    }
    if let Some(insertion_id) = insertion_id {
        length("insertion_id", insertion_id)?;
    }
    // Most events carry neither.
    if money.is_none() && placement.is_empty() {
        return Ok(());
    }
    let is_insertion = kind == EventKind::Insertion;
    let placement = || placement_problem(placement, is_insertion);
    match money.problem(is_insertion).or_else(placement) {
        Some(problem) => Err(EventProblem::of_money(problem)),
        None => Ok(()),
    }
}

/// `inserted_at` of an event that happened `at`, unless it is out of bounds.
#[inline]
pub fn plausible(inserted_at: Option<Timestamp>, at: Timestamp) -> Option<Timestamp> {
    const OLDEST: i64 = MAX_INSERTION_AGE.as_micros() as i64;
    inserted_at.filter(|inserted| (0..=OLDEST).contains(&at.0.saturating_sub(inserted.0)))
}

/// Whether `inserted_at` of an event that happened `at` is out of bounds.
#[inline]
pub(crate) fn is_ignored(inserted_at: Option<Timestamp>, at: Timestamp) -> bool {
    inserted_at.is_some() && plausible(inserted_at, at).is_none()
}

/// Checks that an event that happened `at` is neither in the future nor older than ids are remembered: it could count
/// twice.
pub(crate) fn check_time(
    at: Timestamp,
    now: Timestamp,
    dedupe_window: Duration,
) -> Result<(), EventProblem> {
    if now.since(at) > dedupe_window {
        let hours = dedupe_window.as_secs() / 3_600;
        return Err(EventProblem::new(
            "at",
            format!("{at} is more than {hours} hours ago"),
            match unit_of(at.0) {
                Some(0 | 1) => "send microseconds since 1970",
                _ => "send events sooner, or raise node.dedupe_hours: later ones could count twice",
            },
        ));
    }
    if at.since(now) > MAX_AHEAD {
        return Err(EventProblem::new(
            "at",
            format!("{at} is more than 5 minutes in the future"),
            match unit_of(at.0) {
                Some(3) => "send microseconds since 1970",
                _ => "set the ad server's clock",
            },
        ));
    }
    Ok(())
}

impl Event {
    /// When the insertion was made, if that is plausible: not after the event and at most
    /// [`MAX_INSERTION_AGE`] before it. Otherwise the event counts as one without `inserted_at`.
    pub fn plausible_inserted_at(&self) -> Option<Timestamp> {
        plausible(self.inserted_at, self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_recognized() {
        let names = ["summer-shoes", "winter-shoes", "hat"].map(|n| AdGroupName::new(n).unwrap());
        let near = |wrong: &str| nearest(wrong, names.iter()).map(|n| n.as_str().to_owned());
        assert_eq!(near("sumer-shoes").as_deref(), Some("summer-shoes"));
        assert_eq!(near("winter-shoe").as_deref(), Some("winter-shoes"));
        assert_eq!(near("hat1").as_deref(), Some("hat"));
        assert_eq!(near("gloves"), None);
        assert_eq!(near("x"), None);
    }
}
