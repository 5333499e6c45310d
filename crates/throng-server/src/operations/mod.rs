//! Operations: what a person does to a running node. Each one checks the state, changes it, records the actor
//! in the history, and wakes the roles that continue the work. The HTTP API calls them and adds nothing but the
//! response; whatever else offers an operation calls the same function, so that none can skip a step.

pub(crate) mod audiences;
mod error;
pub(crate) mod removals;
pub(crate) mod runs;
pub(crate) mod syncs;

use throng_store::{HistoryEntry, SubjectKind};

use crate::NodeContext;

pub(crate) use error::OperationError;

/// The result of an operation.
type Result<T> = std::result::Result<T, OperationError>;

/// What the history says about an operation.
struct Record<'a> {
    /// The kind of the object.
    subject_kind: SubjectKind,
    /// The name of the object.
    subject: &'a str,
    /// What happened.
    what: &'a str,
    /// Why.
    why: String,
    /// The name of the token of the caller.
    actor: &'a str,
}

impl Record<'_> {
    async fn write(self, ctx: &NodeContext) -> Result<()> {
        let entry = HistoryEntry {
            subject_kind: self.subject_kind,
            subject: self.subject.to_owned(),
            what: self.what.to_owned(),
            why: self.why,
            at: ctx.clock.now(),
            actor: Some(self.actor.to_owned()),
        };
        Ok(ctx.ledger.record_history(&[entry]).await?)
    }
}
