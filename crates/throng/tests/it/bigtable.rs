//! A table of the Bigtable emulator: created as an operator does, and read by row key as an ad server does.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// The audiences of each user who has a row, by row key.
pub(crate) type Rows = BTreeMap<String, BTreeSet<String>>;

/// The full name of the instance.
const INSTANCE: &str = "projects/app-prod/instances/serving";
/// Row keys of a request.
const KEYS: usize = 500;

/// `google.bigtable.admin.v2.CreateTableRequest`.
#[derive(Clone, PartialEq, Message)]
struct CreateTableRequest {
    #[prost(string, tag = "1")]
    parent: String,
    #[prost(string, tag = "2")]
    table_id: String,
    #[prost(message, optional, tag = "3")]
    table: Option<Definition>,
}

/// `google.bigtable.admin.v2.Table`.
#[derive(Clone, PartialEq, Message)]
struct Definition {
    #[prost(map = "string, message", tag = "3")]
    column_families: HashMap<String, Empty>,
}

/// A message none of whose fields is used.
#[derive(Clone, PartialEq, Message)]
struct Empty {}

/// `google.bigtable.v2.ReadRowsRequest`.
#[derive(Clone, PartialEq, Message)]
struct ReadRowsRequest {
    #[prost(string, tag = "1")]
    table_name: String,
    /// Without it, all rows are read.
    #[prost(message, optional, tag = "2")]
    rows: Option<RowSet>,
}

/// `google.bigtable.v2.RowSet`.
#[derive(Clone, PartialEq, Message)]
struct RowSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    row_keys: Vec<Vec<u8>>,
}

/// `google.bigtable.v2.ReadRowsResponse`.
#[derive(Clone, PartialEq, Message)]
struct ReadRowsResponse {
    #[prost(message, repeated, tag = "1")]
    chunks: Vec<CellChunk>,
}

/// `google.bigtable.v2.ReadRowsResponse.CellChunk`. The emulator repeats key and column in each.
#[derive(Clone, PartialEq, Message)]
struct CellChunk {
    #[prost(bytes = "vec", tag = "1")]
    row_key: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    qualifier: Option<BytesValue>,
}

/// `google.protobuf.BytesValue`.
#[derive(Clone, PartialEq, Message)]
struct BytesValue {
    #[prost(bytes = "vec", tag = "1")]
    value: Vec<u8>,
}

/// A table of the project `app-prod` and the instance `serving`.
pub(crate) struct Table {
    grpc: Grpc<Channel>,
    id: String,
}

impl Table {
    /// Creates a table with the column family `audiences`.
    pub(crate) async fn create(url: &str, id: &str) -> Self {
        // With the default of 5 MiB the library closes a connection with 12,000 small frames that are not read yet.
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
        let endpoint = endpoint.initial_connection_window_size(64 << 20);
        let grpc = Grpc::new(endpoint.connect().await.expect("connected"));
        let mut table = Self { grpc, id: id.to_owned() };
        let column_families = HashMap::from([("audiences".to_owned(), Empty {})]);
        let request = CreateTableRequest {
            parent: INSTANCE.to_owned(),
            table_id: id.to_owned(),
            table: Some(Definition { column_families }),
        };
        table.call_create(request).await.expect("created");
        table
    }

    async fn call_create(&mut self, request: CreateTableRequest) -> Result<(), Status> {
        self.grpc.ready().await.expect("ready");
        let path = "/google.bigtable.admin.v2.BigtableTableAdmin/CreateTable";
        let codec = ProstCodec::<CreateTableRequest, Empty>::default();
        let request = Request::new(request);
        self.grpc.unary(request, PathAndQuery::from_static(path), codec).await.map(|_| ())
    }

    /// The rows with these keys.
    pub(crate) async fn rows_of(&mut self, keys: &[String]) -> Rows {
        let mut found = Rows::new();
        for keys in keys.chunks(KEYS) {
            let row_keys = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
            found.extend(self.read(Some(RowSet { row_keys })).await);
        }
        found
    }

    /// All rows.
    pub(crate) async fn all(&mut self) -> Rows {
        self.read(None).await
    }

    async fn read(&mut self, rows: Option<RowSet>) -> Rows {
        self.grpc.ready().await.expect("ready");
        let table_name = format!("{}/tables/{}", INSTANCE, self.id);
        let request = Request::new(ReadRowsRequest { table_name, rows });
        let path = PathAndQuery::from_static("/google.bigtable.v2.Bigtable/ReadRows");
        let codec = ProstCodec::<ReadRowsRequest, ReadRowsResponse>::default();
        let answer = self.grpc.server_streaming(request, path, codec).await;
        let mut answer = answer.expect("answered").into_inner();
        let mut found = Rows::new();
        while let Some(message) = answer.message().await.expect("read") {
            for CellChunk { row_key, qualifier } in message.chunks {
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
                let (user, audience) =
                    (text(row_key), text(qualifier.expect("the emulator repeats it").value));
                assert!(found.entry(user).or_default().insert(audience), "a member has two cells");
            }
        }
        found
    }
}
