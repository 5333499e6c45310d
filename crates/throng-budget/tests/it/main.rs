//! The engine against its promises: replays, duplicates, silence, and the two advertisers.

mod advertisers;
mod engine;
mod golden;
mod model;
