//! Catalog and membership as one decision sees them.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use throng_feed::{CatalogEntry, FLAG_CLOSED, FLAG_REMOVED, PassThroughRate};
use throng_membership::{AudienceId, Located, MembershipIndex};
use throng_model::{
    AdGroupIndex, AdGroupName, AudienceName, Entropy, Micros, SplitMix64, Timestamp, UserHash,
};

use crate::decision::Reason;
use crate::slot::{Slot, Spend};

/// An ad group, ready to be decided about.
pub(crate) struct Target {
    pub(crate) entry: CatalogEntry,
    // Why shared: a new view has the slots of the one before, so a frame that is applied while a
    // decision still reads the old view reaches that decision too, and no figures are copied.
    pub(crate) slot: Arc<Slot>,
    include_names: Arc<[AudienceName]>,
    include: Vec<AudienceId>,
    /// The first of them that is not built.
    include_unknown: Option<AudienceName>,
    /// `None`: an audience that is not built.
    exclude: Vec<Option<AudienceId>>,
}

/// All that a decision reads; replaced as a whole.
// Why as a whole: an `AudienceId` is a number of one index. With catalog and membership in two places, a
// decision between two swaps would look up a number of the old index in the new one, where it is another
// audience.
pub(crate) struct View {
    pub(crate) catalog_version: u64,
    pub(crate) targets: Vec<Target>,
    by_name: HashMap<AdGroupName, u32, FixedState>,
    pub(crate) by_index: HashMap<u32, u32, FixedState>,
    pub(crate) membership: Option<Arc<MembershipIndex>>,
}

impl View {
    pub(crate) fn new(
        catalog_version: u64,
        entries: Vec<(CatalogEntry, Arc<Slot>)>,
        membership: Option<Arc<MembershipIndex>>,
    ) -> Self {
        let id = |name: &AudienceName| membership.as_ref().and_then(|m| m.id(name));
        let targets: Vec<Target> = entries
            .into_iter()
            .map(|(entry, slot)| Target {
                // Why not the same as below: an unbuilt audience has no members, so including it allows
                // nobody. Excluding it cannot be decided, and must not allow everybody.
                include: entry.include.iter().filter_map(id).collect(),
                exclude: entry.exclude.iter().map(id).collect(),
                include_unknown: entry
                    .include
                    .iter()
                    .find(|name| membership.as_ref().is_none_or(|m| m.id(name).is_none()))
                    .cloned(),
                include_names: entry.include.as_slice().into(),
                entry,
                slot,
            })
            .collect();
        let mut by_name = HashMap::with_capacity_and_hasher(targets.len(), FixedState::default());
        let mut by_index = HashMap::with_capacity_and_hasher(targets.len(), FixedState::default());
        for (place, target) in (0u32..).zip(&targets) {
            by_name.insert(target.entry.name.clone(), place);
            by_index.insert(target.entry.index.0, place);
        }
        Self { catalog_version, targets, by_name, by_index, membership }
    }

    /// How many ad groups no frame has named.
    pub(crate) fn unnamed(&self) -> usize {
        self.targets.iter().filter(|target| target.slot.partition.load().is_none()).count()
    }

    pub(crate) fn of_name(&self, name: &AdGroupName) -> Option<&Target> {
        self.by_name.get(name).and_then(|&place| self.targets.get(place as usize))
    }

    pub(crate) fn of_index(&self, index: AdGroupIndex) -> Option<&Target> {
        self.by_index.get(&index.0).and_then(|&place| self.targets.get(place as usize))
    }

    /// Why this user may not see the ad group, targeting only.
    #[inline]
    pub(crate) fn off_target(
        &self,
        target: &Target,
        known: bool,
        user: Option<Located>,
    ) -> Option<Reason> {
        let member = |id: AudienceId| match (&self.membership, user) {
            (Some(membership), Some(user)) => membership.contains_at(user, id),
            _ => false,
        };
        if !target.entry.include.is_empty() && !target.include.iter().any(|&id| member(id)) {
            return Some(match &target.include_unknown {
                Some(audience) if known => Reason::InclusionUnknown { audience: audience.clone() },
                _ => Reason::NotInAudience { audiences: Arc::clone(&target.include_names) },
            });
        }
        for (place, id) in target.exclude.iter().enumerate() {
            match id {
                Some(id) if member(*id) => {
                    return Some(Reason::Excluded {
                        audience: target.entry.exclude[place].clone(),
                    });
                }
                None if known => {
                    let audience = target.entry.exclude[place].clone();
                    return Some(Reason::ExclusionUnknown { audience });
                }
                _ => {}
            }
        }
        None
    }
}

/// Why an ad group may not be shown by its budget.
#[inline]
pub(crate) fn out_of_budget(entry: &CatalogEntry, spend: Spend, own: i64) -> Option<Reason> {
    let coming = Micros(spend.in_flight.0.saturating_add(own));
    let in_flight = entry.prediction.then_some(coming);
    // A sum past 2^63 is past any budget: saturating is right here.
    let projected = spend.actual.0.saturating_add(in_flight.map_or(0, |m| m.0));
    let (actual, budget, currency) = (spend.actual, entry.daily_budget, entry.currency);
    if projected >= budget.0 {
        return Some(Reason::OutOfBudget { actual, in_flight, budget, currency });
    }
    // Why after the figures: the server closes an ad group for reasons that the figures do not show (a
    // safety margin, a removal). Where they do, the refusal says that the budget is reached.
    if spend.flags & FLAG_CLOSED == 0 {
        return None;
    }
    // Without prediction there is no margin: the server has another budget.
    let near = in_flight.filter(|_| spend.flags & FLAG_REMOVED == 0);
    Some(near.map_or(Reason::Closed, |in_flight| Reason::NearBudget {
        actual,
        in_flight,
        budget,
        currency,
    }))
}

/// How long a user gets the same answer from an ad group with a steady pass-through rate.
// Why not the user alone: the same users would see the ad all day, and the others never. Why not the moment
// alone: a page with several places, or one that is loaded again, would draw again at each of them.
const SAME_ANSWER_MICROS: i64 = 60_000_000;

/// A hash of a request: of the user and the minute, or of the moment if the user is not known. The same in
/// every gate.
#[inline]
pub(crate) fn request_hash(user: Option<UserHash>, now: Timestamp) -> u64 {
    let seed = match user {
        Some(user) => user.0 ^ now.0.div_euclid(SAME_ANSWER_MICROS) as u64,
        None => now.0 as u64,
    };
    SplitMix64::new(seed).next_u64()
}

/// Whether the ad group's pass-through rate holds this request back.
#[inline]
pub(crate) fn throttled(
    entry: &CatalogEntry,
    rate: PassThroughRate,
    request: u64,
) -> Option<Reason> {
    if rate == PassThroughRate::ALL {
        return None;
    }
    // Why mixed again: with the request's hash alone a request that passes in one ad group would pass in all
    // ad groups of a higher rate.
    let hash = SplitMix64::new(request ^ u64::from(entry.index.0)).next_u64();
    (!rate.is_admitted(hash)).then_some(Reason::Throttled { pass_through_rate: rate })
}
