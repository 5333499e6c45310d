//! Which site's page sent a request, as the browser says it.

use axum::http::header;
use axum::http::request::Parts;

use super::host::HostNames;
use super::text;

const SITE: &str = "sec-fetch-site";
const MODE: &str = "sec-fetch-mode";
const PURPOSE: &str = "sec-purpose";

/// What a request says about the page that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// Nothing: a program, or a browser that does not say it.
    Unsaid,
    /// A page of this node, or the person (address bar, bookmark).
    Own,
    /// A page of another site. To a browser a page on another port of this machine is of the same
    /// *site*, but it is not of the same origin: it is foreign here.
    Foreign,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    from: Sender,
    /// The browser goes to a page; it does not fetch something for a page.
    navigates: bool,
}

impl Site {
    /// Whether another site's page sent it.
    pub(super) fn is_foreign(self) -> bool {
        self.from == Sender::Foreign
    }

    /// Whether the cookie counts. To change something, the browser must say that it comes from a page
    /// of this node; to read, another site's page may lead here but fetch nothing.
    pub(super) fn may_use_cookie(self, changes: bool) -> bool {
        match self.from {
            Sender::Own => true,
            Sender::Unsaid => !changes,
            Sender::Foreign => !changes && self.navigates,
        }
    }
}

/// Where a request comes from. Both headers have to agree that it is a page of this node.
pub(super) fn of(parts: &Parts, hosts: &HostNames) -> Site {
    let site = parts.headers.contains_key(SITE).then(|| {
        let value = text(parts, SITE).unwrap_or_default();
        matches!(value, "same-origin" | "none")
    });
    let origin = parts.headers.contains_key(header::ORIGIN).then(|| {
        let value = text(parts, header::ORIGIN).unwrap_or_default();
        let one = parts.headers.get_all(header::ORIGIN).iter().count() == 1;
        one && hosts.is_own_origin(value, parts)
    });
    let from = match (site, origin) {
        (None, None) => Sender::Unsaid,
        (Some(false), _) | (_, Some(false)) => Sender::Foreign,
        _ => Sender::Own,
    };
    Site { from, navigates: text(parts, MODE) == Some("navigate") }
}

/// Whether the person opened this address: typed it, chose it in another program, or a bookmark. Not
/// a page that led here, not a preview, not a browser that fetches ahead.
pub(super) fn is_opened_by_hand(parts: &Parts) -> bool {
    text(parts, SITE) == Some("none")
        && text(parts, MODE) == Some("navigate")
        && !parts.headers.contains_key(PURPOSE)
        && !parts.headers.contains_key("purpose")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(headers: &[(&str, &str)]) -> Site {
        let mut builder = axum::http::Request::builder().uri("/").header("host", "127.0.0.1:7077");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let hosts = HostNames::new(([127, 0, 0, 1], 7077).into(), false, None, &[]);
        of(&builder.body(()).unwrap().into_parts().0, &hosts)
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
    fn a_cookie_changes_something_only_from_an_own_page() {
        for headers in [
            &[("sec-fetch-site", "same-origin")][..],
            &[("sec-fetch-site", "none")],
            &[("origin", "http://127.0.0.1:7077")],
            &[("origin", "http://127.0.0.1:7077"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(site(headers).may_use_cookie(true), "{headers:?}");
        }
        let unsaid = site(&[]);
        assert!(
            !unsaid.is_foreign() && unsaid.may_use_cookie(false) && !unsaid.may_use_cookie(true)
        );
        let led = site(&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate")]);
        assert!(led.may_use_cookie(false) && !led.may_use_cookie(true));
    }
}
