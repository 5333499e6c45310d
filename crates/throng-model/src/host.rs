//! Servers by host and port, as the HTTP client parses them.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// A server: a host name or IP address in its canonical form, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// The text does not name a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a server: write HOST or HOST:PORT, such as graph.facebook.com or 10.0.0.7:8443"
)]
pub struct NotAHost;

impl HostPort {
    /// The server of an `http` or `https` URL, by the parser of the HTTP client. With another
    /// parser a URL could be checked as one server and called on another.
    ///
    /// # Errors
    /// [`NotAHost`] if it is not such a URL, or contains a user, a password, a query or a fragment.
    pub fn of_url(text: &str) -> Result<Self, NotAHost> {
        // The parser removes tabs and line breaks and reads `\` as `/`, so the text would differ
        // from the URL.
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err(NotAHost);
        }
        let url = Url::parse(text).map_err(|_| NotAHost)?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && !text.contains('@');
        match (url.scheme(), url.host_str(), url.port_or_known_default()) {
            ("http" | "https", Some(host), Some(port)) if plain && !host.is_empty() => {
                Ok(Self { host: host.to_owned(), port })
            }
            _ => Err(NotAHost),
        }
    }
}

impl HostPort {
    /// The host; an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for HostPort {
    type Err = NotAHost;

    /// `HOST` without a port means port 443.
    fn from_str(text: &str) -> Result<Self, NotAHost> {
        if text.contains('/') {
            return Err(NotAHost);
        }
        Self::of_url(&format!("https://{text}"))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            443 => f.write_str(&self.host),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_compared_in_their_canonical_form() {
        let host = |text: &str| text.parse::<HostPort>().map(|host| host.to_string());
        assert_eq!(host("Graph.Facebook.com"), Ok("graph.facebook.com".to_owned()));
        assert_eq!(host("graph.facebook.com:443"), Ok("graph.facebook.com".to_owned()));
        assert_eq!(host("127.0.0.1:7078"), Ok("127.0.0.1:7078".to_owned()));
        assert_eq!(host("0x7f.1:80"), Ok("127.0.0.1:80".to_owned()));
        assert_eq!(host("[::1]:8443"), Ok("[::1]:8443".to_owned()));
        for wrong in ["", "a/b", "https://a", "a@b", "a:b", "a b", "a?b", "a#b", "a\\b", ":80"] {
            assert_eq!(host(wrong), Err(NotAHost), "{wrong}");
        }
    }

    #[test]
    fn a_url_names_its_server_and_urls_that_disguise_it_are_refused() {
        let server = |text: &str| HostPort::of_url(text).map(|host| host.to_string());
        assert_eq!(server("https://graph.facebook.com/v1"), Ok("graph.facebook.com".to_owned()));
        assert_eq!(server("http://Localhost:80"), Ok("localhost:80".to_owned()));
        for wrong in [
            "https://graph.facebook.com@evil.example",
            "https://graph.facebook.com:x@evil.example",
            "https:\\\\evil.example",
            "https://evil.example\\@graph.facebook.com",
            "https://a.example/?q",
            "https://a.example/#f",
            "https://a.example/\t",
            "ftp://a.example",
            "https://",
            "graph.facebook.com",
        ] {
            assert_eq!(server(wrong), Err(NotAHost), "{wrong}");
        }
    }
}
