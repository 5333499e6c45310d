//! Maps errors of components to responses, for the API and the pages. The cause decides, however it is
//! wrapped: 503 if a database, the event log, a bucket or a query worker is unavailable, 500 only for bugs.

use std::error::Error;
use std::sync::Arc;

use throng_access::AccessError;
use throng_aggregator::{BudgetsError, CheckpointError};
use throng_lake::LakeError;
use throng_log::LogError;
use throng_model::{Fault, Retry, StorageProblem};
use throng_objects::ObjectsError;
use throng_operations::OperationError;
use throng_store::LedgerError;

use super::error::ApiError;

/// What is unavailable.
enum Cause {
    /// A store, and the class of its problem.
    Storage(&'static str, StorageProblem),
    /// Another component, with a hint if there is one.
    Unavailable(&'static str, Option<String>),
}

impl ApiError {
    /// The response to an error of a component, by the first of its causes that says what is unavailable.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        match first_cause(error) {
            Some(Cause::Storage(what, problem)) => Self::storage(what, problem, error),
            Some(Cause::Unavailable(what, help)) => {
                tracing::error!(error, "request failed");
                let help = help.unwrap_or_else(|| {
                    "try again later; the log of the node has the cause, with the request id"
                        .to_owned()
                });
                Self::unavailable(format!("{what} is unavailable")).help(help)
            }
            None => Self::internal(error),
        }
    }
}

