//! Expansions of specs from given rows.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use throng_model::Timestamp;
use throng_spec::{
    MadeFrom, ParameterValue, Problem, Spec, SpecFile, SpecFiles, SpecOrigin, TemplateRows,
};

use crate::due::{due, scheduled};
use crate::expand::{Expanded, Rows, expand};

const HEAD: &str = "version: 1
sources: [{ name: shop, path: . }]
destinations: [{ name: meta-us, platform: meta, account: act_1, access_token: env:T }]
";

/// An audience for each region, with these fields of `for_each`.
fn audiences(for_each: &str) -> String {
    format!(
        r#"audiences:
  - name: "{{region}}-buyers"
    description: "Buyers in {{title}}"
    for_each: {{ sql: "SELECT region, title FROM shop.regions"{for_each} }}
    sql: SELECT id FROM shop.orders WHERE region = $region
"#
    )
}

const SYNCS: &str = r#"syncs:
  - name: "{region}-meta"
    for_each: SELECT region FROM shop.regions
    audience: "{region}-buyers"
    destination: meta-us
    platform_name: "Buyers {region}"
    identifiers: { key: id, sql: "SELECT id, email FROM shop.users", columns: { email: EMAIL } }
"#;

fn spec(text: &str) -> Spec {
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let text = format!("{HEAD}{text}");
    let files = vec![SpecFile { path: base.join("throng.yaml"), text }];
    throng_spec::check(SpecFiles { base, files }, SpecOrigin::Operator).unwrap()
}

fn text(value: &str) -> ParameterValue {
    ParameterValue::Text(value.to_owned())
}

fn regions(names: &[&str]) -> Rows {
    let columns = vec!["region".to_owned(), "title".to_owned()];
    let rows = names.iter().map(|name| vec![text(name), text(&name.to_uppercase())]).collect();
    Rows::Queried(TemplateRows { columns, rows })
}

fn expanded(text: &str, before: Option<&Spec>, rows: &[&str]) -> Expanded {
    expand(spec(text), before, &[regions(rows)], &[]).unwrap()
}

fn names(spec: &Spec) -> Vec<String> {
    spec.audiences.iter().map(|audience| audience.name.to_string()).collect()
}

fn held(spec: &Spec) -> Vec<String> {
    let held = spec.audiences.iter().filter(|audience| {
        audience.made_from.as_ref().is_some_and(|made_from: &MadeFrom| made_from.held)
    });
    held.map(|audience| audience.name.to_string()).collect()
}

fn messages(problems: Vec<Problem>) -> Vec<String> {
    assert!(problems.iter().all(|problem| problem.help.is_some() && problem.line > 0));
    problems.into_iter().map(|problem| problem.message).collect()
}

#[test]
fn every_row_makes_an_audience_with_its_values() {
    let Expanded { spec, warnings } = expanded(&audiences(""), None, &["emea", "apac"]);
    assert_eq!(names(&spec), ["apac-buyers", "emea-buyers"]);
    let emea = &spec.audiences[1];
    assert_eq!(emea.description.as_deref(), Some("Buyers in EMEA"));
    assert_eq!(emea.sql, "SELECT id FROM shop.orders WHERE region = $region");
    // Only what the SQL names: another title is no reason to build the audience again.
    assert_eq!(emea.parameters(), [("region".to_owned(), text("emea"))]);
    assert!(warnings.is_empty() && held(&spec).is_empty());
    assert_eq!(spec.audience_templates.len(), 1);
}

#[test]
fn a_parameter_is_a_whole_word() {
    let columns = ["region", "region_name", "title"].map(str::to_owned).to_vec();
    let rows = vec![vec![text("emea"), text("Europe"), text("EMEA")]];
    let rows = Rows::Queried(TemplateRows { columns, rows });
    let template = spec(&audiences("").replace("= $region", "= $Region_Name"));
    let made = expand(template, None, &[rows], &[]).unwrap().spec;
    let audience = &made.audiences[0];
    assert_eq!(audience.parameters(), [("region_name".to_owned(), text("Europe"))]);
    assert!(!audience.names_parameter("region") && !audience.names_parameter("name"));
}

