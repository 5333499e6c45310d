//! A problem of a spec, with the fix.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use throng_spec_types::Location;

/// A problem in a spec file. Never contains the text of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The path of the file, as it was given or found.
    pub file: PathBuf,
    /// The line, from 1; 0 if the problem has no line, such as a file that cannot be read.
    pub line: u32,
    /// The column in characters, from 1; 0 without a line.
    pub column: u32,
    /// The field, such as `audiences[2].sql`; may be empty.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem of the SQL text at `sql_at`; `line` and `column` count from 1 within the text.
    pub fn in_sql(
        sql_at: &Location,
        (line, column): (u32, u32),
        path: impl Into<String>,
        message: String,
        help: Option<String>,
    ) -> Self {
        let line = sql_at.line.saturating_add(line.saturating_sub(1));
        Self { file: sql_at.file.clone(), line, column, path: path.into(), message, help }
    }
}

impl fmt::Display for Problem {
    /// Up to three lines in the form of compiler errors, without a final line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n  --> {}", self.message, self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, " at {}", self.path)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
