//! The example `examples/app`, run as its README says: pods of an Indexed Job build its audiences over a simulated
//! BigQuery and are killed at every page of a result; the members are written to Bigtable by a process that is
//! killed too; and a changed export starts a refresh. What ad servers read is compared with the members that this
//! test computes from the files of the example.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use throng_model::{HashSeed, UserKey};

use crate::bigtable::{Rows, Table};
use crate::process::{NodeProcess, TIMEOUT, get, http, output, post, throng, wait_for};
use crate::warehouse::Simulator;

/// The audiences in the order of the pods.
const AUDIENCES: [&str; 4] = ["cricket-fans", "fitness-fans", "music-clickers", "subscribers"];
const MUSIC: usize = 2;
/// `page_rows` of the example.
const PAGE_ROWS: usize = 200;

fn example() -> PathBuf {
    crate::example().join("../app")
}

/// The text with another text in place of one that it must have.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the example no longer has {from}");
    text.replace(from, to)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Writes the spec of the example with these addresses. The nightly schedules are far away, so that no test runs
/// at their time.
fn write_spec(dir: &Path, bigquery: &str, bigtable: &str, table: &str, writes_per_second: u32) {
    let read = |name: &str| std::fs::read_to_string(example().join(name)).expect("read");
    let local = replaced(&read("local.yaml"), "http://127.0.0.1:9050", bigquery);
    let local = replaced(&local, "http://127.0.0.1:8086", bigtable);
    let local = replaced(&local, "table: members", &format!("table: {table}"));
    let rate = format!("max_writes_per_second: {writes_per_second}");
    let local = replaced(&local, "max_writes_per_second: 50000", &rate);
    let audiences = replaced(&read("audiences.yaml"), "0 3 * * *", "0 3 1 1 *");
    let audiences = replaced(&audiences, "poll_secs: 60", "poll_secs: 5");
    std::fs::write(dir.join("local.yaml"), local).expect("written");
    std::fs::write(dir.join("audiences.yaml"), audiences).expect("written");
    std::fs::write(dir.join("ad_groups.yaml"), read("ad_groups.yaml")).expect("written");
}

/// The rows of a CSV file without its header, by column.
fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).expect("read");
    let row = |line: &str| line.split(',').map(str::to_owned).collect();
    text.lines().skip(1).map(row).collect()
}

/// An audience as its definition says: its users, and the rows of the result of its SQL.
#[derive(Default)]
struct Expected {
    users: BTreeSet<i128>,
    rows: usize,
}

impl Expected {
    fn of(users: impl IntoIterator<Item = i128>) -> Self {
        let mut expected = Self::default();
        for user in users {
            expected.users.insert(user);
            expected.rows += 1;
        }
        expected
    }
}

fn number(text: &str) -> i128 {
    text.parse().expect("a number")
}

/// The members of all audiences, computed from the files in `data`, and all users in them.
fn expected(data: &Path) -> (BTreeMap<&'static str, Expected>, BTreeSet<i128>) {
    let events = data.join("warehouse/events");
    let campaigns: BTreeMap<String, Vec<String>> =
        rows(&events.join("campaigns.csv")).into_iter().map(|row| (row[0].clone(), row)).collect();
    let (clicks, views) = (rows(&events.join("clicks.csv")), rows(&events.join("views.csv")));
    let clicked = clicks.iter().filter(|click| {
        let campaign = &campaigns[&click[1]];
        campaign[1] == "music" && (&campaign[2]..=&campaign[3]).contains(&&click[2])
    });
    let mut seconds: BTreeMap<i128, i128> = BTreeMap::new();
    let mut videos: BTreeMap<i128, BTreeSet<&str>> = BTreeMap::new();
    for view in &views {
        let user = number(&view[0]);
        match view[2].as_str() {
            "fitness" => *seconds.entry(user).or_insert(0) += number(&view[3]),
            "cricket" => {
                videos.entry(user).or_default().insert(&view[1]);
            }
            _ => {}
        }
    }
    let mut exports = Vec::new();
    for entry in std::fs::read_dir(data.join("exports/subscribers")).expect("listed") {
        let path = entry.expect("read").path();
        if path.extension().is_some_and(|ending| ending == "csv") {
            exports.extend(rows(&path));
        }
    }
    let fit = seconds.into_iter().filter(|(_, sum)| *sum >= 400).map(|(user, _)| user);
    let fans = videos.into_iter().filter(|(_, seen)| seen.len() >= 2).map(|(user, _)| user);
    let audiences = BTreeMap::from([
        ("music-clickers", Expected::of(clicked.map(|click| number(&click[0])))),
        ("fitness-fans", Expected::of(fit)),
        ("cricket-fans", Expected::of(fans)),
        ("subscribers", Expected::of(exports.iter().map(|row| number(&row[0])))),
    ]);
    let all = clicks.iter().chain(&views).chain(&exports).map(|row| number(&row[0])).collect();
    (audiences, all)
}