#[test]
fn an_expanded_spec_is_stored_and_read_again() {
    let made =
        expand(spec(&(audiences("") + SYNCS)), None, &[regions(&["emea"])], &[regions(&["emea"])]);
    let made = made.unwrap().spec;
    assert_eq!(made.syncs[0].audience.as_str(), "emea-buyers");
    assert_eq!(made.syncs[0].platform_name.as_deref(), Some("Buyers emea"));
    let stored = serde_json::to_value(&made).unwrap();
    assert_eq!(serde_json::from_value::<Spec>(stored).unwrap(), made);
    let again = expand(made.clone(), Some(&made), &[Rows::Kept], &[Rows::Kept]).unwrap();
    assert_eq!(again.spec, made, "without queries the objects stay");
}

#[test]
fn an_applied_template_keeps_its_objects_if_a_row_makes_none() {
    let before = expanded(&audiences(""), None, &["emea", "apac"]).spec;
    let rows = |names: &[&str]| match regions(names) {
        Rows::Queried(rows) => Rows::QueriedOrKept(rows),
        other => other,
    };
    // A name that is refused, and one that another row has.
    for bad in [["amer", "no, name"], ["amer", "amer"]] {
        let kept = expand(spec(&audiences("")), Some(&before), &[rows(&bad)], &[]).unwrap();
        assert_eq!(kept.spec.audiences, before.audiences);
        assert_eq!(kept.warnings.len(), 1);
        let expected = "the template `{region}-buyers` keeps the objects that it has: ";
        assert!(kept.warnings[0].starts_with(expected), "{:?}", kept.warnings);
        assert!(!kept.warnings[0].contains("no, name"), "{:?}", kept.warnings);
    }
    let changed =
        expand(spec(&audiences("")), Some(&before), &[rows(&["amer", "emea", "apac"])], &[]);
    let changed = changed.unwrap();
    assert_eq!(names(&changed.spec), ["amer-buyers", "apac-buyers", "emea-buyers"]);
    assert!(changed.warnings.is_empty());
}

#[test]
fn names_that_collide_are_refused() {
    let twice = expand(spec(&audiences("")), None, &[regions(&["emea", "emea"])], &[]);
    let found = messages(twice.unwrap_err());
    assert_eq!(
        found,
        [
            "two rows of `{region}-buyers` make the audience `emea-buyers` (rows 1, 2 of the query's result)"
        ]
    );

    // The rows differ, and no value of them is shown.
    let columns = ["area", "region", "title"].map(str::to_owned).to_vec();
    let row = |values: [&str; 3]| values.map(text).to_vec();
    let rows = vec![row(["a-b", "c", "Secret"]), row(["a", "b-c", "Secret"])];
    let rows = Rows::Queried(TemplateRows { columns, rows });
    let two = audiences("").replace("{region}-buyers", "{area}-{region}-buyers");
    let found = messages(expand(spec(&two), None, &[rows], &[]).unwrap_err());
    assert_eq!(
        found,
        [
            "two rows of `{area}-{region}-buyers` make the audience `a-b-c-buyers` (rows 1, 2 of the query's result)"
        ]
    );

    let written = audiences("") + "  - { name: emea-buyers, sql: SELECT id FROM shop.orders }\n";
    let both = expand(spec(&written), None, &[regions(&["emea"])], &[]);
    let found = messages(both.unwrap_err());
    assert!(
        found[0].starts_with("a row of `{region}-buyers` makes the audience")
            && found[0].contains("also written"),
        "{found:?}"
    );
}

