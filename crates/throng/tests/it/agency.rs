//! The example `examples/agency`: three clients with their records, templates and ad accounts. The lists that the
//! platform has in the end are compared with sets that are computed from the files, without the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use throng_model::HashedIdentifier;
use throng_sim::meta::{MetaSim, MetaSimConfig};

use crate::process::{HEAVY, NodeProcess, get, get_text, http, output, wait_for};

/// The access token that the simulator accepts.
const TOKEN: &str = "test-token";
/// Columns of a table of segments that the SQL of the audiences does not compare.
const NOT_COMPARED: [&str; 4] = ["slug", "title", "at_least", "upload"];

/// A client of the agency.
struct Client {
    workspace: &'static str,
    /// The variable with the token of its ad account.
    variable: &'static str,
    account: &'static str,
    schema: &'static str,
    export: &'static str,
    /// Rows of the export without the one that is invalid.
    accepted: u64,
}

static CLIENTS: [Client; 3] = [
    Client {
        workspace: "acme",
        variable: "ACME_META_TOKEN",
        account: "1001",
        schema: "purchases",
        export: "acme-2026-11-24.csv",
        accepted: 240,
    },
    Client {
        workspace: "globex",
        variable: "GLOBEX_META_TOKEN",
        account: "2002",
        schema: "stays",
        export: "globex-2026-11-24.ndjson",
        accepted: 100,
    },
    Client {
        workspace: "initech",
        variable: "INITECH_META_TOKEN",
        account: "3003",
        schema: "activity",
        export: "initech-2026-11-24.csv",
        accepted: 150,
    },
];

/// A row of a file, by its columns.
type Row = BTreeMap<String, String>;

/// An audience of a client, and the hashed e-mail addresses that it must have.
struct Segment {
    slug: String,
    title: String,
    is_uploaded: bool,
    members: BTreeSet<String>,
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of a CSV file without quotes.
fn csv(text: &str) -> Vec<Row> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let row = |line: &str| -> Row {
        let cells = header.iter().zip(line.split(','));
        cells.map(|(column, cell)| ((*column).to_owned(), cell.to_owned())).collect()
    };
    lines.map(row).collect()
}

fn json_lines(text: &str) -> Vec<Row> {
    let row = |line: &str| -> Row {
        let object: BTreeMap<String, Value> = serde_json::from_str(line).expect("an object");
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        object.into_iter().map(|(column, value)| (column, text(value))).collect()
    };
    text.lines().map(row).collect()
}

/// The rows of an export that fit their schema.
fn records(path: &Path) -> Vec<Row> {
    let text = read(path);
    let is_csv = path.extension().is_some_and(|extension| extension == "csv");
    let mut rows = if is_csv { csv(&text) } else { json_lines(&text) };
    rows.retain(|row| {
        row["email"].contains('@') && row.get("nights").is_none_or(|nights| nights != "0")
    });
    rows
}

/// The audiences of a client, from its table of segments and its exports: those people whose rows with the compared
/// values are at least as many as the segment needs, or have at least as many points.
fn segments(spec: &Path, client: &Client, exports: &[&str]) -> Vec<Segment> {
    let table = csv(&read(&spec.join(format!("data/{}/segments.csv", client.workspace))));
    let columns = table.first().expect("a row").keys();
    let compared: Vec<String> =
        columns.filter(|column| !NOT_COMPARED.contains(&column.as_str())).cloned().collect();
    let values = |row: &Row| -> Vec<String> {
        compared.iter().map(|column| row[column.as_str()].clone()).collect()
    };
    let number = |text: &String| -> u64 { text.parse().expect("a number") };
    let mut totals: BTreeMap<Vec<String>, BTreeMap<String, u64>> = BTreeMap::new();
    for export in exports {
        for record in records(&spec.join("exports").join(export)) {
            let people = totals.entry(values(&record)).or_default();
            let total = people.entry(record["email"].to_lowercase()).or_default();
            *total += record.get("points").map_or(1, number);
        }
    }
    let segment = |row: Row| -> Segment {
        let least = row.get("at_least").map_or(1, number);
        let people = totals.get(&values(&row)).into_iter().flatten();
        let members = people.filter(|(_, total)| **total >= least);
        Segment {
            slug: row["slug"].clone(),
            title: row["title"].clone(),
            is_uploaded: row["upload"] == "yes",
            members: members
                .map(|(email, _)| HashedIdentifier::of_normalised(email).to_hex())
                .collect(),
        }
    };
    table.into_iter().map(segment).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("copied");
        }
    }
}

