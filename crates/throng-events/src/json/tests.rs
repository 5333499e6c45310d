//! Tests of the JSON of events.

use proptest::prelude::*;

use super::*;

const AT: i64 = 1_795_600_000_123_456;

fn one(at: &str) -> Result<Timestamp, EventProblem> {
    let line = format!(r#"{{"id":"a","kind":"click","ad_group":"shoes","at":{at}}}"#);
    let parsed = parse_ndjson(line.as_bytes());
    assert_eq!(parsed.events.len() as u64 + parsed.refused.count, 1, "{at}");
    match parsed.events.into_iter().next() {
        Some((_, event)) => Ok(event.at),
        None => Err(parsed.refused.problems[0].clone()),
    }
}

#[test]
fn the_unit_of_a_time_follows_from_its_size() {
    for (written, micros) in [
        ("1795600000123456", AT),
        ("\"1795600000123456\"", AT),
        ("1795600000123456.0", AT),
        ("1.7956e+15", 1_795_600_000_000_000),
        ("1795600000", 1_795_600_000_000_000),
        ("1795600000.25", 1_795_600_000_250_000),
        ("\"1795600000.25\"", 1_795_600_000_250_000),
        ("\"1795600000123.456\"", AT),
        ("1795600000123455.75", AT),
        ("1795600000123456.25", AT),
        ("\"1795600000123456.25\"", AT),
        ("1795600000123456.5", AT + 1),
        ("1795600000123", 1_795_600_000_123_000),
        ("1795600000123456789", AT),
        ("\"2026-11-25T09:46:40.123456Z\"", AT),
    ] {
        assert_eq!(one(written), Ok(Timestamp(micros)), "{written}");
    }
    for wrong in [
        "1",
        "-5",
        "0",
        "99999999999999999999",
        "1.5",
        "\"5.5\"",
        "\"inf\"",
        "\"nan\"",
        "\"1795600000 .5\"",
        "null",
        "true",
        "\"\"",
        "1e300",
        "\"5\"",
        "[1795600000]",
    ] {
        let problem = one(wrong).unwrap_err();
        assert_eq!(problem.field, "at", "{wrong}");
        assert!(problem.help.contains("microseconds"), "{wrong}: {problem:?}");
    }
    let problem = one("\"ann@example.com\"").unwrap_err();
    assert_eq!((&*problem.field, &*problem.message), ("at", "is not a time"));
}

fn line(id: &str) -> String {
    format!(r#"{{"id":"{id}","kind":"click","ad_group":"shoes","at":{AT}}}"#)
}

fn ids(parsed: &ParsedEvents) -> Vec<(usize, &str)> {
    parsed.events.iter().map(|(line, event)| (*line, event.id.as_str())).collect()
}

proptest! {
    #[test]
    fn lines_end_with_any_line_end(body in "[ab\\r\\n]{0,12}") {
        let by_lf = body.split('\n');
        let wanted = by_lf.flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'));
        let wanted: Vec<&[u8]> = wanted.map(str::as_bytes).collect();
        prop_assert_eq!(lines(body.as_bytes()).collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn a_line_that_is_not_utf8_does_not_affect_the_others() {
    let mut body = format!("{}\n{}\n", line("a"), line("b")).into_bytes();
    body[7] = 0xff;
    let parsed = parse_ndjson(&body);
    assert_eq!((ids(&parsed), parsed.refused.count), (vec![(2, "b")], 1));
    assert!(parsed.refused.problems[0].message.starts_with("the line is not JSON"), "{parsed:?}");
}

#[test]
fn lines_arrays_and_byte_order_marks() {
    let (a, b) = (line("a"), line("b"));
    for (body, wanted) in [
        (format!("\u{feff}{a}\n{b}"), [(1, "a"), (2, "b")]),
        (format!("{a}\r\n\r\n{b}\r\n  \r\n"), [(1, "a"), (3, "b")]),
        (format!("{a}\r{b}"), [(1, "a"), (2, "b")]),
        (format!(" [{a},{b}]\n"), [(1, "a"), (2, "b")]),
        (format!("\u{feff}[\n  {a} ,\n  {b}\n]"), [(1, "a"), (2, "b")]),
    ] {
        let parsed = parse_ndjson(body.as_bytes());
        assert_eq!((ids(&parsed), parsed.refused.count), (wanted.to_vec(), 0), "{body}");
    }
    let brackets = r#"[{"id":"]},{\"[","kind":"click","ad_group":"shoes","at":1795600000}]"#;
    assert_eq!(ids(&parse_ndjson(brackets.as_bytes())), [(1, "]},{\"[")]);
    assert_eq!(parse_ndjson(b"[]"), ParsedEvents::default());
}

#[test]
fn one_invalid_line_does_not_affect_the_others() {
    let body = br#"{"id":"a","kind":"insertion","ad_group":"shoes","at":1795600000}

invalid
{"id":"b","kind":"impression","ad_group":"shoes","at":"2026-01-01T00:00:02Z"}"#;
    let parsed = parse_ndjson(body);
    assert_eq!(parsed.events.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 4]);
    assert_eq!((parsed.refused.problems[0].line, parsed.refused.count), (3, 1));
}

#[test]
fn a_problem_in_an_array_has_its_index() {
    let (a, b) = (line("a"), line("b"));
    for (body, counted, refused) in [
        (format!("[{a},{b}"), 2, 1),
        (format!("[{a},"), 1, 1),
        (format!("[{a},,{b}]"), 2, 1),
        (format!("[{a},]"), 1, 1),
        (format!("[{a},{}", &b[..9]), 1, 1),
        (format!("[{a},7,{b}]"), 2, 1),
        (format!("[{a}]]"), 1, 1),
        (format!("[{a} {b}]"), 0, 1),
        ("[".to_owned(), 0, 1),
        ("[".repeat(100_000), 0, 1),
    ] {
        let parsed = parse_ndjson(body.as_bytes());
        let shown: String = body.chars().take(200).collect();
        assert_eq!((parsed.events.len(), parsed.refused.count), (counted, refused), "{shown}");
    }
}

#[test]
fn a_field_that_occurs_twice_is_rejected() {
    let twice = line("a").replacen('{', r#"{"kind":"insertion","#, 1);
    let parsed = parse_ndjson(twice.as_bytes());
    assert_eq!((parsed.events.len(), parsed.refused.count), (0, 1));
    let problem = &parsed.refused.problems[0];
    assert_eq!((&*problem.field, &*problem.message), ("kind", "occurs twice"));
}

fn with(fields: &str) -> Result<Event, EventProblem> {
    let line = line("a").replace("click", "insertion").replacen('{', &format!("{{{fields},"), 1);
    let mut parsed = parse_ndjson(line.as_bytes());
    parsed.events.pop().map(|(_, event)| event).ok_or_else(|| parsed.refused.problems.remove(0))
}

#[test]
fn prices_and_rates_are_exact() {
    for (fields, nanos) in [
        (r#""price":0.10"#, 100_000_000),
        (r#""price":"0.10""#, 100_000_000),
        (r#""price":2"#, 2_000_000_000),
        (r#""price":0"#, 0),
        (r#""price":-0.0"#, 0),
        (r#""price":0.000000001"#, 1),
        (r#""price":"99999999.999999999""#, 99_999_999_999_999_999),
        (r#""price":0.0033333333333333335"#, 3_333_333),
        (r#""cpm":2.5"#, 2_500_000),
        (r#""cpm":"0.000001""#, 1),
        (r#""cpm":130"#, 130_000_000),
    ] {
        let money = with(fields).unwrap().money;
        assert_eq!(money, EventMoney::NONE.with_price_nanos(nanos), "{fields}");
    }
    let event = with(r#""impression_rate":0.8,"action_rate":"0.02","placement":"home""#);
    let rates = EventMoney::NONE.with_impression_rate(800_000_000).with_action_rate(20_000_000);
    let event = event.unwrap();
    assert_eq!((event.money, event.placement.as_deref()), (rates, Some("home")));
    let none = with(r#""price":null,"cpm":null,"impression_rate":null,"placement":null"#);
    let none = none.unwrap();
    assert!(none.money.is_none() && none.placement.is_none());
    assert_eq!(with(r#""placement":"""#).unwrap().placement, None, "as in protobuf");
}

#[test]
fn wrong_prices_and_rates_are_refused_with_their_field() {
    for (fields, field) in [
        (r#""price":-0.1"#, "price"),
        (r#""price":-0.0000000001"#, "price"),
        (r#""price":1e300"#, "price"),
        (r#""price":100000001"#, "price"),
        (r#""price":99999999999999999999"#, "price"),
        (r#""price":"12,50""#, "price"),
        (r#""price":"$1""#, "price"),
        (r#""price":true"#, "price"),
        (r#""price":"0.0000000001""#, "price"),
        (r#""cpm":[1]"#, "cpm"),
        (r#""cpm":-1"#, "cpm"),
        (r#""price":1,"cpm":1"#, "cpm"),
        (r#""impression_rate":1.5"#, "impression_rate"),
        (r#""impression_rate":80"#, "impression_rate"),
        (r#""action_rate":-1e-10"#, "action_rate"),
        (r#""action_rate":"2%""#, "action_rate"),
        (r#""placement":"Home feed""#, "placement"),
        (r#""placement":7"#, "placement"),
    ] {
        assert_eq!(with(fields).unwrap_err().field, field, "{fields}");
    }
    let click = line("a").replacen('{', r#"{"price":0.5,"#, 1);
    assert_eq!(parse_ndjson(click.as_bytes()).events.len(), 1, "a clearing price");
    for field in [r#""impression_rate":0.5"#, r#""action_rate":0.5"#, r#""placement":"home""#] {
        let click = line("a").replacen('{', &format!("{{{field},"), 1);
        let parsed = parse_ndjson(click.as_bytes());
        assert_eq!(parsed.refused.problems[0].message, "is a field of insertions", "{field}");
    }
}

#[test]
fn an_invalid_insertion_time_never_rejects_an_event() {
    for odd in ["0", "-1", "\"\"", "\"just now\"", "true", "{}", "1e300", "99999999999999999999"] {
        let odd = line("a").replacen('{', &format!(r#"{{"inserted_at":{odd},"#), 1);
        let parsed = parse_ndjson(odd.as_bytes());
        assert_eq!((parsed.events.len(), parsed.refused.inserted_at_ignored), (1, 1), "{odd}");
    }
    let millis = line("a").replacen('{', r#"{"inserted_at":1795600000000,"#, 1);
    let parsed = parse_ndjson(millis.as_bytes());
    assert_eq!(parsed.refused.inserted_at_ignored, 0);
    assert_eq!(parsed.events[0].1.inserted_at, Some(Timestamp(1_795_600_000_000_000)));
}

/// As `cat` joins files.
#[test]
fn arrays_and_lines_that_are_joined_are_all_read() {
    let (a, b, c) = (line("a"), line("b"), line("c"));
    let wanted = ["a", "b", "c"];
    for body in [
        format!("[{a}]\n[{b},{c}]\n"),
        format!("[{a}][{b}] [{c}]"),
        format!("[{a}]\n{b}\n{c}\n"),
        format!("{a}\n[{b},{c}]\n"),
        format!("{a}\n[{b}] [{c}]\n"),
        format!("\u{feff}{a}\n\u{feff}{b}\n\u{feff}\u{feff}{c}"),
        format!("\u{feff}[{a}]\n\u{feff}[{b}]\n\u{feff}{c}"),
    ] {
        let parsed = parse_ndjson(body.as_bytes());
        let found: Vec<&str> = ids(&parsed).into_iter().map(|(_, id)| id).collect();
        assert_eq!((found, parsed.refused.count), (wanted.to_vec(), 0), "{body}");
    }
    // What is not an event is counted event by event.
    let parsed = parse_ndjson(format!("[{a}]\nx\ny\n{b}\n").as_bytes());
    assert_eq!((ids(&parsed), parsed.refused.count), (vec![(1, "a"), (4, "b")], 2));
    let parsed = parse_ndjson(format!("{a}\n[{b}\n{c}\n").as_bytes());
    assert_eq!((ids(&parsed), parsed.refused.count), (vec![(1, "a"), (3, "c")], 1));
}

#[test]
fn a_body_in_another_encoding_is_refused_as_such() {
    let a = line("a");
    let wide = |unit: usize, first: usize| -> Vec<u8> {
        a.bytes()
            .flat_map(|byte| (0..unit).map(move |at| if at == first { byte } else { 0 }))
            .collect()
    };
    for (body, words) in [
        (wide(2, 0), "UTF-16"),
        (wide(2, 1), "UTF-16"),
        ([&[0xff, 0xfe][..], &*wide(2, 0)].concat(), "UTF-16"),
        (wide(4, 0), "UTF-32"),
        (wide(4, 3), "UTF-32"),
        ([&[0xff, 0xfe, 0, 0][..], &*wide(4, 0)].concat(), "UTF-32"),
        (vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0], "gzip"),
        (vec![0x28, 0xb5, 0x2f, 0xfd, 4, 0], "zstd"),
    ] {
        let parsed = parse_ndjson(&body);
        assert_eq!((parsed.events.len(), parsed.refused.count), (0, 1), "{words}");
        assert!(parsed.refused.problems[0].message.contains(words), "{words}: {parsed:?}");
    }
}

#[test]
fn the_help_fits_what_is_not_json() {
    let help = |field: &str| with(field).unwrap_err().help;
    assert!(help(r#""price":NaN"#).contains("NaN"));
    assert!(help(r#""price":-Infinity"#).contains("Infinity"));
    assert!(help(r#""price":1e400"#).contains("1e308"));
    assert!(help(r#""placement":"\ud800""#).contains("UTF-8"));
    let comma = parse_ndjson(br#"{"id":"a","kind":"click",}"#);
    assert!(comma.refused.problems[0].help.contains("last field"), "{comma:?}");
    let latin = parse_ndjson(b"{\"id\":\"caf\xe9\"}");
    assert!(latin.refused.problems[0].help.contains("UTF-8"), "{latin:?}");
    let parsed = parse_ndjson(format!("{}\0\n{}\n", line("a"), line("b")).as_bytes());
    assert_eq!(ids(&parsed), [(2, "b")]);
    assert!(parsed.refused.problems[0].help.contains("NUL"), "{parsed:?}");
    let parsed = parse_ndjson(br#"[{"id":"a"} {"id":"b"}]"#);
    assert!(parsed.refused.problems[0].help.contains("comma"), "{parsed:?}");
}

#[test]
fn an_insertion_id_that_stands_for_a_missing_value_is_none_and_an_id_is_refused() {
    for missing in [
        "",
        "undefined",
        "null",
        "-",
        "00000000-0000-0000-0000-000000000000",
        "${AUCTION_ID}",
        "<nil>",
        "   ",
    ] {
        let event = with(&format!(r#""insertion_id":"{missing}""#)).unwrap();
        assert_eq!(event.insertion_id, None, "{missing}");
        // As another program writes it to Kafka.
        let written = Event { insertion_id: Some(missing.to_owned()), ..event.clone() };
        let record = crate::events_to_record([&written]);
        let (read, _) = crate::protobuf::read_all(&record).unwrap();
        assert_eq!(read, [(1, crate::EventRef::from(&event))], "{missing}");
        let parsed = parse_ndjson(line(missing).as_bytes());
        assert_eq!(
            (parsed.events.len(), &*parsed.refused.problems[0].field),
            (0, "id"),
            "{missing}"
        );
        let written = Event { id: missing.to_owned(), ..written };
        let record = crate::events_to_record([&written]);
        let (_, refused) = crate::protobuf::read_all(&record).unwrap();
        assert_eq!(refused.problems[0].field, "id", "{missing}");
        let mut sound = Vec::new();
        let day = std::time::Duration::from_secs(24 * 3_600);
        crate::read_record(&record, |event| sound.push(event.is_valid(written.at, day))).unwrap();
        assert_eq!(sound, [false], "{missing}");
    }
    let named = with(r#""insertion_id":"00000000-0000-0000-0000-000000000001""#).unwrap();
    assert!(named.insertion_id.is_some());
}

#[test]
fn a_problem_has_no_value_of_another_column() {
    let hash = "5d41402abc4b2a76b9719d911017c592";
    for value in ["anna.k@example.com", "4917012345678", "+49 170 1234567", hash] {
        for field in ["kind", "ad_group"] {
            let wrong = match field {
                "kind" => line("a").replace("click", value),
                _ => line("a").replace("shoes", value),
            };
            let parsed = parse_ndjson(wrong.as_bytes());
            for (_, event) in &parsed.events {
                let problem =
                    EventProblem::unknown_ad_group(event.ad_group.as_str(), std::iter::empty());
                assert!(!problem.to_string().contains(value), "{problem}");
            }
            for problem in &parsed.refused.problems {
                assert!(!problem.to_string().contains(value), "{problem}");
                assert_eq!(problem.field, field);
            }
        }
        let unknown = with(&format!(r#""{value}":1"#)).unwrap_err();
        assert!(!unknown.to_string().contains(value), "{unknown}");
    }
    let view = parse_ndjson(line("a").replace("click", "view").as_bytes());
    assert_eq!(view.refused.problems[0].message, "`view` is not a kind of event");
}
