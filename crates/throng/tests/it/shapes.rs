//! Typical statements of audiences, compared with another SQL engine: each gives the same set of users. The tables have every type, NULLs in most columns, and keys without any row.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::oracle::{expect_equal_sets, members_of_models};
use crate::process::{NodeProcess, get, http, wait_for};

/// Creates the tables, then runs the statements. Every value is computed from the number of the row, so
/// the tables are always the same.
const SCRIPT: &str = r"
import duckdb, json, pathlib, sys
folder, models = pathlib.Path(sys.argv[1]), json.load(sys.stdin)
db = duckdb.connect()
db.execute('''CREATE TABLE orders AS SELECT i AS id,
    printf('c%05d', (i * 7919 % 1500 * (i * 31 % 97) // 97)::INT) AS customer,
    ((i * 6151 % 9001) / 100)::DECIMAL(12, 2) AS amount,
    (i * 13 % 9 + 1)::INTEGER AS qty,
    (i * 17 % 400) * 0.25::DOUBLE AS price,
    DATE '2024-01-01' + (i * 101 % 800)::INTEGER AS day,
    TIMESTAMP '2024-01-01 00:00:00' + to_minutes((i * 7477 % 1152000)::BIGINT) AS placed,
    CASE i * 11 % 7 WHEN 0 THEN NULL WHEN 1 THEN 'web' WHEN 2 THEN 'app' WHEN 3 THEN 'store'
        WHEN 4 THEN 'web' WHEN 5 THEN 'phone' ELSE 'partner' END AS channel,
    CASE WHEN i % 5 = 0 THEN 'SUMMER' || (i % 30) WHEN i % 5 = 1 THEN 'winter' || (i % 20) END
        AS coupon
    FROM range(20000) t(i)''')
db.execute('''CREATE TABLE customers AS SELECT printf('c%05d', i) AS customer,
    CASE i % 6 WHEN 0 THEN NULL WHEN 1 THEN 'DE' WHEN 2 THEN 'FR' WHEN 3 THEN 'US' ELSE 'GB' END
        AS country,
    CASE WHEN i % 9 > 0 THEN DATE '1950-01-01' + (i * 37 % 20000)::INTEGER END AS birthday,
    CASE WHEN i % 4 > 0 THEN i % 3 = 0 END AS newsletter,
    CASE WHEN i % 8 > 0 THEN ((i * 53 % 1000) / 8)::FLOAT END AS score,
    CASE WHEN i % 10 = 0 THEN printf('c%05d', i // 2) END AS referred_by
    FROM range(1600) t(i)''')
db.execute('CREATE SCHEMA shop')
for table in ('orders', 'customers'):
    file = folder / f'{table}.parquet'
    db.execute(f'''COPY {table} TO '{file}' (FORMAT parquet)''')
    db.execute(f'''CREATE VIEW shop.{table} AS SELECT * FROM '{file}' ''')
answer = {}
for name, sql in models.items():
    try:
        answer[name] = sorted({row[0] for row in db.execute(sql).fetchall() if row[0] is not None})
    except Exception as error:
        sys.exit(f'{name}: {error}')
json.dump(answer, sys.stdout)
";