#[test]
fn a_value_that_makes_no_name_is_refused_without_showing_it() {
    let wrong = expand(spec(&audiences("")), None, &[regions(&["Secret Name", "no/way"])], &[]);
    let found = messages(wrong.unwrap_err());
    assert_eq!(found.len(), 1, "{found:?}");
    let row = "in a row of `{region}-buyers` (rows 1, 2 of the query's result)";
    assert!(found[0].contains("column `region`") && found[0].ends_with(row), "{found:?}");
    assert!(!found[0].contains("Secret") && !found[0].contains("way"), "{found:?}");
}

#[test]
fn rows_that_make_no_name_are_named_by_their_positions() {
    let row = |bad: &[usize]| {
        let names = (1..=20).map(|row| match bad.contains(&row) {
            true => format!("Secret {row}"),
            false => format!("r{row}"),
        });
        let names: Vec<String> = names.collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = expand(spec(&audiences("")), None, &[regions(&names)], &[]);
        let found = messages(found.unwrap_err());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!found[0].contains("Secret"), "{found:?}");
        found[0].rsplit_once(" (").unwrap().1.to_owned()
    };
    assert_eq!(row(&[17]), "row 17 of the query's result)");
    assert_eq!(row(&[2, 3, 9, 10, 20]), "rows 2, 3, 9, 10, 20 of the query's result)");
    let many = "7 rows of the query's result: 2, 3, 9, 10, 18, …)";
    assert_eq!(row(&[2, 3, 9, 10, 18, 19, 20]), many);
}

#[test]
fn a_column_that_the_query_lacks_is_refused() {
    let columns = vec!["region".to_owned()];
    let rows = Rows::Queried(TemplateRows { columns, rows: vec![vec![text("emea")]] });
    let found = messages(expand(spec(&audiences("")), None, &[rows], &[]).unwrap_err());
    // It is a fault of the query: every row lacks it.
    assert!(found[0].contains("no column `title`") && !found[0].contains("row "), "{found:?}");
}

#[test]
fn a_row_that_vanishes_is_held_and_returns() {
    let before = expanded(&audiences(""), None, &["emea", "apac"]).spec;
    let Expanded { spec, warnings } = expanded(&audiences(""), Some(&before), &["emea"]);
    assert_eq!(names(&spec), ["apac-buyers", "emea-buyers"]);
    assert_eq!(held(&spec), ["apac-buyers"]);
    assert!(warnings[0].contains("`apac-buyers`"), "{warnings:?}");
    let still = expanded(&audiences(""), Some(&spec), &["emea"]).spec;
    assert_eq!(held(&still), ["apac-buyers"]);
    let back = expanded(&audiences(""), Some(&still), &["emea", "apac"]).spec;
    assert!(held(&back).is_empty());
    assert_eq!(back, before);
}

#[test]
fn a_held_audience_follows_its_template_and_gives_way_to_a_written_one() {
    let before = expanded(&audiences(""), None, &["emea", "apac"]).spec;
    let changed = audiences("").replace("shop.orders", "shop.sales");
    let held_one = expanded(&changed, Some(&before), &["emea"]).spec;
    assert!(held_one.audiences.iter().all(|audience| audience.sql.contains("shop.sales")));
    let written = audiences("") + "  - { name: apac-buyers, sql: SELECT id FROM shop.orders }\n";
    let taken = expanded(&written, Some(&held_one), &["emea"]).spec;
    assert_eq!(names(&taken), ["apac-buyers", "emea-buyers"]);
    assert!(held(&taken).is_empty());
}

#[test]
fn a_held_audience_without_a_column_that_the_sql_needs_now_keeps_its_sql() {
    let before = expanded(&audiences(""), None, &["emea", "apac"]).spec;
    let changed = audiences("").replace("= $region", "= $region AND tier = $Tier");
    let columns = ["region", "title", "tier"].map(str::to_owned).to_vec();
    let rows = |rows: Vec<Vec<ParameterValue>>| {
        Rows::Queried(TemplateRows { columns: columns.clone(), rows })
    };
    let emea = rows(vec![vec![text("emea"), text("EMEA"), text("gold")]]);
    let after = expand(spec(&changed), Some(&before), &[emea], &[]).unwrap().spec;
    assert_eq!(held(&after), ["apac-buyers"]);
    assert_eq!(after.audiences[0].sql, before.audiences[0].sql);
    assert!(after.audiences[1].sql.contains("$Tier"));
    // Also if the query returns no rows.
    let none = expand(spec(&changed), Some(&before), &[rows(Vec::new())], &[]).unwrap().spec;
    assert_eq!(held(&none).len(), 2);
    assert!(none.audiences.iter().all(|audience| !audience.sql.contains("$Tier")));
}

