//! Decodes responses and maps errors to classes. Pure. Decides by codes, never by texts: the platform says
//! that texts change.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use throng_activation::{
    Advice, PlatformSize, SendClass, SendError, SendRequest, SendResponse, SizeLimits, Usage,
};

use super::request::wire_row;

/// The throttle if the platform does not say how long it lasts.
const DEFAULT_THROTTLE: Duration = Duration::from_secs(60);
/// The pause after the platform has blocked the account temporarily. Each call extends the block.
const BLOCK_DURATION: Duration = Duration::from_secs(30 * 60);
/// The retry delay while an earlier upload is processed, which takes up to 24 hours.
const BUSY_RETRY_DELAY: Duration = Duration::from_secs(5 * 60);
/// Audiences are populated within 24 hours as a rule; below 1,000 people no number is shown.
pub(super) const SIZES: SizeLimits =
    SizeLimits { min_shown: 1_000, lag: Duration::from_secs(24 * 3_600) };
/// Delivery status of an audience that is too small to be used.
const TOO_SMALL: i64 = 300;
/// Error of a removal that would leave the audience too small.
const AUDIENCE_TOO_SMALL: (i64, i64) = (200, 1_870_047);

/// A response before it is decoded.
#[derive(Debug)]
pub(super) struct RawResponse {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) usage: Option<Usage>,
}

/// The JSON of a successful response.
pub(super) fn json_of(raw: &RawResponse, doing: &str) -> Result<Value, SendError> {
    let parsed: Option<Value> = serde_json::from_slice(&raw.body).ok();
    match parsed {
        Some(value) if value.get("error").is_some_and(Value::is_object) => {
            Err(error_of(raw, &value["error"], doing))
        }
        Some(value) if (200..300).contains(&raw.status) => Ok(value),
        _ => Err(invalid_response(raw, doing)),
    }
}

/// Decodes the response to an upload or a removal of `request`.
pub(super) fn response_of(
    raw: &RawResponse,
    request: &SendRequest<'_>,
    doing: &str,
) -> Result<SendResponse, SendError> {
    let rows = request.rows.len() as u64;
    let value = match json_of(raw, doing) {
        Ok(value) => value,
        Err(error) if subcode_pair(raw) == Some(AUDIENCE_TOO_SMALL) => {
            // The call was understood and can never succeed; other calls may. So its rows count as invalid,
            // and the task continues.
            let mut response = SendResponse {
                http_status: raw.status,
                received: rows,
                invalid: rows,
                usage: error.usage,
                ..SendResponse::default()
            };
            response.unmatched_reasons.insert("audience_size_too_low".to_owned(), rows);
            return Ok(response);
        }
        Err(error) => return Err(error),
    };
    let Some(reported) = number(&value["num_received"]) else {
        return Err(invalid_response(raw, doing));
    };
    let mut response = SendResponse {
        http_status: raw.status,
        received: received(reported, rows, request.session.map_or(0, |s| s.sent_before)),
        invalid: number(&value["num_invalid_entries"]).unwrap_or(0).min(rows),
        platform_ref: text(&value["session_id"]),
        usage: raw.usage,
        ..SendResponse::default()
    };
    if let Some(samples) = value["invalid_entry_samples"].as_object() {
        match_samples(&mut response, samples, request);
    }
    Ok(response)
}

/// In a session the platform counts over the whole session, otherwise over the request.
fn received(reported: u64, rows: u64, sent_before: u64) -> u64 {
    if sent_before > 0 && reported > rows {
        reported.saturating_sub(sent_before).min(rows)
    } else {
        reported.min(rows)
    }
}

/// Matches samples with rows: a sample's key is the compact JSON of the row exactly as it was sent.
fn match_samples(
    response: &mut SendResponse,
    samples: &serde_json::Map<String, Value>,
    request: &SendRequest<'_>,
) {
    if samples.is_empty() {
        return;
    }
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, row) in request.rows.iter().enumerate() {
        places.entry(Value::from(wire_row(row)).to_string()).or_default().push(at);
    }
    for (sample, reason) in samples {
        let reason = redact(reason.as_str().unwrap_or("invalid"));
        match places.get(sample) {
            Some(rows) => {
                response.invalid_rows.extend(rows.iter().map(|row| (*row, reason.clone())));
            }
            None => *response.unmatched_reasons.entry(reason).or_default() += 1,
        }
    }
    response.invalid_rows.sort();
}

