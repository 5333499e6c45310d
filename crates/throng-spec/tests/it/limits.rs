//! Limits of specs that were sent, and the limits file.

use std::sync::Arc;

use throng_spec::{
    Limits, NodeSettings, Problem, SpecFile, SpecFiles, SpecOrigin, allowed_source, check,
    check_limits, load_buckets,
};

use super::{golden, here};

fn golden_problems(name: &str, folder: &str, problems: &[Problem]) {
    let text: Vec<String> = problems
        .iter()
        .map(|problem| problem.to_string().replace(folder, "FOLDER") + "\n")
        .collect();
    let text = text.join("\n");
    assert!(!text.contains("EAAB"), "a secret is shown: {text}");
    golden(&here("limits").join(name).with_extension("expected.txt"), &text).unwrap();
}

#[test]
fn a_limits_file_is_checked() {
    let text = std::fs::read_to_string(here("limits/file.yaml")).unwrap();
    let path = "/etc/throng/limits.yaml".as_ref();
    golden_problems("file", "/none", &check_limits(path, &text).unwrap_err());
    let good = "version: 1\nsources: [/data/shop, more]\ndestination_folders: [out/./x]\nsecrets:\n  - { ref: env:META, hosts: \
                [graph.facebook.com, \"127.0.0.1:7078\"] }\nhosts: [ads.example]\n";
    let lines = check_limits(path, good).unwrap().lines();
    assert_eq!(
        lines,
        [
            "source /data/shop",
            "source /etc/throng/more",
            "destination folder /etc/throng/out/x",
            "secret env:META@127.0.0.1:7078",
            "secret env:META@graph.facebook.com",
            "host ads.example",
        ]
    );
    assert_eq!(check_limits(path, "version: 1\n").unwrap(), Limits::default());
}

#[test]
fn a_sent_spec_is_checked_against_the_limits() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(base.join("allowed/below")).unwrap();
    std::fs::create_dir(base.join("other")).unwrap();
    std::os::unix::fs::symlink("/etc", base.join("allowed/link")).unwrap();
    let mut limits = Limits::default();
    limits.allow_source(&base.join("allowed"));
    limits.allow_secret("env:META".parse().unwrap(), "graph.facebook.com".parse().unwrap());
    limits.allow_host("127.0.0.1:6379".parse().unwrap());
    let text = std::fs::read_to_string(here("limits/sent.yaml")).unwrap();
    let files =
        SpecFiles { base: base.clone(), files: vec![SpecFile { path: "sent.yaml".into(), text }] };
    let running = Box::new(NodeSettings { build_workers: 2, ..NodeSettings::default() });
    let origin = SpecOrigin::Limited { limits: Arc::new(limits), running };
    let problems = check(files, origin).unwrap_err();
    golden_problems("sent", &base.to_string_lossy(), &problems);
}

/// The root of the destination of a sent spec that writes to this folder, or the first problem.
fn sent_folder(limits: &Limits, base: &std::path::Path, folder: &str) -> Result<String, String> {
    let text = format!(
        "version: 1\ndestinations:\n  - {{ name: d, platform: file, folder: \"{folder}\" }}\n"
    );
    let file = SpecFile { path: "sent.yaml".into(), text };
    let files = SpecFiles { base: base.to_owned(), files: vec![file] };
    let running = Box::new(NodeSettings::default());
    let origin = SpecOrigin::Limited { limits: Arc::new(limits.clone()), running };
    let spec = check(files, origin).map_err(|problems| problems[0].message.clone())?;
    let throng_spec::Platform::File(file) = &spec.destinations[0].platform else { panic!() };
    Ok(file.root.as_ref().map_or_else(String::new, |root| root.display().to_string()))
}

