//! The differences between two specs as text: what is alike in many objects of a template, and warnings that differ in
//! names and figures only, are printed once with their number.

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;
use throng_model::{Currency, Micros, count};

use crate::ObjectKind;
use crate::plan::{Action, Change, FieldChange, Plan, money};

/// Objects of a template, or warnings, that are alike are printed one by one if they are not more than this; of more
/// objects so many are named.
const MAX_ALIKE: usize = 5;

/// What objects of a template have in common: kind, template, action and the names of the fields that change.
type Alike<'p> = (&'static str, &'p str, &'static str, Vec<&'p str>);

/// `None` if the object is not of a template.
fn alike(change: &Change) -> Option<Alike<'_>> {
    let template = change.template.as_deref()?;
    let fields = fields_of(change).iter().map(|changed| changed.field.as_str()).collect();
    Some((change.kind.as_str(), template, mark_of(change), fields))
}

fn mark_of(change: &Change) -> &'static str {
    match &change.action {
        Action::Added => "+",
        Action::Changed(_) => "~",
        Action::Removed => "-",
    }
}

fn fields_of(change: &Change) -> &[FieldChange] {
    match &change.action {
        Action::Changed(fields) => fields,
        Action::Added | Action::Removed => &[],
    }
}

/// How many objects are added, changed and removed.
fn counts(plan: &Plan) -> [usize; 3] {
    ["+", "~", "-"].map(|mark| plan.changes.iter().filter(|of| mark_of(of) == mark).count())
}

impl fmt::Display for Plan {
    /// One line per object, its changed fields below it, and the counts at the end. More than five objects of a
    /// template that change alike are one entry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warn = |f: &mut fmt::Formatter<'_>| {
            let warnings = collapsed_warnings(&self.warnings, "--json");
            warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
        };
        if self.changes.is_empty() {
            f.write_str("Nothing to do: this spec is applied already.\n")?;
            return warn(f);
        }
        let mut groups: HashMap<Alike<'_>, Vec<&Change>> = HashMap::new();
        for change in &self.changes {
            if let Some(key) = alike(change) {
                groups.entry(key).or_default().push(change);
            }
        }
        for change in &self.changes {
            let group = alike(change).and_then(|key| groups.get(&key));
            match group.filter(|group| group.len() > MAX_ALIKE) {
                // In the place of its first object.
                Some(group) if group.first().is_some_and(|first| std::ptr::eq(*first, change)) => {
                    write_group(f, change, group)?;
                }
                Some(_) => {}
                None => write_change(f, change)?,
            }
        }
        let [added, changed, removed] = counts(self);
        writeln!(f, "\n{added} to add, {changed} to change, {removed} to remove.")?;
        warn(f)
    }
}

fn write_change(f: &mut fmt::Formatter<'_>, change: &Change) -> fmt::Result {
    let mark = mark_of(change);
    match change.kind {
        ObjectKind::Node => writeln!(f, "{mark} node settings (at the next start)")?,
        kind => writeln!(f, "{mark} {kind} {}", change.name)?,
    }
    fields_of(change).iter().try_for_each(|field| write_field(f, field, change))
}

/// Writes objects of a template that are alike. `first`: the first of them.
fn write_group(f: &mut fmt::Formatter<'_>, first: &Change, group: &[&Change]) -> fmt::Result {
    let (mark, kind) = (mark_of(first), first.kind);
    let template = first.template.as_deref().unwrap_or_default();
    let what = match &first.action {
        Action::Added => "add",
        Action::Changed(_) => "change",
        Action::Removed => "remove",
    };
    let names: Vec<&str> = group.iter().take(MAX_ALIKE).map(|of| of.name.as_str()).collect();
    let (total, names) = (count(group.len() as u64), names.join(", "));
    writeln!(f, "{mark} {kind} template {template}: {total} to {what} (the first: {names})")?;
    for (at, field) in fields_of(first).iter().enumerate() {
        let is_common = |of: &&Change| fields_of(of).get(at) == Some(field);
        match group.iter().all(is_common) {
            true => write_field(f, field, first)?,
            false => writeln!(f, "    {}: differs between them", field.field)?,
        }
    }
    Ok(())
}

/// Warnings as they are printed: more than five that differ in figures and in what is between backticks only are the
/// first of them, with the number of the others and what prints all: `with`, such as `--json`.
pub fn collapsed_warnings(warnings: &[String], with: &str) -> Vec<String> {
    let mut numbers: HashMap<String, usize> = HashMap::new();
    for warning in warnings {
        *numbers.entry(shape_of(warning)).or_default() += 1;
    }
    let shown = warnings.iter().filter_map(|warning| {
        let number = numbers.get_mut(&shape_of(warning))?;
        if *number <= MAX_ALIKE {
            // A group that is printed already has none left.
            return (*number > 0).then(|| warning.clone());
        }
        let others = count(*number as u64 - 1);
        *number = 0;
        Some(format!("{warning} (and {others} more like it: `{with}` prints all)"))
    });
    shown.collect()
}