/// The size and state of an audience. Both bounds are -1 if the audience is too small, and also if the platform has
/// no number for another reason; the delivery status distinguishes them.
pub(super) fn size_of(value: &Value) -> PlatformSize {
    let status = |name: &str| value[name]["code"].as_i64();
    let operation = status("operation_status").unwrap_or(0);
    let problem = match operation {
        411 | 412 | 415 | 471 | 500 | 100 => {
            let words = value["operation_status"]["description"].as_str().unwrap_or_default();
            Some(format!("operation status {operation} {}", redact(words)).trim_end().to_owned())
        }
        _ => None,
    };
    let lower = number(&value["approximate_count_lower_bound"]);
    let upper = number(&value["approximate_count_upper_bound"]);
    let is_too_small = lower.is_none() && status("delivery_status") == Some(TOO_SMALL);
    PlatformSize {
        lower,
        upper: upper.or(is_too_small.then_some(SIZES.min_shown)),
        settling: matches!(operation, 414 | 441),
        problem,
    }
}

/// The highest meters of the account and of the app in the usage headers, and how long calls are refused. Responses to
/// uploads have only that of the app.
///
/// `X-Ad-Account-Usage` is ignored: it was observed at 100 while calls succeeded.
pub(super) fn usage_of(business: Option<&str>, app: Option<&str>, account: &str) -> Option<Usage> {
    let mut usage: Option<Usage> = None;
    let mut note = |meter: &Value, is_app: bool| {
        let percent = ["call_count", "total_cputime", "total_time"]
            .iter()
            .filter_map(|name| meter[*name].as_f64())
            .fold(0.0, f64::max);
        let minutes = number(&meter["estimated_time_to_regain_access"]).unwrap_or(0);
        let regain = (minutes > 0).then(|| Duration::from_secs(minutes.saturating_mul(60)));
        let so_far = usage.get_or_insert_with(Usage::default);
        let highest = if is_app { &mut so_far.app_percent } else { &mut so_far.percent };
        *highest = Some(highest.map_or(percent, |before| before.max(percent)));
        so_far.regain = so_far.regain.max(regain);
    };
    if let Some(Value::Object(accounts)) = business.and_then(|b| serde_json::from_str(b).ok()) {
        let is_own = |key: &str| accounts.len() == 1 || key == account;
        for (_, meters) in accounts.iter().filter(|(key, _)| is_own(key)) {
            meters
                .as_array()
                .into_iter()
                .flatten()
                .filter(|m| m["type"].as_str().is_none_or(|t| t == "custom_audience"))
                .for_each(|meter| note(meter, false));
        }
    }
    if let Some(meter) = app.and_then(|a| serde_json::from_str::<Value>(a).ok()) {
        note(&meter, true);
    }
    usage
}

/// Whether the object does not exist, or is not visible to the token.
pub(super) fn is_not_found(raw: &RawResponse) -> bool {
    subcode_pair(raw) == Some((100, 33))
}

fn subcode_pair(raw: &RawResponse) -> Option<(i64, i64)> {
    let value: Value = serde_json::from_slice(&raw.body).ok()?;
    let error = &value["error"];
    Some((error["code"].as_i64()?, error["error_subcode"].as_i64()?))
}

/// The class of an error code.
pub(super) fn class_of(
    code: i64,
    subcode: Option<i64>,
    transient: bool,
    status: u16,
    regain: Option<Duration>,
) -> SendClass {
    let wait = SendClass::Throttled(regain.unwrap_or(DEFAULT_THROTTLE));
    match (code, subcode.unwrap_or(0)) {
        (4 | 17 | 32 | 341 | 613 | 80_000..=80_014, _) => wait,
        (368 | 1_404_078 | 2_859_015, _) => {
            SendClass::Throttled(regain.unwrap_or(BLOCK_DURATION).max(BLOCK_DURATION))
        }
        (2650, 1_870_145) => SendClass::RetryLater(BUSY_RETRY_DELAY),
        (2650, 1_870_147 | 1_870_148 | 1_870_158 | 1_870_159) => SendClass::Restart,
        _ if transient => SendClass::Retry,
        (-1 | 1 | 2 | 803, _) => SendClass::Retry,
        (2654, subcode) if subcode != 1_713_092 => SendClass::Retry,
        (102 | 104 | 190, _) => SendClass::StopAccount,
        (10 | 200..=299 | 2654 | 2655 | 2663 | 2664, _) => SendClass::StopAccount,
        (100, 33 | 1_713_228 | 1_713_230 | 1_713_231 | 1_713_098) => SendClass::Stop,
        (100, _) => SendClass::InvalidRows,
        (3 | 105 | 194 | 2500 | 2635 | 2650 | 2656 | 1_487_301 | 1_487_366, _) => SendClass::Stop,
        _ if status == 429 => wait,
        _ if status >= 500 => SendClass::Retry,
        _ => SendClass::Stop,
    }
}

