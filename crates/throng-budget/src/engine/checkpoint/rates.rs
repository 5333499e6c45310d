//! Placements, and the delays of all ad groups, in a checkpoint.

use throng_rates::survival::Delays;
use throng_rates::{ApartRates, Breakdown, NamedPlacement, Placements, Pooled, Window};

use crate::wire;

pub(super) fn save_placements(placements: &Placements) -> (Vec<wire::Placement>, i64) {
    let (named, block) = placements.stored();
    let named = named.into_iter().map(|placement| wire::Placement {
        number: placement.number.into(),
        name: placement.name,
        used: placement.used,
    });
    (named.collect(), block)
}

/// Restores what [`save_placements`] has written; there are none in earlier formats. `None` if it is not that.
pub(super) fn load_placements(message: &wire::Checkpoint) -> Option<Placements> {
    let named = message.placements.iter().map(|placement| {
        let number = u16::try_from(placement.number).ok()?;
        Some(NamedPlacement { number, name: placement.name.clone(), used: placement.used })
    });
    let named: Option<Vec<NamedPlacement>> = named.collect();
    Placements::of_stored(named?, message.placements_block.unwrap_or(i64::MIN))
}

/// `with_placements`: their numbers are valid as long as the ad group is configured.
pub(super) fn save_breakdown(window: &Window, with_placements: bool) -> Vec<u64> {
    match window.breakdown.as_deref() {
        None => Vec::new(),
        Some(breakdown) if with_placements => breakdown.stored(),
        Some(breakdown) => without_placements_of(breakdown),
    }
}

fn without_placements_of(breakdown: &Breakdown) -> Vec<u64> {
    Breakdown { impressions: breakdown.impressions, ..Breakdown::default() }.stored()
}

/// What is saved of an ad group that is not configured: without its placements, whose numbers other names may get.
pub(super) fn without_placements(mut saved: wire::AdGroup) -> wire::AdGroup {
    // What is invalid stays as it is, and is dropped when the ad group is added again.
    if let Some(apart) = ApartRates::of_stored(&saved.apart) {
        saved.apart = apart.without_placements().stored();
    }
    for window in &mut saved.windows {
        if let Some(breakdown) = Breakdown::of_stored(&window.breakdown) {
            window.breakdown = without_placements_of(&breakdown);
        }
    }
    saved
}

/// Restores what [`save_breakdown`] has written. `None` if it is not that.
pub(super) fn load_breakdown(numbers: &[u64]) -> Option<Option<Box<Breakdown>>> {
    if numbers.is_empty() {
        return Some(None);
    }
    Breakdown::of_stored(numbers).map(|breakdown| Some(Box::new(breakdown)))
}

pub(super) fn save_pooled(pooled: &Pooled) -> wire::Pooled {
    let windows = pooled.recent.iter().map(|(number, outcomes)| wire::Window {
        number,
        outcomes: outcomes.iter().flat_map(|(b, n)| [b as u32, n]).collect(),
        in_time: outcomes.in_time,
        ..wire::Window::default()
    });
    wire::Pooled {
        windows: windows.collect(),
        complete: pooled.complete.counts().to_vec(),
        first: pooled.first,
    }
}

/// Restores what [`save_pooled`] has written. `None` if it is not that.
pub(super) fn load_pooled(saved: wire::Pooled) -> Option<Pooled> {
    let mut pooled = Pooled {
        complete: Delays::from_counts(saved.complete)?,
        first: saved.first,
        ..Pooled::default()
    };
    for window in saved.windows {
        let (pairs, rest) = window.outcomes.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        let counts = pooled.recent.entry(window.number);
        counts.in_time = window.in_time;
        pairs.iter().for_each(|[bucket, times]| counts.add(*bucket as usize, *times));
    }
    Some(pooled)
}
