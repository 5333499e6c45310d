//! Specs with workspaces: names, references, plans, and their stored form.

use std::collections::BTreeSet;
use std::sync::Arc;

use throng_spec::{
    Action, Limits, NodeSettings, ObjectKind, Plan, Spec, SpecFile, SpecFiles, SpecOrigin, check,
    load, plan,
};

use super::here;

fn text() -> String {
    std::fs::read_to_string(here("good/workspaces.yaml")).unwrap()
}

fn spec(text: &str) -> Spec {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("throng.yaml");
    std::fs::write(&file, text).unwrap();
    let mut spec = load(&file).unwrap_or_else(|problems| panic!("{problems:?}"));
    // The folder's name changes from run to run.
    for source in &mut spec.sources {
        source.path = "/data".into();
    }
    spec.node.lake = None;
    spec
}

#[test]
fn objects_of_a_workspace_have_its_name_in_front_of_theirs() {
    let spec = load(&here("good/workspaces.yaml")).unwrap();
    let sources: Vec<&str> = spec.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(sources, ["shop", "acme:shop", "globex:shop", "acme:lake", "globex:lake"]);
    let lake = spec.node.lake.as_ref().unwrap();
    assert_eq!(spec.sources[3].path, lake.join("acme"));
    assert_eq!(spec.sources[4].path, lake.join("globex"));
    let schemas: Vec<&str> = spec.schemas.iter().map(|schema| schema.name.as_str()).collect();
    assert_eq!(schemas, ["acme:customers", "globex:customers"]);
    let audiences: Vec<&str> = spec.audiences.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(audiences, ["all", "acme:all", "globex:all"]);
    let app = spec.audiences[2].source.as_ref().unwrap();
    assert_eq!(app.as_str(), "globex:app");
    assert!(spec.warehouse(app.as_str()).is_some());
    assert_eq!(spec.audience_templates[0].name.as_str(), "acme:{region}-buyers");
    let [sync] = spec.syncs.as_slice() else { panic!() };
    let named = (sync.name.as_str(), sync.audience.as_str(), sync.destination.as_str());
    assert_eq!(named, ("acme:all-meta", "acme:all", "acme:meta"));
    assert_eq!(sync.name_on_platform(), "throng: acme / all");
    let template = &spec.sync_templates[0];
    assert_eq!(template.audience.as_str(), "acme:{region}-buyers");
    assert_eq!(template.destination.as_str(), "acme:meta");
    let store = &spec.serving_stores[0];
    assert!(store.has(&spec.audiences[1].name) && !store.has(&spec.audiences[0].name));
    let included: Vec<&str> = spec.ad_groups[0].include.iter().map(|name| name.as_str()).collect();
    assert_eq!(included, ["all", "acme:all", "acme:emea-buyers"]);
    assert_eq!(spec.workspaces(), BTreeSet::from(["acme", "globex"]));
}

#[test]
fn the_stored_form_is_read_again_and_checked() {
    // Their audiences are those of rows, which are not known yet.
    let spec = Spec { ad_groups: Vec::new(), ..spec(&text()) };
    let stored = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<Spec>(&stored).unwrap(), spec);
    for (old, new, why) in [
        ("\"audience\":\"acme:all\"", "\"audience\":\"globex:all\"", "another workspace"),
        ("\"destination\":\"acme:meta\"", "\"destination\":\"globex:meta\"", "another workspace"),
        ("\"audiences\":[\"acme:all\"]", "\"audiences\":[\"all\"]", "another workspace"),
        ("act_2002", "act_1001", "has its account"),
        ("globex:", "default:", "no workspace may have this name"),
    ] {
        assert!(stored.contains(old), "{old}");
        let error = serde_json::from_str::<Spec>(&stored.replace(old, new)).unwrap_err();
        assert!(error.to_string().contains(why), "{old}: {error}");
    }
}

#[test]
fn a_spec_without_workspaces_is_stored_as_before() {
    let spec = load(&here("good/full.yaml")).unwrap();
    assert!(spec.workspaces().is_empty());
    let stored = serde_json::to_value(&spec).unwrap();
    let fields: BTreeSet<&str> = stored.as_object().unwrap().keys().map(String::as_str).collect();
    let before = [
        "version",
        "sources",
        "schemas",
        "audiences",
        "destinations",
        "syncs",
        "serving_stores",
        "advertisers",
        "campaigns",
        "ad_groups",
        "node",
    ];
    assert_eq!(fields, BTreeSet::from(before));
    for kind in &before[1..7] {
        for object in stored[kind].as_array().unwrap() {
            assert!(!object["name"].as_str().unwrap().contains(':'), "{object}");
        }
    }
    assert_eq!(spec.syncs[1].name_on_platform(), format!("throng: {}", spec.syncs[1].audience));
}

