//! Conversions between timestamps with and without a time zone, of which the engine computes another moment than SQL
//! does if the time zone is not UTC, of whole numbers to dates, and arithmetic of dates with hours. Pure.
//!
//! A timestamp without a time zone is in UTC: `now()`, and those of CSV and JSON files, also if they are written with `Z`.
//! Beside one of a time zone, the engine takes it for a local time, so that `seen > now() - INTERVAL '1 hour'` is wrong by
//! the offset of the time zone. Of a comparison with a conversion in either direction, the engine's optimizer removes the
//! conversion as if the moment stayed the same.
//!
//! A whole number that is compared with a date is taken for days since 1970: `20260131` is a day of the year 57,000 there.
//! Other numbers and timestamps are converted to one another by the unit that the type of the timestamp has in the file.
//! A date and an interval are a date, without the hours of the interval, and the hours of a difference of timestamps are all
//! of them, also those of its days.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

use super::refusal::Misread;
use super::wide_dates::is_utc;

const WITHOUT: Misread = Misread {
    message: "a timestamp without a time zone, such as now() or one of a CSV file, is compared with one of a time zone \
              other than UTC, or converted to it, where the engine takes it for a local time",
    word: "ZONE",
    help: "write AT TIME ZONE 'UTC' behind the one with a time zone to compare moments, as in seen AT TIME ZONE 'UTC' > \
           now() - INTERVAL '1 day'; times in UTC, also those with Z in files, become local ones by two conversions: \
           CAST(seen AT TIME ZONE 'UTC' AT TIME ZONE 'Europe/Berlin' AS DATE)",
};
const LOCAL: Misread = Misread {
    message: "a timestamp of a time zone other than UTC is converted to one without, as where it stands with dates in \
              BETWEEN or IN, which the engine does not do as SQL does",
    word: "ZONE",
    help: "compare its date, as in CAST(seen AS DATE) BETWEEN DATE '2026-11-01' AND DATE '2026-11-25', or its local time, \
           as in to_local_time(seen) >= TIMESTAMP '2026-11-25 00:00:00'",
};
const DAYS: Misread = Misread {
    message: "a whole number is compared with a date or converted to one, where the engine takes it for days since 1970",
    word: "DATE",
    help: "convert days such as 20260131 by to_date(CAST(day AS TEXT), '%Y%m%d'), or compare them with numbers, as in \
           day >= 20260131; convert seconds since 1970 by to_timestamp(seen), milliseconds by to_timestamp_millis(seen), \
           and days by DATE '1970-01-01' + day",
};
const UNITS: Misread = Misread {
    message: "a number is converted to a timestamp, where the engine takes it for nanoseconds since 1970, or for the unit of \
              the type",
    word: "TIMESTAMP",
    help: "convert seconds since 1970 by to_timestamp(seen), milliseconds by to_timestamp_millis(seen), and digits such as \
           20260131 by to_timestamp(CAST(seen AS TEXT), '%Y%m%d')",
};
const NUMBER: Misread = Misread {
    message: "a timestamp, a date or a difference of them is converted to a number, which is days or units of the type since \
              1970 in the engine",
    word: "CAST",
    help: "write extract(epoch FROM seen) for seconds since 1970, extract(year FROM day) and the like for its parts, and \
           to_char(day, '%Y%m%d') for its digits, or compare timestamps and dates: seen >= to_timestamp(1790000000)",
};
const HOURS: Misread = Misread {
    message: "an interval of hours is added to a date, or taken from it, where the engine counts whole days only",
    word: "INTERVAL",
    help: "write it for a timestamp, as in CAST(day AS TIMESTAMP) - INTERVAL '36 hours' or now() - INTERVAL '36 hours'",
};
const PARTS: Misread = Misread {
    message: "a part of a difference of timestamps is the whole length in the engine: 23 hours and a day are 47 hours",
    word: "extract",
    help: "compare the length, as in now() - seen < INTERVAL '36 hours' or extract(epoch FROM now() - seen) / 3600 < 36",
};

const NANOSECONDS_OF_A_DAY: i64 = 86_400_000_000_000;

/// What of the conversions of a plan the engine would do otherwise than SQL, if anything. The plan is one that the engine
/// has analyzed, which has the conversions that the SQL does not write.
pub fn misread_moment(plan: &LogicalPlan) -> Option<Misread> {
    let mut found = None;
    // A visitor without errors cannot fail.
    let _ = plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let _ = node.apply_expressions(|expr| {
            expr.apply(|inner| {
                found = found.or_else(|| of_conversion(inner, &schema));
                Ok(TreeNodeRecursion::Continue)
            })
        });
        Ok(match found {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    });
    found
}

