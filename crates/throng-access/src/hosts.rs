//! The host names that a node accepts. Another site can make its own name resolve to the address of this node
//! (DNS rebinding). For the browser its pages then have the same origin as the node, and only the name in
//! `Host` shows the difference. IP addresses cannot be rebound.

use std::net::{IpAddr, SocketAddr};

use http::header;
use http::request::Parts;

/// A host with its port, if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    /// In lower case; an IPv6 address in brackets.
    host: String,
    port: Option<u16>,
}

impl Authority {
    /// Parses the value of `Host`, or the authority of an origin. `None` if it is neither a name nor an address.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let (host, port) = match text.rsplit_once(':') {
            Some(_) if text.ends_with(']') => (text.as_str(), None),
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
                (host, Some(port.parse::<u16>().ok()?))
            }
            Some(_) => return None,
            None => (text.as_str(), None),
        };
        // A trailing dot does not change the name.
        let host = host.strip_suffix('.').unwrap_or(host);
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b);
        (!host.is_empty() && host.len() <= 255 && host.bytes().all(is_allowed))
            .then(|| Self { host: host.to_owned(), port })
    }

    fn address(&self) -> Option<IpAddr> {
        let bare = self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match bare {
            Some(v6) => v6.parse().ok().map(IpAddr::V6),
            None => self.host.parse().ok().map(IpAddr::V4),
        }
    }

    fn port_or(&self, default: u16) -> u16 {
        self.port.unwrap_or(default)
    }
}

/// Why the host of a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostRefusal {
    /// It is not a name of the node.
    #[error("the host name `{0}` is not a name of this node")]
    Unknown(String),
    /// The request does not have one host.
    #[error("{0}")]
    Invalid(&'static str),
}

/// The host names and addresses that a node accepts.
#[derive(Debug, Clone)]
pub struct HostNames {
    listen: SocketAddr,
    tls: bool,
    public: Option<Public>,
    allowed: Vec<Authority>,
}

/// The parts of `node.public_url`.
#[derive(Debug, Clone)]
struct Public {
    https: bool,
    authority: Authority,
}

impl HostNames {
    /// The host names of a node that listens on an address, with the settings `node.public_url` and
    /// `node.allowed_hosts`.
    pub fn new(
        listen: SocketAddr,
        tls: bool,
        public_url: Option<&str>,
        allowed_hosts: &[String],
    ) -> Self {
        let public = public_url.and_then(|url| {
            let (scheme, rest) = url.split_once("://")?;
            let authority = Authority::parse(rest.trim_end_matches('/'))?;
            Some(Public { https: scheme == "https", authority })
        });
        let allowed = allowed_hosts.iter().filter_map(|host| Authority::parse(host)).collect();
        Self { listen, tls, public, allowed }
    }

    /// Whether browsers reach the node over HTTPS.
    pub(crate) fn is_https(&self) -> bool {
        self.public.as_ref().map_or(self.tls, |public| public.https)
    }

    /// The port that browsers connect to.
    pub(crate) fn public_port(&self) -> u16 {
        match &self.public {
            Some(public) => public.authority.port_or(if public.https { 443 } else { 80 }),
            None => self.listen.port(),
        }
    }

    fn default_port(&self) -> u16 {
        if self.tls { 443 } else { 80 }
    }

    fn is_known(&self, host: &Authority, probe: bool) -> bool {
        let is_our_port = host.port_or(self.default_port()) == self.listen.port();
        let known_address = match host.address() {
            // Kubernetes and load balancers probe by address, and with a port of their own.
            Some(_) if probe => true,
            Some(address) => {
                let bound = self.listen.ip();
                // A node that listens on all addresses accepts any of them: their list is not known here, and a
                // request with an address of another machine does not arrive here.
                is_our_port && (bound.is_unspecified() || address == bound || address.is_loopback())
            }
            None => is_our_port && host.host == "localhost",
        };
        let matches = |known: &Authority| {
            known.host == host.host && (known.port.is_none() || known.port == host.port)
        };
        let public = self.public.as_ref().is_some_and(|public| {
            let default = if public.https { 443 } else { 80 };
            public.authority.host == host.host
                && public.authority.port_or(default) == host.port_or(default)
        });
        known_address || public || self.allowed.iter().any(matches)
    }

    /// Refuses a request whose host is missing, duplicate or unknown. A probe may use any address.
    ///
    /// # Errors
    /// [`HostRefusal`].
    pub fn check(&self, parts: &Parts, probe: bool) -> Result<(), HostRefusal> {
        let host = host_of(parts).map_err(HostRefusal::Invalid)?;
        if self.is_known(&host, probe) { Ok(()) } else { Err(HostRefusal::Unknown(host.host)) }
    }

    /// Whether an origin, such as `https://ads.example.com`, is the one of this request's host.
    pub(crate) fn is_own_origin(&self, origin: &str, parts: &Parts) -> bool {
        let Some((scheme, rest)) = origin.split_once("://") else { return false };
        let (Some(from), Ok(host)) = (Authority::parse(rest), host_of(parts)) else {
            return false;
        };
        let default = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return false,
        };
        // If browsers use HTTPS, a page without TLS is not trusted: anybody on the network path can change
        // it.
        if self.is_https() && scheme != "https" {
            return false;
        }
        from.host == host.host && from.port_or(default) == host.port_or(default)
    }
}

