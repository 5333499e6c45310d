//! Objects with `for_each`: one for every row of a query.

use throng_model::{AudienceName, NameError};

use super::Reader;
use super::fields::{At, Fields};
use super::tree::{Node, Value};
use crate::{ForEach, MAX_TEMPLATE_ROWS, ObjectKind, Pattern, WhenRemoved};

/// Rows of a template, unless set.
const DEFAULT_MAX_ROWS: u32 = 10_000;
/// The share of its objects that a template may archive at once, in percent, unless set.
const DEFAULT_MAX_REMOVED_PERCENT: u32 = 10;

/// What makes an object a template.
pub(super) struct Template {
    pub(super) name: Pattern,
    pub(super) for_each: ForEach,
}

impl Reader {
    /// Name and query of a template; `None` if the object has no `for_each`.
    pub(super) fn template(
        &mut self,
        fields: &mut Fields<'_>,
        kind: ObjectKind,
    ) -> Option<Template> {
        let (node, at) = fields.get("for_each")?;
        let for_each = self.for_each(node, at);
        let name = fields.required(self, "name");
        let name = name.and_then(|(node, at)| {
            let pattern = self.name_pattern(node, &at)?;
            if pattern.columns().next().is_none() {
                let help = "write a column of the query in braces, such as `{region}-buyers`";
                let message = "the name is the same for every row of `for_each`";
                self.problem(&at, message, Some(help.to_owned()));
            }
            self.declare_pattern(kind, &pattern, at);
            Some(pattern)
        });
        Some(Template { name: name.unwrap_or_else(placeholder_pattern), for_each })
    }

    fn for_each(&mut self, node: &Node, at: At) -> ForEach {
        let mut for_each = ForEach {
            sql: String::new(),
            sql_at: crate::Location { file: at.file.to_path_buf(), line: at.line },
            max_rows: DEFAULT_MAX_ROWS,
            when_removed: WhenRemoved::Hold,
            max_removed_percent: DEFAULT_MAX_REMOVED_PERCENT,
            schedule: None,
        };
        if !matches!(node.value, Value::Map(_)) {
            (for_each.sql, for_each.sql_at) = self.sql_of(node, &at);
            return for_each;
        }
        let Some(mut fields) = Fields::open(self, node, at) else { return for_each };
        (for_each.sql, for_each.sql_at) = self.sql(&mut fields);
        for_each.max_rows =
            self.integer(&mut fields, "max_rows", 1..=MAX_TEMPLATE_ROWS, DEFAULT_MAX_ROWS);
        let words = [("hold", WhenRemoved::Hold), ("archive", WhenRemoved::Archive)];
        for_each.when_removed = self.word(&mut fields, "when_removed", &words, WhenRemoved::Hold);
        let default = DEFAULT_MAX_REMOVED_PERCENT;
        for_each.max_removed_percent =
            self.integer(&mut fields, "max_removed_percent", 0..=100, default);
        if let Some((node, at)) = fields.get("schedule") {
            let (schedule, trigger) = self.schedule(node, at.clone());
            if trigger.is_some() {
                let help = "write `schedule: { cron: … }`; the schedule of the audience itself may have `on`";
                let message = "a change of a source does not start the query of `for_each`";
                self.problem(&at, message, Some(help.to_owned()));
            }
            for_each.schedule = schedule;
        }
        fields.done(self);
        for_each
    }

    /// An optional text with columns in braces.
    pub(super) fn pattern(
        &mut self,
        fields: &mut Fields<'_>,
        field: &'static str,
    ) -> Option<Pattern> {
        let (node, at) = fields.get(field)?;
        self.pattern_at(node, &at)
    }

    fn pattern_at(&mut self, node: &Node, at: &At) -> Option<Pattern> {
        let text = self.text(node, at)?;
        match Pattern::try_from(text.to_owned()) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let help = "write a column of `for_each` in braces, such as `{region}`".to_owned();
                self.problem(at, error.to_string(), Some(help));
                None
            }
        }
    }

    /// A pattern whose texts are names in the workspace that is read, if the values of its columns are.
    fn name_pattern(&mut self, node: &Node, at: &At) -> Option<Pattern> {
        let pattern = self.pattern_at(node, at)?;
        // Names have the same characters in every kind of object.
        let filled = pattern.fill(|_| Some("a".to_owned())).unwrap_or_default();
        if filled.contains(':') || AudienceName::try_from(filled).is_err() {
            let help = "between columns in braces use a-z, 0-9, `-`, `_` and `.`".to_owned();
            self.problem(at, "no row can make a name of this pattern", Some(help));
        }
        match &self.workspace {
            None => Some(pattern),
            Some(workspace) => Pattern::try_from(format!("{workspace}:{pattern}")).ok(),
        }
    }

    /// A required field with the name of another object, for each row.
    pub(super) fn reference_pattern<T>(
        &mut self,
        fields: &mut Fields<'_>,
        field: &'static str,
        kind: ObjectKind,
    ) -> Pattern
    where
        T: TryFrom<String, Error = NameError> + AsRef<str>,
    {
        let found = fields.required(self, field);
        let pattern = found.and_then(|(node, at)| {
            let pattern = self.name_pattern(node, &at)?;
            if pattern.columns().next().is_none() {
                let _: Option<T> = self.refer(node, at, kind);
            }
            Some(pattern)
        });
        pattern.unwrap_or_else(placeholder_pattern)
    }
}

/// The pattern that replaces an invalid one, which was reported.
fn placeholder_pattern() -> Pattern {
    Pattern::try_from("{unnamed}".to_owned()).expect("`{unnamed}` is a pattern")
}
