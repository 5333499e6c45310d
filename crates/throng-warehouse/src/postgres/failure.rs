//! What errors of PostgreSQL mean. Pure.
//!
//! Messages and details of the server are never shown: they may contain values of the data, such as
//! `invalid input syntax for type integer: "…"`. Instead its code has a text of our own.

use sqlx::postgres::{PgDatabaseError, PgErrorPosition, PgSeverity};
use throng_refresh::WarehouseError;

use super::describe::offset_in_query;

/// How an error is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// It would fail in the same way again.
    Refused,
    /// The server has no capacity at the moment.
    Busy,
    /// The transaction ended, for a reason that is not the SQL.
    Ended,
}

/// How an error is handled, what it means, and what to do.
type Meaning = (Class, &'static str, Option<&'static str>);

/// By <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn meaning_of(code: &str) -> Meaning {
    use Class::{Busy, Ended, Refused};
    match code {
        "21000" => (Refused, "a subquery returns more than one row", None),
        "22012" => (Refused, "a division by zero", None),
        "22P02" => (Refused, "a text of the data is not a value of the type", None),
        "25006" => (Refused, "the SQL writes, and is run read-only", None),
        "25P03" | "25P04" => (Ended, "the server has ended the transaction", None),
        "28P01" => (Refused, "the password is wrong", Some("check `username` and `password`")),
        "28000" => (
            Refused,
            "the server does not admit this user",
            Some("check `username`, and pg_hba.conf of the server"),
        ),
        "3D000" => (Refused, "there is no such database", Some("check `database`")),
        "3F000" => (Refused, "there is no such schema", None),
        "40001" | "40P01" => (Ended, "a conflict with another transaction", None),
        "42501" => (
            Refused,
            "permission denied",
            Some("grant the source's user SELECT on the tables, and USAGE on their schemas"),
        ),
        "42601" => (Refused, "a syntax error", Some("this SQL is in PostgreSQL's dialect")),
        "42702" | "42725" => (Refused, "a name is ambiguous", None),
        "42703" => (Refused, "there is no such column", None),
        "42803" => (Refused, "a column is neither grouped nor aggregated", None),
        "42804" | "42846" => (Refused, "types do not match", None),
        "42883" => (Refused, "there is no such function or operator for these types", None),
        "42P01" => {
            (Refused, "there is no such table", Some("name its schema too, as in schema.table"))
        }
        "53400" => (Refused, "a limit of the server's configuration is exceeded", None),
        "53300" => (Busy, "the server has too many connections", None),
        "55P03" => (Busy, "a table is locked", None),
        "57014" => (
            Refused,
            "the statement was cancelled",
            Some("it took longer than `statement_timeout_secs`, or somebody cancelled it"),
        ),
        "57P03" => (Busy, "the server is starting or stopping", None),
        _ => meaning_of_class(code),
    }
}

/// The meaning of the first two characters of a code.
fn meaning_of_class(code: &str) -> Meaning {
    use Class::{Busy, Ended, Refused};
    match code.get(..2).unwrap_or_default() {
        "08" => (Ended, "the connection failed", None),
        "0A" => (Refused, "the server does not support this", None),
        "22" => (Refused, "a value of the data is not valid for an operation of the SQL", None),
        "28" => (Refused, "the server does not admit this user", None),
        "40" => (Ended, "the server has rolled back the transaction", None),
        "42" => (Refused, "the SQL is wrong", None),
        "53" => (Busy, "the server has no resources left", None),
        "54" => (Refused, "the SQL is too complex for the server", None),
        "57" => (Ended, "the server has ended the session", None),
        "58" | "XX" => (Busy, "an internal error of the server", None),
        _ => (Refused, "the server refuses it", None),
    }
}

/// An error, without anything that the server wrote but its code.
struct Found {
    class: Class,
    text: String,
    help: Option<&'static str>,
}

/// `sql`: the query that was described, if one was.
fn found(error: &sqlx::Error, sql: Option<&str>) -> Found {
    let by_server = error.as_database_error();
    if let Some(error) = by_server.and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) {
        let (class, meaning, help) = meaning_of(error.code());
        let severity = match error.severity() {
            PgSeverity::Panic => "PANIC",
            PgSeverity::Fatal => "FATAL",
            _ => "ERROR",
        };
        let place = match (error.position(), sql) {
            (Some(PgErrorPosition::Original(at)), Some(sql)) => place_of(sql, offset_in_query(at)),
            _ => String::new(),
        };
        let text = format!("{meaning}{place} ({severity} {})", code_of(error.code()));
        return Found { class, text, help };
    }
    let (class, text, help) = match error {
        sqlx::Error::Io(error) if error.kind() != std::io::ErrorKind::InvalidData => {
            (Class::Ended, "the connection failed", None)
        }
        sqlx::Error::Tls(_) | sqlx::Error::Io(_) => (
            Class::Refused,
            "no TLS connection, or the certificate is not valid for this host",
            Some("see TLS in docs/postgres-source.md; `sslmode: disable` connects without TLS"),
        ),
        sqlx::Error::Configuration(_) => (Class::Refused, "the settings are not valid", None),
        _ => (Class::Ended, "the connection failed", None),
    };
    Found { class, text: text.to_owned(), help }
}

