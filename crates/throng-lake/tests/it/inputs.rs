//! Whether the files of a query have changed, whether they are complete, and which queries depend on the
//! time.

use std::fs::File;
use std::time::{Duration, SystemTime};

use throng_lake::{InputQuery, InputState};

use crate::{Shop, model};

const VISITS: &str = "SELECT id FROM shop.visits";

async fn state(shop: &Shop, sql: &str, success_file: Option<&str>) -> InputState {
    let query = InputQuery {
        sql: sql.to_owned(),
        refuses_time: false,
        success_file: success_file.map(str::to_owned),
    };
    // A worker of its own: starting it takes longer than the clock of a file system ticks.
    shop.lake().input_states(&[query]).await.unwrap().remove(0)
}

async fn fingerprint(shop: &Shop, sql: &str) -> String {
    match state(shop, sql, None).await {
        InputState::Ready(fingerprint) => fingerprint,
        other => panic!("{sql}: {other:?}"),
    }
}

fn visits() -> Shop {
    Shop::new()
        .file("visits/1.csv", "id,n\n1,1\n2,2\n")
        .file("visits/2.csv", "id,n\n3,3\n")
        .file("users.csv", "id\n1\n")
}

fn set_modified(path: &std::path::Path, at: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

#[tokio::test]
async fn a_plan_has_the_state_of_the_files_that_it_reads() {
    let shop = visits();
    for sql in [
        VISITS,
        "SELECT v.id FROM shop.visits v JOIN shop.users u ON v.id = u.id",
        "WITH w AS (SELECT id FROM shop.users) SELECT id FROM w UNION SELECT id FROM shop.visits",
    ] {
        let (info, _) = shop.lake().plan_scan(&model(sql), &[]).await.unwrap();
        assert_eq!(info.inputs.fingerprint, fingerprint(&shop, sql).await, "{sql}");
        assert!(!info.inputs.time_dependent, "{sql}");
    }
}

#[tokio::test]
async fn every_change_of_a_file_changes_the_state() {
    let mut shop = visits();
    let folder = shop.folder().join("visits");
    let (first, second) = (folder.join("1.csv"), folder.join("2.csv"));
    let mut seen = vec![fingerprint(&shop, VISITS).await];
    assert_eq!(fingerprint(&shop, VISITS).await, seen[0], "nothing has changed");

    shop = shop.file("visits/3.csv", "id,n\n4,4\n");
    seen.push(fingerprint(&shop, VISITS).await);
    // Written in place, with the size and the time that it had.
    let modified = std::fs::metadata(&first).unwrap().modified().unwrap();
    shop = shop.file("visits/1.csv", "id,n\n8,1\n9,2\n");
    set_modified(&first, modified);
    seen.push(fingerprint(&shop, VISITS).await);
    // Replaced by a file with its size and its time.
    let aside = shop.folder().join("aside");
    std::fs::write(&aside, "id,n\n6,1\n7,2\n").unwrap();
    set_modified(&aside, modified);
    std::fs::rename(&aside, &first).unwrap();
    seen.push(fingerprint(&shop, VISITS).await);
    set_modified(&second, modified + Duration::from_secs(1));
    seen.push(fingerprint(&shop, VISITS).await);
    std::fs::rename(&second, folder.join("4.csv")).unwrap();
    seen.push(fingerprint(&shop, VISITS).await);
    std::fs::remove_file(folder.join("3.csv")).unwrap();
    seen.push(fingerprint(&shop, VISITS).await);

    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), seen.len(), "{seen:?}");
}

#[tokio::test]
async fn other_tables_do_not_matter_and_declared_types_do() {
    let shop = visits();
    let before = fingerprint(&shop, VISITS).await;
    let shop = shop.file("users.csv", "id\n1\n2\n").file("visits/_notes", "x");
    assert_eq!(fingerprint(&shop, VISITS).await, before);
    let shop = shop.declare("id", "text");
    let declared = fingerprint(&shop, VISITS).await;
    assert_ne!(declared, before);
    assert_ne!(fingerprint(&shop.trim(), VISITS).await, declared);
}

