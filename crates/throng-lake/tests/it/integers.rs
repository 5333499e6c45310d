//! Arithmetic of numbers has the right result, or fails.

use throng_lake::{Lake, LakeError};
use throng_model::{Fault, Retry, with_causes};

use crate::files::holds;
use crate::scans::members;
use crate::{Shop, hashes, model, scan, users};

const OVERFLOW: &str = "a number overflows its type";

/// Why a model fails.
async fn failure(lake: &Lake, sql: &str) -> Option<LakeError> {
    let parts = match lake.plan_scan(&model(sql), &[]).await {
        Ok((_, parts)) => parts,
        Err(error) => return Some(error),
    };
    for part in parts {
        if let Err(error) = scan(lake, &model(sql), &part).await {
            return Some(error);
        }
    }
    None
}

/// Prices in millionths: the product with the quantity has more than 32 bits.
async fn prices() -> Shop {
    let sql = "SELECT id, arrow_cast(price, 'Int32') AS price, arrow_cast(qty, 'Int32') AS qty,
            arrow_cast(price, 'UInt32') AS u, arrow_cast(qty, 'UInt32') AS w, arrow_cast(qty, 'Int16') AS s
         FROM (VALUES ('1', 5000000, 1000), ('2', 10, 20), ('3', 2000000, 1000)) AS t (id, price, qty)";
    Shop::new().query("p.parquet", "PARQUET", sql).await
}

#[tokio::test]
async fn integers_of_32_bits_are_computed_in_64() {
    let shop = prices().await;
    let lake = shop.lake();
    for (condition, expected) in [
        ("price * qty >= 1000000000", vec!["1", "3"]),
        ("price * qty * 2 = 10000000000", vec!["1"]),
        ("price * 1000 = 2000000000 AND price * s = 2000000000", vec!["3"]),
        ("u * w >= 1000000000", vec!["1", "3"]),
        ("u - w < 0", vec!["2"]),
        ("w - price < 0", vec!["1", "3"]),
        ("s * s >= 1000000", vec!["1", "3"]),
        ("2000000000 + price * qty > 6999999999", vec!["1"]),
        ("-price * qty < -4000000000", vec!["1"]),
        ("id IN (SELECT id FROM shop.p WHERE price * qty = 200)", vec!["2"]),
        ("CASE WHEN price > 100 THEN price * qty ELSE 0 END >= 5000000000", vec!["1"]),
    ] {
        let sql = format!("SELECT id FROM shop.p WHERE {condition}");
        assert_eq!(users(&lake, &sql).await.0, hashes(expected), "{condition}");
    }
    for (having, expected) in [
        ("sum(price * qty) >= 2000000000", vec!["1", "3"]),
        ("sum(price * qty) + count(*) = 5000000001", vec!["1"]),
        ("max(price * qty) >= 2000000000 AND avg(price * qty) < 3000000000", vec!["3"]),
    ] {
        let sql = format!("SELECT id FROM shop.p GROUP BY id HAVING {having}");
        let rule = lake.check_model(&sql, None).await.unwrap().rule;
        assert_eq!(members(&shop, &sql, rule).await, hashes(expected), "{having}");
    }
    // The engine's sums, and a key that is computed.
    let sql = "SELECT id FROM (SELECT id, sum(price * qty) AS s FROM shop.p GROUP BY id) WHERE s > 2000000000";
    assert_eq!(users(&lake, sql).await.0, hashes(["1"]));
    let sql = "SELECT price * qty FROM shop.p WHERE id = '1'";
    assert_eq!(users(&lake, sql).await.0, hashes(["5000000000"]));
    // The difference of two unsigned numbers may be negative.
    let sql = "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS a,
            row_number() OVER (ORDER BY id DESC) AS b FROM shop.p) WHERE a - b < 0";
    assert_eq!(users(&lake, sql).await.0, hashes(["1"]));
}

#[tokio::test]
async fn columns_keep_their_names() {
    let shop = prices().await;
    let sql = "SELECT id, price * qty, -price, sum(u + w) FROM shop.p GROUP BY id, price, qty";
    let info = shop.lake().check_model(sql, Some("id")).await.unwrap();
    let names: Vec<&str> = info.columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["id", "shop.p.price * shop.p.qty", "(- shop.p.price)", "sum(shop.p.u + shop.p.w)"]
    );
}

