//! JSON files: inferring their schema.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::de::IgnoredAny;
use throng_spec::ColumnType;

use crate::discover::DataFile;
use crate::fault::FileFault;
use crate::json_objects::JsonObjects;
use crate::names::{shown_name, spelling};
use crate::node::Node;
use crate::options::{IsValue, ReadOptions};
use crate::plain_words::HeaderEvidence;
use crate::schema::{TextColumn, TextSchema};
use crate::text::open;

/// The deepest nesting of objects and arrays.
const MAX_DEPTH: usize = 64;
/// Fields of all objects of a file.
const MAX_COLUMNS: usize = 10_000;
/// Names of types in descriptions of tables, without the size of one such as `decimal(9, 2)`.
const TYPES: [&str; 31] = [
    "bigint",
    "binary",
    "bool",
    "boolean",
    "bytes",
    "char",
    "date",
    "datetime",
    "decimal",
    "double",
    "float",
    "float32",
    "float64",
    "int",
    "int16",
    "int32",
    "int64",
    "integer",
    "long",
    "number",
    "numeric",
    "real",
    "smallint",
    "str",
    "string",
    "text",
    "time",
    "timestamp",
    "tinyint",
    "uuid",
    "varchar",
];

/// Infers the schema of a file from all of its values.
///
/// # Errors
/// If something in it is not a JSON object, or a value does not have the declared type of its
/// column; if the only object names a type for each column.
pub fn infer_schema(
    file: &DataFile,
    options: &ReadOptions,
    is_value: IsValue,
) -> Result<TextSchema, FileFault> {
    let path = file.path();
    let mut objects = JsonObjects::new(open(file)?, path);
    let mut columns = Columns::new(options, is_value);
    let mut rows = 0;
    let mut description = None;
    while let Some((object, line)) = objects.next_object()? {
        let valid: Result<IgnoredAny, _> = serde_json::from_slice(object);
        let text = match (valid, std::str::from_utf8(object)) {
            (Ok(_), Ok(text)) => text,
            (Err(error), _) => {
                let at = line + (error.line() as u64).saturating_sub(1);
                return Err(FileFault::new(path, Some(at), "it is not valid JSON"));
            }
            (_, Err(_)) => return Err(FileFault::new(path, Some(line), "it is not UTF-8")),
        };
        if rows == 0 && names_types(text) {
            description = Some(line);
        }
        columns.add(text, rows).map_err(|fault| {
            FileFault::new(path, Some(line), fault).with_help(
                "correct the value, or declare the column as text; objects and arrays have no \
                     declared type",
            )
        })?;
        rows += 1;
    }
    if let Some(line) = description.filter(|_| rows == 1) {
        let text = "it describes the columns of a table: each value is the name of a type";
        return Err(FileFault::new(path, Some(line), text)
            .with_help("move it out of the folder, or give it a name that begins with _"));
    }
    let names: Vec<String> = columns.found.iter().map(|column| column.name.clone()).collect();
    let columns = columns.found.into_iter().map(|column| TextColumn {
        name: column.name,
        values: column.node,
        twice: column.twice,
        beside: column.beside.iter().map(|at| names[*at].clone()).collect(),
    });
    Ok(TextSchema { columns: columns.collect(), rows, header: HeaderEvidence::Certain })
}

/// Whether an object has the name of a type for each field, as `{"user_id": "string", "total": "decimal(9, 2)"}`.
fn names_types(object: &str) -> bool {
    let Ok(fields) = serde_json::from_str::<BTreeMap<String, String>>(object) else { return false };
    let is_type = |value: &String| {
        let name = value.split('(').next().unwrap_or_default().trim().to_ascii_lowercase();
        TYPES.contains(&name.as_str())
    };
    !fields.is_empty() && fields.values().all(is_type)
}

struct Columns<'a> {
    options: &'a ReadOptions,
    is_value: IsValue,
    found: Vec<FoundColumn>,
    /// Columns by the normalized spelling of their names.
    spellings: HashMap<String, Vec<usize>>,
}

struct FoundColumn {
    name: String,
    declared: Option<ColumnType>,
    node: Node,
    /// The last row that has it.
    row: Option<u64>,
    twice: bool,
    /// Columns with other spellings of its name, and those of them that occur in one object with
    /// it.
    alike: Vec<usize>,
    beside: Vec<usize>,
}

impl<'a> Columns<'a> {
    fn new(options: &'a ReadOptions, is_value: IsValue) -> Self {
        Self { options, is_value, found: Vec::new(), spellings: HashMap::new() }
    }

    /// The column of a field. `guess` is its probable index: that of the field before, plus one.
    fn of(&mut self, name: &str, guess: usize) -> usize {
        if self.found.get(guess).is_some_and(|column| column.name == name) {
            return guess;
        }
        let there = self.found.iter().position(|column| column.name == name);
        there.unwrap_or_else(|| self.push(name))
    }

