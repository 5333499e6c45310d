//! Names of objects, which users choose, and ids of work, which the ledger assigns.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a name: use 1 to 128 of a-z, 0-9, `-`, `_` and `.`, starting with a letter or a digit"
)]
pub struct NameError {
    /// The invalid text, truncated to 140 characters.
    pub text: String,
}

fn check_name(text: &str) -> Result<(), NameError> {
    let mut bytes = text.bytes();
    let first_ok = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest_ok = bytes
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
    if first_ok && rest_ok && text.len() <= 128 {
        Ok(())
    } else {
        Err(NameError { text: text.chars().take(140).collect() })
    }
}

/// Separates a workspace from a name in it. No name has it otherwise.
const WORKSPACE_SEPARATOR: char = ':';

fn check_scoped_name(text: &str) -> Result<(), NameError> {
    match text.split_once(WORKSPACE_SEPARATOR) {
        Some((workspace, local)) => {
            check_name(workspace)?;
            check_name(local)
        }
        None => check_name(text),
    }
}

/// Names of objects that a workspace may have: `name` in the default workspace, `workspace:name` in
/// another one.
macro_rules! scoped_name {
    ($(#[$doc:meta])* $type:ident) => {
        name!($(#[$doc])* $type, check_scoped_name);

        impl $type {
            /// The workspace of the object; `None` for the default one.
            ///
            /// ```
            #[doc = concat!("use throng_model::", stringify!($type), ";")]
            ///
            #[doc = concat!("let name = ", stringify!($type), "::new(\"acme:autumn\")?;")]
            /// assert_eq!((name.workspace(), name.local()), (Some("acme"), "autumn"));
            /// # Ok::<(), throng_model::NameError>(())
            /// ```
            pub fn workspace(&self) -> Option<&str> {
                self.0.split_once(WORKSPACE_SEPARATOR).map(|(workspace, _)| workspace)
            }

            /// The name within its workspace.
            pub fn local(&self) -> &str {
                self.0.split_once(WORKSPACE_SEPARATOR).map_or(&self.0, |(_, local)| local)
            }

            /// The same local name in a workspace; in the default one for `None`.
            #[must_use]
            pub fn in_workspace(&self, workspace: Option<&WorkspaceName>) -> Self {
                Self(match workspace {
                    Some(workspace) => format!("{workspace}{WORKSPACE_SEPARATOR}{}", self.local()),
                    None => self.local().to_owned(),
                })
            }
        }
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        name!($(#[$doc])* $type, check_name);
    };
    ($(#[$doc:meta])* $type:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks a text.
            ///
            /// ```
            #[doc = concat!("use throng_model::", stringify!($type), ";")]
            ///
            #[doc = concat!("assert!(", stringify!($type), "::new(\"autumn-2026\").is_ok());")]
            #[doc = concat!("assert!(", stringify!($type), "::new(\"Autumn 2026\").is_err());")]
            /// ```
            ///
            /// # Errors
            /// [`NameError`] if it is not 1 to 128 of `a-z 0-9 - _ .` starting with a letter or digit.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}

name!(
    /// The name of a workspace: one client's part of a deployment.
    WorkspaceName
);

impl WorkspaceName {
    /// Whether a caller may know of an object of a workspace. `limit`: the only workspace that the caller may use;
    /// `None`: all. `workspace`: that of the object; `None`: the default one.
    pub fn can_access(limit: Option<&Self>, workspace: Option<&str>) -> bool {
        limit.is_none_or(|own| workspace == Some(own.as_str()))
    }
}

scoped_name!(
    /// The name of a source of data: a folder of a lake, or a warehouse.
    SourceName
);
scoped_name!(
    /// The name of a schema: the declaration of ingested records.
    SchemaName
);
scoped_name!(
    /// The name of an audience: a set of users.
    AudienceName
);
scoped_name!(
    /// The name of a destination: an account on an ad platform.
    DestinationName
);
scoped_name!(
    /// The name of a sync: one audience kept on one destination.
    SyncName
);
scoped_name!(
    /// The name of a serving store: a key-value store of the deployment's own that gets the members of audiences.
    ServingStoreName
);
name!(
    /// The name of an advertiser.
    AdvertiserName
);
name!(
    /// The name of a campaign of an advertiser.
    CampaignName
);
name!(
    /// The name of an ad group: the level of budgets and targeting.
    AdGroupName
);

macro_rules! number {
    ($(#[$doc:meta])* $type:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $type(pub $inner);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The id of a refresh of an audience, assigned by the ledger.
    RefreshId(i64)
);
number!(
    /// The id of a run of a sync, assigned by the ledger.
    SyncRunId(i64)
);
number!(
    /// The id of a task, which is one audience's work on one destination, assigned by the ledger.
    TaskId(i64)
);
number!(
    /// The index of an ad group in the feed, which the feed's catalog maps to its name. Indexes are
    /// dense and small, so that feed frames are small.
    AdGroupIndex(u32)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_slugs() {
        for good in ["a", "lapsed-6-months", "item.14", "0_x"] {
            assert!(AudienceName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a b", "ü", "a/b", &"x".repeat(129)] {
            assert!(AudienceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_in_a_workspace_has_two_parts() {
        let name = AudienceName::new("acme:autumn").unwrap();
        assert_eq!((name.workspace(), name.local()), (Some("acme"), "autumn"));
        let plain = AudienceName::new("autumn").unwrap();
        assert_eq!((plain.workspace(), plain.local()), (None, "autumn"));
        let acme = WorkspaceName::new("acme").unwrap();
        assert_eq!(plain.in_workspace(Some(&acme)), name);
        assert_eq!(name.in_workspace(None), plain);
        for bad in [":a", "a:", "a:b:c", "A:b", "a:-b"] {
            assert!(AudienceName::new(bad).is_err(), "{bad}");
        }
        assert!(AdGroupName::new("acme:autumn").is_err());
        assert!(WorkspaceName::new("acme:autumn").is_err());
    }

    #[test]
    fn a_caller_with_a_limit_knows_of_one_workspace() {
        let acme = WorkspaceName::new("acme").unwrap();
        assert!(WorkspaceName::can_access(Some(&acme), Some("acme")));
        assert!(!WorkspaceName::can_access(Some(&acme), Some("globex")));
        assert!(!WorkspaceName::can_access(Some(&acme), None), "the default one is not its own");
        assert!(WorkspaceName::can_access(None, Some("globex")));
        assert!(WorkspaceName::can_access(None, None));
    }
}
