//! The scheduler's service, with less than Ballista's: clients send plans that are ready, and a query whose client has
//! gone is cancelled.

use std::pin::Pin;
use std::task::{Context, Poll};

use ballista_core::JobId;
use ballista_core::serde::protobuf::execute_query_params::Query;
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpc;
use ballista_core::serde::protobuf::{
    CancelJobParams, CancelJobResult, CleanJobDataParams, CleanJobDataResult,
    CreateUpdateSessionParams, CreateUpdateSessionResult, ExecuteQueryParams, ExecuteQueryResult,
    ExecutorStoppedParams, ExecutorStoppedResult, GetJobMetricsParams, GetJobMetricsResult,
    GetJobStatusParams, GetJobStatusResult, HeartBeatParams, HeartBeatResult, PollWorkParams,
    PollWorkResult, RegisterExecutorParams, RegisterExecutorResult, RemoveSessionParams,
    RemoveSessionResult, UpdateTaskStatusParams, UpdateTaskStatusResult, job_status,
};
use ballista_scheduler::scheduler_server::SchedulerServer;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status};

/// Ballista's scheduler.
pub(crate) type Server = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;
type Answer<T> = Result<Response<T>, Status>;
type States = Pin<Box<dyn Stream<Item = Result<GetJobStatusResult, Status>> + Send>>;

/// The service.
#[derive(Clone)]
pub(crate) struct Guarded(pub(crate) Server);

/// The answer to calls that no process of ours makes.
fn closed<T>(call: &str) -> Answer<T> {
    Err(Status::unimplemented(format!("{call} is not served")))
}

#[tonic::async_trait]
impl SchedulerGrpc for Guarded {
    type ExecuteQueryPushStream = States;

    /// A logical plan is refused: it could name tables of the scheduler.
    async fn execute_query_push(&self, request: Request<ExecuteQueryParams>) -> Answer<States> {
        if !matches!(request.get_ref().query, Some(Query::PhysicalPlan(_))) {
            return Err(Status::permission_denied("only physical plans are taken"));
        }
        let answer = SchedulerGrpc::execute_query_push(&self.0, request).await?;
        let scheduler = self.0.clone();
        Ok(answer.map(|states| Box::pin(Watched::new(states, scheduler)) as States))
    }

    async fn execute_query(&self, _: Request<ExecuteQueryParams>) -> Answer<ExecuteQueryResult> {
        closed("execute_query")
    }

    async fn get_job_metrics(
        &self,
        _: Request<GetJobMetricsParams>,
    ) -> Answer<GetJobMetricsResult> {
        closed("get_job_metrics")
    }

    async fn create_update_session(
        &self,
        _: Request<CreateUpdateSessionParams>,
    ) -> Answer<CreateUpdateSessionResult> {
        closed("create_update_session")
    }

    async fn remove_session(&self, _: Request<RemoveSessionParams>) -> Answer<RemoveSessionResult> {
        closed("remove_session")
    }

    async fn get_job_status(
        &self,
        request: Request<GetJobStatusParams>,
    ) -> Answer<GetJobStatusResult> {
        SchedulerGrpc::get_job_status(&self.0, request).await
    }

    async fn cancel_job(&self, request: Request<CancelJobParams>) -> Answer<CancelJobResult> {
        SchedulerGrpc::cancel_job(&self.0, request).await
    }

    async fn clean_job_data(
        &self,
        request: Request<CleanJobDataParams>,
    ) -> Answer<CleanJobDataResult> {
        SchedulerGrpc::clean_job_data(&self.0, request).await
    }

    async fn poll_work(&self, request: Request<PollWorkParams>) -> Answer<PollWorkResult> {
        SchedulerGrpc::poll_work(&self.0, request).await
    }

    async fn register_executor(
        &self,
        request: Request<RegisterExecutorParams>,
    ) -> Answer<RegisterExecutorResult> {
        SchedulerGrpc::register_executor(&self.0, request).await
    }

    async fn heart_beat_from_executor(
        &self,
        request: Request<HeartBeatParams>,
    ) -> Answer<HeartBeatResult> {
        SchedulerGrpc::heart_beat_from_executor(&self.0, request).await
    }

    async fn update_task_status(
        &self,
        request: Request<UpdateTaskStatusParams>,
    ) -> Answer<UpdateTaskStatusResult> {
        SchedulerGrpc::update_task_status(&self.0, request).await
    }

    async fn executor_stopped(
        &self,
        request: Request<ExecutorStoppedParams>,
    ) -> Answer<ExecutorStoppedResult> {
        SchedulerGrpc::executor_stopped(&self.0, request).await
    }
}

/// The states of a job on their way to its client. When they are dropped before the job has ended, the client has
/// gone: it was killed, or its connection broke.
struct Watched {
    states: Option<States>,
    job: Option<JobId>,
    has_ended: bool,
    scheduler: Server,
}

impl Watched {
    fn new(states: States, scheduler: Server) -> Self {
        Self { states: Some(states), job: None, has_ended: false, scheduler }
    }
}

impl Stream for Watched {
    type Item = Result<GetJobStatusResult, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(states) = self.states.as_mut() else { return Poll::Ready(None) };
        let polled = states.poll_next_unpin(cx);
        match &polled {
            Poll::Ready(Some(Ok(GetJobStatusResult { status: Some(job), .. }))) => {
                self.job = Some(job.job_id.clone().into());
                self.has_ended |= matches!(
                    job.status,
                    Some(job_status::Status::Failed(_) | job_status::Status::Successful(_))
                );
            }
            Poll::Ready(None) => self.has_ended = true,
            _ => {}
        }
        polled
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let (states, job, scheduler) =
            (self.states.take(), self.job.take(), self.scheduler.clone());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let job = match (job, states) {
                (Some(job), _) => job,
                // The name of the job comes with its first state.
                (None, Some(mut states)) => match states.next().await {
                    Some(Ok(GetJobStatusResult { status: Some(first), .. })) => first.job_id.into(),
                    _ => return,
                },
                (None, None) => return,
            };
            tracing::info!(%job, "cancelling a query whose client has gone");
            if let Err(error) = scheduler.cancel_job(job).await {
                tracing::warn!(%error, "failed to cancel a query");
            }
        });
    }
}