/// The hint of an error code, after a semicolon, and the command that continues the work.
fn hint_and_advice(code: i64, subcode: i64) -> (&'static str, Advice) {
    let hint = match (code, subcode) {
        (102 | 104 | 190, _) => "; renew the destination's access_token",
        (200, 1_870_034 | 1_870_090 | 1_870_092) | (2655 | 2663 | 2664, _) => {
            "; accept the custom-audience terms for this account"
        }
        (10 | 200..=299, _) | (2654, 1_713_092) => {
            "; give the token's user ads_management on this account"
        }
        (2635, _) => "; raise the destination's api_version",
        (100, 33) => "; the audience does not exist or is not visible to this token",
        // These conditions end by themselves.
        (2650, 1_870_145 | 1_870_147 | 1_870_148 | 1_870_158 | 1_870_159) => "",
        (2650, 1_870_144) => "; the audience has too many people to be replaced",
        (2650, _) => {
            "; the audience was filled in another way: give the sync another platform_name"
        }
        (2656, _) => "; a lookalike audience uses it: delete that first",
        (100, 1_713_228 | 1_713_230 | 1_713_231) => "; appeal in Meta's Account Quality",
        _ => "",
    };
    let advice = match (code, subcode) {
        (100, 33) => Advice::Recreate,
        (2650, _) if !hint.is_empty() => Advice::Recreate,
        _ => Advice::Requeue,
    };
    (hint, advice)
}

fn error_of(raw: &RawResponse, error: &Value, doing: &str) -> SendError {
    let code = error["code"].as_i64().unwrap_or(0);
    let subcode = error["error_subcode"].as_i64();
    let transient = error["is_transient"].as_bool().unwrap_or(false);
    let regain = raw.usage.and_then(|u| u.regain);
    let codes = subcode.map_or(code.to_string(), |sub| format!("{code}/{sub}"));
    let words = ["error_user_title", "error_user_msg", "message"]
        .iter()
        .find_map(|name| error[*name].as_str().filter(|text| !text.is_empty()))
        .unwrap_or("no message");
    let (hint, advice) = hint_and_advice(code, subcode.unwrap_or(0));
    SendError {
        class: class_of(code, subcode, transient, raw.status, regain),
        code: Some(code),
        message: format!("Meta refused {doing} with code {codes}: {}{hint}", redact(words)),
        advice,
        http_status: raw.status,
        usage: raw.usage,
    }
}

/// The error of a response without usable JSON: HTML pages, texts of proxies, "Service Unavailable" with
/// status 200.
fn invalid_response(raw: &RawResponse, doing: &str) -> SendError {
    let class = match raw.status {
        413 => SendClass::InvalidRows,
        429 => SendClass::Throttled(raw.usage.and_then(|u| u.regain).unwrap_or(DEFAULT_THROTTLE)),
        _ => SendClass::Retry,
    };
    SendError {
        class,
        code: None,
        message: format!("Meta responded to {doing} with status {} and no usable JSON", raw.status),
        advice: Advice::default(),
        http_status: raw.status,
        usage: raw.usage,
    }
}

/// Removes what may be an identifier, a hash or a token from a message, because platforms sometimes quote the
/// request, and truncates the rest to a length that fits into a table.
fn redact(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        let letters = word.chars().filter(|c| c.is_alphanumeric()).count();
        let digits = word.chars().filter(char::is_ascii_digit).count();
        if word.contains('@') || letters >= 24 || digits >= 7 { "…" } else { word }
    });
    words.collect::<Vec<_>>().join(" ").chars().take(160).collect()
}

