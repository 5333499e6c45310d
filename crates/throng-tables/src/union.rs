//! Merges files into one table: columns are matched by name, the table has the columns of all
//! files, and a column has the narrowest type that represents the values of all files. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use datafusion::arrow::datatypes::DataType;
use throng_files::{
    DataFile, FileError, HeaderEvidence, Node, NumberForms, ReadOptions, Table, TableHeader,
    TextForms, compare_fields, compare_kinds, mixed, shown_name, shown_path,
};
use throng_spec::ColumnType;

use super::compare::{
    Names, compare_columns, compare_headers, compare_spellings, refuse_hudi_files,
};
use super::declared;
use super::file_schema::{ColumnContents, FileSchema};
use super::inferred::node_type;
use super::layout::{Column, FilePlan, Layout, Origin, TypeConflict, is_text, shown};
use super::nested::difference;
use super::widen::{represents, widened};

/// Merges the files with their schemas into one table.
///
/// # Errors
/// [`FileError::Table`] naming two files, if the files do not belong to one table.
pub fn union(
    table: &Table,
    schemas: &[impl AsRef<FileSchema>],
    options: &ReadOptions,
) -> Result<Layout, FileError> {
    let files: Vec<(&DataFile, &FileSchema)> =
        table.files.iter().zip(schemas.iter().map(AsRef::as_ref)).collect();
    refuse_hudi_files(&files, options)?;
    compare_headers(&files)?;
    let names = Names::of(&files);
    compare_spellings(&files, &names)?;
    compare_columns(&files)?;
    let positional = options.positional();
    let header = TableHeader::of(&headers(&files));
    let (trim, passed_over) = (options.trim, table.passed_over.clone());
    let mut layout = Layout { header, trim, positional, passed_over, ..Layout::default() };
    let mut merged_places: BTreeMap<String, usize> = BTreeMap::new();
    let mut merged: Vec<MergedColumn<'_>> = Vec::new();
    for (file, schema) in &files {
        let columns = schema.columns.iter().map(|c| (c.name.as_str(), Some(&c.contents)));
        let folders = file.folders.iter().map(|(name, _)| (name.as_str(), None));
        for (name, contents) in columns.chain(folders) {
            let name = names.table_name(name);
            if names.is_twice(name) {
                continue;
            }
            let at = *merged_places.entry(name.to_owned()).or_insert_with(|| {
                merged.push(MergedColumn { name, values: Vec::new(), typed: Vec::new() });
                merged.len() - 1
            });
            match contents {
                Some(ColumnContents::Values(node)) => merged[at].values.push((file.path(), node)),
                Some(ColumnContents::Typed(of)) => merged[at].typed.push((file.path(), of)),
                None => {}
            }
        }
    }
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for column in &merged {
        match column.resolve(options) {
            Ok(resolved) => {
                if is_text(&resolved.data_type) {
                    layout.number_forms.push((resolved.name.clone(), column.number_forms()));
                }
                places.insert(column.name, layout.columns.len());
                layout.columns.push(resolved);
            }
            // Only who uses the column has to know.
            Err(FileError::Table { message, help }) => {
                let column = column.name.to_owned();
                layout.conflicts.push(TypeConflict { column, message, help });
                continue;
            }
            Err(error) => return Err(error),
        }
        // The column is the last one of the layout.
        column.note_texts(options, &mut layout);
    }
    for (file, schema) in &files {
        let mut origins = vec![Origin::Missing; layout.columns.len()];
        let mut add = |name: &str, origin| {
            if let Some(at) = places.get(names.table_name(name)) {
                origins[*at] = origins[*at].and(origin);
            }
        };
        for column in &schema.columns {
            add(&column.name, Origin::Column(column.name.clone()));
        }
        for (name, value) in &file.folders {
            add(name, Origin::Folder(value.clone()));
        }
        layout.files.push(FilePlan { file: (*file).clone(), origins, rows: Some(schema.rows) });
    }
    layout.twice = names.twice.into_iter().collect();
    let is_declared = |name: &str| options.declared(name).is_some();
    let shown = |name: &str| layout.header.shown(name).into_owned();
    compare_kinds(&layout.file_columns(), is_declared, &shown)?;
    Ok(layout)
}

