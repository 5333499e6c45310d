//! The site whose page sent a request, according to the browser.

use http::header;
use http::request::Parts;

use crate::headers::text;
use crate::hosts::HostNames;

const SITE: &str = "sec-fetch-site";
const MODE: &str = "sec-fetch-mode";
const PURPOSE: &str = "sec-purpose";

/// The sender of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// Unknown: a program, or a browser that sends neither header.
    Unknown,
    /// A page of this node, or the person (address bar, bookmark).
    Own,
    /// A page of another site. For a browser a page on another port of this machine is of the same
    /// *site*, but it has another origin, so it is foreign here.
    Foreign,
}

/// From whose page a request comes, by `Origin` and `Sec-Fetch-Site`. Pages of other sites may change nothing.
#[derive(Debug, Clone, Copy)]
pub struct RequestOrigin {
    sender: Sender,
    /// The browser navigates to a page, instead of fetching something for a page.
    navigates: bool,
}

impl RequestOrigin {
    /// The origin of a request. If it has both headers, both must say that it is a page of this node.
    pub fn of(parts: &Parts, hosts: &HostNames) -> Self {
        let site = parts.headers.contains_key(SITE).then(|| {
            let value = text(parts, SITE).unwrap_or_default();
            matches!(value, "same-origin" | "none")
        });
        let origin = parts.headers.contains_key(header::ORIGIN).then(|| {
            let value = text(parts, header::ORIGIN).unwrap_or_default();
            let one = parts.headers.get_all(header::ORIGIN).iter().count() == 1;
            one && hosts.is_own_origin(value, parts)
        });
        let sender = match (site, origin) {
            (None, None) => Sender::Unknown,
            (Some(false), _) | (_, Some(false)) => Sender::Foreign,
            _ => Sender::Own,
        };
        Self { sender, navigates: text(parts, MODE) == Some("navigate") }
    }

    /// Whether a page of another site sent the request.
    pub fn is_foreign(self) -> bool {
        self.sender == Sender::Foreign
    }

    /// Whether the session cookie counts. For a change the browser must say that a page of this node sent the
    /// request. For a read a page of another site may link here, but may not fetch.
    pub(crate) fn may_use_cookie(self, changes: bool) -> bool {
        match self.sender {
            Sender::Own => true,
            Sender::Unknown => !changes,
            Sender::Foreign => !changes && self.navigates,
        }
    }
}

/// Whether a person opened this address: by typing it, from another program, or from a bookmark. Not a link of
/// a page, a preview, or a prefetch of the browser.
pub fn is_opened_by_hand(parts: &Parts) -> bool {
    text(parts, SITE) == Some("none")
        && text(parts, MODE) == Some("navigate")
        && !parts.headers.contains_key(PURPOSE)
        && !parts.headers.contains_key("purpose")
}

/// A path of this node, or `/`: never another site. Only printable ASCII without `\`, because browsers read `\` as
/// `/` and drop tabs and line breaks.
pub fn own_path(back: &str) -> &str {
    let plain = back.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'\\');
    let own = back.starts_with('/') && !back.starts_with("//");
    if plain && own && back.len() <= 2_000 { back } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(headers: &[(&str, &str)]) -> RequestOrigin {
        let mut builder = http::Request::builder().uri("/").header("host", "127.0.0.1:7077");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let hosts = HostNames::new(([127, 0, 0, 1], 7077).into(), false, None, &[]);
        RequestOrigin::of(&builder.body(()).unwrap().into_parts().0, &hosts)
    }

    #[test]
    fn pages_of_other_sites_and_ports_are_foreign() {
        for headers in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "something-new")],
            &[("origin", "http://127.0.0.1:9999")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
            &[("origin", "http://127.0.0.1:7077"), ("sec-fetch-site", "cross-site")],
            &[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
            &[("origin", "http://127.0.0.1:7077"), ("origin", "https://evil.example")],
        ] {
            let site = site(headers);
            assert!(site.is_foreign(), "{headers:?}");
            assert!(!site.may_use_cookie(false) && !site.may_use_cookie(true), "{headers:?}");
        }
    }

    #[test]
    fn a_cookie_allows_changes_only_from_a_page_of_the_node() {
        for headers in [
            &[("sec-fetch-site", "same-origin")][..],
            &[("sec-fetch-site", "none")],
            &[("origin", "http://127.0.0.1:7077")],
            &[("origin", "http://127.0.0.1:7077"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(site(headers).may_use_cookie(true), "{headers:?}");
        }
        let unknown = site(&[]);
        assert!(
            !unknown.is_foreign() && unknown.may_use_cookie(false) && !unknown.may_use_cookie(true)
        );
        let linked = site(&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate")]);
        assert!(linked.may_use_cookie(false) && !linked.may_use_cookie(true));
    }

    #[test]
    fn only_paths_of_this_node_are_allowed_after_signing_in() {
        for own in ["/", "/decide?user=1", "/audiences/a%20b"] {
            assert_eq!(own_path(own), own);
        }
        for elsewhere in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "/\r\nset-cookie: a=b",
            "\t//evil.example",
            " /",
            "/ü",
            "javascript:alert(1)",
        ] {
            assert_eq!(own_path(elsewhere), "/", "{elsewhere:?}");
        }
    }
}