fn of_conversion(expr: &Expr, schema: &DFSchema) -> Option<Misread> {
    let (from, to) = match expr {
        Expr::Cast(cast) => (&cast.expr, cast.field.data_type()),
        Expr::TryCast(cast) => (&cast.expr, cast.field.data_type()),
        Expr::ScalarFunction(function) if function.name() == "to_date" => {
            let of = function.args.first()?.get_type(schema).ok()?;
            return of.is_integer().then_some(DAYS);
        }
        Expr::ScalarFunction(function) if function.name() == "date_part" => {
            return is_part_of_difference(&function.args, schema).then_some(PARTS);
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus | Operator::Minus, right }) => {
            let is_date =
                |of: &Expr| matches!(of.get_type(schema), Ok(DataType::Date32 | DataType::Date64));
            let has_hours = (has_part_of_day(right) && is_date(left))
                || (has_part_of_day(left) && is_date(right));
            return has_hours.then_some(HOURS);
        }
        _ => return None,
    };
    if matches!(to, DataType::Date32 | DataType::Date64) {
        return from.get_type(schema).ok()?.is_integer().then_some(DAYS);
    }
    if to.is_numeric() {
        let of = from.get_type(schema).ok()?;
        return is_moment(&of).then_some(NUMBER);
    }
    let DataType::Timestamp(unit, to) = to else { return None };
    let is_local = |zone: &str| !is_utc(zone);
    match (from.get_type(schema).ok()?, to.as_deref()) {
        // What `CAST(seen AS TIMESTAMP)` is planned as.
        (DataType::Int64, _) if *unit == TimeUnit::Second => None,
        (number, _) if number.is_numeric() => Some(UNITS),
        (DataType::Timestamp(_, None), Some(to)) if is_local(to) => {
            (!is_stated(from)).then_some(WITHOUT)
        }
        (DataType::Date32 | DataType::Date64, Some(to)) if is_local(to) => Some(LOCAL),
        (DataType::Timestamp(_, Some(of)), None) if is_local(&of) => Some(LOCAL),
        _ => None,
    }
}

/// Whether the values of a type are moments, days, or differences of them.
fn is_moment(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Duration(_)
    )
}

/// Whether an expression is an interval that is not of whole days.
fn has_part_of_day(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(of)), _) => {
            of.nanoseconds % NANOSECONDS_OF_A_DAY != 0
        }
        _ => false,
    }
}

/// Whether the arguments of `date_part` are a difference of timestamps and a part of it other than its days and its length.
fn is_part_of_difference(arguments: &[Expr], schema: &DFSchema) -> bool {
    let [part, of] = arguments else { return false };
    let Expr::Literal(part, _) = converted(part) else { return false };
    let part = part.try_as_str().flatten().unwrap_or_default().to_lowercase();
    let is_whole = part.starts_with("day") || part.starts_with("epoch");
    !is_whole && matches!(converted(of).get_type(schema), Ok(DataType::Duration(_)))
}

/// An expression, or what it converts.
fn converted(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => cast.expr.as_ref(),
        other => other,
    }
}

/// Whether the SQL states a local time: `TIMESTAMP '2026-11-25 10:00:00'`, also with an interval added to it, but not
/// with an offset.
fn is_stated(expr: &Expr) -> bool {
    let other = expr.exists(|inner| {
        Ok(match inner {
            Expr::Literal(value, _) => value.try_as_str().flatten().is_some_and(has_offset),
            Expr::Cast(_) | Expr::TryCast(_) | Expr::BinaryExpr(_) => false,
            _ => true,
        })
    });
    matches!(other, Ok(false))
}

/// Whether the text of a timestamp names a time zone behind its date.
fn has_offset(text: &str) -> bool {
    let time = text.trim().get(10..).unwrap_or_default();
    time.contains(|c: char| matches!(c, '+' | '-') || (c.is_ascii_alphabetic() && c != 'T'))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::IntervalMonthDayNano;
    use datafusion::logical_expr::{cast, col, lit};

    use super::*;

    #[test]
    fn a_local_time_is_stated_unless_its_text_has_an_offset() {
        let timestamp = DataType::Timestamp(TimeUnit::Nanosecond, None);
        for (text, stated) in [
            ("2026-11-25", true),
            ("2026-11-25 10:00:00", true),
            ("2026-11-25T10:00:00.5", true),
            ("2026-11-25 10:00:00Z", false),
            ("2026-11-25 10:00:00+01", false),
            ("2026-11-25T10:00:00-05:00", false),
            ("2026-11-25 10:00:00 Europe/Berlin", false),
        ] {
            assert_eq!(is_stated(&cast(lit(text), timestamp.clone())), stated, "{text}");
        }
        assert!(!is_stated(&col("seen")));
    }

    #[test]
    fn an_interval_has_a_part_of_a_day_if_it_is_not_of_whole_days() {
        let interval = |nanoseconds| {
            let of = IntervalMonthDayNano { months: 1, days: 2, nanoseconds };
            lit(ScalarValue::IntervalMonthDayNano(Some(of)))
        };
        assert!(has_part_of_day(&interval(1)) && has_part_of_day(&interval(-1)));
        assert!(!has_part_of_day(&interval(0)));
        assert!(!has_part_of_day(&interval(-2 * NANOSECONDS_OF_A_DAY)));
    }
}