#[test]
fn a_sent_spec_writes_only_beneath_allowed_folders_and_through_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(base.join("allowed/below")).unwrap();
    std::fs::create_dir(base.join("other")).unwrap();
    for (to, link) in [("other", "allowed/out"), ("allowed/below", "allowed/in")] {
        std::os::unix::fs::symlink(base.join(to), base.join(link)).unwrap();
    }
    // The allowed folder itself may be a link: it is the operator's.
    std::os::unix::fs::symlink(base.join("allowed"), base.join("link")).unwrap();
    let mut limits = Limits::default();
    // The right to read does not include the right to write.
    limits.allow_source(&base);
    let refused = |limits: &Limits, folder: &str| sent_folder(limits, &base, folder).unwrap_err();
    assert!(refused(&limits, "allowed").contains("may not write to the folder"));
    limits.allow_destination_folder(&base.join("allowed"));
    limits.allow_destination_folder(&base.join("link"));
    let root = base.join("allowed").display().to_string();
    assert_eq!(sent_folder(&limits, &base, "allowed"), Ok(String::new()));
    assert_eq!(sent_folder(&limits, &base, "allowed/below"), Ok(root.clone()));
    assert_eq!(sent_folder(&limits, &base, "other/../allowed/below"), Ok(root));
    assert!(sent_folder(&limits, &base, "link/below").is_ok());
    for (folder, expected) in [
        ("other", "may not write"),
        ("allowed/../other", "may not write"),
        ("/etc", "may not write"),
        ("/no/such/folder", "may not write"),
        ("allowed/out", "through a symbolic link"),
        ("allowed/in", "through a symbolic link"),
        ("allowed/gone", "there is no such folder"),
    ] {
        let message = refused(&limits, folder);
        assert!(message.contains(expected), "{folder}: {message}");
    }
    let lines = limits.lines();
    assert!(lines.contains(&format!("destination folder {}", base.join("allowed").display())));
}

/// The problems of a sent spec with this source.
fn sent_source(limits: &Limits, source: &str) -> Vec<String> {
    let text = format!("version: 1\nsources:\n  - {{ name: s, {source} }}\n");
    let file = SpecFile { path: "sent.yaml".into(), text };
    let files = SpecFiles { base: "/".into(), files: vec![file] };
    let running = Box::new(NodeSettings::default());
    let origin = SpecOrigin::Limited { limits: Arc::new(limits.clone()), running };
    let problems = check(files, origin).err().unwrap_or_default();
    problems.into_iter().map(|problem| problem.message).collect()
}

#[test]
fn a_sent_spec_reads_only_allowed_buckets_with_secrets_for_their_servers() {
    let mut limits = Limits::default();
    let own = "path: \"s3://shop/users\"";
    let keys = "access_key: env:KEY, secret_key: env:SECRET";
    let with_keys = format!("{own}, s3: {{ endpoint: \"https://s3.example\", {keys} }}");
    let refused = |limits: &Limits, source: &str| sent_source(limits, source).join("; ");
    let message = refused(&limits, own);
    assert!(message.contains("may not read s3://shop/users"), "{message}");
    limits.allow_source("s3://shop".as_ref());
    // Otherwise the credentials of the machine would be used for whoever sends a spec.
    let message = refused(&limits, own);
    assert!(message.contains("may not send to s3.us-east-1.amazonaws.com"), "{message}");
    limits.allow_host("s3.us-east-1.amazonaws.com".parse().unwrap());
    assert_eq!(sent_source(&limits, own), Vec::<String>::new());
    for other in ["s3://shops", "gs://shop"] {
        let message = refused(&limits, &format!("path: \"{other}\""));
        assert!(message.contains("may not read"), "{other}: {message}");
    }
    assert_eq!(
        sent_source(&limits, &with_keys),
        [
            "this node does not send the secret env:KEY to s3.example",
            "this node does not send the secret env:SECRET to s3.example"
        ]
    );
    for secret in ["env:KEY", "env:SECRET"] {
        limits.allow_secret(secret.parse().unwrap(), "s3.example".parse().unwrap());
    }
    assert_eq!(sent_source(&limits, &with_keys), Vec::<String>::new());
    let with_file = with_keys.replace("access_key", "ca_file: /etc/shadow, access_key");
    assert!(refused(&limits, &with_file).contains("may not read this `ca_file`"));
    assert!(limits.lines().contains(&"source s3://shop".to_owned()), "{:?}", limits.lines());
}