/// What a command that succeeds prints.
fn printed(arguments: &[&str]) -> String {
    let ended = output(arguments);
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// A copy of the example, its platform and its node.
struct Agency {
    node: NodeProcess,
    sim: MetaSim,
    /// Removed after the node has ended.
    dir: tempfile::TempDir,
}

impl Agency {
    /// Checks and starts the example. Its sources are polled at this interval.
    async fn start(poll_secs: u32) -> Self {
        let config = MetaSimConfig { tokens: vec![TOKEN.to_owned()], ..MetaSimConfig::default() };
        let sim = MetaSim::start(config).await.expect("a simulator");
        let dir = tempfile::tempdir().expect("temporary folder");
        let at = |name: &str| dir.path().join(name);
        let crates = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
        copy(&Path::new(&crates).join("../../examples/agency"), &at("agency"));
        for client in &CLIENTS {
            let file = at("agency").join(format!("{}.yaml", client.workspace));
            let text = read(&file).replace("http://127.0.0.1:7078", &sim.url());
            let text = text.replace("poll_secs: 10", &format!("poll_secs: {poll_secs}"));
            std::fs::write(&file, text).expect("written");
        }
        printed(&["check", &at("agency").display().to_string()]);
        let variables = CLIENTS.each_ref().map(|client| (client.variable, TOKEN.to_owned()));
        let node = NodeProcess::with(&at("node"), &at("agency"), &at("node.log"), &[], &variables);
        Self { node, sim, dir }
    }

    fn spec(&self) -> PathBuf {
        self.dir.path().join("agency")
    }

    /// Ingests an export. Returns the report.
    fn ingest(&self, client: &Client, export: &str) -> Value {
        let file = self.spec().join("exports").join(export).display().to_string();
        let command = ["ingest", "--json", "--workspace", client.workspace, "--schema"];
        let rest = [client.schema, "--url", self.node.url.as_str(), file.as_str()];
        let answer: Value =
            serde_json::from_str(&printed(&[&command[..], &rest[..]].concat())).expect("JSON");
        answer["batches"][0].clone()
    }

    /// The people of a list on the platform.
    fn list(&self, client: &Client, title: &str) -> Result<BTreeSet<String>, String> {
        let lists = self.sim.audiences();
        let found = lists.iter().find(|list| list.account == client.account && list.name == title);
        // A segment gets its list with its first member.
        let Some(found) = found else { return Ok(BTreeSet::new()) };
        let members = self.sim.members(&found.id).ok_or("the list is gone")?;
        Ok(members.into_iter().collect())
    }

    /// Waits until the platform has the people of the segments that are uploaded, and no other list.
    async fn delivered(&self, client: &Client, segments: &[Segment]) {
        let uploaded: Vec<&Segment> = segments.iter().filter(|one| one.is_uploaded).collect();
        for segment in &uploaded {
            wait_for(&segment.title, async || {
                let found = self.list(client, &segment.title)?;
                let (has, needs) = (found.len(), segment.members.len());
                match found == segment.members {
                    true => Ok(()),
                    false => Err(format!("{has} people instead of {needs}, or other ones")),
                }
            })
            .await;
        }
        let lists = self.sim.audiences();
        let lists = lists.iter().filter(|list| list.account == client.account).count();
        let with_members = uploaded.iter().filter(|segment| !segment.members.is_empty()).count();
        assert_eq!(lists, with_members, "{}", client.workspace);
    }

    /// Waits until the segments have as many members as they must have.
    async fn built(&self, http: &reqwest::Client, client: &Client, segments: &[Segment]) {
        for segment in segments {
            let name = format!("{}:{}", client.workspace, segment.slug);
            wait_for(&name, async || {
                let audience = get(http, format!("{}/v1/audiences/{name}", self.node.url)).await?;
                let members = audience["current"]["members"].as_u64();
                match members == Some(segment.members.len() as u64) {
                    true => Ok(()),
                    false => Err(format!("{members:?} members")),
                }
            })
            .await;
        }
    }
}

/// The names of the audiences in which a person is.
fn names_of(client: &Client, segments: &[Segment], person: &str) -> BTreeSet<String> {
    let found = segments.iter().filter(|segment| segment.members.contains(person));
    found.map(|segment| format!("{}:{}", client.workspace, segment.slug)).collect()
}

/// The texts of a list.
fn texts(list: &Value) -> BTreeSet<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Status and body of a GET with a token.
async fn ask(http: &reqwest::Client, url: String, token: &str) -> (u16, String) {
    let response = http.get(url).bearer_auth(token).send().await.expect("answered");
    (response.status().as_u16(), response.text().await.expect("a body"))
}

/// The hashed addresses of everybody in a segment.
fn customers(segments: &[Segment]) -> BTreeSet<String> {
    segments.iter().flat_map(|segment| segment.members.iter().cloned()).collect()
}

/// A token of acme sees acme's objects, and of a person who is a customer of all clients too.
async fn check_isolation(agency: &Agency, http: &reqwest::Client, all: &[Vec<Segment>]) {
    let url = agency.node.url.as_str();
    let create = ["token", "create", "acme-analysts", "--scope", "read,lookup,operate"];
    let rest = ["--workspace", "acme", "--url", url];
    let token = printed(&[&create[..], &rest[..]].concat());
    let token = token.trim();
    let lists = ["audiences", "syncs", "runs", "tasks", "sources", "alerts"];
    let lists = lists.map(|list| format!("/v1/{list}"));
    let pages = ["/", "/audiences", "/activation/syncs", "/alerts"].map(str::to_owned);
    for path in lists.iter().chain(&pages) {
        let (status, body) = ask(http, format!("{url}{path}"), token).await;
        assert_eq!(status, 200, "{path}: {body}");
        for other in ["globex", "initech"] {
            assert!(!body.to_lowercase().contains(other), "{path} shows {other}: {body}");
        }
    }
    let (_, body) = ask(http, format!("{url}/v1/audiences"), token).await;
    let list: Value = serde_json::from_str(&body).expect("JSON");
    let names = list["audiences"].as_array().expect("a list").iter();
    let names: BTreeSet<&str> = names.filter_map(|audience| audience["name"].as_str()).collect();
    assert_eq!(names.len(), all[0].len());
    assert!(names.iter().all(|name| name.starts_with("acme:")), "{names:?}");
    for hidden in ["/v1/audiences/globex:spain-suite", "/v1/syncs/initech:mail-users-meta/sizes"] {
        assert_eq!(ask(http, format!("{url}{hidden}"), token).await.0, 404, "{hidden}");
    }

    // Each client has a destination of this name.
    let ambiguous = output(&["sync", "run", "--destination", "meta", "--url", url]);
    let stderr = String::from_utf8_lossy(&ambiguous.stderr);
    assert_eq!(ambiguous.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("acme:meta, globex:meta, initech:meta"), "{stderr}");
    // Refused until what was delivered is recorded.
    wait_for("runs of one client are requested", async || {
        let run = output(&["sync", "run", "--destination", "acme:meta", "--url", url]);
        let stdout = String::from_utf8_lossy(&run.stdout).into_owned();
        if stdout.contains(" to acme:meta, of what differs") { Ok(()) } else { Err(stdout) }
    })
    .await;

    let [acme, globex, initech] = [0, 1, 2].map(|at: usize| customers(&all[at]));
    let person = acme.iter().find(|one| globex.contains(*one) && initech.contains(*one));
    let person = person.expect("a customer of all three");
    let of = |at: usize| names_of(&CLIENTS[at], &all[at], person);
    let everywhere: BTreeSet<String> = (0..CLIENTS.len()).flat_map(of).collect();
    let lookup = format!("{url}/v1/users/{person}/audiences");
    wait_for("lookups have the newest versions", async || {
        let found = texts(&get(http, lookup.clone()).await?["audiences"]);
        if found == everywhere { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let (status, body) = ask(http, lookup, token).await;
    let user: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, texts(&user["audiences"])), (200, of(0)), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_an_agency_get_their_lists_and_see_nothing_of_each_other() {
    let agency = Agency::start(5).await;
    let (http, spec) = (http(), agency.spec());
    for client in &CLIENTS {
        for is_repeated in [false, true] {
            let report = agency.ingest(client, client.export);
            assert_eq!(report["accepted"], client.accepted, "{report}");
            assert_eq!(report["quarantined"], 1, "{report}");
            assert_eq!(report["repeated"].as_bool().unwrap_or(false), is_repeated, "{report}");
        }
    }
    let all: Vec<Vec<Segment>> =
        CLIENTS.iter().map(|client| segments(&spec, client, &[client.export])).collect();
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [16, 6, 8]);
    for (client, segments) in CLIENTS.iter().zip(&all) {
        assert!(segments.iter().any(|segment| segment.members.len() > 5));
        agency.delivered(client, segments).await;
        agency.built(&http, client, segments).await;
    }
    assert_eq!(agency.sim.requests().unhashed_cells, 0);
    check_isolation(&agency, &http, &all).await;
    assert!(agency.node.terminate());
}

/// Cities, categories and thresholds of the generated segments.
const CITIES: usize = 20;
const CATEGORIES: usize = 30;
const THRESHOLDS: usize = 5;
/// Every so many of them is uploaded: an ad account can have 500 audiences.
const UPLOADED_EACH: usize = 73;
const GENERATED: usize = CITIES * CATEGORIES * THRESHOLDS;

/// Adds 3,000 segments to those of acme, and writes an export with purchases for them.
fn generate(spec: &Path, export: &str) {
    let table = spec.join("data/acme/segments.csv");
    let (mut rows, mut purchases) = (read(&table), String::new());
    for pair in 0..CITIES * CATEGORIES {
        let (city, category) = (pair / CATEGORIES, pair % CATEGORIES);
        for least in 1..=THRESHOLDS {
            let is_uploaded = (pair * THRESHOLDS + least).is_multiple_of(UPLOADED_EACH);
            let upload = if is_uploaded { "yes" } else { "no" };
            rows.push_str(&format!(
                "c{city}-k{category}-{least},Generated - c{city} k{category} {least},City {city},Category {category},{least},{upload}\n"
            ));
        }
        // Of the customers some have bought once, others up to five times.
        for customer in 0..3 + pair % 4 {
            for _ in 0..=(pair + customer) % THRESHOLDS {
                purchases.push_str(&format!(
                    "p{}@example.com,City {city},Category {category},10.00,,2026-11-24T12:00:00Z\n",
                    (pair * 7 + customer) % 500
                ));
            }
        }
    }
    let header = "email,city,category,amount,loyalty_card,seen\n";
    std::fs::write(spec.join("exports").join(export), format!("{header}{purchases}"))
        .expect("written");
    let aside = spec.join("aside");
    std::fs::write(&aside, rows).expect("written");
    std::fs::rename(aside, table).expect("renamed");
}

/// The numbers of audiences that the node has built in one scan each, from its log.
fn scans(log: &Path) -> Vec<usize> {
    let text = read(log);
    let lines = text.lines().filter(|line| line.contains("of a template in one scan"));
    let number = |line: &str| -> usize {
        let (_, rest) = line.rsplit_once("refreshes=").expect("a number of refreshes");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    lines.map(number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_audiences_of_one_template_are_built_in_few_scans() {
    let _heavy = HEAVY.lock().await;
    // The sources are not polled again: the new audiences are built because they are new.
    let agency = Agency::start(86_400).await;
    let (http, spec) = (http(), agency.spec());
    let (acme, export) = (&CLIENTS[0], "generated.csv");
    generate(&spec, export);
    assert_eq!(agency.ingest(acme, export)["quarantined"], 0);
    printed(&["apply", &spec.display().to_string(), "--url", &agency.node.url]);

    let mut segments = segments(&spec, acme, &[export]);
    let written = segments.len() - GENERATED;
    // Those of the example are not refreshed: their purchases are in another export.
    let generated = segments.split_off(written);
    let uploaded: Vec<&Segment> = generated.iter().filter(|one| one.is_uploaded).collect();
    assert_eq!(uploaded.len(), GENERATED / UPLOADED_EACH);
    for segment in &uploaded {
        wait_for(&segment.title, async || {
            let found = agency.list(acme, &segment.title)?;
            if found == segment.members { Ok(()) } else { Err(format!("{} people", found.len())) }
        })
        .await;
    }
    // One audience of many is read at a time: for its metrics the node reads all of them.
    let sample: Vec<Segment> = generated.into_iter().step_by(131).collect();
    agency.built(&http, acme, &sample).await;
    let others = 6 + 8;
    let completed =
        format!("throng_refreshes{{state=\"completed\"}} {}", written + GENERATED + others);
    wait_for("all audiences are built", async || {
        let request = get_text(&http, format!("{}/metrics", agency.node.url));
        let response = request.send().await.map_err(|error| error.to_string())?;
        let text = response.text().await.map_err(|error| error.to_string())?;
        let found =
            text.lines().find(|line| line.starts_with("throng_refreshes{state=\"completed\"}"));
        if found == Some(&*completed) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    // A builder may begin while the last ones are queued.
    let scans = scans(&agency.dir.path().join("node.log"));
    let audiences: usize = scans.iter().sum();
    assert!(audiences > GENERATED * 9 / 10 && scans.len() < 50, "{scans:?}");
    assert!(agency.node.terminate());
}
