//! Why queries over tables are refused.

/// A query that is refused, and how to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: String,
}

/// A form of SQL that the engine would run otherwise than standard SQL says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misread {
    /// What is wrong.
    pub message: &'static str,
    /// A word of the SQL that shows where.
    pub word: &'static str,
    /// How to write it.
    pub help: &'static str,
}
