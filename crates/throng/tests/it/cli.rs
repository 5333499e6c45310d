//! The command line: exit codes, standard output and error, and hints.

use std::path::Path;

use serde_json::Value;

use crate::process::{NodeProcess, output, throng};

#[test]
fn all_problems_of_a_spec_are_reported_and_the_exit_code_is_2() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let spec = dir.path().join("throng.yaml");
    std::fs::write(
        &spec,
        "version: 1\nsources:\n  - { name: shop, path: . }\naudiences:\n  - name: a\n    sql: SELECT x FROM shop.nothing\n    cron: daily\n",
    )
    .expect("written");
    let output = output(&["check", &spec.to_string_lossy()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("throng.yaml:7:"), "{stderr}");
    assert!(stderr.contains("cron"), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn an_error_in_the_sql_has_its_line() {
    let dir = tempfile::tempdir().expect("temporary folder");
    std::fs::write(dir.path().join("orders.csv"), "customer,total\n1,2\n").expect("written");
    let spec = dir.path().join("throng.yaml");
    std::fs::write(
        &spec,
        "version: 1\nsources:\n  - { name: shop, path: . }\naudiences:\n  - name: a\n    sql: |\n      SELECT customer\n      FROM shop.orders\n      WHERE totl > 1\n",
    )
    .expect("written");
    let output = output(&["check", &spec.to_string_lossy()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("throng.yaml:9:"), "{stderr}");
    assert!(stderr.contains("totl") && stderr.contains("total"), "{stderr}");
}

#[test]
fn a_template_whose_query_returns_no_rows_is_warned_of() {
    let dir = tempfile::tempdir().expect("temporary folder");
    std::fs::write(dir.path().join("orders.csv"), "customer,total\n1,2\n").expect("written");
    let spec = dir.path().join("throng.yaml");
    std::fs::write(
        &spec,
        "version: 1\nsources:\n  - { name: shop, path: . }\naudiences:\n  - name: \"a{total}\"\n    for_each: SELECT total FROM shop.orders WHERE total > 2\n    sql: SELECT customer FROM shop.orders WHERE total = $total\n",
    )
    .expect("written");
    let output = output(&["check", &spec.to_string_lossy()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let expected = "warning: template `a{total}`: the query returns no rows, so it makes nothing";
    assert!(stderr.contains(expected), "{stderr}");
}

#[test]
fn the_example_is_valid() {
    let output = output(&["check", "--json", &crate::example().to_string_lossy()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["models"].as_array().map(Vec::len), Some(11));
    let landlock = answer["landlock"].as_str().expect("a word");
    assert!(["yes", "partial", "no"].contains(&landlock), "{landlock}");
}

#[test]
fn a_spec_whose_backends_do_not_work_is_not_ok() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let spec = dir.path().join("throng.yaml");
    let text = "version: 1\nnode: { ledger: postgres, ledger_url: \"env:NO_LEDGER_IS_NAMED\" }\n";
    std::fs::write(&spec, text).expect("written");
    let spec = spec.to_string_lossy();
    let unconnected = output(&["check", &spec]);
    let stdout = String::from_utf8_lossy(&unconnected.stdout).into_owned();
    assert!(unconnected.status.success() && stdout.starts_with("ok:"), "{unconnected:?}");
    let connected = output(&["check", "--connect", &spec]);
    let stdout = String::from_utf8_lossy(&connected.stdout).into_owned();
    assert_eq!(connected.status.code(), Some(1), "{connected:?}");
    assert!(stdout.contains("ledger does not work") && !stdout.contains("ok:"), "{stdout}");
}

#[test]
fn without_a_node_the_hint_is_how_to_start_one() {
    let output = output(&["audience", "list", "--url", "http://127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("throng up") && stderr.contains("--url"), "{stderr}");
}

#[test]
fn completions_and_schema_are_printed() {
    assert!(String::from_utf8_lossy(&output(&["completions", "bash"]).stdout).contains("_throng"));
    let schema = output(&["schema"]);
    assert!(serde_json::from_slice::<serde_json::Value>(&schema.stdout).is_ok());
}

/// A folder with three audiences. The last one's query fails over the data.
fn shop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary folder");
    std::fs::create_dir(dir.path().join("data")).expect("made");
    std::fs::write(dir.path().join("data/visits.csv"), "user,n\na,1\nb,2\nc,x\n").expect("written");
    let spec = "version: 1\nsources:\n  - { name: s, path: data }\naudiences:\n  \
                - { name: all, sql: SELECT user FROM s.visits }\n  \
                - { name: some, sql: \"SELECT user FROM s.visits WHERE user < 'c'\" }\n  \
                - { name: wrong, sql: SELECT user FROM s.visits WHERE CAST(n AS INT) > 0 }\n";
    std::fs::write(dir.path().join("throng.yaml"), spec).expect("written");
    dir
}

/// Runs `throng build` with these arguments and variables. Returns its exit code and the audiences with
/// their states.
fn build(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, Vec<String>) {
    let output = throng()
        .args(["build", "--json", "--spec"])
        .arg(dir.join("throng.yaml"))
        .arg("--dir")
        .arg(dir.join("node"))
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("throng starts");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let built = answer["audiences"].as_array().cloned().unwrap_or_default();
    let line = |one: &Value| format!("{} {}", one["audience"], one["state"]).replace('"', "");
    (output.status.code(), built.iter().map(line).collect())
}

#[test]
fn a_job_builds_its_share_and_its_exit_code_tells_the_outcome() {
    let shop = shop();
    let dir = shop.path();
    let pod = |index| [("JOB_COMPLETION_INDEX", index), ("JOB_COMPLETIONS", "3")];
    assert_eq!(build(dir, &[], &pod("0")), (Some(0), vec!["all completed".to_owned()]));
    assert_eq!(build(dir, &[], &pod("1")), (Some(0), vec!["some completed".to_owned()]));
    // `x` is not a number: a retry cannot succeed.
    assert_eq!(build(dir, &[], &pod("2")), (Some(3), vec!["wrong failed".to_owned()]));
    assert_eq!(build(dir, &["some", "all"], &[]).1, ["all completed", "some completed"]);
    // The command line is wrong: the job should fail.
    assert_eq!(build(dir, &["other"], &[]).0, Some(2));
    assert_eq!(build(dir, &[], &pod("3")).0, Some(2), "there is no such share");
}

#[test]
fn a_backup_is_made_and_restored_by_the_command_line() {
    let shop = shop();
    let dir = shop.path();
    assert_eq!(build(dir, &["some"], &[]).0, Some(0));
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let made = output(&["backup", "--json", "--dir", &path("node"), "--to", &path("b.tar.zst")]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    assert!(made["files"].as_u64() > Some(3), "{made}");
    let restore = ["restore", "--from", &path("b.tar.zst"), "--dir", &path("restored")];
    let restored = output(&restore);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let stdout = String::from_utf8_lossy(&restored.stdout);
    assert!(stdout.contains("1 snapshot,") && stdout.contains("throng up --dir"), "{stdout}");
    // Nothing is overwritten, and the error says so.
    let again = output(&restore);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("not empty"));
    let nothing = output(&["backup", "--dir", &path("nowhere"), "--to", &path("c")]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("no ledger"));
    // The restored directory works in place of the original.
    std::fs::rename(dir.join("restored"), dir.join("moved")).expect("renamed");
    std::fs::remove_dir_all(dir.join("node")).expect("removed");
    std::fs::rename(dir.join("moved"), dir.join("node")).expect("renamed");
    assert_eq!(build(dir, &["some"], &[]), (Some(0), vec!["some completed".to_owned()]));
}

/// The exit code of a command that failed, and what it printed with `--json`.
fn failed(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = throng().args(arguments).arg("--json").output().expect("throng starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    let object: Value = serde_json::from_str(&printed)
        .unwrap_or_else(|error| panic!("{arguments:?} printed {printed:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.lines().count() < 30 && !stderr.is_empty(),
        "{arguments:?}: the text for people"
    );
    (output.status.code(), object)
}

#[test]
fn with_json_every_failure_is_one_object() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let spec = dir.path().join("throng.yaml");
    std::fs::write(&spec, "version: 1\naudiences:\n  - { name: a }\n").expect("written");
    let (spec, dir) = (spec.to_string_lossy(), dir.path().to_string_lossy());
    let nowhere = ["--url", "http://127.0.0.1:9"];
    let cases: &[(&[&str], i32)] = &[
        (&["audience", "list", nowhere[0], nowhere[1]], 1),
        (&["lookup", "-7", nowhere[0], nowhere[1]], 1),
        (&["apply", "/no/such/spec", nowhere[0], nowhere[1]], 2),
        (&["check", &spec], 2),
        (&["up", "--dir", &dir, "--spec", &spec], 2),
        (&["up", "--dir", &dir], 1),
        (&["build", "--dir", &dir, "--spec", &spec], 2),
        (&["backup", "--dir", &dir, "--to", "/no/such/folder/b"], 1),
        (&["log", "repair", "--dir", &dir], 1),
        (&["audience", "list", "--log", "throng=loud"], 2),
        (&["audience", "lisst"], 2),
        (&["lookup"], 2),
    ];
    for (arguments, code) in cases {
        let (exited, object) = failed(arguments);
        assert_eq!(exited, Some(*code), "{arguments:?}: {object}");
        assert_eq!(object["ok"], false, "{arguments:?}: {object}");
        assert!(object["error"].as_str().is_some_and(|text| !text.is_empty()), "{object}");
        assert!(object["help"].is_string() || object["help"].is_null(), "{object}");
    }
    let (_, object) = failed(&["check", &spec]);
    let problem = &object["problems"][0];
    assert!(problem["file"].as_str().is_some_and(|file| file.ends_with("throng.yaml")), "{object}");
    assert!(problem["line"].as_u64() >= Some(1) && problem["path"].is_string(), "{object}");
}

#[test]
fn a_failed_ingest_prints_the_reports_of_the_files_before() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| dir.path().join(name);
    let spec = "version: 1\nnode: { lake: lake }\nschemas:\n  - name: people\n    key: id\n    fields:\n      \
                - { name: id, type: text, required: true }\n      - { name: age, type: integer }\n";
    for (name, text) in [
        ("throng.yaml", spec),
        ("first.csv", "id\na\nb\n"),
        ("wrong.csv", "other\nc\n"),
        ("last.csv", "id\nd\n"),
    ] {
        std::fs::write(at(name), text).expect("written");
    }
    let node = NodeProcess::start(&at("node"), &at("throng.yaml"), &at("log"));
    let files = ["first.csv", "wrong.csv", "last.csv"].map(|name| at(name).display().to_string());
    let [first, wrong, last] = &files;
    let (code, object) =
        failed(&["ingest", "--schema", "people", "--url", &node.url, first, wrong, last]);
    assert_eq!((code, &object["ok"]), (Some(1), &Value::Bool(false)), "{object}");
    assert!(object["error"].as_str().is_some_and(|text| text.contains("wrong.csv")), "{object}");
    let batches = object["batches"].as_array().expect("a list");
    let accepted: Vec<_> = batches.iter().map(|batch| batch["accepted"].as_u64()).collect();
    assert_eq!(accepted, [Some(2)], "{object}");
    let page = at("page.jsonl");
    std::fs::write(&page, "<html>\n<body>Bad Gateway</body>\n</html>\n").expect("written");
    let page = page.display().to_string();
    let (code, object) = failed(&["ingest", "--schema", "people", "--url", &node.url, &page]);
    assert_eq!(code, Some(1), "{object}");
    let error = object["error"].as_str().unwrap_or_default();
    assert!(error.contains("page.jsonl") && error.contains("line 1: "), "{object}");
    assert!(object["help"].as_str().is_some_and(|help| help.contains("HTML")), "{object}");
    // A batch of which no row is accepted has a report, and the command fails.
    let ages = at("ages.csv");
    std::fs::write(&ages, "id,age\ne,old\nf,young\n").expect("written");
    let ages = ages.display().to_string();
    let (code, object) = failed(&["ingest", "--schema", "people", "--url", &node.url, &ages]);
    assert_eq!((code, &object["ok"]), (Some(4), &Value::Bool(false)), "{object}");
    assert_eq!(object["batches"][0]["accepted"], 0, "{object}");
    assert_eq!(object["batches"][0]["quarantined"], 2, "{object}");
    let mut both = throng();
    let both = both.args(["ingest", "--schema", "people", "--url", &node.url, &ages, last]);
    let both = both.output().expect("throng starts");
    let stderr = String::from_utf8_lossy(&both.stderr);
    assert_eq!(both.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("2 rows in quarantine"), "{stderr}");
    let header = at("header.csv");
    std::fs::write(&header, "id,age\n").expect("written");
    let header = header.display().to_string();
    let mut empty = throng();
    let empty = empty.args(["ingest", "--schema", "people", "--url", &node.url, &header, "--json"]);
    let empty = empty.output().expect("throng starts");
    let stderr = String::from_utf8_lossy(&empty.stderr);
    assert_eq!(empty.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("header.csv has a header and no rows"), "{stderr}");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let example = crate::example();
    let example = example.to_string_lossy();
    let cases: &[&[&str]] =
        &[&["schema"], &["completions", "bash"], &["check", &example], &["--help"]];
    for arguments in cases {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = throng()
            .args(*arguments)
            // The example's secret: `check` warns if it is not set.
            .env("THRONG_META_TOKEN", "t")
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .expect("throng starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{arguments:?}");
    }
    // The exit code of a failure is the same if the standard error is closed.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = throng()
        .args(["audience", "list", "--url", "http://127.0.0.1:9"])
        .stderr(writer)
        .status()
        .expect("throng starts");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a full device");
    let output = throng()
        .arg("schema")
        .stdout(full)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .expect("throng starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("standard output"), "{stderr}");
}

#[test]
fn a_start_that_replaces_an_applied_spec_says_what_it_undoes() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| dir.path().join(name);
    let ad_group = |name: &str, budget: u32| {
        format!(
            "  - {{ name: {name}, campaign: autumn, per: impression, price: \"0.10\", \
             daily_budget: \"{budget}.00\", impression_rate: 0.5 }}\n"
        )
    };
    let spec = |ad_groups: &[String]| {
        format!(
            "version: 1\nadvertisers:\n  - {{ name: shop, currency: USD, time_zone: UTC }}\ncampaigns:\n  \
             - {{ name: autumn, advertiser: shop }}\nad_groups:\n{}",
            ad_groups.concat()
        )
    };
    let (old, new) = ([ad_group("shoes", 1)], [ad_group("shoes", 2), ad_group("hats", 1)]);
    std::fs::write(at("old.yaml"), spec(&old)).expect("written");
    std::fs::write(at("new.yaml"), spec(&new)).expect("written");
    let start = || NodeProcess::start(&at("node"), &at("old.yaml"), &at("log"));
    let logged = || std::fs::read_to_string(at("log")).expect("log");

    let node = start();
    let replaces = "replaces the one that was applied last";
    assert!(!logged().contains(replaces), "a first start: {}", logged());
    let mut apply = throng();
    apply.arg("apply").arg(at("new.yaml")).args(["--url", &node.url]);
    let applied = apply.output().expect("throng starts");
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    assert!(node.terminate(), "a clean end");

    let node = start();
    let log = logged();
    for part in [
        "warning: this spec replaces the one that was applied last:\n",
        "\n~ ad group shoes\n    daily_budget: ",
        "\n- ad group hats\n",
        "changed=\"ad group shoes\" removed=\"ad group hats\"",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(node.terminate(), "a clean end");
}
