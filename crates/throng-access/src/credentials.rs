//! The credentials of a request: a token, or the session of a browser in a cookie. The browser never stores the token.

use http::header;
use http::request::Parts;
use throng_store::LedgerError;

use crate::access::{Access, Caller};
use crate::headers::text;
use crate::hosts::HostNames;
use crate::origin::RequestOrigin;

/// The credentials that a request has.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    /// None.
    None,
    /// A token, in the header `Authorization`.
    Token(&'a str),
    /// The secret of a session, in a cookie.
    Session(&'a str),
}

impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token(…)",
            Self::Session(_) => "Session(…)",
        })
    }
}

/// The result of checking credentials.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// The request has no credentials, or an expired session, or a session that does not count because a page of
    /// another site may have sent the request.
    Anonymous,
    /// Its token or session is valid.
    Caller(Caller),
    /// Its token is not valid.
    WrongToken,
}

/// The token of an `Authorization` header; `None` if it has another scheme, or none. The case of the scheme does not
/// matter (RFC 9110, section 11.1): some proxies write `bearer`.
pub fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// The cookie with the secret of a session.
#[derive(Debug, Clone)]
pub struct SessionCookie {
    name: String,
    is_secure: bool,
}

impl SessionCookie {
    /// The cookie of a node with these host names.
    pub fn new(hosts: &HostNames) -> Self {
        // Browsers send a cookie to every port of a host. The port in its name separates the sessions of
        // two nodes on one machine.
        let (port, is_secure) = (hosts.public_port(), hosts.is_https());
        let prefix = if is_secure { "__Host-" } else { "" };
        Self { name: format!("{prefix}throng-session-{port}"), is_secure }
    }

    /// The credentials of a request. A token counts before a session.
    pub fn credentials<'a>(&self, parts: &'a Parts) -> Credentials<'a> {
        if let Some(value) = text(parts, header::AUTHORIZATION) {
            // Another scheme counts as a wrong token, not as a missing one.
            return Credentials::Token(bearer_token(value).unwrap_or_default());
        }
        let cookies = parts.headers.get_all(header::COOKIE);
        let mut pairs = cookies.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';'));
        let session = pairs.find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == self.name).then_some(value)
        });
        session.map_or(Credentials::None, Credentials::Session)
    }

    /// The value of `Set-Cookie`. `SameSite=Strict`: browsers do not send the cookie with requests of other sites.
    pub fn set(&self, value: &str, max_age_secs: u64) -> String {
        let secure = if self.is_secure { "; Secure" } else { "" };
        format!(
            "{}={value}; Path=/; Max-Age={max_age_secs}; HttpOnly; SameSite=Strict{secure}",
            self.name
        )
    }
}

impl Access {
    /// Checks the credentials of a request from `site`. `changes`: it is not only a read.
    ///
    /// # Errors
    /// [`LedgerError`] if the ledger does not respond.
    pub async fn authenticate(
        &self,
        credentials: Credentials<'_>,
        site: RequestOrigin,
        changes: bool,
    ) -> Result<Authentication, LedgerError> {
        let (found, otherwise) = match credentials {
            Credentials::None => return Ok(Authentication::Anonymous),
            Credentials::Token(token) => (self.token(token).await?, Authentication::WrongToken),
            // The browser adds the cookie also to requests of other sites, so it counts only if the browser
            // says that a page of this node sent the request. A page on another port is another site.
            Credentials::Session(_) if !site.may_use_cookie(changes) => {
                return Ok(Authentication::Anonymous);
            }
            // An expired session is not a wrong token: the person signs in again.
            Credentials::Session(secret) => {
                (self.session(secret).await?, Authentication::Anonymous)
            }
        };
        Ok(found.map_or(otherwise, Authentication::Caller))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::builder().uri("/");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn cookie(public_url: Option<&str>) -> SessionCookie {
        SessionCookie::new(&HostNames::new(([127, 0, 0, 1], 7077).into(), false, public_url, &[]))
    }

    #[test]
    fn a_token_counts_before_a_session_and_other_cookies_do_not_count() {
        let cookie = cookie(None);
        let found = |headers: &[(&str, &str)]| match cookie.credentials(&request(headers)) {
            Credentials::None => "none".to_owned(),
            Credentials::Token(token) => format!("token {token}"),
            Credentials::Session(secret) => format!("session {secret}"),
        };
        let own = ("cookie", "a=b; throng-session-7077=s");
        assert_eq!(found(&[]), "none");
        assert_eq!(found(&[own]), "session s");
        assert_eq!(found(&[("cookie", "throng-session-7078=s")]), "none");
        assert_eq!(found(&[("cookie", "a=b"), ("cookie", "throng-session-7077=s")]), "session s");
        assert_eq!(found(&[own, ("authorization", "Bearer t ")]), "token t");
        assert_eq!(found(&[own, ("authorization", "bearer t")]), "token t");
        assert_eq!(found(&[own, ("authorization", "BEARER  t")]), "token t");
        assert_eq!(found(&[own, ("authorization", "Basic dTpw")]), "token ");
        assert_eq!(found(&[own, ("authorization", "t")]), "token ");
    }

    #[test]
    fn the_cookie_of_a_node_behind_https_is_secure() {
        let plain = "throng-session-7077=s; Path=/; Max-Age=9; HttpOnly; SameSite=Strict";
        assert_eq!(cookie(None).set("s", 9), plain);
        let secure =
            "__Host-throng-session-443=s; Path=/; Max-Age=9; HttpOnly; SameSite=Strict; Secure";
        assert_eq!(cookie(Some("https://ads.example.com")).set("s", 9), secure);
    }
}
