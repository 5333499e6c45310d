//! One scan for several models: each gets the members that its own scan finds.

use std::collections::{BTreeMap, BTreeSet};

use throng_lake::{Inputs, Lake, Model, Rule, SharedBatch};
use throng_model::{Entropy as _, SplitMix64, UserHash};
use throng_spec::ParameterValue;

use crate::{SEED, Shop, hashes};

type Set = Vec<(String, ParameterValue)>;

/// Rows by user: a value for each.
type UserRows = BTreeMap<UserHash, Vec<u64>>;

fn text(value: &str) -> ParameterValue {
    ParameterValue::Text(value.to_owned())
}

/// Orders of 300 users in 7 regions and 3 tiers, in two files; some have no id, and some no region.
fn shop() -> Shop {
    let mut random = SplitMix64::new(11);
    let mut below = |limit: u64| random.next_u64() % limit;
    let mut file = || {
        let mut lines = "id,region,tier,amount\n".to_owned();
        for _ in 0..3_000 {
            let id = match below(300) {
                0 => String::new(),
                id => format!("u{id}"),
            };
            let region = match below(8) {
                0 => String::new(),
                region => format!("r{region}"),
            };
            lines.push_str(&format!("{id},{region},{},{}\n", below(3), below(10)));
        }
        lines
    };
    let (first, second) = (file(), file());
    Shop::new().file("orders/1.csv", &first).file("orders/2.csv", &second)
}

/// Regions, of which one has no rows, with tiers and thresholds.
fn sets() -> Vec<Set> {
    let mut sets = Vec::new();
    for region in 1..=8 {
        for tier in 0..3 {
            sets.push(vec![
                ("region".to_owned(), text(&format!("r{region}"))),
                ("tier".to_owned(), ParameterValue::Integer(tier)),
                ("least".to_owned(), ParameterValue::Integer(1 + tier * 3)),
            ]);
        }
    }
    sets
}

fn members(rows: &UserRows, rule: Rule) -> BTreeSet<UserHash> {
    let is_member = |values: &Vec<u64>| match rule {
        Rule::Rows(range) => range.allows(values.len() as u64),
        Rule::Sum(range) => range.allows(values.iter().copied()),
    };
    rows.iter().filter(|(_, values)| is_member(values)).map(|(user, _)| *user).collect()
}

/// The members by the scan of the model itself, with the rows that it read and those without a key.
async fn alone(lake: &Lake, sql: &str, set: &Set) -> (BTreeSet<UserHash>, u64, u64) {
    let model = Model { parameters: set.clone(), ..model(sql) };
    let (info, parts) = lake.plan_scan(&model, &[]).await.unwrap();
    let (mut rows, mut read, mut null_keys) = (UserRows::new(), 0, 0);
    for part in parts {
        let mut sink = |batch: throng_lake::KeyBatch| {
            let values = batch.values.unwrap_or_else(|| vec![0; batch.hashes.len()]);
            for (hash, value) in batch.hashes.into_iter().zip(values) {
                rows.entry(hash).or_default().push(value);
            }
            Ok(())
        };
        let stats = lake.scan(&model, &part, SEED, &mut sink).await.unwrap();
        read += stats.rows_read;
        null_keys += stats.null_keys;
    }
    (members(&rows, info.rule), read, null_keys)
}

fn model(sql: &str) -> Model {
    Model { sql: sql.to_owned(), key: None, source: None, parameters: Vec::new() }
}

/// What one scan for several models found.
struct Shared {
    groups: usize,
    parts: usize,
    inputs: Inputs,
    /// For each model: its members, the rows that were read for it and those without a key.
    found: Vec<(BTreeSet<UserHash>, u64, u64)>,
    /// Keys in the largest batch.
    largest_batch: usize,
}

impl Shared {
    async fn scan(lake: &Lake, sql: &str, sets: &[Set]) -> Self {
        let plan = lake.plan_shared(&model(sql), sets.to_vec(), Vec::new()).await;
        let plan = plan.unwrap().expect(sql);
        let groups = plan.scan.groups();
        let mut rows = vec![UserRows::new(); groups];
        let (mut read, mut null_keys) = (vec![0_u64; groups], vec![0_u64; groups]);
        let mut largest_batch = 0_usize;
        for part in &plan.parts {
            let mut sink = |batch: &mut SharedBatch| {
                largest_batch = largest_batch.max(batch.hashes.len());
                for (at, hash) in batch.hashes.iter().enumerate() {
                    let value = batch.values.get(at).copied().unwrap_or(0);
                    rows[batch.groups[at] as usize].entry(*hash).or_default().push(value);
                }
                Ok(())
            };
            let stats = lake.scan_shared(&plan.scan, part, SEED, &mut sink).await.unwrap();
            read.iter_mut().zip(stats.rows_read).for_each(|(all, rows)| *all += rows);
            null_keys.iter_mut().zip(stats.null_keys).for_each(|(all, rows)| *all += rows);
        }
        let found = plan.groups.iter().zip(&plan.rules).map(|(group, rule)| {
            let group = *group as usize;
            (members(&rows[group], *rule), read[group], null_keys[group])
        });
        let found = found.collect();
        let (parts, inputs) = (plan.parts.len(), plan.info.inputs);
        Self { groups, parts, inputs, found, largest_batch }
    }

