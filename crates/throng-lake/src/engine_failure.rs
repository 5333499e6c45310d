//! The engine's errors without values of the data. The engine's messages about casts, parsing and
//! arithmetic quote values; ledger, log and pages must not show them.

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use serde::{Deserialize, Serialize};
use throng_files::FileFault;
use throng_model::StorageProblem;
use throng_query::mask::without_values;

/// Longer texts of the engine are truncated, in characters.
const MAX_TEXT: usize = 500;

/// The text of every failed cast.
const CONVERSION: &str =
    "a value cannot be converted to the required type (TRY_CAST makes it NULL)";
/// The text of every division by zero.
const DIVISION: &str = "division by zero";
/// The text of every number that its type does not have.
const OVERFLOW: &str = "a number overflows its type";
/// In Arrow's errors of numbers with more digits than their type has, which are of the kind of those about arguments.
const OF_DIGITS: [&str; 2] =
    [" is too large to store in a Decimal", " is too small to store in a Decimal"];
/// The text of every failed reading of rows that the engine itself has written.
const INTERMEDIATE: &str =
    "rows that the engine has written aside, or those of another task, cannot be read";
/// How Arrow's errors about its own format begin. They are of the kind of those about values: a spilled file, or the
/// output of a task, that is damaged is not a fault of the data.
const OF_FORMAT: [&str; 11] = [
    "Arrow file does not contain correct footer",
    "Failed to parse schema from message header",
    "Invalid footer length",
    "Invalid metadata length",
    "The buffer length",
    "The encapsulated message",
    "Unable to convert flight info",
    "Unable to get head as schema",
    "Unable to get record batches from IPC",
    "Unable to get root as",
    "Unsupported message header type",
];
/// How the text of every failed writing of rows to the disk begins.
const SPILL: &str = "rows that do not fit into memory cannot be written to node.spill_dir";
/// How the engine's error begins if a query writes more than the engine allows.
const OF_SPILL: &str = "The used disk space during the spilling process has exceeded";
/// How the text of every function that has failed for a value begins.
const COMPUTATION: &str = "a value cannot be computed";
/// In the engine's errors about memory, which are of the kind of those of functions.
const OF_MEMORY: [&str; 3] =
    ["failed to reserve ", "failed to allocate ", "Disk spilling disabled"];
/// The text of every failed reading of a date, a time or a number.
const PARSING: &str = "a text cannot be read as a date, a time or a number";
/// The text of every failed reading of a date or a time by a function with formats.
const FORMATTED: &str = "a text cannot be read as a date or a time of the format that is named";
/// The text of every date that a timestamp of nanoseconds does not have.
const RANGE: &str = "a date is before 1678 or after 2261, which a TIMESTAMP does not have";
/// How the text of every error of a full disk begins: that of this node, or of an executor.
const FULL_DISK: &str = "a disk is full: ";
/// In the engine's errors of a full disk: as the system says it, and as Ballista prints it.
const OF_FULL_DISK: [&str; 3] = ["StorageFull", "No space left on device", "no storage space"];
/// In the engine's errors about such dates.
const OF_RANGE: &str = "converted value exceeds the representable";
/// How the engine's errors of those functions begin. A value that follows may have quotes itself, which end it too early
/// for a mask.
const OF_DATES: [&str; 2] = ["Error parsing timestamp from '", "Error parsing '"];

/// An error of the engine, without values of the data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct EngineFailure(String);

impl EngineFailure {
    /// The part of an engine's error that contains no value.
    pub(crate) fn of(error: &DataFusionError) -> Self {
        Self::of_text(describe(error.find_root()))
    }

