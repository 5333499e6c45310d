//! The engine against its promises: replays, duplicates, silence, money of single
//! events.

mod engine;
mod golden;
mod learning;
mod model;
mod money;
mod overdelivery;
mod rates;
mod switches;
