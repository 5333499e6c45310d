//! What the demo consists of besides its steps: the example that it runs, the start time on its clock, and its
//! search for identifiers in everything that it wrote.

pub mod example;
pub mod privacy;
pub mod start_time;