    /// As [`Self::of`], for an error of a query that runs in this process alone. There, what the engine says while it
    /// executes without any kind is about values: functions have no kind for them. Elsewhere it may be a connection.
    pub(crate) fn of_execution(error: &DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::Execution(text)
                if !is_of_dates(text)
                    && !text.contains(OF_RANGE)
                    && !OF_MEMORY.iter().any(|of| text.contains(of)) =>
            {
                Self::of_text(computation(text))
            }
            root => Self::of_text(describe(root)),
        }
    }

    /// An error of the system on the way to an engine.
    pub(crate) fn of_text(text: String) -> Self {
        if text.contains(OF_RANGE) {
            return Self(RANGE.to_owned());
        }
        let is_full = OF_FULL_DISK.iter().any(|of| text.contains(of));
        let text = match is_full && !text.starts_with(FULL_DISK) {
            true => format!("{FULL_DISK}{text}"),
            false => text,
        };
        Self(text.chars().take(MAX_TEXT).collect())
    }

    /// Whether a value could not be converted to the type that was required.
    pub(crate) fn is_conversion(&self) -> bool {
        self.0 == CONVERSION
    }

    /// Whether a value is the cause: the same files fail in the same way. Faults of files and of the system are not.
    pub(crate) fn is_of_data(&self) -> bool {
        self.is_of_values()
            || self.is_formatted()
            || self.is_of_range()
            || self.is_division()
            || self.0 == OVERFLOW
            || self.is_computation()
    }

    /// Whether a value was of another type than the query requires.
    pub(crate) fn is_of_values(&self) -> bool {
        self.is_conversion() || self.is_parsing()
    }

    /// Whether a text had not the format that the query names for dates or times.
    pub(crate) fn is_formatted(&self) -> bool {
        self.0 == FORMATTED
    }

    /// Whether a function could not be computed for a value.
    pub(crate) fn is_computation(&self) -> bool {
        self.0.starts_with(COMPUTATION)
    }

    /// Whether rows could not be written to the disk.
    pub(crate) fn is_spill(&self) -> bool {
        self.0.starts_with(SPILL)
    }

    /// Whether a timestamp does not have the year of a date.
    pub(crate) fn is_of_range(&self) -> bool {
        self.0 == RANGE
    }

    /// Whether a disk is full.
    pub(crate) fn is_of_full_disk(&self) -> bool {
        self.0.starts_with(FULL_DISK)
    }

    /// Whether a number was divided by zero.
    pub(crate) fn is_division(&self) -> bool {
        self.0 == DIVISION
    }

    /// Whether a text could not be read as a date, a time or a number.
    pub(crate) fn is_parsing(&self) -> bool {
        self.0 == PARSING
    }
}

