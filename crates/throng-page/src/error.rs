//! The page of an error.

use askama::Template;

use crate::Rendered;

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    title: &'a str,
    message: &'a str,
    suggested_fix: Option<&'a str>,
}

impl ErrorPage<'_> {
    fn menu_path(&self) -> &'static str {
        ""
    }
}

/// An error with its message, and how to fix it if that is known.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn page(title: &str, message: &str, suggested_fix: Option<&str>) -> Rendered {
    ErrorPage { title, message, suggested_fix }.render()
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_error_is_escaped_and_has_its_fix() {
        let html = super::page("Not found", "There is no task <b>.", Some("use a number")).unwrap();
        assert!(html.contains("There is no task &#60;b&#62;."), "{html}");
        assert!(html.contains("<b>Suggested fix:</b> use a number"), "{html}");
        assert!(!super::page("Error", "no", None).unwrap().contains("Suggested fix"));
    }
}