/// The largest integers of 64 bits. The sum of `c` fits, but not those of some of its rows.
async fn large() -> Shop {
    let most = i64::MAX;
    let sql = format!(
        "SELECT id, arrow_cast('{}', 'UInt64') AS u FROM (VALUES ('a'), ('b')) AS t (id)",
        u64::MAX
    );
    let rows = format!("id,v\na,{most}\na,{most}\nb,{}\nc,{most}\nc,{most}\nc,-{most}\n", most - 1);
    Shop::new().file("big.csv", &rows).query("u.parquet", "PARQUET", &sql).await
}

#[tokio::test]
async fn what_does_not_fit_64_bits_is_an_error() {
    let shop = large().await;
    let lake = shop.lake();
    for sql in [
        "SELECT id FROM shop.big WHERE v * 2 > 0",
        "SELECT id FROM shop.big WHERE v + 9000000000000000000 > 0",
        "SELECT id FROM shop.big WHERE -2 - v < 0",
        "SELECT id FROM shop.big WHERE -(-v - 1) > 0",
        "SELECT id FROM shop.big WHERE v > 9223372036854775807 + 1",
        "SELECT id FROM shop.big WHERE v > (SELECT sum(v) FROM shop.big)",
        "SELECT id FROM shop.big WHERE v > (SELECT sum(DISTINCT v) FROM shop.big WHERE v > 0)",
        "SELECT id FROM (SELECT id, sum(v) AS s FROM shop.big GROUP BY id) WHERE s > 0",
        "SELECT id FROM (SELECT id, sum(v) OVER (PARTITION BY id) AS s FROM shop.big) WHERE s > 0",
        "SELECT id FROM (SELECT id, sum(v) OVER (ORDER BY v ROWS 1 PRECEDING) AS s FROM shop.big) WHERE s > 0",
        "SELECT id FROM (SELECT id, sum(v + 1) AS s, sum(v + 2) AS t FROM shop.big GROUP BY id) WHERE s > t",
        "SELECT id FROM shop.u WHERE u + u > 0",
        "SELECT id FROM shop.u WHERE u * u > 0",
        "SELECT id FROM shop.u WHERE u > (SELECT sum(u) FROM shop.u)",
    ] {
        let error = failure(&lake, sql).await.expect(sql);
        assert!(with_causes(&error).contains(OVERFLOW), "{sql}: {}", with_causes(&error));
        assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never), "{sql}");
    }
    let error = lake.template_rows("SELECT v * 2 AS v FROM shop.big", 9).await.unwrap_err();
    assert!(with_causes(&error).contains(OVERFLOW), "{}", with_causes(&error));
}

#[tokio::test]
async fn what_fits_does_not_depend_on_the_order_of_the_rows() {
    let shop = large().await;
    let lake = shop.lake();
    let sums = "SELECT id FROM (SELECT id, sum(v) AS s FROM shop.big WHERE id <> 'a' GROUP BY id)";
    let sql = format!("{sums} WHERE s = 9223372036854775807");
    assert_eq!(users(&lake, &sql).await.0, hashes(["c"]));
    let sql = "SELECT id FROM shop.big WHERE v = (SELECT sum(v) FROM shop.big WHERE id = 'c')";
    assert_eq!(users(&lake, sql).await.0, hashes(["a", "c"]));
    let sql = "SELECT id FROM shop.big WHERE v = (SELECT sum(DISTINCT v) + 9223372036854775807
               FROM shop.big WHERE id = 'c')";
    assert_eq!(users(&lake, sql).await.0, hashes(["a", "c"]));
    // No rows have no sum.
    let sql = "SELECT id FROM shop.big WHERE (SELECT sum(v) FROM shop.big WHERE id = 'x') IS NULL";
    assert_eq!(users(&lake, sql).await.0, hashes(["a", "b", "c"]));
    // Sums that the build adds up are exact, and averages are floating-point numbers.
    for (having, expected) in [
        ("sum(v) > 9223372036854775806", vec!["a", "c"]),
        ("avg(v) > 9000000000000000000", vec!["a", "b"]),
    ] {
        let sql = format!("SELECT id FROM shop.big GROUP BY id HAVING {having}");
        // A check leaves the sums to the build, as a scan does: those of the engine would be refused.
        let rule = lake.check_model(&sql, None).await.unwrap().rule;
        assert_eq!(members(&shop, &sql, rule).await, hashes(expected), "{having}");
    }
    // An unsigned sum of more than 63 bits.
    let sql = "SELECT id FROM shop.u WHERE u = (SELECT sum(u) FROM shop.u WHERE id = 'a')";
    assert_eq!(users(&lake, sql).await.0, hashes(["a", "b"]));
}

