//! Values of CSV and JSON files, as a tree of the kinds that they have. Pure.

use std::collections::BTreeMap;

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
    /// Whether an object has this field twice.
    pub twice: bool,
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
        self.twice |= other.twice;
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

    /// The paths of two fields of the objects, at any depth, whose names differ only in case. They are equal if an
    /// object has one field twice.
    pub(crate) fn repeated_field(&self) -> Option<(Vec<Step>, Vec<Step>)> {
        let within = |step: &Step, (mut one, mut other): (Vec<Step>, Vec<Step>)| {
            one.insert(0, step.clone());
            other.insert(0, step.clone());
            (one, other)
        };
        let field = |name: &str| Step::Field(name.to_owned());
        let mut names: BTreeMap<String, &str> = BTreeMap::new();
        for (name, node) in self.object.iter().flatten() {
            if node.twice {
                return Some((vec![field(name)], vec![field(name)]));
            }
            if let Some(other) = names.insert(name.to_lowercase(), name) {
                return Some((vec![field(other)], vec![field(name)]));
            }
            if let Some(found) = node.repeated_field() {
                return Some(within(&field(name), found));
            }
        }
        Some(within(&Step::Items, self.array.as_ref()?.repeated_field()?))
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