/// The row key of a user.
fn row_key(user: i128, seed: HashSeed) -> String {
    format!("{:016x}", UserKey::integer(user).hash(seed).0)
}

/// The rows that the table has to have.
fn table_of(audiences: &BTreeMap<&'static str, Expected>, seed: HashSeed) -> Rows {
    let mut table = Rows::new();
    for (name, expected) in audiences {
        for user in &expected.users {
            table.entry(row_key(*user, seed)).or_default().insert((*name).to_owned());
        }
    }
    table
}

/// The example with its own data, a simulated BigQuery and a table.
struct Site {
    dir: tempfile::TempDir,
    sim: Simulator,
    bigtable: String,
    table: String,
}

impl Site {
    /// A simulator that does not answer four requests for a page: those of the first four pages, once each.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let app = dir.path().join("app");
        copy(&example().join("data"), &app.join("data"));
        let hangs: Vec<Value> = [0, 2, 4, 6]
            .map(|after| json!({ "on": "page", "after": after, "times": 1, "kind": "hang" }))
            .into();
        let faults = dir.path().join("faults.json");
        std::fs::write(&faults, json!(hangs).to_string()).expect("written");
        let arguments = ["--location", "asia-south1", "--polls", "0"];
        let sim = Simulator::start(&app.join("data/warehouse"), &faults, &arguments);
        let bigtable = std::env::var("THRONG_BIGTABLE");
        let bigtable = bigtable.expect("THRONG_BIGTABLE is set by `cargo xtask test`");
        // The emulator may have the tables of an earlier run.
        let table = format!("members-{}", std::process::id());
        let site = Self { dir, sim, bigtable, table };
        site.set_rate(50_000);
        site
    }

    /// Writes the spec with another rate of the serving store.
    fn set_rate(&self, writes_per_second: u32) {
        let (bigquery, bigtable) = (&self.sim.url, &self.bigtable);
        write_spec(&self.app(), bigquery, bigtable, &self.table, writes_per_second);
    }

    fn app(&self) -> PathBuf {
        self.dir.path().join("app")
    }

    /// A pod of the job with a pod for each audience.
    fn pod(&self, index: usize) -> Command {
        let mut pod = throng();
        pod.args(["build", "--json", "--spec"]).arg(self.app());
        pod.arg("--dir").arg(self.dir.path().join("node"));
        pod.env("JOB_COMPLETION_INDEX", index.to_string());
        pod.env("JOB_COMPLETIONS", AUDIENCES.len().to_string());
        pod
    }

    /// Runs a pod, and kills it when the simulator has left its request for a page without an answer.
    async fn kill_pod(&self, index: usize, hanging: u64) {
        let mut pod = self.pod(index);
        let mut pod = pod.stdout(Stdio::null()).spawn().expect("throng starts");
        let sim = &self.sim;
        wait_for("a page is asked for", || {
            let ended = pod.try_wait().expect("asked");
            async move {
                assert!(ended.is_none(), "pod {index} has ended: {ended:?}");
                let oracle = sim.oracle().await?;
                (oracle["hanging"] == hanging).then_some(()).ok_or_else(|| oracle.to_string())
            }
        })
        .await;
        pod.kill().expect("killed");
        pod.wait().expect("reaped");
    }

    /// Runs a pod to its end.
    fn run_pod(&self, index: usize, expected: &Expected) {
        let done = self.pod(index).output().expect("throng starts");
        let built: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert!(done.status.success(), "{built}");
        let audience = &built["audiences"][0];
        assert_eq!(audience["audience"], AUDIENCES[index], "{built}");
        assert_eq!(audience["members"], expected.users.len(), "{built}");
    }

    fn node(&self) -> NodeProcess {
        let dir = self.dir.path();
        NodeProcess::start(&dir.join("node"), &self.app(), &dir.join("node.log"))
    }
}

