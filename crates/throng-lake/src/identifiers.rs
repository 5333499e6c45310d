//! Identifiers of users, on their way to the worker that normalises and hashes them.

use std::pin::Pin;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::record_batch::RecordBatch;
use futures::{Stream, StreamExt};
use throng_model::{Personal, UserKey};

use crate::keys::{keys, kind_of};
use crate::{Lake, LakeError};

/// A user's key and the wanted columns; NULL cells are `None`.
pub type IdentifierRow = (UserKey, Vec<Option<Personal>>);

/// Batches of rows, in no order. A batch is dropped as soon as the worker has hashed it.
pub type IdentifierStream =
    Pin<Box<dyn Stream<Item = Result<Vec<IdentifierRow>, LakeError>> + Send>>;

impl Lake {
    /// Plans an identifier query without running it.
    ///
    /// # Errors
    /// [`LakeError::Sql`] with a position, [`LakeError::Key`] if a column is missing.
    pub async fn check_identifiers(
        &self,
        sql: &str,
        key: &str,
        columns: &[String],
    ) -> Result<(), LakeError> {
        self.identifier_columns(sql, key, columns).await.map(|_| ())
    }

    async fn identifier_columns(
        &self,
        sql: &str,
        key: &str,
        columns: &[String],
    ) -> Result<(datafusion::dataframe::DataFrame, usize, Vec<usize>), LakeError> {
        let frame = self.select(sql, None).await?;
        let there: Vec<String> = frame.schema().fields().iter().map(|f| f.name().clone()).collect();
        let place = |wanted: &str| {
            there.iter().position(|name| name == wanted).ok_or_else(|| LakeError::Key {
                message: format!("the query returns no column {wanted}"),
                help: format!("the columns are: {}", there.join(", ")),
            })
        };
        let at = place(key)?;
        kind_of(key, frame.schema().fields()[at].data_type())?;
        let cells = columns.iter().map(|c| place(c)).collect::<Result<_, _>>()?;
        Ok((frame, at, cells))
    }

    /// Streams `key` and `columns` of a query. Rows whose key is NULL are left out.
    ///
    /// # Errors
    /// As [`Lake::check_identifiers`]; errors of the running query come in the stream.
    pub async fn identifiers(
        &self,
        sql: &str,
        key: &str,
        columns: &[String],
    ) -> Result<IdentifierStream, LakeError> {
        let (frame, at, cells) = self.identifier_columns(sql, key, columns).await?;
        let doing = "reading identifiers";
        let stream = frame.execute_stream().await.map_err(|e| LakeError::engine(doing, e))?;
        Ok(Box::pin(
            stream.map(move |batch| {
                rows(&batch.map_err(|e| LakeError::engine(doing, e))?, at, &cells)
            }),
        ))
    }
}

fn rows(batch: &RecordBatch, at: usize, cells: &[usize]) -> Result<Vec<IdentifierRow>, LakeError> {
    let texts = cells
        .iter()
        .map(|cell| {
            cast(batch.column(*cell), &DataType::Utf8)
                .map_err(|e| LakeError::engine("writing identifiers as text", e.into()))
        })
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    let keys = keys(batch.column(at))?;
    Ok(keys
        .into_iter()
        .enumerate()
        .filter_map(|(row, key)| {
            let cells = texts
                .iter()
                .map(|text| {
                    (!text.is_null(row)).then(|| Personal::new(text.as_string::<i32>().value(row)))
                })
                .collect();
            Some((key?, cells))
        })
        .collect())
}
