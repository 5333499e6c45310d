//! The requests and responses of the HTTP API, with their OpenAPI schemas. The server, the command line,
//! benchmarks and simulators share them, so that a field exists once.
//!
//! Times are microseconds since 1970-01-01T00:00:00Z, amounts of money are micros of a currency unit. A
//! request with a field or a parameter that is not known is refused. A response may get more fields in a later
//! version, so a client ignores those that it does not know.

mod access;
mod alerts;
mod audiences;
mod budget_report;
mod budgets;
mod bulk;
mod decisions;
mod description;
mod error;
mod events;
mod feed;
mod history;
mod ingest;
mod lists;
mod membership;
mod names;
mod node;
mod query;
mod rates;
mod runs;
mod sources;
mod spec;
mod stores;
mod syncs;
#[cfg(test)]
mod tests;

pub use access::{
    CreateToken, SessionEnded, SessionList, SessionSummary, SignInLink, TokenCreated, TokenList,
    TokenRevoked, TokenSummary,
};
pub use alerts::{
    AlertDelivery, AlertDeliveryList, AlertDeliveryState, AlertEventName, AlertItem, AlertList,
    AlertReceiver, AlertSeverity, AlertTest, AlertTestAnswer, AlertTestAnswers, PageQuery,
    next_try,
};
pub use audiences::{
    AudienceDetail, AudienceList, AudienceRefresh, AudienceRefreshProgress, AudienceRefreshState,
    AudienceRefreshTrigger, AudienceSnapshot, AudienceSnapshotState, AudienceSummary, CancelQuery,
    RefreshCancelled, RefreshQuery, RefreshQueued, SnapshotVersion,
};
pub use budget_report::{
    BudgetReport, BudgetReportFormat, BudgetReportLine, BudgetReportQuery, GivenAwayByCause,
};
pub use budgets::{
    BudgetDetail, BudgetInterval, BudgetList, BudgetOfDay, BudgetPoint, BudgetState,
};
pub use bulk::{
    BULK_ROWS, BulkAnswer, BulkOffer, BulkOperation, BulkRefusal, BulkReport, BulkRequest,
};
pub use decisions::{
    DecideRequest, DecisionMade, DecisionRefusal, LookupRequest, LookupResult, MAX_CANDIDATES,
    UserAudiences, candidates, refusals,
};
pub use description::{BearerToken, CommonErrors};
pub use error::{ErrorBody, ErrorCode, ErrorDetail, SpecProblem, body_of};
pub use events::{
    EventRejected, EventsAccepted, QuarantineByPartition, QuarantineOfPartition, QuarantineRecord,
};
pub use feed::{
    AdGroupCatalog, AdGroupEntry, AdGroupWhenStale, AppliedVersions, DEPLOYMENT_HEADER, FeedQuery,
    GATE_ID_RULE, GateApplied, GateList, GateNoted, GatePartition, is_gate_id,
};
pub use history::{History, HistoryItem};
pub use ingest::{IngestFault, IngestQuery, IngestReport, IngestTotals};
pub use lists::{
    ALERT_SORTS, ALERT_STATES, AUDIENCE_SORTS, AUDIENCE_STATES, ListQuery, MAX_LIST_ROWS,
    REJECTED_RUNS, RUN_STATES, SYNC_SORTS, SYNC_STATES, TASK_STATES, WORK_SORTS, escaped,
    has_empty_name, push_escaped,
};
pub use membership::{PublishedDictionary, PublishedMembership, PublishedSnapshot};
pub use node::{
    Description, NodeHealth, NodeImpact, NodeList, NodeProblem, NodeSummary, Readiness,
};
pub use query::{QueryParameters, QueryProblem, check_page_query};
pub use rates::{BudgetPlacementRates, BudgetRate, BudgetRates};
pub use runs::{
    ActivationBatch, ActivationBatchState, ActivationCheck, ActivationMode, ActivationOperation,
    ActivationOutcome, ActivationReceipt, ActivationRun, ActivationRunState, ActivationTask,
    ActivationTaskProgress, ActivationTaskState, ActivationVerdict, RunList, RunsApproved,
    TaskCounts, TaskDetail, TaskList, TaskSummary, TasksEnqueued, TasksOfDestination,
};
pub use sources::{
    SourceColumn, SourceFile, SourceList, SourcePassedOver, SourceRefusal, SourceTable,
    SourceTables,
};
pub use spec::{
    CurrentSpec, SentFile, SentSpec, SpecAction, SpecChange, SpecChanged, SpecFieldChange,
    SpecModel, SpecObjectKind, SpecPlan, SpecPlanned, SpecTemplate,
};
pub use stores::{
    RewriteStore, StoreAudience, StoreCheckFound, StoreHashSeed, StoreList, StoreRewrite,
    StoreSummary, StoreWriteList, StoreWriteReceipt, StoreWriteState,
};
pub use syncs::{
    NO_MEMBERS, RemovalList, RunRefused, RunRequested, RunSync, RunsRequested, SyncList, SyncNamed,
    SyncRemoval, SyncRemovalRule, SyncSize, SyncSizes, SyncSummary,
};
