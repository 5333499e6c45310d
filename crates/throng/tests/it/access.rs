//! How commands find a node and its token, and what other users of the machine can read.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::process::{NodeProcess, throng};

fn node(dir: &Path) -> NodeProcess {
    let spec = dir.join("throng.yaml");
    std::fs::write(
        &spec,
        "version: 1\nadvertisers:\n  - { name: shop, currency: USD, time_zone: UTC }\ncampaigns:\n  - { name: autumn, advertiser: shop }\nad_groups:\n  - { name: shoes, campaign: autumn, per: impression, price: \"0.10\", daily_budget: \"1.00\", impression_rate: 0.5 }\n",
    )
    .expect("written");
    NodeProcess::start(&dir.join("node"), &spec, &dir.join("log"))
}

fn run(arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Output {
    let mut child = throng()
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("throng starts");
    // A command that reads no input may have ended.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("ended")
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn commands_on_the_same_machine_find_the_token() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let node = node(dir.path());
    let (url, data) = (node.url.as_str(), dir.path().join("node"));
    let data = data.to_string_lossy().into_owned();
    let empty = dir.path().to_string_lossy().into_owned();
    let unregistered = [("XDG_STATE_HOME", empty.as_str())];

    // By the address, by the directory, by a variable.
    ok(&run(&["budget", "--url", url], &[], ""));
    ok(&run(&["budget", "--dir", &data], &unregistered, ""));
    ok(&run(&["budget"], &[unregistered[0], ("THRONG_DIR", &data)], ""));
    let refused = run(&["budget", "--url", url], &unregistered, "");
    assert_eq!(refused.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(stderr.contains("--token-file") && stderr.contains("THRONG_TOKEN"), "{stderr}");
    // The token is not sent to another address than the node's.
    let other = run(&["budget", "--dir", &data, "--url", "http://127.0.0.1:9"], &unregistered, "");
    assert!(!other.status.success());

    // A token from a file, the standard input or a variable.
    let create = ["token", "create", "ci", "--scope", "read,operate", "--expires", "1h"];
    let token = ok(&run(&[&create[..], &["--dir", &data]].concat(), &[], ""));
    assert!(token.starts_with("throng_"), "one line with the token");
    let file = dir.path().join("ci.token");
    std::fs::write(&file, &token).expect("written");
    let file = file.to_string_lossy().into_owned();
    ok(&run(&["budget", "--url", url, "--token-file", &file], &unregistered, ""));
    ok(&run(&["budget", "--url", url, "--token-file", "-"], &unregistered, &token));
    ok(&run(&["budget", "--url", url], &[unregistered[0], ("THRONG_TOKEN", &token)], ""));
    let list = ["token", "list", "--json", "--url", url];
    let refused = run(&list, &[("THRONG_TOKEN", &token)], "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("needs the scope admin"));
    let listed: Value = serde_json::from_str(&ok(&run(&list, &[], ""))).expect("JSON");
    let names: Vec<&str> = listed["tokens"]
        .as_array()
        .expect("list")
        .iter()
        .filter_map(|t| t["name"].as_str())
        .collect();
    assert_eq!(names, ["admin", "ci"]);
    ok(&run(&["token", "revoke", "ci", "--url", url], &[], ""));
    let refused = run(&["budget", "--url", url, "--token-file", &file], &unregistered, "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not valid"));

    let link = ok(&run(&["sign-in", "--url", url], &[], ""));
    assert!(link.starts_with(&format!("{url}/sign-in?code=")), "{link}");
    let sessions = ok(&run(&["session", "list", "--json", "--url", url], &[], ""));
    assert!(sessions.contains("\"sessions\""), "{sessions}");
    assert!(!run(&["session", "end", "7", "--url", url], &[], "").status.success());
    assert!(node.terminate());
    // The token is not sent while no node runs on the directory.
    let gone = run(&["budget", "--dir", &data], &unregistered, "");
    assert!(String::from_utf8_lossy(&gone.stderr).contains("no node runs on"));
}

/// What was found at a path; `None` if it has been removed.
fn unless_removed<T>(found: std::io::Result<T>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("cannot be read: {error}"),
    }
}

/// What other users of the machine can see: arguments of processes, and the modes of files.
#[test]
fn other_users_of_the_machine_see_no_secret() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let node = node(dir.path());
    let token = std::fs::read_to_string(dir.path().join("node/admin.token")).expect("a token");
    let arguments = std::fs::read(format!("/proc/{}/cmdline", node.id())).expect("readable");
    assert!(!String::from_utf8_lossy(&arguments).contains(token.trim()));
    let mut folders = vec![dir.path().join("node")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        // The node works meanwhile: it removes what is temporary, such as the file that probes the disk.
        let Some(entries) = unless_removed(std::fs::read_dir(&folder)) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            let Some(metadata) = unless_removed(path.symlink_metadata()) else { continue };
            let mode = metadata.permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} has the mode {mode:o}", path.display());
            files += 1;
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    assert!(files > 5, "{files}");
    let mode = dir.path().join("node").metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(node.terminate());
    let log = std::fs::read_to_string(dir.path().join("log")).expect("a log");
    assert!(!log.contains(token.trim()), "the log holds the token");
    // No argument takes a secret.
    for command in [&["budget"][..], &["sim", "meta"]] {
        let refused = run(&[command, &["--token", "x"]].concat(), &[], "");
        assert_eq!(refused.status.code(), Some(2), "{command:?}");
    }
}
