//! The accepted rows of one worker as columns, sorted by day and key when there are enough of them.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Int64Builder, StringArray,
    StringBuilder, TimestampMicrosecondBuilder, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field as ArrowField, Schema as ArrowSchema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use throng_schema::{Anonymise, FieldType, Schema};

use crate::row_check::{RowValues, Value};

/// The type of a field's column.
fn data_type(of: FieldType) -> DataType {
    match of {
        FieldType::Text | FieldType::Email | FieldType::Phone => DataType::Utf8,
        FieldType::Integer => DataType::Int64,
        FieldType::Decimal { digits, scale } => DataType::Decimal128(digits, scale.cast_signed()),
        FieldType::Boolean => DataType::Boolean,
        // In UTC, without a time zone: readers need no database of time zones.
        FieldType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        FieldType::Date => DataType::Date32,
    }
}

/// The columns of a table.
pub(crate) fn arrow_schema(fields: impl Iterator<Item = (String, FieldType)>) -> SchemaRef {
    let fields = fields.map(|(name, of)| ArrowField::new(name, data_type(of), true));
    Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>()))
}

enum ColumnBuilder {
    Text(StringBuilder),
    Integer(Int64Builder),
    Decimal(Decimal128Builder),
    Boolean(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
}

impl ColumnBuilder {
    fn new(of: FieldType) -> Self {
        match of {
            FieldType::Text | FieldType::Email | FieldType::Phone => {
                Self::Text(StringBuilder::new())
            }
            FieldType::Integer => Self::Integer(Int64Builder::new()),
            FieldType::Decimal { .. } => {
                Self::Decimal(Decimal128Builder::new().with_data_type(data_type(of)))
            }
            FieldType::Boolean => Self::Boolean(BooleanBuilder::new()),
            FieldType::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new()),
            FieldType::Date => Self::Date(Date32Builder::new()),
        }
    }

    /// A value of another type than the column's is NULL; the checks make none.
    fn append(&mut self, value: Value, text: &str) {
        match (self, value) {
            (Self::Text(column), Value::Text(start, end)) => {
                column.append_option(text.get(start..end));
            }
            (Self::Text(column), _) => column.append_null(),
            (Self::Integer(column), Value::Integer(number)) => column.append_value(number),
            (Self::Integer(column), _) => column.append_null(),
            (Self::Decimal(column), Value::Decimal(number)) => column.append_value(number),
            (Self::Decimal(column), _) => column.append_null(),
            (Self::Boolean(column), Value::Boolean(is)) => column.append_value(is),
            (Self::Boolean(column), _) => column.append_null(),
            (Self::Timestamp(column), Value::Integer(micros)) => column.append_value(micros),
            (Self::Timestamp(column), _) => column.append_null(),
            (Self::Date(column), Value::Integer(days)) => {
                column.append_option(i32::try_from(days).ok());
            }
            (Self::Date(column), _) => column.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Integer(column) => Arc::new(column.finish()),
            Self::Decimal(column) => Arc::new(column.finish()),
            Self::Boolean(column) => Arc::new(column.finish()),
            Self::Timestamp(column) => Arc::new(column.finish()),
            Self::Date(column) => Arc::new(column.finish()),
        }
    }
}

/// Where a row belongs.
struct SortKey {
    day: i32,
    /// The first eight bytes of the key, in the order of the keys.
    prefix: u64,
    row: u32,
}

/// Rows of one day, in the order of their keys.
pub(crate) struct DayRows {
    /// Days since 1970-01-01.
    pub(crate) day: i32,
    pub(crate) rows: RecordBatch,
}

/// Columns that grow.
pub(crate) struct Columns {
    schema: SchemaRef,
    /// The place of the field of each column.
    fields: Vec<usize>,
    builders: Vec<ColumnBuilder>,
    /// The place of the key among the fields, and among the columns.
    key: (usize, usize),
    order: Vec<SortKey>,
    bytes: usize,
}

impl Columns {
    pub(crate) fn new(schema: &Schema) -> Self {
        let stored = || {
            let fields = schema.fields.iter().enumerate();
            fields.filter(|(_, field)| field.anonymise != Some(Anonymise::Drop))
        };
        let key = schema.field(&schema.key).map_or(0, |(at, _)| at);
        let fields: Vec<usize> = stored().map(|(at, _)| at).collect();
        Self {
            schema: arrow_schema(stored().map(|(_, field)| (field.name.clone(), field.of))),
            builders: stored().map(|(_, field)| ColumnBuilder::new(field.of)).collect(),
            key: (key, fields.iter().position(|at| *at == key).unwrap_or(0)),
            fields,
            order: Vec::new(),
            bytes: 0,
        }
    }

    /// The place of the key among the columns.
    pub(crate) fn key_column(&self) -> usize {
        self.key.1
    }