    /// Compares each model with its own scan.
    async fn compare(&self, lake: &Lake, sql: &str, sets: &[Set]) {
        assert_eq!(self.found.len(), sets.len(), "{sql}");
        for (found, set) in self.found.iter().zip(sets) {
            assert_eq!(*found, alone(lake, sql, set).await, "{sql}: {set:?}");
        }
        assert!(self.found.iter().any(|(members, ..)| !members.is_empty()), "{sql}");
    }
}

#[tokio::test]
async fn every_model_has_the_members_of_its_own_scan() {
    let shop = shop();
    let lake = shop.lake();
    for (sql, groups, parts) in [
        ("SELECT id FROM shop.orders WHERE region = $region", 8, 2),
        (
            "SELECT DISTINCT o.id FROM shop.orders o WHERE $tier = o.tier AND o.region = $region",
            24,
            2,
        ),
        (
            "SELECT id FROM shop.orders WHERE tier = $tier AND amount > 3 AND region = $region",
            24,
            2,
        ),
        (
            "SELECT id FROM shop.orders WHERE region = $region GROUP BY id HAVING count(*) >= $least",
            8,
            2,
        ),
        (
            "SELECT id FROM shop.orders WHERE region = $region AND amount < 9 GROUP BY id \
             HAVING sum(amount) > $least",
            8,
            2,
        ),
        ("SELECT id FROM shop.orders GROUP BY id HAVING count(*) >= $least", 1, 2),
        (
            "SELECT id FROM shop.orders WHERE region = $region GROUP BY id \
             HAVING count(*) BETWEEN $tier AND $least",
            8,
            2,
        ),
        (
            "SELECT id FROM shop.orders WHERE region = $region GROUP BY id \
             HAVING $tier < count(*) AND count(*) < 4",
            8,
            2,
        ),
        ("SELECT id FROM shop.orders WHERE region = $region GROUP BY id", 8, 2),
        (
            "SELECT o.id FROM shop.orders o JOIN (SELECT DISTINCT region AS r FROM shop.orders) \
             ON o.region = r WHERE r = $region",
            8,
            1,
        ),
    ] {
        let shared = Shared::scan(&lake, sql, &sets()).await;
        assert_eq!((shared.groups, shared.parts), (groups, parts), "{sql}");
        // Another set of values reads the same files.
        let other = Model { parameters: sets().swap_remove(5), ..model(sql) };
        let (info, _) = lake.plan_scan(&other, &[]).await.unwrap();
        assert_eq!(shared.inputs, info.inputs, "{sql}");
        shared.compare(&lake, sql, &sets()).await;
    }
}

