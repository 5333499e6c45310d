//! Calls of Bigtable's API by gRPC, each with an access token, a deadline, and the name of the table for the servers
//! that route it.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::uri::PathAndQuery;
use prost::Message;
use throng_google::{AccessTokens, TokenError};
use throng_model::with_causes;
use throng_spec::BigtableSettings;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::messages::{
    CellChunk, MutateRowsRequest, MutateRowsResponse, MutatedRowStatus, ReadRowsRequest,
    ReadRowsResponse,
};
use super::rows::{Failure, Written};
use crate::StoreError;

/// The timeout of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The deadline of a call, which the server gets.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest message of an answer: statuses of 10,000 rows have texts of the server.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// The flow-control window of a connection. The HTTP/2 library closes a connection whose small frames that are not read
/// yet cost more than half of it, 256 bytes less the payload each, and a server may send a frame for each of 10,000
/// rows: the 5 MiB of the default end at some 12,000 frames.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
const MUTATE_ROWS: &str = "/google.bigtable.v2.Bigtable/MutateRows";
const READ_ROWS: &str = "/google.bigtable.v2.Bigtable/ReadRows";

/// The calls that are used.
#[async_trait]
pub(crate) trait Calls: Send + Sync {
    /// Writes rows.
    async fn mutate_rows(&mut self, request: MutateRowsRequest) -> Written;

    /// Reads rows.
    async fn read_rows(&mut self, request: ReadRowsRequest) -> Result<Vec<CellChunk>, Failure>;
}

/// A connection to the API.
pub(crate) struct Client {
    grpc: Grpc<Channel>,
    tokens: Option<Arc<AccessTokens>>,
    /// The names of table and application profile.
    routing: AsciiMetadataValue,
}

impl Client {
    /// Connects. `tokens`: `None` for a server that needs no access token.
    pub(crate) async fn connect(
        table: &BigtableSettings,
        tokens: Option<Arc<AccessTokens>>,
    ) -> Result<Self, StoreError> {
        let unreachable =
            |error: tonic::transport::Error| StoreError::Unreachable(with_causes(&error));
        let endpoint = Endpoint::from_shared(table.api_url().to_owned()).map_err(unreachable)?;
        let mut endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        if table.is_encrypted() {
            let tls = ClientTlsConfig::new().with_native_roots().timeout(CONNECT_TIMEOUT);
            endpoint = endpoint.tls_config(tls).map_err(unreachable)?;
        }
        let channel = tokio::time::timeout(2 * CONNECT_TIMEOUT, endpoint.connect()).await;
        let no_answer = |_| StoreError::Unreachable("no connection in time".to_owned());
        let channel = channel.map_err(no_answer)?.map_err(unreachable)?;
        let grpc = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let routing = AsciiMetadataValue::try_from(routing(table));
        let routing = routing.map_err(|_| StoreError::Other("its names are invalid".to_owned()))?;
        Ok(Self { grpc, tokens, routing })
    }

    /// Makes a call, and returns its answer from the first message on.
    async fn call<Q, A>(&mut self, path: &'static str, question: Q) -> Result<Streaming<A>, Failure>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut request = Request::new(question);
        request.set_timeout(CALL_TIMEOUT);
        request.metadata_mut().insert("x-goog-request-params", self.routing.clone());
        if let Some(tokens) = &self.tokens {
            let token = tokens.token().await.map_err(Failure::Token)?;
            let value = AsciiMetadataValue::try_from(format!("Bearer {}", token.expose()));
            let no_header = |_| TokenError::Refused("the access token is not a text".to_owned());
            let mut value = value.map_err(no_header).map_err(Failure::Token)?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Failure::Connection(with_causes(&error)))?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        match self.grpc.server_streaming(request, path, codec).await {
            Ok(answer) => Ok(Response::into_inner(answer)),
            Err(status) => Err(self.failure(status).await),
        }
    }

    /// The failure of a call. An access token that is refused is not used again.
    async fn failure(&self, status: Status) -> Failure {
        if status.code() == Code::Unauthenticated
            && let Some(tokens) = &self.tokens
        {
            tokens.forget().await;
        }
        failure_of(&status)
    }
}

#[async_trait]
impl Calls for Client {
    async fn mutate_rows(&mut self, request: MutateRowsRequest) -> Written {
        let mut written = Written::default();
        let mut answer = match self.call::<_, MutateRowsResponse>(MUTATE_ROWS, request).await {
            Ok(answer) => answer,
            Err(failure) => return Written { failure: Some(failure), ..written },
        };
        loop {
            match answer.message().await {
                Ok(Some(message)) => written.rows.extend(message.entries.into_iter().map(row)),
                Ok(None) => return written,
                Err(status) => {
                    let failure = Some(self.failure(status).await);
                    return Written { failure, ..written };
                }
            }
        }
    }

    async fn read_rows(&mut self, request: ReadRowsRequest) -> Result<Vec<CellChunk>, Failure> {
        let mut answer = self.call::<_, ReadRowsResponse>(READ_ROWS, request).await?;
        let mut chunks = Vec::new();
        loop {
            match answer.message().await {
                Ok(Some(message)) => chunks.extend(message.chunks),
                Ok(None) => return Ok(chunks),
                Err(status) => return Err(self.failure(status).await),
            }
        }
    }
}

/// The place of a row in its request, and its code. Without a status, the row is written.
fn row(of: MutatedRowStatus) -> (i64, Code) {
    (of.index, of.status.map_or(Code::Ok, |status| Code::from_i32(status.code)))
}

/// A status with a cause was made in this process: there is no answer of the server.
fn failure_of(status: &Status) -> Failure {
    match status.source() {
        Some(cause) => Failure::Connection(with_causes(cause)),
        None => Failure::Code(status.code()),
    }
}

/// The header that names the table. Names have no characters to encode, except the `:` of a project.
fn routing(table: &BigtableSettings) -> String {
    let name = table.table_name().replace('/', "%2F").replace(':', "%3A");
    format!("table_name={name}&app_profile_id={}", table.app_profile.as_deref().unwrap_or_default())
}
