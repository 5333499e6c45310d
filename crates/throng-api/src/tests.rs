//! Examples of schemas are values of their types, and codes of errors are the ones of the JSON.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::PartialSchema;

use super::*;

/// Reads the example of a schema as the type, writes it again, and compares the fields.
fn example_of<T: PartialSchema + Serialize + DeserializeOwned>() {
    let schema = serde_json::to_value(T::schema()).unwrap();
    let example = schema["example"].as_object().unwrap_or_else(|| panic!("no example: {schema}"));
    let read: T = serde_json::from_value(Value::Object(example.clone())).unwrap();
    let written = serde_json::to_value(&read).unwrap();
    for (name, value) in example {
        assert_eq!(&written[name], value, "{name} of {schema}");
    }
}

#[test]
fn examples_are_values_of_their_types() {
    example_of::<ActivationRun>();
    example_of::<ActivationTask>();
    example_of::<AdGroupCatalog>();
    example_of::<AlertDelivery>();
    example_of::<AlertDeliveryList>();
    example_of::<AlertItem>();
    example_of::<AlertList>();
    example_of::<AlertReceiver>();
    example_of::<AlertTest>();
    example_of::<AlertTestAnswers>();
    example_of::<AppliedVersions>();
    example_of::<AudienceDetail>();
    example_of::<AudienceList>();
    example_of::<AudienceRefresh>();
    example_of::<AudienceSnapshot>();
    example_of::<AudienceSummary>();
    example_of::<BudgetDetail>();
    example_of::<BudgetRates>();
    example_of::<BudgetList>();
    example_of::<BudgetReport>();
    example_of::<BudgetState>();
    example_of::<BulkAnswer>();
    example_of::<BulkRequest>();
    example_of::<CreateToken>();
    example_of::<CurrentSpec>();
    example_of::<DecideRequest>();
    example_of::<DecisionMade>();
    example_of::<Description>();
    example_of::<ErrorDetail>();
    example_of::<EventsAccepted>();
    example_of::<GateList>();
    example_of::<GateNoted>();
    example_of::<History>();
    example_of::<HistoryItem>();
    example_of::<LookupRequest>();
    example_of::<LookupResult>();
    example_of::<NodeHealth>();
    example_of::<NodeList>();
    example_of::<PublishedMembership>();
    example_of::<QuarantineByPartition>();
    example_of::<Readiness>();
    example_of::<RefreshCancelled>();
    example_of::<RefreshQueued>();
    example_of::<RemovalList>();
    example_of::<RunList>();
    example_of::<RunSync>();
    example_of::<RunsApproved>();
    example_of::<SentSpec>();
    example_of::<SessionEnded>();
    example_of::<RunRequested>();
    example_of::<SessionList>();
    example_of::<SignInLink>();
    example_of::<SnapshotVersion>();
    example_of::<SourceList>();
    example_of::<SpecChange>();
    example_of::<SpecChanged>();
    example_of::<SpecPlanned>();
    example_of::<SpecProblem>();
    example_of::<RewriteStore>();
    example_of::<StoreHashSeed>();
    example_of::<StoreList>();
    example_of::<StoreRewrite>();
    example_of::<StoreWriteList>();
    example_of::<SyncList>();
    example_of::<SyncNamed>();
    example_of::<SyncSize>();
    example_of::<SyncSizes>();
    example_of::<TaskDetail>();
    example_of::<TaskSummary>();
    example_of::<TaskList>();
    example_of::<TasksEnqueued>();
    example_of::<TokenCreated>();
    example_of::<TokenList>();
    example_of::<TokenRevoked>();
    example_of::<TokenSummary>();
    example_of::<UserAudiences>();
}

#[test]
fn codes_are_unique_and_equal_to_those_of_the_json() {
    let codes: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(codes.len(), ErrorCode::ALL.len());
    for code in ErrorCode::ALL {
        assert_eq!(serde_json::to_value(code).unwrap(), json!(code.as_str()));
        assert!((400..600).contains(&code.status()), "{code}");
    }
}

#[test]
fn unknown_fields_of_requests_are_refused_and_those_of_responses_are_ignored() {
    let request = json!({ "version": 3, "force": true });
    assert!(serde_json::from_value::<SnapshotVersion>(request).is_err());
    let response = json!({ "refresh": 17, "queue": "a field of a later version" });
    let read: RefreshQueued = serde_json::from_value(response).unwrap();
    assert_eq!(read.refresh.0, 17);
}

