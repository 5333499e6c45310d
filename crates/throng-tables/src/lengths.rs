//! Lengths of texts in SQL that the engine reads and does not apply: `CAST(zip AS CHAR(3))` is the whole text, which other
//! databases shorten.

use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{CharacterLength, DataType, Expr, visit_expressions};

/// Longer ones are rarely meant to shorten a text: an integer of 64 bits has up to 20 characters.
const MOST: u64 = 19;

/// What is doubtful about the first short length in a query, if there is one.
pub fn unapplied_length(sql: &str) -> Option<String> {
    // Most queries have none, and are not parsed again.
    if !sql.to_ascii_lowercase().contains("char") {
        return None;
    }
    let Statement::Statement(statement) = DFParser::parse_sql(sql).ok()?.pop_front()? else {
        return None;
    };
    let found = visit_expressions(&*statement, |expr| match expr {
        Expr::Cast { data_type, .. } => match short_length(data_type) {
            Some(length) => ControlFlow::Break((data_type.to_string(), length)),
            None => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    });
    let ControlFlow::Break((of, length)) = found else { return None };
    Some(format!(
        "CAST(… AS {of}) does not shorten texts, as it does in other databases: write left(…, {length}) if it should"
    ))
}

/// The length of a type of texts, if it is short.
fn short_length(of: &DataType) -> Option<u64> {
    match of {
        DataType::Varchar(Some(CharacterLength::IntegerLength { length, .. }))
        | DataType::Char(Some(CharacterLength::IntegerLength { length, .. }))
            if *length <= MOST =>
        {
            Some(*length)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_length_of_a_text_is_doubtful() {
        for (expr, of, length) in [
            ("CAST(zip AS VARCHAR(3))", "VARCHAR(3)", "left(…, 3)"),
            ("zip::char(2)", "CHAR(2)", "left(…, 2)"),
            ("TRY_CAST(zip AS varchar(19))", "VARCHAR(19)", "left(…, 19)"),
        ] {
            let doubt = unapplied_length(&format!("SELECT id FROM s.t WHERE {expr} = '941'"));
            let doubt = doubt.unwrap();
            assert!(doubt.contains(of) && doubt.contains(length), "{doubt}");
        }
        for expr in [
            "CAST(zip AS VARCHAR)",
            "CAST(zip AS VARCHAR(255))",
            "CAST(zip AS DECIMAL(3, 2))",
            "char_length(zip)",
        ] {
            let sql = format!("SELECT id FROM s.t WHERE {expr} = $p");
            assert_eq!(unapplied_length(&sql), None, "{expr}");
        }
        assert_eq!(unapplied_length("SELECT CAST(a AS CHAR(2)"), None, "it cannot be parsed");
    }
}
