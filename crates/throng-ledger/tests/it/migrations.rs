//! Migrations only add, so that a node of the previous version can use a ledger that a newer one
//! has migrated (docs/operate/upgrades.md).

use std::collections::BTreeSet;
use std::path::Path;

/// Migrations up to this one are of the first version: there are no older nodes.
const FIRST_VERSION: u32 = 5;

/// The migrations of a dialect: number, name, text.
fn migrations(dialect: &str) -> Vec<(u32, String, String)> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("migrations")
        .join(dialect);
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let number = name.split('_').next().unwrap().parse().unwrap();
            (number, name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// The statements without comments, in upper case, with single spaces.
fn statements(text: &str) -> Vec<String> {
    let plain: Vec<&str> =
        text.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    let plain = plain.join(" ").to_uppercase();
    let words = |statement: &str| statement.split_whitespace().collect::<Vec<_>>().join(" ");
    plain.split(';').map(words).filter(|statement| !statement.is_empty()).collect()
}

/// Why a statement is not additive. `new`: the tables that migrations after the first version
/// create.
fn objection(statement: &str, new: &mut BTreeSet<String>) -> Option<&'static str> {
    let word = |place: usize| statement.split([' ', '(']).nth(place).unwrap_or_default();
    if statement.starts_with("CREATE TABLE ") {
        new.insert(word(2).to_owned());
        return None;
    }
    if statement.starts_with("CREATE INDEX ") {
        return None;
    }
    if statement.starts_with("CREATE UNIQUE INDEX ") {
        let table = statement.split(" ON ").nth(1).and_then(|rest| rest.split([' ', '(']).next());
        let is_new = table.is_some_and(|table| new.contains(table));
        return (!is_new).then_some("rows that an older node writes may break it");
    }
    if !statement.starts_with("ALTER TABLE ") || !statement.contains(" ADD COLUMN ") {
        return Some("it is none of CREATE TABLE, CREATE INDEX, ALTER TABLE … ADD COLUMN");
    }
    if new.contains(word(2)) {
        return None;
    }
    let given = statement.contains(" DEFAULT ") && !statement.contains(" DEFAULT NULL");
    if statement.contains(" NOT NULL") && !given {
        return Some("an older node writes rows without this column");
    }
    let narrow = [" UNIQUE", " PRIMARY KEY", "GENERATED"];
    narrow.iter().any(|word| statement.contains(word)).then_some("it is more than a new column")
}

#[test]
fn migrations_only_add() {
    for dialect in ["sqlite", "postgres"] {
        let mut new = BTreeSet::new();
        for (number, name, text) in migrations(dialect) {
            for statement in statements(&text).into_iter().filter(|_| number > FIRST_VERSION) {
                let wrong = objection(&statement, &mut new);
                assert_eq!(wrong, None, "{dialect}/{name}: {statement}");
            }
        }
    }
}

#[test]
fn statements_that_are_not_additive_are_found() {
    let mut new = BTreeSet::from(["FRESH".to_owned()]);
    for (statement, fine) in [
        ("CREATE TABLE t (a INTEGER NOT NULL)", true),
        ("CREATE UNIQUE INDEX i ON fresh (a)", true),
        ("CREATE UNIQUE INDEX i ON alerts (a)", false),
        ("ALTER TABLE alerts ADD COLUMN a TEXT -- NOT NULL\n", true),
        ("ALTER TABLE alerts ADD COLUMN a INTEGER NOT NULL DEFAULT 0", true),
        ("ALTER TABLE alerts ADD COLUMN a INTEGER NOT NULL", false),
        ("ALTER TABLE fresh ADD COLUMN a INTEGER NOT NULL", true),
        ("ALTER TABLE alerts DROP COLUMN a", false),
        ("ALTER TABLE alerts DROP CONSTRAINT a", false),
        ("ALTER TABLE alerts RENAME TO b", false),
        ("DROP TABLE alerts", false),
        ("UPDATE alerts SET a = 1", false),
        ("DROP INDEX alerts_open", false),
    ] {
        for statement in statements(statement) {
            assert_eq!(objection(&statement, &mut new).is_none(), fine, "{statement}");
        }
    }
}

/// Migrations after this one create indexes that may have been created before them.
const LAST_WITHOUT_EARLIER_INDEXES: u32 = 24;

/// An index blocks the writes to its table, which can be large: docs/operate/upgrades.md says how to create it before
/// the migration, without that.
#[test]
fn indexes_of_large_tables_can_be_created_before_the_migration() {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("../../docs/operate/upgrades.md");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase();
    let page = words(&std::fs::read_to_string(path).unwrap());
    let (mut found, mut new) = (0, BTreeSet::new());
    for (number, name, text) in migrations("postgres") {
        if number <= LAST_WITHOUT_EARLIER_INDEXES {
            continue;
        }
        for statement in statements(&text) {
            let is_index = objection(&statement, &mut new).is_none()
                && statement.starts_with("CREATE INDEX ")
                && !new.iter().any(|table| statement.contains(&format!(" ON {table} ")));
            if !is_index {
                continue;
            }
            let index = statement.strip_prefix("CREATE INDEX IF NOT EXISTS ");
            let index = index.unwrap_or_else(|| panic!("{name}: {statement}"));
            let before = format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {index};");
            assert!(page.contains(&before), "the page on upgrades lacks {before}");
            found += 1;
        }
    }
    assert!(found >= 6, "{found}");
}

/// Both dialects have the same migrations, numbered without a gap, and run all of them.
#[test]
fn both_dialects_have_the_same_migrations() {
    let names = |dialect| migrations(dialect).into_iter().map(|(_, name, _)| name);
    assert!(names("sqlite").eq(names("postgres")));
    let numbers: Vec<u32> = migrations("sqlite").into_iter().map(|(number, ..)| number).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u32), "{numbers:?}");
    for source in ["sqlite.rs", "postgres.rs"] {
        let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
            .join("src")
            .join(source);
        let text = std::fs::read_to_string(path).unwrap();
        for name in names("sqlite") {
            assert!(text.contains(&format!("/{name}")), "{source} does not run {name}");
        }
    }
}