/// Each audience of BigQuery had one job, whose pages were served once, although a process was killed at each.
async fn check_jobs(sim: &Simulator, audiences: &BTreeMap<&'static str, Expected>) {
    let oracle = sim.oracle().await.expect("answered");
    let jobs = oracle["jobs"].as_array().expect("jobs");
    let mut seen = BTreeSet::new();
    for job in jobs {
        let labels = job["labels"].as_array().expect("labels");
        let label = labels.iter().find(|label| label[0] == "throng_audience");
        let name = label.and_then(|label| label[1].as_str()).expect("an audience");
        let pages: Vec<usize> = (0..audiences[name].rows).step_by(PAGE_ROWS).collect();
        assert_eq!(job["pages"], json!(pages), "{name}");
        assert!(seen.insert(name.to_owned()), "{name} had a second job: {oracle}");
    }
    assert_eq!(seen.len(), 3, "{oracle}");
}

/// Waits until the store has and has checked the served version of every audience, with at least this version of
/// the subscribers.
async fn written(http: &reqwest::Client, node: &NodeProcess, subscribers: u64) {
    wait_for("all members are written and checked", async || {
        let list = get(http, format!("{}/v1/stores", node.url)).await?;
        let audiences = list["stores"][0]["audiences"].as_array().ok_or("no store".to_owned())?;
        let is_done = |audience: &&Value| {
            let (write, least) = (
                &audience["write"],
                match audience["audience"].as_str() {
                    Some("subscribers") => subscribers,
                    _ => 1,
                },
            );
            write["state"] == "done"
                && write["check"]["missing"] == 0
                && write["check"]["unexpected"] == 0
                && audience["store_version"] == audience["served_version"]
                && audience["store_version"].as_u64() >= Some(least)
        };
        let done = audiences.iter().filter(is_done).count();
        if done == AUDIENCES.len() { Ok(()) } else { Err(list.to_string()) }
    })
    .await;
}

/// What was read of each audience: every row of the result once.
async fn check_rows_read(
    http: &reqwest::Client,
    node: &NodeProcess,
    audiences: &BTreeMap<&'static str, Expected>,
) {
    for (name, expected) in audiences {
        let answer = get(http, format!("{}/v1/audiences/{name}", node.url)).await;
        let answer = answer.expect("answered");
        let current = &answer["current"];
        assert_eq!(current["rows_read"], expected.rows, "{answer}");
        assert_eq!((&current["null_keys"], &current["version"]), (&json!(0), &json!(1)));
    }
}

/// The table has these rows and no other ones, read by key and as a whole.
async fn check_table(table: &mut Table, rows: &Rows, users: &BTreeSet<i128>, seed: HashSeed) {
    let keys: Vec<String> = users.iter().map(|user| row_key(*user, seed)).collect();
    let found = table.rows_of(&keys).await;
    assert_eq!(found.len(), rows.len());
    assert!(
        found == *rows,
        "as many users have a row, and not the same ones or not the same audiences"
    );
    assert!(table.all().await == *rows, "there are rows of other users");
}

/// Decisions use the audiences: people who clicked on music see the ad, unless they have subscribed.
async fn check_decisions(
    http: &reqwest::Client,
    node: &NodeProcess,
    audiences: &BTreeMap<&'static str, Expected>,
) {
    let (music, subscribers) =
        (&audiences["music-clickers"].users, &audiences["subscribers"].users);
    let target = music.difference(subscribers).next().expect("a user");
    let subscriber = music.intersection(subscribers).next().expect("a user");
    let stranger = subscribers.difference(music).next().expect("a user");
    let decide = async |user: &i128| {
        let request = json!({ "user": user.to_string(), "ad_groups": ["music-subscription"] });
        let request = post(http, format!("{}/v1/decide", node.url)).json(&request);
        let answer = request.send().await.map_err(|error| error.to_string())?;
        answer.json::<Value>().await.map_err(|error| error.to_string())
    };
    wait_for("the ad may be shown", async || {
        let decided = decide(target).await?;
        if decided["allowed"] == json!(["music-subscription"]) {
            Ok(())
        } else {
            Err(decided.to_string())
        }
    })
    .await;
    let refused = async |user: &i128| decide(user).await.expect("decided")["refused"][0].clone();
    assert_eq!(refused(subscriber).await["code"], "excluded");
    assert_eq!(refused(stranger).await["code"], "not_in_audience");
}

