//! The page to sign in.

use askama::Template;

use crate::Rendered;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    back: &'a str,
    code: &'a str,
    error: &'a str,
}

/// A form for a token. `back`: the path to show after signing in. `error`: why the last attempt failed; empty if
/// there was none.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn with_token(back: &str, error: &str) -> Rendered {
    SignInPage { back, code: "", error }.render()
}

/// A button that signs in with the code of a link.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn with_code(code: &str) -> Rendered {
    SignInPage { back: "/", code, error: "" }.render()
}