/// Name and SQL. Dialects differ in division, in casts to integers and in regular expressions, so
/// there is none of them here.
const SHAPES: &[(&str, &str)] = &[
    // Filters.
    ("filter-and", "SELECT customer FROM shop.orders WHERE amount >= 50 AND channel = 'web'"),
    ("filter-or", "SELECT customer FROM shop.orders WHERE amount >= 89.5 OR coupon = 'SUMMER15'"),
    ("filter-not", "SELECT customer FROM shop.orders WHERE NOT (channel = 'web' OR qty < 9)"),
    (
        "filter-in",
        "SELECT customer FROM shop.orders WHERE channel IN ('app', 'phone') AND qty IN (1, 9)",
    ),
    (
        "filter-not-in",
        "SELECT customer FROM shop.orders WHERE channel NOT IN ('web', 'app') AND qty = 2",
    ),
    ("filter-like", "SELECT customer FROM shop.orders WHERE coupon LIKE 'SUMMER%' AND qty > 8"),
    ("filter-ilike", "SELECT customer FROM shop.orders WHERE coupon ILIKE 'WINTER1%' AND qty > 8"),
    (
        "filter-between",
        "SELECT customer FROM shop.orders WHERE day BETWEEN DATE '2025-11-20' AND DATE '2025-12-26'",
    ),
    (
        "filter-null",
        "SELECT customer FROM shop.orders WHERE coupon IS NULL AND channel IS NOT NULL AND qty = 3",
    ),
    (
        "filter-distinct-from",
        "SELECT customer FROM shop.orders WHERE (channel IS DISTINCT FROM 'web') AND price < 5",
    ),
    ("filter-boolean", "SELECT customer FROM shop.customers WHERE newsletter"),
    (
        "filter-not-boolean",
        "SELECT customer FROM shop.customers WHERE NOT newsletter AND country = 'DE'",
    ),
    ("filter-float", "SELECT customer FROM shop.customers WHERE score > 61.5"),
    ("filter-decimal-product", "SELECT customer FROM shop.orders WHERE amount * qty >= 700.00"),
    ("filter-remainder", "SELECT customer FROM shop.orders WHERE qty % 4 = 0 AND amount < 10.01"),
    // Texts.
    (
        "text-functions",
        "SELECT customer FROM shop.orders WHERE upper(trim(coupon)) = 'WINTER6' AND length(channel) = 3",
    ),
    ("text-substr", "SELECT customer FROM shop.customers WHERE substr(customer, 5, 2) = '07'"),
    (
        "text-concat",
        "SELECT customer FROM shop.orders WHERE channel || '/' || coupon = 'web/SUMMER5'",
    ),
    (
        "text-coalesce",
        "SELECT customer FROM shop.orders WHERE coalesce(coupon, channel, 'none') = 'none'",
    ),
    (
        "text-nullif",
        "SELECT customer FROM shop.orders WHERE nullif(channel, 'web') IS NULL AND qty = 7",
    ),
    // Dates and times.
    (
        "date-interval",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING max(day) < DATE '2026-02-01' - INTERVAL '90 days'",
    ),
    (
        "date-month",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING count(DISTINCT date_trunc('month', day)) >= 9",
    ),
    (
        "date-extract",
        "SELECT customer FROM shop.orders WHERE extract(year FROM day) = 2025 AND extract(month FROM day) = 12",
    ),
    (
        "date-weekend",
        "SELECT customer FROM shop.orders WHERE extract(dow FROM day) IN (0, 6) AND amount > 80",
    ),
    (
        "date-cohort",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING date_trunc('year', min(day)) = DATE '2025-01-01'",
    ),
    (
        "date-birthday",
        "SELECT customer FROM shop.customers WHERE birthday < DATE '2000-01-01' AND extract(month FROM birthday) = 5",
    ),
    (
        "time-of-day",
        "SELECT customer FROM shop.orders WHERE extract(hour FROM placed) BETWEEN 22 AND 23 AND placed >= TIMESTAMP '2025-06-01 12:00:00'",
    ),
    (
        "time-interval",
        "SELECT customer FROM shop.orders WHERE placed + INTERVAL '36 hours' > TIMESTAMP '2026-03-08 00:00:00'",
    ),
    // Aggregates.
    ("count", "SELECT customer FROM shop.orders GROUP BY customer HAVING count(*) >= 20"),
    (
        "count-between",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING count(*) BETWEEN 2 AND 4",
    ),
    ("count-column", "SELECT customer FROM shop.orders GROUP BY customer HAVING count(coupon) = 0"),
    (
        "count-distinct",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING count(DISTINCT channel) >= 4",
    ),
    (
        "count-two-distincts",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING count(DISTINCT channel) > 3 AND count(DISTINCT day) > 9",
    ),
    (
        "count-distinct-case",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING count(DISTINCT CASE WHEN qty > 5 THEN channel END) >= 4",
    ),
    ("sum-decimal", "SELECT customer FROM shop.orders GROUP BY customer HAVING sum(amount) >= 316"),
    (
        "sum-decimal-count-distinct",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING sum(amount) >= 316 AND count(DISTINCT channel) > 2",
    ),
    (
        "sum-decimal-sum-distinct",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING sum(amount) >= 316 AND sum(DISTINCT amount) < 900",
    ),
    (
        "sum-decimal-of-two",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING sum(amount * qty) >= 2000.50 AND count(DISTINCT coupon) >= 3",
    ),
    (
        "sum-integer-count-distinct",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING sum(qty) >= 60 AND count(DISTINCT channel) >= 3",
    ),
    (
        "sum-float-count-distinct",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING sum(price) >= 400.5 AND count(DISTINCT channel) >= 3",
    ),
    (
        "max-decimal-count-distinct",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING max(amount) > 89 AND count(DISTINCT day) > 7",
    ),
    (
        "min-max-average",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING min(amount) > 5 AND max(amount) < 85 AND avg(amount) > 40.00",
    ),
    (
        "average-float",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING avg(price) >= 62.125",
    ),
    (
        "average-decimal-distinct",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING avg(amount) > 51.5 AND count(DISTINCT channel) >= 3 AND sum(amount) > 200",
    ),
    (
        "filter-clause",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING count(*) FILTER (WHERE channel = 'web') >= 6",
    ),
    (
        "sum-filter-clause",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING sum(amount) FILTER (WHERE day >= DATE '2025-06-01') >= 250.25 AND count(DISTINCT channel) > 1",
    ),
    (
        "sum-case",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING sum(CASE WHEN channel = 'app' THEN amount ELSE 0 END) >= 100",
    ),
    (
        "booleans",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING bool_or(channel = 'phone') AND bool_and(amount > 1.5)",
    ),
    (
        "group-by-expression",
        "SELECT upper(customer) FROM shop.orders GROUP BY upper(customer) HAVING sum(amount) >= 500 AND count(DISTINCT qty) >= 5",
    ),
    (
        "group-by-more",
        "SELECT customer FROM shop.orders GROUP BY customer, channel HAVING sum(amount) > 300 AND count(DISTINCT qty) > 4",
    ),
    (
        "where-and-having",
        "SELECT customer FROM shop.orders WHERE coupon IS NOT NULL GROUP BY customer HAVING sum(amount) > 150 AND count(DISTINCT coupon) = count(*)",
    ),
    // Joins and subqueries.
    (
        "join",
        "SELECT o.customer FROM shop.orders o JOIN shop.customers c ON c.customer = o.customer WHERE c.country = 'DE' AND o.amount > 80",
    ),
    (
        "join-group",
        "SELECT o.customer FROM shop.orders o JOIN shop.customers c ON c.customer = o.customer WHERE c.newsletter GROUP BY o.customer HAVING sum(o.amount) > 300 AND count(DISTINCT o.channel) > 2",
    ),
    (
        "left-join-none",
        "SELECT c.customer FROM shop.customers c LEFT JOIN shop.orders o ON o.customer = c.customer WHERE o.customer IS NULL",
    ),
    (
        "left-join-few",
        "SELECT c.customer FROM shop.customers c LEFT JOIN shop.orders o ON o.customer = c.customer GROUP BY c.customer HAVING count(o.id) < 3",
    ),
    (
        "self-join",
        "SELECT a.customer FROM shop.orders a JOIN shop.orders b ON a.customer = b.customer AND b.day > a.day + INTERVAL '700 days'",
    ),
    (
        "in-subquery",
        "SELECT customer FROM shop.customers WHERE country = 'FR' AND customer IN (SELECT customer FROM shop.orders WHERE channel = 'store')",
    ),
    (
        "not-in-subquery",
        "SELECT customer FROM shop.customers WHERE customer NOT IN (SELECT customer FROM shop.orders WHERE channel = 'web')",
    ),
    (
        "not-in-subquery-with-null",
        "SELECT customer FROM shop.customers WHERE score > 1 AND referred_by NOT IN (SELECT customer FROM shop.orders WHERE channel = 'web' AND qty > 7)",
    ),
    (
        "not-in-subquery-or-null",
        "SELECT customer FROM shop.customers WHERE coalesce(referred_by, 'none') NOT IN (SELECT referred_by FROM shop.customers WHERE referred_by IS NOT NULL)",
    ),
    (
        "not-exists-or",
        "SELECT c.customer FROM shop.customers c WHERE c.country = 'DE' OR NOT EXISTS (SELECT 1 FROM shop.customers r WHERE r.referred_by = c.customer)",
    ),
    (
        "exists",
        "SELECT c.customer FROM shop.customers c WHERE EXISTS (SELECT 1 FROM shop.orders o WHERE o.customer = c.customer AND o.amount > c.score)",
    ),
    (
        "not-exists",
        "SELECT c.customer FROM shop.customers c WHERE NOT EXISTS (SELECT 1 FROM shop.orders o WHERE o.customer = c.customer AND o.channel = 'app')",
    ),
    (
        "scalar-subquery",
        "SELECT customer FROM shop.orders GROUP BY customer HAVING sum(amount) > (SELECT 2 * avg(amount) * 10 FROM shop.orders)",
    ),
    (
        "common-table",
        "WITH totals AS (SELECT customer, sum(amount) AS total, count(DISTINCT channel) AS channels FROM shop.orders GROUP BY customer), best AS (SELECT * FROM totals WHERE total > 400.01) SELECT customer FROM best WHERE channels >= 3",
    ),
    (
        "top",
        "SELECT customer FROM (SELECT customer, sum(amount) AS total FROM shop.orders GROUP BY customer ORDER BY total DESC, customer LIMIT 100) t",
    ),
    // Sets.
    (
        "union",
        "SELECT customer FROM shop.orders WHERE amount > 89 UNION SELECT customer FROM shop.customers WHERE country = 'US'",
    ),
    (
        "union-all-group",
        "SELECT customer FROM (SELECT customer, amount FROM shop.orders WHERE channel = 'web' UNION ALL SELECT customer, amount FROM shop.orders WHERE channel = 'app') t GROUP BY customer HAVING sum(amount) > 250",
    ),
    (
        "except",
        "SELECT customer FROM shop.customers EXCEPT SELECT customer FROM shop.orders WHERE amount > 20",
    ),
    (
        "intersect",
        "SELECT customer FROM shop.orders WHERE channel = 'phone' INTERSECT SELECT customer FROM shop.orders WHERE channel = 'partner'",
    ),
    // Windows.
    (
        "window-last",
        "SELECT customer FROM (SELECT customer, channel, row_number() OVER (PARTITION BY customer ORDER BY day DESC, id) AS n FROM shop.orders) t WHERE n = 1 AND channel = 'web'",
    ),
    (
        "window-gap",
        "SELECT customer FROM (SELECT customer, day, lag(day) OVER (PARTITION BY customer ORDER BY day, id) AS before FROM shop.orders) t WHERE day > before + INTERVAL '150 days'",
    ),
    (
        "window-running-sum",
        "SELECT customer FROM (SELECT customer, day, sum(amount) OVER (PARTITION BY customer ORDER BY day, id ROWS UNBOUNDED PRECEDING) AS total FROM shop.orders) t WHERE total > 500 AND day < DATE '2025-01-01'",
    ),
    (
        "window-ntile",
        "SELECT customer FROM (SELECT customer, ntile(10) OVER (ORDER BY total DESC, customer) AS tenth FROM (SELECT customer, sum(amount) AS total FROM shop.orders GROUP BY customer) s) t WHERE tenth = 1",
    ),
    (
        "window-share",
        "SELECT customer FROM (SELECT customer, amount, max(amount) OVER (PARTITION BY customer) AS most, count(*) OVER (PARTITION BY customer) AS orders FROM shop.orders) t WHERE amount = most AND amount < 60 AND orders > 2",
    ),
    (
        "distinct-on",
        "SELECT customer FROM (SELECT DISTINCT ON (customer) customer, channel FROM shop.orders ORDER BY customer, day DESC, id) t WHERE channel = 'store'",
    ),
    (
        "distinct",
        "SELECT DISTINCT customer FROM shop.orders WHERE greatest(qty, 3) = least(qty, 9) AND channel = 'partner'",
    ),
];

