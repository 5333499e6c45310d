//! The report of budgets: what was billable, given away and left over on each day of each ad group, and what was
//! predicted and earned; with sums by advertiser, ad group and currency. Pure: rows of the ledger go in, a response of
//! the API comes out.
//!
//! Sums are exact: they are integers that cannot overflow, and a sum of spend that does not fit into the response is an
//! error. One of budgets is then the largest amount.
//! Amounts of different currencies are never added.

mod causes;
mod csv;
mod query;
mod report;
mod sums;
mod table;

pub use csv::csv;
pub use query::{DEFAULT_DAYS, DayRange, MAX_DAYS, QueryError, day_range};
pub use report::{ReportedAdGroup, name_currencies, report};
pub use table::{COLUMNS, row};
