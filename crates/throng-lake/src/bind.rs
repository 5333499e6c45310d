//! Values of parameters: they replace `$name` in a parsed statement as literals of their types. The text of the
//! statement is never changed, so a value cannot become a part of it.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Value, ValueWithSpan, visit_expressions_mut};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use throng_query::position;
use throng_spec::ParameterValue;

use crate::LakeError;

/// Names of parameters, without `$`, and their values.
pub(crate) type Parameters = [(String, ParameterValue)];

/// Replaces every parameter of the statement.
///
/// # Errors
/// [`LakeError::Sql`] if one has no value.
pub(crate) fn bind(
    sql: &str,
    statement: &mut Statement,
    parameters: &Parameters,
) -> Result<(), LakeError> {
    let Statement::Statement(statement) = statement else { return Ok(()) };
    let bound = visit_expressions_mut(statement, |expr| {
        let Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) = expr else {
            return ControlFlow::Continue(());
        };
        let value = parameters.iter().find(|(known, _)| is_named(name, known));
        match value.and_then(|(_, value)| literal(value)) {
            Some(literal) => {
                *expr = literal;
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(name.clone()),
        }
    });
    let ControlFlow::Break(name) = bound else { return Ok(()) };
    let known: Vec<String> = parameters.iter().map(|(known, _)| format!("${known}")).collect();
    let help = match known.as_slice() {
        [] => "only SQL of an audience with `for_each` has parameters: the columns of its rows, as `$column`"
            .to_owned(),
        known => format!("the parameters are: {}", known.join(", ")),
    };
    Err(LakeError::Sql {
        message: format!("there is no value for the parameter {name}"),
        position: position::of_word(sql, name.trim_start_matches(['$', ':', '@', '?'])),
        help: Some(help),
    })
}

/// Whether a placeholder, with its `$`, is the parameter of this name.
pub(crate) fn is_named(placeholder: &str, parameter: &str) -> bool {
    placeholder.strip_prefix('$').is_some_and(|name| name.eq_ignore_ascii_case(parameter))
}

/// The literal of a value. Only a text becomes one as it is; every other literal is parsed from digits.
pub(crate) fn literal(value: &ParameterValue) -> Option<Expr> {
    let parsed =
        |text: String| Parser::new(&GenericDialect {}).try_with_sql(&text).ok()?.parse_expr().ok();
    match value {
        ParameterValue::Text(text) => {
            Some(Expr::Value(Value::SingleQuotedString(text.clone()).with_empty_span()))
        }
        ParameterValue::Boolean(value) => {
            Some(Expr::Value(Value::Boolean(*value).with_empty_span()))
        }
        ParameterValue::Integer(number) if *number < 0 => parsed(format!("({number})")),
        ParameterValue::Integer(number) => parsed(number.to_string()),
        ParameterValue::Decimal { scale, .. } => {
            parsed(format!("CAST('{value}' AS DECIMAL(18, {scale}))"))
        }
        ParameterValue::Date(date) => {
            is_date(date).then(|| parsed(format!("CAST('{date}' AS DATE)"))).flatten()
        }
    }
}

/// Whether a text can be that of a date in a literal.
pub(crate) fn is_date(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: ParameterValue) -> String {
        literal(&value).unwrap().to_string()
    }

    #[test]
    fn literals_have_the_types_of_their_values() {
        assert_eq!(text(ParameterValue::Text("it's; --".into())), "'it''s; --'");
        assert_eq!(text(ParameterValue::Integer(-5)), "(-5)");
        assert_eq!(text(ParameterValue::Integer(7)), "7");
        assert_eq!(text(ParameterValue::Boolean(true)), "true");
        let decimal = ParameterValue::Decimal { unscaled: 1250, scale: 2 };
        assert_eq!(text(decimal), "CAST('12.50' AS DECIMAL(18,2))");
        assert_eq!(text(ParameterValue::Date("2026-01-31".into())), "CAST('2026-01-31' AS DATE)");
        assert!(literal(&ParameterValue::Date("2026' OR 1=1".into())).is_none());
    }

    #[test]
    fn parameters_are_found_without_regard_to_case() {
        assert!(is_named("$Region", "region"));
        assert!(!is_named("$region_name", "region") && !is_named(":region", "region"));
    }
}
