//! The page of an error.

use askama::Template;
use throng_model::WorkspaceName;

use crate::Rendered;
use crate::workspace::in_workspace;

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

/// The page of a path that does not exist. `workspace`: that of a caller who is limited to one.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn no_such_page(workspace: Option<&WorkspaceName>) -> Rendered {
    let html = page("Not found", "There is no page at this address.", None)?;
    Ok(workspace.map(|workspace| in_workspace(&html, workspace)).unwrap_or(html))
}

#[cfg(test)]
mod tests {
    use throng_model::WorkspaceName;

    #[test]
    fn a_page_that_does_not_exist_leads_home_and_shows_the_workspace_of_its_caller() {
        let home = "<a href=\"/\">To the overview</a>";
        let html = super::no_such_page(None).unwrap();
        assert!(html.contains(home) && html.contains("href=\"/budgets\""), "{html}");
        let acme = WorkspaceName::new("acme").unwrap();
        let html = super::no_such_page(Some(&acme)).unwrap();
        assert!(html.contains(home) && html.contains("<span id=\"workspace\">acme"), "{html}");
        assert!(!html.contains("href=\"/budgets\""), "{html}");
    }

    #[test]
    fn an_error_is_escaped_and_has_its_fix() {
        let html = super::page("Not found", "There is no task <b>.", Some("use a number")).unwrap();
        assert!(html.contains("There is no task &#60;b&#62;."), "{html}");
        assert!(html.contains("<b>Suggested fix:</b> use a number"), "{html}");
        assert!(!super::page("Error", "no", None).unwrap().contains("Suggested fix"));
    }
}
