//! Which days a report is about.

use throng_model::BudgetDay;

/// How many days a report has unless the query says so.
pub const DEFAULT_DAYS: i32 = 7;
/// The most days of one report.
pub const MAX_DAYS: i32 = 366;

/// The days of a report, both included. The first one is not after the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayRange {
    /// The first day.
    pub from: BudgetDay,
    /// The last day.
    pub to: BudgetDay,
}

/// Why a query of a report is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not a day. The error names the parameter, and not its value.
    #[error("the query parameter `{field}` is not a day such as 2026-11-23")]
    NotADay {
        /// The field of the query.
        field: &'static str,
    },
    /// The first day is after the last one.
    #[error("`from` {from} is after `to` {to}")]
    Reversed {
        /// The first day.
        from: BudgetDay,
        /// The last day.
        to: BudgetDay,
    },
    /// Too many days.
    #[error("{days} days are more than {MAX_DAYS}")]
    TooManyDays {
        /// How many.
        days: i64,
    },
}

/// The days of a query. `newest`: the last day unless the query has one.
///
/// # Errors
/// [`QueryError`].
pub fn day_range(
    from: Option<&str>,
    to: Option<&str>,
    newest: BudgetDay,
) -> Result<DayRange, QueryError> {
    let read =
        |field, text: &str| text.parse::<BudgetDay>().map_err(|_| QueryError::NotADay { field });
    let from = from.map(|text| read("from", text)).transpose()?;
    let to = to.map(|text| read("to", text)).transpose()?.unwrap_or(newest);
    let from = from.unwrap_or(BudgetDay(to.0.saturating_sub(DEFAULT_DAYS - 1)));
    if from > to {
        return Err(QueryError::Reversed { from, to });
    }
    let days = i64::from(to.0) - i64::from(from.0) + 1;
    if days > i64::from(MAX_DAYS) {
        return Err(QueryError::TooManyDays { days });
    }
    Ok(DayRange { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_defaults_and_limits() {
        let newest: BudgetDay = "2026-11-23".parse().unwrap();
        let shown = |from, to| {
            day_range(from, to, newest)
                .map(|range| format!("{} {}", range.from, range.to))
                .map_err(|error| error.to_string())
        };
        let range = |text: &str| Ok(text.to_owned());
        assert_eq!(shown(None, None), range("2026-11-17 2026-11-23"));
        assert_eq!(shown(Some("2026-11-20"), None), range("2026-11-20 2026-11-23"));
        assert_eq!(shown(None, Some("2026-03-03")), range("2026-02-25 2026-03-03"));
        assert_eq!(shown(Some("2026-01-01"), Some("2026-01-01")), range("2026-01-01 2026-01-01"));
        let refused = |text: &str| Err(text.to_owned());
        assert_eq!(
            shown(Some("2026-11-24"), None),
            refused("`from` 2026-11-24 is after `to` 2026-11-23")
        );
        assert_eq!(shown(Some("2020-11-24"), None), refused("2191 days are more than 366"));
        for text in ["", "today", "2026-2-30", "2026-02-30", "2026-11-23T00:00:00Z", "99999-01-01"]
        {
            let error = shown(Some(text), None).unwrap_err();
            assert_eq!(
                error, "the query parameter `from` is not a day such as 2026-11-23",
                "{text}"
            );
        }
    }
}
