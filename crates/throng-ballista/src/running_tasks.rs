//! The running tasks of an executor, and the service by which the scheduler cancels them. Executors that ask for tasks
//! have no such service in Ballista: a cancelled query would continue to its end.

use std::collections::HashMap;
use std::sync::Arc;

use ballista_core::serde::protobuf::executor_grpc_server::ExecutorGrpc;
use ballista_core::serde::protobuf::{
    CancelTasksParams, CancelTasksResult, LaunchMultiTaskParams, LaunchMultiTaskResult,
    LaunchTaskParams, LaunchTaskResult, RemoveJobDataParams, RemoveJobDataResult,
    StopExecutorParams, StopExecutorResult,
};
use futures::future::AbortHandle;
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

/// Job, stage and number of a task.
pub(crate) type TaskName = (String, usize, usize);

/// The running tasks.
#[derive(Debug, Default)]
pub(crate) struct RunningTasks(Mutex<HashMap<TaskName, AbortHandle>>);

impl RunningTasks {
    /// Adds a task until the guard is dropped.
    pub(crate) fn add(self: &Arc<Self>, name: TaskName, handle: AbortHandle) -> RunningTask {
        self.0.lock().insert(name.clone(), handle);
        RunningTask { tasks: Arc::clone(self), name }
    }

    /// Ends a task, if it is running.
    fn cancel(&self, name: &TaskName) -> bool {
        let tasks = self.0.lock();
        let task = tasks.get(name);
        task.inspect(|handle| handle.abort()).is_some()
    }
}

/// A task that is running.
#[derive(Debug)]
pub(crate) struct RunningTask {
    tasks: Arc<RunningTasks>,
    name: TaskName,
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        self.tasks.0.lock().remove(&self.name);
    }
}

/// The service.
#[derive(Debug)]
pub(crate) struct TaskControl(pub(crate) Arc<RunningTasks>);

#[tonic::async_trait]
impl ExecutorGrpc for TaskControl {
    async fn cancel_tasks(
        &self,
        request: Request<CancelTasksParams>,
    ) -> Result<Response<CancelTasksResult>, Status> {
        let mut cancelled = true;
        for task in request.into_inner().task_infos {
            let name = (task.job_id, task.stage_id as usize, task.task_id as usize);
            cancelled &= self.0.cancel(&name);
        }
        Ok(Response::new(CancelTasksResult { cancelled }))
    }

    async fn launch_task(
        &self,
        _: Request<LaunchTaskParams>,
    ) -> Result<Response<LaunchTaskResult>, Status> {
        Err(Status::unimplemented("this executor asks for its tasks"))
    }

    async fn launch_multi_task(
        &self,
        _: Request<LaunchMultiTaskParams>,
    ) -> Result<Response<LaunchMultiTaskResult>, Status> {
        Err(Status::unimplemented("this executor asks for its tasks"))
    }

    async fn stop_executor(
        &self,
        _: Request<StopExecutorParams>,
    ) -> Result<Response<StopExecutorResult>, Status> {
        Err(Status::unimplemented("this executor ends at SIGTERM"))
    }

    async fn remove_job_data(
        &self,
        _: Request<RemoveJobDataParams>,
    ) -> Result<Response<RemoveJobDataResult>, Status> {
        Err(Status::unimplemented("this executor asks which data to remove"))
    }
}

#[cfg(test)]
mod tests {
    use futures::future::abortable;

    use super::*;

    #[tokio::test]
    async fn a_task_that_is_cancelled_ends_and_others_do_not() {
        let tasks = Arc::new(RunningTasks::default());
        let (endless, handle) = abortable(std::future::pending::<()>());
        let running = tasks.add(("j".to_owned(), 1, 2), handle);
        assert!(!tasks.cancel(&("j".to_owned(), 1, 3)));
        assert!(tasks.cancel(&("j".to_owned(), 1, 2)));
        assert!(endless.await.is_err());
        drop(running);
        assert!(!tasks.cancel(&("j".to_owned(), 1, 2)));
    }
}
