//! The scheduler: takes queries, divides them into tasks for executors, and passes results on.

use std::net::SocketAddr;
use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::extension::BallistaConfigGrpcEndpoint;
use ballista_core::flight_proxy_service::BallistaFlightProxyService;
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpcServer;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::create_scheduler;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use throng_lake::ClusterTls;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::codec::TableCodec;
use crate::guarded::Guarded;
use crate::tls::{check_exposed, endpoints, server};
use crate::{ClusterError, MAX_MESSAGE_BYTES};

/// How often executors that have not called are looked for.
const EXPIRY_CHECK_SECS: u64 = 1;

/// Options of a scheduler.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// `None`: on this machine only.
    pub tls: Option<ClusterTls>,
    /// After this time without a sign of an executor its tasks are given to others, in seconds.
    pub executor_timeout_secs: u64,
    /// How long executors keep the result of a query after its end, in seconds: its client must have read it by then.
    pub keep_results_secs: u64,
}

/// Runs a scheduler until `end`. Calls `listening` with its address when it takes connections. Its state is in memory:
/// queries that run when it ends fail.
///
/// # Errors
/// [`ClusterError`] if the options do not fit each other, or it cannot listen.
pub async fn run_scheduler(
    options: SchedulerOptions,
    listening: impl FnOnce(SocketAddr) + Send,
    end: impl Future<Output = ()> + Send,
) -> Result<(), ClusterError> {
    check_exposed(options.listen, options.tls.as_ref())?;
    let listener = TcpListener::bind(options.listen).await;
    let listener =
        listener.map_err(ClusterError::system(format!("listen on {}", options.listen)))?;
    let address = listener.local_addr().map_err(ClusterError::system("read its own address"))?;
    let endpoints = endpoints(options.tls.as_ref());
    let size = MAX_MESSAGE_BYTES;
    let config = SchedulerConfig {
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        // Executors ask for tasks: the scheduler opens no connection to give them some.
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        executor_timeout_seconds: options.executor_timeout_secs,
        no_executors_grace_period_seconds: options.executor_timeout_secs,
        expire_dead_executor_interval_seconds: EXPIRY_CHECK_SECS,
        finished_job_data_clean_up_interval_seconds: options.keep_results_secs,
        finished_job_state_clean_up_interval_seconds: options.keep_results_secs,
        // Query workers may connect to the scheduler only.
        enable_embedded_flight_proxy: true,
        grpc_server_max_decoding_message_size: size,
        grpc_server_max_encoding_message_size: size,
        grpc_client_max_message_size: size,
        override_physical_codec: Some(Arc::new(TableCodec::default())),
        override_create_grpc_client_endpoint: Some(Arc::clone(&endpoints)),
        ..SchedulerConfig::default()
    };
    let cluster = BallistaCluster::new_from_config(&config).await.map_err(ClusterError::engine)?;
    let scheduler =
        create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(cluster, Arc::new(config));
    let scheduler = scheduler.await.map_err(ClusterError::engine)?;
    let size = size as usize;
    let results = BallistaFlightProxyService::new(
        size,
        size,
        false,
        Some(Arc::new(BallistaConfigGrpcEndpoint::new(endpoints))),
    );
    let mut builder = Server::builder().tcp_nodelay(true);
    if let Some(tls) = &options.tls {
        builder = builder.tls_config(server(tls)).map_err(ClusterError::engine)?;
    }
    let services = builder
        .add_service(
            SchedulerGrpcServer::new(Guarded(scheduler))
                .max_decoding_message_size(size)
                .max_encoding_message_size(size),
        )
        .add_service(
            FlightServiceServer::new(results)
                .max_decoding_message_size(size)
                .max_encoding_message_size(size),
        );
    listening(address);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    services.serve_with_incoming_shutdown(incoming, end).await.map_err(ClusterError::engine)
}
