//! Identifiers of users: read, normalized and hashed in the query worker; only hashes leave it.

use std::pin::Pin;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::dataframe::DataFrame;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use throng_model::{HashSeed, Personal, UserHash};
use throng_query::keys::IdentifierBatch;
use throng_query::model::{TableFacts, column_index};
use throng_tables::{
    compared_columns, is_written, listed_column, refuse_other_texts, unapplied_length,
};

use crate::conversions::explained;
use crate::doubts;
use crate::engine::Engine;
use crate::facts::facts;
use crate::keys::{as_text, for_each_key, key_column, kind_of};
use crate::select::run_sample;
use crate::session::Opened;
use crate::{HashedRow, LakeError, RowHasher};

/// An identifier query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentifierQuery {
    /// The SQL.
    pub sql: String,
    /// The column with the user's key.
    pub key: String,
    /// The columns with identifiers, in the order of the hasher's cells.
    pub columns: Vec<String>,
    /// The settings from which the worker's [`Hashers`](crate::Hashers) make a hasher. The program
    /// that writes them reads them, so they have no stable format.
    pub hasher: serde_json::Value,
}

/// Batches of rows, in no order. Dropping it kills the query.
pub type IdentifierStream = Pin<Box<dyn Stream<Item = Result<Vec<HashedRow>, LakeError>> + Send>>;

impl Engine {
    /// Plans an identifier query and runs it over the first rows of each file. Returns what is doubtful about them.
    pub(crate) async fn check_identifiers(
        &self,
        sql: &str,
        key: &str,
        columns: &[String],
    ) -> Result<Vec<String>, LakeError> {
        let found = self.identifier_columns(sql, key, columns).await?;
        let (plan, names) = (found.frame.logical_plan(), found.names());
        let user = plan.schema().fields()[found.user.at].name();
        let mut doubts = doubts::of_query(&found.opened.tables, plan, &names, user);
        doubts.extend(unapplied_length(sql));
        doubts.extend(found.cells.iter().filter_map(|cell| {
            let field = plan.schema().field(cell.at);
            let is_bytes = matches!(
                field.data_type(),
                DataType::Binary | DataType::LargeBinary | DataType::BinaryView
            );
            let name = listed_column(field.name(), &found.opened.tables);
            is_bytes.then(|| {
                format!(
                    "the column {name} has bytes, which are used as text, or as a SHA-256, and refused where they are \
                     neither, while keys of bytes are hexadecimal: write encode({name}, 'hex') to use them as keys are, or \
                     CAST({name} AS VARCHAR) if they are text"
                )
            })
        }));
        let (frame, opened) = self.sample(sql, &[]).await?;
        run_sample(&frame, &opened).await?;
        Ok(doubts)
    }

    async fn identifier_columns(
        &self,
        sql: &str,
        key: &str,
        columns: &[String],
    ) -> Result<Columns, LakeError> {
        let (frame, opened) = self.select(sql, &[], None).await?;
        let there: Vec<String> = frame.schema().fields().iter().map(|f| f.name().clone()).collect();
        let shown: Vec<_> = there.iter().map(|name| listed_column(name, &opened.tables)).collect();
        let place = |wanted: &str| {
            column_index(wanted, there.iter().map(String::as_str)).ok_or_else(|| LakeError::Key {
                message: format!("the query returns no column {wanted}"),
                help: format!("the columns are: {}", shown.join(", ")),
            })
        };
        let at = place(key)?;
        let column = |at: usize| {
            let written = is_written(&frame.schema().fields()[at]).map(str::to_owned);
            CellColumn { at, written }
        };
        let user = column(at);
        if user.written.is_none() {
            kind_of(key, frame.schema().fields()[at].data_type())?;
        }
        let cells = columns.iter().map(|c| place(c).map(column));
        let cells = cells.collect::<Result<Vec<CellColumn>, _>>()?;
        for cell in &cells {
            let of = frame.schema().fields()[cell.at].data_type();
            if of.is_nested() {
                return Err(nested(&shown[cell.at], of));
            }
        }
        let used = std::iter::once(&user).chain(&cells);
        used.map(|cell| cell.at)
            .try_for_each(|at| refuse_other_texts(frame.logical_plan(), at, &opened.tables))?;
        if let Some(refusal) = compared_columns(frame.logical_plan(), &opened.tables).refusal {
            return Err(refusal.into());
        }
        Ok(Columns { frame, opened, user, cells })
    }

