//! Random folders of files, compared with DuckDB and `union_by_name`: every row is the same, or the
//! table is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use throng_model::UserKey;

use crate::{SEED, Shop, model, scan};

/// Prints, for each table, the texts of its rows.
const SCRIPT: &str = r#"
import duckdb, json, pathlib, sys
root, tables = pathlib.Path(sys.argv[1]), json.load(sys.stdin)
db = duckdb.connect()
answer = {}
for table, columns in tables.items():
    files = sorted(str(f) for f in (root / table).iterdir())
    kind = files[0].rsplit('.', 1)[1]
    read = {'csv': 'read_csv($1, union_by_name = true, header = true, all_varchar = true)',
            'jsonl': "read_json($1, union_by_name = true, format = 'newline_delimited')",
            'parquet': 'read_parquet($1, union_by_name = true)'}[kind]
    text = " || '|' || ".join(
        'coalesce(CAST("' + c + '" AS VARCHAR), ' + "'NULL')" for c in columns)
    rows = db.execute(f'SELECT {text} FROM {read}', [files]).fetchall()
    answer[table] = sorted({row[0] for row in rows})
json.dump(answer, sys.stdout)
"#;

/// Names of columns with the values that they hold: `n` is replaced by a number.
const COLUMNS: [(&str, &[&str]); 8] = [
    ("user_id", &["n"]),
    ("zip", &["00n", "n"]),
    ("a b", &["text n", "a, b n", "say \"\"n\"\""]),
    ("Größe", &["ü n"]),
    ("x[1]", &["xn"]),
    ("select", &["true", "false"]),
    ("flag", &["yes", "no"]),
    ("code", &["1En", "n.50"]),
];

/// A pseudo-random generator (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn shuffled<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for at in (1..items.len()).rev() {
            let other = self.below(at + 1);
            items.swap(at, other);
        }
        items
    }
}

/// The columns of a table's file, in some order: most of the table's.
fn some_columns(rng: &mut Random, all: &[usize]) -> Vec<usize> {
    let kept: Vec<usize> = all.iter().copied().filter(|at| *at == 0 || rng.below(4) > 0).collect();
    rng.shuffled(kept)
}

/// A value of a column; `None` is NULL.
fn value(rng: &mut Random, column: usize) -> Option<String> {
    let forms = COLUMNS[column].1;
    let form = forms[rng.below(forms.len())];
    // A blank line of CSV is not a row.
    (column == 0 || rng.below(8) > 0).then(|| form.replace('n', &rng.below(500).to_string()))
}

fn csv(columns: &[usize], rows: &[Vec<Option<String>>]) -> String {
    let cell = |text: &str| format!("\"{}\"", text.replace("\"\"", "\"").replace('"', "\"\""));
    let line = |cells: Vec<String>| cells.join(",") + "\n";
    let mut text = line(columns.iter().map(|at| cell(COLUMNS[*at].0)).collect());
    for row in rows {
        text += &line(row.iter().map(|v| v.as_deref().map(cell).unwrap_or_default()).collect());
    }
    text
}

fn jsonl(columns: &[usize], rows: &[Vec<Option<String>>]) -> String {
    let object = |row: &Vec<Option<String>>| {
        let fields = columns.iter().zip(row).map(|(at, value)| {
            let value = match value {
                Some(text) if *at == 0 => text.parse::<i64>().map(Into::into).unwrap(),
                Some(text) => serde_json::Value::from(text.as_str()),
                None => serde_json::Value::Null,
            };
            (COLUMNS[*at].0.to_owned(), value)
        });
        serde_json::Value::Object(fields.collect()).to_string() + "\n"
    };
    rows.iter().map(object).collect()
}

fn select(columns: &[usize], rows: &[Vec<Option<String>>]) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let row = |row: &Vec<Option<String>>| {
        let cells = row.iter().zip(columns).map(|(value, at)| match (value, at) {
            (Some(number), 0) => format!("CAST({number} AS BIGINT)"),
            (None, 0) => "CAST(NULL AS BIGINT)".to_owned(),
            (Some(text), _) => quoted(text),
            (None, _) => "CAST(NULL AS VARCHAR)".to_owned(),
        });
        format!("({})", cells.collect::<Vec<_>>().join(", "))
    };
    let names: Vec<String> = columns.iter().map(|at| format!("\"{}\"", COLUMNS[*at].0)).collect();
    let rows: Vec<String> = rows.iter().map(row).collect();
    format!("SELECT * FROM (VALUES {}) AS t ({})", rows.join(", "), names.join(", "))
}

/// A shop of random tables, with their columns.
async fn random(rng: &mut Random, tables: usize) -> (Shop, BTreeMap<String, Vec<&'static str>>) {
    let mut shop = Shop::new();
    let mut found = BTreeMap::new();
    for number in 0..tables {
        let table = format!("t{number}");
        let kind = ["csv", "jsonl", "parquet"][rng.below(3)];
        let all: Vec<usize> =
            (0..COLUMNS.len()).filter(|at| *at == 0 || rng.below(2) > 0).collect();
        let mut there = BTreeSet::new();
        for file in 0..1 + rng.below(4) {
            let columns = some_columns(rng, &all);
            there.extend(columns.iter().copied());
            let rows: Vec<Vec<Option<String>>> = (0..1 + rng.below(12))
                .map(|_| columns.iter().map(|at| value(rng, *at)).collect())
                .collect();
            let name = format!("{table}/{file}.{kind}");
            shop = match kind {
                "csv" => shop.file(&name, &csv(&columns, &rows)),
                "jsonl" => shop.file(&name, &jsonl(&columns, &rows)),
                _ => shop.parquet(&name, &select(&columns, &rows)).await,
            };
        }
        found.insert(table, there.into_iter().map(|at| COLUMNS[at].0).collect());
    }
    (shop, found)
}

#[tokio::test]
async fn random_folders_equal_duckdb() {
    let Some(python) = std::env::var_os("THRONG_ORACLE_PYTHON") else {
        assert!(std::env::var_os("CI").is_none(), "run `cargo xtask test`");
        return;
    };
    let mut rng = Random(0x5EED_0000_0000_0001);
    let (shop, tables) = random(&mut rng, 60).await;
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .arg(shop.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let question = serde_json::to_vec(&tables).unwrap();
    child.stdin.take().unwrap().write_all(&question).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected: BTreeMap<String, BTreeSet<String>> =
        serde_json::from_slice(&output.stdout).unwrap();
    let lake = shop.lake();
    let mut equal = 0;
    for (table, columns) in &tables {
        let texts: Vec<String> =
            columns.iter().map(|c| format!("coalesce(CAST(\"{c}\" AS VARCHAR), 'NULL')")).collect();
        let model = model(&format!("SELECT {} FROM shop.{table}", texts.join(" || '|' || ")));
        let parts = match lake.plan_scan(&model, &[]).await {
            Ok((_, parts)) => parts,
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains(&format!("/{table}/")), "{table}: {said}");
                continue;
            }
        };
        let mut found = BTreeSet::new();
        for part in &parts {
            found.extend(scan(&lake, &model, part).await.unwrap().0);
        }
        let wanted: BTreeSet<_> =
            expected[table].iter().map(|row| UserKey::text(row.as_str()).hash(SEED)).collect();
        assert_eq!(found, wanted, "{table} {columns:?}");
        equal += 1;
    }
    assert!(equal > 40, "only {equal} of 60 tables are not refused");
}
