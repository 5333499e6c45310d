//! Errors of SQL have a position and a hint with the name that was probably intended.

use throng_lake::{FileError, LakeError};

use crate::Shop;
use crate::files::{holds, refused};

/// The SQL, the position of the error, and parts of message and help.
type Case = (&'static str, Option<(u32, u32)>, &'static str, &'static str);

const CASES: [Case; 12] = [
    ("SELECT id\nFROM shop.orders\nWHERE totl > 5", Some((3, 7)), "no column totl", "mean total"),
    ("SELECT id FROM shop.ordres", Some((1, 21)), "no table shop.ordres", "mean shop.orders"),
    ("SELECT id FROM shp.orders", Some((1, 16)), "no source shp", "mean shop"),
    ("SELECT id FROM orders", Some((1, 16)), "without its source", "shop.orders"),
    ("SELECT id FROM acme.shop.orders", Some((1, 16)), "before its source", "write shop.orders,"),
    ("SELECT id\nFROM shop.orders\nWHERE", None, "expression", ""),
    ("SELECT id FROM shop.orders WHERE ((total > 5", None, "", ""),
    ("DROP TABLE shop.orders", None, "", ""),
    ("INSERT INTO shop.orders VALUES (1, 2)", None, "", ""),
    ("SELECT sqroot(total) FROM shop.orders", None, "sqroot", ""),
    ("SELECT id -- FROM shop.orders", Some((1, 8)), "no column id", "reads no table: add FROM"),
    ("SELECT id FROM shop.orders LIMIT 1 BY total", None, "no column total", "cannot be used in"),
];

#[tokio::test]
async fn errors_of_sql_have_a_position_and_a_hint() {
    let shop = Shop::new().file("orders.csv", "id,total\na,5\n");
    let lake = shop.lake();
    for (sql, position, message, help) in CASES {
        let error = lake.check_model(sql, None).await.unwrap_err();
        let texts = (error.to_string(), error.help().unwrap_or_default());
        assert!(texts.0.contains(message), "{sql}: {texts:?}");
        assert!(texts.1.contains(help), "{sql}: {texts:?}");
        if position.is_some() {
            assert_eq!(error.position(), position, "{sql}: {texts:?}");
        }
        assert_eq!(error.fault(), throng_model::Fault::User, "{sql}");
        assert_eq!(error.retry(), throng_model::Retry::Never, "{sql}");
    }
}

#[tokio::test]
async fn errors_about_types_name_the_column_and_are_not_tried_again() {
    let shop = Shop::new().file("p.csv", "USER_ID,zip,note\n1,10115,x\n2,20095,y\n");
    let lake = shop.lake();
    let of_zip = "takes text, and the column zip is integer";
    for (sql, message, help) in [
        ("SELECT user_id FROM shop.p WHERE zip LIKE '1%'", of_zip, "`columns: { zip: text }`"),
        ("SELECT user_id FROM shop.p WHERE zip ILIKE '1%'", of_zip, "CAST(zip AS TEXT)"),
        ("SELECT user_id FROM shop.p WHERE substr(zip, 1, 2) = '10'", of_zip, "{ zip: text }"),
        ("SELECT user_id FROM shop.p WHERE starts_with(zip, '10')", of_zip, "{ zip: text }"),
        ("SELECT upper(user_id) FROM shop.p", "column USER_ID is integer", "{ USER_ID: text }"),
        (
            "SELECT user_id FROM shop.p GROUP BY user_id HAVING sum(note) > 1",
            "does not take the column note, which is text",
            "TRY_CAST(note AS DOUBLE)",
        ),
        ("SELECT user_id, nothing_like_it FROM shop.p", "no column nothing_like_it", "columns are"),
    ] {
        let error = lake.check_model(sql, None).await.unwrap_err();
        let texts = (error.to_string(), error.help().unwrap_or_default());
        assert!(texts.0.contains(message), "{sql}: {texts:?}");
        assert!(texts.1.contains(help), "{sql}: {texts:?}");
        assert!(!texts.0.contains("bug"), "{sql}: {texts:?}");
        assert_eq!(error.fault(), throng_model::Fault::User, "{sql}");
        assert_eq!(error.retry(), throng_model::Retry::Never, "{sql}");
    }
}

#[tokio::test]
async fn correlated_subqueries_that_the_engine_runs_otherwise_are_refused() {
    let shop = Shop::new().file("a.csv", "user_id,g\nu1,1\nu2,2\nu3,3\n");
    let rows = "u1,5,2026-11-01,true\nu1,6,2026-11-02,true\nu2,7,2025-11-01,false\n";
    let shop = shop.file("b.csv", &format!("user_id,v,day,won\n{rows}"));
    let of = |condition: &str, rest: &str| {
        format!(
            "SELECT user_id FROM shop.a a WHERE {condition} FROM shop.b b WHERE b.user_id = a.user_id{rest})"
        )
    };
    for (condition, rest, word) in [
        ("NOT EXISTS (SELECT count(*)", "", "EXISTS has an aggregate"),
        ("EXISTS (SELECT max(v)", "", "EXISTS has an aggregate"),
        ("EXISTS (SELECT 1", " HAVING count(*) < 2", "EXISTS has an aggregate"),
        ("EXISTS (SELECT count(*)", " HAVING count(*) = 0", "EXISTS has an aggregate"),
        ("EXISTS (SELECT 1", " HAVING coalesce(sum(v), 0) < 9", "EXISTS has an aggregate"),
        ("EXISTS (SELECT 1", " HAVING count(*) < 2 OR sum(v) > 9", "EXISTS has an aggregate"),
        ("EXISTS (SELECT 1", " HAVING min(v) IS NULL", "EXISTS has an aggregate"),
        ("EXISTS (SELECT 1", " HAVING count(*) IN (0, 1)", "EXISTS has an aggregate"),
        ("EXISTS (SELECT 1", " HAVING count(*) IS NOT NULL", "EXISTS has an aggregate"),
        ("EXISTS (SELECT 1", " OFFSET 1", "OFFSET"),
        ("NOT EXISTS (SELECT 1", " LIMIT 0", "LIMIT 0"),
        ("0 IN (SELECT count(*)", "", "IN has a subquery"),
        ("6 NOT IN (SELECT max(v)", "", "IN has a subquery"),
    ] {
        refused(&shop, &of(condition, rest), &[word, "compare"]).await;
    }
    for (condition, rest, keys) in [
        ("EXISTS (SELECT 1", " HAVING count(*) > 1", &["u1"][..]),
        ("EXISTS (SELECT 1", " HAVING count(*) > 0 AND max(v) = 7", &["u2"]),
        ("EXISTS (SELECT 1", " HAVING max(day) >= DATE '2026-01-01'", &["u1"]),
        ("EXISTS (SELECT 1", " HAVING max(day) > now() - INTERVAL '36500 days'", &["u1", "u2"]),
        ("EXISTS (SELECT 1", " HAVING sum(v) >= CAST('11' AS BIGINT)", &["u1"]),
        ("EXISTS (SELECT 1", " HAVING count(*) >= 2 OR sum(v) > 100", &["u1"]),
        ("EXISTS (SELECT 1", " HAVING min(v) IS NOT NULL", &["u1", "u2"]),
        ("EXISTS (SELECT 1", " HAVING bool_or(won)", &["u1"]),
        ("EXISTS (SELECT 1", " HAVING NOT bool_or(won)", &["u2"]),
        ("EXISTS (SELECT 1", " HAVING count(*) IN (1, 3)", &["u2"]),
        ("NOT EXISTS (SELECT 1", " HAVING max(day) >= DATE '2026-01-01'", &["u2", "u3"]),
        ("EXISTS (SELECT v", " GROUP BY v HAVING count(*) < 2", &["u1", "u2"]),
        ("EXISTS (SELECT 1", " LIMIT 1", &["u1", "u2"]),
        ("6 IN (SELECT max(v)", "", &["u1"]),
        ("0 = (SELECT count(*)", "", &["u3"]),
    ] {
        holds(&shop, &of(condition, rest), keys).await;
    }
    let uncorrelated =
        "SELECT user_id FROM shop.a WHERE EXISTS (SELECT count(*) FROM shop.b WHERE v > 9)";
    holds(&shop, uncorrelated, &["u1", "u2", "u3"]).await;
}

#[tokio::test]
async fn window_functions_of_all_users_in_a_subquery_are_refused() {
    let rows = "u1,web,1\nu1,app,2\nu2,app,1\nu2,web,2\n";
    let shop = Shop::new()
        .file("a.csv", "user_id,g\nu1,1\nu2,2\nu3,3\n")
        .file("b.csv", &format!("user_id,channel,day\n{rows}"));
    let of_user = "FROM shop.b b WHERE b.user_id = a.user_id";
    let numbered = |over: &str| {
        format!("SELECT channel, row_number() OVER ({over} ORDER BY day DESC) AS n {of_user}")
    };
    let (of_all, of_each) = (numbered(""), numbered("PARTITION BY b.user_id"));
    for condition in [
        format!("EXISTS (SELECT 1 FROM ({of_all}) x WHERE n = 1 AND channel = 'web')"),
        format!("(SELECT count(*) FROM ({of_all}) x WHERE n = 1 AND channel = 'web') = 1"),
        format!("EXISTS (SELECT 1 {of_user} QUALIFY row_number() OVER (ORDER BY day DESC) = 1)"),
    ] {
        let sql = format!("SELECT user_id FROM shop.a a WHERE {condition}");
        refused(&shop, &sql, &["window", "PARTITION BY"]).await;
    }
    let having = format!(
        "SELECT a.user_id FROM shop.a a JOIN LATERAL (SELECT count(*) AS c {of_user} HAVING count(*) > 5) x ON true"
    );
    refused(&shop, &having, &["without GROUP BY", "LATERAL"]).await;
    let behind = format!(
        "SELECT a.user_id FROM shop.a a JOIN LATERAL (SELECT max(day) AS d {of_user}) x ON x.d > 1"
    );
    holds(&shop, &behind, &["u1", "u2"]).await;
    let lateral = format!(
        "SELECT a.user_id FROM shop.a a JOIN LATERAL ({of_all}) x ON x.n = 1 AND x.channel = 'web'"
    );
    refused(&shop, &lateral, &["window", "PARTITION BY"]).await;
    let of_all_rows = "(SELECT user_id, channel, row_number() OVER (PARTITION BY user_id ORDER BY day DESC) AS n \
                       FROM shop.b) x WHERE x.user_id = a.user_id AND n = 1 AND channel = 'web'";
    let each = format!(
        "SELECT a.user_id FROM shop.a a JOIN LATERAL ({of_each}) x ON x.n = 1 AND x.channel = 'web'"
    );
    holds(&shop, &each, &["u2"]).await;
    let before = format!("SELECT user_id FROM shop.a a WHERE EXISTS (SELECT 1 FROM {of_all_rows})");
    holds(&shop, &before, &["u2"]).await;
}

#[tokio::test]
async fn a_failed_conversion_names_the_column_and_no_value() {
    let shop = Shop::new()
        .file("p.csv", "user_id,note,d\n1,absent,05.01.2026\n2,y,06.01.2026\n")
        .file("c.csv", "user_id\n1\n2\n")
        .file("o.csv", "user_id\n1\nabsent\n");
    let opted_out = "SELECT user_id FROM shop.c c WHERE NOT EXISTS \
                     (SELECT 1 FROM shop.o o WHERE o.user_id = c.user_id)";
    let dated = "SELECT user_id FROM shop.p WHERE CAST(d AS DATE) > '2026-01-01'";
    let cast = "SELECT user_id FROM shop.p WHERE CAST(note AS INT) = 1";
    let literal = "SELECT user_id FROM shop.p WHERE note > 5";
    let read = "SELECT user_id FROM shop.p WHERE to_timestamp(note) IS NULL";
    let lake = shop.lake();
    for (sql, message, help) in [
        (opted_out, "user_id of shop.o, which is text", "`columns: { user_id: text }`"),
        (dated, "the column d of shop.p, which is text, cannot be converted to date", "to_date"),
        (cast, "the column note of shop.p, which is text", "TRY_CAST"),
        (literal, "the column note of shop.p", "TRY_CAST(note AS integer)"),
        (read, "cannot be read as a date", "to_timestamp"),
    ] {
        let error = lake.check_model(sql, None).await.unwrap_err();
        let texts = (throng_model::with_causes(&error), error.help().unwrap_or_default());
        assert!(texts.0.contains(message), "{sql}: {texts:?}");
        assert!(texts.1.contains(help), "{sql}: {texts:?}");
        assert!(!format!("{error:?}{texts:?}").contains("absent"), "{sql}: {error:?}");
        assert_eq!(error.fault(), throng_model::Fault::User, "{sql}");
        assert_eq!(error.retry(), throng_model::Retry::Never, "{sql}");
    }
    // Which of two conversions has failed is not known: that of the column did not.
    let sql = "SELECT user_id FROM shop.p
               WHERE CAST(replace(note, 'y', 'z') AS INT) = 1 OR CAST(m AS DATE) > '2026-01-01'";
    let shop = Shop::new()
        .file("p.csv", "user_id,note,m\n1,absent,2026-01-05\n2,y,2026-01-06\n")
        .declare("m", "text");
    let error = shop.lake().check_model(sql, None).await.unwrap_err();
    let text = throng_model::with_causes(&error);
    assert!(!text.contains("the column m") && !text.contains("absent"), "{text}");
}

#[tokio::test]
async fn errors_of_the_engine_have_a_hint_of_how_to_write_it() {
    let shop = Shop::new()
        .file("d.csv", "user_id,opted,seen,n,g\nu1,True,11/25/2026,1,1\nu2,False,01/02/2025,2,2\n")
        .file("o.jsonl", "{\"user\":{\"id\":7}}\n{\"user\":\"8\"}\n");
    let lake = shop.lake();
    for (sql, help) in [
        ("SELECT user_id FROM shop.d WHERE opted = false", "opted = 'False'"),
        ("SELECT user_id FROM shop.d WHERE NOT opted", "opted = 'False'"),
        ("SELECT user_id FROM shop.d WHERE n = true", "opted = 0"),
        ("SELECT user_id FROM shop.d WHERE seen >= DATE '2026-01-01'", "to_date(seen, '%m/%d/%Y')"),
        (
            "SELECT user_id FROM shop.d a WHERE user_id NOT IN (SELECT user_id FROM shop.d b WHERE b.g = a.g)",
            "NOT EXISTS",
        ),
        ("SELECT user_id FROM shop.d WHERE seen LIKE 'a!_%' ESCAPE '!'", "without ESCAPE"),
        (
            "SELECT user_id FROM shop.d WHERE (user_id, g) IN (SELECT user_id, g FROM shop.d)",
            "EXISTS",
        ),
    ] {
        let error = lake.check_model(sql, None).await.unwrap_err();
        let found = error.help().unwrap_or_default();
        assert!(found.contains(help), "{sql}: {error}: {found}");
        assert_eq!(error.fault(), throng_model::Fault::User, "{sql}");
        assert_eq!(error.retry(), throng_model::Retry::Never, "{sql}");
    }
    let error = lake.check_model("SELECT \"user\".id FROM shop.o", None).await.unwrap_err();
    assert!(error.to_string().contains("user"), "{error}");
    assert!(!error.help().unwrap().contains("are empty"), "{error:?}");
    let declared = Shop::new().file("d.csv", "user_id,opted\nu1,True\nu2,False\n");
    let declared = declared.declare("opted", "boolean");
    holds(&declared, "SELECT user_id FROM shop.d WHERE opted = false", &["u2"]).await;
}

#[tokio::test]
async fn a_date_for_never_is_compared_with_the_time_and_else_an_error_with_a_hint() {
    let shop = Shop::new().file("u.csv", "user_id,until\nu1,9999-12-31\nu2,2020-01-01\n");
    let of = |condition: &str| format!("SELECT user_id FROM shop.u WHERE {condition}");
    for (condition, keys) in [
        ("until > now()", &["u1"][..]),
        ("now() >= until", &["u2"]),
        ("until > now() - INTERVAL '1 day'", &["u1"]),
        ("until < TIMESTAMP '9999-12-31 00:00:00'", &["u2"]),
        ("until = TIMESTAMP '9999-12-31 00:00:00'", &["u1"]),
        ("until > TIMESTAMP '2019-12-31 23:59:59.999'", &["u1", "u2"]),
        ("coalesce(until, DATE '9999-12-31') > now()", &["u1"]),
        ("now() > DATE '2020-01-01' AND now() < DATE '9999-12-31'", &["u1", "u2"]),
        ("now() >= current_date", &["u1", "u2"]),
    ] {
        holds(&shop, &of(condition), keys).await;
    }
    for condition in ["until BETWEEN now() AND now()", "CAST(until AS TIMESTAMP) > now()"] {
        let error = shop.lake().check_model(&of(condition), None).await.unwrap_err();
        let said = format!("{}; {}", throng_model::with_causes(&error), error.help().unwrap());
        assert!(said.contains("after 2261") && said.contains("TIMESTAMP(6)"), "{said}");
        assert_eq!(error.retry(), throng_model::Retry::Never, "{condition}");
    }
}

#[tokio::test]
async fn differences_of_timestamps_are_compared_with_intervals_by_their_length() {
    // 58.5 days, and one.
    let rows =
        "u1,2021-03-01T00:00:00,2021-01-01T12:00:00\nu2,2021-03-01T00:00:00,2021-02-28T00:00:00\n";
    let shop = Shop::new().file("v.csv", &format!("user_id,seen,prev\n{rows}"));
    let of = |condition: &str| format!("SELECT user_id FROM shop.v WHERE {condition}");
    for (condition, keys) in [
        ("seen - prev > INTERVAL '30 days'", &["u1"][..]),
        ("seen - prev <= INTERVAL '1 day'", &["u2"]),
        ("seen - prev = INTERVAL '24 hours'", &["u2"]),
        ("seen - prev <> INTERVAL '1' DAY", &["u1"]),
        ("INTERVAL '1 month' > seen - prev", &["u2"]),
        ("prev - seen < INTERVAL '-58 days'", &["u1"]),
        ("seen - prev > INTERVAL '58 days' AND seen - prev < INTERVAL '59 days'", &["u1"]),
        ("seen - prev > INTERVAL '86400.5 seconds'", &["u1"]),
        ("seen - prev < INTERVAL '1000 years'", &["u1", "u2"]),
        ("now() - seen > INTERVAL '30 days'", &["u1", "u2"]),
        ("now() - seen < INTERVAL '30 days'", &[]),
        ("EXISTS (SELECT 1 FROM shop.v o WHERE o.seen - v.prev > INTERVAL '30 days')", &["u1"]),
    ] {
        holds(&shop, &of(condition), keys).await;
    }
    let computed = of("seen - prev > INTERVAL '1 day' + INTERVAL '1 day'");
    refused(&shop, &computed, &["by its length", "compare the timestamps"]).await;
    let between = of("seen - prev BETWEEN INTERVAL '1 day' AND INTERVAL '7 days'");
    refused(&shop, &between, &["BETWEEN has intervals", "two comparisons"]).await;
    let of_two = of("coalesce(seen - prev, INTERVAL '0 days') > INTERVAL '30 days'");
    refused(&shop, &of_two, &["two intervals are compared", "compare the timestamps"]).await;
    let listed = of("seen - prev IN (INTERVAL '1 day', INTERVAL '7 days')");
    refused(&shop, &listed, &["compared by IN", "by an operator"]).await;
}

#[tokio::test]
async fn differences_of_times_of_day_are_compared_with_intervals() {
    let rows = "u1,08:00:00,10:00:00\nu2,09:30:00,10:00:00\n";
    let shop = Shop::new().file("v.csv", &format!("user_id,opened,closed\n{rows}"));
    let (opened, closed) = ("CAST(opened AS TIME)", "CAST(closed AS TIME)");
    for (condition, keys) in [
        (format!("{closed} - {opened} > INTERVAL '1 hour'"), &["u1"][..]),
        (format!("({closed} - {opened}) = INTERVAL '30 minutes'"), &["u2"]),
        (format!("INTERVAL '1 day' > {closed} - {opened}"), &["u1", "u2"]),
        (format!("{opened} - {closed} < INTERVAL '-1 hour'"), &["u1"]),
    ] {
        holds(&shop, &format!("SELECT user_id FROM shop.v WHERE {condition}"), keys).await;
    }
    let of_two = "SELECT user_id FROM shop.v WHERE INTERVAL '1 day' > INTERVAL '1 hour'";
    refused(&shop, of_two, &["two intervals are compared"]).await;
}

#[tokio::test]
async fn dates_are_not_compared_with_timestamps_of_another_time_zone_than_utc() {
    let shop = Shop::new().file("v.csv", "user_id,seen\nu1,2021-03-01T10:00:00\n");
    let of = |condition: &str| format!("SELECT user_id FROM shop.v WHERE {condition}");
    for condition in [
        "seen AT TIME ZONE 'Europe/Berlin' >= DATE '2021-03-01'",
        "DATE '2021-03-01' = date_trunc('day', seen AT TIME ZONE 'Europe/Berlin')",
    ] {
        refused(&shop, &of(condition), &["time zone Europe/Berlin", "AS DATE"]).await;
    }
    holds(&shop, &of("seen AT TIME ZONE 'UTC' >= DATE '2021-03-01'"), &["u1"]).await;
}

#[tokio::test]
async fn timestamps_with_a_time_zone_do_not_meet_those_without_one() {
    // Of which the time in Berlin is 00:30 of the next day.
    let rows = "user_id,seen\nu1,2021-02-28T23:30:00Z\nu2,2021-03-01T23:30:00Z\n";
    let shop = Shop::new().file("v.csv", rows);
    let berlin = "seen AT TIME ZONE 'UTC' AT TIME ZONE 'Europe/Berlin'";
    let of = |condition: &str| {
        let condition = condition.replace("BERLIN", berlin);
        format!("SELECT user_id FROM shop.v WHERE {condition}")
    };
    for condition in [
        "CAST(seen AT TIME ZONE 'Europe/Berlin' AS DATE) = DATE '2021-03-01'",
        "seen AT TIME ZONE 'Europe/Berlin' >= TIMESTAMP '2021-03-01 00:00:00'",
        "BERLIN > now() - INTERVAL '1 hour'",
        "BERLIN = TIMESTAMP '2021-02-28 23:30:00+00'",
        "BERLIN BETWEEN TIMESTAMP '2021-03-01 00:00:00' AND now()",
        "(BERLIN) IN (SELECT seen FROM shop.v)",
        "EXISTS (SELECT 1 FROM shop.v o WHERE o.seen = v.seen AT TIME ZONE 'Europe/Berlin')",
    ] {
        let words = ["without a time zone", "AT TIME ZONE 'UTC' behind", "two conversions"];
        refused(&shop, &of(condition), &words).await;
    }
    for condition in [
        "CAST(BERLIN AS TIMESTAMP) >= TIMESTAMP '2021-03-01 00:00:00'",
        "BERLIN BETWEEN DATE '2021-03-01' AND DATE '2021-03-02'",
    ] {
        refused(&shop, &of(condition), &["to one without", "CAST(seen AS DATE)"]).await;
    }
    for condition in [
        "CAST(BERLIN AS DATE) = DATE '2021-03-01'",
        "BERLIN < TIMESTAMP '2021-03-01 01:00:00'",
        "BERLIN < TIMESTAMP '2021-03-02 01:00:00' - INTERVAL '1 day'",
        "BERLIN < '2021-03-01 01:00:00'",
        "date_trunc('day', BERLIN) = TIMESTAMP '2021-03-01 00:00:00'",
        "extract(day FROM BERLIN) = 1",
        "to_local_time(BERLIN) < TIMESTAMP '2021-03-01 01:00:00'",
        "BERLIN AT TIME ZONE 'UTC' < TIMESTAMP '2021-03-01 00:00:00'",
        // A difference is one of moments, whatever their time zones are.
        "TIMESTAMP '2021-03-01 00:00:00' - (BERLIN) > INTERVAL '10 minutes'",
    ] {
        holds(&shop, &of(condition), &["u1"]).await;
    }
    holds(&shop, &of("BERLIN AT TIME ZONE 'UTC' < now() - INTERVAL '1 hour'"), &["u1", "u2"]).await;
}

#[tokio::test]
async fn whole_numbers_are_not_days_since_1970() {
    let shop = Shop::new().file("v.csv", "user_id,day,d\nu1,20260131,2026-01-31\nu2,20251231,\n");
    let of = |condition: &str| format!("SELECT user_id FROM shop.v WHERE {condition}");
    for condition in [
        "day >= DATE '2026-01-01'",
        "day BETWEEN DATE '2026-01-01' AND current_date",
        "CAST(day AS DATE) >= '2026-01-01'",
        "TRY_CAST(day AS DATE) IS NOT NULL",
        "to_date(day) >= '2026-01-01'",
        "d > 20260101",
    ] {
        refused(&shop, &of(condition), &["days since 1970", "'%Y%m%d'", "day >= 20260131"]).await;
    }
    for condition in [
        "to_date(CAST(day AS TEXT), '%Y%m%d') >= DATE '2026-01-01'",
        "day >= 20260101",
        "d + 30 > DATE '2026-03-01'",
    ] {
        holds(&shop, &of(condition), &["u1"]).await;
    }
}

#[tokio::test]
async fn numbers_and_timestamps_are_not_converted_by_the_unit_of_a_type() {
    let sql =
        "SELECT user_id, seen, arrow_cast(seen, 'Int32') AS n, arrow_cast(seen, 'Float64') AS x
         FROM (VALUES ('u1', 1790000000), ('u2', 1690000000)) AS t (user_id, seen)";
    let csv = "user_id,seen,day\nu1,2026-09-21T14:13:20,2026-09-21\n";
    let shop = Shop::new().query("p.parquet", "PARQUET", sql).await.file("v.csv", csv);
    for condition in [
        "CAST(n AS TIMESTAMP) > TIMESTAMP '2026-01-01 00:00:00'",
        "CAST(x AS TIMESTAMP) > '2026-01-01'",
        "TRY_CAST(seen AS TIMESTAMP) > '2026-01-01'",
        "CAST(seen AS TIMESTAMP(3)) > '2026-01-01'",
    ] {
        let sql = format!("SELECT user_id FROM shop.p WHERE {condition}");
        refused(&shop, &sql, &["unit of the type", "to_timestamp_millis"]).await;
    }
    for condition in [
        "CAST(seen AS BIGINT) > 1690000000",
        "CAST(day AS INT) > 20260101",
        "TRY_CAST(seen AS DOUBLE) > 1",
        "CAST(now() - seen AS BIGINT) < 86400",
    ] {
        let sql = format!("SELECT user_id FROM shop.v WHERE {condition}");
        refused(&shop, &sql, &["converted to a number", "extract(epoch FROM seen)"]).await;
    }
    for condition in [
        "CAST(seen AS TIMESTAMP) > '2026-01-01'",
        "to_timestamp(n) > TIMESTAMP '2026-01-01 00:00:00'",
        "to_timestamp(x) > TIMESTAMP '2026-01-01 00:00:00'",
    ] {
        holds(&shop, &format!("SELECT user_id FROM shop.p WHERE {condition}"), &["u1"]).await;
    }
    let seconds = "SELECT user_id FROM shop.v WHERE CAST(extract(epoch FROM seen) AS BIGINT) = 1790000000 \
                   AND day - DATE '2026-09-01' = 20";
    holds(&shop, seconds, &["u1"]).await;
}

#[tokio::test]
async fn hours_are_not_added_to_dates_nor_taken_as_parts_of_differences() {
    let shop = Shop::new().file("v.csv", "user_id,d,seen\nu1,2026-01-31,2026-01-31T10:00:00\n");
    let of = |condition: &str| format!("SELECT user_id FROM shop.v WHERE {condition}");
    for condition in [
        "d + INTERVAL '36 hours' > TIMESTAMP '2026-02-01 00:00:00'",
        "seen > current_date - INTERVAL '12 hours'",
    ] {
        refused(&shop, &of(condition), &["whole days", "CAST(day AS TIMESTAMP)"]).await;
    }
    for condition in [
        "extract(hour FROM now() - seen) < 24",
        "date_part('minute', seen - TIMESTAMP '2026-01-01 00:00:00') = 0",
    ] {
        refused(&shop, &of(condition), &["whole length", "extract(epoch"]).await;
    }
    for condition in [
        "CAST(d AS TIMESTAMP) - INTERVAL '12 hours' = TIMESTAMP '2026-01-30 12:00:00'",
        "d + INTERVAL '1 month' = DATE '2026-02-28'",
        "extract(day FROM seen - TIMESTAMP '2026-01-01 00:00:00') = 30",
        "extract(hour FROM seen) = 10",
    ] {
        holds(&shop, &of(condition), &["u1"]).await;
    }
}

#[tokio::test]
async fn a_misread_form_has_a_position_only_if_its_word_is_there_once() {
    let shop = Shop::new().file("a.csv", "id\n1\n").file("b.csv", "id\n1\n");
    let position =
        async |sql: &str| shop.lake().check_model(sql, None).await.unwrap_err().position();
    let one = "SELECT id FROM shop.a\nFULL JOIN shop.b USING (id)";
    assert_eq!(position(one).await, Some((2, 6)));
    let second = "SELECT id FROM shop.a JOIN shop.b c USING (id)\nFULL JOIN shop.b USING (id)";
    assert_eq!(position(second).await, None);
}

#[tokio::test]
async fn a_function_that_fails_for_a_value_is_not_tried_again() {
    let shop = Shop::new().file("p.csv", "user_id,n,m\nu,1114112,77\nv,65,1\n");
    let lake = shop.lake();
    for (condition, words) in [
        ("chr(n) = 'x'", "invalid Unicode scalar value …"),
        ("make_date(2026, m, 1) > '2026-01-01'", "Month value …"),
        ("factorial(m) > 0", "Overflow happened on FACTORIAL …"),
    ] {
        let sql = format!("SELECT user_id FROM shop.p WHERE {condition}");
        let error = lake.check_model(&sql, None).await.unwrap_err();
        let text = throng_model::with_causes(&error);
        assert!(matches!(error, LakeError::Data { .. }), "{sql}: {error:?}");
        assert!(text.contains(words), "{sql}: {text}");
        assert!(!text.contains("1114112") && !text.contains("77"), "{sql}: {text}");
        assert_eq!(error.retry(), throng_model::Retry::Never, "{sql}");
        assert!(error.help().unwrap().contains("CASE WHEN m BETWEEN 1 AND 12"), "{sql}");
    }
    let hint = "CASE WHEN m BETWEEN 1 AND 12 THEN make_date(2026, m, 1) END";
    let sql = format!("SELECT user_id FROM shop.p WHERE {hint} >= '2026-01-01'");
    assert_eq!(lake.check_model(&sql, None).await.unwrap().key_column, "user_id");
}

#[tokio::test]
async fn a_dictionary_of_texts_is_text_in_errors() {
    let shop = Shop::new().file("p.csv", "user_id,note\n1,absent\n2,7\n");
    let dictionary = "arrow_cast(note, 'Dictionary(Int32, Utf8)')";
    let sql = format!("SELECT user_id FROM shop.p WHERE CAST({dictionary} AS INT) > 1");
    let error = shop.lake().check_model(&sql, None).await.unwrap_err();
    let said = format!("{}; {}", throng_model::with_causes(&error), error.help().unwrap());
    assert!(said.contains("a value cannot be converted") && said.contains("TRY_CAST"), "{said}");
    assert!(!said.contains("Dictionary") && !said.contains("absent"), "{said}");
}

#[tokio::test]
async fn a_check_runs_what_a_build_runs() {
    let shop = Shop::new().file("p.csv", "user_id,note\n1,absent\n2,y\n");
    // The build reads only the key.
    let sql = "SELECT user_id, CAST(note AS INT) AS n FROM shop.p";
    let lake = shop.lake();
    assert_eq!(lake.check_model(sql, Some("user_id")).await.unwrap().key_column, "user_id");
    let error = lake.check_model(sql, Some("n")).await.unwrap_err();
    assert!(matches!(error, LakeError::Data { .. }), "{error:?}");
}

#[tokio::test]
async fn hints_name_files_that_are_not_read_quotes_and_columns_that_are_twice_in_a_file() {
    let shop = Shop::new()
        .file("ok.csv", "user_id,zip\n1,10115\n")
        .file("other.txt", "x\n")
        .file("users.csv.txt", "user_id\n1\n")
        .file("b.csv", "user_id,user_id\n1,2\n");
    crate::files::refused(
        &shop,
        "SELECT user_id FROM shop.users",
        &["no table shop.users", "2 files are not read", "users.csv.txt, "],
    )
    .await;
    let quoted = "SELECT user_id FROM shop.ok WHERE zip = \"10115\"";
    crate::files::refused(&shop, quoted, &["no column 10115", "single quotes, '10115'"]).await;
    let twice = ["two columns of", "b.csv are named user_id", "names that differ"];
    crate::files::refused(&shop, "SELECT * FROM shop.b", &twice).await;
}

#[tokio::test]
async fn a_missing_folder_is_not_an_error_of_the_sql() {
    let shop = Shop::new();
    let lake = shop.lake();
    std::fs::remove_dir(shop.folder()).unwrap();
    let error = lake.check_model("SELECT id FROM shop.orders", None).await.unwrap_err();
    assert!(matches!(error, LakeError::File(FileError::Source { .. })), "{error:?}");
    let words = throng_model::with_causes(&error);
    let folder = shop.folder().display().to_string();
    assert!(words.contains(&folder) && words.contains("No such file"), "{words}");
    assert_eq!(error.fault(), throng_model::Fault::External);
}
