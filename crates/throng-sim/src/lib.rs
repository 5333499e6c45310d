//! Stand-ins for the outside world: ad platforms that keep their rules and make their faults
//! ([`meta`]), and ad servers under traffic. They are real servers and clients over HTTP, so that
//! what works against them has gone through the wire.

pub mod fleet;
pub mod meta;
