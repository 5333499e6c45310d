//! Answers of a node's HTTP API, as far as commands read them: one module per subject. The node's
//! `/openapi.json` describes them in full.
//!
//! A command line works with nodes of other versions: unknown fields are ignored, a field that an older node
//! does not send has a default, and states are texts, which are printed as they are. With `--json` an answer
//! is printed as the node sent it, and not from these types.

mod access;
mod activation;
mod alerts;
mod audiences;
mod budgets;
mod error;
mod sources;
mod spec;

pub(crate) use access::{CreatedToken, SessionList, SignInLink, TokenList};
pub(crate) use activation::{
    QueuedTasks, RemovalList, RunList, Size, SizeList, SyncList, Task, TaskDetail, TaskList,
};
pub(crate) use alerts::{Alert, AlertList, DeliveryList, Receiver, TestAnswers};
pub(crate) use audiences::{
    Audience, AudienceList, CancelledRefresh, History, LookupAnswer, QueuedRefresh, Refresh,
};
pub(crate) use budgets::{BudgetDetail, BudgetList, Decision, Quarantine};
pub(crate) use error::{ErrorDetail, error_of, problems_of};
pub(crate) use sources::{Refusal, SkippedFile, SourceList};
pub(crate) use spec::{AppliedSpec, PlannedSpec};
