//! Workspaces: SQL of one reaches no table of another, and no error names a source of another.

use std::path::Path;
use std::time::Duration;

use throng_lake::{InputQuery, InputState, Lake, LakeLimits, WorkerCommand};
use throng_spec::Source;

use crate::{hashes, users};

const VISITORS: &str = "SELECT id FROM shop.visits";

fn source(name: &str, path: &Path) -> Source {
    std::fs::create_dir_all(path).unwrap();
    let user = name.replace(':', "-");
    std::fs::write(path.join("visits.csv"), format!("id,n\n{user},1\n")).unwrap();
    Source {
        name: name.parse().unwrap(),
        path: path.to_owned(),
        root: None,
        description: None,
        columns: Vec::new(),
        trim: false,
        header: None,
        bucket: None,
    }
}

/// The default workspace and two others, each with a source `shop`; one has a source `web` besides.
fn sources(dir: &Path) -> [Source; 4] {
    let names = ["shop", "acme:shop", "globex:shop", "globex:web"];
    names.map(|name| source(name, &dir.join(name.replace(':', "-"))))
}

fn lake(dir: &Path) -> Lake {
    lake_over(dir, &sources(dir))
}

fn lake_over(dir: &Path, sources: &[Source]) -> Lake {
    let spill_dir = dir.join("spill");
    std::fs::create_dir(&spill_dir).unwrap();
    let limits = LakeLimits {
        memory_bytes: 256 << 20,
        spill_dir,
        threads: 2,
        queries: 1,
        timeout: Duration::from_secs(600),
        worker: WorkerCommand::of(env!("CARGO_BIN_EXE_lake-query-worker")),
    };
    Lake::new(sources, limits, None).unwrap()
}

/// The message and the help of a query that is refused.
async fn refusal(lake: &Lake, sql: &str) -> (String, String) {
    let error = lake.check_model(sql, None).await.unwrap_err();
    (throng_model::with_causes(&error), error.help().unwrap_or_default())
}

#[tokio::test]
async fn each_workspace_reads_its_own_sources() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(dir.path());
    for (workspace, user) in
        [(None, "shop"), (Some("acme"), "acme-shop"), (Some("globex"), "globex-shop")]
    {
        let (found, ..) = users(&lake.in_workspace(workspace), VISITORS).await;
        assert_eq!(found, hashes([user]), "{workspace:?}");
    }
}

#[tokio::test]
async fn a_source_of_another_workspace_is_as_unknown_as_one_that_does_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(dir.path());
    for workspace in [None, Some("acme")] {
        let lake = lake.in_workspace(workspace);
        let (message, help) = refusal(&lake, "SELECT id FROM nowhere.visits").await;
        for (table, source) in [
            ("web.visits", "web"),
            ("\"globex:web\".visits", "globex:web"),
            ("\"globex:shop\".visits", "globex:shop"),
            ("\"acme:shop\".visits", "acme:shop"),
            ("globex.web.visits", "web"),
        ] {
            let found = refusal(&lake, &format!("SELECT id FROM {table}")).await;
            assert!(found.0.contains(&format!("there is no source {source}")), "{found:?}");
            assert_eq!(found.1, help, "{workspace:?} {table}");
        }
        assert!(message.contains("there is no source nowhere"), "{message}");
        assert_eq!(help, "the sources are: shop");
    }
}

#[tokio::test]
async fn a_workspace_without_sources_has_no_tables() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(dir.path()).in_workspace(Some("initech"));
    let (message, help) = refusal(&lake, VISITORS).await;
    assert!(message.contains("there is no source shop"), "{message}");
    assert_eq!(help, "declare a source");
    assert_eq!(lake.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_link_to_the_folder_of_another_workspace_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(dir.path());
    let other = dir.path().join("globex-shop/visits.csv");
    std::os::unix::fs::symlink(&other, dir.path().join("acme-shop/linked.csv")).unwrap();
    let acme = lake.in_workspace(Some("acme"));
    assert!(acme.check_model("SELECT id FROM shop.linked", None).await.is_err());
}

/// All folders are below one that the node may read: links of the default workspace may lead anywhere in it.
#[tokio::test]
async fn links_of_a_workspace_stay_in_its_folder_whatever_the_node_may_read() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sources = sources(dir.path());
    let sources = sources.map(|source| Source { root: Some(dir.path().to_owned()), ..source });
    let lake = lake_over(dir.path(), &sources);
    let link = |from: &str, to: &Path| {
        std::os::unix::fs::symlink(to, dir.path().join(from)).unwrap();
    };
    let globex = dir.path().join("globex-shop");
    link("shop/linked.csv", &globex.join("visits.csv"));
    link("acme-shop/linked.csv", &globex.join("visits.csv"));
    link("acme-shop/folder", &globex);
    link("acme-shop/own.csv", &dir.path().join("acme-shop/visits.csv"));
    let acme = lake.in_workspace(Some("acme"));
    for table in ["linked", "folder"] {
        let (message, _) = refusal(&acme, &format!("SELECT id FROM shop.{table}")).await;
        assert!(message.contains("leads out of"), "{table}: {message}");
    }
    assert_eq!(users(&acme, "SELECT id FROM shop.own").await.0, hashes(["acme-shop"]));
    assert_eq!(users(&lake, "SELECT id FROM shop.linked").await.0, hashes(["globex-shop"]));
    // The folder itself may not be exchanged for a link out of what the node may read.
    std::fs::write(outside.path().join("visits.csv"), "id,n\nx,1\n").unwrap();
    std::fs::remove_dir_all(dir.path().join("globex-web")).unwrap();
    link("globex-web", outside.path());
    let globex = lake.in_workspace(Some("globex"));
    let (message, _) = refusal(&globex, "SELECT id FROM web.visits").await;
    assert!(message.contains("leads out of"), "{message}");
}

#[tokio::test]
async fn the_same_query_has_other_inputs_in_another_workspace() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(dir.path());
    let mut states = Vec::new();
    for workspace in ["acme", "globex"] {
        let query =
            InputQuery { sql: VISITORS.to_owned(), refuses_time: false, success_file: None };
        let lake = lake.in_workspace(Some(workspace));
        states.push(lake.states_before_scan(&[query]).await.unwrap().remove(0));
    }
    assert!(states.iter().all(|state| matches!(state, InputState::Ready(_))), "{states:?}");
    assert_ne!(states[0], states[1]);
}

#[tokio::test]
async fn a_list_of_all_sources_names_their_workspaces() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(dir.path());
    let names = |listed: Vec<throng_lake::SourceListing>| -> Vec<String> {
        listed.into_iter().map(|source| source.name).collect()
    };
    let all = names(lake.list().await.unwrap());
    assert_eq!(all, ["shop", "acme:shop", "globex:shop", "globex:web"]);
    let globex = lake.in_workspace(Some("globex"));
    assert_eq!(names(globex.list().await.unwrap()), ["shop", "web"]);
}
