//! What the history says about an operation.

use throng_store::{HistoryEntry, HistoryEvent, SubjectKind};

use crate::Operations;
use crate::error::Result;

/// A history entry of an operation.
pub(crate) struct Record<'a> {
    /// The kind of the object.
    pub(crate) subject_kind: SubjectKind,
    /// The name of the object.
    pub(crate) subject: &'a str,
    /// What happened.
    pub(crate) what: HistoryEvent,
    /// Why.
    pub(crate) why: String,
    /// The name of the token of the caller.
    pub(crate) actor: &'a str,
}

impl Record<'_> {
    pub(crate) async fn write(self, operations: &Operations) -> Result<()> {
        let entry = HistoryEntry {
            subject_kind: self.subject_kind,
            subject: self.subject.to_owned(),
            what: self.what,
            why: self.why,
            at: operations.clock.now(),
            actor: Some(self.actor.to_owned()),
        };
        Ok(operations.ledger.record_history(&[entry]).await?)
    }
}
