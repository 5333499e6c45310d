//! The engine against its promises: replays, duplicates, silence.

mod engine;
mod golden;
mod model;
