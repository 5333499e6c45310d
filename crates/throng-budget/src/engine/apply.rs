//! One event after the other: is it new, is it the first of its insertion, what does it cost.

use throng_model::{MoneyError, Timestamp};

use crate::{EventKind, EventRef, Pricing};

use super::account::Outcome;
use super::dedupe::{IdKind, id_of, plain_id_of};
use super::ids::Id;
use super::pooled::Pooled;
use super::spend::Amount;
use super::survival::bucket_of;
use super::{Applied, Engine, Place, Tally};

/// So many events are looked up before the first of them is applied: enough to keep the memory busy,
/// few enough for what comes to stay in the first cache.
const AHEAD: usize = 32;

/// What stands for an event, and for what it says of an insertion, among the ids that are known.
#[derive(Debug, Clone, Copy, Default)]
struct EventIds {
    event: Id,
    /// Of an insertion: that it counts. Of an outcome: that its insertion has had one.
    link: Option<Id>,
}

impl Engine {
    /// Applies one event. `logged_at` is the record's time in the log.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`]; the ad group's money is as before.
    pub fn apply<'a>(
        &mut self,
        event: impl Into<EventRef<'a>>,
        logged_at: Timestamp,
    ) -> Result<Applied, MoneyError> {
        let event = event.into();
        let place = self.places.get(event.ad_group.as_bytes()).copied();
        self.apply_at(place, self.ids_of(place, &event), &event, logged_at)
    }

    /// Applies events in their order, each with its record's time in the log; the same as
    /// [`Engine::apply`] one by one, and some times faster: while one is applied, what is known of the
    /// ids of those some places behind it is on its way from memory.
    pub fn apply_all(&mut self, events: &[(EventRef<'_>, Timestamp)]) -> Tally {
        let mut tally = Tally::default();
        let mut ahead = [(None, EventIds::default()); AHEAD];
        // Events of a message are often of one ad group. None has an empty name.
        let (mut name, mut place): (&[u8], _) = (&[], None);
        // In step `n` event `n` is looked up, and the one `AHEAD` places before it is applied.
        for step in 0..events.len() + AHEAD {
            let due = ahead[step % AHEAD];
            if let Some((event, _)) = events.get(step) {
                if event.ad_group.as_bytes() != name {
                    name = event.ad_group.as_bytes();
                    place = self.places.get(name).copied();
                }
                let ids = self.ids_of(place, event);
                ahead[step % AHEAD] = (place, ids);
                self.seen.prefetch(ids.event);
                ids.link.into_iter().for_each(|id| self.seen.prefetch(id));
            }
            let Some((event, logged_at)) = step.checked_sub(AHEAD).and_then(|n| events.get(n))
            else {
                continue;
            };
            match self.apply_at(due.0, due.1, event, *logged_at) {
                Ok(Applied::Counted) => {
                    tally.counted += 1;
                    let ignored =
                        event.inserted_at.is_some() && event.plausible_inserted_at().is_none();
                    tally.inserted_at_ignored += u64::from(ignored);
                }
                Ok(Applied::Duplicate) => tally.duplicates += 1,
                Ok(Applied::Repeated) => tally.repeated += 1,
                Ok(Applied::UnknownAdGroup | Applied::TooOld) | Err(_) => tally.rejected += 1,
            }
        }
        tally
    }

    fn ids_of(&self, place: Option<Place>, event: &EventRef<'_>) -> EventIds {
        let Some(Place { account, seed }) = place else { return EventIds::default() };
        let kind = event.kind_number;
        let id = id_of(seed, IdKind::Event(kind), event.id.as_bytes());
        let insertion = event.insertion_id.as_bytes();
        let link = (!insertion.is_empty()).then(|| match event.kind() {
            Some(EventKind::Insertion) => {
                let price_since = self.accounts[account].prices.at(event.at).since;
                id_of(seed, IdKind::Insertion { price_since }, insertion)
            }
            _ => id_of(seed, IdKind::Outcome(kind), insertion),
        });
        EventIds { event: id, link }
    }

    fn apply_at(
        &mut self,
        place: Option<Place>,
        ids: EventIds,
        event: &EventRef<'_>,
        logged_at: Timestamp,
    ) -> Result<Applied, MoneyError> {
        let Some(place) = place else {
            return Ok(Applied::UnknownAdGroup);
        };
        if self.seen.forgot(event.at) {
            return Ok(Applied::TooOld);
        }
        let pricing = self.accounts[place.account].config.pricing;
        match (event.kind(), pricing) {
            (Some(EventKind::Insertion), _) => self.apply_insertion(place, ids, event, logged_at),
            (Some(EventKind::Impression), Pricing::PerImpression)
            | (Some(EventKind::Click), Pricing::PerClick) => {
                self.apply_outcome(place, ids, event, logged_at)
            }
            // Impressions of ad groups paid by click earn nothing, and the other way round.
            (Some(EventKind::Impression | EventKind::Click) | None, _) => {
                if self.is_duplicate(ids, event) {
                    return Ok(Applied::Duplicate);
                }
                self.seen.insert(ids.event, event.at, logged_at);
                let first = ids.link.is_none_or(|link| self.seen.insert(link, event.at, logged_at));
                let once = self.accounts[place.account].config.once_per_insertion;
                Ok(if once && !first { Applied::Repeated } else { Applied::Counted })
            }
        }
    }

    fn is_duplicate(&self, ids: EventIds, event: &EventRef<'_>) -> bool {
        let plain = || plain_id_of(event.id.as_bytes());
        self.seen.contains(ids.event, event.at)
            || self.seen.has_plain() && self.seen.contains(plain(), event.at)
    }

    fn pooled(&mut self, pricing: Pricing) -> &mut Pooled {
        match pricing {
            Pricing::PerImpression => &mut self.pooled_impressions,
            Pricing::PerClick => &mut self.pooled_clicks,
        }
    }

    fn apply_insertion(
        &mut self,
        place: Place,
        ids: EventIds,
        event: &EventRef<'_>,
        logged_at: Timestamp,
    ) -> Result<Applied, MoneyError> {
        if self.is_duplicate(ids, event) {
            return Ok(Applied::Duplicate);
        }
        let account = &mut self.accounts[place.account];
        if !account.insertion_fits(event.at) {
            // It is not remembered: it may fit another time.
            return Err(MoneyError::Overflow);
        }
        let pricing = account.config.pricing;
        self.seen.insert(ids.event, event.at, logged_at);
        // An insertion that is reported under two ids is there twice; it has one outcome.
        let linked = ids.link.is_some_and(|link| self.seen.insert(link, event.at, logged_at));
        let outcome = IdKind::Outcome(paid_kind(pricing).number());
        let came_before = linked
            && self
                .seen
                .contains(id_of(place.seed, outcome, event.insertion_id.as_bytes()), event.at);
        self.accounts[place.account].insertion(event.at, linked, came_before)?;
        self.pooled(pricing).insertion(event.at);
        Ok(Applied::Counted)
    }

    fn apply_outcome(
        &mut self,
        place: Place,
        ids: EventIds,
        event: &EventRef<'_>,
        logged_at: Timestamp,
    ) -> Result<Applied, MoneyError> {
        if self.is_duplicate(ids, event) {
            return Ok(Applied::Duplicate);
        }
        // Anybody can write any time there; one that cannot be true must not be learned from.
        let inserted_at = event.plausible_inserted_at();
        let known = ids.link.and_then(|_| self.price_of_insertion(place, event));
        let account = &self.accounts[place.account];
        // An event of the future does not have a price of the future.
        let price = known.unwrap_or_else(|| {
            account.prices.at(inserted_at.unwrap_or(event.at.min(logged_at))).amount
        });
        if !account.spend.fits(price) {
            return Err(MoneyError::Overflow);
        }
        let (pricing, once) = (account.config.pricing, account.config.once_per_insertion);
        self.seen.insert(ids.event, event.at, logged_at);
        let first = ids.link.is_none_or(|link| self.seen.insert(link, event.at, logged_at));
        if once && !first {
            return Ok(Applied::Repeated);
        }
        self.accounts[place.account].outcome(&Outcome {
            at: event.at,
            inserted_at,
            logged_at,
            price,
            named: ids.link.is_some(),
            settles: first && known.is_some(),
        })?;
        if let Some(inserted_at) = inserted_at {
            let delay = logged_at.0.saturating_sub(inserted_at.0);
            if self.accounts[place.account].learns(delay) {
                self.pooled(pricing).outcome(inserted_at, bucket_of(delay), logged_at);
            }
        }
        Ok(Applied::Counted)
    }

    /// The price that the insertion of an outcome was made with; `None` if the insertion is not known.
    fn price_of_insertion(&self, place: Place, event: &EventRef<'_>) -> Option<Amount> {
        let insertion = event.insertion_id.as_bytes();
        let prices = self.accounts[place.account].prices.all();
        let made_with = |price_since| {
            let id = id_of(place.seed, IdKind::Insertion { price_since }, insertion);
            self.seen.contains(id, event.at)
        };
        prices.iter().rev().find(|price| made_with(price.since)).map(|price| price.amount)
    }
}

/// The kind of event that is paid for.
fn paid_kind(pricing: Pricing) -> EventKind {
    match pricing {
        Pricing::PerImpression => EventKind::Impression,
        Pricing::PerClick => EventKind::Click,
    }
}