    fn push(&mut self, name: &str) -> usize {
        let at = self.found.len();
        let spelled = self.spellings.entry(spelling(name)).or_default();
        let alike = spelled.clone();
        spelled.push(at);
        for other in &alike {
            self.found[*other].alike.push(at);
        }
        self.found.push(FoundColumn {
            name: name.to_owned(),
            declared: self.options.declared(name),
            node: Node::default(),
            row: None,
            twice: false,
            alike,
            beside: Vec::new(),
        });
        at
    }

    /// Records which other spellings of a column's name are in the same row.
    fn record_beside(&mut self, at: usize, row: u64) {
        // Hardly any column has other spellings.
        for other in self.found[at].alike.clone() {
            if self.found[other].row == Some(row) && !self.found[at].beside.contains(&other) {
                self.found[at].beside.push(other);
                self.found[other].beside.push(at);
            }
        }
    }

    /// Counts the fields of an object, which is valid JSON.
    fn add(&mut self, object: &str, row: u64) -> Result<(), String> {
        let mut cursor = Cursor { rest: object };
        let mut guess = 0;
        cursor.skip(b'{');
        while let Some(name) = cursor.name() {
            let at = self.of(&name, guess);
            if at >= MAX_COLUMNS {
                return Err("its objects have more than 10000 fields".to_owned());
            }
            guess = at + 1;
            let (options, is_value) = (self.options, self.is_value);
            let column = &mut self.found[at];
            column.twice |= column.row == Some(row);
            column.row = Some(row);
            let value = Value { options, is_value, declared: column.declared };
            let counted = value.add(&mut cursor, &mut column.node, 0);
            counted.map_err(|fault| format!("column {}: {fault}", shown_name(&name)))?;
            self.record_beside(at, row);
        }
        Ok(())
    }
}

/// Adds the values of a column to its node.
struct Value<'a> {
    options: &'a ReadOptions,
    is_value: IsValue,
    declared: Option<ColumnType>,
}

impl Value<'_> {
    fn add(&self, cursor: &mut Cursor<'_>, node: &mut Node, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("objects and arrays are nested more than {MAX_DEPTH} deep"));
        }
        match cursor.peek() {
            Some(b'{' | b'[') if self.declared.is_some() => {
                Err("an object or array, where a type is declared".to_owned())
            }
            Some(b'{') => {
                node.object.get_or_insert_default();
                cursor.skip(b'{');
                let mut there = BTreeSet::new();
                while let Some(name) = cursor.name() {
                    let field = node.field(&name);
                    self.add(cursor, field, depth + 1)?;
                    field.twice |= !there.insert(name);
                }
                Ok(())
            }
            Some(b'[') => {
                let items = node.array.get_or_insert_default();
                cursor.skip(b'[');
                while cursor.more(b']') {
                    self.add(cursor, items, depth + 1)?;
                }
                Ok(())
            }
            Some(b'"') => {
                let text = cursor.string();
                self.scalar(self.options.cell(&text), true, node)
            }
            _ => match cursor.token() {
                "null" => Ok(()),
                token => self.scalar(token, false, node),
            },
        }
    }

    fn scalar(&self, text: &str, quoted: bool, node: &mut Node) -> Result<(), String> {
        match self.declared {
            Some(declared) if !(self.is_value)(declared, text) => {
                return Err(format!("the value is not of type {declared}"));
            }
            Some(declared) => node.scalars.add_declared(declared, text),
            None if !quoted => node.scalars.add(text),
            // A JSON string is text whatever it looks like.
            None => node.scalars.add_text(text),
        }
        Ok(())
    }
}