#[tokio::test]
async fn a_conversion_that_loses_digits_is_compared_as_converted() {
    let rows = "u1,2.50,300\nu2,-2.50,12\nu3,2.00,7\nu4,3.00,-1\n";
    let shop = Shop::new().file("a.csv", &format!("id,x,n\n{rows}"));
    let sql = "SELECT id, arrow_cast(x, 'Decimal128(9, 2)') AS x
         FROM (VALUES ('u1', 2.5), ('u2', 2.0), ('u3', 3.0)) AS t (id, x)";
    let shop = shop.query("p.parquet", "PARQUET", sql).await;
    for (condition, keys) in [
        ("CAST(x AS INT) = 2", &["u1", "u3"][..]),
        ("CAST(x AS BIGINT) > 2", &["u4"]),
        ("x::int <> 2", &["u2", "u4"]),
        ("CAST(x AS INT) IN (2, 5)", &["u1", "u3"]),
        ("CAST(x AS INT) NOT IN (2, 5)", &["u2", "u4"]),
        ("CAST(x AS INT) BETWEEN 0 AND 2", &["u1", "u3"]),
        ("CAST(CAST(x AS INT) AS BIGINT) = 2", &["u1", "u3"]),
        ("CAST(x AS DECIMAL(10, 0)) = 3", &["u1", "u4"]),
        ("CAST(x AS DECIMAL(10, 1)) = 2.5", &["u1"]),
        ("TRY_CAST(x AS INT) > 2", &["u4"]),
        ("TRY_CAST(n AS TINYINT) > 8", &["u2"]),
        ("TRY_CAST(n AS TINYINT) IS NULL", &["u1"]),
        ("CAST(n AS DECIMAL(9, 2)) = 7", &["u3"]),
        ("CAST(n AS DOUBLE) > 11.5", &["u1", "u2"]),
        ("id IN (SELECT id FROM shop.p WHERE CAST(x AS INT) = 2)", &["u1", "u2"]),
    ] {
        holds(&shop, &format!("SELECT id FROM shop.a WHERE {condition}"), keys).await;
    }
    let of_subquery =
        "SELECT id FROM (SELECT id, CAST(x AS INT) AS n FROM shop.a) AS t WHERE n > 2";
    holds(&shop, of_subquery, &["u4"]).await;
    let grouped = "SELECT id FROM shop.a GROUP BY id, CAST(x AS INT) HAVING CAST(x AS INT) > 2";
    holds(&shop, grouped, &["u4"]).await;
    let of_groups = "SELECT id FROM (SELECT id, CAST(x AS INT) AS n FROM shop.a) AS t \
                     GROUP BY id HAVING max(n) > 2";
    holds(&shop, of_groups, &["u4"]).await;
    let joined =
        "SELECT a.id FROM shop.a AS a JOIN shop.p AS p ON CAST(a.x AS INT) = p.x AND p.x < 3";
    holds(&shop, joined, &["u1", "u3"]).await;
    let sql = "SELECT id, CAST(x AS INT) FROM shop.a";
    let info = shop.lake().check_model(sql, Some("id")).await.unwrap();
    let names: Vec<&str> = info.columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "shop.a.x"]);
}

#[tokio::test]
async fn a_floating_point_number_divided_by_zero_is_null() {
    let rows = "u1,1.5,0\nu2,0,0\nu3,-2,0\nu4,3.5,1.5\n";
    let shop = Shop::new().file("a.csv", &format!("id,a,b\n{rows}"));
    for (condition, keys) in [
        ("a / b > 1", &["u4"][..]),
        ("a / b < 1", &[]),
        ("NOT (a / b > 1)", &[]),
        ("a / b IS NULL", &["u1", "u2", "u3"]),
        ("coalesce(a / b, 0) < 1", &["u1", "u2", "u3"]),
        ("b > 0 AND a / b > 1", &["u4"]),
        ("a / -b < 0", &["u4"]),
        ("a % b >= 0", &["u4"]),
        ("1 / b > 0.5", &["u4"]),
        ("a / 0.5 >= 3", &["u1", "u4"]),
    ] {
        holds(&shop, &format!("SELECT id FROM shop.a WHERE {condition}"), keys).await;
    }
    let ratio = "SELECT id FROM shop.a GROUP BY id HAVING sum(a) / sum(b) > 2";
    holds(&shop, ratio, &["u4"]).await;
    // The operands are never NULL.
    let of_subquery = "SELECT id FROM (SELECT id, coalesce(a, 1.5) / coalesce(b, 1.5) AS r FROM shop.a) AS t \
                       GROUP BY id HAVING max(r) > 2";
    holds(&shop, of_subquery, &["u4"]).await;
    let per_day = "SELECT id, count(*) * 3.0 / 2 AS r FROM shop.a GROUP BY id";
    for union in ["UNION", "UNION ALL"] {
        let of_union = format!(
            "SELECT id FROM ({per_day} {union} {per_day}) AS t WHERE r IS NOT NULL AND id = 'u4' GROUP BY id \
             HAVING max(r) > 1"
        );
        holds(&shop, &of_union, &["u4"]).await;
    }
    let of_zero = "SELECT id FROM (SELECT id, count(*) / 0.0 AS r FROM shop.a GROUP BY id UNION ALL \
                   SELECT id, count(*) / 2.0 AS r FROM shop.a GROUP BY id) AS t WHERE r IS NULL AND id < 'u2'";
    holds(&shop, of_zero, &["u1"]).await;
    let named = "SELECT id, a / b FROM shop.a";
    let info = shop.lake().check_model(named, Some("id")).await.unwrap();
    let names: Vec<&str> = info.columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "shop.a.a / shop.a.b"]);
}

