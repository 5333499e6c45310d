//! Plans and their texts.

use std::path::Path;

use throng_spec::{Action, ObjectKind, Platform, Spec, load, plan};

use super::{golden, here};

fn with(changes: &[(&str, &str)]) -> Spec {
    let mut text = std::fs::read_to_string(here("good/full.yaml")).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("throng.yaml");
    std::fs::write(&file, text).unwrap();
    let mut spec = load(&file).unwrap();
    // The folder's name changes from run to run.
    spec.sources[0].path = "/data".into();
    for destination in &mut spec.destinations {
        if let Platform::Meta(meta) = &mut destination.platform {
            meta.app_secret = None;
        }
    }
    spec.sources[1].path = "/lake".into();
    spec.node.spill_dir = None;
    spec.node.lake = None;
    spec.node.tls = None;
    spec.node.alerts.clear();
    spec.node.log = throng_spec::LogSettings::Files;
    spec.node.objects = throng_spec::ObjectsSettings::Directory;
    spec
}

fn check(name: &str, plan: &throng_spec::Plan) {
    golden(&here("plans").join(Path::new(name)), &plan.to_string()).unwrap();
}

#[test]
fn a_moved_text_is_not_a_change() {
    let moved = with(&[("# Uses", "\n\n# Uses")]);
    let plan = plan(Some(&with(&[])), &moved);
    assert!(plan.is_empty(), "{plan}");
    check("nothing.txt", &plan);
    // Warnings are shown also if nothing changes: SQL may not be checked.
    let warned = throng_spec::Plan { warnings: vec!["not checked".to_owned()], ..plan };
    assert!(warned.to_string().ends_with("already.\nwarning: not checked\n"), "{warned}");
}

#[test]
fn a_folder_that_is_named_in_another_way_is_not_a_change() {
    let (old, mut new) = (with(&[]), with(&[]));
    new.sources[0].path = "/spec/./../data".into();
    let same = plan(Some(&old), &new);
    assert!(same.is_empty(), "{same}");
    new.sources[0].path = "/spec/data".into();
    assert_eq!(plan(Some(&old), &new).changes.len(), 1);
}

#[test]
fn the_first_plan_adds_everything() {
    check("first.txt", &plan(None, &with(&[])));
}

#[test]
fn changes_list_their_fields() {
    let new = with(&[
        ("FROM shop.purchases;", "FROM shop.purchases\n      WHERE amount > 0"),
        ("max_growth_percent: off", "max_growth_percent: 90"),
        ("exclude: [staff]", "exclude: []"),
        ("daily_budget: 100.10", "daily_budget: 120"),
        ("name: hats", "name: caps"),
        ("feed_interval_ms: 500", "feed_interval_ms: 250"),
        ("cron: \"@daily\"", "cron: \"@weekly\""),
    ]);
    let plan = plan(Some(&with(&[])), &new);
    let boots = plan.changes.iter().find(|change| change.name == "boots").unwrap();
    assert_eq!(boots.kind, ObjectKind::AdGroup);
    let Action::Changed(fields) = &boots.action else { panic!() };
    let fields: Vec<_> = fields.iter().map(|change| change.field.as_str()).collect();
    assert_eq!(fields, ["daily_budget", "exclude"]);
    assert!(plan.to_string().contains("1 to add, 4 to change, 1 to remove."), "{plan}");
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<throng_spec::Plan>(&json).unwrap(), plan);
    check("changes.txt", &plan);
}

#[test]
fn changes_of_currency_are_warnings_with_both_currencies() {
    let old = with(&[]);
    let euros =
        with(&[("currency: USD", "currency: EUR"), ("daily_budget: 100.10", "daily_budget: 0.01")]);
    let plan = plan(Some(&old), &euros);
    let warns = |words: &str| plan.warnings.iter().any(|warning| warning.contains(words));
    assert!(warns("have spent in USD is not converted, and counts as EUR"), "{plan}");
    assert!(warns("is above its daily budget of 0.01 EUR"), "{plan}");
    assert!(plan.to_string().contains("daily_budget: 100.10 USD → 0.01 EUR"), "{plan}");
    assert!(!warns("are added again"), "{plan}");
    // An ad group that may have been removed before has no spend in the new currency.
    let mut without = old.clone();
    without.ad_groups.retain(|ad_group| ad_group.name.as_str() != "boots");
    let plan = throng_spec::plan(Some(&without), &euros);
    let again = "begin without what they have spent in USD";
    assert!(plan.warnings.iter().any(|warning| warning.contains(again)), "{plan}");
}

#[test]
fn a_rate_of_zero_is_a_warning() {
    let warned = |changes: &[(&str, &str)]| {
        let plan = plan(Some(&with(&[])), &with(changes));
        plan.warnings.iter().filter(|warning| warning.contains("a rate of 0")).count()
    };
    let (zero, predicted) = (
        ("impression_rate: 0.95", "impression_rate: 0"),
        ("prediction: off", "prediction: in_flight"),
    );
    assert_eq!(warned(&[zero, predicted]), 1);
    let rounded = ("impression_rate: 0.95", "impression_rate: 1e-12");
    assert_eq!(warned(&[rounded, predicted]), 1);
    let no_clicks = ("action_rate: 0.01", "action_rate: 0");
    assert_eq!(warned(&[no_clicks, predicted]), 1);
    // Spend in flight is not used.
    assert_eq!(warned(&[zero]), 0);
}

#[test]
fn a_sync_whose_audience_gets_another_name_on_the_platform_is_a_warning() {
    let renamed = |old: &str, new: &str| {
        let plan = plan(Some(&with(&[])), &with(&[(old, new)]));
        plan.warnings.iter().any(|warning| warning.contains("keeps its name"))
    };
    assert!(renamed("platform_name: Buyers", "platform_name: Customers"));
    // Without a `platform_name` the name is that of the audience.
    assert!(renamed("audience: staff", "audience: buyers"));
    assert!(!renamed("audience: buyers", "audience: staff"));
}

#[test]
fn more_syncs_than_a_meta_account_has_audiences_are_a_warning() {
    let mut spec = with(&[]);
    let mut warned = |syncs: usize| {
        spec.syncs = vec![spec.syncs[0].clone(); syncs];
        let mut warnings = throng_spec::warnings(&spec);
        warnings.retain(|warning| warning.starts_with("account `meta/"));
        warnings
    };
    assert_eq!(warned(500), Vec::<String>::new());
    let warnings = warned(1_186);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("1,186 syncs send to it"), "{warnings:?}");
}