#[test]
fn a_source_over_ingested_rows_of_another_workspace_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["lake/acme", "lake/globex", "shop"] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    let file = dir.path().join("throng.yaml");
    let text = "version: 1\nnode: { lake: lake }\nsources: [{ name: all, path: . }, { name: shop, path: shop }]\n\
                workspaces:\n  - name: acme\n    sources:\n      - { name: own, path: lake/acme }\n      \
                - { name: shop, path: shop }\n      - { name: other, path: shop/../lake/globex }\n";
    std::fs::write(&file, text).unwrap();
    let problems = load(&file).unwrap_err();
    let found: Vec<&str> = problems.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(
        found,
        [
            "the source `all` has ingested rows of other workspaces",
            "the source `acme:other` has ingested rows of other workspaces"
        ]
    );
    // The same in a bucket.
    let text = "version: 1\nnode: { lake: 's3://b/lake' }\nsources: [{ name: all, path: 's3://b' }, \
                { name: shop, path: 's3://b/lakes' }]\nworkspaces:\n  - name: acme\n    sources:\n      \
                - { name: own, path: 's3://b/lake/acme/visits' }\n      - { name: other, path: 's3://b/lake/globex' }\n";
    std::fs::write(&file, text).unwrap();
    let in_bucket = load(&file).unwrap_err();
    assert_eq!(in_bucket.iter().map(|one| one.message.as_str()).collect::<Vec<_>>(), found);
    // By another API of the same server too.
    std::fs::write(&file, text.replace("lake: 's3://", "lake: 'gs://")).unwrap();
    let by_other_api = load(&file).unwrap_err();
    assert_eq!(by_other_api.iter().map(|one| one.message.as_str()).collect::<Vec<_>>(), found);
    // Without workspaces it is as before.
    std::fs::write(&file, "version: 1\nnode: { lake: lake }\nsources: [{ name: all, path: . }]\n")
        .unwrap();
    assert!(load(&file).is_ok());
}

#[test]
fn a_sent_spec_has_its_limits_in_every_workspace() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    std::fs::create_dir(base.join("allowed")).unwrap();
    let mut limits = Limits::default();
    limits.allow_source(&base.join("allowed"));
    let text = "version: 1\nworkspaces:\n  - name: acme\n    sources:\n      \
                - { name: shop, path: allowed }\n      - { name: system, path: /etc }\n    \
                destinations: [{ name: meta, platform: meta, account: act_1, access_token: env:T }]\n";
    let file = SpecFile { path: "sent.yaml".into(), text: text.to_owned() };
    let files = SpecFiles { base, files: vec![file] };
    let running = Box::new(NodeSettings::default());
    let problems =
        check(files, SpecOrigin::Limited { limits: Arc::new(limits), running }).unwrap_err();
    let found: Vec<(&str, &str)> =
        problems.iter().map(|one| (one.path.as_str(), one.message.as_str())).collect();
    let [(source, folder), (destination, host)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(*source, "workspaces[0].sources[1].path");
    assert!(folder.starts_with("this node may not read the folder /etc"), "{folder}");
    assert_eq!(*destination, "workspaces[0].destinations[0].platform");
    assert!(host.starts_with("this node may not send to graph.facebook.com"), "{host}");
}

/// The names that are added, and those that are removed.
fn names(plan: &Plan) -> (Vec<&str>, Vec<&str>) {
    let of = |added: bool| {
        let matching = plan.changes.iter().filter(move |change| match change.action {
            Action::Added => added,
            Action::Removed => !added,
            Action::Changed(_) => false,
        });
        matching.map(|change| change.name.as_str()).collect()
    };
    (of(true), of(false))
}

#[test]
fn a_plan_has_the_objects_of_a_workspace_that_appears_vanishes_or_is_renamed() {
    let with = spec(&text());
    let from = text().find("  - name: globex").unwrap();
    let to = text().find("advertisers:").unwrap();
    let without = format!("{}{}", &text()[..from], &text()[to..]);
    let without = spec(&without.replace("exclude: [\"globex:all\"]", "exclude: []"));
    let objects = [
        "globex:shop",
        "globex:lake",
        "globex:app",
        "globex:customers",
        "globex:all",
        "globex:meta",
    ];

    let appears = plan(Some(&without), &with);
    let (added, removed) = names(&appears);
    assert_eq!(BTreeSet::from_iter(added), BTreeSet::from(objects));
    assert!(removed.is_empty() && appears.warnings.is_empty(), "{appears}");
    assert!(appears.to_string().contains("+ audience globex:all\n"), "{appears}");

    let vanishes = plan(Some(&with), &without);
    let (added, removed) = names(&vanishes);
    assert!(added.is_empty(), "{vanishes}");
    assert_eq!(BTreeSet::from_iter(removed), BTreeSet::from(objects));
    assert!(vanishes.warnings[0].starts_with("workspace `globex` is removed"), "{vanishes}");
    let kept = vanishes.changes.iter().filter(|change| change.name.starts_with("acme:"));
    assert_eq!(kept.count(), 0);

    let renamed =
        text().replace("name: globex\n", "name: initech\n").replace("globex:all", "initech:all");
    let renamed = plan(Some(&with), &spec(&renamed));
    let (added, removed) = names(&renamed);
    let new = objects.map(|name| name.replace("globex:", "initech:"));
    assert_eq!(BTreeSet::from_iter(added), BTreeSet::from_iter(new.iter().map(String::as_str)));
    assert_eq!(BTreeSet::from_iter(removed), BTreeSet::from(objects));
    let changed = renamed.changes.iter().find(|c| matches!(c.action, Action::Changed(_))).unwrap();
    assert_eq!((changed.kind, changed.name.as_str()), (ObjectKind::AdGroup, "shoes"));
}

#[test]
fn two_workspaces_have_equal_names_without_a_collision() {
    let text = "version: 1\n\
                sources: [{ name: my-shop, path: . }]\n\
                workspaces:\n  - name: my\n    sources: [{ name: shop, path: . }]\n  \
                - name: my-shop\n    sources: [{ name: my.shop, path: . }]\n  \
                - name: my.shop\n    sources: [{ name: my-shop, path: . }]\n";
    let spec = spec(text);
    let names: Vec<&str> = spec.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["my-shop", "my:shop", "my-shop:my.shop", "my.shop:my-shop"]);
}
