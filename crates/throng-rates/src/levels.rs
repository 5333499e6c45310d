//! What ad groups tell about each other: the priors of rates.
//!
//! Ad groups have different declared rates, so a level is a *factor*, the rate as a multiple of the declared one,
//! with a weight in successes. `s` successes where the declared rates expect `d` make a level with the factor `f`
//! and the weight `k` to
//!
//! `factor = (s + k) / (d + k / f)`, `weight = min(k + s, 20)`
//!
//! which is the beta-binomial of [`Prior`](crate::Prior), divided by the declared rate. The weight is bounded
//! because ad groups differ: a million trials of others must not outweigh a thousand of its own. From the outermost:
//!
//! 1. The declared rate: factor 1, weight 5.
//! 2. The campaign: the other ad groups of the same campaign.
//! 3. The placement: what the other ad groups have in it, where that is expected by the declared rates times the
//!    factors of their campaigns. So it is how the placement differs from others, and not how campaigns differ.
//!    An ad group in several placements has their mean, weighted by its own insertions.
//! 4. The ad group itself, and the ad group in one placement, around the ad group's own rate.
//!
//! An ad group's own trials are never part of its prior: they would count twice. Without other ad groups in its
//! campaign and its placements, the prior is the declared rate.
//!
//! The impression rate is learned from all ad groups, the action rate from those that are paid by click. Of these
//! a click is expected of an insertion with the product of both. The action rate is that of clicks among the
//! insertions times the learned impression rate, so that the product is right whatever is reported of impressions:
//! an error of the impression rate is corrected by the action rate.

use std::collections::BTreeMap;

use crate::calibration::{Evidence, LearnedRate};
use crate::level::{FACTORS, LEVEL_SUCCESSES, Level};
use crate::placements::OTHER_PLACEMENT;
use crate::rates::{DECLARED_SUCCESSES, RATES, Rate};

/// Outcomes that name no insertion belong to no placement. If they are so many that the others have to be
/// multiplied by more than this, nothing is learned by placement.
const MAX_UNNAMED: f64 = 2.0;

/// What is known of an ad group in one placement.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct InPlacement {
    /// The placement.
    pub placement: u16,
    /// As [`Observed::outcomes`], of the insertions in it.
    pub outcomes: Evidence,
    /// As [`Observed::impressions`].
    pub impressions: Evidence,
}

/// What is known of an ad group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// A number that ad groups of the same campaign have.
    pub campaign: u32,
    /// Whether clicks are billed; else impressions are.
    pub is_by_click: bool,
    /// The share of insertions with a billed outcome, as declared.
    pub declared: f64,
    /// The share of insertions that are seen, as declared.
    pub declared_impressions: f64,
    /// Billed outcomes of insertions.
    pub outcomes: Evidence,
    /// Impressions of insertions, of an ad group that is paid by click; empty if it does not report them.
    pub impressions: Evidence,
    /// Ascending by placement, each once.
    pub placements: Vec<InPlacement>,
}

/// What is learned of an ad group in one placement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlacementRate {
    /// The placement.
    pub placement: u16,
    /// As [`LearnedRates::outcomes`].
    pub outcomes: LearnedRate,
    /// As [`LearnedRates::impressions`].
    pub impressions: Option<LearnedRate>,
}

/// What is learned of an ad group. `None`: the declared rates count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LearnedRates {
    /// The share of insertions with a billed outcome.
    pub outcomes: Option<LearnedRate>,
    /// The share of insertions that are seen, of an ad group that is paid by click.
    pub impressions: Option<LearnedRate>,
    /// Ascending by placement.
    pub placements: Vec<PlacementRate>,
}

impl LearnedRates {
    /// The billed outcomes as a multiple of the declared ones, in a placement.
    pub fn factor_in(&self, placement: u16) -> f64 {
        let of = |placement: u16| {
            let place = self.placements.binary_search_by_key(&placement, |rate| rate.placement);
            place.ok().map(|place| self.placements[place].outcomes.factor)
        };
        // Those without a rate of their own are counted as `other`.
        of(placement).or_else(|| of(OTHER_PLACEMENT)).unwrap_or_else(|| self.factor())
    }

    /// The billed outcomes as a multiple of the declared ones.
    #[inline]
    pub fn factor(&self) -> f64 {
        self.outcomes.map_or(1.0, |rate| rate.factor)
    }
}

/// The action rate of an ad group that is paid by click.
pub fn action_rate(
    outcomes: &LearnedRate,
    impressions: Option<&LearnedRate>,
    declared_impressions: f64,
) -> Rate {
    outcomes.rate.of_seen(impressions.map_or(declared_impressions, |rate| rate.rate.mean()))
}

/// Successes, and how many are expected.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    successes: f64,
    expected: f64,
}