#[test]
fn flattened_fields_are_in_the_object_itself() {
    let summary = json!({
        "name": "buyers", "current": null, "refresh": null, "refreshed_at": null, "last_fired": null,
        "paused_at": 1, "pinned_at": null, "snapshots": [], "sizes": [[1, 20]],
    });
    let detail: AudienceDetail = serde_json::from_value(summary.clone()).unwrap();
    assert_eq!(detail.sizes[0].1, 20);
    assert_eq!(serde_json::to_value(&detail).unwrap(), summary);
}

#[test]
fn a_last_refresh_is_said_by_its_age() {
    let summary = |refreshed_at: Option<i64>| -> AudienceSummary {
        serde_json::from_value(json!({ "name": "buyers", "refreshed_at": refreshed_at })).unwrap()
    };
    let now = throng_model::Timestamp(400 * 86_400_000_000);
    assert_eq!(summary(None).last_refresh(now), "never");
    for (secs, text) in [
        (0, "0 s ago"),
        (119, "119 s ago"),
        (120, "2 min ago"),
        (7_199, "119 min ago"),
        (7_200, "2 h ago"),
        (90_000, "25 h ago"),
        (172_800, "2 days ago"),
        // Of a node whose clock is ahead.
        (-60, "0 s ago"),
    ] {
        assert_eq!(summary(Some(now.0 - secs * 1_000_000)).last_refresh(now), text);
    }
}

#[test]
fn secrets_are_not_in_debug_output() {
    let token = TokenCreated {
        name: "ci".to_owned(),
        scopes: Vec::new(),
        expires_at: None,
        workspace: None,
        token: "throng_secret".to_owned(),
    };
    let link = SignInLink {
        path: "/sign-in?code=secret".to_owned(),
        url: "http://127.0.0.1:7077/sign-in?code=secret".to_owned(),
        expires_at: throng_model::Timestamp(0),
    };
    assert!(!format!("{token:?} {link:?}").contains("secret"));
}

#[test]
fn ids_of_gates_are_parts_of_a_path() {
    for (text, expected) in [
        ("gate-1", true),
        ("ad-server.7:a_b", true),
        ("", false),
        (".", false),
        ("..", false),
        ("a/b", false),
        ("a?b", false),
        ("ä", false),
    ] {
        assert_eq!(is_gate_id(text), expected, "{text}");
    }
    assert!(is_gate_id(&"a".repeat(128)) && !is_gate_id(&"a".repeat(129)));
}

#[test]
fn an_empty_key_is_no_user() {
    for (user, key) in
        [("", ""), (r#""user":null,"#, ""), (r#""user":"","#, ""), (r#""user":" ","#, " ")]
    {
        let request: DecideRequest =
            serde_json::from_str(&format!(r#"{{{user}"ad_groups":["shoes"]}}"#)).unwrap();
        assert_eq!(request.user_key(), Some(key).filter(|key| !key.is_empty()), "{user}");
    }
}

#[test]
fn a_run_tells_which_values_were_refused() {
    let schema = serde_json::to_value(ActivationRun::schema()).unwrap();
    let mut run: ActivationRun = serde_json::from_value(schema["example"].clone()).unwrap();
    assert_eq!(run.remarks(), "");
    let counts = [("EMAIL.mailto_removed", 2), ("PHONE.refused_invalid", 8), ("PHONE.usable", 1)];
    run.normalised = counts.map(|(name, count)| (name.to_owned(), count)).into();
    assert_eq!(run.remarks(), "PHONE.refused_invalid 8");
    run.reason = Some("it has failed".to_owned());
    assert_eq!(run.remarks(), "it has failed; PHONE.refused_invalid 8");
}

#[test]
fn how_the_audiences_of_a_template_are_built_is_one_line() {
    let mut template = SpecTemplate {
        name: "{region}-buyers".to_owned(),
        audiences: 3_000,
        one_scan: true,
        why: None,
    };
    assert_eq!(
        template.to_string(),
        "template {region}-buyers: 3,000 audiences, built in one scan"
    );
    (template.audiences, template.one_scan, template.why) = (1, false, Some("no".to_owned()));
    let expected = "template {region}-buyers: 1 audience, built by a query each: no";
    assert_eq!(template.to_string(), expected);
}
