//! The rows of templates: values that are bound as parameters.

use std::collections::BTreeSet;

use datafusion::arrow::array::Array;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use futures::StreamExt;
use throng_spec::{ParameterValue, TemplateRows};
use throng_tables::shown_column;

use crate::engine::Engine;
use crate::error::LakeError;
use crate::session::Opened;
use crate::tuples::Kind;

/// The longest text of a value, in bytes.
const MAX_VALUE_BYTES: usize = 1024;
/// All values together: they are one message of the query worker, and a part of the stored spec.
const MAX_ROWS_BYTES: usize = 16 << 20;

impl Engine {
    /// Runs the query of a template.
    ///
    /// # Errors
    /// [`LakeError::Sql`] if there are more rows, a NULL, or a column of a type that no parameter has.
    pub(crate) async fn template_rows(
        &self,
        sql: &str,
        max_rows: u32,
    ) -> Result<TemplateRows, LakeError> {
        let doing = "reading the rows of a template";
        let (frame, opened) = self.select(sql, &[], None).await?;
        let fields = frame.schema().fields().iter();
        let kinds = fields.map(|field| kind(field, &opened)).collect::<Result<Vec<_>, _>>()?;
        let columns: Vec<String> =
            frame.schema().fields().iter().map(|field| field.name().clone()).collect();
        refuse_same_names(&columns, &opened)?;
        let max_rows = max_rows as usize;
        let frame = frame.limit(0, Some(max_rows + 1)).map_err(|e| LakeError::engine(doing, e))?;
        let mut stream = frame.execute_stream().await.map_err(|e| LakeError::engine(doing, e))?;
        let mut found = TemplateRows { columns, rows: Vec::new() };
        let mut bytes = 0;
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|e| opened.unless_changed(LakeError::engine(doing, e)))?;
            let mut arrays = Vec::with_capacity(kinds.len());
            for ((kind, column), name) in kinds.iter().zip(batch.columns()).zip(&found.columns) {
                if column.null_count() > 0 {
                    // How many follow in other batches is not known.
                    let nulls = (0..column.len()).filter(|row| column.is_null(*row)).take(5);
                    let numbers: Vec<usize> = nulls.map(|row| found.rows.len() + row + 1).collect();
                    return Err(null(&shown_column(name, &opened.tables), &numbers));
                }
                let array = cast(column, &kind.read_type())
                    .map_err(|e| LakeError::engine(doing, e.into()))?;
                arrays.push(array);
            }
            for row in 0..batch.num_rows() {
                let values: Vec<ParameterValue> =
                    kinds.iter().zip(&arrays).map(|(kind, array)| kind.value(array, row)).collect();
                bytes += values.iter().map(size).sum::<usize>();
                check_sizes(&values, &found, bytes, &opened)?;
                found.rows.push(values);
            }
            if found.rows.len() > max_rows {
                let help = "return fewer rows, or raise `max_rows` of `for_each`";
                return Err(refused(format!("the query returns more than {max_rows} rows"), help));
            }
        }
        opened.compare_files()?;
        Ok(found)
    }
}

fn refused(message: String, help: impl Into<String>) -> LakeError {
    LakeError::Sql { message, position: None, help: Some(help.into()) }
}

fn null(column: &str, numbers: &[usize]) -> LakeError {
    let help = format!("leave such rows out: WHERE {column} IS NOT NULL");
    let rows = TemplateRows::shown(numbers);
    refused(format!("the column {column} is NULL in {rows}, and no parameter is NULL"), help)
}

fn kind(field: &Field, opened: &Opened) -> Result<Kind, LakeError> {
    Kind::of(field.data_type()).ok_or_else(|| {
        let (column, of) = (shown_column(field.name(), &opened.tables), field.data_type());
        let to = value_type(of);
        let help = format!(
            "values are text, whole numbers, decimals of at most 18 digits, dates and booleans: write \
             CAST({column} AS {to}) AS {column}"
        );
        refused(format!("the column {column} is of type {of}, which no parameter has"), help)
    })
}

/// The type to convert a column to that no parameter has. Numbers and times are not converted to text, which does not
/// compare with columns of numbers and times.
fn value_type(of: &DataType) -> String {
    match of {
        DataType::UInt64 => "BIGINT".to_owned(),
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale)
            if (0..=18).contains(scale) =>
        {
            format!("DECIMAL(18, {scale})")
        }
        DataType::Timestamp(..) | DataType::Date64 => "DATE".to_owned(),
        of if of.is_floating() => "DECIMAL(18, 2)".to_owned(),
        _ => "VARCHAR".to_owned(),
    }
}

fn refuse_same_names(columns: &[String], opened: &Opened) -> Result<(), LakeError> {
    let mut names = BTreeSet::new();
    match columns.iter().find(|name| !names.insert(name.to_lowercase())) {
        Some(twice) => {
            let column = shown_column(twice, &opened.tables);
            let help = "parameters do not differ in case only: rename one with AS";
            Err(refused(format!("the query returns two columns {column}"), help))
        }
        None => Ok(()),
    }
}

fn size(value: &ParameterValue) -> usize {
    match value {
        ParameterValue::Text(text) | ParameterValue::Date(text) => text.len(),
        ParameterValue::Integer(_)
        | ParameterValue::Decimal { .. }
        | ParameterValue::Boolean(_) => 8,
    }
}

/// Checks the values of the row after those that are `found`.
fn check_sizes(
    values: &[ParameterValue],
    found: &TemplateRows,
    all_bytes: usize,
    opened: &Opened,
) -> Result<(), LakeError> {
    let mut long = values.iter().zip(&found.columns);
    if let Some((_, name)) = long.find(|(value, _)| size(value) > MAX_VALUE_BYTES) {
        let column = shown_column(name, &opened.tables);
        let row = TemplateRows::shown(&[found.rows.len() + 1]);
        let message = format!(
            "a value of the column {column} has more than {MAX_VALUE_BYTES} bytes, in {row}"
        );
        return Err(refused(message, "return a shorter key of it"));
    }
    if all_bytes > MAX_ROWS_BYTES {
        let message = format!("the rows have more than {} MiB", MAX_ROWS_BYTES >> 20);
        return Err(refused(message, "return only the columns that the template names"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn a_column_is_converted_to_a_type_that_compares_with_the_same_columns() {
        for (of, expected) in [
            (DataType::Float64, "DECIMAL(18, 2)"),
            (DataType::Decimal128(22, 3), "DECIMAL(18, 3)"),
            (DataType::Decimal256(40, 2), "DECIMAL(18, 2)"),
            (DataType::Decimal128(38, 20), "VARCHAR"),
            (DataType::UInt64, "BIGINT"),
            (DataType::Timestamp(TimeUnit::Microsecond, None), "DATE"),
            (DataType::Date64, "DATE"),
            (DataType::Binary, "VARCHAR"),
        ] {
            assert_eq!(value_type(&of), expected, "{of}");
            assert!(Kind::of(&of).is_none(), "{of}");
        }
    }
}
