//! Serving stores in Google Bigtable.

use serde::{Deserialize, Serialize};

use crate::warehouse::TOKEN_URL;
use crate::{BigQuerySettings, HostPort, NotAHost, SecretRef, is_plain_remote};

const ENDPOINT: &str = "https://bigtable.googleapis.com";
/// The longest name of a column family, which is the longest of all names.
const MAX_NAME: usize = 64;

/// A table of Google Bigtable: a row for each user, a column for each audience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BigtableSettings {
    /// The project of the instance.
    pub project: String,
    /// The instance.
    pub instance: String,
    /// The table. It is not created.
    pub table: String,
    /// The column family of all audiences; `audiences` unless set. It is not created.
    pub family: String,
    /// The application profile; `None` means the instance's default one.
    pub app_profile: Option<String>,
    /// The JSON file with the key of a service account. At most one of this and `metadata_url` is set, and without
    /// `endpoint` exactly one.
    pub credentials: Option<SecretRef>,
    /// Another server for access tokens of the service account than Google's.
    pub token_url: Option<String>,
    /// The metadata server that returns access tokens of the machine's or pod's identity.
    pub metadata_url: Option<String>,
    /// Another server than Google's, such as the emulator.
    pub endpoint: Option<String>,
    /// Whether `endpoint` and `token_url` may be on another machine without TLS.
    #[serde(default)]
    pub insecure: bool,
}

impl BigtableSettings {
    /// The URL of the API.
    pub fn api_url(&self) -> &str {
        self.endpoint.as_deref().unwrap_or(ENDPOINT)
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.api_url().get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
    }

    /// The URL of the server that issues access tokens; `None` if none are sent.
    pub fn token_url(&self) -> Option<&str> {
        let of_account = || self.token_url.as_deref().unwrap_or(TOKEN_URL);
        self.metadata_url.as_deref().or_else(|| self.credentials.as_ref().map(|_| of_account()))
    }

    /// The full name of the table.
    pub fn table_name(&self) -> String {
        let Self { project, instance, table, .. } = self;
        format!("projects/{project}/instances/{instance}/tables/{table}")
    }

    /// The servers that are called.
    ///
    /// # Errors
    /// [`NotAHost`] if a URL is invalid; never for a checked spec.
    pub fn servers(&self) -> Result<Vec<HostPort>, NotAHost> {
        let urls = [Some(self.api_url()), self.token_url()];
        urls.into_iter().flatten().map(HostPort::of_url).collect()
    }

    /// Whether tokens and hashed users would be sent to another machine unencrypted, although that is not allowed.
    pub fn is_exposed(&self) -> bool {
        let called = [Some(self.api_url()), self.token_url.as_deref()];
        !self.insecure && called.into_iter().flatten().any(is_plain_remote)
    }

    /// What is wrong with the identity, if something is.
    pub fn identity_fault(&self) -> Option<&'static str> {
        let both = self.credentials.is_some() && self.metadata_url.is_some();
        let none = self.credentials.is_none() && self.metadata_url.is_none();
        if both || (none && self.endpoint.is_none()) {
            return Some("exactly one of `credentials` and `metadata_url` is needed");
        }
        let unused = self.token_url.is_some() && self.credentials.is_none();
        unused.then_some("`token_url` is for `credentials`")
    }

    /// Whether a text can be the name of an instance, a table, a column family or an application profile.
    pub fn is_name(text: &str) -> bool {
        text.len() <= MAX_NAME && BigQuerySettings::is_plain_name(text) && !text.contains(':')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> BigtableSettings {
        BigtableSettings {
            project: "ads".to_owned(),
            instance: "serving".to_owned(),
            table: "users".to_owned(),
            family: "audiences".to_owned(),
            app_profile: None,
            credentials: None,
            token_url: None,
            metadata_url: None,
            endpoint: None,
            insecure: false,
        }
    }

    fn servers(table: &BigtableSettings) -> Vec<String> {
        table.servers().unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_servers_are_those_of_the_api_and_of_its_access_tokens() {
        let key = SecretRef::Env("KEY".to_owned());
        let by_key = BigtableSettings { credentials: Some(key), ..table() };
        assert_eq!(servers(&by_key), ["bigtable.googleapis.com", "oauth2.googleapis.com"]);
        let metadata_url = Some("http://metadata.google.internal".to_owned());
        let of_machine = BigtableSettings { metadata_url, ..table() };
        assert_eq!(
            servers(&of_machine),
            ["bigtable.googleapis.com", "metadata.google.internal:80"]
        );
        assert!(by_key.is_encrypted() && !by_key.is_exposed() && !of_machine.is_exposed());
        let emulator =
            BigtableSettings { endpoint: Some("http://127.0.0.1:8086".to_owned()), ..table() };
        assert_eq!(servers(&emulator), ["127.0.0.1:8086"]);
        assert!(!emulator.is_encrypted() && !emulator.is_exposed());
        let remote = BigtableSettings { endpoint: Some("http://emulator".to_owned()), ..table() };
        assert!(remote.is_exposed());
        assert!(!BigtableSettings { insecure: true, ..remote }.is_exposed());
    }

    #[test]
    fn without_an_identity_only_an_emulator_is_called() {
        let key = Some(SecretRef::Env("KEY".to_owned()));
        let url = Some("http://127.0.0.1:1".to_owned());
        assert!(table().identity_fault().is_some());
        let emulator = BigtableSettings { endpoint: url.clone(), ..table() };
        assert_eq!(emulator.identity_fault(), None);
        let unused = BigtableSettings { token_url: url.clone(), ..emulator };
        assert!(unused.identity_fault().is_some());
        let by_key = BigtableSettings { credentials: key, token_url: url.clone(), ..table() };
        assert_eq!(by_key.identity_fault(), None);
        assert!(BigtableSettings { metadata_url: url, ..by_key }.identity_fault().is_some());
    }

    #[test]
    fn names_have_no_slash() {
        for name in ["users", "_v2.users-eu", "a"] {
            assert!(BigtableSettings::is_name(name), "{name}");
        }
        for text in ["", "a/b", "a:b", "..", "a b", "é", "x".repeat(65).as_str()] {
            assert!(!BigtableSettings::is_name(text), "{text}");
        }
    }
}