#[test]
fn a_flag_that_can_allow_no_source_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.csv");
    std::fs::write(&file, "k\n").unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for right in ["s3://shop", "gs://shop/users/", "data", &at(""), &at("later")] {
        assert_eq!(allowed_source(right), Ok(right.into()), "{right}");
    }
    for (wrong, why) in [
        ("s3://", "no bucket"),
        ("s3://shop/../users", "not a folder of keys"),
        ("https://shop.example/users", "neither a folder nor the URL of a bucket"),
        ("s3:/shop", "`//`"),
        (" ", "empty"),
        (at("users.csv").as_str(), "not a folder"),
    ] {
        let error = allowed_source(wrong).unwrap_err();
        assert!(error.contains(why), "{wrong}: {error}");
    }
}

#[test]
fn limits_allow_the_buckets_of_the_spec_of_the_operator() {
    let spec = throng_spec::load(&here("good/gcs.yaml")).unwrap();
    let mut limits = Limits::default();
    assert!(limits.disallowed(&spec).contains(&"source gs://ads-exports/users".to_owned()));
    limits.allow_spec(&spec);
    assert_eq!(limits.disallowed(&spec), Vec::<String>::new());
    let file = std::path::Path::new("/etc/throng/limits.yaml");
    let from_file = check_limits(file, "version: 1\nsources: [\"s3://shop/users/\"]\n").unwrap();
    assert_eq!(from_file.lines(), ["source s3://shop/users"]);
}

#[test]
fn problems_and_texts_are_bounded() {
    let one = |text: String| {
        let files =
            SpecFiles { base: "/".into(), files: vec![SpecFile { path: "a".into(), text }] };
        check(files, SpecOrigin::Operator).unwrap_err()
    };
    let fields: String = (0..20_000).map(|n| format!("unknown{n}: 1\n")).collect();
    assert_eq!(one(format!("version: 1\n{fields}")).len(), 500);
    let repeated = "version: 1\n".repeat(20_000);
    assert_eq!(one(repeated).len(), 500);
    let groups: String =
        (0..5_000).map(|n| format!("  - {{ name: a{n}, advertiser: b{n} }}\n")).collect();
    assert_eq!(one(format!("version: 1\ncampaigns:\n{groups}")).len(), 500);
    let huge = SpecFile { path: "a".into(), text: " ".repeat(throng_spec::MAX_SPEC_BYTES + 1) };
    let files = SpecFiles { base: "/".into(), files: vec![huge] };
    assert!(
        check(files, SpecOrigin::Operator).unwrap_err()[0].message.contains("larger than 32 MiB")
    );
}

#[test]
fn buckets_of_a_list_are_read_as_those_of_sources() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buckets.yaml");
    let server = "{ endpoint: \"http://127.0.0.1:9\", access_key: env:K, secret_key: env:S }";
    let text = format!(
        "version: 1\nbuckets:\n  - {{ prefix: s3://lake/exports/, s3: {server} }}\n  - prefix: gs://ads\n"
    );
    std::fs::write(&path, text).unwrap();
    let buckets = load_buckets(&path).unwrap();
    let urls: Vec<String> = buckets.iter().map(|bucket| bucket.url().to_string()).collect();
    assert_eq!(urls, ["s3://lake/exports", "gs://ads"]);
    assert_eq!(buckets[0].service.secrets().len(), 2);
    let server = "{ endpoint: \"http://lake.example\" }";
    let text = format!(
        "version: 1\nbuckets:\n  - prefix: /data\n  - {{ prefix: s3://lake, s3: {server}, max_bytes: 7 }}\n"
    );
    std::fs::write(&path, text).unwrap();
    let problems: Vec<String> =
        load_buckets(&path).unwrap_err().iter().map(|problem| problem.message.clone()).collect();
    assert_eq!(
        problems,
        [
            "this is not the URL of a bucket",
            "keys and objects would be sent to another machine unencrypted",
            "unknown field `max_bytes`",
        ]
    );
}