#[tokio::test]
async fn models_whose_parameters_are_used_otherwise_are_scanned_alone() {
    let shop = shop();
    let lake = shop.lake();
    for sql in [
        "SELECT id FROM shop.orders WHERE lower(region) = $region",
        "SELECT id FROM shop.orders WHERE region <> $region",
        "SELECT id FROM shop.orders WHERE region = $region OR tier = 1",
        "SELECT id FROM shop.orders WHERE tier NOT BETWEEN $tier AND $least",
        "SELECT id FROM shop.orders WHERE tier > $tier OR amount > 3",
        "SELECT id FROM shop.orders WHERE NOT (tier > $tier)",
        "SELECT id FROM shop.orders WHERE tier + 1 > $tier",
        "SELECT id FROM shop.orders WHERE tier BETWEEN amount AND $tier",
        "SELECT id FROM shop.orders WHERE $tier BETWEEN tier AND amount",
        "SELECT id FROM shop.orders WHERE $tier > $least",
        // The order of texts is not that of numbers.
        "SELECT id FROM shop.orders WHERE region > $region",
        "SELECT id FROM shop.orders WHERE tier > $region",
        "SELECT id FROM shop.orders WHERE CAST(tier AS DOUBLE) > $tier",
        "SELECT id FROM (SELECT id, CAST(tier AS DOUBLE) AS share FROM shop.orders) WHERE share > $tier",
        "SELECT id FROM (SELECT id, CAST(tier AS BIGINT UNSIGNED) AS n FROM shop.orders) WHERE n > $tier",
        // The engine would compare them as texts.
        "SELECT id FROM shop.orders WHERE tier = $region",
        "SELECT id FROM shop.orders WHERE id IN (SELECT id FROM shop.orders WHERE region = $region)",
        "SELECT id FROM shop.orders WHERE region = $region ORDER BY amount LIMIT 3",
        "SELECT id FROM (SELECT id, count(*) AS n FROM shop.orders WHERE region = $region GROUP BY id) \
         WHERE n > 1",
        "SELECT id FROM shop.orders WHERE region = $region GROUP BY id HAVING count(amount) > 1",
        "SELECT id FROM shop.orders GROUP BY id HAVING sum(amount + $least) > 1",
        "SELECT id FROM shop.orders GROUP BY id HAVING count(*) > $region",
        "SELECT id FROM shop.orders GROUP BY id HAVING count(*) > $least OR count(*) > $tier",
        "SELECT id FROM shop.orders GROUP BY id HAVING count(*) > $least + 1",
    ] {
        let first = vec![sets().swap_remove(4)];
        let planned = lake.plan_shared(&model(sql), first, Vec::new()).await;
        // Or an error, which the refresh of the audience reports.
        assert!(!matches!(planned, Ok(Some(_))), "{sql}");
    }
}

#[tokio::test]
async fn models_that_are_scanned_alone_say_why() {
    let shop = shop();
    let lake = shop.lake();
    for (sql, why) in [
        ("SELECT id FROM shop.orders WHERE region = $region", None),
        ("SELECT id FROM shop.orders GROUP BY id HAVING count(*) >= $least", None),
        ("SELECT id FROM shop.orders WHERE lower(region) = $region", Some("in a function")),
        ("SELECT id FROM shop.orders WHERE region = $region OR tier = 1", Some("under OR or NOT")),
        ("SELECT id FROM shop.orders WHERE region <> $region", Some("by another operator")),
        ("SELECT id FROM shop.orders WHERE region > $region", Some("by another operator")),
        (
            "SELECT id FROM shop.orders WHERE region = $region GROUP BY id HAVING count(amount) > 1",
            Some("GROUP BY or HAVING"),
        ),
    ] {
        let found = lake.why_alone(&model(sql), sets()).await.unwrap();
        match why {
            None => assert_eq!(found, None, "{sql}"),
            Some(part) => {
                assert!(found.as_ref().is_some_and(|f| f.contains(part)), "{sql}: {found:?}");
            }
        }
    }
}

#[tokio::test]
async fn dates_and_booleans_are_compared_as_in_a_scan_of_their_own() {
    let orders = "id,day,vip\na,2026-01-30,true\nb,2026-01-30,false\nc,2026-02-01,true\nd,,true\n";
    let shop =
        Shop::new().file("orders.csv", orders).declare("day", "date").declare("vip", "boolean");
    let lake = shop.lake();
    let sql = "SELECT id FROM shop.orders WHERE day = $day AND vip = $vip";
    let set = |(day, vip): (&str, bool)| -> Set {
        vec![
            ("day".to_owned(), ParameterValue::Date(day.to_owned())),
            ("vip".to_owned(), ParameterValue::Boolean(vip)),
        ]
    };
    let (first, second) = ("2026-01-30", "2026-02-01");
    let sets = [(first, true), (first, false), (second, true), (second, false)].map(set).to_vec();
    let shared = Shared::scan(&lake, sql, &sets).await;
    shared.compare(&lake, sql, &sets).await;
    let counts: Vec<usize> = shared.found.iter().map(|(members, ..)| members.len()).collect();
    assert_eq!(counts, [1, 1, 1, 0]);
}

/// A sale: what is not there is NULL.
struct Sale {
    id: String,
    region: u64,
    age: Option<i64>,
    day: Option<String>,
    cents: Option<i64>,
}

/// Values of parameters, some of whose ranges are empty.
struct Values {
    region: u64,
    low: i64,
    high: i64,
    since: String,
    until: String,
    /// In thousandths: the column has hundredths.
    least: i64,
    most: i64,
    times: i64,
}

impl Values {
    fn random(random: &mut SplitMix64) -> Self {
        let mut below = |limit: u64| random.next_u64() % limit;
        let (region, times) = (below(4), below(4) as i64);
        let (low, high) = (below(40) as i64 - 10, below(40) as i64 - 10);
        let (least, most) = (below(4_000) as i64 - 1_000, below(4_000) as i64 - 1_000);
        let (since, until) = (day(&mut below), day(&mut below));
        Self { region, low, high, since, until, least, most, times }
    }

