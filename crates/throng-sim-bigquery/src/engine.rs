//! Runs the SQL of jobs: over folders of files by the lake, or from fixed results.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use async_trait::async_trait;
use futures::StreamExt;
use serde_json::{Value, json};
use throng_lake::{
    Hashers, IdentifierQuery, Lake, LakeError, LakeLimits, RowHasher, WorkerCommand,
};
use throng_model::{HashSeed, Personal, SourceName};
use throng_spec::{NodeSettings, Source};

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    name: String,
    of: String,
    mode: &'static str,
}

impl Column {
    /// A column of this type of the API, such as `STRING` or `INTEGER`.
    pub fn new(name: &str, of: &str) -> Self {
        Self { name: name.to_owned(), of: of.to_owned(), mode: "NULLABLE" }
    }

    /// A column of arrays.
    pub fn array(name: &str, of: &str) -> Self {
        Self { mode: "REPEATED", ..Self::new(name, of) }
    }
}

/// A result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, with cells as the API writes them.
    pub rows: Vec<Vec<Option<String>>>,
    /// The bytes that were read for it.
    pub bytes: u64,
}

impl Table {
    pub(crate) fn schema(&self) -> Value {
        let field = |column: &Column| {
            let Column { name, of, mode } = column;
            json!({ "name": name, "type": of, "mode": mode })
        };
        json!({ "fields": self.columns.iter().map(field).collect::<Vec<_>>() })
    }
}

/// Why SQL cannot be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError(pub String);

impl SqlError {
    /// How the message of an error begins that is one of the simulator, and not of SQL that BigQuery would refuse.
    pub(crate) const SIMULATOR: &str = "the simulator ";
    /// What the message about a table that is not there contains.
    pub(crate) const NO_TABLE: &str = "there is no table ";

    /// An error of the engine for folders. Its SQL is not that of BigQuery, and its files are not in BigQuery: the
    /// message says so, because the SQL may be right.
    fn of_engine(error: &LakeError) -> Self {
        let (simulator, message) = (Self::SIMULATOR, throng_model::with_causes(error));
        match error {
            LakeError::Sql { .. } if message.contains(Self::NO_TABLE) => Self(message),
            LakeError::Sql { help, .. } => {
                let help = help.as_deref().map_or_else(String::new, |help| format!("; {help}"));
                Self(format!("{simulator}runs the SQL of throng's engine: {message}{help}"))
            }
            _ => Self(format!("{simulator}cannot run the query over its files: {message}")),
        }
    }
}

/// Runs SQL.
#[async_trait]
pub trait Engine: Send + Sync {
    /// The result of a query; `dataset` is for tables that are named without one.
    ///
    /// # Errors
    /// [`SqlError`].
    async fn query(&self, sql: &str, dataset: Option<&str>) -> Result<Table, SqlError>;
}

/// Results by the text of their SQL.
#[derive(Debug, Clone, Default)]
pub struct FixedTables(pub BTreeMap<String, Table>);

#[async_trait]
impl Engine for FixedTables {
    async fn query(&self, sql: &str, _dataset: Option<&str>) -> Result<Table, SqlError> {
        self.0.get(sql).cloned().ok_or_else(|| SqlError("Unrecognized name".to_owned()))
    }
}

/// A folder in which each subfolder is a dataset, with Parquet, CSV and JSON files as its tables.
#[derive(Debug)]
pub struct FolderEngine {
    folder: PathBuf,
    lake: Lake,
}

/// The name of a column that is added to every query: the lake's rows need a key.
const ROW: &str = "throng_row";

impl FolderEngine {
    /// Opens a folder. `worker` starts a program that calls [`row_worker`]; `spill_dir` is for its
    /// temporary files.
    ///
    /// # Errors
    /// If the folder cannot be listed, or a dataset has no valid name.
    pub fn open(
        folder: &Path,
        spill_dir: PathBuf,
        worker: WorkerCommand,
    ) -> Result<Self, std::io::Error> {
        let mut sources = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !entry.path().is_dir() {
                continue;
            }
            let name: SourceName = name.parse().map_err(std::io::Error::other)?;
            let path = entry.path().canonicalize()?;
            sources.push(Source {
                name,
                path,
                root: None,
                description: None,
                columns: Vec::new(),
                trim: false,
                header: None,
                bucket: None,
            });
        }
        let limits = LakeLimits::of(&NodeSettings::default(), spill_dir, worker);
        let lake = Lake::new(&sources, limits, None).map_err(std::io::Error::other)?;
        Ok(Self { folder: folder.to_owned(), lake })
    }

    /// The size of all files of the datasets that the SQL names, and of the one that it need not name.
    fn bytes(&self, sql: &str, dataset: Option<&str>) -> u64 {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let named = entries.filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| dataset == Some(name) || sql.contains(&format!("{name}.")))
        });
        named.map(|entry| size_of(&entry.path())).sum()
    }

    /// The tables of a dataset, by name.
    async fn tables(&self, dataset: &str) -> Result<Vec<String>, LakeError> {
        let listed = self.lake.list_files().await?.into_iter();
        let tables =
            listed.filter(|source| source.name == dataset).flat_map(|source| source.tables);
        Ok(tables.map(|table| table.name).collect())
    }
}