    /// Runs an identifier query and passes the hasher's output to `sink`: its tables when the query is planned, then
    /// the rows as they arrive. Rows without a key are left out. Tables that have changed since those that were
    /// `delivered` are refused.
    pub(crate) async fn identifiers(
        &self,
        query: &IdentifierQuery,
        delivered: &[Vec<TableFacts>],
        seed: HashSeed,
        hasher: &mut dyn RowHasher,
        sink: &mut (dyn FnMut(IdentifierBatch) -> std::io::Result<()> + Send),
    ) -> Result<(), LakeError> {
        let found = self.identifier_columns(&query.sql, &query.key, &query.columns).await?;
        let plan = found.frame.logical_plan();
        let tables = facts(plan, &found.opened.tables, &found.names());
        for before in delivered {
            self.check_unchanged(before, &tables, &found.opened).await?;
        }
        let Columns { frame, opened, user, cells } = found;
        let doing = "reading identifiers";
        let explained = |e| explained(LakeError::engine(doing, e), &frame, &opened);
        let mut stream = frame.clone().execute_stream().await.map_err(explained)?;
        sink(IdentifierBatch::Tables(tables)).map_err(|e| LakeError::Sink(e.into()))?;
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(explained)?;
            let rows = rows(&batch, &user, &cells, seed, hasher)?;
            if !rows.is_empty() {
                sink(IdentifierBatch::Rows(rows)).map_err(|e| LakeError::Sink(e.into()))?;
            }
        }
        opened.compare_files()?;
        Ok(())
    }
}

/// The columns of an identifier query.
struct Columns {
    frame: DataFrame,
    opened: Opened,
    user: CellColumn,
    cells: Vec<CellColumn>,
}

impl Columns {
    /// The names of the columns that are used.
    fn names(&self) -> Vec<&str> {
        let fields = self.frame.schema().fields();
        let used = std::iter::once(&self.user).chain(&self.cells);
        used.map(|cell| fields[cell.at].name().as_str()).collect()
    }
}

/// The error of a column of lists or of structs: as text they have brackets, and the names of fields.
fn nested(column: &str, of: &DataType) -> LakeError {
    LakeError::Key {
        message: format!("the column {column} is of type {of}, which is not an identifier"),
        help: format!(
            "return one value: of a list {column}[1], or unnest({column}) for a row of each value; of a struct \
             {column}['field']"
        ),
    }
}

/// A column of the result.
struct CellColumn {
    at: usize,
    /// How the files write it, if the engine would write it differently.
    written: Option<String>,
}

fn rows(
    batch: &RecordBatch,
    user: &CellColumn,
    cells: &[CellColumn],
    seed: HashSeed,
    hasher: &mut dyn RowHasher,
) -> Result<Vec<HashedRow>, LakeError> {
    let texts = cells
        .iter()
        .map(|cell| as_text(batch.column(cell.at), cell.written.as_deref()))
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    let mut users = Vec::with_capacity(batch.num_rows());
    for_each_key(&key_column(batch.column(user.at), user.written.as_deref())?, &mut |key| {
        users.push(key.map(|bytes| UserHash::of_canonical(bytes, seed)));
    })?;
    let mut rows = Vec::with_capacity(users.len());
    for (row, user) in users.into_iter().enumerate() {
        let Some(user) = user else { continue };
        let cells: Vec<Option<Personal>> = texts
            .iter()
            .map(|text| {
                (!text.is_null(row)).then(|| Personal::new(text.as_string_view().value(row)))
            })
            .collect();
        let mut hashed = Vec::new();
        hasher.hash(&cells, &mut hashed);
        rows.push((user, hashed.into()));
    }
    Ok(rows)
}
