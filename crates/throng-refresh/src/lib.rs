//! Refreshes of audiences. A *refresh* runs an audience's model and publishes a new snapshot, in
//! parts that can be repeated, so that a crash costs at most the parts that were running. In
//! reading order:
//!
//! 1. `worker`: claims refreshes, keeps their leases, records how they end; `builders`: which refreshes
//!    a worker claims;
//! 2. `parts` and `execute`: the parts of a refresh (scans, then groups of user shards), and running
//!    them, also in processes that do not lead the refresh; `pages`: SQL that a warehouse runs, with a
//!    part for each page of its result, and `key_types` of such results;
//! 3. `files`, `bits`, `members` and `dictionaries`: the keys of scans, the bitmaps of shards, who is a
//!    member, and the ordinals of new users;
//!    `siblings`, `group` and `shared`: refreshes of one template, built in one scan;
//! 4. `publish` and `follow_up`: the one ledger update that publishes or holds the snapshot, and what follows;
//! 5. `membership`, `snapshots`, `faults` and `damage`: loading what is published for lookups, and what
//!    happens if a file is damaged;
//! 6. `schedule` and `source_changes`: queue refreshes that are due, or whose source has changed;
//!    `unchanged`: refreshes that need no scan;
//! 7. `recovery`, `cleanup` and `cancel`: refreshes that a crash interrupted, files of refreshes that
//!    have ended, and refreshes that a person ends.
//!
//! The process that runs refreshes gives what they need in [`RefreshDeps`], and gets what they
//! report through [`Observer`]. This crate knows neither HTTP nor the other roles of a node.

mod alerts;
mod builders;
mod cancel;
mod cleanup;
mod context;
mod damage;
mod dictionaries;
mod error;
mod execute;
mod faults;
#[cfg(test)]
mod fixture;
mod follow_up;
mod freshness;
mod group;
mod history;
mod identifier_inputs;
mod job;
mod key_types;
mod membership;
mod pages;
mod parts;
mod pool;
mod publish;
mod recovery;
mod schedule;
mod shared;
mod siblings;
mod snapshots;
mod source_changes;
mod unchanged;
mod worker;

use std::collections::HashMap;
use std::time::Duration;

use throng_lake::{Model, warehouse};
use throng_model::AudienceName;
use throng_spec::{Audience, Spec};

pub use cancel::cancel;
pub use context::{Observer, RefreshContext, RefreshDeps};
pub use damage::{inspect_files, report_faults};
pub use dictionaries::open as open_dictionary;
pub use error::RefreshError;
pub use faults::ServingFault;
pub use job::{RefreshOutcome, refresh_audiences};
pub use membership::{Loaded, declared_audiences, load_membership, reload_membership};
pub use recovery::{recover, remove_left_builds};
pub use schedule::{refresh_if_stale, run_schedules};
pub use snapshots::open_snapshot;
pub use warehouse::{
    KeySink, Page, PageRequest, QueryPlan, Session, Warehouse, WarehouseError, WarehouseJob,
    Warehouses,
};
pub use worker::run;

/// How long the lease of a refresh, or of a part, lasts without a heartbeat.
const LEASE: Duration = Duration::from_secs(20);
/// How often a builder renews its lease and reports progress; a refresh that was cancelled in
/// another process ends within this time.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time between two polls of the leader, on the machine's timer: the node's clock may be
/// set forward.
const MAX_WALL_INTERVAL: Duration = Duration::from_secs(2);

/// The model of an audience.
fn model_of(audience: &Audience) -> Model {
    Model::of(audience)
}

/// The audience of this name, if the spec has it.
fn declared<'a>(spec: &'a Spec, name: &AudienceName) -> Option<&'a Audience> {
    spec.audiences.iter().find(|audience| audience.name == *name)
}

/// The audiences of a spec by name.
fn declared_by_name(spec: &Spec) -> HashMap<&AudienceName, &Audience> {
    spec.audiences.iter().map(|audience| (&audience.name, audience)).collect()
}
