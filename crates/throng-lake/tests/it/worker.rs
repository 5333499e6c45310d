//! No statement harms the process that runs it: its worker fails, is killed or crashes, the error
//! has the reason, and the next query works.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use throng_lake::{Lake, LakeError, LakeLimits, ScanPart, WorkerCommand, WorkerError, WorkerExit};
use throng_model::Fault;
use throng_spec::Source;

use crate::{Shop, hashes, model, scan, users};

const WHOLE: ScanPart = ScanPart { file: None, planned_files: None };

/// A lake whose workers have an argument that they ignore, by which this test finds them.
fn lake_with_marker(shop: &Shop, marker: &str, memory_bytes: u64, timeout: Duration) -> Lake {
    let sources = [Source {
        name: "shop".parse().unwrap(),
        path: shop.folder(),
        root: None,
        description: None,
        columns: Vec::new(),
        trim: false,
        header: None,
        bucket: None,
    }];
    let mut worker = WorkerCommand::of(env!("CARGO_BIN_EXE_lake-query-worker"));
    worker.args.push(marker.to_owned());
    let spill_dir = shop.spill();
    let limits = LakeLimits { memory_bytes, spill_dir, threads: 2, queries: 1, timeout, worker };
    Lake::new(&sources, limits, None).unwrap()
}

/// The processes that have this argument.
fn processes(marker: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        line.split('\0').any(|argument| argument == marker).then_some(pid)
    })
    .collect()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(120), waiting).await.is_ok(), "{what}");
}

fn orders() -> Shop {
    let rows: String = (0..3_000).map(|n| format!("u{n},{n}\n")).collect();
    Shop::new().file("orders.csv", &format!("id,n\n{rows}"))
}

