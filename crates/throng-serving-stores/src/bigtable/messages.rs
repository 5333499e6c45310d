//! The messages of Bigtable that are used, with the fields that are used. Names and field numbers are those of
//! googleapis: `google/bigtable/v2/bigtable.proto` (requests and responses), `google/bigtable/v2/data.proto`
//! (mutations, row sets, filters) and `google/rpc/status.proto`. A field of a `oneof` is an optional field here,
//! which is the same on the wire.

use prost::Message;

/// `google.bigtable.v2.MutateRowsRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MutateRowsRequest {
    #[prost(string, tag = "1")]
    pub(crate) table_name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) entries: Vec<MutatedRow>,
    #[prost(string, tag = "3")]
    pub(crate) app_profile_id: String,
}

/// `google.bigtable.v2.MutateRowsRequest.Entry`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MutatedRow {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) row_key: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) mutations: Vec<Mutation>,
}

/// `google.bigtable.v2.Mutation`: exactly one of its fields is set.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Mutation {
    #[prost(message, optional, tag = "1")]
    pub(crate) set_cell: Option<SetCell>,
    #[prost(message, optional, tag = "2")]
    pub(crate) delete_from_column: Option<DeleteFromColumn>,
}

/// `google.bigtable.v2.Mutation.SetCell`. Its `timestamp_micros` (3) is 0.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SetCell {
    #[prost(string, tag = "1")]
    pub(crate) family_name: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) column_qualifier: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) value: Vec<u8>,
}

/// `google.bigtable.v2.Mutation.DeleteFromColumn`. Without a `time_range` (3) it deletes all cells of the column.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteFromColumn {
    #[prost(string, tag = "1")]
    pub(crate) family_name: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) column_qualifier: Vec<u8>,
}

/// `google.bigtable.v2.MutateRowsResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MutateRowsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) entries: Vec<MutatedRowStatus>,
}

/// `google.bigtable.v2.MutateRowsResponse.Entry`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MutatedRowStatus {
    /// The place of the row in the request, from 0.
    #[prost(int64, tag = "1")]
    pub(crate) index: i64,
    #[prost(message, optional, tag = "2")]
    pub(crate) status: Option<Status>,
}

/// `google.rpc.Status`. Its `message` (2) is not read: it may contain the key of a row.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    /// A number of `google.rpc.Code`.
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
}

/// `google.bigtable.v2.ReadRowsRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReadRowsRequest {
    #[prost(string, tag = "1")]
    pub(crate) table_name: String,
    /// Without it, all rows are read.
    #[prost(message, optional, tag = "2")]
    pub(crate) rows: Option<RowSet>,
    #[prost(message, optional, tag = "3")]
    pub(crate) filter: Option<RowFilter>,
    #[prost(string, tag = "5")]
    pub(crate) app_profile_id: String,
}

/// `google.bigtable.v2.RowSet`. Empty, it means all rows.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RowSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(crate) row_keys: Vec<Vec<u8>>,
}

/// `google.bigtable.v2.RowFilter`: exactly one of its fields is set.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RowFilter {
    #[prost(message, optional, tag = "1")]
    pub(crate) chain: Option<FilterChain>,
    #[prost(message, optional, tag = "7")]
    pub(crate) column_range_filter: Option<ColumnRange>,
    #[prost(int32, optional, tag = "12")]
    pub(crate) cells_per_column_limit_filter: Option<i32>,
    #[prost(bool, optional, tag = "13")]
    pub(crate) strip_value_transformer: Option<bool>,
}

/// `google.bigtable.v2.RowFilter.Chain`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FilterChain {
    #[prost(message, repeated, tag = "1")]
    pub(crate) filters: Vec<RowFilter>,
}

/// `google.bigtable.v2.ColumnRange`, with both ends in it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ColumnRange {
    #[prost(string, tag = "1")]
    pub(crate) family_name: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) start_qualifier_closed: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) end_qualifier_closed: Vec<u8>,
}

/// `google.bigtable.v2.ReadRowsResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReadRowsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) chunks: Vec<CellChunk>,
}

/// `google.bigtable.v2.ReadRowsResponse.CellChunk`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CellChunk {
    /// Empty: the row of the chunk before.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) row_key: Vec<u8>,
    /// The chunks of this row until now are void: it will be sent again.
    #[prost(bool, tag = "8")]
    pub(crate) reset_row: bool,
    /// The row is complete.
    #[prost(bool, tag = "9")]
    pub(crate) commit_row: bool,
}