/// The evidence of each file that it begins with a header, and its names.
fn headers<'a>(
    files: &'a [(&DataFile, &FileSchema)],
) -> Vec<(&'a Path, HeaderEvidence, BTreeSet<&'a str>)> {
    let names = |schema: &'a FileSchema| schema.columns.iter().map(|c| c.name.as_str()).collect();
    files.iter().map(|(file, schema)| (file.path(), schema.header, names(schema))).collect()
}

/// The first CSV or JSON file that has a value, the type of all of them, and how the values are
/// written.
type Written<'a> = (&'a Path, DataType, Option<&'static str>);

/// Digits after the point of a type whose numbers all have the same count of them.
fn scale(of: &DataType) -> Option<i8> {
    match of {
        DataType::Decimal128(_, scale) => Some(*scale),
        other => other.is_integer().then_some(0),
    }
}

/// A column with its values and types in all files.
struct MergedColumn<'a> {
    name: &'a str,
    /// Of CSV and JSON files.
    values: Vec<(&'a Path, &'a Node)>,
    /// Of Parquet files.
    typed: Vec<(&'a Path, &'a DataType)>,
}

impl MergedColumn<'_> {
    fn resolve(&self, options: &ReadOptions) -> Result<Column, FileError> {
        let column = |data_type, written: Option<&str>| Column {
            name: self.name.to_owned(),
            data_type,
            converted: false,
            empty: false,
            written: written.map(str::to_owned),
        };
        if let Some(declared) = options.declared(self.name) {
            let wanted = declared::data_type(declared);
            for (path, of) in &self.typed {
                if !represents(&wanted, of) {
                    let name = self.name;
                    return Err(FileError::Table {
                        message: format!(
                            "column {} is {} in {} and declared {declared}",
                            shown_name(name),
                            shown(of),
                            path.display()
                        ),
                        help: format!(
                            "a Parquet file states the types of its columns: leave the type of {} \
                             undeclared, and use CAST in the SQL",
                            shown_name(name)
                        ),
                    });
                }
            }
            return Ok(Column { converted: true, ..column(wanted, None) });
        }
        let (values, typed) = (self.values()?, self.typed()?);
        let (Some((text_path, of, _)), Some((typed_path, wanted))) = (&values, &typed) else {
            return Ok(match (values, typed) {
                (Some((_, of, written)), _) => column(of, written),
                (None, Some((_, of))) => column(of, None),
                // No file has a value.
                (None, None) => Column { empty: true, ..column(DataType::Utf8View, None) },
            });
        };
        let doubles = *wanted == DataType::Float64
            && self.values.iter().all(|(_, node)| node.scalars.fits_double());
        match widened(of, wanted) {
            Some(both) => Ok(column(both, None)),
            None if doubles => Ok(column(DataType::Float64, None)),
            None => Err(self.refusal((*text_path, of), (*typed_path, wanted))),
        }
    }

    /// Adds the column to the lists of those whose texts are doubtful as keys.
    fn note_texts(&self, options: &ReadOptions, layout: &mut Layout) {
        let name = || self.name.to_owned();
        if self.values.iter().any(|(_, node)| node.scalars.padded) {
            layout.padded.push(name());
        }
        if self.values.iter().any(|(_, node)| node.scalars.spreadsheet) {
            layout.spreadsheet.push(name());
        }
        if options.declared(self.name).is_some_and(|declared| self.is_rewritten(declared)) {
            layout.rewritten.push(name());
        }
        if layout.columns.last().is_some_and(|column| is_text(&column.data_type)) {
            let mut forms = TextForms::default();
            self.values.iter().for_each(|(_, node)| forms.merge(&node.scalars.forms));
            if self.typed.iter().any(|(_, of)| of.is_integer()) {
                forms.add_integers();
            }
            layout.doubtful.extend(forms.doubts().map(|doubt| (name(), doubt)));
        }
    }

    /// The forms by which the values of all files are numbers or dates.
    fn number_forms(&self) -> NumberForms {
        let unread = self.typed.iter().any(|(_, of)| is_text(of));
        let mut all = NumberForms::of(unread);
        self.values.iter().for_each(|(_, node)| all.merge(&node.scalars.number_forms));
        all
    }

    /// Whether the declared type gives a number another text than its file does.
    fn is_rewritten(&self, declared: ColumnType) -> bool {
        let other = |of: &DataType| match declared {
            ColumnType::Decimal { scale: digits, .. } => {
                scale(of).is_some_and(|scale| scale != digits.cast_signed())
            }
            _ => false,
        };
        self.values.iter().any(|(_, node)| node.scalars.rewritten)
            || self.typed.iter().any(|(_, of)| other(of))
    }

    /// The type of the CSV and JSON files together, with the first file that has a value.
    fn values(&self) -> Result<Option<Written<'_>>, FileError> {
        let mut all = Node::default();
        let mut first = None;
        for (path, node) in &self.values {
            if !node.kinds().is_empty() {
                first.get_or_insert(*path);
            }
            all.merge(node);
        }
        compare_fields(self.name, &self.values, &all)?;
        let resolved =
            node_type(&all).map_err(|found| mixed(self.name, &self.values, &found.path))?;
        Ok(resolved.zip(first).map(|((of, written), path)| (path, of, written)))
    }

    /// The type of the Parquet files together, with the first file that has it or a narrower one.
    fn typed(&self) -> Result<Option<(&Path, DataType)>, FileError> {
        let mut resolved: Option<(&Path, DataType)> = None;
        for (path, of) in &self.typed {
            resolved = match resolved {
                _ if **of == DataType::Null => resolved,
                None => Some((path, (*of).clone())),
                Some((before, wide)) => match widened(&wide, of) {
                    Some(both) if both == wide => Some((before, wide)),
                    Some(both) => Some((path, both)),
                    None => {
                        return Err(self.refusal((before, &wide), (*path, *of)));
                    }
                },
            };
        }
        Ok(resolved)
    }

    fn refusal(&self, a: (&Path, &DataType), b: (&Path, &DataType)) -> FileError {
        let (path, a_type, b_type) =
            difference(a.1, b.1).unwrap_or_else(|| (Vec::new(), Some(a.1), Some(b.1)));
        let name = shown_path(self.name, &path);
        let of = |of: Option<&DataType>| of.map_or_else(|| "missing".to_owned(), shown);
        let message = format!(
            "column {name} is {} in {} and {} in {}",
            of(a_type),
            a.0.display(),
            of(b_type),
            b.0.display()
        );
        let help = if path.is_empty() && !a.1.is_nested() && !b.1.is_nested() {
            self.one_type(&name, [a.1, b.1])
        } else {
            "write the objects and arrays of all files with the same fields, of the same types"
                .to_owned()
        };
        FileError::Table { message, help }
    }

    /// How the files are made to agree. No declaration changes the type that a Parquet file states.
    fn one_type(&self, name: &str, types: [&DataType; 2]) -> String {
        if self.typed.iter().all(|(_, of)| shown(of) == "text") {
            return format!("declare `columns: {{ {name}: text }}` in the source");
        }
        if let [Some(a), Some(b)] = types.map(scale) {
            return format!(
                "write the Parquet files again with one type; or, if the column has amounts and no keys, declare \
                 `columns: {{ {name}: \"decimal(38, {})\" }}` in the source",
                a.max(b)
            );
        }
        format!(
            "write the Parquet files again with one type, {} in the query that exports them; a declared type does not \
             change what a Parquet file states",
            suggested(types)
        )
    }
}

/// The type that files with two types are written with.
fn suggested(types: [&DataType; 2]) -> &'static str {
    let is_number = |of: &DataType| {
        of.is_integer() || of.is_floating() || matches!(of, DataType::Decimal128(..))
    };
    if types.into_iter().all(is_number) {
        "such as CAST(… AS DOUBLE) if it has amounts, or CAST(… AS BIGINT) if it has keys"
    } else if types.into_iter().all(DataType::is_temporal) {
        "such as CAST(… AS TIMESTAMP)"
    } else {
        "such as CAST(… AS VARCHAR)"
    }
}
