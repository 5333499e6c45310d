//! What a request asks of a list, and the page that answers it. Pure.

use throng_api::{ListQuery, MAX_LIST_ROWS};

use super::cursor::{Cursor, Place};
use crate::error::{OperationError, Result};

/// The maximum length of a search in characters.
const MAX_SEARCH: usize = 200;

/// What a list can be sorted and filtered by.
pub(super) struct Fields {
    /// The name of the list, which is in its cursors.
    pub(super) list: &'static str,
    pub(super) sorts: &'static [&'static str],
    pub(super) states: &'static [&'static str],
    /// The order if the request sets none, as in the parameter `sort`.
    pub(super) default_sort: &'static str,
    /// The maximum number of rows if the request sets none.
    pub(super) default_limit: u32,
}

/// A checked request for a page of a list.
#[derive(Debug)]
pub(super) struct Listing {
    list: &'static str,
    pub(super) search: Option<String>,
    pub(super) state: Option<&'static str>,
    /// The field that the list is sorted by.
    pub(super) field: &'static str,
    /// Whether the order of the list is descending.
    descending: bool,
    pub(super) limit: u32,
    pub(super) from: Option<Cursor>,
}

/// The rows of a page, and the cursors of the pages beside it.
pub(super) struct Page<T> {
    pub(super) rows: Vec<T>,
    pub(super) next_cursor: Option<String>,
    pub(super) previous_cursor: Option<String>,
}

/// A parameter that is set, and not empty.
fn set(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

/// The known value that a parameter names.
fn known(what: &str, text: &str, all: &'static [&'static str]) -> Result<&'static str> {
    all.iter().copied().find(|known| *known == text).ok_or_else(|| {
        OperationError::invalid(format!("`{what}` has an unknown value"))
            .help(format!("the values are {}", all.join(", ")))
    })
}

impl Listing {
    /// Checks the parameters of a request.
    ///
    /// # Errors
    /// [`OperationError::Invalid`].
    pub(super) fn of(query: &ListQuery, fields: &Fields) -> Result<Self> {
        let search = set(query.search.as_deref());
        if search.is_some_and(|search| search.chars().count() > MAX_SEARCH) {
            let message = format!("`search` is longer than {MAX_SEARCH} characters");
            return Err(OperationError::invalid(message));
        }
        // PostgreSQL stores no NUL, and a pattern of SQLite ends there.
        if search.is_some_and(|search| search.contains(char::is_control)) {
            let message = "`search` has control characters".to_owned();
            return Err(OperationError::invalid(message));
        }
        let state = set(query.state.as_deref());
        let state = state.map(|state| known("state", state, fields.states)).transpose()?;
        let from = match set(query.cursor.as_deref()) {
            Some(text) => {
                let cursor = Cursor::decode(text).filter(|cursor| cursor.list == fields.list);
                Some(cursor.ok_or_else(invalid_cursor)?)
            }
            None => None,
        };
        let of_cursor = from.as_ref().map(|cursor| cursor.sort.as_str());
        let sort = set(query.sort.as_deref()).or(of_cursor).unwrap_or(fields.default_sort);
        if of_cursor.is_some_and(|of_cursor| of_cursor != sort) {
            let message = "`cursor` belongs to a list with another `sort`".to_owned();
            return Err(OperationError::invalid(message)
                .help("send the `sort` of the first page, or no cursor"));
        }
        let field = sort.strip_prefix('-');
        let descending = field.is_some();
        let field = known("sort", field.unwrap_or(sort), fields.sorts)
            .map_err(|error| error.help(sort_help(fields.sorts)))?;
        let limit = query.limit.unwrap_or(fields.default_limit);
        if !(1..=MAX_LIST_ROWS).contains(&limit) {
            let message = format!("`limit` is not a number from 1 to {MAX_LIST_ROWS}");
            return Err(OperationError::invalid(message));
        }
        let (list, search) = (fields.list, search.map(str::to_owned));
        Ok(Self { list, search, state, field, descending, limit, from })
    }

    fn is_backward(&self) -> bool {
        self.from.as_ref().is_some_and(|from| from.is_backward)
    }

    /// Whether the rows are read in descending order: a page before a row is read in the reverse order.
    pub(super) fn reads_descending(&self) -> bool {
        self.descending != self.is_backward()
    }

    /// The page of rows that were read in this direction from the place of the cursor, one more than the limit if
    /// there are so many.
    pub(super) fn page<T>(&self, mut rows: Vec<T>, place: impl Fn(&T) -> Place) -> Page<T> {
        let limit = self.limit as usize;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        // The page that the cursor came from is on the other side.
        let (has_next, has_previous) = match self.is_backward() {
            true => (true, has_more),
            false => (has_more, self.from.is_some()),
        };
        if self.is_backward() {
            rows.reverse();
        }
        let sort = if self.descending { format!("-{}", self.field) } else { self.field.to_owned() };
        let cursor = |row: &T, is_backward| {
            let list = self.list.to_owned();
            Cursor { list, sort: sort.clone(), place: place(row), is_backward }.encode()
        };
        let next_cursor = rows.last().filter(|_| has_next).map(|row| cursor(row, false));
        let previous_cursor = rows.first().filter(|_| has_previous).map(|row| cursor(row, true));
        Page { rows, next_cursor, previous_cursor }
    }