#[test]
fn archiving_is_guarded() {
    let archive = audiences(", when_removed: archive, max_removed_percent: 40");
    let before = expanded(&archive, None, &["a", "b", "c"]).spec;
    let one_less = expanded(&archive, Some(&before), &["a", "b"]);
    assert_eq!(names(&one_less.spec), ["a-buyers", "b-buyers"]);
    assert!(one_less.warnings[0].contains("archived"), "{:?}", one_less.warnings);
    let two_less = expanded(&archive, Some(&before), &["a"]);
    assert_eq!(held(&two_less.spec), ["b-buyers", "c-buyers"]);
    assert!(two_less.warnings[0].contains("2 of 3 rows are gone"), "{:?}", two_less.warnings);

    let all = audiences(", when_removed: archive, max_removed_percent: 100");
    let emptied = expanded(&all, Some(&before), &[]);
    assert_eq!(held(&emptied.spec).len(), 3, "an emptied table archives nothing");
    assert!(emptied.warnings[0].contains("no rows"), "{:?}", emptied.warnings);
}

#[test]
fn a_template_that_makes_nothing_is_warned_of() {
    let none = expanded(&audiences(""), None, &[]);
    assert!(none.spec.audiences.is_empty());
    let expected = "template `{region}-buyers`: the query returns no rows, so it makes nothing";
    assert_eq!(none.warnings, [expected]);
    let some = expanded(&audiences(""), Some(&none.spec), &["emea"]);
    assert!(some.warnings.is_empty(), "{:?}", some.warnings);
}

#[test]
fn an_audience_that_something_refers_to_is_not_archived() {
    let archive = audiences(", when_removed: archive, max_removed_percent: 100")
        + &SYNCS
            .replace("\"{region}-meta\"\n    for_each: SELECT region FROM shop.regions", "one")
            .replace("\"{region}-buyers\"", "a-buyers");
    let before = expanded(&archive, None, &["a", "b"]).spec;
    let after = expanded(&archive, Some(&before), &["c"]);
    assert_eq!(names(&after.spec), ["a-buyers", "c-buyers"]);
    assert_eq!(held(&after.spec), ["a-buyers"]);
}

#[test]
fn references_to_rows_that_do_not_exist_are_refused() {
    let both = spec(&(audiences("") + SYNCS));
    let result = expand(both, None, &[regions(&["emea"])], &[regions(&["emea", "apac"])]);
    let found = messages(result.unwrap_err());
    assert_eq!(found, ["sync `apac-meta`: there is no audience named `apac-buyers`"]);
}

#[test]
fn syncs_of_one_list_on_the_platform_are_refused() {
    let same = spec(&(audiences("") + &SYNCS.replace("Buyers {region}", "Buyers")));
    let rows = || [regions(&["a", "b"])];
    let found = messages(expand(same, None, &rows(), &rows()).unwrap_err());
    let words = "the syncs `a-meta` (a row of `{region}-meta`) and `b-meta` (a row of `{region}-meta`) both write";
    assert!(found[0].starts_with(words), "{found:?}");
}

