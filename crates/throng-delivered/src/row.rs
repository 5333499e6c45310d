//! Rows of identifiers as platforms take them.

use throng_model::{HashedIdentifier, UserHash};

/// One identifier, ready to be sent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// Hashed.
    Hashed(HashedIdentifier),
    /// A value that the platform takes unhashed: an advertising id, an external id.
    Plain(Box<str>),
    /// No usable value.
    Empty,
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hashed(_) => "Hashed(…)",
            Self::Plain(_) => "Plain(…)",
            Self::Empty => "Empty",
        })
    }
}

/// A user's identifiers, normalised and hashed. One cell for each key of the sync's columns.
pub type PreparedRow = Box<[Cell]>;

/// Why a row is skipped. The text is the reason in the run's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skip(pub &'static str);

/// A change that normalisation made to a cell, or the reason why the cell is empty. Holds no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The index of the cell in the row.
    pub cell: u8,
    /// The change in snake case; `refused_…` if the value is faulty, which leaves the cell empty.
    pub reason: &'static str,
}

/// How the reasons of refused values begin.
pub const REFUSAL: &str = "refused_";

impl Note {
    /// Whether the value was refused.
    pub fn is_refusal(&self) -> bool {
        self.reason.starts_with(REFUSAL)
    }
}

/// All reasons of a platform. Rows are encoded by position in these lists, so the order must be the same
/// where rows are written and where they are read.
#[derive(Debug, Clone, Copy)]
pub struct Reasons {
    /// Reasons for skipped rows.
    pub skips: &'static [&'static str],
    /// Reasons of notes.
    pub notes: &'static [&'static str],
}

/// A row, or the reason why it is skipped.
pub type Prepared = Result<PreparedRow, Skip>;

/// One row of a sync's identifier query. Raw identifiers stay in the process that runs the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentifierRow {
    /// The user.
    pub user: UserHash,
    /// The identifiers in the platform's form, normalised and hashed, or the reason why the row is skipped.
    pub row: Prepared,
    /// Identifiers that were changed or refused.
    pub notes: Vec<Note>,
}
