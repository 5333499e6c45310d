//! Roles of nodes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A part of the work of a node. A process has one or more of them: all in one process, or each in many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Answers over HTTP: events, decisions, specs, the page.
    Api,
    /// Runs schedules and puts work on the queues, on one node at a time.
    Schedule,
    /// Builds audiences.
    Build,
    /// Sends to ad platforms, and checks what was sent.
    Activate,
    /// Aggregates spend, for its assigned partitions of the event log.
    Aggregate,
    /// Streams the feed of budget states to gates.
    Relay,
    /// Answers lookups from snapshots.
    Lookup,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] = [
        Self::Api,
        Self::Schedule,
        Self::Build,
        Self::Activate,
        Self::Aggregate,
        Self::Relay,
        Self::Lookup,
    ];

    /// Its name in specs and in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Schedule => "schedule",
            Self::Build => "build",
            Self::Activate => "activate",
            Self::Aggregate => "aggregate",
            Self::Relay => "relay",
            Self::Lookup => "lookup",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text does not name a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role of a node")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| UnknownRole(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_from_its_name() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse::<Role>().unwrap(), role);
        }
        let unknown = "builder".parse::<Role>().unwrap_err();
        assert_eq!(unknown.to_string(), "`builder` is not a role of a node");
    }
}
