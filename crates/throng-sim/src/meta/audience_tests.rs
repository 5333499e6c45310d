//! Sessions, windows and delays.

use super::*;

const RULES: Rules = Rules {
    matches_people: false,
    processing_delay: Duration::ZERO,
    match_rate: 1.0,
    refuse_removals_below: None,
    replace_below_members: 1_000,
};

fn upload(people: std::ops::Range<u32>) -> Upload {
    let rows: Vec<Value> = people.map(|person| json!([person.to_string()])).collect();
    Upload::parse(&json!({ "schema": ["EXTERN_ID"], "data": rows })).unwrap()
}

fn audience() -> Audience {
    Audience::new(7, "1", "a", "USER_PROVIDED_ONLY", Timestamp(0))
}

fn minutes(count: i64) -> Timestamp {
    Timestamp(count * 60_000_000)
}

fn step(id: u64, seq: u64, last: bool) -> SessionStep {
    SessionStep { id, seq, last }
}

fn status(audience: &Audience) -> i64 {
    audience.field("operation_status").unwrap()["code"].as_i64().unwrap()
}

#[test]
fn a_replace_accepts_batches_in_any_order_after_the_first() {
    let mut audience = audience();
    audience.change(Change::Add, upload(0..50), None, &RULES, minutes(0)).unwrap();
    let mut send = |people, seq, last| {
        let result =
            audience.replace(upload(people), step(9, seq, last), false, &RULES, minutes(1));
        (result.unwrap().received, audience.members.len(), status(&audience))
    };
    assert_eq!(send(100..110, 1, false), (10, 50, 414));
    assert_eq!(send(120..130, 3, false), (20, 50, 414));
    assert_eq!(send(120..130, 3, false), (30, 50, 414), "duplicates are harmless");
    assert_eq!(send(110..120, 2, true), (40, 30, 200));
}

#[test]
fn the_rules_of_a_replace_have_subcodes() {
    let mut audience = audience();
    let code = |result: Result<Received, GraphError>| {
        result.map_err(|error| (error.code, error.subcode.unwrap_or(0))).err()
    };
    let mut send = |id, seq, last, at| {
        code(audience.replace(upload(0..1), step(id, seq, last), false, &RULES, minutes(at)))
    };
    assert_eq!(send(1, 2, false, 0), Some((2650, NOT_FIRST)));
    assert_eq!(send(1, 1, false, 0), None);
    assert_eq!(send(2, 1, false, 0), Some((2650, IN_PROGRESS)));
    assert_eq!(send(1, 2, true, 89), None);
    assert_eq!(send(1, 3, false, 89), Some((2650, FINISHED)));
    assert_eq!(send(3, 1, false, 100), None);
    assert_eq!(send(3, 2, true, 190), Some((2650, TIMED_OUT)));
    assert_eq!(send(3, 1, true, 190), Some((2650, TIMED_OUT)));
    assert_eq!(send(4, 1, false, 200), None);
    let added = audience.change(Change::Add, upload(0..1), None, &RULES, minutes(200));
    assert_eq!(code(added), Some((2650, IN_PROGRESS)));
    let other = Upload::parse(&json!({"schema": ["UID"], "data": [["1"]], "app_ids": [1]}));
    let other = audience.replace(other.unwrap(), step(4, 2, true), false, &RULES, minutes(200));
    assert_eq!(code(other), Some((100, 0)));
}

#[test]
fn an_unfinished_replace_is_the_audience_after_90_minutes() {
    let mut audience = audience();
    audience.change(Change::Add, upload(0..50), None, &RULES, minutes(0)).unwrap();
    audience.replace(upload(0..10), step(1, 1, false), false, &RULES, minutes(0)).unwrap();
    audience.settle(&RULES, minutes(89));
    assert_eq!((audience.members.len(), status(&audience)), (50, 414));
    audience.settle(&RULES, minutes(90));
    assert_eq!((audience.members.len(), status(&audience)), (10, 200));
}

#[test]
fn repeating_the_first_batch_starts_the_session_over() {
    let mut audience = audience();
    for (people, seq, last) in [(0..10, 1, false), (10..20, 2, false), (0..10, 1, false)] {
        audience.replace(upload(people), step(1, seq, last), false, &RULES, minutes(0)).unwrap();
    }
    let result = audience.replace(upload(30..31), step(1, 2, true), false, &RULES, minutes(0));
    assert_eq!((result.unwrap().received, audience.members.len()), (11, 11));
}

#[test]
fn a_failed_replace_keeps_the_members_and_can_be_repeated() {
    let mut audience = audience();
    audience.change(Change::Add, upload(0..50), None, &RULES, minutes(0)).unwrap();
    let failed = audience.replace(upload(0..1), step(1, 1, true), true, &RULES, minutes(0));
    assert_eq!(failed.unwrap_err().subcode, Some(FAILED));
    assert_eq!((audience.members.len(), status(&audience)), (50, 415));
    audience.replace(upload(0..1), step(2, 1, true), false, &RULES, minutes(0)).unwrap();
    assert_eq!((audience.members.len(), status(&audience)), (1, 200));
}

#[test]
fn large_audiences_cannot_be_replaced() {
    let mut audience = audience();
    audience.change(Change::Add, upload(0..1_000), None, &RULES, minutes(0)).unwrap();
    let result = audience.replace(upload(0..1), step(1, 1, true), false, &RULES, minutes(0));
    assert_eq!(result.unwrap_err().subcode, Some(TOO_LARGE));
}

#[test]
fn changes_show_after_the_processing_delay() {
    let rules = Rules { processing_delay: Duration::from_secs(600), ..RULES };
    let mut audience = audience();
    let bounds = |audience: &Audience| {
        (
            audience.field("approximate_count_lower_bound").unwrap(),
            audience.field("approximate_count_upper_bound").unwrap(),
        )
    };
    audience.change(Change::Add, upload(0..1_234), None, &rules, minutes(0)).unwrap();
    assert_eq!((status(&audience), bounds(&audience)), (441, (json!(-1), json!(-1))));
    let early = audience.replace(upload(0..1), step(1, 1, true), false, &rules, minutes(9));
    assert_eq!(early.unwrap_err().subcode, Some(IN_PROGRESS));
    audience.settle(&rules, minutes(10));
    assert_eq!((status(&audience), bounds(&audience)), (200, (json!(1200), json!(1300))));
    let rules = Rules { replace_below_members: 10_000, ..rules };
    audience.replace(upload(0..10), step(2, 1, true), false, &rules, minutes(10)).unwrap();
    assert_eq!((status(&audience), bounds(&audience)), (414, (json!(1200), json!(1300))));
    audience.settle(&rules, minutes(20));
    assert_eq!((status(&audience), bounds(&audience)), (200, (json!(-1), json!(-1))));
}

#[test]
fn removals_that_leave_too_few_members_may_be_refused() {
    let rules = Rules { refuse_removals_below: Some(20), ..RULES };
    let mut audience = audience();
    audience.change(Change::Add, upload(0..25), None, &rules, minutes(0)).unwrap();
    let remove = |audience: &mut Audience, people| {
        audience.change(Change::Remove, upload(people), None, &rules, minutes(0))
    };
    assert!(remove(&mut audience, 0..5).is_ok());
    assert_eq!(remove(&mut audience, 5..6).unwrap_err().subcode, Some(1_870_047));
    assert!(remove(&mut audience, 0..5).is_ok(), "nobody is removed by this");
}