fn size_of(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_of(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// SQL of BigQuery as the lake's: table names in backquotes lose their quotes and their project.
/// Pure.
fn lake_sql(sql: &str) -> String {
    let mut sql = sql.trim_start();
    // Comments that only BigQuery has.
    while sql.starts_with('#') {
        sql = sql.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
    }
    let mut out = String::with_capacity(sql.len());
    for (number, piece) in sql.split('`').enumerate() {
        let names: Vec<&str> = piece.split('.').collect();
        match (number % 2, names.as_slice()) {
            (1, [.., dataset, table]) => out.push_str(&format!("{dataset}.{table}")),
            (1, _) => out.push_str(&format!("\"{piece}\"")),
            _ => out.push_str(piece),
        }
    }
    out
}

/// Whether a query defines this name itself, by `WITH name AS (`. Pure.
fn is_defined(sql: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    sql.match_indices(name).any(|(at, _)| {
        let (before, after) = (&sql[..at], &sql[at + name.len()..]);
        let is_whole = !before.ends_with(is_part) && !after.starts_with(is_part);
        let rest = after.trim_start_matches('`').trim_start();
        let query = rest.split_at_checked(2).filter(|(word, _)| word.eq_ignore_ascii_case("as"));
        is_whole && query.is_some_and(|(_, query)| query.trim_start().starts_with('('))
    })
}

/// The lake's SQL of a query of BigQuery, with a key in each row. `tables` of the default dataset can be named without
/// it. Pure.
fn with_keys(sql: &str, dataset: &str, tables: &[String]) -> String {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let words: BTreeSet<&str> = sql.split(|c: char| !is_part(c)).collect();
    // The engine refuses a name that an enclosing query defines too.
    let named = tables
        .iter()
        .filter(|table| words.contains(table.as_str()) && !is_defined(sql, table.as_str()));
    let named: Vec<String> = named
        .map(|table| format!("\"{table}\" AS (SELECT * FROM \"{dataset}\".\"{table}\")"))
        .collect();
    let with = match named.is_empty() {
        true => String::new(),
        false => format!("WITH {} ", named.join(", ")),
    };
    // On a line of its own: the query may end with a comment.
    format!("{with}SELECT 1 AS {ROW}, t.* FROM ({}\n) AS t", lake_sql(sql))
}

/// The API's type of a column of the lake.
fn column(name: &str, of: &str) -> Column {
    let api = match of {
        of if of.starts_with("List") => return Column::array(name, "STRING"),
        of if of.starts_with("Struct") => "RECORD",
        of if of.starts_with("Int") || of.starts_with("UInt") => "INTEGER",
        of if of.starts_with("Float") => "FLOAT",
        of if of.starts_with("Decimal") => "NUMERIC",
        of if of.starts_with("Timestamp") => "TIMESTAMP",
        of if of.starts_with("Date") => "DATE",
        "Boolean" => "BOOLEAN",
        _ => "STRING",
    };
    Column::new(name, api)
}

#[async_trait]
impl Engine for FolderEngine {
    async fn query(&self, sql: &str, dataset: Option<&str>) -> Result<Table, SqlError> {
        let bytes = self.bytes(sql, dataset);
        let failed = |error: LakeError| SqlError::of_engine(&error);
        let sql = match dataset {
            Some(dataset) => with_keys(sql, dataset, &self.tables(dataset).await.map_err(failed)?),
            None => with_keys(sql, "", &[]),
        };
        let info = self.lake.check_model(&sql, Some(ROW)).await.map_err(failed)?;
        let found = info.columns.iter().filter(|(name, _)| name != ROW);
        let columns: Vec<Column> = found.map(|(name, of)| column(name, of)).collect();
        if let Some((name, _)) = info.columns.iter().find(|(_, of)| of.contains("Binary")) {
            let simulator = SqlError::SIMULATOR;
            return Err(SqlError(format!("{simulator}does not serve BYTES: column {name}")));
        }
        let query = IdentifierQuery {
            sql,
            key: ROW.to_owned(),
            columns: columns.iter().map(|column| column.name.clone()).collect(),
            hasher: Value::Null,
        };
        let mut stream = self.lake.identifiers(&query, HashSeed(0)).await.map_err(failed)?;
        let mut rows = Vec::new();
        while let Some(batch) = stream.next().await {
            for (_, row) in batch.map_err(failed)? {
                let row = serde_json::from_slice(&row);
                let mut row: Vec<Option<String>> =
                    row.map_err(|_| SqlError("a row cannot be read".to_owned()))?;
                shorten_decimals(&columns, &mut row);
                rows.push(row);
            }
        }
        Ok(Table { columns, rows, bytes })
    }
}

/// Removes the zeros at the end of decimals, which the API does not write: of `12.50` and `42.000` it writes `12.5` and
/// `42`.
fn shorten_decimals(columns: &[Column], row: &mut [Option<String>]) {
    for (column, cell) in columns.iter().zip(row) {
        if column.of == "NUMERIC"
            && let Some(text) = cell
            && text.contains('.')
        {
            let length = text.trim_end_matches('0').trim_end_matches('.').len();
            text.truncate(length);
        }
    }
}

/// Returns cells as they are. Only the simulator's worker does: its tables are not people.
struct Rows;

impl Hashers for Rows {
    fn open(&self, _settings: &Value) -> Result<Box<dyn RowHasher>, String> {
        Ok(Box::new(Self))
    }
}

impl RowHasher for Rows {
    fn hash(&mut self, cells: &[Option<Personal>], out: &mut Vec<u8>) {
        let cells: Vec<Option<&str>> =
            cells.iter().map(|cell| cell.as_ref().map(Personal::expose)).collect();
        out.extend_from_slice(json!(cells).to_string().as_bytes());
    }
}

/// The `main` of the program that [`FolderEngine`] starts to run SQL.
pub fn row_worker() -> ExitCode {
    throng_lake::worker::main(&Rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_lose_their_project() {
        let sql = "SELECT user_id FROM `app-prod.events.clicks` c JOIN `events.users` u USING (`user_id`)";
        assert_eq!(
            lake_sql(sql),
            "SELECT user_id FROM events.clicks c JOIN events.users u USING (\"user_id\")"
        );
        assert_eq!(column("a", "Int64"), Column::new("a", "INTEGER"));
        assert_eq!(column("a", "List(Utf8)"), Column::array("a", "STRING"));
    }

    #[test]
    fn queries_may_have_comments_and_tables_without_their_dataset() {
        let alone = |sql: &str| with_keys(sql, "", &[]);
        assert_eq!(
            alone("# all\n\n#two\nSELECT id FROM d.t -- fine"),
            "SELECT 1 AS throng_row, t.* FROM (SELECT id FROM d.t -- fine\n) AS t"
        );
        let tables = ["cricket".to_owned(), "user".to_owned()];
        assert_eq!(
            with_keys("SELECT user_id FROM `cricket`", "segments", &tables),
            "WITH \"cricket\" AS (SELECT * FROM \"segments\".\"cricket\") SELECT 1 AS throng_row, t.* FROM (SELECT \
             user_id FROM \"cricket\"\n) AS t"
        );
        // A name that the query defines itself hides the table.
        for sql in [
            "WITH cricket AS (SELECT user_id FROM segments.cricket) SELECT user_id FROM cricket",
            "with a as (select 1), `cricket` as\n(SELECT id FROM segments.t) SELECT id FROM `cricket`",
        ] {
            let found = with_keys(sql, "segments", &tables);
            assert!(found.starts_with("SELECT 1 AS throng_row"), "{found}");
        }
        let found = with_keys("WITH e_cricket AS (SELECT 1) SELECT id FROM cricket", "d", &tables);
        assert!(found.starts_with("WITH \"cricket\" AS"), "{found}");
    }

    #[test]
    fn an_error_of_the_engine_says_that_it_is_the_simulator() {
        let sql = |message: &str| LakeError::Sql {
            message: message.to_owned(),
            position: None,
            help: Some("write it otherwise".to_owned()),
        };
        let SqlError(message) = SqlError::of_engine(&sql("Invalid function 'date_sub'"));
        assert_eq!(
            message,
            "the simulator runs the SQL of throng's engine: Invalid function 'date_sub'; write it otherwise"
        );
        let SqlError(message) = SqlError::of_engine(&sql("there is no table events.views"));
        assert_eq!(message, "there is no table events.views");
        let SqlError(message) = SqlError::of_engine(&LakeError::Sink("clicks.csv, line 3".into()));
        assert!(message.starts_with("the simulator cannot run the query over its files: "));
        assert!(message.contains("clicks.csv, line 3"), "{message}");
    }

    #[test]
    fn decimals_are_written_without_zeros_at_their_end() {
        let columns = [column("n", "Decimal128(38, 9)"), column("t", "Utf8")];
        for (number, written) in
            [("12.500000000", "12.5"), ("42.000000000", "42"), ("-0.070", "-0.07"), ("100", "100")]
        {
            let mut row = [Some(number.to_owned()), Some(number.to_owned())];
            shorten_decimals(&columns, &mut row);
            assert_eq!(row, [Some(written.to_owned()), Some(number.to_owned())]);
        }
        let mut row = [None, None];
        shorten_decimals(&columns, &mut row);
        assert_eq!(row, [None, None]);
    }
}