/// Another export: ten people have left, and two others have subscribed. However long writing it takes, no refresh
/// starts on a part of it: until the end, `_SUCCESS` is older than a file.
fn export(data: &Path) {
    let folder = data.join("exports/subscribers");
    let first = folder.join("2026-11-25.csv");
    let text = std::fs::read_to_string(&first).expect("read");
    let left: Vec<&str> = text.lines().skip(11).collect();
    let aside = data.join("aside");
    std::fs::write(&aside, format!("user_id,plan\n{}\n", left.join("\n"))).expect("written");
    std::fs::rename(&aside, &first).expect("replaced");
    let second = "user_id,plan\n900001,monthly\n900002,yearly\n";
    std::fs::write(folder.join("2026-11-26.csv"), second).expect("written");
    std::fs::write(folder.join("_SUCCESS"), "").expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audiences_of_the_app_are_in_bigtable_although_every_process_is_killed() {
    let http = http();
    let site = Site::new();
    let data = site.app().join("data");
    let (audiences, users) = expected(&data);
    let pages = audiences["music-clickers"].rows.div_ceil(PAGE_ROWS);
    assert_eq!(pages, 4, "the pods are killed at four pages");

    for hanging in 1..=4 {
        site.kill_pod(MUSIC, hanging).await;
    }
    for index in [MUSIC, 0, 1, 3] {
        site.run_pod(index, &audiences[AUDIENCES[index]]);
    }
    check_jobs(&site.sim, &audiences).await;

    // Slow, so that the process is killed while it writes: all of it would take minutes.
    let mut table = Table::create(&site.bigtable, &site.table).await;
    site.set_rate(10);
    let node = site.node();
    let writing = async {
        while table.all().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, writing).await.expect("the first rows are written");
    node.kill();
    let members: BTreeSet<i128> =
        audiences.values().flat_map(|expected| expected.users.iter().copied()).collect();
    assert!(
        table.all().await.len() < members.len(),
        "all was written before the process was killed"
    );

    site.set_rate(50_000);
    let node = site.node();
    written(&http, &node, 1).await;
    let seed = get(&http, format!("{}/v1/stores/hash-seed", node.url)).await.expect("answered");
    let seed = u64::from_str_radix(seed["hash_seed"].as_str().expect("a text"), 16);
    let seed = HashSeed(seed.expect("hexadecimal"));
    check_table(&mut table, &table_of(&audiences, seed), &users, seed).await;
    check_rows_read(&http, &node, &audiences).await;
    check_decisions(&http, &node, &audiences).await;

    export(&data);
    let (audiences, users) = expected(&data);
    written(&http, &node, 2).await;
    check_table(&mut table, &table_of(&audiences, seed), &users, seed).await;
    check_jobs(&site.sim, &audiences).await;
    assert!(node.terminate());
}

/// The spec for Kubernetes: the connections of the values, with the audiences and ad groups of the example.
#[test]
fn the_spec_for_kubernetes_is_valid() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let exports = dir.path().join("exports");
    copy(&example().join("data/exports"), &exports);
    let values = std::fs::read_to_string(example().join("kubernetes/values.yaml")).expect("read");
    let values: Value = serde_saphyr::from_str(&values).expect("YAML");
    let connections = values["spec"]["files"]["connections.yaml"].as_str().expect("a text");
    let path = format!("path: {}", exports.display());
    let spec = dir.path().join("spec");
    std::fs::create_dir(&spec).expect("created");
    let connections = replaced(connections, "path: /exports", &path);
    std::fs::write(spec.join("connections.yaml"), connections).expect("written");
    for name in ["audiences.yaml", "ad_groups.yaml"] {
        std::fs::copy(example().join(name), spec.join(name)).expect("copied");
    }
    let checked = output(&["check", &spec.to_string_lossy()]);
    let stderr = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{stderr}");
    // One pod for each audience.
    assert_eq!(values["build"]["completions"], AUDIENCES.len());
}
