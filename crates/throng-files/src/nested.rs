//! Refusals of columns of CSV and JSON files whose objects and arrays are not written in one way. Pure.

use std::path::Path;

use crate::error::FileError;
use crate::names::shown_path;
use crate::node::{Node, Step};

/// Refuses a column in whose objects a field is twice, or has two names that differ only in case: a query would get
/// one of the values, or NULL. `values`: of each file; `all`: merged.
///
/// # Errors
/// [`FileError::Table`] naming the files.
pub fn compare_fields(
    column: &str,
    values: &[(&Path, &Node)],
    all: &Node,
) -> Result<(), FileError> {
    let Some((one, other)) = all.repeated_field() else { return Ok(()) };
    // The first file that has it by itself; else the first that has each name.
    let alone = values.iter().find(|(_, node)| node.repeated_field().is_some());
    let has = |path: &[Step]| values.iter().find(|(_, node)| node.at(path).is_some());
    let files = [alone.or_else(|| has(&one)), alone.or_else(|| has(&other))];
    let [first, second] =
        files.map(|file| file.map(|(path, _)| path.display().to_string()).unwrap_or_default());
    let (one_name, other_name) = (shown_path(column, &one), shown_path(column, &other));
    let message = if one == other {
        format!("an object in {first} has the field {one_name} twice")
    } else if first == second {
        format!("the fields {one_name} and {other_name} in {first} differ only in case")
    } else {
        format!("the fields {one_name} in {first} and {other_name} in {second} differ only in case")
    };
    let help = "write each field once in an object, with one name in all rows".to_owned();
    Err(FileError::Table { message, help })
}

/// The error of a column with objects or arrays beside other values in one place.
pub fn mixed(column: &str, values: &[(&Path, &Node)], path: &[Step]) -> FileError {
    let name = shown_path(column, path);
    let values = values.iter();
    let there: Vec<(&Path, Vec<&str>)> =
        values.filter_map(|(file, node)| Some((*file, node.at(path)?.kinds()))).collect();
    let several = there.iter().find(|(_, kinds)| kinds.len() > 1);
    let mut plain = there.iter().filter(|(_, kinds)| !kinds.is_empty());
    let first = plain.next();
    let other = plain.find(|(_, kinds)| first.is_some_and(|(_, before)| before != kinds));
    let message = match (several, first, other) {
        (Some((file, kinds)), ..) => {
            format!("column {name} has {} in {}", kinds.join(" and "), file.display())
        }
        (None, Some((a, a_kinds)), Some((b, b_kinds))) => format!(
            "column {name} has {} in {} and {} in {}",
            a_kinds.join(" and "),
            a.display(),
            b_kinds.join(" and "),
            b.display()
        ),
        (None, ..) => format!("column {name} has objects or arrays and other values"),
    };
    let help = "write the column, or the field, in one way in all rows".to_owned();
    FileError::Table { message, help }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Objects with these fields.
    fn objects(names: &[&str]) -> Node {
        let mut node = Node::default();
        names.iter().for_each(|name| node.field(name).scalars.add("1"));
        node
    }

    fn refusal(files: &[(&str, &Node)]) -> Option<String> {
        let mut all = Node::default();
        files.iter().for_each(|(_, node)| all.merge(node));
        let values: Vec<(&Path, &Node)> =
            files.iter().map(|(path, node)| (Path::new(*path), *node)).collect();
        compare_fields("u", &values, &all).err().map(|error| error.to_string())
    }

    #[test]
    fn fields_twice_or_in_two_cases_are_refused_with_their_files() {
        let (lower, upper, both) =
            (objects(&["n", "id"]), objects(&["ID"]), objects(&["id", "ID"]));
        assert_eq!(refusal(&[("1", &lower), ("2", &lower)]), None);
        let said = "the fields u.id in 1 and u.ID in 2 differ only in case";
        assert_eq!(refusal(&[("1", &lower), ("2", &upper)]).as_deref(), Some(said));
        let said = "the fields u.id and u.ID in 2 differ only in case";
        assert_eq!(refusal(&[("1", &lower), ("2", &both)]).as_deref(), Some(said));
        let mut twice = objects(&["id"]);
        twice.field("id").twice = true;
        let nested = Node { array: Some(Box::new(twice)), ..Node::default() };
        let said = "an object in 2 has the field u[].id twice";
        assert_eq!(refusal(&[("1", &Node::default()), ("2", &nested)]).as_deref(), Some(said));
    }
}