    /// The page of a list that is in memory. `rows`: those that match search and state.
    pub(super) fn page_of<T>(&self, rows: Vec<T>, place: impl Fn(&T) -> Place) -> Page<T> {
        let descending = self.reads_descending();
        let mut rows: Vec<(Place, T)> = rows.into_iter().map(|row| (place(&row), row)).collect();
        rows.sort_by(|(a, _), (b, _)| if descending { b.cmp(a) } else { a.cmp(b) });
        if let Some(from) = &self.from {
            rows.retain(|(place, _)| match descending {
                true => *place < from.place,
                false => *place > from.place,
            });
        }
        rows.truncate(self.limit as usize + 1);
        self.page(rows.into_iter().map(|(_, row)| row).collect(), place)
    }

    /// Whether one of these names contains the search, in upper or lower case.
    pub(super) fn finds(&self, names: &[&str]) -> bool {
        let Some(search) = &self.search else { return true };
        let search = search.to_lowercase();
        names.iter().any(|name| name.to_lowercase().contains(&search))
    }
}

fn sort_help(sorts: &[&str]) -> String {
    format!("the values are {}, each also with `-` in front", sorts.join(", "))
}

/// The error for a cursor that no answer of this list had.
pub(super) fn invalid_cursor() -> OperationError {
    OperationError::invalid("`cursor` is not the cursor of a page of this list".to_owned())
        .help("send `next_cursor` or `previous_cursor` of an answer as it is, or no cursor")
}

#[cfg(test)]
mod tests {
    use super::super::cursor::Key;
    use super::*;

    const FIELDS: Fields = Fields {
        list: "runs",
        sorts: &["name"],
        states: &["on"],
        default_sort: "name",
        default_limit: 3,
    };

    fn place(row: &u32) -> Place {
        (Key::Number(i64::from(row / 2)), format!("{row:03}"))
    }

    /// Reads all pages in one direction.
    fn pages(rows: &[u32], sort: &str) -> Vec<Vec<u32>> {
        let (mut pages, mut cursor) = (Vec::new(), None);
        loop {
            let sort = Some(sort.to_owned());
            let query = ListQuery { sort, cursor, ..ListQuery::default() };
            let page = Listing::of(&query, &FIELDS).unwrap().page_of(rows.to_vec(), place);
            pages.push(page.rows);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return pages;
            }
        }
    }

    #[test]
    fn pages_in_both_orders_are_the_whole_list() {
        let rows = [5, 0, 3, 6, 1, 4, 2];
        assert_eq!(pages(&rows, "name"), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        assert_eq!(pages(&rows, "-name"), [vec![6, 5, 4], vec![3, 2, 1], vec![0]]);
        assert_eq!(pages(&rows[..3], "name"), [vec![0, 3, 5]], "no page follows");
        assert_eq!(pages(&[], "name"), [Vec::<u32>::new()]);
    }

    #[test]
    fn the_previous_page_is_the_one_before() {
        let rows: Vec<u32> = (0..8).collect();
        let read = |cursor: Option<String>| {
            let query = ListQuery { cursor, ..ListQuery::default() };
            Listing::of(&query, &FIELDS).unwrap().page_of(rows.clone(), place)
        };
        let first = read(None);
        assert_eq!(first.previous_cursor, None);
        let second = read(first.next_cursor);
        let third = read(second.next_cursor.clone());
        assert_eq!((third.rows, third.next_cursor), (vec![6, 7], None));
        let back = read(third.previous_cursor);
        assert_eq!((back.rows, back.next_cursor), (second.rows, second.next_cursor));
        let back = read(back.previous_cursor);
        assert_eq!((back.rows, back.previous_cursor), (first.rows, None));
    }

    #[test]
    fn invalid_parameters_are_refused() {
        let text = |text: &str| Some(text.to_owned());
        let cursor = Cursor {
            list: "runs".to_owned(),
            sort: "-name".to_owned(),
            place: (Key::Number(1), "1".to_owned()),
            is_backward: false,
        };
        let of_other_order = Some(cursor.encode());
        let of_other_list = Some(Cursor { list: "tasks".to_owned(), ..cursor }.encode());
        let none = ListQuery::default;
        for query in [
            ListQuery { search: Some("a".repeat(201)), ..none() },
            ListQuery { search: text("a\0b"), ..none() },
            ListQuery { state: text("off"), ..none() },
            ListQuery { sort: text("size"), ..none() },
            ListQuery { sort: text("--name"), ..none() },
            ListQuery { limit: Some(0), ..none() },
            ListQuery { limit: Some(1_001), ..none() },
            ListQuery { cursor: text("next"), ..none() },
            ListQuery { cursor: of_other_list, ..none() },
            ListQuery { cursor: of_other_order.clone(), sort: text("name"), ..none() },
        ] {
            let error = Listing::of(&query, &FIELDS).unwrap_err();
            assert!(matches!(error, OperationError::Invalid { .. }), "{query:?}");
        }
        let query = ListQuery { cursor: of_other_order, ..none() };
        assert!(Listing::of(&query, &FIELDS).unwrap().reads_descending(), "the cursor's order");
        let blank = ListQuery { search: text(" "), state: text(""), ..none() };
        assert!(Listing::of(&blank, &FIELDS).unwrap().finds(&["anything"]));
        let search = ListQuery { search: text("BUY"), ..none() };
        let listing = Listing::of(&search, &FIELDS).unwrap();
        assert!(listing.finds(&["x", "buyers"]) && !listing.finds(&["x"]));
    }
}