fn first_cause(mut error: &(dyn Error + 'static)) -> Option<Cause> {
    loop {
        if let found @ Some(_) = cause(error) {
            return found;
        }
        error = error.source()?;
    }
}

fn cause(error: &(dyn Error + 'static)) -> Option<Cause> {
    // It displays as the error of the ledger (`transparent`), so its sources do not include that type.
    if let Some(AccessError::Ledger(error)) = error.downcast_ref() {
        return of_ledger(error);
    }
    if let Some(error) = error.downcast_ref::<LedgerError>() {
        return of_ledger(error);
    }
    let shared = error.downcast_ref::<Arc<LogError>>().map(|error| &**error);
    if let Some(error) = error.downcast_ref::<LogError>().or(shared) {
        return of_engine("the event log", error.problem(), error.retry());
    }
    if let Some(error) = error.downcast_ref::<ObjectsError>() {
        let problem = StorageProblem::in_causes(error);
        return of_engine("the object storage", problem, error.retry());
    }
    if let Some(CheckpointError::Fenced { .. }) = error.downcast_ref() {
        return Some(Cause::Unavailable("a partition that another process is taking over", None));
    }
    if let Some(error) = error.downcast_ref::<LakeError>() {
        let external = error.fault() == Fault::External;
        return external.then(|| Cause::Unavailable("the query engine", error.help()));
    }
    let problem = error.downcast_ref::<std::io::Error>().and_then(StorageProblem::of_io);
    problem.map(|problem| Cause::Storage("a file of this node", problem))
}

fn of_ledger(error: &LedgerError) -> Option<Cause> {
    error.problem().map(|problem| Cause::Storage("the ledger", problem))
}

fn of_engine(what: &'static str, problem: Option<StorageProblem>, retry: Retry) -> Option<Cause> {
    match problem {
        Some(problem) => Some(Cause::Storage(what, problem)),
        None => (retry != Retry::Never).then_some(Cause::Unavailable(what, None)),
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        match &error {
            LedgerError::NotFound { .. } => Self::not_found(error.to_string()),
            LedgerError::WrongState { .. } => Self::wrong_state(error.to_string()),
            LedgerError::LeaseLost { .. } => Self::conflict(error.to_string()),
            _ => Self::of(&error),
        }
    }
}

impl From<OperationError> for ApiError {
    fn from(error: OperationError) -> Self {
        let with_help = |error: Self, help: Option<String>| match help {
            Some(help) => error.help(help),
            None => error,
        };
        match error {
            OperationError::Invalid { message, help } => {
                with_help(Self::bad_request(message), help)
            }
            OperationError::NotFound { message, help } => with_help(Self::not_found(message), help),
            OperationError::WrongState { message, help } => {
                with_help(Self::wrong_state(message), help)
            }
            OperationError::Unavailable { message } => Self::unavailable(message),
            OperationError::Ledger(error) => error.into(),
            OperationError::Component(error) => Self::of(&*error),
        }
    }
}

impl From<BudgetsError> for ApiError {
    fn from(error: BudgetsError) -> Self {
        match &error {
            BudgetsError::Append(source) => match source.problem() {
                Some(problem) => Self::storage("the event log", problem, &error),
                None => {
                    let causes = throng_model::with_causes(&**source);
                    tracing::warn!(%error, causes, "failed to append events");
                    Self::unavailable(error.to_string())
                }
            },
            BudgetsError::CatalogBehind { .. }
            | BudgetsError::SpecBehind
            | BudgetsError::Closed
            | BudgetsError::Unavailable { .. } => Self::unavailable(error.to_string()),
            _ => Self::of(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};

    use axum::http::header;
    use axum::response::IntoResponse as _;
    use throng_apply::ApplyError;
    use throng_backends::BackendError;
    use throng_http::{BodyError, DecodeError, SlowBody};
    use throng_worker::WorkerError;

    use super::*;
    use crate::NodeError;
    use crate::page::PageError;

    /// Status, code and `Retry-After`.
    fn response(error: ApiError) -> (u16, &'static str, Option<u64>) {
        let code = error.code();
        let (status, _, _, retry_after) = error.into_parts();
        (status.as_u16(), code, retry_after)
    }

    fn lost(kind: ErrorKind) -> LedgerError {
        LedgerError::of_system("reading an audience", io::Error::from(kind))
    }

    fn bug() -> LedgerError {
        LedgerError::of_system("reading an audience", io::Error::other("no such column"))
    }

    #[test]
    fn every_class_of_errors_has_its_status() {
        let name = || "buyers".to_owned();
        let second = std::time::Duration::from_secs(1);
        for (error, status, code, retry_after) in [
            (ApiError::bad_request("no"), 400, "bad_request", None),
            (ApiError::invalid_spec(Vec::new()), 400, "invalid_spec", None),
            (ApiError::unauthorized(), 401, "unauthorized", None),
            (ApiError::wrong_token(), 401, "wrong_token", None),
            (ApiError::forbidden("ci", "admin"), 403, "forbidden", None),
            (ApiError::forbidden_to_sessions(), 403, "forbidden", None),
            (ApiError::foreign_origin(), 403, "foreign_origin", None),
            (ApiError::not_found("no"), 404, "not_found", None),
            (ApiError::slow_body(SlowBody::Idle(second)), 408, "timeout", None),
            (ApiError::slow_body(SlowBody::Rate { min_rate: 1 }), 408, "timeout", None),
            (ApiError::conflict("no"), 409, "conflict", None),
            (ApiError::wrong_state("no"), 409, "wrong_state", None),
            (ApiError::too_large(), 413, "too_large", None),
            (ApiError::unsupported("no"), 415, "unsupported_media_type", None),
            (ApiError::misdirected("no"), 421, "unknown_host", None),
            (ApiError::no_event_counts("no"), 422, "no_event_counts", None),
            (ApiError::too_many_wrong_tokens(second), 429, "too_many_wrong_tokens", Some(1)),
            (ApiError::internal(&bug()), 500, "internal", None),
            (ApiError::unavailable("no"), 503, "unavailable", Some(1)),
            // Errors of bodies.
            (BodyError::Slow(SlowBody::Idle(second)).into(), 408, "timeout", None),
            (BodyError::TooLarge.into(), 413, "too_large", None),
            (BodyError::Incomplete.into(), 400, "bad_request", None),
            (DecodeError::TooLarge.into(), 413, "too_large", None),
            (DecodeError::Invalid.into(), 400, "bad_request", None),
            (
                DecodeError::Unsupported { encoding: name() }.into(),
                415,
                "unsupported_media_type",
                None,
            ),
            // Errors of the ledger.
            (LedgerError::NotFound { what: "task", name: name() }.into(), 404, "not_found", None),
            (
                LedgerError::WrongState {
                    what: "snapshot",
                    name: name(),
                    state: name(),
                    wanted: "approved",
                }
                .into(),
                409,
                "wrong_state",
                None,
            ),
            (LedgerError::LeaseLost { what: "task", name: name() }.into(), 409, "conflict", None),
            (LedgerError::Refused { what: "task", why: name() }.into(), 500, "internal", None),
            (LedgerError::Unreadable { what: "task", why: name() }.into(), 500, "internal", None),
            (bug().into(), 500, "internal", None),
            (lost(ErrorKind::ConnectionReset).into(), 503, "unavailable", Some(1)),
            (lost(ErrorKind::StorageFull).into(), 503, "unavailable", Some(1)),
            (
                LedgerError::Damaged { path: "ledger.db".into(), why: name() }.into(),
                503,
                "unavailable",
                None,
            ),
        ] {
            let debug = format!("{error:?}");
            assert_eq!(response(error), (status, code, retry_after), "{debug}");
        }
    }

    #[test]
    fn an_unavailable_backend_is_503_however_its_error_is_wrapped() {
        let unavailable = (503, "unavailable", Some(1));
        let of = |error: NodeError| response(ApiError::of(&error));
        let lost = || lost(ErrorKind::ConnectionReset);
        assert_eq!(of(NodeError::Ledger(lost())), unavailable);
        assert_eq!(of(NodeError::Access(AccessError::Ledger(lost()))), unavailable);
        assert_eq!(of(NodeError::Membership(Box::new(lost()))), unavailable);
        let bucket = || ObjectsError::Store {
            doing: "read",
            name: "checkpoints/0".to_owned(),
            source: "dns error".into(),
        };
        let kafka = || LogError::BrokerTimeout { topic: "events".to_owned() };
        let fenced = || CheckpointError::Fenced { partition: 0 };
        assert_eq!(of(NodeError::Backend(BackendError::Objects(bucket()))), unavailable);
        assert_eq!(of(NodeError::Backend(BackendError::Log(kafka()))), unavailable);
        assert_eq!(of(NodeError::Budgets(BudgetsError::Checkpoint(fenced()))), unavailable);
        for error in [
            BudgetsError::Log(kafka()),
            BudgetsError::Append(Arc::new(kafka())),
            BudgetsError::Quarantine { partition: 0, source: bucket() },
            BudgetsError::Ids { partition: 0, source: Box::new(bucket()) },
            BudgetsError::Checkpoint(CheckpointError::Store { partition: 0, source: bucket() }),
            BudgetsError::Closed,
            BudgetsError::Unavailable { partition: 0 },
            BudgetsError::CatalogBehind { partition: 0 },
            BudgetsError::SpecBehind,
        ] {
            let message = error.to_string();
            assert_eq!(response(error.into()), unavailable, "{message}");
        }
        let worker = || WorkerError::Start {
            program: "throng".to_owned(),
            source: io::Error::from(ErrorKind::NotFound),
        };
        assert_eq!(of(NodeError::Apply(ApplyError::Lake(worker().into()))), unavailable);
        // Bugs stay bugs.
        assert_eq!(of(NodeError::Ledger(bug())).0, 500);
        let panicked = BudgetsError::Panicked { partition: 0, offset: 7 };
        assert_eq!(response(panicked.into()).0, 500);
    }

    #[test]
    fn too_little_free_space_for_the_event_log_is_a_full_disk() {
        let low = || LogError::DiskLow { path: "log/0".into(), available: 1, min_free: 2 };
        for error in [
            ApiError::from(BudgetsError::Append(Arc::new(low()))),
            ApiError::of(&BudgetsError::Log(low())),
        ] {
            let (status, message, help, retry_after) = error.into_parts();
            assert_eq!((status.as_u16(), retry_after), (503, Some(1)));
            assert_eq!(message, "the event log is unavailable: disk full");
            assert!(help.unwrap().contains("free some space"));
        }
    }

    #[test]
    fn a_page_has_the_status_of_the_api() {
        let page = |error: LedgerError| {
            let response = PageError::from(error).into_response();
            let after = response.headers().get(header::RETRY_AFTER).cloned();
            (response.status().as_u16(), after.map(|value| value.to_str().unwrap().to_owned()))
        };
        let missing = LedgerError::NotFound { what: "task", name: "7".to_owned() };
        assert_eq!(page(missing), (404, None));
        assert_eq!(page(lost(ErrorKind::ConnectionReset)), (503, Some("1".to_owned())));
        assert_eq!(page(bug()), (500, None));
    }
}