/// A code, if it has the form of one.
fn code_of(code: &str) -> &str {
    let is_code = code.len() == 5 && code.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_code { code } else { "without a code" }
}

/// Where a character of the SQL is, after `before` others, and the name there. A name is part of the
/// spec; a literal, which may be a value, is left out.
fn place_of(sql: &str, before: usize) -> String {
    let (mut line, mut column) = (1, 1);
    for character in sql.chars().take(before) {
        (line, column) = if character == '\n' { (line + 1, 1) } else { (line, column + 1) };
    }
    let rest = sql.chars().skip(before);
    let name: String =
        rest.take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '.').take(60).collect();
    let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let near = if is_name { format!(" near `{name}`") } else { String::new() };
    format!(" at line {line}, column {column}{near}")
}

/// The error of a call.
pub(super) fn error(error: &sqlx::Error, doing: &str, sql: Option<&str>) -> WarehouseError {
    let Found { class, text, help } = found(error, sql);
    let message = format!("{doing} in PostgreSQL failed: {text}");
    match class {
        Class::Refused => WarehouseError::Refused { message, help: help.map(str::to_owned) },
        Class::Busy | Class::Ended => WarehouseError::Unavailable { message, after: None },
    }
}

/// The error of connecting.
pub(super) fn connecting(cause: &sqlx::Error) -> WarehouseError {
    error(cause, "connecting", None)
}

/// The error of a job that reads: a transaction that has ended is a lost job.
pub(super) fn reading(cause: &sqlx::Error, job: &str, sql: Option<&str>) -> WarehouseError {
    match found(cause, sql) {
        Found { class: Class::Ended, text, .. } => lost(job, &text),
        _ => error(cause, "running the SQL", sql),
    }
}

/// As [`reading`], of a key range. `goes_on`: others before it are recorded, so that it is read by another transaction.
pub(super) fn reading_range(
    cause: &sqlx::Error,
    job: &str,
    sql: Option<&str>,
    goes_on: bool,
) -> WarehouseError {
    match reading(cause, job, sql) {
        WarehouseError::JobLost { job, why } if goes_on => {
            let message = format!(
                "the job {job} is interrupted, and goes on behind its last key range: {why}"
            );
            WarehouseError::Unavailable { message, after: None }
        }
        other => other,
    }
}

/// A job whose transaction has ended.
pub(super) fn lost(job: &str, why: &str) -> WarehouseError {
    WarehouseError::JobLost { job: job.to_owned(), why: why.to_owned() }
}

/// An answer that PostgreSQL does not give.
pub(super) fn failed(what: &str) -> WarehouseError {
    let message = format!("the answer of PostgreSQL is not usable: {what}");
    WarehouseError::Refused { message, help: None }
}

#[cfg(test)]
mod tests {
    use throng_model::Retry;

    use super::*;

    #[test]
    fn codes_have_their_classes() {
        for (code, class) in [
            ("42601", Class::Refused),
            ("42501", Class::Refused),
            ("28P01", Class::Refused),
            ("57014", Class::Refused),
            ("22P02", Class::Refused),
            ("57P01", Class::Ended),
            ("40001", Class::Ended),
            ("08006", Class::Ended),
            ("25P03", Class::Ended),
            ("53100", Class::Busy),
            ("57P03", Class::Busy),
            ("XX000", Class::Busy),
            ("P0001", Class::Refused),
            ("", Class::Refused),
        ] {
            assert_eq!(meaning_of(code).0, class, "{code}");
        }
    }

    #[test]
    fn a_place_has_names_of_the_sql_and_no_literal() {
        assert_eq!(place_of("SELECT\n  totl FROM t", 9), " at line 2, column 3 near `totl`");
        assert_eq!(place_of("SELECT 'é', totl", 12), " at line 1, column 13 near `totl`");
        assert_eq!(place_of("SELECT 'secret'", 7), " at line 1, column 8");
        assert_eq!(place_of("SELECT 42", 7), " at line 1, column 8");
        assert_eq!(place_of("SELECT", 99), " at line 1, column 7");
    }

    #[test]
    fn a_lost_connection_loses_a_job_and_delays_a_check() {
        let cut = sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into());
        assert!(matches!(reading(&cut, "j", None), WarehouseError::JobLost { .. }));
        let first = reading_range(&cut, "j", None, false);
        assert!(matches!(first, WarehouseError::JobLost { .. }), "{first:?}");
        assert_eq!(reading_range(&cut, "j", None, true).retry(), Retry::Backoff);
        assert_eq!(connecting(&cut).retry(), Retry::Backoff);
        let tls = sqlx::Error::Tls("hunter2".into());
        let refused = connecting(&tls);
        assert_eq!(refused.retry(), Retry::Never);
        assert!(!format!("{refused:?}").contains("hunter2"));
    }
}
