//! Operands of a type that a function or an operator does not take: the engine's text, which names neither the column
//! nor what helps, in the words of who writes the SQL. Pure.

use std::ops::ControlFlow;

use datafusion::arrow::datatypes::DataType;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, visit_expressions,
};
use throng_query::position;
use throng_tables::{Layout, OpenTable, is_text, shown_column};

use crate::LakeError;

/// Operators that compare text with a pattern, as the engine names them.
const PATTERNS: [&str; 2] = ["LIKE", "ILIKE"];

/// What is used with operands of other types than it takes.
#[derive(Debug, PartialEq, Eq)]
struct Misuse<'t> {
    name: &'t str,
    /// Types of the operands.
    types: &'t str,
    takes_text: bool,
}

impl<'t> Misuse<'t> {
    /// Reads the engine's text.
    fn of(text: &'t str) -> Option<Self> {
        if let Some((_, rest)) = text.split_once("a common type to coerce ") {
            let (types, rest) = rest.split_once(" in ")?;
            let (name, _) = rest.split_once(" expression")?;
            return PATTERNS.contains(&name).then_some(Self { name, types, takes_text: true });
        }
        let (_, rest) = text.split_once("the given name and argument types '")?;
        let (name, types) = rest.split_once('\'')?.0.strip_suffix(')')?.split_once('(')?;
        Some(Self { name, types, takes_text: text.contains("requires String") })
    }

    fn is_pattern(&self) -> bool {
        PATTERNS.contains(&self.name)
    }

    /// How the name is shown.
    fn shown(&self) -> String {
        if self.is_pattern() { self.name.to_owned() } else { format!("the function {}", self.name) }
    }

    /// The names of columns that are its operands in a statement.
    fn operands(&self, sql: &str) -> Vec<String> {
        let mut found = Vec::new();
        let Ok(statements) = DFParser::parse_sql(sql) else { return found };
        for statement in &statements {
            let Statement::Statement(statement) = statement else { continue };
            let _: ControlFlow<()> = visit_expressions(statement.as_ref(), |expr| {
                found.extend(self.operands_of(expr).into_iter().filter_map(column_name));
                ControlFlow::Continue(())
            });
        }
        found
    }

    /// The operands, if the expression is a use of it.
    fn operands_of<'e>(&self, expr: &'e Expr) -> Vec<&'e Expr> {
        match expr {
            Expr::Like { expr, .. } | Expr::ILike { expr, .. } if self.is_pattern() => {
                vec![expr.as_ref()]
            }
            Expr::Substring { expr, .. } if self.name == "substr" => vec![expr.as_ref()],
            Expr::Trim { expr, .. } if self.name.ends_with("trim") => vec![expr.as_ref()],
            Expr::Function(call) => {
                let called = call.name.to_string().replace('"', "").to_lowercase();
                // `substring` is `substr`.
                if !called.starts_with(self.name) {
                    return Vec::new();
                }
                let FunctionArguments::List(list) = &call.args else { return Vec::new() };
                let operand = |of: &'e FunctionArg| match of {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                    _ => None,
                };
                list.args.iter().filter_map(operand).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(ident.value.clone()),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| ident.value.clone()),
        _ => None,
    }
}

/// A type as it is written in a spec or in SQL.
pub(crate) fn type_name(of: &DataType) -> String {
    match of {
        of if is_text(of) => "text".to_owned(),
        of if of.is_integer() => "integer".to_owned(),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "double".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision}, {scale})"),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        other => other.to_string(),
    }
}

