//! Limits of a statement, checked before it is parsed. Pure.

use throng_query::canonical::depth;
use throng_spec::MAX_SQL_BYTES;

use crate::LakeError;

/// How deep parentheses may be nested.
pub(crate) const MAX_DEPTH: usize = 200;

/// Refuses a statement that is too long or too deep.
pub(crate) fn check_bounds(sql: &str) -> Result<(), LakeError> {
    let refuse = |message: String, help: &str| {
        Err(LakeError::Sql { message, position: None, help: Some(help.to_owned()) })
    };
    if sql.len() > MAX_SQL_BYTES {
        let message = format!("the statement has {} bytes, more than {MAX_SQL_BYTES}", sql.len());
        return refuse(message, "put long lists of values into a table of the source");
    }
    let depth = depth(sql);
    if depth > MAX_DEPTH {
        let message = format!("parentheses are nested {depth} deep, more than {MAX_DEPTH}");
        return refuse(message, "write subqueries as common table expressions (WITH)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_is_too_long_or_too_deep_is_refused() {
        let nested = |depth: usize| format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth));
        assert!(check_bounds(&nested(MAX_DEPTH)).is_ok());
        assert!(check_bounds(&nested(MAX_DEPTH + 1)).unwrap_err().to_string().contains("201 deep"));
        let quoted = format!("SELECT '{}' -- {}\n", "(".repeat(900), "(".repeat(900));
        assert!(check_bounds(&quoted).is_ok());
        let long = format!("SELECT '{}'", "x".repeat(MAX_SQL_BYTES));
        assert!(check_bounds(&long).is_err());
    }
}
