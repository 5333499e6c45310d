//! Query workers: SQL is planned and run in a child process, so that no statement can harm the
//! serving process. The processes and their limits are those of `throng_worker`; this is what they
//! are asked: `protocol` has the messages, `child` answers them, `output` receives the data.

mod child;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod output;
mod protocol;

pub use child::{main, main_with_cluster};
pub(crate) use output::{KeyOutput, RowOutput, SharedOutput};
pub(crate) use protocol::{Reply, Request};