#[tokio::test]
async fn zero_has_no_sign_and_a_logarithm_of_a_negative_number_is_null() {
    let sql = "SELECT id, arrow_cast(x, 'Float64') AS x, arrow_cast(x, 'Float32') AS s
         FROM (VALUES ('u1', '0.0'), ('u2', '-0.0'), ('u3', '-0.3'), ('u4', '4.0'), ('u5', '-4.0')) AS t (id, x)";
    let shop = Shop::new().query("p.parquet", "PARQUET", sql).await;
    let (zeros, not_below) = (&["u1", "u2"][..], &["u1", "u2", "u4"][..]);
    for (condition, keys) in [
        ("x >= 0", not_below),
        ("0 <= x", not_below),
        ("s >= 0", not_below),
        ("x < 0", &["u3", "u5"]),
        ("0 > s", &["u3", "u5"]),
        ("x <= -0.0", &["u1", "u2", "u3", "u5"]),
        ("x > -0.0", &["u4"]),
        ("x = 0", zeros),
        ("s = 0.0", zeros),
        ("x <> 0", &["u3", "u4", "u5"]),
        ("x IS NOT DISTINCT FROM 0", zeros),
        ("x BETWEEN 0 AND 1", zeros),
        ("x NOT BETWEEN 0 AND 4", &["u3", "u5"]),
        ("x IN (0, 4)", not_below),
        ("x NOT IN (0, 4)", &["u3", "u5"]),
        ("CASE x WHEN 0 THEN true ELSE false END", zeros),
        ("nullif(x, 0) IS NULL", zeros),
        ("round(x) = 0", &["u1", "u2", "u3"]),
        ("-x >= 0", &["u1", "u2", "u3", "u5"]),
        ("x >= -x", not_below),
        ("x IN (SELECT s FROM shop.p WHERE id = 'u1')", zeros),
        ("ln(x) < 9", not_below),
        ("ln(x) > -9", &["u4"]),
        ("NOT (ln(s) >= 9)", not_below),
        ("ln(x) IS NULL", &["u3", "u5"]),
        ("log10(x) > 0.5", &["u4"]),
        ("power(x, 0.5) < 9", not_below),
    ] {
        holds(&shop, &format!("SELECT id FROM shop.p WHERE {condition}"), keys).await;
    }
    holds(&shop, "SELECT id FROM shop.p GROUP BY id HAVING max(x) >= 0", not_below).await;
    holds(&shop, "SELECT id FROM shop.p GROUP BY id HAVING max(ln(x)) < 9", not_below).await;
    let joined = "SELECT a.id FROM shop.p AS a JOIN shop.p AS b ON a.x = b.x AND b.id = 'u1'";
    holds(&shop, joined, zeros).await;
    let counted =
        "SELECT a.id FROM shop.p AS a WHERE (SELECT count(*) FROM shop.p AS b WHERE b.x = a.x) = 2";
    holds(&shop, counted, zeros).await;
    let sql = "SELECT id, ln(x), nullif(x, 0) FROM shop.p";
    let info = shop.lake().check_model(sql, Some("id")).await.unwrap();
    let names: Vec<&str> = info.columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "ln(shop.p.x)", "nullif(shop.p.x,Int64(0))"]);
}

