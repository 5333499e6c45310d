//! The traits of the store in SQL, for every database: the statements are the same text (`dialect` has the
//! differences), and run on connections of either driver (`conn`).
//!
//! Each file here implements one trait of the store, or has the statements that several share.

mod access;
mod alerts;
mod audiences;
mod delivered;
mod dictionary;
mod history;
mod lists;
mod maintenance;
mod parts;
mod pauses;
mod publishing;
mod refresh_groups;
mod refreshes;
mod removals;
mod runs;
mod sizes;
mod snapshots;
mod spec;
mod store_writes;
mod sync;
mod tasks;
mod waiting;