/// The types of operands as they are shown.
fn type_names(types: &str) -> String {
    let (mut depth, mut parts) = (0_usize, vec![String::new()]);
    for c in types.replace(" and ", ", ").chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let shown = parts.iter().map(|part| match part.trim().parse::<DataType>() {
        Ok(of) => type_name(&of),
        Err(_) => part.trim().to_owned(),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The error, if the text of the engine is about types of operands.
pub(crate) fn type_fault(sql: &str, text: &str, tables: &[OpenTable]) -> Option<LakeError> {
    let misuse = Misuse::of(text)?;
    let operands = misuse.operands(sql);
    let columns = operands.iter().flat_map(|operand| {
        let lower = operand.to_lowercase();
        let all = tables.iter().flat_map(|table| {
            let layout: &Layout = &table.layout;
            layout.columns.iter().map(move |column| (layout, column))
        });
        all.filter(move |(_, column)| column.name.to_lowercase() == lower)
    });
    let mut named = columns.map(|(layout, column)| {
        (column.name.as_str(), type_name(&column.data_type), layout.is_stated(&column.name))
    });
    let named = named.find(|(_, of, _)| (of == "text") != misuse.takes_text);
    let what = misuse.shown();
    let shown = named.as_ref();
    let shown = shown.map(|(name, of, stated)| (shown_column(name, tables), of.as_str(), *stated));
    let (message, help) = match (shown, misuse.takes_text) {
        (Some((column, of, is_stated)), true) => {
            let cast = format!("write CAST({column} AS TEXT) in the SQL");
            let help = match of {
                // No declared type changes that of a Parquet file.
                _ if is_stated => cast,
                "integer" => {
                    format!("declare `columns: {{ {column}: text }}` in the source, or {cast}")
                }
                // By a cast `5` would become `5.0`, and a space between date and time `T`.
                "double" | "timestamp" => {
                    format!(
                        "declare `columns: {{ {column}: text }}` in the source: the text of a CAST differs from that of \
                         the file, as `5.0` from `5`"
                    )
                }
                _ => cast,
            };
            (format!("{what} takes text, and the column {column} is {of}"), Some(help))
        }
        (Some((column, of, _)), false) => (
            format!("{what} does not take the column {column}, which is {of}"),
            Some(format!(
                "write TRY_CAST({column} AS DOUBLE) if its values are numbers: it is NULL for other values"
            )),
        ),
        (None, true) => (
            format!("{what} takes text, and is used with: {}", type_names(misuse.types)),
            Some("write CAST(… AS TEXT) around what is not text".to_owned()),
        ),
        (None, false) => (format!("{what} does not take: {}", type_names(misuse.types)), None),
    };
    let word = named.as_ref().map_or(misuse.name, |(name, ..)| *name);
    Some(LakeError::Sql { message, position: position::of_word(sql, word), help })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_with_other_types_is_read_from_the_engines_text() {
        let like = "There isn't a common type to coerce Int64 and Utf8 in LIKE expression";
        let wanted = Misuse { name: "LIKE", types: "Int64 and Utf8", takes_text: true };
        assert_eq!(Misuse::of(like), Some(wanted));
        let call = "Internal error: Function 'f' requires String, but received Int64. No function matches the given \
                    name and argument types 'f(Decimal128(12, 2), Utf8)'. You might need to add explicit type casts.";
        let found = Misuse::of(call).unwrap();
        assert_eq!((found.name, found.takes_text), ("f", true));
        assert_eq!(type_names(found.types), "decimal(12, 2), text");
        assert_eq!(Misuse::of("Invalid function 'nosuch'.\nDid you mean 'cosh'?"), None);
    }

    #[test]
    fn operands_are_found_in_the_statement() {
        let of = |name: &str, sql: &str| {
            Misuse { name, types: "", takes_text: true }
                .operands(&format!("SELECT id FROM s.t WHERE {sql}"))
        };
        assert_eq!(of("LIKE", "t.zip LIKE '1%' AND upper(a) = 'X'"), ["zip"]);
        assert_eq!(of("substr", "substring(zip FROM 1 FOR 2) = '10'"), ["zip"]);
        assert_eq!(of("starts_with", "a = 1 OR starts_with(zip, pre)"), ["zip", "pre"]);
        assert_eq!(of("upper", "lower(a) = 'x'"), Vec::<String>::new());
    }
}
