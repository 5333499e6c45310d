//! Receivers of alerts: `node.alerts`.

use std::net::IpAddr;

use throng_model::Severity;

use super::Reader;
use super::fields::{At, Fields};
use super::tree::{Node, Value};
use crate::{SecretRef, WebhookSettings};

/// The largest number of receivers of one node.
const MAX_RECEIVERS: usize = 20;

/// Why a text is not a URL of a webhook, with the fix.
type UrlFault = (&'static str, &'static str);

impl Reader {
    /// `alerts: [{webhook: {url: …, secret: …}}]`; none unless set.
    pub(super) fn alerts(&mut self, fields: &mut Fields<'_>) -> Vec<WebhookSettings> {
        let Some((node, at)) = fields.get("alerts") else { return Vec::new() };
        let Value::List(items) = &node.value else {
            let help = "write a list: `- webhook: { url: https://…, secret: env:NAME }`".to_owned();
            self.problem(&at, "the receivers of alerts are not a list", Some(help));
            return Vec::new();
        };
        if items.len() > MAX_RECEIVERS {
            let help = format!("name at most {MAX_RECEIVERS}, and let one of them forward alerts");
            self.problem(
                &at,
                format!("{} receivers of alerts are too many", items.len()),
                Some(help),
            );
        }
        let mut receivers: Vec<WebhookSettings> = Vec::new();
        for (place, item) in items.iter().enumerate().take(MAX_RECEIVERS) {
            let at = at.index(place, item);
            let Some(receiver) = self.receiver(item, at.clone()) else { continue };
            if receivers.iter().any(|other| other.name == receiver.name) {
                let help = "give each a `name:` of its own".to_owned();
                let message = format!("two receivers of alerts are named `{}`", receiver.name);
                self.problem(&at, message, Some(help));
            }
            receivers.push(receiver);
        }
        receivers
    }

    fn receiver(&mut self, node: &Node, at: At) -> Option<WebhookSettings> {
        let mut fields = Fields::open(self, node, at)?;
        let webhook = fields.required(self, "webhook");
        let receiver = webhook.and_then(|(node, at)| self.webhook(node, at));
        fields.done(self);
        receiver
    }

    fn webhook(&mut self, node: &Node, at: At) -> Option<WebhookSettings> {
        let mut fields = Fields::open(self, node, at)?;
        let found = fields.required(self, "url");
        let url = found.and_then(|(node, at)| self.webhook_url(node, &at));
        let secret = fields
            .required(self, "secret")
            .and_then(|(node, at)| self.secret(node, &at, "secret"))
            .unwrap_or_else(|| SecretRef::Env("UNSET".to_owned()));
        let name = self.receiver_name(&mut fields);
        let severities = [("warning", Severity::Warning), ("critical", Severity::Critical)];
        let min_severity = self.word(&mut fields, "min_severity", &severities, Severity::Warning);
        let retry_hours = self.integer(&mut fields, "retry_hours", 1..=168, 24);
        fields.done(self);
        let (url, host) = url?;
        let name = name.unwrap_or(host);
        Some(WebhookSettings { name, url, secret, min_severity, retry_hours })
    }

    fn receiver_name(&mut self, fields: &mut Fields<'_>) -> Option<String> {
        let (node, at) = fields.get("name")?;
        let text = self.text(node, &at)?;
        let is_valid = text.len() <= 64
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !is_valid {
            let help = "write at most 64 letters, digits, `-`, `_` and `.`".to_owned();
            self.problem(&at, "this is not a name of a receiver", Some(help));
        }
        Some(text.to_owned())
    }

    /// The URL and its host. Messages do not contain the URL: its path may be a secret.
    fn webhook_url(&mut self, node: &Node, at: &At) -> Option<(String, String)> {
        let text = self.text(node, at)?;
        match host_of(text) {
            Ok(host) => Some((text.to_owned(), host)),
            Err((message, help)) => {
                self.problem(at, message, Some(help.to_owned()));
                None
            }
        }
    }
}

/// The host of a URL to which alerts may be sent.
fn host_of(url: &str) -> Result<String, UrlFault> {
    const NOT_A_URL: UrlFault = ("this is not a URL of a receiver", "write https://HOST/PATH");
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err(NOT_A_URL),
    };
    let server = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let plain = url.len() <= 2_000 && url.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if server.contains('@') {
        let help = "leave out user and password; requests are signed with `secret`";
        return Err(("a receiver's URL contains a user", help));
    }
    let host = match server.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => server.split(':').next().unwrap_or_default(),
    };
    if host.is_empty() || !plain {
        return Err(NOT_A_URL);
    }
    let loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !secure && !loopback {
        let help = "write https://…; http:// is for a receiver on 127.0.0.1 only";
        return Err(("alerts would be sent to another machine unencrypted", help));
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_is_allowed_anywhere_and_http_on_this_machine_only() {
        for (url, host) in [
            ("https://hooks.example.com/x?y=1", "hooks.example.com"),
            ("https://hooks.example.com:8443", "hooks.example.com"),
            ("http://127.0.0.1:9/x", "127.0.0.1"),
            ("http://localhost:9", "localhost"),
            ("http://[::1]:9/x", "::1"),
        ] {
            assert_eq!(host_of(url).as_deref(), Ok(host), "{url}");
        }
        for url in [
            "http://hooks.example.com/x",
            "http://10.0.0.1/x",
            "http://127.0.0.1.example.com/x",
            "http://127.0.0.1@example.com/x",
            "https://user:password@example.com/",
            "https://",
            "https:///x",
            "ftp://example.com",
            "example.com/x",
            "https://exa mple.com",
            "https://example.com\\@other.example",
        ] {
            assert!(host_of(url).is_err(), "{url}");
        }
    }
}