/// Twelve statements that use too much time or memory, or crash the process that runs them.
fn bad_statements() -> Vec<(&'static str, String)> {
    let list = |of: fn(u32) -> String, count| (0..count).map(of).collect::<Vec<_>>();
    let nested = |depth: usize| {
        let inner = "SELECT id FROM shop.orders";
        (0..depth).fold(inner.to_owned(), |sql, n| format!("SELECT id FROM ({sql}) t{n}"))
    };
    let cross = "shop.orders a, shop.orders b, shop.orders c, shop.orders d";
    vec![
        ("cross join", format!("SELECT a.id FROM {cross} WHERE a.n + b.n + c.n + d.n = -1")),
        (
            "ORs",
            format!(
                "SELECT id FROM shop.orders WHERE {}",
                list(|n| format!("n = {n} OR id = 'x{n}'"), 3_000).join(" OR ")
            ),
        ),
        (
            "repeat",
            "SELECT repeat(repeat(repeat(id, 40000), 40000), 40000) AS id FROM shop.orders".into(),
        ),
        (
            "recursion",
            "WITH RECURSIVE r AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM r) SELECT id FROM r"
                .into(),
        ),
        (
            "IN list",
            format!(
                "SELECT id FROM shop.orders WHERE n IN ({})",
                list(|n| n.to_string(), 120_000).join(",")
            ),
        ),
        (
            "parentheses",
            format!("SELECT id FROM shop.orders WHERE {}n = 1{}", "(".repeat(5_000), ")".repeat(5_000)),
        ),
        ("subqueries", nested(60)),
        (
            "sort",
            "SELECT a.id FROM shop.orders a, shop.orders b, shop.orders c \
             ORDER BY repeat(a.id || b.id || c.id, 200), c.n LIMIT 1000000"
                .into(),
        ),
        (
            "regular expression",
            "SELECT id FROM shop.orders WHERE regexp_like(id, '((((x{1,200}){1,200}){1,200}){1,200})')"
                .into(),
        ),
        (
            "array",
            "SELECT CAST(unnest(range(0, 1000000000000)) AS VARCHAR) AS id FROM shop.orders".into(),
        ),
        ("long text", format!("SELECT id FROM shop.orders WHERE id = '{}'", "x".repeat(2 << 20))),
        (
            "aggregate",
            format!("SELECT array_to_string(array_agg(repeat(a.id, 1000)), '') AS id FROM {cross}"),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_bad_statements_do_no_harm() {
    let shop = orders();
    let marker = "--twelve-bad-statements";
    // Those that never end are killed soon. The simple query in between has as long as a busy machine takes.
    let bad = lake_with_marker(&shop, marker, 80 << 20, Duration::from_secs(6));
    let lake = bad.with_timeout(Duration::from_secs(600));
    let mut failed = Vec::new();
    for (name, sql) in bad_statements() {
        let model = model(&sql);
        let ended = async {
            bad.plan_scan(&model, &[]).await?;
            scan(&bad, &model, &WHOLE).await
        };
        if let Err(error) = ended.await {
            let words = throng_model::with_causes(&error);
            assert!(!words.contains("signal 11"), "{name}: {words}");
            failed.push((name, error.fault(), words));
        }
        let (found, rows, _) = users(&lake, "SELECT id FROM shop.orders WHERE n = 7").await;
        assert_eq!((found, rows), (hashes(["u7"]), 1), "after {name}");
        // At most one worker for scans; killed workers have exited.
        until("killed workers have exited", || processes(marker).len() <= 1).await;
    }
    // These never end, or exceed a limit.
    for name in ["cross join", "recursion", "parentheses", "array", "long text", "repeat"] {
        let found = failed.iter().find(|(failed, ..)| *failed == name);
        let (_, fault, words) = found.unwrap_or_else(|| panic!("{name} ended"));
        // The engine itself refuses this one, with a failed allocation.
        let engine_error = name == "array" && *fault == Fault::External;
        assert!(engine_error || *fault == Fault::User, "{name}: {words}");
    }
    drop((bad, lake));
    until("workers exit with their lake", || processes(marker).is_empty()).await;
    until("spilled files are removed", || {
        std::fs::read_dir(shop.spill()).unwrap().next().is_none()
    })
    .await;
}

#[tokio::test]
async fn a_query_that_runs_too_long_is_killed_with_a_reason() {
    let shop = orders();
    // So much memory that the query is killed by its timeout and not by its memory.
    let lake = lake_with_marker(&shop, "--too-long", 16 << 30, Duration::from_secs(1));
    let sql = "SELECT a.id FROM shop.orders a, shop.orders b, shop.orders c, shop.orders d
        WHERE a.n + b.n + c.n + d.n = -1";
    let error = scan(&lake, &model(sql), &WHOLE).await.unwrap_err();
    let LakeError::Worker(WorkerError::Exited(exit)) = &error else { panic!("{error:?}") };
    assert_eq!(*exit, WorkerExit::Timeout { limit_secs: 1 });
    assert!(error.help().unwrap().contains("query_timeout_secs"));
}

#[tokio::test]
async fn a_query_that_uses_too_much_memory_is_killed_with_a_reason() {
    let shop = orders();
    let lake = lake_with_marker(&shop, "--too-much", 64 << 20, Duration::from_secs(60));
    // One value of 1.2 GB, which the engine's own accounting does not count.
    let sql = "SELECT repeat(repeat(id, 30000), 10000) AS id FROM shop.orders WHERE n = 1000";
    let error = scan(&lake, &model(sql), &WHOLE).await.unwrap_err();
    let LakeError::Worker(WorkerError::Exited(WorkerExit::Memory { limit_mib })) = &error else {
        panic!("{error:?}")
    };
    assert!(*limit_mib < 400, "{limit_mib}");
    assert!(throng_model::with_causes(&error).contains("killed: more than memory_limit_bytes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_whose_future_is_dropped_is_killed() {
    let shop = orders();
    let marker = "--nobody-waits";
    let lake = lake_with_marker(&shop, marker, 256 << 20, Duration::from_secs(60));
    let sql = "SELECT a.id FROM shop.orders a, shop.orders b, shop.orders c";
    let (sender, mut first) = tokio::sync::mpsc::channel(1);
    let scanning = tokio::spawn({
        let lake = lake.clone();
        async move {
            let mut sink = |_| {
                // Only the first one is received.
                let _ = sender.try_send(());
                Ok(())
            };
            lake.scan(&model(sql), &WHOLE, crate::SEED, &mut sink).await.map(drop)
        }
    });
    first.recv().await.unwrap();
    assert_eq!(processes(marker).len(), 1);
    scanning.abort();
    until("its worker has exited", || processes(marker).is_empty()).await;
}

#[tokio::test]
async fn one_worker_runs_many_queries_and_inherits_nothing_from_its_parent() {
    let shop = orders();
    let marker = "--many-queries";
    let lake = lake_with_marker(&shop, marker, 256 << 20, Duration::from_secs(60));
    let mut seen = Vec::new();
    for n in 0..5 {
        users(&lake, &format!("SELECT id FROM shop.orders WHERE n = {n}")).await;
        seen.extend(processes(marker));
    }
    seen.dedup();
    let [pid] = seen[..] else { panic!("{seen:?}") };
    let of = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(of("environ"), "MIMALLOC_ARENA_EAGER_COMMIT=0\0");
    let status = of("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs"), "1");
    let limits = of("limits");
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(!limit("Max data size").contains("unlimited"), "{limits}");
    assert!(limit("Max core file size").contains(" 0 "), "{limits}");
    // The threads of the node have priority over each of the worker's.
    let niceness = |stat: &Path| -> Option<i32> {
        let text = std::fs::read_to_string(stat).ok()?;
        text.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok()
    };
    let lower = niceness(Path::new("/proc/self/stat")).map(|own| (own + 5).min(19));
    assert_eq!(niceness(Path::new(&format!("/proc/{pid}/stat"))), lower);
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        // A thread may end meanwhile.
        if let Some(found) = niceness(&thread.unwrap().path().join("stat")) {
            assert_eq!(Some(found), lower);
        }
    }
    // Standard descriptors and those of the runtime, but no file or socket of the parent.
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
        let target: PathBuf = target;
        let text = target.to_string_lossy().into_owned();
        let own = ["pipe:", "anon_inode:", "socket:"];
        assert!(own.iter().any(|kind| text.starts_with(kind)), "{text}");
    }
}

#[tokio::test]
async fn a_source_whose_folder_is_replaced_is_read() {
    let shop = orders();
    let lake = lake_with_marker(&shop, "--replaced", 256 << 20, Duration::from_secs(60));
    let sql = "SELECT id FROM shop.orders";
    assert_eq!(users(&lake, sql).await.1, 3_000);
    let replacement = shop.folder().with_file_name("replacement");
    std::fs::create_dir(&replacement).unwrap();
    std::fs::write(replacement.join("orders.csv"), "id,n\nnew,1\n").unwrap();
    std::fs::rename(shop.folder(), shop.folder().with_file_name("old")).unwrap();
    std::fs::rename(&replacement, shop.folder()).unwrap();
    assert_eq!(users(&lake, sql).await.0, hashes(["new"]));
}

/// The reply of a worker to its first message.
fn set_up(sources: &[Source], spill_dir: Option<&Path>) -> Value {
    let mut worker = Command::new(env!("CARGO_BIN_EXE_lake-query-worker"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let read: Vec<&PathBuf> = sources.iter().map(|source| &source.path).collect();
    let confinement = json!({
        "parent": std::process::id(),
        "read": read,
        "memory_bytes": 64 << 20,
        "spill_dir": spill_dir,
        "threads": 1,
    });
    let message = json!({ "confinement": confinement, "task": sources });
    let message = serde_json::to_vec(&message).unwrap();
    let mut frame = u32::try_from(message.len()).unwrap().to_le_bytes().to_vec();
    frame.push(1);
    frame.extend(message);
    let mut stdin = worker.stdin.take().unwrap();
    stdin.write_all(&frame).unwrap();
    let mut stdout = worker.stdout.take().unwrap();
    let mut head = [0; 5];
    stdout.read_exact(&mut head).unwrap();
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let mut answer = vec![0; length as usize];
    stdout.read_exact(&mut answer).unwrap();
    drop(stdin);
    worker.wait().unwrap();
    serde_json::from_slice(&answer).unwrap()
}

#[test]
fn a_worker_reports_a_folder_that_it_cannot_open() {
    let shop = orders();
    let source = |name: &str, path: PathBuf| Source {
        name: name.parse().unwrap(),
        path,
        root: None,
        description: None,
        columns: Vec::new(),
        trim: false,
        header: None,
        bucket: None,
    };
    let gone = shop.folder().with_file_name("gone");
    let sources = [source("shop", shop.folder()), source("gone", gone.clone())];
    // A missing source does not affect other sources.
    let answer = set_up(&sources, Some(&shop.spill()));
    let unopened = answer["Ready"]["unopened"].as_array().unwrap();
    assert_eq!(unopened.len(), 1, "{answer}");
    let code = &unopened[0]["error"]["code"];
    assert_eq!((&unopened[0]["path"], code), (&json!(gone), &json!(2)));
    // Without its spill folder it would fail later, without the reason.
    let answer = set_up(&sources, Some(&gone));
    let refused = &answer["Refused"];
    let wanted = format!("open its spill folder {}", gone.display());
    let code = &refused["error"]["code"];
    assert_eq!((&refused["what"], code), (&json!(wanted), &json!(2)), "{answer}");
}

#[tokio::test]
async fn a_missing_spill_folder_is_an_error_until_it_exists_again() {
    let shop = orders();
    let lake = lake_with_marker(&shop, "--no-spill", 256 << 20, Duration::from_secs(60));
    let sql = "SELECT id FROM shop.orders WHERE n = 7";
    assert_eq!(users(&lake, sql).await.1, 1);
    std::fs::remove_dir_all(shop.spill()).unwrap();
    let error = scan(&lake, &model(sql), &WHOLE).await.unwrap_err();
    assert!(matches!(error, LakeError::Worker(WorkerError::Confine { .. })), "{error:?}");
    let words = throng_model::with_causes(&error);
    let folder = shop.spill().display().to_string();
    assert!(words.contains(&folder) && words.contains("No such file"), "{words}");
    assert!(error.help().unwrap().contains("node.spill_dir"), "{error:?}");
    assert!(!shop.spill().exists(), "it may be a disk that is not mounted");
    std::fs::create_dir(shop.spill()).unwrap();
    assert_eq!(users(&lake, sql).await.1, 1);
}

#[tokio::test]
async fn a_program_that_is_not_a_query_worker_is_an_error() {
    let shop = orders();
    let sources = [Source {
        name: "shop".parse().unwrap(),
        path: shop.folder(),
        root: None,
        description: None,
        columns: Vec::new(),
        trim: false,
        header: None,
        bucket: None,
    }];
    for (program, words) in [("/bin/cat", "invalid answer"), ("/no/such", "No such file")] {
        let limits = LakeLimits {
            memory_bytes: 64 << 20,
            spill_dir: shop.spill(),
            threads: 1,
            queries: 1,
            timeout: Duration::from_secs(9),
            worker: WorkerCommand::of(program),
        };
        let lake = Lake::new(&sources, limits, None).unwrap();
        let error = lake.check_model("SELECT id FROM shop.orders", None).await.unwrap_err();
        let said = throng_model::with_causes(&error);
        assert!(said.contains("cannot start a query worker"), "{said}");
        assert!(said.contains(words), "{said}");
    }
}
