//! The names under which clients reach a node.

use super::Reader;
use super::fields::Fields;
use super::tree::Value;

/// Whether a text is `host` or `host:port`, as in a `Host` header.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address without a port ends with its bracket.
        Some(_) if text.ends_with(']') => (text, None),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let named = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        }
    };
    named && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

impl Reader {
    /// The public URL. Messages do not contain it: it may contain a password.
    pub(super) fn public_url(&mut self, fields: &mut Fields<'_>) -> Option<String> {
        let (node, at) = fields.get("public_url")?;
        let text = self.text(node, &at)?.trim_end_matches('/');
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        if host.is_some_and(is_host) {
            return Some(text.to_ascii_lowercase());
        }
        let help = "write scheme, host and port only, such as https://ads.example.com or \
                    http://10.0.0.7:7077";
        self.problem(&at, "this is not the URL of a node", Some(help.to_owned()));
        None
    }

    /// `allowed_hosts: [relay, "relay:7077"]`.
    pub(super) fn allowed_hosts(&mut self, fields: &mut Fields<'_>) -> Vec<String> {
        let Some((node, at)) = fields.get("allowed_hosts") else { return Vec::new() };
        let Value::List(items) = &node.value else {
            let help = "write a list, such as `allowed_hosts: [relay]`".to_owned();
            self.problem(&at, "the hosts are not a list", Some(help));
            return Vec::new();
        };
        let mut hosts = Vec::new();
        for (place, item) in items.iter().enumerate() {
            let at = at.index(place, item);
            let Some(text) = self.text(item, &at) else { continue };
            if is_host(text) {
                hosts.push(text.to_ascii_lowercase());
            } else {
                let help = "write a host name or address, with a port if only that one counts: \
                            relay, relay:7077; `*` is not possible";
                self.problem(&at, "this is not a host", Some(help.to_owned()));
            }
        }
        hosts
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn hosts_are_names_or_addresses_with_or_without_a_port() {
        for good in ["relay", "relay:7077", "a-b.example.com", "10.0.0.1:80", "[::1]", "[::1]:7077"]
        {
            assert!(super::is_host(good), "{good}");
        }
        for bad in ["", ":80", "a:", "a:0", "a:99999", "a/b", "a b", "*", "u@h", "::1", "[x]:1"] {
            assert!(!super::is_host(bad), "{bad}");
        }
    }
}
