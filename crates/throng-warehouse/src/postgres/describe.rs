//! SQL that returns one row with the columns of a query, all of them NULL, and does not run it. Pure.
//!
//! The driver could describe a prepared statement as well, but then it reads catalogs in a way that
//! Redshift does not support.

const BEFORE: &str = "SELECT q.* FROM (SELECT 1) AS one LEFT JOIN (";
/// On a line of its own: the query may end with a comment.
const AFTER: &str = "\n) AS q ON false";

/// The SQL that describes a query.
pub(super) fn describing(sql: &str) -> String {
    format!("{BEFORE}{sql}{AFTER}")
}

/// Where character number `at` of that SQL is in the query, counted from 0.
pub(super) fn offset_in_query(at: usize) -> usize {
    at.saturating_sub(1 + BEFORE.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_query() {
        let sql = "SELECT é, totl FROM t -- all";
        let described = describing(sql);
        let at = described.chars().position(|c| c == 'é').unwrap() + 1;
        assert_eq!(offset_in_query(at), 7);
        assert_eq!(offset_in_query(1), 0);
        assert!(described.ends_with("-- all\n) AS q ON false"), "{described}");
    }
}