/// The host of a request: `Host` in HTTP/1, the authority in HTTP/2. Where there are both, they are
/// equal.
fn host_of(parts: &Parts) -> Result<Authority, &'static str> {
    let mut headers = parts.headers.get_all(header::HOST).iter();
    let header = headers.next().map(|value| value.to_str());
    if headers.next().is_some() {
        return Err("the request has two `Host` headers");
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    let read = |text: &str| Authority::parse(text).ok_or("the request's `Host` is not a host name");
    match (header, authority) {
        (None, None) => Err("the request has no `Host` header"),
        (Some(Err(_)), _) => Err("the request's `Host` is not a host name"),
        (Some(Ok(host)), None) => read(host),
        (None, Some(authority)) => read(authority),
        (Some(Ok(host)), Some(authority)) => {
            let (host, authority) = (read(host)?, read(authority)?);
            match host == authority {
                true => Ok(host),
                false => Err("the hosts of the request line and of `Host` differ"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, hosts: &[&str]) -> Parts {
        let mut builder = http::Request::builder().uri(uri);
        for host in hosts {
            builder = builder.header("host", *host);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn known(names: &HostNames, hosts: &[&str], probe: bool) -> bool {
        names.check(&request("/", hosts), probe).is_ok()
    }

    #[test]
    fn a_loopback_node_accepts_loopback_names_with_its_port() {
        let names = HostNames::new(([127, 0, 0, 1], 7077).into(), false, None, &[]);
        for host in ["127.0.0.1:7077", "localhost:7077", "LocalHost.:7077", "[::1]:7077"] {
            assert!(known(&names, &[host], false), "{host}");
        }
        let foreign = [
            "evil.example:7077",
            "localhost",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.0.0.1.evil.example:7077",
            "10.0.0.1:7077",
            "localhost:7077@evil.example",
            "",
            "localhost:x",
            "0.0.0.0:7077",
        ];
        for host in foreign {
            assert!(!known(&names, &[host], false), "{host}");
        }
        assert!(!known(&names, &[], false), "no host");
        assert!(!known(&names, &["localhost:7077", "localhost:7077"], false), "two hosts");
    }

    #[test]
    fn probes_may_use_any_address_but_no_other_name() {
        let names = HostNames::new(([127, 0, 0, 1], 7077).into(), false, None, &[]);
        for host in ["10.1.2.3:7077", "10.1.2.3", "[2001:db8::1]:80"] {
            assert!(known(&names, &[host], true), "{host}");
        }
        for host in ["evil.example:7077", "evil.example", ""] {
            assert!(!known(&names, &[host], true), "{host}");
        }
    }

    #[test]
    fn a_node_on_all_addresses_accepts_addresses_and_its_names() {
        let allowed = ["relay".to_owned(), "lookup:7077".to_owned()];
        let public = Some("https://ads.example.com");
        let names = HostNames::new(([0, 0, 0, 0], 7077).into(), false, public, &allowed);
        let accepted = [
            "10.1.2.3:7077",
            "ads.example.com",
            "ads.example.com:443",
            "relay",
            "relay:1",
            "lookup:7077",
            "localhost:7077",
        ];
        for host in accepted {
            assert!(known(&names, &[host], false), "{host}");
        }
        for host in ["ads.example.com:7077", "lookup", "lookup:80", "example.com", "10.1.2.3"] {
            assert!(!known(&names, &[host], false), "{host}");
        }
        assert!(names.is_https());
        assert_eq!(names.public_port(), 443);
    }

    #[test]
    fn authority_and_header_must_be_equal() {
        let names = HostNames::new(([127, 0, 0, 1], 80).into(), false, None, &[]);
        let check = |uri: &str, hosts: &[&str]| names.check(&request(uri, hosts), false).is_ok();
        assert!(check("http://localhost/", &[]));
        assert!(check("http://localhost/", &["localhost"]));
        assert!(!check("http://localhost/", &["evil.example"]));
        assert!(!check("http://evil.example/", &["localhost"]));
    }

    #[test]
    fn only_the_own_origin_is_own() {
        let local = HostNames::new(([127, 0, 0, 1], 7077).into(), false, None, &[]);
        let from = |names: &HostNames, host: &str, origin: &str| {
            names.is_own_origin(origin, &request("/", &[host]))
        };
        assert!(from(&local, "127.0.0.1:7077", "http://127.0.0.1:7077"));
        let foreign = [
            "http://127.0.0.1:7078",
            "http://localhost:7077",
            "http://127.0.0.1",
            "null",
            "",
            "https://evil.example",
            "file://127.0.0.1:7077",
            "http://127.0.0.1:7077.evil.example",
        ];
        for origin in foreign {
            assert!(!from(&local, "127.0.0.1:7077", origin), "{origin}");
        }
        let public = HostNames::new(
            ([0, 0, 0, 0], 7077).into(),
            false,
            Some("https://ads.example.com"),
            &[],
        );
        assert!(from(&public, "ads.example.com", "https://ads.example.com"));
        assert!(from(&public, "ads.example.com:443", "https://ads.example.com"));
        assert!(!from(&public, "ads.example.com", "http://ads.example.com"));
    }
}