/// A warning without figures and without what is between backticks.
fn shape_of(warning: &str) -> String {
    let outside = warning.split('`').step_by(2).collect::<Vec<_>>().join("`");
    outside.chars().filter(|character| !character.is_ascii_digit()).collect()
}

fn write_field(f: &mut fmt::Formatter<'_>, changed: &FieldChange, of: &Change) -> fmt::Result {
    let FieldChange { field, old, new } = changed;
    if let (Value::String(old), Value::String(new)) = (old, new)
        && (old.contains('\n') || new.contains('\n'))
    {
        writeln!(f, "    {field}:")?;
        return write_lines(f, old, new);
    }
    let old = shown(field, old, of.currency_before.or(of.currency));
    writeln!(f, "    {field}: {old} → {}", shown(field, new, of.currency))
}

/// Writes the lines that differ, without the common ones at the beginning and the end.
fn write_lines(f: &mut fmt::Formatter<'_>, old: &str, new: &str) -> fmt::Result {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let shorter = old.len().min(new.len());
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let head = old.iter().zip(&new).take_while(same).count();
    let tail = old.iter().rev().zip(new.iter().rev()).take(shorter - head).take_while(same).count();
    for line in &old[head..old.len() - tail] {
        writeln!(f, "      - {line}")?;
    }
    for line in &new[head..new.len() - tail] {
        writeln!(f, "      + {line}")?;
    }
    Ok(())
}

fn shown(field: &str, value: &Value, currency: Option<Currency>) -> String {
    match value {
        Value::Null => "not set".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if matches!(field, "price" | "daily_budget") => {
            number.as_i64().map_or(number.to_string(), |micros| money(Micros(micros), currency))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| shown("", item, None)).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_template(name: &str, action: Action) -> Change {
        Change {
            kind: ObjectKind::Audience,
            name: name.to_owned(),
            currency: None,
            currency_before: None,
            template: Some("{region}-buyers".to_owned()),
            action,
        }
    }

    fn printed(changes: Vec<Change>) -> String {
        Plan { changes, warnings: Vec::new() }.to_string()
    }

    #[test]
    fn many_objects_of_a_template_are_one_entry() {
        let added = |number: u32| of_template(&format!("r{number}-buyers"), Action::Added);
        let written = Change { template: None, ..of_template("all", Action::Added) };
        let mut changes: Vec<Change> = (0..1_500).map(added).collect();
        changes.push(written.clone());
        let expected = "+ audience template {region}-buyers: 1,500 to add (the first: r0-buyers, r1-buyers, r2-buyers, \
                        r3-buyers, r4-buyers)\n+ audience all\n\n1501 to add, 0 to change, 0 to remove.\n";
        assert_eq!(printed(changes), expected);
        let few: Vec<Change> = (0..5).map(added).collect();
        assert!(printed(few).starts_with("+ audience r0-buyers\n+ audience r1-buyers\n"));
        // Written ones are never collapsed.
        assert_eq!(printed(vec![written; 7]).matches("+ audience all\n").count(), 7);
    }

    #[test]
    fn fields_that_change_alike_are_printed_once() {
        let field =
            |name: &str, new: Value| FieldChange { field: name.to_owned(), old: Value::Null, new };
        let changed = |number: u64| {
            let fields = vec![field("key", "id".into()), field("description", number.into())];
            of_template(&format!("r{number}"), Action::Changed(fields))
        };
        let mut changes: Vec<Change> = (0..6).map(changed).collect();
        changes.push(of_template("r9", Action::Changed(vec![field("key", "id".into())])));
        let expected = "~ audience template {region}-buyers: 6 to change (the first: r0, r1, r2, r3, r4)\n    key: not set \
                        → id\n    description: differs between them\n~ audience r9\n    key: not set → id\n\n0 to add, \
                        7 to change, 0 to remove.\n";
        assert_eq!(printed(changes), expected);
    }

    #[test]
    fn warnings_that_differ_in_names_and_figures_only_are_printed_once() {
        let of = |number: u32| format!("sync `s{number}` is removed: {number} users stay");
        let mut warnings: Vec<String> = (0..1_200).map(of).collect();
        warnings.insert(1, "another one".to_owned());
        let first =
            "sync `s0` is removed: 0 users stay (and 1,199 more like it: `--json` prints all)";
        assert_eq!(collapsed_warnings(&warnings, "--json"), [first, "another one"]);
        let few: Vec<String> = (0..5).map(of).collect();
        assert_eq!(collapsed_warnings(&few, "--json"), few);
    }
}