    /// Each statement returns some sales for them.
    fn wide() -> Self {
        let (since, until) = ("1969-01-01".to_owned(), "1972-01-01".to_owned());
        let (low, high, least, most) = (-5, 30, -1_000, 4_000);
        Self { region: 2, low, high, since, until, least, most, times: 1 }
    }

    fn set(&self) -> Set {
        let decimal = |unscaled| ParameterValue::Decimal { unscaled, scale: 3 };
        let values = [
            ("region", text(&format!("r{}", self.region))),
            ("low", ParameterValue::Integer(self.low)),
            ("high", ParameterValue::Integer(self.high)),
            ("since", ParameterValue::Date(self.since.clone())),
            ("until", ParameterValue::Date(self.until.clone())),
            ("least", decimal(self.least)),
            ("most", decimal(self.most)),
            ("times", ParameterValue::Integer(self.times)),
        ];
        values.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

/// Also some before 1970.
fn day(below: &mut impl FnMut(u64) -> u64) -> String {
    format!("{}-{:02}-{:02}", 1969 + below(3), 1 + below(12), 1 + below(28))
}

fn sales(random: &mut SplitMix64) -> Vec<Sale> {
    let mut below = |limit: u64| random.next_u64() % limit;
    let sale = |_: u32| {
        let id = below(200);
        Sale {
            id: if id == 0 { String::new() } else { format!("u{id}") },
            region: below(4),
            age: (below(8) > 0).then(|| below(40) as i64 - 10),
            day: (below(8) > 0).then(|| day(&mut below)),
            cents: (below(8) > 0).then(|| below(400) as i64 - 100),
        }
    };
    (0..1_200).map(sale).collect()
}

fn csv(sales: &[Sale]) -> String {
    let mut lines = "id,region,age,day,price\n".to_owned();
    for Sale { id, region, age, day, cents } in sales {
        let age = age.map(|age| age.to_string()).unwrap_or_default();
        let price = cents.map(|cents| {
            let sign = if cents < 0 { "-" } else { "" };
            format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
        });
        let (day, price) = (day.as_deref().unwrap_or_default(), price.unwrap_or_default());
        lines.push_str(&format!("{id},r{region},{age},{day},{price}\n"));
    }
    lines
}

/// Whether a sale is one of those that a statement returns, without the engine.
type IsFound = fn(&Sale, &Values) -> bool;

/// Statements of rows.
const RANGES: [(&str, IsFound); 10] = [
    ("age >= $low", |sale, values| sale.age.is_some_and(|age| age >= values.low)),
    ("$high > age AND region = $region", |sale, values| {
        sale.age.is_some_and(|age| age < values.high) && sale.region == values.region
    }),
    ("age BETWEEN $low AND $high AND $region = region", |sale, values| {
        sale.age.is_some_and(|age| values.low <= age && age <= values.high)
            && sale.region == values.region
    }),
    ("age > $low AND region <> 'r1' AND $high >= age AND age <= $times", |sale, values| {
        let is_in = |age: i64| values.low < age && age <= values.high && age <= values.times;
        sale.age.is_some_and(is_in) && sale.region != 1
    }),
    ("day >= $since AND day < $until", |sale, values| {
        sale.day.as_ref().is_some_and(|day| *day >= values.since && *day < values.until)
    }),
    ("age < $high AND day > $since AND region = $region", |sale, values| {
        sale.age.is_some_and(|age| age < values.high)
            && sale.day.as_ref().is_some_and(|day| *day > values.since)
            && sale.region == values.region
    }),
    ("price >= $least AND price < $most", |sale, values| {
        sale.cents.is_some_and(|cents| cents * 10 >= values.least && cents * 10 < values.most)
    }),
    ("price > $least AND $most >= price", |sale, values| {
        sale.cents.is_some_and(|cents| cents * 10 > values.least && cents * 10 <= values.most)
    }),
    ("price BETWEEN $low AND $most", |sale, values| {
        let is_in = |cents: i64| cents >= values.low * 100 && cents * 10 <= values.most;
        sale.cents.is_some_and(is_in)
    }),
    ("age > $least AND age <= $most", |sale, values| {
        sale.age.is_some_and(|age| age * 1_000 > values.least && age * 1_000 <= values.most)
    }),
];

#[tokio::test]
async fn every_model_with_ranges_has_the_members_of_its_own_scan() {
    let mut random = SplitMix64::new(5);
    let (first, second) = (sales(&mut random), sales(&mut random));
    let shop = Shop::new().file("sales/1.csv", &csv(&first)).file("sales/2.csv", &csv(&second));
    let shop = shop.declare("day", "date").declare("age", "integer");
    let shop = shop.declare("price", "decimal(10, 2)");
    let lake = shop.lake();
    let mut values = vec![Values::wide()];
    values.extend((0..12).map(|_| Values::random(&mut random)));
    let sets: Vec<Set> = values.iter().map(Values::set).collect();
    for (conditions, is_found) in RANGES {
        let sql = format!("SELECT id FROM shop.sales WHERE {conditions}");
        let shared = Shared::scan(&lake, &sql, &sets).await;
        assert_eq!(shared.parts, 2, "{sql}");
        shared.compare(&lake, &sql, &sets).await;
        for ((members, rows, null_keys), values) in shared.found.iter().zip(&values) {
            let all = first.iter().chain(&second);
            let found: Vec<&Sale> = all.filter(|sale| is_found(sale, values)).collect();
            let ids = found.iter().map(|sale| sale.id.as_str()).filter(|id| !id.is_empty());
            assert_eq!(*members, hashes(ids), "{sql}");
            let without_key = found.iter().filter(|sale| sale.id.is_empty()).count();
            assert_eq!((*rows, *null_keys), (found.len() as u64, without_key as u64), "{sql}");
        }
    }
    for sql in [
        "SELECT id FROM shop.sales WHERE age >= $low GROUP BY id HAVING count(*) >= $times",
        "SELECT id FROM shop.sales WHERE day BETWEEN $since AND $until AND region = $region \
         GROUP BY id HAVING sum(price) > $times",
        "SELECT DISTINCT s.id FROM shop.sales s LEFT JOIN \
         (SELECT region AS r, max(age) AS oldest FROM shop.sales WHERE age < 25 GROUP BY region) \
         ON s.region = r AND s.age = oldest WHERE oldest >= $low AND s.price <= $most",
    ] {
        let shared = Shared::scan(&lake, sql, &sets).await;
        shared.compare(&lake, sql, &sets).await;
    }
}

#[tokio::test]
async fn the_keys_of_a_row_in_many_groups_are_in_several_batches() {
    let sales: String = (0..1_000).map(|n| format!("u{n},{}\n", n % 10)).collect();
    let shop = Shop::new().file("sales.csv", &format!("id,age\n{sales}"));
    let lake = shop.lake();
    let sql = "SELECT id FROM shop.sales WHERE age >= $low";
    let set = |low| vec![("low".to_owned(), ParameterValue::Integer(low))];
    let sets: Vec<Set> = (-290..=10).map(set).collect();
    let shared = Shared::scan(&lake, sql, &sets).await;
    assert_eq!((shared.groups, shared.parts), (301, 1));
    // 291 groups have all users.
    assert!((1 << 15..(1 << 15) + 301).contains(&shared.largest_batch), "{}", shared.largest_batch);
    for ((members, rows, _), low) in shared.found.iter().zip(-290..=10_i64) {
        let expected = 100 * (10 - low.max(0)) as usize;
        assert_eq!((members.len(), *rows), (expected, expected as u64), "{low}");
    }
}

#[tokio::test]
async fn bounds_at_the_ends_of_a_type_are_compared_as_in_a_scan_of_their_own() {
    let numbers = format!("id,n\na,{}\nb,0\nc,{}\nd,\n", i64::MIN, i64::MAX);
    let shop = Shop::new().file("numbers.csv", &numbers).declare("n", "integer");
    let lake = shop.lake();
    let set = |n| vec![("n".to_owned(), ParameterValue::Integer(n))];
    let sets: Vec<Set> = [i64::MIN, i64::MIN + 1, 0, i64::MAX - 1, i64::MAX].map(set).to_vec();
    for (condition, expected) in [
        ("n > $n", [2_usize, 2, 1, 1, 0]),
        ("n >= $n", [3, 2, 2, 1, 1]),
        ("n < $n", [0, 1, 1, 2, 2]),
        ("n <= $n", [1, 1, 2, 2, 3]),
        ("n BETWEEN $n AND $n", [1, 0, 1, 0, 1]),
    ] {
        let sql = format!("SELECT id FROM shop.numbers WHERE {condition}");
        let shared = Shared::scan(&lake, &sql, &sets).await;
        shared.compare(&lake, &sql, &sets).await;
        let counts: Vec<usize> = shared.found.iter().map(|(members, ..)| members.len()).collect();
        assert_eq!(counts, expected, "{sql}");
    }
}
