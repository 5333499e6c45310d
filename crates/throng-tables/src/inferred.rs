//! The engine's types for the values of CSV and JSON files. Pure.

use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use throng_files::{InferredType, Node, Step, ValueType};

/// A type, and how its values are written, if the engine would write them differently.
pub(super) type WrittenType = (DataType, Option<&'static str>);

/// The type of plain values; `None` if all are NULL.
pub(super) fn scalar_type(values: &InferredType) -> Option<WrittenType> {
    values.value_type().map(|(of, written)| (engine_type(of), written))
}

fn engine_type(of: ValueType) -> DataType {
    use throng_files::TimeUnit as Unit;
    match of {
        ValueType::Text => DataType::Utf8View,
        ValueType::Integer => DataType::Int64,
        ValueType::Decimal { digits, scale } => DataType::Decimal128(digits, scale.cast_signed()),
        ValueType::Double => DataType::Float64,
        ValueType::Boolean => DataType::Boolean,
        ValueType::Date => DataType::Date32,
        ValueType::Timestamp(unit) => {
            let unit = match unit {
                Unit::Second => TimeUnit::Second,
                Unit::Millisecond => TimeUnit::Millisecond,
                Unit::Microsecond => TimeUnit::Microsecond,
                Unit::Nanosecond => TimeUnit::Nanosecond,
            };
            DataType::Timestamp(unit, None)
        }
    }
}

/// Objects or arrays are mixed with other values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mixed {
    /// The path from the column to the mixed values.
    pub(super) path: Vec<Step>,
}

impl Mixed {
    fn within(mut self, step: Step) -> Self {
        self.path.insert(0, step);
        self
    }
}

/// The type of values; `Ok(None)` if all are NULL; `Err` if scalars, objects and arrays are mixed,
/// here or in a field.
pub(super) fn node_type(node: &Node) -> Result<Option<WrittenType>, Mixed> {
    let text = || DataType::Utf8View;
    match (scalar_type(&node.scalars), &node.object, &node.array) {
        (scalar, None, None) => Ok(scalar),
        (None, Some(fields), None) => {
            let mut of = Vec::with_capacity(fields.len());
            for (name, node) in fields {
                let inner = node_type(node)
                    .map_err(|mixed| mixed.within(Step::Field(name.clone())))?
                    .map_or_else(text, |(t, _)| t);
                of.push(Field::new(name, inner, true));
            }
            Ok(Some((DataType::Struct(of.into()), None)))
        }
        (None, None, Some(items)) => {
            let inner = node_type(items)
                .map_err(|mixed| mixed.within(Step::Items))?
                .map_or_else(text, |(t, _)| t);
            Ok(Some((DataType::new_list(inner, true), None)))
        }
        _ => Err(Mixed { path: Vec::new() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(texts: &[&str]) -> Node {
        let mut node = Node::default();
        texts.iter().for_each(|text| node.scalars.add(text));
        node
    }

    #[test]
    fn values_have_a_type_of_the_engine() {
        for (texts, of, written) in [
            (&["1", "2"][..], "Int64", None),
            (&["1.50"], "Decimal128(18, 2)", None),
            (&["5", "6.5"], "Float64", Some("shortest")),
            (&["true"], "Boolean", None),
            (&["2026-11-25"], "Date32", None),
            (&["2026-11-25T10:00:00.120Z"], "Timestamp(ms)", Some("TZ")),
            (&["u"], "Utf8View", None),
        ] {
            let found = scalar_type(&plain(texts).scalars);
            assert_eq!(found, Some((of.parse::<DataType>().unwrap(), written)), "{texts:?}");
        }
        assert_eq!(scalar_type(&InferredType::default()), None);
    }

    #[test]
    fn nested_values_have_the_types_of_their_fields() {
        let mut node = Node::default();
        *node.field("a") = plain(&["1"]);
        node.field("b").array = Some(Box::new(plain(&["x"])));
        let items = DataType::new_list(DataType::Utf8View, true);
        let fields = [("a", DataType::Int64), ("b", items)];
        let fields = fields.map(|(name, of)| Field::new(name, of, true));
        let wanted = DataType::Struct(fields.into_iter().collect());
        assert_eq!(node_type(&node), Ok(Some((wanted, None))));
        node.field("b").scalars.add("1");
        let path = vec![Step::Field("b".to_owned())];
        assert_eq!(node_type(&node), Err(Mixed { path }));
    }
}
