//! An executor: asks the scheduler for tasks, runs them, and gives their output to other executors.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use ballista_core::ConfigProducer;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::error::BallistaError;
use ballista_core::extension::SessionConfigExt;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::serde::protobuf::executor_grpc_server::ExecutorGrpcServer;
use ballista_core::utils::GrpcServerConfig;
use ballista_executor::ArrowFlightServerProvider;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_executor::flight_service::BallistaFlightService;
use ballista_executor::shutdown::Shutdown;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionConfig;
use parking_lot::Mutex;
use throng_lake::ClusterTls;
use throng_source_copies::ObjectCache;
use throng_tables::with_checked_integers;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::checked_stage::CheckedEngine;
use crate::codec::TableCodec;
use crate::running_tasks::{RunningTasks, TaskControl};
use crate::tls::{check_exposed, endpoints, server};
use crate::{ClusterError, MAX_MESSAGE_BYTES};

/// How often output of queries that nobody removed is looked for, and at which age it is removed, in seconds.
const CLEAN_UP: (u64, u64) = (600, 86_400);
/// The least memory of a core: sorts reserve some of it for their merge.
const MIN_CORE_BYTES: u64 = 256 << 20;

/// Options of an executor.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// Host and port of the scheduler; the executor waits until it can be reached.
    pub scheduler: (String, u16),
    /// Where it listens for other executors and the scheduler.
    pub listen: SocketAddr,
    /// The host by which they reach it; `None`: that of `listen`.
    pub host: Option<String>,
    /// `None`: on this machine only.
    pub tls: Option<ClusterTls>,
    /// Where it writes the output of its tasks and spills.
    pub work_dir: PathBuf,
    /// Tasks' memory that can be spilled, in bytes, for all tasks together.
    pub memory_bytes: u64,
    /// Partitions that it works on side by side.
    pub cores: usize,
    /// The objects of buckets that it reads; `None`: it reads none.
    pub objects: Option<Arc<ObjectCache>>,
}

/// Runs an executor until SIGTERM or SIGINT: then it ends its tasks first. Calls `listening` with its address when it
/// takes connections.
///
/// # Errors
/// [`ClusterError`] if the options do not fit each other, or it cannot listen or write.
pub async fn run_executor(
    options: ExecutorOptions,
    listening: impl FnOnce(SocketAddr) + Send,
) -> Result<(), ClusterError> {
    check_exposed(options.listen, options.tls.as_ref())?;
    let cores = options.cores.max(1);
    if options.memory_bytes / (cores as u64) < MIN_CORE_BYTES {
        let least = MIN_CORE_BYTES >> 20;
        return Err(ClusterError::Options(format!(
            "an executor needs {least} MiB of memory for each core: raise --memory or lower --cores"
        )));
    }
    if options.listen.ip().is_unspecified() && options.host.is_none() {
        return Err(ClusterError::Options(
            "an executor that listens on all addresses needs --host, by which others reach it"
                .to_owned(),
        ));
    }
    let work_dir = options.work_dir.to_str().map(str::to_owned).ok_or_else(|| {
        ClusterError::Options("the name of the work folder is not UTF-8".to_owned())
    })?;
    let listener = TcpListener::bind(options.listen).await;
    let listener =
        listener.map_err(ClusterError::system(format!("listen on {}", options.listen)))?;
    let address = listener.local_addr().map_err(ClusterError::system("read its own address"))?;
    let endpoints = endpoints(options.tls.as_ref());
    let for_tasks = Arc::clone(&endpoints);
    let config: ConfigProducer = Arc::new(move || {
        SessionConfig::new_with_ballista()
            .with_ballista_override_create_grpc_client_endpoint(Arc::clone(&for_tasks))
    });
    // With all functions of a session, also those on arrays.
    let session = SessionStateBuilder::new().with_default_features();
    let functions = BallistaFunctionRegistry::from(&with_checked_integers(session).build());
    let (scheduler_host, scheduler_port) = options.scheduler;
    let tasks = Arc::new(RunningTasks::default());
    let own_host = options.host.unwrap_or_else(|| host_of(address.ip()));
    let executor = ExecutorProcessConfig {
        bind_host: host_of(address.ip()),
        external_host: Some(own_host),
        port: address.port(),
        // The same port: the scheduler cancels tasks there.
        grpc_port: address.port(),
        scheduler_host,
        scheduler_port,
        // Tried until it succeeds.
        scheduler_connect_timeout_seconds: 60,
        vcores: cores,
        task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
        work_dir: Some(work_dir),
        job_data_clean_up_interval_seconds: CLEAN_UP.0,
        job_data_ttl_seconds: CLEAN_UP.1,
        grpc_max_decoding_message_size: MAX_MESSAGE_BYTES,
        grpc_max_encoding_message_size: MAX_MESSAGE_BYTES,
        memory_pool_size: Some(options.memory_bytes),
        override_execution_engine: Some(Arc::new(CheckedEngine::new(
            Arc::clone(&tasks),
            options.objects,
        ))),
        override_function_registry: Some(Arc::new(functions)),
        override_config_producer: Some(config),
        override_physical_codec: Some(Arc::new(TableCodec::default())),
        override_arrow_flight_service: Some(services(listener, options.tls, tasks)),
        override_create_grpc_client_endpoint: Some(endpoints),
        ..ExecutorProcessConfig::default()
    };
    listening(address);
    start_executor_process(Arc::new(executor)).await.map_err(ClusterError::engine)
}

/// A host in URLs.
fn host_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Serves the output of tasks, and takes cancellations, on a port that is open already.
fn services(
    listener: TcpListener,
    tls: Option<ClusterTls>,
    tasks: Arc<RunningTasks>,
) -> Arc<ArrowFlightServerProvider> {
    let listener = Mutex::new(Some(listener));
    Arc::new(move |work_dir: String, _: SocketAddr, mut shutdown: Shutdown, _: GrpcServerConfig| {
        let listener = listener.lock().take();
        let tls = tls.as_ref().map(server);
        let control = ExecutorGrpcServer::new(TaskControl(Arc::clone(&tasks)));
        tokio::spawn(async move {
            let Some(listener) = listener else {
                return Err(BallistaError::General("the port is taken".to_owned()));
            };
            let mut builder = Server::builder().tcp_nodelay(true);
            if let Some(tls) = tls {
                builder = builder.tls_config(tls)?;
            }
            let size = MAX_MESSAGE_BYTES as usize;
            let output = FlightServiceServer::new(BallistaFlightService::new(work_dir))
                .max_decoding_message_size(size)
                .max_encoding_message_size(size);
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let served = builder.add_service(output).add_service(control);
            served.serve_with_incoming_shutdown(incoming, shutdown.recv()).await?;
            Ok(())
        })
    })
}