/// A position in valid JSON.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.rest.bytes().next()
    }

    /// Skips a byte, if it is next.
    fn skip(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        if there {
            self.rest = &self.rest[1..];
        }
        there
    }

    /// Skips a comma; after the last item skips the bracket and returns false.
    fn more(&mut self, end: u8) -> bool {
        self.skip(b',');
        self.peek().is_some() && !self.skip(end)
    }

    /// The name of the next field; skips its colon.
    fn name(&mut self) -> Option<Cow<'a, str>> {
        if !self.more(b'}') {
            return None;
        }
        let name = self.string();
        self.skip(b':');
        Some(name)
    }

    /// A string without its quotes.
    fn string(&mut self) -> Cow<'a, str> {
        let bytes = self.rest.as_bytes();
        let mut end = 1;
        let mut escapes = false;
        while end < bytes.len() && bytes[end] != b'"' {
            let escape = bytes[end] == b'\\';
            escapes |= escape;
            end += if escape { 2 } else { 1 };
        }
        let (quoted, rest) = self.rest.split_at((end + 1).min(bytes.len()));
        self.rest = rest;
        if escapes {
            Cow::Owned(serde_json::from_str(quoted).unwrap_or_default())
        } else {
            Cow::Borrowed(quoted.trim_matches('"'))
        }
    }

    /// A number or a word.
    fn token(&mut self) -> &'a str {
        let end = self.rest.find([',', '}', ']', ' ', '\t', '\r', '\n']).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Step;

    /// No column is declared.
    fn no_value(_: ColumnType, _: &str) -> bool {
        false
    }

    #[test]
    fn a_description_of_columns_is_refused() {
        use crate::format::Format;
        use crate::stamp::FileStamp;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("schema.json");
        let fault = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let stamp = FileStamp::of(&path).unwrap();
            let file =
                DataFile { stamp, format: Format::Json, gzipped: false, folders: Vec::new() };
            let fault = infer_schema(&file, &ReadOptions::default(), no_value).err()?;
            Some(format!("{fault}; {}", fault.help()))
        };
        for text in [
            "{\"user_id\":\"string\",\"c\":\"string\"}",
            "\n[{\"user_id\": \"BIGINT\", \"total\": \"decimal(9, 2)\"}]\n",
        ] {
            let fault = fault(text).unwrap();
            assert!(fault.contains("it describes the columns of a table"), "{fault}");
            assert!(fault.contains("begins with _"), "{fault}");
        }
        for text in [
            "{\"user_id\":\"string\",\"c\":\"a\"}",
            "{\"user_id\":\"string\",\"c\":1}",
            "{\"user_id\":\"string\"}\n{\"user_id\":\"date\"}",
            "{}",
        ] {
            assert_eq!(fault(text), None, "{text}");
        }
    }

    fn types(objects: &[&str]) -> Vec<String> {
        let options = ReadOptions::default();
        let mut columns = Columns::new(&options, no_value);
        for (object, row) in objects.iter().zip(0..) {
            columns.add(object, row).unwrap();
        }
        columns
            .found
            .iter()
            .map(|column| {
                let twice = if column.twice { " twice" } else { "" };
                let of = match (column.node.scalars.value_type(), column.node.kinds().len()) {
                    (_, 2..) => "mixed".to_owned(),
                    (Some((of, _)), _) => format!("{of:?}"),
                    (None, _) => "none".to_owned(),
                };
                format!("{}: {of}{twice}", column.name)
            })
            .collect()
    }

    #[test]
    fn a_field_has_the_common_type_of_its_values() {
        assert_eq!(
            types(&[
                r#"{"a": 1, "b": "1", "c": 1e3 , "d":18446744073709551615,"e\u0041":true, "f":null}"#,
                r#"{ "a":2, "c":7 }"#,
            ]),
            ["a: Integer", "b: Text", "c: Text", "d: Text", "eA: Boolean", "f: none"]
        );
        assert_eq!(types(&[r#"{"u":42}"#, r#"{"u":"A7"}"#]), ["u: Text"]);
        assert_eq!(
            types(&[r#"{"u":1.50}"#, r#"{"u":2.25}"#]),
            ["u: Decimal { digits: 18, scale: 2 }"]
        );
        assert_eq!(types(&[r#"{"u":1,"u":2}"#]), ["u: Integer twice"]);
        assert_eq!(types(&[r#"{"u":{"x":[1,2],"y":{}}}"#, r#"{"u":5}"#]), ["u: mixed"]);
        assert_eq!(types(&[r#"{"":"\"},"}"#, "{}"]), [": Text"]);
    }

    #[test]
    fn spellings_in_one_object_are_distinguished_from_those_in_several() {
        let options = ReadOptions::default();
        let mut columns = Columns::new(&options, no_value);
        for (object, row) in [
            r#"{"user_id":1,"a b":1}"#,
            r#"{"userId":2,"A_B":2,"ab":3}"#,
            r#"{"user_id":3,"a b":4}"#,
        ]
        .iter()
        .zip(0..)
        {
            columns.add(object, row).unwrap();
        }
        let beside: Vec<(&str, Vec<&str>)> = columns
            .found
            .iter()
            .map(|column| {
                let names = column.beside.iter().map(|at| columns.found[*at].name.as_str());
                (column.name.as_str(), names.collect())
            })
            .collect();
        assert_eq!(
            beside,
            [
                ("user_id", vec![]),
                ("a b", vec![]),
                ("userId", vec![]),
                ("A_B", vec!["ab"]),
                ("ab", vec!["A_B"]),
            ]
        );
    }

    #[test]
    fn a_field_that_an_object_has_twice_is_found() {
        let options = ReadOptions::default();
        let mut columns = Columns::new(&options, no_value);
        let one = r#"{"u":[{"id":1,"x":{"id":2}},{"id":3}],"v":{"id":4}}"#;
        columns.add(one, 0).unwrap();
        assert!(columns.found.iter().all(|column| column.node.repeated_field().is_none()));
        columns.add(r#"{"u":[{"id":1},{"x":{"id":2,"\u0069d":3}}],"v":{"id":4}}"#, 1).unwrap();
        let step = |name: &str| Step::Field(name.to_owned());
        let path = vec![Step::Items, step("x"), step("id")];
        let found: Vec<_> = columns.found.iter().map(|c| c.node.repeated_field()).collect();
        assert_eq!(found, [Some((path.clone(), path)), None]);
    }

    #[test]
    fn deep_nesting_is_refused() {
        let options = ReadOptions::default();
        let mut columns = Columns::new(&options, no_value);
        let object = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert!(columns.add(&object, 0).unwrap_err().contains("64"));
    }
}
