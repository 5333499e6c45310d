//! Values of CSV and JSON files, as a tree of the kinds that they have. Pure.

use crate::infer::InferredType;

/// The values of a column or field. Those of JSON can be nested; those of CSV never are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    /// The plain values.
    pub scalars: InferredType,
    /// The fields of the objects, if there are objects.
    pub object: Option<Vec<(String, Node)>>,
    /// The items of the arrays, if there are arrays.
    pub array: Option<Box<Node>>,
}

/// A step into a nested value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A field of an object.
    Field(String),
    /// All items of an array.
    Items,
}

impl Node {
    /// The node of a field of the objects; it is added if it is new.
    pub fn field(&mut self, name: &str) -> &mut Self {
        let fields = self.object.get_or_insert_default();
        let at = match fields.iter().position(|(there, _)| there == name) {
            Some(at) => at,
            None => {
                fields.push((name.to_owned(), Self::default()));
                fields.len() - 1
            }
        };
        &mut fields[at].1
    }

    /// Merges the values of another file.
    pub fn merge(&mut self, other: &Self) {
        self.scalars.merge(&other.scalars);
        for (name, node) in other.object.iter().flatten() {
            self.field(name).merge(node);
        }
        if other.object.is_some() {
            self.object.get_or_insert_default();
        }
        if let Some(items) = &other.array {
            self.array.get_or_insert_default().merge(items);
        }
    }

    /// The node at the end of a path; `None` if no value has such a field.
    pub fn at(&self, path: &[Step]) -> Option<&Self> {
        let Some((step, rest)) = path.split_first() else { return Some(self) };
        match step {
            Step::Field(name) => {
                let fields = self.object.as_ref()?;
                fields.iter().find(|(there, _)| there == name)?.1.at(rest)
            }
            Step::Items => self.array.as_ref()?.at(rest),
        }
    }

    /// The kinds of the values that are not NULL.
    pub fn kinds(&self) -> Vec<&'static str> {
        let there = [
            (self.scalars.value_type().is_some(), "plain values"),
            (self.object.is_some(), "objects"),
            (self.array.is_some(), "arrays"),
        ];
        there.into_iter().filter(|(is_there, _)| *is_there).map(|(_, kind)| kind).collect()
    }
}