impl Known {
    /// Nothing where the declared rates are below one in a million, such as 0: then any success would be a multiple of
    /// what is expected that says nothing of other ad groups.
    fn of(evidence: &Evidence, factor: f64) -> Self {
        if evidence.expected() < evidence.trials() * RATES.0 {
            return Self::default();
        }
        Self { successes: evidence.successes(), expected: evidence.expected() * factor }
    }

    fn add(&mut self, other: Self) {
        self.successes += other.successes;
        self.expected += other.expected;
    }

    /// A level that is narrowed by these, without those of one ad group.
    fn narrow(self, level: Level, own: Self) -> Level {
        let successes = (self.successes - own.successes).max(0.0);
        level.narrowed(successes, self.expected - own.expected)
    }
}

/// Of both rates.
#[derive(Debug, Clone, Copy, Default)]
struct Both {
    impressions: Known,
    actions: Known,
}

impl Both {
    fn add(&mut self, other: Self) {
        self.impressions.add(other.impressions);
        self.actions.add(other.actions);
    }

    fn times(mut self, impressions: f64, actions: f64) -> Self {
        self.impressions.expected *= impressions;
        self.actions.expected *= actions;
        self
    }

    /// Of the evidence of an ad group, or of one of its placements. `seen`: the impression rate that its clicks
    /// are compared with, as a multiple of the declared one.
    fn of(is_by_click: bool, outcomes: &Evidence, impressions: &Evidence, seen: f64) -> Self {
        match is_by_click {
            true => Self {
                impressions: Known::of(impressions, 1.0),
                actions: Known::of(outcomes, seen),
            },
            false => Self { impressions: Known::of(outcomes, 1.0), ..Self::default() },
        }
    }
}

/// The priors of both rates.
#[derive(Debug, Clone, Copy)]
struct Levels {
    impressions: Level,
    actions: Level,
}

impl Levels {
    const DECLARED: Self = Self { impressions: Level::DECLARED, actions: Level::DECLARED };

    fn narrowed(self, all: Both, own: Both) -> Self {
        Self {
            impressions: all.impressions.narrow(self.impressions, own.impressions),
            actions: all.actions.narrow(self.actions, own.actions),
        }
    }

    fn times(self, impressions: f64, actions: f64) -> Self {
        Self {
            impressions: self.impressions.times(impressions),
            actions: self.actions.times(actions),
        }
    }

    /// The rates of an ad group, or of one of its placements: of billed outcomes, and of impressions if it is paid
    /// by click.
    fn learned(
        self,
        of: &Observed,
        outcomes: &Evidence,
        impressions: &Evidence,
    ) -> (Option<LearnedRate>, Option<LearnedRate>) {
        if !of.is_by_click {
            return (outcomes.learned(self.impressions, of.declared), None);
        }
        let seen = impressions.learned(self.impressions, of.declared_impressions);
        let factor = seen.map_or(self.impressions.factor(), |seen| seen.factor);
        (outcomes.learned(self.actions.times(factor), of.declared), seen)
    }
}

/// An ad group with what others learn from it.
struct Member<'a> {
    of: &'a Observed,
    own: Both,
    /// Its placements with the unnamed outcomes spread over them, each with what others learn from it.
    placements: Vec<(InPlacement, Both)>,
}

impl<'a> Member<'a> {
    fn new(of: &'a Observed) -> Self {
        let seen = of.impressions.learned(Level::DECLARED, of.declared_impressions);
        let seen = seen.map_or(1.0, |seen| seen.factor);
        let own = Both::of(of.is_by_click, &of.outcomes, &of.impressions, seen);
        let placements = named(of).into_iter().map(|place| {
            // Around the ad group's own: a placement with few impressions would have a rate by chance.
            let level = Level::of(seen, LEVEL_SUCCESSES);
            let seen = place.impressions.learned(level, of.declared_impressions);
            let seen = seen.map_or(level.factor(), |seen| seen.factor);
            (place, Both::of(of.is_by_click, &place.outcomes, &place.impressions, seen))
        });
        Self { of, own, placements: placements.collect() }
    }
}

/// By which factor the successes in placements have to be multiplied, so that those that name no insertion are
/// spread over all placements; `None` if too few name one.
fn unnamed(all: &Evidence, placed: impl Iterator<Item = Evidence> + Clone) -> Option<f64> {
    let expected: f64 = placed.clone().map(|evidence| evidence.expected()).sum();
    let successes: f64 = placed.map(|evidence| evidence.successes()).sum();
    let share = expected / all.expected();
    if !share.is_finite() {
        return Some(1.0);
    }
    let wanted = all.successes() * share.min(1.0);
    if wanted <= DECLARED_SUCCESSES {
        return Some(1.0);
    }
    let multiple = (wanted / successes).max(1.0);
    (multiple <= MAX_UNNAMED).then_some(multiple)
}

