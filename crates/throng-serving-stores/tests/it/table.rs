//! A table of the Bigtable emulator, as its operator and an ad server use it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use http::uri::PathAndQuery;
use prost::Message;
use throng_model::AudienceName;
use throng_spec::BigtableSettings;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

const ADMIN: &str = "google.bigtable.admin.v2.BigtableTableAdmin";

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

/// `google.bigtable.admin.v2.DropRowRangeRequest`.
#[derive(Clone, PartialEq, Message)]
struct DropRowRangeRequest {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "3")]
    delete_all_data_from_table: bool,
}

/// `google.bigtable.v2.ReadRowsRequest`.
#[derive(Clone, PartialEq, Message)]
struct ReadRowsRequest {
    #[prost(string, tag = "1")]
    table_name: String,
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
    #[prost(bytes = "vec", tag = "6")]
    value: Vec<u8>,
}

/// `google.protobuf.BytesValue`.
#[derive(Clone, PartialEq, Message)]
struct BytesValue {
    #[prost(bytes = "vec", tag = "1")]
    value: Vec<u8>,
}

/// `google.bigtable.v2.MutateRowRequest`, which sets or deletes one cell.
#[derive(Clone, PartialEq, Message)]
struct MutateRowRequest {
    #[prost(string, tag = "1")]
    table_name: String,
    #[prost(bytes = "vec", tag = "2")]
    row_key: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    mutations: Vec<Mutation>,
}

/// `google.bigtable.v2.Mutation`.
#[derive(Clone, PartialEq, Message)]
struct Mutation {
    #[prost(message, optional, tag = "1")]
    set_cell: Option<SetCell>,
}

/// `google.bigtable.v2.Mutation.SetCell`.
#[derive(Clone, PartialEq, Message)]
struct SetCell {
    #[prost(string, tag = "1")]
    family_name: String,
    #[prost(bytes = "vec", tag = "2")]
    column_qualifier: Vec<u8>,
}

pub(crate) struct Table {
    grpc: Grpc<Channel>,
    settings: BigtableSettings,
}

impl Table {
    pub(crate) async fn open(settings: &BigtableSettings) -> Self {
        // The emulator sends a frame a row, and the library closes a connection with too many small frames that are
        // not read yet: half of the window in units of 256 bytes.
        let endpoint = Endpoint::from_shared(settings.api_url().to_owned()).unwrap();
        let endpoint = endpoint.initial_connection_window_size(64 << 20);
        let grpc = Grpc::new(endpoint.connect().await.unwrap());
        Self { grpc, settings: settings.clone() }
    }

    async fn call<Q, A>(&mut self, path: String, question: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await.unwrap();
        let (path, codec) = (PathAndQuery::try_from(path).unwrap(), ProstCodec::<Q, A>::default());
        let answer = self.grpc.unary(Request::new(question), path, codec).await?;
        Ok(answer.into_inner())
    }

    /// Creates the table if there is none.
    pub(crate) async fn create(&mut self) {
        let BigtableSettings { project, instance, table, family, .. } = self.settings.clone();
        let column_families = HashMap::from([(family, Empty {})]);
        let request = CreateTableRequest {
            parent: format!("projects/{project}/instances/{instance}"),
            table_id: table,
            table: Some(Definition { column_families }),
        };
        if let Err(status) = self.call::<_, Empty>(format!("/{ADMIN}/CreateTable"), request).await {
            assert_eq!(status.code(), Code::AlreadyExists, "{status}");
        }
    }

    /// Creates the table if there is none, and deletes all rows.
    pub(crate) async fn empty(mut self) {
        self.create().await;
        let request = DropRowRangeRequest {
            name: self.settings.table_name(),
            delete_all_data_from_table: true,
        };
        self.call::<_, Empty>(format!("/{ADMIN}/DropRowRange"), request).await.unwrap();
    }

    /// Writes a cell that Throng does not write.
    pub(crate) async fn set(&mut self, row_key: &str, column: &str) {
        let cell = SetCell {
            family_name: self.settings.family.clone(),
            column_qualifier: column.as_bytes().to_vec(),
        };
        let request = MutateRowRequest {
            table_name: self.settings.table_name(),
            row_key: row_key.as_bytes().to_vec(),
            mutations: vec![Mutation { set_cell: Some(cell) }],
        };
        let path = "/google.bigtable.v2.Bigtable/MutateRow".to_owned();
        self.call::<_, Empty>(path, request).await.unwrap();
    }

    /// The row keys by column. Each column of a row has one cell.
    pub(crate) async fn contents(mut self) -> BTreeMap<AudienceName, BTreeSet<String>> {
        self.grpc.ready().await.unwrap();
        let request = Request::new(ReadRowsRequest { table_name: self.settings.table_name() });
        let path = PathAndQuery::from_static("/google.bigtable.v2.Bigtable/ReadRows");
        let codec = ProstCodec::<ReadRowsRequest, ReadRowsResponse>::default();
        let mut answer =
            self.grpc.server_streaming(request, path, codec).await.unwrap().into_inner();
        let mut contents: BTreeMap<AudienceName, BTreeSet<String>> = BTreeMap::new();
        while let Some(message) = answer.message().await.unwrap() {
            for CellChunk { row_key, qualifier, value } in message.chunks {
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
                let (user, audience) = (text(row_key), text(qualifier.unwrap().value));
                assert_eq!(value, b"1", "{user} {audience}");
                let users = contents.entry(audience.parse().unwrap()).or_default();
                assert!(users.insert(user), "a row has two cells in {audience}");
            }
        }
        contents
    }
}