#[tokio::test]
async fn the_time_of_day_of_every_row_of_a_parquet_file_is_compared() {
    let sql =
        "SELECT id, CAST(seen AS TIMESTAMP) AS seen FROM (VALUES ('u1', '2026-01-01 08:00:00'),
         ('u2', '2026-01-02 21:30:00'), ('u3', '2026-01-03 07:00:00')) AS t (id, seen)";
    let shop = Shop::new().query("p.parquet", "PARQUET", sql).await;
    for (condition, keys) in [
        ("CAST(seen AS TIME) > TIME '20:00:00'", &["u2"][..]),
        ("CAST(seen AS TIME) BETWEEN '20:00:00' AND '22:00:00'", &["u2"]),
        ("TRY_CAST(seen AS TIME) >= '21:30:00'", &["u2"]),
        ("CAST(seen AS TIME) < TIME '07:30:00'", &["u3"]),
    ] {
        holds(&shop, &format!("SELECT id FROM shop.p WHERE {condition}"), keys).await;
    }
}

#[tokio::test]
async fn products_with_stated_fractions_are_compared_exactly() {
    let shop = Shop::new().file("a.csv", "id,total,qty\nu1,3.00,3\nu2,0.30,1\nu3,100.00,30\n");
    for (condition, keys) in [
        ("total * 1.1 <= 3.30", &["u1", "u2"][..]),
        ("3.3 >= total * 1.1", &["u1", "u2"]),
        ("total * 1.1 = 3.3", &["u1"]),
        ("total - 0.1 = 0.2", &["u2"]),
        ("total * 1.19 >= 119", &["u3"]),
        ("qty * 1.1 > 3.3", &["u3"]),
        ("qty * 0.1 = 0.3", &["u1"]),
        ("total * 1.1 > qty", &["u1", "u3"]),
        ("total * 1.1 > sqrt(qty)", &["u1", "u3"]),
        ("total > '2.999'", &["u1", "u3"]),
        ("total = '3.001'", &[]),
        ("'3.0' <= total", &["u1", "u3"]),
    ] {
        holds(&shop, &format!("SELECT id FROM shop.a WHERE {condition}"), keys).await;
    }
    let summed = "SELECT id FROM shop.a GROUP BY id HAVING sum(total) * 1.1 <= 3.30";
    holds(&shop, summed, &["u1", "u2"]).await;
}

#[tokio::test]
async fn timestamps_are_compared_with_all_digits_of_a_stated_one() {
    let sql = "SELECT id, arrow_cast(seen, 'Timestamp(Millisecond, None)') AS seen
         FROM (VALUES ('u1', '2024-01-01 10:00:00.123'), ('u2', '1969-12-31 23:59:59.999'),
             ('u3', '9999-12-31 00:00:00')) AS t (id, seen)";
    let shop = Shop::new().query("p.parquet", "PARQUET", sql).await;
    for (condition, keys) in [
        ("seen < TIMESTAMP '2024-01-01 10:00:00.1235'", &["u1", "u2"][..]),
        ("seen > '1969-12-31 23:59:59.9985'", &["u1", "u2", "u3"]),
        ("seen = '2024-01-01 10:00:00.1234'", &[]),
        ("seen = '2024-01-01 10:00:00.123000'", &["u1"]),
        ("seen IN (TIMESTAMP '2024-01-01 10:00:00.1234')", &[]),
        ("seen BETWEEN '2024-01-01 10:00:00.1225' AND '2024-01-01 10:00:00.1235'", &["u1"]),
    ] {
        holds(&shop, &format!("SELECT id FROM shop.p WHERE {condition}"), keys).await;
    }
}

#[tokio::test]
async fn a_regular_expression_finds_a_backslash() {
    let shop = Shop::new().file("a.csv", "id,path\nu1,corp\\ann\nu2,corpann\n");
    for (condition, keys) in [
        (r"path ~ 'corp\\ann'", &["u1"][..]),
        (r"path ~ '^corp\\'", &["u1"]),
        (r"path ~* 'CORP\\ANN'", &["u1"]),
        (r"path !~ 'corp\\ann'", &["u2"]),
        (r"regexp_like(path, 'p\x5ca')", &["u1"]),
        (r"path ~ 'pa'", &["u2"]),
    ] {
        holds(&shop, &format!("SELECT id FROM shop.a WHERE {condition}"), keys).await;
    }
}

#[tokio::test]
async fn an_integer_divided_by_zero_is_an_error_that_says_how_to_write_it() {
    let shop = Shop::new().file("a.csv", "id,n,m\nu1,8,0\nu2,9,3\n");
    let error = failure(&shop.lake(), "SELECT id FROM shop.a WHERE n / m > 2").await.unwrap();
    assert!(with_causes(&error).contains("division by zero"), "{}", with_causes(&error));
    assert!(error.help().unwrap().contains("nullif(b, 0)"), "{error:?}");
    assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never));
    holds(&shop, "SELECT id FROM shop.a WHERE n / nullif(m, 0) > 2", &["u2"]).await;
}