#[tokio::test]
async fn files_are_complete_with_a_success_file_that_is_not_older() {
    let shop =
        Shop::new().file("visits/day=1/a.csv", "id\n1\n").file("visits/day=2/b.csv", "id\n2\n");
    let incomplete = async |shop: &Shop| match state(shop, VISITS, Some("_SUCCESS")).await {
        InputState::Incomplete(why) => Some(why),
        InputState::Ready(_) => None,
        InputState::Refused(why) => panic!("{why}"),
    };
    let why = incomplete(&shop).await.unwrap();
    assert!(why.contains("_SUCCESS") && why.ends_with("visits/day=1/a.csv"), "{why}");
    // In the folder of the files.
    let shop = shop.file("visits/day=1/_SUCCESS", "");
    assert!(incomplete(&shop).await.unwrap().ends_with("visits/day=2/b.csv"));
    // In the folder of the table.
    let shop = shop.file("visits/_SUCCESS", "");
    assert_eq!(incomplete(&shop).await, None);
    let before = fingerprint(&shop, VISITS).await;
    for file in ["visits/_SUCCESS", "visits/day=1/_SUCCESS"] {
        set_modified(&shop.folder().join(file), SystemTime::UNIX_EPOCH + Duration::from_secs(9));
    }
    assert!(incomplete(&shop).await.is_some());
    // Of the source; it is not part of the state.
    let shop = shop.file("_SUCCESS", "");
    assert_eq!(incomplete(&shop).await, None);
    assert_eq!(fingerprint(&shop, VISITS).await, before);
}

#[tokio::test]
async fn several_queries_are_answered_together() {
    let shop = visits();
    let queries = [VISITS, "SELECT id FROM shop.gone", "SELECT 1", "SELECT id FROM shop.users"];
    let queries = queries
        .map(|sql| InputQuery { sql: sql.to_owned(), refuses_time: false, success_file: None })
        .to_vec();
    let states = shop.lake().input_states(&queries).await.unwrap();
    assert_eq!(states[0], InputState::Ready(fingerprint(&shop, VISITS).await));
    let InputState::Refused(why) = &states[1] else { panic!("{states:?}") };
    assert!(why.contains("shop.gone"), "{why}");
    assert!(matches!(&states[2], InputState::Ready(_)), "{states:?}");
    assert_ne!(states[3], states[0]);
}

#[tokio::test]
async fn queries_that_depend_on_the_time_are_found() {
    let shop = Shop::new().file("visits.csv", "id,seen\n1,2026-01-01T00:00:00\n");
    let lake = shop.lake();
    for (sql, depends) in [
        ("SELECT id FROM shop.visits WHERE seen > '2026-01-01'", false),
        ("SELECT id FROM shop.visits WHERE date_trunc('day', seen) = seen", false),
        ("SELECT id FROM shop.visits WHERE seen > now()", true),
        ("SELECT id FROM shop.visits WHERE seen > \"now\"()", true),
        ("SELECT id FROM shop.visits WHERE seen > current_date", true),
        ("SELECT id FROM shop.visits WHERE seen > current_timestamp - INTERVAL '7 days'", true),
        ("SELECT id FROM shop.visits GROUP BY id HAVING max(seen) > now()", true),
        (
            "SELECT id FROM shop.visits WHERE id IN (SELECT id FROM shop.visits WHERE seen < now())",
            true,
        ),
        (
            "WITH recent AS (SELECT id FROM shop.visits WHERE seen < now()) SELECT id FROM recent",
            true,
        ),
    ] {
        let info = lake.check_model(sql, None).await.unwrap();
        assert_eq!(info.inputs.time_dependent, depends, "{sql}");
        // The same without a plan, for queries of identifiers.
        let query = InputQuery { sql: sql.to_owned(), refuses_time: true, success_file: None };
        let state = lake.input_states(&[query]).await.unwrap().remove(0);
        assert_eq!(matches!(state, InputState::Refused(_)), depends, "{sql}: {state:?}");
    }
}
