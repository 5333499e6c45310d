//! The settings of an account.

use throng_model::{Secret, is_loopback_host};
use url::{Origin, Url};

use crate::RegistryError;

const GRAPH: &str = "https://graph.facebook.com";

/// A Meta ad account with resolved secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaAccount {
    /// The account's id: digits, with or without `act_` before them.
    pub account: String,
    /// The token.
    pub access_token: Secret,
    /// The app's secret, if calls carry its proof.
    pub app_secret: Option<Secret>,
    /// Another server than Meta's own: a simulator.
    pub base_url: Option<String>,
    /// The version of the API.
    pub api_version: String,
}

/// A checked account.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// Digits, without `act_`.
    pub(super) account: String,
    /// Scheme, host and version, without a slash at the end.
    pub(super) root: String,
    /// Scheme, host and port of `root`.
    pub(super) origin: Origin,
    /// Whether the server is on this machine.
    pub(super) is_local: bool,
    pub(super) access_token: Secret,
    pub(super) app_secret: Option<Secret>,
}

pub(super) fn check(account: &MetaAccount) -> Result<Config, RegistryError> {
    let refuse = |why: &str| RegistryError::Account {
        account: account.account.clone(),
        why: why.to_owned(),
    };
    let digits = account.account.strip_prefix("act_").unwrap_or(&account.account);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse("a Meta ad account is a number, with or without act_ before it"));
    }
    // It could not be sent in a header, and every call would fail as if the connection were broken.
    if !account.access_token.expose().bytes().all(|b| b.is_ascii_graphic()) {
        return Err(refuse(
            "its access_token has a blank, a line break or another character that no token has: put the token alone \
             where the spec refers to",
        ));
    }
    let base = account.base_url.as_deref().unwrap_or(GRAPH).trim_end_matches('/');
    if !base.starts_with("https://") && !base.starts_with("http://") {
        return Err(refuse("its base_url must begin with https:// (or http:// for a simulator)"));
    }
    let version = &account.api_version;
    let numbers = version.strip_prefix('v').unwrap_or_default();
    if numbers.is_empty() || !numbers.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(refuse("its api_version must look like v25.0"));
    }
    let root = format!("{base}/{version}");
    let Ok(parsed) = Url::parse(&root) else {
        return Err(refuse("its base_url is not the URL of a server"));
    };
    Ok(Config {
        account: digits.to_owned(),
        root,
        origin: parsed.origin(),
        is_local: parsed.host_str().is_some_and(is_loopback_host),
        access_token: account.access_token.clone(),
        app_secret: account.app_secret.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: &str, base: Option<&str>, version: &str) -> MetaAccount {
        MetaAccount {
            account: id.into(),
            access_token: Secret::new("t"),
            app_secret: None,
            base_url: base.map(str::to_owned),
            api_version: version.into(),
        }
    }

    #[test]
    fn accounts_are_checked() {
        let good = check(&account("act_12", None, "v25.0")).unwrap();
        assert_eq!(
            (good.account.as_str(), good.root.as_str()),
            ("12", "https://graph.facebook.com/v25.0")
        );
        for bad in [
            account("twelve", None, "v25.0"),
            account("", None, "v25.0"),
            account("1", Some("ftp://x"), "v25.0"),
            account("1", None, "25"),
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_that_no_header_can_have_is_refused_without_its_value() {
        for token in ["s3cret\nother", "\u{feff}s3cret", "s3cret other"] {
            let token = Secret::new(token);
            let error = check(&MetaAccount { access_token: token, ..account("1", None, "v25.0") });
            let message = error.unwrap_err().to_string();
            assert!(message.contains("access_token has a blank"), "{message}");
            assert!(!message.contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn servers_on_this_machine_need_no_proxy() {
        let is_local = |base| check(&account("1", base, "v25.0")).unwrap().is_local;
        assert!(is_local(Some("http://127.0.0.1:9000")) && is_local(Some("http://[::1]:9000")));
        assert!(is_local(Some("https://localhost")));
        assert!(!is_local(None) && !is_local(Some("http://10.0.0.1:9000")));
    }
}
