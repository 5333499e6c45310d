//! One scan for several models: each gets the members that its own scan finds.

use std::collections::{BTreeMap, BTreeSet};

use throng_lake::{Lake, Model, Rule, SharedBatch};
use throng_model::{Entropy as _, SplitMix64, UserHash};
use throng_spec::ParameterValue;

use crate::{SEED, Shop};

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
            "SELECT o.id FROM shop.orders o JOIN (SELECT DISTINCT region AS r FROM shop.orders) \
             ON o.region = r WHERE r = $region",
            8,
            1,
        ),
    ] {
        let plan = lake.plan_shared(&model(sql), sets(), Vec::new()).await.unwrap().expect(sql);
        assert_eq!((plan.scan.groups(), plan.parts.len()), (groups, parts), "{sql}");
        // Another set of values reads the same files.
        let other = Model { parameters: sets().swap_remove(5), ..model(sql) };
        let (info, _) = lake.plan_scan(&other, &[]).await.unwrap();
        assert_eq!(plan.info.inputs, info.inputs, "{sql}");
        let mut rows = vec![UserRows::new(); groups];
        let (mut read, mut null_keys) = (vec![0_u64; groups], vec![0_u64; groups]);
        for part in &plan.parts {
            let mut sink = |batch: SharedBatch| {
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
        let mut found = 0;
        for (at, set) in sets().iter().enumerate() {
            let group = plan.groups[at] as usize;
            let shared = members(&rows[group], plan.rules[at]);
            found += shared.len();
            let expected = alone(&lake, sql, set).await;
            assert_eq!((shared, read[group], null_keys[group]), expected, "{sql}: {set:?}");
        }
        assert!(found > 0, "{sql}");
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
        "SELECT id FROM shop.orders WHERE tier > $tier",
        // The engine would compare them as texts.
        "SELECT id FROM shop.orders WHERE tier = $region",
        "SELECT id FROM shop.orders WHERE id IN (SELECT id FROM shop.orders WHERE region = $region)",
        "SELECT id FROM shop.orders WHERE region = $region ORDER BY amount LIMIT 3",
        "SELECT id FROM (SELECT id, count(*) AS n FROM shop.orders WHERE region = $region GROUP BY id) \
         WHERE n > 1",
        "SELECT id FROM shop.orders WHERE region = $region GROUP BY id HAVING count(amount) > 1",
        "SELECT id FROM shop.orders GROUP BY id HAVING sum(amount + $least) > 1",
    ] {
        let first = vec![sets().swap_remove(4)];
        let planned = lake.plan_shared(&model(sql), first, Vec::new()).await;
        // Or an error, which the refresh of the audience reports.
        assert!(!matches!(planned, Ok(Some(_))), "{sql}");
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
    let plan = lake.plan_shared(&model(sql), sets.clone(), Vec::new()).await.unwrap().unwrap();
    let mut rows = vec![UserRows::new(); plan.scan.groups()];
    for part in &plan.parts {
        let mut sink = |batch: SharedBatch| {
            for (hash, group) in batch.hashes.iter().zip(&batch.groups) {
                rows[*group as usize].entry(*hash).or_default().push(0);
            }
            Ok(())
        };
        lake.scan_shared(&plan.scan, part, SEED, &mut sink).await.unwrap();
    }
    let mut counts = Vec::new();
    for (at, set) in sets.iter().enumerate() {
        let found = members(&rows[plan.groups[at] as usize], plan.rules[at]);
        assert_eq!(found, alone(&lake, sql, set).await.0, "{set:?}");
        counts.push(found.len());
    }
    assert_eq!(counts, [1, 1, 1, 0]);
}
