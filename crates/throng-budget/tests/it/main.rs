//! The engine against its promises: replays, duplicates, silence, money of single
//! events.

mod engine;
mod golden;
mod model;
mod money;
