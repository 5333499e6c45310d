//! Comparisons of timestamps with a stated one that has more digits after the point than their type, such as `seen <
//! '2026-11-25 23:59:59.9995'` where `seen` is in milliseconds. The engine's optimizer converts the stated one to
//! milliseconds and leaves off its last digits, as if it lost none. A function around the conversion of the column
//! prevents that. Pure.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, cast};

/// Such a comparison with `kept` around the conversion; other expressions stay as they are. The types are those that the
/// engine has decided.
pub(super) fn with_all_digits(
    expr: Expr,
    schema: &DFSchema,
    kept: fn(Expr) -> Expr,
) -> Transformed<Expr> {
    let sides: Vec<&Expr> = match &expr {
        Expr::BinaryExpr(of) if of.op.supports_propagation() => {
            vec![of.left.as_ref(), of.right.as_ref()]
        }
        Expr::Between(of) => vec![of.expr.as_ref(), of.low.as_ref(), of.high.as_ref()],
        Expr::InList(of) => std::iter::once(of.expr.as_ref()).chain(&of.list).collect(),
        _ => Vec::new(),
    };
    let digits = sides.iter().map(|side| stated_digits(side)).max().unwrap_or_default();
    if digits == 0 || !sides.iter().any(|side| is_coarser(side, digits, schema)) {
        return Transformed::no(expr);
    }
    // Nanoseconds do not have all years: files have `9999-12-31` for "never".
    let fits = digits <= digits_of(TimeUnit::Microsecond);
    let in_microseconds = fits && sides.iter().all(|side| is_in_nanoseconds(side));
    let with = |side: Expr| {
        let side = if in_microseconds { to_microseconds(side) } else { side };
        if is_coarser(&side, digits, schema) { kept(side) } else { side }
    };
    let boxed = |side: Box<Expr>| Box::new(with(*side));
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (left, right) = (boxed(left), boxed(right));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let (expr, low, high) = (boxed(expr), boxed(low), boxed(high));
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let list = list.into_iter().map(&with).collect();
            Transformed::yes(Expr::InList(InList { expr: boxed(expr), list, negated }))
        }
        other => Transformed::no(other),
    }
}

/// Whether an expression is converted to a timestamp in nanoseconds.
fn is_in_nanoseconds(of: &Expr) -> bool {
    let Expr::Cast(cast) = of else { return false };
    matches!(cast.field.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _))
}

/// What is converted to nanoseconds, in microseconds.
fn to_microseconds(of: Expr) -> Expr {
    let Expr::Cast(Cast { expr, field }) = of else { return of };
    let zone = match field.data_type() {
        DataType::Timestamp(_, zone) => Some(zone.clone()),
        _ => None,
    };
    match zone {
        Some(zone) => cast(*expr, DataType::Timestamp(TimeUnit::Microsecond, zone)),
        None => Expr::Cast(Cast { expr, field }),
    }
}

/// The digits after the point of a text that the SQL states, without zeros at the end; 0 of any other expression.
fn stated_digits(of: &Expr) -> usize {
    match of {
        Expr::Cast(cast) => stated_digits(&cast.expr),
        Expr::Literal(value, _) => {
            let text = value.try_as_str().flatten().unwrap_or_default();
            let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
            let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
            fraction[..end].trim_end_matches('0').len()
        }
        _ => 0,
    }
}

/// Whether an expression is a timestamp with fewer digits after the point that is converted to one with more.
fn is_coarser(of: &Expr, digits: usize, schema: &DFSchema) -> bool {
    let Expr::Cast(cast) = of else { return false };
    let (Ok(DataType::Timestamp(from, _)), DataType::Timestamp(to, _)) =
        (cast.expr.get_type(schema), cast.field.data_type())
    else {
        return false;
    };
    digits > digits_of(from) && digits_of(from) < digits_of(*to)
}

fn digits_of(unit: TimeUnit) -> usize {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::lit;

    use super::*;

    #[test]
    fn digits_are_those_after_the_point() {
        let timestamp = DataType::Timestamp(TimeUnit::Nanosecond, None);
        for (text, digits) in [
            ("2026-11-25 10:00:00", 0),
            ("2026-11-25 10:00:00.000", 0),
            ("2026-11-25T10:00:00.1235", 4),
            ("2026-11-25 10:00:00.120+01:00", 2),
            ("2026-11-25 10:00:00.999999999Z", 9),
        ] {
            assert_eq!(stated_digits(&lit(text)), digits, "{text}");
            assert_eq!(stated_digits(&cast(lit(text), timestamp.clone())), digits, "{text}");
        }
        assert_eq!(stated_digits(&lit(1.5)), 0);
    }
}
