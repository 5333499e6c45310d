//! Why an ad group has spent more than its budget: each outcome that is paid for past the budget is attributed to one
//! cause by when its insertion was made, at the moment at which the outcome is applied.
//!
//! What is needed for that is known to the replica that publishes the figures: when frames were published, and whether
//! the ad group was open in them. What another replica published is not known here, so that the cause of what follows
//! from it is not known either. Only the sums are in checkpoints.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use throng_model::{BudgetDay, Micros, OverdeliveryCauses, Timestamp};
use throng_rates::Timeline;

use crate::wire;

/// The width of the windows in which spend is remembered.
const WINDOW_MICROS: i64 = 10_000_000;
/// Without a frame for longer than this, what gates had is not known: another replica may have published.
const MAX_FRAME_GAP: Duration = Duration::from_secs(70);
/// Changes between open and closed that are remembered. Those of ad groups that flap are soon forgotten.
const MAX_CHANGES: usize = 256;
/// Windows of spend that are remembered of a day: two hours.
const MAX_WINDOWS: usize = 720;
/// Days of which spend is remembered: an event of yesterday may come after one of today.
const MAX_SPENT_DAYS: usize = 2;
/// Days whose sums are kept, as those whose spend is reported.
const MAX_DAYS: usize = 8;
/// From this part of the budget on it is remembered when spend happened.
const REMEMBERED_FROM: (i128, i128) = (4, 5);

/// What gates were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Published {
    Unknown,
    Open,
    Closed,
}

/// A frame that says something else than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    at: Timestamp,
    /// The frame before it.
    before: Timestamp,
    published: Published,
}

/// The spend of a day by the windows in which it happened, as far as it is remembered.
#[derive(Debug, Clone)]
struct SpentDay {
    day: BudgetDay,
    /// From this window on all spend is remembered.
    complete_from: i64,
    windows: Timeline<i64>,
}

/// The sums of a day, and the budget past which they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct OverDay {
    budget: i64,
    causes: OverdeliveryCauses,
}

/// An outcome that is paid for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paid {
    /// The budget day on which it happened, and when that ends.
    pub(super) day: BudgetDay,
    pub(super) day_end: Timestamp,
    pub(super) at: Timestamp,
    pub(super) logged_at: Timestamp,
    /// When its insertion was made, if that is known.
    pub(super) inserted_at: Option<Timestamp>,
    /// The spend of the day before it and with it.
    pub(super) before: i64,
    pub(super) after: i64,
    /// What it costs above the price of its insertion; `None` if that is not known.
    pub(super) above_price: Option<i64>,
}

/// What is attributed to a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Events,
    Feed,
    Prediction,
    Burst,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Causes {
    changes: VecDeque<Change>,
    /// The last frame.
    last: Option<Timestamp>,
    spent: VecDeque<SpentDay>,
    days: BTreeMap<BudgetDay, OverDay>,
}

impl Causes {
    /// A frame is published. `open`: whether the ad group is open in it.
    pub(super) fn publish(&mut self, at: Timestamp, open: bool) {
        let published = if open { Published::Open } else { Published::Closed };
        let last = self.last.replace(at);
        // The clock was set back: what came before cannot be ordered.
        if last.is_some_and(|last| at < last) {
            self.changes.clear();
        }
        let before = last.filter(|last| *last <= at).unwrap_or(at);
        if at.since(before) > MAX_FRAME_GAP {
            self.push(Change { at: before, before, published: Published::Unknown });
        }
        self.push(Change { at, before, published });
    }

    /// What gates have is not known until the next frame: they have ignored the frames so far, or have them from another
    /// replica.
    pub(super) fn forget_frames(&mut self) {
        self.changes.clear();
        self.last = None;
    }

    fn push(&mut self, change: Change) {
        if self.changes.back().is_some_and(|last| last.published == change.published) {
            return;
        }
        self.changes.push_back(change);
        if self.changes.len() > MAX_CHANGES {
            self.changes.pop_front();
        }
    }

    /// An outcome is counted. `budget`: that of its day.
    pub(super) fn count(&mut self, paid: &Paid, budget: i64) {
        let over = |spent: i64| spent.saturating_sub(budget).max(0);
        let given_away = over(paid.after).saturating_sub(over(paid.before));
        if given_away > 0 {
            // Whenever the insertion was made, it was not expected to cost more than its price.
            let price = paid.above_price.map(|above| above.clamp(0, given_away));
            let cause = price.and_then(|_| self.cause(paid, budget));
            self.add(paid.day, budget, price.unwrap_or(0), given_away, cause);
        }
        let (part, whole) = REMEMBERED_FROM;
        if i128::from(paid.after) * whole >= i128::from(budget) * part {
            self.remember(paid);
        }
    }

    fn add(
        &mut self,
        day: BudgetDay,
        budget: i64,
        price: i64,
        given_away: i64,
        cause: Option<Cause>,
    ) {
        let of_day = self.days.entry(day).or_default();
        // What was given away of another budget has no known cause.
        if of_day.budget != budget {
            *of_day = OverDay { budget, ..OverDay::default() };
        }
        let add = |to: &mut Micros, amount: i64| *to = Micros(to.0.saturating_add(amount));
        let causes = &mut of_day.causes;
        add(&mut causes.price_change, price);
        let rest = given_away.saturating_sub(price);
        match cause {
            Some(Cause::Events) => add(&mut causes.events, rest),
            Some(Cause::Feed) => add(&mut causes.feed, rest),
            Some(Cause::Prediction) => add(&mut causes.prediction, rest),
            Some(Cause::Burst) => add(&mut causes.burst, rest),
            None => {}
        }
        while self.days.len() > MAX_DAYS {
            self.days.pop_first();
        }
    }