fn spec(folder: &Path) -> String {
    let audiences: String = SHAPES
        .iter()
        .map(|(name, sql)| format!("  - name: {name}\n    sql: >-\n      {sql}\n"))
        .collect();
    let lake = folder.display();
    format!(
        "version: 1\nsources:\n  - {{ name: shop, path: \"{lake}\" }}\naudiences:\n{audiences}node:\n  build_workers: 2\n"
    )
}

#[tokio::test]
async fn typical_statements_give_the_members_that_duckdb_gives() {
    let Some(python) = crate::provided("THRONG_ORACLE_PYTHON", "Python with DuckDB") else {
        return;
    };
    assert!(SHAPES.len() >= 40);
    let dir = tempfile::tempdir().expect("temporary folder");
    let lake = dir.path().join("lake");
    std::fs::create_dir(&lake).expect("folder");
    let models: BTreeMap<String, String> =
        SHAPES.iter().map(|(name, sql)| ((*name).to_owned(), (*sql).to_owned())).collect();
    assert_eq!(models.len(), SHAPES.len(), "a name is used twice");
    let expected = members_of_models(&python, SCRIPT, &lake, &models);

    let spec_file = dir.path().join("throng.yaml");
    std::fs::write(&spec_file, spec(&lake)).expect("written");
    let node = NodeProcess::start(&dir.path().join("data"), &spec_file, &dir.path().join("log"));
    let http = http();
    let answer = wait_for("every refresh has ended", async || {
        let answer = get(&http, format!("{}/v1/audiences", node.url)).await?;
        let list = answer["audiences"].as_array().ok_or("no list")?;
        // Wrong SQL fails for good at once. A try that took too long, on a busy machine, is followed by another one.
        let open = list.iter().find(|audience| {
            !matches!(audience["refresh"]["state"].as_str(), Some("completed" | "failed" | "held"))
        });
        open.map_or(Ok(answer.clone()), |open| Err(open.to_string()))
    })
    .await;
    let failed: BTreeSet<String> = answer["audiences"]
        .as_array()
        .expect("list")
        .iter()
        .filter(|audience| audience["refresh"]["state"] != "completed")
        .map(|audience| format!("{}: {}", audience["name"], audience["refresh"]["reason"]))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    expect_equal_sets(&http, &node, &expected).await;
}