fn describe(root: &DataFusionError) -> String {
    match root {
        // About the plan, its types and its memory.
        DataFusionError::NotImplemented(_)
        | DataFusionError::Plan(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::ResourcesExhausted(_)
        | DataFusionError::SQL(..)
        | DataFusionError::ObjectStore(_) => without_report(&root.strip_backtrace()).to_owned(),
        DataFusionError::IoError(error) => spill_failure(error)
            .unwrap_or_else(|| without_report(&root.strip_backtrace()).to_owned()),
        DataFusionError::Internal(text) => {
            format!("internal error of the engine: {}", without_values(without_report(text)))
        }
        DataFusionError::ArrowError(error, _) => describe_arrow(error),
        DataFusionError::ParquetError(error) => without_values(&error.to_string()),
        DataFusionError::Execution(text) if is_of_dates(text) => FORMATTED.to_owned(),
        DataFusionError::Execution(text) => without_values(text),
        DataFusionError::External(error) => match error.downcast_ref::<ArrowError>() {
            Some(error) => describe_arrow(error),
            None => without_values(&error.to_string()),
        },
        _ => "the engine gives no reason that can be shown here".to_owned(),
    }
}

fn describe_arrow(error: &ArrowError) -> String {
    match error {
        ArrowError::CastError(_) => CONVERSION.to_owned(),
        ArrowError::ParseError(text) if OF_FORMAT.iter().any(|start| text.starts_with(start)) => {
            INTERMEDIATE.to_owned()
        }
        ArrowError::ParseError(_) => PARSING.to_owned(),
        ArrowError::CsvError(_) => "a CSV file is malformed".to_owned(),
        ArrowError::JsonError(_) => "a JSON file is malformed".to_owned(),
        ArrowError::DivideByZero => DIVISION.to_owned(),
        ArrowError::ArithmeticOverflow(_) => OVERFLOW.to_owned(),
        ArrowError::InvalidArgumentError(text) if OF_DIGITS.iter().any(|of| text.contains(of)) => {
            OVERFLOW.to_owned()
        }
        ArrowError::ComputeError(_) => COMPUTATION.to_owned(),
        ArrowError::IoError(_, error) => spill_failure(error)
            .unwrap_or_else(|| format!("a file cannot be read: {}", error.kind())),
        ArrowError::ExternalError(error) => without_values(&error.to_string()),
        other => without_values(&other.to_string()),
    }
}

/// Why rows could not be written to the disk, if that is the cause: a query writes nothing else.
fn spill_failure(error: &std::io::Error) -> Option<String> {
    let why = match StorageProblem::in_causes(error) {
        Some(problem @ (StorageProblem::DiskFull | StorageProblem::ReadOnly)) => problem.words(),
        _ if error.to_string().starts_with(OF_SPILL) => "a query may write 100 GiB",
        _ => return None,
    };
    Some(format!("{SPILL}: {why}"))
}

fn is_of_dates(text: &str) -> bool {
    OF_DATES.iter().any(|of| text.starts_with(of))
}

/// The error of a function: the engine's words before the first place where a value can be. Not all values are in quotes.
fn computation(text: &str) -> String {
    let is_word = |c: char| c.is_alphabetic() || matches!(c, ' ' | ',' | '_');
    let words = text.find(|c: char| !is_word(c)).map_or(text, |end| &text[..end]).trim_end();
    if words.is_empty() { COMPUTATION.to_owned() } else { format!("{COMPUTATION}: {words} …") }
}

/// The text of an error without the engine's request to report it.
pub(crate) fn without_report(text: &str) -> &str {
    text.split("\nThis issue was likely caused by a bug").next().unwrap_or(text).trim_end()
}

/// The fault of a file that caused an error of the engine.
pub(crate) fn file_fault(error: &DataFusionError) -> Option<&FileFault> {
    match error.find_root() {
        DataFusionError::External(cause) => cause.downcast_ref::<FileFault>(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_removed_and_types_are_kept() {
        let cast = ArrowError::CastError("Cannot cast string 'zoe@example.com' to Int32".into());
        let cast = DataFusionError::ArrowError(Box::new(cast), None);
        assert!(!EngineFailure::of(&cast).to_string().contains("zoe"));
        let types = "Invalid comparison operation: Decimal128(32, 2) >= Decimal128(22, 2)";
        let kept = ArrowError::InvalidArgumentError(types.into());
        let kept = DataFusionError::ArrowError(Box::new(kept), None);
        assert!(EngineFailure::of(&kept).to_string().contains("Decimal128(32, 2)"));
    }

    #[test]
    fn a_text_of_another_format_is_of_the_data_and_not_shown() {
        let text = "Error parsing timestamp from 'x' zoe@example.com' using format '%d.%m.%Y': input is out of range";
        let found = EngineFailure::of(&DataFusionError::Execution(text.to_owned()));
        assert!(found.is_of_data() && !found.to_string().contains("zoe"), "{found}");
    }

    #[test]
    fn a_function_that_fails_for_a_value_is_of_the_data_and_shows_only_words() {
        let of =
            |text: &str| EngineFailure::of_execution(&DataFusionError::Execution(text.to_owned()));
        for (text, shown) in [
            ("invalid Unicode scalar value: 1114112", ": invalid Unicode scalar value …"),
            ("Month value '13' is out of range", ": Month value …"),
            ("Overflow happened on FACTORIAL(21)", ": Overflow happened on FACTORIAL …"),
            (
                "map key must be unique, duplicate key found: zoe",
                ": map key must be unique, duplicate key found …",
            ),
            ("date_bin timestamp value 7 * scale 9 overflows", ": date_bin timestamp value …"),
            ("'zoe' is not supported", ""),
        ] {
            let found = of(text);
            assert!(found.is_of_data(), "{text}");
            assert_eq!(found.to_string(), format!("{COMPUTATION}{shown}"));
        }
        let formatted = of("Error parsing timestamp from 'zoe' using format '%d'");
        assert!(formatted.is_formatted(), "{formatted}");
        for text in [
            "failed to reserve 80 bytes: memory",
            "Range too large to materialize: failed to allocate 80 elements: memory",
            "No memory. Disk spilling disabled.",
        ] {
            let found = of(text);
            assert!(!found.is_of_data() && !found.to_string().contains("80"), "{found}");
        }
        // What another process sends may be about a connection.
        let sent = DataFusionError::Execution("no connection".to_owned());
        assert!(!EngineFailure::of(&sent).is_of_data());
        let file = DataFusionError::IoError(std::io::Error::other("input/output error"));
        assert!(!EngineFailure::of_execution(&file).is_of_data());
    }

    #[test]
    fn a_full_disk_is_named() {
        let sent = "the job failed: IoError(Os { code: 28, kind: StorageFull, message: .. })";
        let found = EngineFailure::of(&DataFusionError::Execution(sent.to_owned()));
        assert_eq!(found.to_string(), format!("a disk is full: {sent}"));
        assert!(found.is_of_full_disk() && !found.is_of_data(), "{found}");
        let again = EngineFailure::of(&DataFusionError::Execution(found.to_string()));
        assert_eq!(again, found);
        let system = DataFusionError::IoError(std::io::ErrorKind::StorageFull.into());
        assert!(EngineFailure::of(&system).is_spill());
        let other = EngineFailure::of(&DataFusionError::Execution("no connection".to_owned()));
        assert!(!other.is_of_full_disk());
    }

    #[test]
    fn a_full_disk_of_spilled_rows_is_no_file_that_cannot_be_read() {
        // As the engine wraps the error of its writer.
        let written = |error: std::io::Error| {
            let error = std::io::Error::from(DataFusionError::IoError(error));
            let error = DataFusionError::ArrowError(Box::new(ArrowError::from(error)), None);
            EngineFailure::of_execution(&error)
        };
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(written(full()).to_string(), format!("{SPILL}: disk full"));
        let created = EngineFailure::of_execution(&DataFusionError::IoError(full()));
        assert_eq!(created, written(full()), "also if the file cannot be created");
        let limit = format!("{OF_SPILL} the allowable limit of 100.0 GB");
        let limit = ArrowError::from(std::io::Error::other(limit));
        let limit = EngineFailure::of(&DataFusionError::ArrowError(Box::new(limit), None));
        assert!(limit.is_spill() && !limit.is_of_data(), "{limit}");
        assert!(!written(std::io::Error::other("input/output error")).is_spill());
    }

    #[test]
    fn a_date_beyond_the_years_of_timestamps_is_of_the_data() {
        let text = "Cannot cast Date32 value 2932896 to Timestamp(ns): converted value exceeds the representable i64 range";
        let found = EngineFailure::of_execution(&DataFusionError::Execution(text.to_owned()));
        assert!(found.is_of_range() && found.is_of_data(), "{found}");
        assert!(!found.to_string().contains("2932896"), "{found}");
    }

    #[test]
    fn only_errors_of_values_are_of_the_data() {
        let of = |error: ArrowError| {
            EngineFailure::of(&DataFusionError::ArrowError(Box::new(error), None)).is_of_data()
        };
        assert!(of(ArrowError::CastError("x".into())));
        assert!(of(ArrowError::ParseError("x".into())));
        assert!(of(ArrowError::DivideByZero));
        assert!(of(ArrowError::ComputeError("x".into())));
        assert!(of(ArrowError::ArithmeticOverflow("x".into())));
        let digits = "1234567 is too large to store in a Decimal32 of precision 6. Max is 999999";
        assert!(of(ArrowError::InvalidArgumentError(digits.into())));
        let digits = digits.replace("large", "small").replace("Max", "Min");
        let digits = ArrowError::InvalidArgumentError(digits);
        assert_eq!(describe_arrow(&digits), OVERFLOW, "without the value");
        assert!(!of(ArrowError::InvalidArgumentError("x".into())));
        assert!(!of(ArrowError::ParseError("Unable to get root as message: InvalidUtf8".into())));
        assert!(!of(ArrowError::ParseError("Invalid metadata length: -7".into())));
        let io = || std::io::Error::other("input/output error");
        assert!(!of(ArrowError::IoError("x".into(), io())));
        assert!(!of(ArrowError::CsvError("x".into())));
        assert!(!of(ArrowError::ExternalError(Box::new(io()))));
        assert!(!EngineFailure::of(&DataFusionError::IoError(io())).is_of_data());
    }
}