    /// About how many bytes the rows take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(crate) fn append(&mut self, row: &RowValues) {
        for (builder, field) in self.builders.iter_mut().zip(&self.fields) {
            builder.append(row.values.get(*field).copied().unwrap_or(Value::Null), &row.text);
        }
        let prefix = match row.values.get(self.key.0) {
            Some(Value::Integer(number)) => number.cast_unsigned() ^ (1 << 63),
            Some(Value::Text(start, end)) => prefix_of(row.text.get(*start..*end).unwrap_or("")),
            _ => 0,
        };
        let number = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        self.order.push(SortKey { day: row.day, prefix, row: number });
        self.bytes += row.text.len() + 16 * self.builders.len();
    }

    /// Takes all rows: those of each day sorted by their keys, the days in their order.
    ///
    /// # Errors
    /// [`ArrowError`] if the columns do not fit together, which is a bug.
    pub(crate) fn take_sorted(&mut self) -> Result<Vec<DayRows>, ArrowError> {
        let columns: Vec<ArrayRef> = self.builders.iter_mut().map(ColumnBuilder::finish).collect();
        let mut order = std::mem::take(&mut self.order);
        self.bytes = 0;
        let keys =
            columns.get(self.key.1).and_then(|key| key.as_any().downcast_ref::<StringArray>());
        let text = |row: u32| keys.map_or("", |keys| keys.value(row as usize));
        order.sort_unstable_by(|a, b| {
            let by_prefix = (a.day, a.prefix).cmp(&(b.day, b.prefix));
            let by_key = by_prefix.then_with(|| match keys {
                Some(_) => text(a.row).cmp(text(b.row)),
                None => Ordering::Equal,
            });
            by_key.then(a.row.cmp(&b.row))
        });
        let rows = UInt32Array::from_iter_values(order.iter().map(|key| key.row));
        let sorted = columns.iter().map(|column| take(column, &rows, None));
        let sorted =
            RecordBatch::try_new(Arc::clone(&self.schema), sorted.collect::<Result<_, _>>()?)?;
        let mut days = Vec::new();
        let mut start = 0;
        while let Some(first) = order.get(start) {
            let length = order[start..].partition_point(|key| key.day == first.day);
            days.push(DayRows { day: first.day, rows: sorted.slice(start, length) });
            start += length;
        }
        Ok(days)
    }
}

/// The first eight bytes as a number: texts compare as their numbers do, unless these are equal.
fn prefix_of(text: &str) -> u64 {
    let mut bytes = [0; 8];
    let length = text.len().min(8);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(of: &str) -> Schema {
        serde_json::from_str(&format!(
            r#"{{"name": "s", "description": null, "key": "k", "fields": [
                {{"name": "d", "type": "text", "anonymise": "drop"}},
                {{"name": "k", "type": "{of}", "required": true}},
                {{"name": "n", "type": "decimal(5, 1)"}}]}}"#
        ))
        .unwrap()
    }

    #[test]
    fn rows_are_sorted_by_day_and_key() {
        let schema = schema("text");
        let mut columns = Columns::new(&schema);
        for (day, key) in [(2, "b"), (1, "same prefix b"), (2, "a"), (1, "same prefix a"), (1, "")]
        {
            columns.append(&RowValues {
                values: vec![Value::Null, Value::Text(0, key.len()), Value::Decimal(15)],
                text: key.to_owned(),
                day,
            });
        }
        assert!(columns.bytes() > 0 && columns.key_column() == 0);
        let days = columns.take_sorted().unwrap();
        assert!(columns.is_empty() && columns.bytes() == 0);
        let keys: Vec<(i32, Vec<String>)> = days
            .iter()
            .map(|one| {
                let keys = one.rows.column(0).as_any().downcast_ref::<StringArray>().unwrap();
                (one.day, keys.iter().map(|key| key.unwrap().to_owned()).collect())
            })
            .collect();
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            keys,
            [(1, texts(&["", "same prefix a", "same prefix b"])), (2, texts(&["a", "b"]))]
        );
        let names: Vec<_> =
            days[0].rows.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["k", "n"]);
    }

    #[test]
    fn integers_are_sorted_as_numbers() {
        let mut columns = Columns::new(&schema("integer"));
        for number in [5, -3, i64::MAX, i64::MIN, 0] {
            let values = vec![Value::Null, Value::Integer(number), Value::Null];
            columns.append(&RowValues { values, text: String::new(), day: 0 });
        }
        let days = columns.take_sorted().unwrap();
        let keys =
            days[0].rows.column(0).as_any().downcast_ref::<arrow::array::Int64Array>().unwrap();
        assert_eq!(keys.values().to_vec(), [i64::MIN, -3, 0, 5, i64::MAX]);
    }
}
