//! JSON files: inferring their schema, and reading their rows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::json::ReaderBuilder;
use datafusion::arrow::json::reader::Decoder;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use serde::de::IgnoredAny;
use throng_spec::ColumnType;

use super::declared::fits;
use super::discover::DataFile;
use super::fault::FileFault;
use super::file_schema::{ColumnContents, FileColumn, FileSchema, Node, ReadOptions};
use super::json_objects::JsonObjects;
use super::names::{shown_name, spelling};
use super::text::open;

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// The deepest nesting of objects and arrays.
const MAX_DEPTH: usize = 64;
/// Fields of all objects of a file.
const MAX_COLUMNS: usize = 10_000;

/// Infers the schema of a file from all of its values.
///
/// # Errors
/// If something in it is not a JSON object, or a value does not have the declared type of its
/// column.
pub(crate) fn infer_schema(
    file: &DataFile,
    options: &ReadOptions,
) -> Result<FileSchema, FileFault> {
    let path = file.path();
    let mut objects = JsonObjects::new(open(file)?, path);
    let mut columns = Columns::new(options);
    let mut rows = 0;
    while let Some((object, line)) = objects.next()? {
        let valid: Result<IgnoredAny, _> = serde_json::from_slice(object);
        let text = match (valid, std::str::from_utf8(object)) {
            (Ok(_), Ok(text)) => text,
            (Err(error), _) => {
                let at = line + (error.line() as u64).saturating_sub(1);
                return Err(FileFault::new(path, Some(at), "it is not valid JSON"));
            }
            (_, Err(_)) => return Err(FileFault::new(path, Some(line), "it is not UTF-8")),
        };
        columns.add(text, rows).map_err(|fault| {
            FileFault::new(path, Some(line), fault).with_help(
                "correct the value, or declare the column as text; objects and arrays have no \
                     declared type",
            )
        })?;
        rows += 1;
    }
    let names: Vec<String> = columns.found.iter().map(|column| column.name.clone()).collect();
    let columns = columns.found.into_iter().map(|column| FileColumn {
        name: column.name,
        contents: ColumnContents::Values(column.node),
        twice: column.twice,
        beside: column.beside.iter().map(|at| names[*at].clone()).collect(),
    });
    Ok(FileSchema { columns: columns.collect(), rows })
}

struct Columns<'a> {
    options: &'a ReadOptions,
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
    fn new(options: &'a ReadOptions) -> Self {
        Self { options, found: Vec::new(), spellings: HashMap::new() }
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
            let (options, column) = (self.options, &mut self.found[at]);
            column.twice |= column.row == Some(row);
            column.row = Some(row);
            let value = Value { options, declared: column.declared };
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
                while let Some(name) = cursor.name() {
                    self.add(cursor, node.field(&name), depth + 1)?;
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
            Some(declared) if !fits(declared, text) => {
                return Err(format!("the value is not of type {declared}"));
            }
            // A JSON string is text whatever it looks like.
            None if !quoted => node.scalars.add(text),
            _ => node.scalars.add_text(text),
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

/// The rows of a file.
pub(crate) struct Rows {
    path: PathBuf,
    objects: JsonObjects,
    decoder: Decoder,
    schema: SchemaRef,
}

impl Rows {
    /// Opens a file: `wanted` are names of columns in the file, with the types to read them as.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open(file: &DataFile, wanted: &[(String, DataType)]) -> Result<Self, FileFault> {
        let path = file.path();
        let fields: Vec<Field> =
            wanted.iter().map(|(name, of)| Field::new(name, of.clone(), true)).collect();
        let schema: SchemaRef = Schema::new(fields).into();
        let decoder = ReaderBuilder::new(SchemaRef::clone(&schema))
            .with_batch_size(BATCH_ROWS)
            .with_coerce_primitive(true)
            .build_decoder()
            .map_err(|error| FileFault::of_reader(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            objects: JsonObjects::new(open(file)?, path),
            decoder,
            schema,
        })
    }

    /// The next rows, with the wanted columns in their order; `None` at the end.
    ///
    /// # Errors
    /// If the file does not match its inferred schema.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>, FileFault> {
        let (mut rows, mut first) = (0, 0);
        while rows < BATCH_ROWS {
            let Some((object, line)) = self.objects.next()? else { break };
            if rows == 0 {
                first = line;
            }
            if !self.schema.fields().is_empty() {
                let decoded = self.decoder.decode(object);
                decoded
                    .map_err(|_| FileFault::new(&self.path, Some(line), "it is not valid JSON"))?;
            }
            rows += 1;
        }
        if rows == 0 {
            return Ok(None);
        }
        let fault = |text: &str| FileFault::new(&self.path, Some(first), text);
        let columns = match self.decoder.flush() {
            Ok(Some(batch)) if batch.num_rows() == rows => batch.columns().to_vec(),
            Ok(None) if self.schema.fields().is_empty() => Vec::new(),
            Ok(_) => return Err(fault("its rows cannot be separated")),
            Err(_) => {
                return Err(fault(
                    "in this or a later line, a value is not of the type that its column has in the \
                     other rows",
                ));
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options)
            .map(Some)
            .map_err(|error| FileFault::of_reader(&self.path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(objects: &[&str]) -> Vec<String> {
        let options = ReadOptions::default();
        let mut columns = Columns::new(&options);
        for (object, row) in objects.iter().zip(0..) {
            columns.add(object, row).unwrap();
        }
        columns
            .found
            .iter()
            .map(|column| {
                let twice = if column.twice { " twice" } else { "" };
                let of = match column.node.data_type() {
                    Ok(Some((of, _))) => of.to_string(),
                    Ok(None) => "none".to_owned(),
                    Err(_) => "mixed".to_owned(),
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
            ["a: Int64", "b: Utf8View", "c: Utf8View", "d: Utf8View", "eA: Boolean", "f: none"]
        );
        assert_eq!(types(&[r#"{"u":42}"#, r#"{"u":"A7"}"#]), ["u: Utf8View"]);
        assert_eq!(types(&[r#"{"u":1.50}"#, r#"{"u":2.25}"#]), ["u: Decimal128(18, 2)"]);
        assert_eq!(types(&[r#"{"u":1,"u":2}"#]), ["u: Int64 twice"]);
        assert_eq!(types(&[r#"{"u":{"x":[1,2],"y":{}}}"#, r#"{"u":5}"#]), ["u: mixed"]);
        assert_eq!(types(&[r#"{"":"\"},"}"#, "{}"]), [": Utf8View"]);
    }

    #[test]
    fn spellings_in_one_object_are_distinguished_from_those_in_several() {
        let options = ReadOptions::default();
        let mut columns = Columns::new(&options);
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
    fn deep_nesting_is_refused() {
        let options = ReadOptions::default();
        let mut columns = Columns::new(&options);
        let object = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert!(columns.add(&object, 0).unwrap_err().contains("64"));
    }
}