#[test]
fn templates_are_due_by_their_own_schedule_or_that_of_their_audiences() {
    let daily =
        audiences("").replace("    sql:", "    schedule: { cron: \"0 3 * * *\" }\n    sql:");
    let daily = spec(&daily);
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let (two, four) = (at("2026-01-01T02:00:00Z"), at("2026-01-01T04:00:00Z"));
    let name = daily.audience_templates[0].name.clone();
    let since = |at: Timestamp| BTreeMap::from([(name.clone(), at)]);
    assert!(due(&daily, &mut since(two), two).is_empty());
    assert_eq!(due(&daily, &mut since(two), four), BTreeSet::from([name.clone()]));
    assert!(due(&daily, &mut since(four), four).is_empty());
    // The clock has stepped back by a day: the next firing is that after now.
    let mut later = since(at("2026-01-02T04:00:00Z"));
    assert!(due(&daily, &mut later, two).is_empty());
    assert_eq!(due(&daily, &mut later, four), BTreeSet::from([name.clone()]));
    assert_eq!(scheduled(&daily).collect::<Vec<_>>(), [&name]);
    assert!(due(&spec(&audiences("")), &mut since(two), four).is_empty());
}

#[test]
fn syncs_are_due_with_the_template_of_their_audiences_unless_they_have_a_schedule() {
    let daily = audiences(", schedule: { cron: \"0 3 * * *\" }");
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let (two, four) = (at("2026-01-01T02:00:00Z"), at("2026-01-01T04:00:00Z"));
    let due_at_four = |text: &str| {
        let spec = spec(text);
        let mut since = scheduled(&spec).map(|name| (name.clone(), two)).collect();
        let due = due(&spec, &mut since, four);
        due.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(due_at_four(&(daily.clone() + SYNCS)), ["{region}-buyers", "{region}-meta"]);
    // Whatever the column is called in the other query.
    let other = SYNCS.replace("SELECT region FROM", "SELECT r FROM").replace("{region}", "{r}");
    assert_eq!(due_at_four(&(daily.clone() + &other)), ["{region}-buyers", "{r}-meta"]);
    let own =
        "for_each: { sql: \"SELECT region FROM shop.regions\", schedule: { cron: \"0 9 * * *\" } }";
    let own = SYNCS.replace("for_each: SELECT region FROM shop.regions", own);
    assert_eq!(due_at_four(&(daily + &own)), ["{region}-buyers"]);
    assert!(due_at_four(&(audiences("") + SYNCS)).is_empty());
}

#[test]
fn a_trigger_by_changes_is_that_of_the_audiences_and_not_of_the_query() {
    let text = audiences("").replace("    sql:", "    schedule: { on: source_changed }\n    sql:");
    let Expanded { spec, .. } = expanded(&text, None, &["emea"]);
    assert_eq!(spec.audiences[0].source_trigger.as_ref().unwrap().poll_secs, 60);
    assert_eq!(scheduled(&spec).count(), 0);
    let stored = serde_json::to_value(&spec).unwrap();
    assert_eq!(serde_json::from_value::<Spec>(stored).unwrap(), spec);
}

#[test]
fn a_serving_store_refers_to_audiences_of_rows() {
    let archive = audiences(", when_removed: archive, max_removed_percent: 100")
        + "serving_stores:
  - { name: cache, type: redis, url: \"redis://127.0.0.1:6379\", audiences: [a-buyers] }
";
    let before = expanded(&archive, None, &["a", "b"]).spec;
    let after = expanded(&archive, Some(&before), &["c"]);
    assert_eq!(held(&after.spec), ["a-buyers"]);
    let missing = expand(spec(&archive), None, &[regions(&["c"])], &[]);
    let found = messages(missing.unwrap_err());
    assert_eq!(
        found,
        [
            "serving store `cache`: there is no audience named `a-buyers`: no row of a template makes it"
        ]
    );
}

#[test]
fn a_stored_template_with_a_warehouse_is_refused() {
    let mut stored = serde_json::to_value(spec(&audiences(""))).unwrap();
    stored["audience_templates"][0]["audience"]["source"] = "app".into();
    assert!(serde_json::from_value::<Spec>(stored).is_err());
}

/// Two workspaces with the same template.
const WORKSPACES: &str = r#"workspaces:
  - name: acme
    sources: [{ name: shop, path: . }]
    destinations: [{ name: meta-us, platform: meta, account: act_2, access_token: env:T }]
    audiences: &audiences
      - name: "{region}-buyers"
        for_each: SELECT region, title FROM shop.regions
        sql: SELECT id FROM shop.orders WHERE region = $region
    syncs:
      - name: "{region}-meta"
        for_each: SELECT region FROM shop.regions
        audience: "{region}-buyers"
        destination: meta-us
        identifiers: { key: id, sql: "SELECT id, email FROM shop.users", columns: { email: EMAIL } }
  - name: globex
    sources: [{ name: shop, path: . }]
    audiences: *audiences
"#;

#[test]
fn syncs_of_two_destinations_with_one_account_are_refused() {
    let again = "    destinations: [{ name: again, platform: meta, account: ACCOUNT, access_token: env:U }, ";
    let written = r#"    syncs:
      - name: written
        audience: emea-buyers
        destination: again
        identifiers: { key: id, sql: "SELECT id, email FROM shop.users", columns: { email: EMAIL } }
"#;
    let text = WORKSPACES.replace("    destinations: [", again).replace("    syncs:\n", written);
    let expanded = |account: &str| {
        let rows = [regions(&["emea"]), regions(&["emea"])];
        let spec = spec(&text.replace("ACCOUNT", account));
        expand(spec, None, &rows, &[regions(&["emea"])])
    };
    assert!(expanded("act_3").is_ok());
    let found = messages(expanded("act_2").unwrap_err());
    assert_eq!(
        found,
        ["the syncs `acme:written` and `acme:emea-meta` (a row of `acme:{region}-meta`) both \
          write to the platform's audience `throng: acme / emea-buyers`: the destinations `acme:again` and \
          `acme:meta-us` have one account"]
    );
}

#[test]
fn a_template_of_a_workspace_makes_objects_of_it() {
    let rows = [regions(&["emea"]), regions(&["emea", "apac"])];
    let made = expand(spec(WORKSPACES), None, &rows, &[regions(&["emea"])]).unwrap().spec;
    assert_eq!(names(&made), ["acme:emea-buyers", "globex:apac-buyers", "globex:emea-buyers"]);
    let [sync] = made.syncs.as_slice() else { panic!() };
    assert_eq!(
        (sync.name.as_str(), sync.audience.as_str(), sync.destination.as_str()),
        ("acme:emea-meta", "acme:emea-buyers", "acme:meta-us")
    );
    assert_eq!(sync.name_on_platform(), "throng: acme / emea-buyers");
    // Its stored form passes the checks, and a row of another workspace does not.
    let stored = serde_json::to_string(&made).unwrap();
    assert_eq!(serde_json::from_str::<Spec>(&stored).unwrap(), made);
    let other = stored.replace("\"acme:emea-meta\"", "\"globex:emea-meta\"");
    assert!(serde_json::from_str::<Spec>(&other).is_err());
    // Rows that vanish are held in their workspace only.
    let rows = [regions(&[]), regions(&["emea", "apac"])];
    let after = expand(spec(WORKSPACES), Some(&made), &rows, &[regions(&[])]).unwrap().spec;
    assert_eq!(held(&after), ["acme:emea-buyers"]);
}

#[test]
fn no_value_makes_an_object_of_another_workspace() {
    for value in ["globex:emea", ":emea", "a:b:c"] {
        let plain = expand(spec(&audiences("")), None, &[regions(&[value])], &[]);
        let found = messages(plain.unwrap_err());
        assert!(found[0].starts_with("the value of the column `region` cannot be"), "{found:?}");
        let rows = [regions(&[value]), regions(&[])];
        let acme = expand(spec(WORKSPACES), None, &rows, &[regions(&[])]);
        assert!(!messages(acme.unwrap_err()).is_empty(), "{value}");
    }
}
