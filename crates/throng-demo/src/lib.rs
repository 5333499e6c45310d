//! What the demo consists of besides its steps: the example that it runs, start time and speed of its clock, its results, and its
//! search for identifiers in everything that it wrote.

pub mod example;
pub mod privacy;
mod speed;
pub mod start_time;
pub mod summary;

pub use speed::speed;