    /// Why the insertion of an outcome past the budget was made; `None` if that is not known.
    fn cause(&self, paid: &Paid, budget: i64) -> Option<Cause> {
        let inserted_at = paid.inserted_at?;
        // This replica may have stopped publishing, and another one may publish now.
        if inserted_at.since(self.last?) > MAX_FRAME_GAP {
            return None;
        }
        let next = self.changes.partition_point(|change| change.at <= inserted_at);
        match self.changes.get(next.checked_sub(1)?)?.published {
            Published::Unknown => None,
            Published::Closed => Some(Cause::Feed),
            Published::Open => {
                if self.was_spent(paid, inserted_at, budget)? {
                    return Some(Cause::Events);
                }
                // The last frame in which it was open.
                let last_open = match self.changes.get(next) {
                    Some(change) => change.before,
                    None => self.last?,
                };
                let is_burst = inserted_at >= last_open;
                Some(if is_burst { Cause::Burst } else { Cause::Prediction })
            }
        }
    }

    /// Whether what had happened before the window of a moment was the whole budget already, whenever it was
    /// logged; `None` if that is not known.
    fn was_spent(&self, paid: &Paid, moment: Timestamp, budget: i64) -> Option<bool> {
        let (from, end) = (window_of(moment), window_of(paid.day_end));
        let known = self.spent.iter().find(|spent| spent.day == paid.day);
        let since = known.map_or(0, |known| {
            let later = known.windows.iter().rev().take_while(|(number, _)| *number >= from);
            let of_day = later.filter(|(number, _)| *number < end);
            of_day.fold(0i64, |sum, (_, spent)| sum.saturating_add(*spent))
        });
        // Too much where spend after that moment is not remembered.
        let happened = paid.before.saturating_sub(since);
        if happened < budget {
            return Some(false);
        }
        known.is_some_and(|known| known.complete_from <= from).then_some(true)
    }

    fn remember(&mut self, paid: &Paid) {
        let known = self.spent.iter().position(|spent| spent.day == paid.day);
        let place = known.unwrap_or_else(|| {
            // What was logged earlier had happened by then.
            let complete_from = window_of(paid.logged_at).saturating_add(1);
            let windows = Timeline::default();
            self.spent.push_back(SpentDay { day: paid.day, complete_from, windows });
            if self.spent.len() > MAX_SPENT_DAYS {
                self.spent.pop_front();
            }
            self.spent.len() - 1
        });
        let Some(spent) = self.spent.get_mut(place) else { return };
        let amount = paid.after.saturating_sub(paid.before);
        let window = spent.windows.entry(window_of(paid.at));
        *window = window.saturating_add(amount);
        while spent.windows.len() > MAX_WINDOWS {
            let Some((number, _)) = spent.windows.pop_oldest() else { break };
            spent.complete_from = spent.complete_from.max(number.saturating_add(1));
        }
    }

    /// The budget past which the sums of a day are, if there are any.
    pub(super) fn budget_of(&self, day: BudgetDay) -> Option<i64> {
        self.days.get(&day).map(|of_day| of_day.budget)
    }

    /// The sums of each day. `today` has them only if they are past its budget.
    pub(super) fn of_days(
        &self,
        today: (BudgetDay, i64),
    ) -> impl Iterator<Item = (BudgetDay, OverdeliveryCauses)> {
        let counts = move |(day, of_day): &(&BudgetDay, &OverDay)| {
            **day != today.0 || of_day.budget == today.1
        };
        self.days.iter().filter(counts).map(|(day, of_day)| (*day, of_day.causes))
    }

    /// Forgets everything: days are those of another time zone now.
    pub(super) fn clear(&mut self) {
        self.spent.clear();
        self.days.clear();
    }

    /// Takes over what another replica has attributed. Both have attributed the same outcomes, each as far as it knew why,
    /// so that the larger one of two sums counts.
    pub(super) fn merge(&mut self, other: &Self) {
        for (day, of_other) in &other.days {
            let of_day = self.days.entry(*day).or_insert(*of_other);
            if of_day.budget != of_other.budget {
                continue;
            }
            let (ours, theirs) = (of_day.causes.amounts(), of_other.causes.amounts());
            let larger = std::array::from_fn(|place| ours[place].max(theirs[place]));
            of_day.causes = OverdeliveryCauses::of_amounts(larger);
        }
        while self.days.len() > MAX_DAYS {
            self.days.pop_first();
        }
    }

    pub(super) fn save(&self) -> Vec<wire::OverDay> {
        let saved = self.days.iter().map(|(day, of_day)| wire::OverDay {
            day: day.0,
            budget: of_day.budget,
            amounts: of_day.causes.amounts().iter().map(|amount| amount.0).collect(),
        });
        saved.collect()
    }

    /// Restores what [`save`](Self::save) returned. `None` if it is invalid.
    pub(super) fn load(saved: Vec<wire::OverDay>) -> Option<Self> {
        let mut days = BTreeMap::new();
        for of_day in saved {
            let amounts: [i64; 5] = of_day.amounts.try_into().ok()?;
            let causes = OverdeliveryCauses::of_amounts(amounts.map(Micros));
            days.insert(BudgetDay(of_day.day), OverDay { budget: of_day.budget, causes });
        }
        Some(Self { days, ..Self::default() })
    }
}

fn window_of(at: Timestamp) -> i64 {
    at.0.div_euclid(WINDOW_MICROS)
}

#[cfg(test)]
mod tests;