/// The placements of an ad group with unnamed outcomes spread over them; none if too few name their insertion.
fn named(of: &Observed) -> Vec<InPlacement> {
    let outcomes = of.placements.iter().map(|place| place.outcomes);
    let Some(outcomes) = unnamed(&of.outcomes, outcomes) else { return Vec::new() };
    let impressions = unnamed(&of.impressions, of.placements.iter().map(|place| place.impressions));
    let spread = |place: &InPlacement| InPlacement {
        outcomes: place.outcomes.with_successes(outcomes),
        // Without them the ad group's own impression rate counts in every placement.
        impressions: impressions
            .map(|multiple| place.impressions.with_successes(multiple))
            .unwrap_or_default(),
        ..*place
    };
    of.placements.iter().map(spread).collect()
}

/// The mean of the factors of placements, weighted by what is expected in each; what is in none has the factor 1.
fn mean_factor(all: f64, placed: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (expected, weighted) = placed.fold((0.0, 0.0), |(expected, weighted), (of_one, factor)| {
        (expected + of_one, weighted + of_one * factor)
    });
    let all = all.max(expected);
    let mean = (weighted + all - expected) / all;
    if mean.is_finite() { mean.clamp(FACTORS.0, FACTORS.1) } else { 1.0 }
}

/// Learns the rates of ad groups, in their order.
pub fn learn(observed: &[Observed]) -> Vec<LearnedRates> {
    let members: Vec<Member<'_>> = observed.iter().map(Member::new).collect();
    let mut campaigns: BTreeMap<u32, Both> = BTreeMap::new();
    for member in &members {
        campaigns.entry(member.of.campaign).or_default().add(member.own);
    }
    let of_campaign = |member: &Member<'_>| campaigns.get(&member.of.campaign).copied();
    // What each has in a placement, compared with its campaign.
    let mut placements: BTreeMap<u16, Both> = BTreeMap::new();
    let mut compared = Vec::with_capacity(members.len());
    for member in &members {
        let all = of_campaign(member).unwrap_or_default();
        let usual = Levels::DECLARED.narrowed(all, Both::default());
        let (seen, acted) = (usual.impressions.factor(), usual.actions.factor());
        let own = member.placements.iter().map(|(place, known)| {
            let known = known.times(seen, acted);
            placements.entry(place.placement).or_default().add(known);
            known
        });
        compared.push(own.collect::<Vec<Both>>());
    }
    let learned = members.iter().zip(&compared).map(|(member, compared)| {
        let campaign = of_campaign(member).unwrap_or_default();
        let prior = Levels::DECLARED.narrowed(campaign, member.own);
        learned(member, prior, compared, &placements)
    });
    learned.collect()
}

/// The rates of one ad group. `compared`: what it has in each of its placements.
fn learned(
    member: &Member<'_>,
    prior: Levels,
    compared: &[Both],
    placements: &BTreeMap<u16, Both>,
) -> LearnedRates {
    let of = member.of;
    // How each of its placements differs, by the other ad groups.
    let differences: Vec<Levels> = member
        .placements
        .iter()
        .zip(compared)
        .map(|((place, _), own)| {
            let all = placements.get(&place.placement).copied().unwrap_or_default();
            Levels::DECLARED.narrowed(all, *own)
        })
        .collect();
    // Weighted by outcomes for both: impressions may not be reported.
    let mean = |level: fn(&Levels) -> Level| {
        let placed = member.placements.iter().zip(&differences);
        let placed =
            placed.map(|((place, _), levels)| (place.outcomes.expected(), level(levels).factor()));
        mean_factor(of.outcomes.expected(), placed)
    };
    let seen = mean(|levels| levels.impressions);
    let acted = mean(|levels| levels.actions);
    let (outcomes, impressions) =
        prior.times(seen, acted).learned(of, &of.outcomes, &of.impressions);
    // What the ad group has apart from its placements.
    let all = outcomes.map_or(1.0, |rate| rate.factor);
    let (own_seen, own_acted) = match of.is_by_click {
        true => {
            let own_seen = impressions.map_or(1.0, |rate| rate.factor);
            (own_seen / seen, all / own_seen / acted)
        }
        false => (all / seen, 1.0),
    };
    let rates = member.placements.iter().zip(&differences).filter_map(|((place, _), levels)| {
        let levels = levels.times(own_seen, own_acted);
        let (outcomes, impressions) = levels.learned(of, &place.outcomes, &place.impressions);
        Some(PlacementRate { placement: place.placement, outcomes: outcomes?, impressions })
    });
    LearnedRates { outcomes, impressions, placements: rates.collect() }
}
