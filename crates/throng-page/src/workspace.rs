//! The header of a page for a caller that is limited to a workspace.

use throng_model::WorkspaceName;

/// The paths of the menu that lead to what is in no workspace.
const CLOSED: [&str; 3] = ["/budgets", "/decide", "/access"];

/// A page with the name of the workspace in its header and a menu of the pages that the workspace has.
pub fn in_workspace(html: &str, workspace: &WorkspaceName) -> String {
    // Templates escape `<`, so this is the header of the layout. A page without it has no menu.
    let parts = html.split_once("<nav>").and_then(|(before, rest)| {
        rest.split_once("</nav>").map(|(menu, after)| (before, menu, after))
    });
    let Some((before, menu, after)) = parts else { return html.to_owned() };
    let leads_to = |line: &str, path: &str| line.contains(&format!("href=\"{path}\""));
    let open = menu.lines().filter(|line| !CLOSED.iter().any(|path| leads_to(line, path)));
    let menu = open.collect::<Vec<_>>().join("\n");
    format!("{before}<span id=\"workspace\">{workspace}</span>\n    <nav>{menu}</nav>{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_the_workspace_and_its_pages_only() {
        let html = crate::error::page("Not found", "There is no <nav>.", None).unwrap();
        let acme = WorkspaceName::new("acme").unwrap();
        let shown = in_workspace(&html, &acme);
        assert!(shown.contains("<span id=\"workspace\">acme</span>"), "{shown}");
        for (path, name) in crate::MENU {
            let link = format!("<a href=\"{path}\"");
            assert!(html.contains(&link), "{name}");
            assert_eq!(shown.contains(&link), !CLOSED.contains(path), "{name}");
        }
        assert!(shown.contains("There is no &#60;nav&#62;."), "{shown}");
        let sign_in = crate::sign_in::with_token("/", "").unwrap();
        assert_eq!(in_workspace(&sign_in, &acme), sign_in, "it has no menu");
    }
}
