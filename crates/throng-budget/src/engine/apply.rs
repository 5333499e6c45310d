//! Applies events: whether an event is new, whether it is the first of its insertion, and what it costs.

use throng_events::plausible;
use throng_model::{Amount, MoneyError, Timestamp};
use throng_rates::{NO_PLACEMENT, Pooled, Terms, WINDOW_MICROS, survival::bucket_of};

use crate::{BilledEvent, EventKind, EventRef, MAX_PRICE_NANOS};

use super::account::{Account, Insertion, Outcome, OutcomeLink};
use super::dedupe::{IdKind, id_of, legacy_id_of};
use super::ids::Id;
use super::open::OpenInsertion;
use super::prices::Price;
use super::{AccountKey, Engine, EventCounts, EventEffect};

/// How many events are looked up before the first of them is applied: enough to hide the latency of memory,
/// few enough for the lines to stay in the first cache.
const AHEAD: usize = 16;
/// For how many events ad groups are looked up at once: what each waits for in memory is loaded at the same time.
const GROUP: usize = 8;
/// How many events before its own an ad group is loaded, what it points to, and the window of the insertion: later, as
/// these have some thirty lines.
const NEAR: [usize; 3] = [8, 4, 2];

/// The hashes of an event's id and of its insertion's id.
#[derive(Debug, Clone, Copy, Default)]
struct EventIds {
    event: Id,
    /// Of an insertion: that it counts. Of an outcome: that its insertion has had one.
    link: Option<Id>,
    /// Of an insertion and of a billed event: by which the insertion is open, and by which it is known that it
    /// has had its outcome.
    open: Option<Id>,
    /// Of an outcome, if no insertion is open and there is only one price: that its insertion counts.
    counted: Option<Id>,
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
    ) -> Result<EventEffect, MoneyError> {
        let event = event.into();
        let key = self.account_keys.get(event.ad_group.as_bytes()).copied();
        let account = key.map(|key| &self.accounts[key.account]);
        // All at once, before they are waited for one after the other.
        account.into_iter().for_each(Account::prefetch);
        let ids = self.ids_of(key, &event);
        self.prefetch(ids);
        account.into_iter().for_each(Account::prefetch_newest);
        self.apply_at(key, ids, &event, logged_at)
    }

    /// Loads the table entries of an event's ids.
    #[inline]
    fn prefetch(&self, ids: EventIds) {
        self.seen.prefetch(ids.event);
        ids.link.into_iter().chain(ids.counted).for_each(|id| self.seen.prefetch(id));
        if let Some(open) = ids.open {
            self.open.prefetch(open);
            if ids.link != ids.open {
                self.seen.prefetch(open);
            }
        }
    }

    /// The ad groups of the next events.
    fn keys_of(&self, events: &[(EventRef<'_>, Timestamp)]) -> [Option<AccountKey>; GROUP] {
        // Events of a message are often of one ad group. None has an empty name.
        let (mut name, mut key): (&[u8], _) = (&[], None);
        let mut keys = [None; GROUP];
        for (found, (event, _)) in keys.iter_mut().zip(events) {
            if event.ad_group.as_bytes() != name {
                name = event.ad_group.as_bytes();
                key = self.account_keys.get(name).copied();
            }
            *found = key;
        }
        // Ids are hashed by them.
        let found = keys.iter().flatten();
        found.for_each(|key| self.accounts[key.account].prefetch_prices());
        keys
    }

    /// Applies events in their order, each with its record's time in the log; the same as [`Engine::apply`] one by one,
    /// and several times faster: meanwhile the table entries of the ids of later ones are loaded from memory.
    pub fn apply_all(&mut self, events: &[(EventRef<'_>, Timestamp)]) -> EventCounts {
        self.apply_each(events, |_, _| {})
    }

    /// As [`Engine::apply_all`]. Calls `each` with the index and the effect of every event, in their order.
    #[inline]
    pub fn apply_each(
        &mut self,
        events: &[(EventRef<'_>, Timestamp)],
        mut each: impl FnMut(usize, &Result<EventEffect, MoneyError>),
    ) -> EventCounts {
        let mut counts = EventCounts::default();
        let (evicted, before) = (self.open.evicted(), [self.not_joined, self.not_learned]);
        let mut ahead = [(None, EventIds::default()); AHEAD];
        let mut keys = [None; GROUP];
        // In step `n` event `n` is looked up, and the one `AHEAD` places before it is applied.
        for step in 0..events.len() + AHEAD {
            let due = ahead[step % AHEAD];
            if let Some((event, _)) = events.get(step) {
                if step % GROUP == 0 {
                    keys = self.keys_of(&events[step..]);
                }
                let key = keys[step % GROUP];
                let ids = self.ids_of(key, event);
                ahead[step % AHEAD] = (key, ids);
                self.prefetch(ids);
            }
            let [near, nearer, nearest] = NEAR.map(|near| {
                let index = step.checked_sub(AHEAD - near)?;
                let (event, _) = events.get(index)?;
                Some((&self.accounts[ahead[index % AHEAD].0?.account], event))
            });
            near.into_iter().for_each(|(account, _)| account.prefetch());
            nearer.into_iter().for_each(|(account, _)| account.prefetch_newest());
            let nearest =
                nearest.and_then(|(it, event)| Some((it, event.plausible_inserted_at()?)));
            nearest.into_iter().for_each(|(account, at)| account.prefetch_window(at));
            let Some(index) = step.checked_sub(AHEAD) else { continue };
            let Some((event, logged_at)) = events.get(index) else { continue };
            let effect = self.apply_at(due.0, due.1, event, *logged_at);
            each(index, &effect);
            match effect {
                Ok(EventEffect::Counted) => {
                    counts.counted += 1;
                    let ignored =
                        event.inserted_at.is_some() && event.plausible_inserted_at().is_none();
                    counts.inserted_at_ignored += u64::from(ignored);
                }
                Ok(EventEffect::Duplicate) => counts.duplicates += 1,
                Ok(EventEffect::Repeated) => counts.repeated += 1,
                Ok(EventEffect::UnknownAdGroup | EventEffect::TooOld) | Err(_) => {
                    counts.rejected += 1
                }
            }
        }
        counts.evicted = self.open.evicted() - evicted;
        counts.not_joined = self.not_joined - before[0];
        counts.not_learned = self.not_learned - before[1];
        counts
    }

    fn ids_of(&self, key: Option<AccountKey>, event: &EventRef<'_>) -> EventIds {
        let Some(AccountKey { account, seed }) = key else { return EventIds::default() };
        let kind = event.kind_number;
        let id = id_of(seed, IdKind::Event(kind), event.id.as_bytes());
        let insertion = event.insertion_id.as_bytes();
        if insertion.is_empty() {
            return EventIds { event: id, ..EventIds::default() };
        }
        let outcome = |kind: i32| id_of(seed, IdKind::Outcome(kind), insertion);
        match event.kind() {
            Some(EventKind::Insertion) => {
                let Price { since, billed, .. } = self.accounts[account].prices.at(event.at);
                let link = id_of(seed, IdKind::Insertion { price_since: since }, insertion);
                let open = outcome(billed.kind().number());
                EventIds { event: id, link: Some(link), open: Some(open), counted: None }
            }
            _ => {
                let link = Some(outcome(kind));
                let open = link.filter(|_| self.billed_by(account, event).is_some());
                let price = self.accounts[account].prices.only();
                let price = price.filter(|_| open.is_some() && self.open.len() == 0);
                let counted = price.map(|Price { since, .. }| {
                    id_of(seed, IdKind::Insertion { price_since: since }, insertion)
                });
                EventIds { event: id, link, open, counted }
            }
        }
    }

    /// What an event is, if an insertion of the ad group may have been made to be billed by it.
    fn billed_by(&self, account: usize, event: &EventRef<'_>) -> Option<BilledEvent> {
        let prices = &self.accounts[account].prices;
        BilledEvent::of_number(event.kind_number).filter(|billed| prices.has(*billed))
    }

    fn apply_at(
        &mut self,
        key: Option<AccountKey>,
        ids: EventIds,
        event: &EventRef<'_>,
        logged_at: Timestamp,
    ) -> Result<EventEffect, MoneyError> {
        let Some(key) = key else {
            return Ok(EventEffect::UnknownAdGroup);
        };
        if self.seen.is_forgotten(event.at) {
            return Ok(EventEffect::TooOld);
        }
        if event.kind() == Some(EventKind::Insertion) {
            return self.apply_insertion(key, ids, event, logged_at);
        }
        match self.billed_by(key.account, event) {
            Some(billed) => self.apply_outcome(key, ids, event, billed, logged_at),
            // Impressions of ad groups paid by click earn nothing, and the other way round.
            None => Ok(self.apply_unbilled(key, ids, event, logged_at)),
        }
    }

    fn apply_unbilled(
        &mut self,
        key: AccountKey,
        ids: EventIds,
        event: &EventRef<'_>,
        logged_at: Timestamp,
    ) -> EventEffect {
        if self.is_duplicate(ids, event) {
            return EventEffect::Duplicate;
        }
        self.seen.insert_new(ids.event, event.at, logged_at);
        let first = ids.link.is_none_or(|link| self.seen.insert(link, event.at, logged_at));
        let account = &self.accounts[key.account];
        if first && account.is_by_click() && event.kind() == Some(EventKind::Impression) {
            self.count_impression(key, event, logged_at);
        }
        let once = self.accounts[key.account].config.once_per_insertion;
        if once && !first { EventEffect::Repeated } else { EventEffect::Counted }
    }

    /// Learns the impression rate where clicks are billed.
    fn count_impression(&mut self, key: AccountKey, event: &EventRef<'_>, logged_at: Timestamp) {
        let account = &self.accounts[key.account];
        let insertion = event.insertion_id.as_bytes();
        // Only where it says more than the event: it costs a hash.
        let is_needed = !self.placements.is_empty() || event.inserted_at.is_none();
        let open = Some(insertion).filter(|insertion| is_needed && !insertion.is_empty());
        let billed = account.config.billed.kind().number();
        let open = open.and_then(|insertion| {
            self.open.get(id_of(key.seed, IdKind::Outcome(billed), insertion))
        });
        let inserted_at = event
            .plausible_inserted_at()
            .or_else(|| plausible(open.map(OpenInsertion::at), event.at));
        // As of outcomes: the insertions of an old backlog are not counted as trials.
        let delay = inserted_at.map(|inserted_at| logged_at.0.saturating_sub(inserted_at.0));
        if delay.is_some_and(|delay| !account.is_learned_from(delay)) {
            return;
        }
        let made = inserted_at.unwrap_or(event.at.min(logged_at));
        let placement = open.map_or(NO_PLACEMENT, |open| open.placement);
        match self.pooled_clicks.is_observed(made.0.div_euclid(WINDOW_MICROS)) {
            true => self.accounts[key.account].impression(made, placement),
            false => self.not_learned += 1,
        }
    }

    fn is_duplicate(&self, ids: EventIds, event: &EventRef<'_>) -> bool {
        let legacy = || legacy_id_of(event.id.as_bytes());
        self.seen.contains(ids.event, event.at)
            || self.seen.has_legacy() && self.seen.contains(legacy(), event.at)
    }

    fn pooled(&mut self, billed: BilledEvent) -> &mut Pooled {
        match billed {
            BilledEvent::Impression => &mut self.pooled_impressions,
            BilledEvent::Click => &mut self.pooled_clicks,
        }
    }

    fn apply_insertion(
        &mut self,
        key: AccountKey,
        ids: EventIds,
        event: &EventRef<'_>,
        logged_at: Timestamp,
    ) -> Result<EventEffect, MoneyError> {
        if self.is_duplicate(ids, event) {
            return Ok(EventEffect::Duplicate);
        }
        let account = &mut self.accounts[key.account];
        let (terms, nanos) = account.terms(event.at, event.money);
        if !account.insertion_fits(event.at, terms) {
            // Its id is not remembered: it may fit when it is sent again.
            return Err(MoneyError::Overflow);
        }
        let billed = account.prices.at(event.at).billed;
        self.seen.insert_new(ids.event, event.at, logged_at);
        // An insertion that is reported under two ids counts twice; it has one outcome.
        let linked = ids.link.is_some_and(|link| self.seen.insert(link, event.at, logged_at));
        let open = ids.open.filter(|_| linked);
        let is_settled = open.is_some_and(|id| self.seen.contains(id, event.at));
        let placement = self.placement_of(event);
        self.accounts[key.account].insertion(Insertion {
            at: event.at,
            terms,
            nanos,
            is_settled,
            placement,
            impression_rate: event.money.impression_rate(),
        })?;
        if let Some(id) = open.filter(|_| !is_settled) {
            let Terms { expected, price_nanos } = terms;
            let insertion = OpenInsertion::new(event.at, expected, price_nanos, placement);
            insertion.into_iter().for_each(|insertion| self.open.open(id, insertion));
        }
        let is_learned_from = self.pooled(billed).insertion(event.at, logged_at);
        self.not_learned += u64::from(!is_learned_from);
        Ok(EventEffect::Counted)
    }

    fn apply_outcome(
        &mut self,
        key: AccountKey,
        ids: EventIds,
        event: &EventRef<'_>,
        billed: BilledEvent,
        logged_at: Timestamp,
    ) -> Result<EventEffect, MoneyError> {
        if self.is_duplicate(ids, event) {
            return Ok(EventEffect::Duplicate);
        }
        let open = ids.open.and_then(|id| self.open.get(id));
        // Senders can write any time there; one that is not plausible must not be learned from.
        let inserted_at = event
            .plausible_inserted_at()
            .or_else(|| plausible(open.map(OpenInsertion::at), event.at));
        let known = ids.link.and_then(|_| self.price_of_insertion(key, ids, event, open));
        let account = &self.accounts[key.account];
        let own = event.money.price_nanos().map(|nanos| nanos.clamp(0, MAX_PRICE_NANOS));
        let own = own.map(Amount::of_nanos);
        // An event with a time in the future must not get a price of the future.
        let made = inserted_at.unwrap_or(event.at.min(logged_at));
        let made_with = known.unwrap_or_else(|| account.prices.at(made));
        // Another kind of event was billed when its insertion was made, and it still is for that one.
        if open.is_none() && made_with.billed != billed {
            return Ok(self.apply_unbilled(key, ids, event, logged_at));
        }
        let known = known.map(|known| known.amount);
        let price = own.unwrap_or(made_with.amount);
        if !account.spend.fits(price) {
            return Err(MoneyError::Overflow);
        }
        let once = account.config.once_per_insertion;
        self.seen.insert_new(ids.event, event.at, logged_at);
        let first = ids.link.is_none_or(|link| self.seen.insert(link, event.at, logged_at));
        if once && !first {
            return Ok(EventEffect::Repeated);
        }
        let link = match (ids.open, open, known) {
            (None, ..) => OutcomeLink::None,
            (Some(id), Some(open), _) if first => {
                // Without that, a second click would be billed at another price than the first.
                match once || open.price_nanos.is_none() {
                    true => self.open.remove(id),
                    false => self.open.keep_price(id),
                }
                let terms = Terms { expected: open.expected, price_nanos: open.price_nanos };
                OutcomeLink::Open { window: open.window.into(), terms }
            }
            (Some(_), None, Some(price)) if first => {
                self.not_joined += 1;
                OutcomeLink::Closed(price)
            }
            _ => OutcomeLink::Unknown,
        };
        // One that carries no price has that of its insertion, known or not.
        let insertion_price = known.or_else(|| own.is_none().then_some(price));
        let is_open = matches!(link, OutcomeLink::Open { .. });
        let placement = open.filter(|_| is_open).map_or(NO_PLACEMENT, |open| open.placement);
        let outcome = Outcome {
            at: event.at,
            inserted_at,
            logged_at,
            billed,
            price,
            insertion_price,
            link,
            placement,
            is_observed: self.pooled(billed).is_observed(made.0.div_euclid(WINDOW_MICROS)),
        };
        self.accounts[key.account].outcome(&outcome)?;
        self.not_learned += u64::from(!outcome.is_observed);
        if let Some(inserted_at) = inserted_at {
            let delay = logged_at.0.saturating_sub(inserted_at.0);
            if self.accounts[key.account].is_learned_from(delay) {
                self.pooled(billed).outcome(inserted_at, bucket_of(delay), logged_at);
            }
        }
        Ok(EventEffect::Counted)
    }

    /// The price that the insertion of an outcome was made with, and what it is the price of; `None` if the insertion
    /// is not known. `open`: the insertion, if it is open.
    fn price_of_insertion(
        &self,
        key: AccountKey,
        ids: EventIds,
        event: &EventRef<'_>,
        open: Option<OpenInsertion>,
    ) -> Option<Price> {
        let prices = &self.accounts[key.account].prices;
        if let Some(open) = open {
            let own = open.price_nanos.map(Amount::of_nanos);
            let own = own.map(|amount| Price { amount, ..prices.at(open.at()) });
            if let Some(price) = own.or_else(|| prices.only()) {
                return Some(price);
            }
        }
        if let (Some(counted), Some(only)) = (ids.counted, prices.only()) {
            return self.seen.contains(counted, event.at).then_some(only);
        }
        let insertion = event.insertion_id.as_bytes();
        let made_with = |price_since| {
            let id = id_of(key.seed, IdKind::Insertion { price_since }, insertion);
            self.seen.contains(id, event.at)
        };
        prices.all().iter().rev().find(|price| made_with(price.since)).copied()
    }
}
