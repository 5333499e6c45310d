//! Which addresses are on this machine. Secrets are sent to any other address only encrypted,
//! unless the spec allows otherwise.

use std::net::IpAddr;

use url::Url;

/// Whether a host, as written in an address, is this machine: `localhost`, a subdomain of it, or a
/// loopback address. Any other name is not, whatever it resolves to: the name server could change
/// that.
pub fn is_loopback_host(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// The host of `scheme://user@host:port/path`, or of `host:port`; brackets of an IPv6 address stay.
pub fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    if server.starts_with('[') {
        return server.find(']').map_or(server, |end| &server[..=end]);
    }
    server.split(':').next().unwrap_or_default()
}

/// Whether a URL is on another machine and unencrypted, by the parser of the HTTP client, which also
/// reads `http:/host`.
pub fn is_plain_remote(url: &str) -> bool {
    if let Ok(url) = Url::parse(url) {
        return url.scheme() == "http" && !url.host_str().is_some_and(is_loopback_host);
    }
    let plain = url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    plain && !is_loopback_host(host_of(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_recognized() {
        for url in [
            "http://127.0.0.1:7078",
            "http://127.8.0.1/path",
            "HTTP://LocalHost./x",
            "http://meta.localhost:80?x",
            "http://[::1]:7078/",
            "http://[::ffff:127.0.0.1]:7078/",
            "https://graph.example.com",
        ] {
            assert!(!is_plain_remote(url), "{url}");
        }
        for url in [
            "http://graph.example.com",
            "http://10.0.0.1:80",
            "http://localhost.example.com/",
            "http://127.0.0.1@evil.example/",
            "http://[2001:db8::1]:80/",
            "http://0.0.0.0:80",
            "http:/graph.example.com",
            "http:\\\\graph.example.com",
            " HTTP://graph.example.com",
            "http://",
        ] {
            assert!(is_plain_remote(url), "{url}");
        }
        assert_eq!(host_of("kafka-1:9092"), "kafka-1");
        assert_eq!(host_of("postgres://u:p@db.example:5432/x"), "db.example");
    }
}