/// Non-negative numbers, also as text. Meta sends -1 for "unknown".
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|n| n.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use throng_activation::{BatchPart, Cell, PreparedRow, Schema, SessionStep};
    use throng_model::SyncRunId;
    use throng_store::Operation;

    use super::*;

    #[test]
    fn every_code_of_the_table_has_its_class() {
        use SendClass::{InvalidRows, Restart, Retry, RetryLater, Stop, StopAccount, Throttled};
        for (code, subcode, transient, status, class) in [
            (1, None, false, 500, Retry),
            (1, Some(99), false, 400, Retry),
            (2, None, false, 400, Retry),
            (4, Some(1_504_022), true, 400, Throttled(DEFAULT_THROTTLE)),
            (17, Some(2_446_079), false, 400, Throttled(DEFAULT_THROTTLE)),
            (32, None, false, 400, Throttled(DEFAULT_THROTTLE)),
            (341, None, false, 400, Throttled(DEFAULT_THROTTLE)),
            (613, Some(1996), false, 400, Throttled(DEFAULT_THROTTLE)),
            (80_003, Some(2_446_079), false, 400, Throttled(DEFAULT_THROTTLE)),
            (80_003, None, false, 429, Throttled(DEFAULT_THROTTLE)),
            (368, None, false, 400, Throttled(BLOCK_DURATION)),
            (9_999, None, true, 400, Retry),
            (10, None, false, 403, StopAccount),
            (200, Some(1_870_034), false, 400, StopAccount),
            (294, None, false, 400, StopAccount),
            (2663, None, false, 400, StopAccount),
            (190, Some(463), false, 400, StopAccount),
            (100, None, false, 400, InvalidRows),
            (100, Some(33), false, 400, Stop),
            (100, Some(1_713_230), false, 400, Stop),
            (2635, None, false, 400, Stop),
            (2650, Some(1_870_145), false, 400, RetryLater(BUSY_RETRY_DELAY)),
            (2650, Some(1_870_148), false, 400, Restart),
            (2650, Some(1_870_158), false, 400, Restart),
            (2650, Some(1_870_144), false, 400, Stop),
            (2650, None, false, 400, Stop),
            (803, None, false, 400, Retry),
            (1_487_366, None, false, 400, Stop),
            (77_777, None, false, 503, Retry),
            (77_777, None, false, 400, Stop),
        ] {
            assert_eq!(
                class_of(code, subcode, transient, status, None),
                class,
                "{code}/{subcode:?}"
            );
        }
        let regain = Some(Duration::from_secs(600));
        assert_eq!(class_of(80_003, None, false, 400, regain), Throttled(Duration::from_secs(600)));
    }

    fn raw(status: u16, body: &str) -> RawResponse {
        RawResponse { status, body: body.as_bytes().to_vec(), usage: None }
    }

    fn rows() -> Vec<PreparedRow> {
        ["a", "b", "c"]
            .map(|t| -> PreparedRow { vec![Cell::Plain(t.into()), Cell::Empty].into() })
            .into()
    }

    fn response(body: &Value, session: Option<SessionStep>) -> Result<SendResponse, SendError> {
        let schema =
            Schema { keys: vec!["EXTERN_ID".into(), "EMAIL".into()], default_country: None };
        let request = SendRequest {
            platform_id: "1",
            part: BatchPart { run: SyncRunId(1), batch: 0, first: 0 },
            operation: Operation::Add,
            schema: &schema,
            rows: &rows(),
            session,
        };
        response_of(&raw(200, &body.to_string()), &request, "adding users")
    }

    #[test]
    fn samples_are_matched_with_rows() {
        let decoded = response(
            &json!({"session_id": "42", "num_received": 3, "num_invalid_entries": 2,
                "invalid_entry_samples": {"[\"b\",\"\"]": "empty external ID", "[\"z\",\"\"]": "odd"}}),
            None,
        )
        .unwrap();
        assert_eq!(decoded.invalid_rows, [(1, "empty external ID".to_owned())]);
        assert_eq!(decoded.unmatched_reasons.get("odd"), Some(&1));
        assert_eq!(
            (decoded.received, decoded.invalid, decoded.platform_ref.as_deref()),
            (3, 2, Some("42"))
        );
    }

    #[test]
    fn an_empty_list_of_samples_may_be_an_array() {
        let decoded = response(
            &json!({"num_received": "2", "num_invalid_entries": 0, "invalid_entry_samples": []}),
            None,
        )
        .unwrap();
        assert_eq!((decoded.received, decoded.invalid), (2, 0));
    }

    #[test]
    fn sessions_count_over_all_their_requests() {
        for (reported, before, expected) in
            [(3, 0, 3), (13, 10, 3), (12, 10, 2), (3, 10, 3), (99, 10, 3)]
        {
            assert_eq!(received(reported, 3, before), expected, "{reported} after {before}");
        }
    }

    #[test]
    fn removals_from_small_audiences_end_as_rejected() {
        let schema =
            Schema { keys: vec!["EXTERN_ID".into(), "EMAIL".into()], default_country: None };
        let rows = rows();
        let request = SendRequest {
            platform_id: "1",
            part: BatchPart { run: SyncRunId(1), batch: 0, first: 0 },
            operation: Operation::Remove,
            schema: &schema,
            rows: &rows,
            session: None,
        };
        let body =
            r#"{"error":{"message":"Permissions error","code":200,"error_subcode":1870047}}"#;
        let decoded = response_of(&raw(400, body), &request, "removing users").unwrap();
        assert_eq!((decoded.invalid, decoded.unmatched_reasons["audience_size_too_low"]), (3, 3));
    }

    #[test]
    fn success_without_a_count_is_not_a_success() {
        for body in ["Service Unavailable", "{}", "<html>", "[]", "null"] {
            let error = match serde_json::from_str(body) {
                Ok(value) => response(&value, None).unwrap_err(),
                Err(_) => json_of(&raw(200, body), "adding users").unwrap_err(),
            };
            assert_eq!(error.class, SendClass::Retry, "{body}");
        }
    }

    #[test]
    fn messages_do_not_quote_identifiers() {
        let hash = "f".repeat(64);
        let text = redact(&format!("row [\"{hash}\"] of ann@example.com +15551234567 is bad"));
        assert_eq!(text, "row … of … … is bad");
    }

    #[test]
    fn usage_is_the_fullest_meter_of_our_account() {
        let business = r#"{"12":[{"type":"custom_audience","call_count":32,"total_cputime":3,"total_time":95,"estimated_time_to_regain_access":2},{"type":"ads_insights","call_count":100}],"13":[{"type":"custom_audience","call_count":99}]}"#;
        let usage = usage_of(Some(business), Some(r#"{"call_count":5}"#), "12").unwrap();
        let regain = Some(Duration::from_secs(120));
        assert_eq!(usage, Usage { percent: Some(95.0), app_percent: Some(5.0), regain });
        assert_eq!(usage_of(None, Some("not JSON"), "12"), None);
    }

    #[test]
    fn a_lack_of_permission_has_its_hint() {
        for body in [
            r#"{"error":{"message":"x","code":200}}"#,
            r#"{"error":{"message":"x","code":2654,"error_subcode":1713092}}"#,
        ] {
            let error = json_of(&raw(400, body), "creating an audience").unwrap_err();
            assert_eq!(error.class, SendClass::StopAccount, "{body}");
            assert!(error.message.contains("ads_management"), "{}", error.message);
        }
    }

    #[test]
    fn a_missing_audience_or_one_of_another_kind_is_to_be_recreated() {
        for (body, advice) in [
            (r#"{"error":{"message":"x","code":100,"error_subcode":33}}"#, Advice::Recreate),
            (r#"{"error":{"message":"x","code":2650}}"#, Advice::Recreate),
            (r#"{"error":{"message":"x","code":2650,"error_subcode":1870145}}"#, Advice::Requeue),
            (r#"{"error":{"message":"x","code":190}}"#, Advice::Requeue),
            ("<html>", Advice::Requeue),
        ] {
            let error = json_of(&raw(400, body), "adding users").unwrap_err();
            assert_eq!(error.advice, advice, "{}", error.message);
            assert!(!error.message.contains("throng sync"), "{}", error.message);
        }
    }

    #[test]
    fn sizes_and_states_are_read() {
        let size = size_of(
            &json!({"approximate_count_lower_bound": -1, "approximate_count_upper_bound": 1000,
            "operation_status": {"code": 441, "description": "populating"}}),
        );
        assert_eq!(
            (size.lower, size.upper, size.settling, size.problem),
            (None, Some(1000), true, None)
        );
        assert!(size_of(&json!({"operation_status": {"code": 471}})).problem.is_some());
        let bounds = |delivery_status: i64, lower: i64, upper: i64| {
            let size = size_of(&json!({
                "approximate_count_lower_bound": lower, "approximate_count_upper_bound": upper,
                "delivery_status": {"code": delivery_status, "description": "x"}
            }));
            (size.lower, size.upper)
        };
        assert_eq!(bounds(300, -1, -1), (None, Some(1_000)), "too small");
        assert_eq!(bounds(300, -1, 100), (None, Some(100)));
        assert_eq!(bounds(300, 2_000, -1), (Some(2_000), None));
        assert_eq!(bounds(200, -1, -1), (None, None), "not shown for another reason");
    }
}
