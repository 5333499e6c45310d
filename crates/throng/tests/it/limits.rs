//! `throng apply` against a node that allows little, and SIGHUP.

use std::path::Path;
use std::process::Output;

use crate::process::{NodeProcess, throng, wait_for};

/// Sends a spec to a node.
fn send(command: &str, spec: &Path, url: &str) -> Output {
    throng().arg(command).arg(spec).args(["--url", url]).output().expect("throng starts")
}

#[test]
fn a_node_does_not_start_with_a_flag_that_allows_nothing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut command = throng();
    command.arg("up").arg("--dir").arg(dir.path().join("node"));
    let refused = command.args(["--allow-source", "s3:///users"]).output().expect("throng starts");
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--allow-source") && stderr.contains("no bucket"), "{stderr}");
}

#[tokio::test]
async fn sighup_reloads_the_limits() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("data")).expect("made");
    std::fs::write(at("data/visits.csv"), "user\na\n").expect("written");
    std::fs::write(at("first.yaml"), "version: 1\n").expect("written");
    let spec = "version: 1\nsources:\n  - { name: s, path: data }\naudiences:\n  \
                - { name: all, sql: SELECT user FROM s.visits }\n";
    std::fs::write(at("second.yaml"), spec).expect("written");
    let limits = at("limits.yaml");
    std::fs::write(&limits, "version: 1\n").expect("written");
    let arguments = ["--limits", limits.to_str().expect("UTF-8")];
    let log = at("log");
    let node = NodeProcess::with(&at("node"), &at("first.yaml"), &log, &arguments, &[]);
    let logged = || std::fs::read_to_string(&log).expect("log");

    for command in ["plan", "apply"] {
        let refused = send(command, &at("second.yaml"), &node.url);
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{stderr}");
        let data = at("data");
        assert!(stderr.contains("second.yaml:3:"), "{stderr}");
        assert!(stderr.contains(&format!("--allow-source {}", data.display())), "{stderr}");
    }
    // An invalid file changes nothing, and the node runs on.
    std::fs::write(&limits, "version: 1\nsource: [data]\n").expect("written");
    node.signal("HUP");
    wait_for("the invalid file is refused", async || {
        match logged().contains("did you mean `sources`") {
            true => Ok(()),
            false => Err(logged()),
        }
    })
    .await;
    assert_eq!(send("apply", &at("second.yaml"), &node.url).status.code(), Some(2));
    std::fs::write(&limits, "version: 1\nsources: [data]\n").expect("written");
    node.signal("HUP");
    wait_for("the valid file is loaded", async || match logged().contains("reloaded limits") {
        true => Ok(()),
        false => Err(logged()),
    })
    .await;
    let planned = send("plan", &at("second.yaml"), &node.url);
    let stdout = String::from_utf8_lossy(&planned.stdout).into_owned();
    assert!(stdout.contains("+ audience all") && stdout.contains("--base-version 1"), "{stdout}");
    let apply = |version: &str| {
        let mut command = throng();
        command.arg("apply").arg(at("second.yaml")).args(["--url", &node.url]);
        command.args(["--base-version", version]).output().expect("throng starts")
    };
    let applied = apply("1");
    let stdout = String::from_utf8_lossy(&applied.stdout).into_owned();
    assert!(applied.status.success() && stdout.contains("applied as version 2"), "{stdout}");
    let late = apply("1");
    let stderr = String::from_utf8_lossy(&late.stderr).into_owned();
    assert_eq!(late.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("the applied version is now 2") && stderr.contains("throng plan"),
        "{stderr}"
    );
    assert!(node.terminate(), "a clean end");
}
