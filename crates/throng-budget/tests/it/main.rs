//! The engine against its promises: replays, duplicates, silence, money of single
//! events.

mod backlog;
mod engine;
mod golden;
mod learning;
mod model;
mod money;
mod overdelivery;
mod rates;
mod switches;
mod zones;

use std::time::Duration;

use throng_budget::{AdGroupConfig, BilledEvent, CheckpointFiles, Engine};
use throng_model::{AdGroupIndex, Micros, Pacing, TimeZoneName, Timestamp};

/// When a test begins.
const START: Timestamp = Timestamp(1_767_225_600_000_000);

/// This second of a test.
fn at(second: u64) -> Timestamp {
    START.plus(Duration::from_secs(second))
}

/// An ad group that learns its rates.
fn ad_group(name: &str, billed: BilledEvent) -> AdGroupConfig {
    AdGroupConfig {
        index: AdGroupIndex(0),
        name: name.parse().expect("a name"),
        campaign: "all".parse().expect("a name"),
        billed,
        price: Micros(100_000),
        price_nanos: 0,
        impression_rate: 0.9,
        action_rate: if billed == BilledEvent::Click { 0.1 } else { 1.0 },
        horizon: Duration::from_secs(180),
        daily_budget: Micros(1_000_000_000_000),
        prediction: true,
        currency: "USD".parse().expect("a currency"),
        zone: TimeZoneName::utc(),
        once_per_insertion: true,
        pacing: Pacing::Asap,
        learns_rates: true,
    }
}

/// What another process restores from a checkpoint of partition 3, with this epoch and version of the catalog.
fn restored(
    engine: &Engine,
    (epoch, catalog_version): (u64, u64),
    ad_groups: Vec<AdGroupConfig>,
    now: Timestamp,
) -> Engine {
    let (bytes, files) = (engine.checkpoint(0), CheckpointFiles::default());
    let read = Engine::restore(&bytes, 3, epoch, catalog_version, ad_groups, now, &files);
    read.expect("restored").0
}
