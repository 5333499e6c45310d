//! Names of objects and the references to them, over all files.

use std::collections::BTreeMap;

use throng_model::NameError;

use super::fields::{At, Fields};
use super::tree::Node;
use super::{Reader, suggest};
use crate::{ObjectKind, Pattern};

/// The declared names and the references to names.
#[derive(Default)]
pub(super) struct Names {
    declared: BTreeMap<(ObjectKind, String), At>,
    /// Names that templates may make.
    patterns: Vec<(ObjectKind, Pattern)>,
    references: Vec<(ObjectKind, String, At)>,
    /// Names of sources in SQL.
    in_sql: BTreeMap<String, String>,
    /// Audiences on the platform: destination and name there, and the first sync that writes to it.
    on_platform: BTreeMap<(String, String), (String, At)>,
}

impl Names {
    /// Whether a row of a template may have this name. Whether one has is known when the spec is expanded.
    fn could_be_made(&self, (kind, name): &(ObjectKind, String)) -> bool {
        self.patterns.iter().any(|(of, pattern)| of == kind && pattern.could_make(name))
    }
}

impl Reader {
    /// The required field `name` of an object, which declares it.
    pub(super) fn name<T>(&mut self, fields: &mut Fields<'_>, kind: ObjectKind) -> T
    where
        T: TryFrom<String, Error = NameError> + AsRef<str>,
    {
        let found = fields.required(self, "name");
        let Some((name, at)) =
            found.and_then(|(node, at)| Some((self.name_at::<T>(node, &at)?, at)))
        else {
            return placeholder_name();
        };
        self.declare(kind, name.as_ref(), at);
        name
    }

    /// Declares the names of a template.
    pub(super) fn declare_pattern(&mut self, kind: ObjectKind, pattern: &Pattern, at: At) {
        self.declare(kind, pattern.as_str(), at);
        self.names.patterns.push((kind, pattern.clone()));
    }

    fn declare(&mut self, kind: ObjectKind, name: &str, at: At) {
        let key = (kind, name.to_owned());
        match self.names.declared.get(&key).cloned() {
            Some(first) => {
                let message = format!("there are two {kind}s named `{name}`");
                let help = format!(
                    "the first is at {}:{}: rename or remove one",
                    first.file.display(),
                    first.line
                );
                self.problem(&at, message, Some(help));
            }
            None => {
                self.names.declared.insert(key, at.clone());
                if kind == ObjectKind::Source {
                    self.name_in_sql(name, &at);
                }
            }
        }
    }

    fn name_at<T>(&mut self, node: &Node, at: &At) -> Option<T>
    where
        T: TryFrom<String, Error = NameError>,
    {
        let text = self.text(node, at)?.to_owned();
        match T::try_from(text.clone()) {
            Ok(name) => Some(name),
            Err(_) => {
                let shown: String = text.chars().take(60).collect();
                let help = "use 1 to 128 of a-z, 0-9, `-`, `_` and `.`, starting with a letter \
                            or a digit";
                self.problem(at, format!("`{shown}` is not a name"), Some(help.to_owned()));
                None
            }
        }
    }

    fn name_in_sql(&mut self, name: &str, at: &At) {
        let in_sql = name.replace(['-', '.'], "_");
        match self.names.in_sql.get(&in_sql).cloned() {
            Some(other) => {
                let message =
                    format!("the sources `{other}` and `{name}` are both `{in_sql}` in SQL");
                let help = "rename one: SQL sees `-` and `.` as `_`".to_owned();
                self.problem(at, message, Some(help));
            }
            None => {
                self.names.in_sql.insert(in_sql, name.to_owned());
            }
        }
    }

    /// A required field that holds the name of another object.
    pub(super) fn reference<T>(
        &mut self,
        fields: &mut Fields<'_>,
        field: &'static str,
        kind: ObjectKind,
    ) -> T
    where
        T: TryFrom<String, Error = NameError> + AsRef<str>,
    {
        let found = fields.required(self, field);
        found.and_then(|(node, at)| self.refer(node, at, kind)).unwrap_or_else(placeholder_name)
    }

    /// Records a reference of `node` to an object of a kind.
    pub(super) fn refer<T>(&mut self, node: &Node, at: At, kind: ObjectKind) -> Option<T>
    where
        T: TryFrom<String, Error = NameError> + AsRef<str>,
    {
        let name: T = self.name_at(node, &at)?;
        self.names.references.push((kind, name.as_ref().to_owned(), at));
        Some(name)
    }

    /// Checks that no other sync writes to the same audience of the platform: each would remove the
    /// other's users.
    pub(super) fn check_platform_name(
        &mut self,
        sync: &str,
        destination: &str,
        platform_name: &str,
        at: &At,
    ) {
        let key = (destination.to_owned(), platform_name.to_owned());
        match self.names.on_platform.get(&key).cloned() {
            Some((other, first)) if other != sync => {
                let message = format!(
                    "the syncs `{other}` and `{sync}` both write to the platform's audience \
                     `{platform_name}` of `{destination}`"
                );
                let help = format!(
                    "the first is at {}:{}: give one of them its own `platform_name`",
                    first.file.display(),
                    first.line
                );
                self.problem(at, message, Some(help));
            }
            Some(_) => {}
            None => {
                self.names.on_platform.insert(key, (sync.to_owned(), at.clone()));
            }
        }
    }

    /// Checks all references, after all files were read.
    pub(super) fn check_references(&mut self) {
        for (kind, name, at) in std::mem::take(&mut self.names.references) {
            let key = (kind, name);
            if self.names.declared.contains_key(&key) || self.names.could_be_made(&key) {
                continue;
            }
            // A suggestion costs a comparison with every name.
            if self.is_full() {
                return;
            }
            let (kind, name) = key;
            let known: Vec<&str> = self
                .names
                .declared
                .keys()
                .filter(|(other, _)| *other == kind)
                .map(|(_, name)| name.as_str())
                .collect();
            let elsewhere = self
                .names
                .declared
                .keys()
                .find(|(_, other)| *other == name)
                .map(|(other, _)| format!("`{name}` is the name of {}", with_article(*other)));
            let near = suggest::nearest(&name, known.iter().copied())
                .map(|near| format!("did you mean `{near}`?"));
            let help = near
                .or(elsewhere)
                .or_else(|| suggest::help(&name, &known))
                .unwrap_or_else(|| format!("declare the {kind}, or refer to another one"));
            self.problem(&at, format!("there is no {kind} named `{name}`"), Some(help));
        }
    }
}

fn with_article(kind: ObjectKind) -> String {
    let article = if kind.as_str().starts_with('a') { "an" } else { "a" };
    format!("{article} {kind}")
}

/// The name that replaces an invalid one, which was reported.
pub(super) fn placeholder_name<T: TryFrom<String, Error = NameError>>() -> T {
    T::try_from("unnamed".to_owned()).expect("`unnamed` is a name")
}
