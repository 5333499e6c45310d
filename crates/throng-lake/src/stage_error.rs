//! Errors of the tasks of a cluster. They pass through its logs and its scheduler as texts, so a task sends an error
//! without values, in a form that is still there when others have quoted it.

use datafusion::error::DataFusionError;
use throng_files::FileError;
use throng_model::{from_hex_of_any_length, to_hex};

use crate::error::LakeError;
use crate::failure::Failure;

/// Before the hexadecimal digits of an error, which end with a semicolon.
const MARK: &str = "throng-failure:";

/// The error of a task without values of the data. `changed`: refuses files of the task that have changed since it
/// began; then that is the error, as only the executor can tell. `shown`: an error of files as it is shown, with the names
/// that they have in the query.
pub fn stage_error(
    error: &DataFusionError,
    changed: impl FnOnce() -> Result<(), FileError>,
    shown: impl FnOnce(FileError) -> FileError,
) -> DataFusionError {
    let doing = "running a stage on the cluster";
    let error = cluster_failure(doing, error);
    let error = match error.is_of_content() {
        true => changed().err().map_or(error, LakeError::from),
        false => error,
    };
    to_engine(match error {
        // The setting that its hint names is not that of an executor.
        LakeError::OutOfMemory { source } => LakeError::Engine {
            doing: "running a stage: an executor has too little memory".to_owned(),
            source,
        },
        LakeError::File(error) => LakeError::File(shown(error)),
        error => error,
    })
}

/// The error of a task whose files are not those of the query.
pub fn stage_file_error(error: FileError) -> DataFusionError {
    to_engine(error.into())
}

fn to_engine(error: LakeError) -> DataFusionError {
    let json = serde_json::to_vec(&Failure::from(error)).unwrap_or_default();
    DataFusionError::Execution(format!("{MARK}{};", to_hex(&json)))
}

/// The error of a query on a cluster: that of a task, or one of the way there.
pub(crate) fn cluster_failure(doing: &'static str, error: &DataFusionError) -> LakeError {
    sent(error).unwrap_or_else(|| LakeError::of_engine(doing, error))
}

/// As [`cluster_failure`], in the form in which [`query_error`] distinguishes it from the errors of this process.
pub(crate) fn cluster_error(doing: &'static str, error: &DataFusionError) -> DataFusionError {
    to_engine(cluster_failure(doing, error))
}

/// The error of a running query: that of a cluster, if it comes from one.
pub(crate) fn query_error(doing: &'static str, error: DataFusionError) -> LakeError {
    sent(&error).unwrap_or_else(|| LakeError::engine(doing, error))
}

/// The error that a task has sent, or [`cluster_error`] has made.
fn sent(error: &DataFusionError) -> Option<LakeError> {
    let DataFusionError::Execution(text) = error.find_root() else { return None };
    let (_, rest) = text.split_once(MARK)?;
    let (digits, _) = rest.split_once(';')?;
    let json = from_hex_of_any_length(digits)?;
    serde_json::from_slice::<Failure>(&json).ok().map(LakeError::from)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use datafusion::arrow::error::ArrowError;
    use throng_files::FileFault;

    use super::*;

    /// As a scheduler reports it.
    fn reported(error: DataFusionError) -> LakeError {
        let sent = stage_error(&error, || Ok(()), |file| file);
        received(format!("Job 1 failed: DataFusionError({sent:?})"))
    }

    /// As a stream from a cluster has it.
    fn received(text: String) -> LakeError {
        query_error("scanning", cluster_error("reading", &DataFusionError::Execution(text)))
    }

    #[test]
    fn an_error_of_a_task_arrives_without_values() {
        let cast = ArrowError::CastError("Cannot cast string 'zoe@example.com' to Int32".into());
        let cast = DataFusionError::ArrowError(Box::new(cast), None);
        let changed = || Err(FileError::Changed { path: "/lake/a.csv".into() });
        let error = reported(stage_error(&cast, changed, |file| file));
        assert!(matches!(error, LakeError::File(FileError::Changed { .. })), "{error:?}");
        let sent = stage_error(&cast, || Ok(()), |file| file);
        assert!(!sent.to_string().contains("zoe"));
        // A later stage reports the error of an earlier one.
        let error = reported(sent);
        assert!(error.help().unwrap().contains("declare"), "{error:?}");
        assert!(matches!(error, LakeError::Data { .. }), "{error:?}");
    }

    #[test]
    fn a_fault_of_a_file_keeps_its_path_and_line() {
        let fault = FileFault::new(Path::new("/lake/shop/a.csv"), Some(7), "it is not UTF-8");
        let error = reported(DataFusionError::External(Box::new(fault)));
        let LakeError::File(FileError::Table { message, .. }) = &error else { panic!("{error:?}") };
        assert!(message.contains("/lake/shop/a.csv, line 7"), "{message}");
    }

    #[test]
    fn other_errors_are_those_of_the_engine() {
        let error = received("no connection".to_owned());
        assert!(matches!(&error, LakeError::Engine { doing, .. } if doing == "reading"));
        // A query of this process needs no connection.
        let error = DataFusionError::Execution("invalid Unicode scalar value: 9".to_owned());
        assert!(matches!(query_error("reading", error), LakeError::Data { .. }));
        let memory = DataFusionError::ResourcesExhausted("8 GB".to_owned());
        assert!(matches!(reported(memory), LakeError::Engine { .. }));
        let changed = FileError::Changed { path: "/lake/a.csv".into() };
        let error = query_error("reading", stage_file_error(changed));
        assert!(matches!(error, LakeError::File(FileError::Changed { .. })), "{error:?}");
    }
}
