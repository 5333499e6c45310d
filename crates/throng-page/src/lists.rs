//! Search, filter, order and pages of a list, as a form and links that need no script.

use throng_api::ListQuery;

/// The maximum number of rows on a page of a list.
const LIST_ROWS: u32 = 100;

/// The query of a list with the number of rows of a page.
pub fn one_page(query: &ListQuery) -> ListQuery {
    ListQuery { limit: Some(LIST_ROWS), ..query.clone() }
}

/// The controls of a list.
pub(crate) struct Controls {
    path: &'static str,
    query: ListQuery,
    /// The states that the list can be filtered by.
    pub(crate) states: &'static [&'static str],
    next_cursor: Option<String>,
    previous_cursor: Option<String>,
}

impl Controls {
    /// The controls of the list at `path` for this query.
    pub(crate) fn new(
        path: &'static str,
        query: ListQuery,
        states: &'static [&'static str],
        next_cursor: Option<String>,
        previous_cursor: Option<String>,
    ) -> Self {
        let query = ListQuery { limit: None, ..query };
        Self { path, query, states, next_cursor, previous_cursor }
    }

    /// The path of the list, without a query.
    pub(crate) fn path(&self) -> &str {
        self.path
    }

    /// The text that is searched for.
    pub(crate) fn search(&self) -> &str {
        self.query.search.as_deref().unwrap_or_default()
    }

    /// The workspace that the list is limited to; empty if none is set.
    pub(crate) fn workspace(&self) -> &str {
        self.query.workspace.as_deref().unwrap_or_default()
    }

    /// The order as in the query; empty if none is set.
    pub(crate) fn sort(&self) -> &str {
        self.query.sort.as_deref().unwrap_or_default()
    }

    /// Whether the list is filtered by this state.
    pub(crate) fn is_state(&self, state: &str) -> bool {
        self.query.state.as_deref() == Some(state)
    }

    /// Whether rows may be missing because of the search, the state or the workspace.
    pub(crate) fn is_filtered(&self) -> bool {
        let is_set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        is_set(&self.query.search) || is_set(&self.query.state) || is_set(&self.query.workspace)
    }

    /// Whether rows may be missing because of the search, the state, the workspace or the cursor.
    pub(crate) fn is_partial(&self) -> bool {
        self.is_filtered() || self.query.cursor.is_some()
    }

    fn link(&self, sort: Option<String>, cursor: Option<String>) -> String {
        let query = ListQuery { sort, cursor, ..self.query.clone() };
        format!("{}{}", self.path, query.to_url())
    }

    /// The link of a column's header: sorts by this field, and in the other order if the list is sorted by it.
    pub(crate) fn sort_link(&self, field: &str) -> String {
        let sort = if self.sort() == field { format!("-{field}") } else { field.to_owned() };
        self.link(Some(sort), None)
    }

    /// The order of the list, if it is sorted by this field.
    pub(crate) fn arrow(&self, field: &str) -> &'static str {
        if field.is_empty() {
            return "";
        }
        match self.sort().strip_prefix('-') {
            Some(descending) if descending == field => " ↓",
            None if self.sort() == field => " ↑",
            _ => "",
        }
    }

    /// The order as an attribute of the column's header, which says it to those who cannot see the arrow; empty if the
    /// list is not sorted by this field.
    pub(crate) fn aria_sort(&self, field: &str) -> &'static str {
        match self.arrow(field) {
            " ↑" => " aria-sort=\"ascending\"",
            " ↓" => " aria-sort=\"descending\"",
            _ => "",
        }
    }

    /// The link to the next page; empty if there is none.
    pub(crate) fn next(&self) -> String {
        self.page(self.next_cursor.as_ref())
    }

    /// The link to the previous page; empty if there is none.
    pub(crate) fn previous(&self) -> String {
        self.page(self.previous_cursor.as_ref())
    }

    fn page(&self, cursor: Option<&String>) -> String {
        cursor.map_or_else(String::new, |cursor| {
            self.link(self.query.sort.clone(), Some(cursor.clone()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls(search: &str, sort: &str) -> Controls {
        let query = ListQuery {
            search: Some(search.to_owned()),
            state: Some("held".to_owned()),
            sort: Some(sort.to_owned()),
            limit: Some(LIST_ROWS),
            cursor: Some("0a".to_owned()),
            workspace: None,
        };
        Controls::new("/audiences", query, &["held"], Some("0b".to_owned()), None)
    }

    #[test]
    fn links_keep_search_and_state() {
        let list = controls("a&b", "name");
        assert_eq!(list.next(), "/audiences?search=a%26b&state=held&sort=name&cursor=0b");
        assert_eq!(list.previous(), "");
        assert!(list.is_filtered() && list.is_state("held") && !list.is_state("paused"));
    }

    #[test]
    fn a_header_reverses_the_order_of_its_column() {
        let link = |sort: &str| controls("", sort).sort_link("name");
        assert_eq!(link("name"), "/audiences?state=held&sort=-name");
        assert_eq!(link("-name"), "/audiences?state=held&sort=name");
        assert_eq!(link("members"), "/audiences?state=held&sort=name");
        assert_eq!(controls("", "-name").arrow("name"), " ↓");
        assert_eq!(controls("", "name").arrow("name"), " ↑");
        assert_eq!(controls("", "name").arrow("members"), "");
        assert_eq!(controls("", "-name").aria_sort("name"), " aria-sort=\"descending\"");
        assert_eq!(controls("", "name").aria_sort("name"), " aria-sort=\"ascending\"");
        // A column that the list cannot be sorted by has no field.
        assert_eq!(controls("", "").aria_sort(""), "");
    }
}
