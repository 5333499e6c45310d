//! What a token allows.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// One right of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Report events.
    Events,
    /// Look up users, and request decisions.
    Lookup,
    /// Read the feed as a gate.
    Feed,
    /// Read metrics.
    Metrics,
    /// Read everything but users: audiences, runs, budgets, history, the spec, the pages.
    Read,
    /// Approve, reject, roll back, refresh, requeue; and read.
    Operate,
    /// Everything: apply specs, manage tokens and sessions too.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 7] = [
        Self::Events,
        Self::Lookup,
        Self::Feed,
        Self::Metrics,
        Self::Read,
        Self::Operate,
        Self::Admin,
    ];

    /// Its name in the API and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Lookup => "lookup",
            Self::Feed => "feed",
            Self::Metrics => "metrics",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The text does not name a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scope: use events, lookup, feed, metrics, read, operate or admin")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| {
            UnknownScope(text.chars().filter(|c| !c.is_control()).take(40).collect())
        })
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl From<Scope> for Scopes {
    fn from(scope: Scope) -> Self {
        Self(scope.bit())
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl Scopes {
    /// Parses a comma-separated list, and ignores scopes that this version does not know.
    pub fn parse_known(text: &str) -> Self {
        text.split(',').filter_map(|word| word.trim().parse::<Scope>().ok()).collect()
    }

    /// Whether these scopes include the needed one: `admin` includes every scope, and `operate`
    /// includes `read`.
    pub fn allow(self, needed: Scope) -> bool {
        let has = |scope: Scope| self.0 & scope.bit() != 0;
        has(needed) || has(Scope::Admin) || (needed == Scope::Read && has(Scope::Operate))
    }

    /// Those of these scopes that a token of a workspace cannot have: what they allow concerns the whole deployment.
    pub fn beyond_workspaces(self) -> Self {
        let beyond = [Scope::Events, Scope::Feed, Scope::Metrics, Scope::Admin];
        Self(self.0 & beyond.into_iter().collect::<Self>().0)
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of the scopes, in the order of [`Scope::ALL`].
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & scope.bit() != 0).map(Scope::name)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_back() {
        let all: Scopes = Scope::ALL.into_iter().collect();
        assert_eq!(all.to_string(), "events,lookup,feed,metrics,read,operate,admin");
        assert_eq!(Scopes::parse_known(&all.to_string()), all);
        assert_eq!(Scopes::parse_known("read, fly").to_string(), "read");
        assert!(Scopes::parse_known("").is_empty());
        assert!("Read".parse::<Scope>().unwrap_err().to_string().contains("operate"));
    }

    #[test]
    fn admin_allows_all_and_operate_allows_to_read() {
        let allowed = |scope: Scope| -> Vec<Scope> {
            Scope::ALL.into_iter().filter(|needed| Scopes::from(scope).allow(*needed)).collect()
        };
        assert_eq!(allowed(Scope::Admin), Scope::ALL);
        assert_eq!(allowed(Scope::Operate), [Scope::Read, Scope::Operate]);
        let all: Scopes = Scope::ALL.into_iter().collect();
        assert_eq!(all.beyond_workspaces().to_string(), "events,feed,metrics,admin");
        for alone in [Scope::Events, Scope::Lookup, Scope::Feed, Scope::Metrics, Scope::Read] {
            assert_eq!(allowed(alone), [alone]);
        }
    }
}
