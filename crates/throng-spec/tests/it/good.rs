//! Valid specs.

use std::path::Path;

use throng_model::{FileFormat, Micros, Pacing, Severity, StoreLayout, SyncMode, WhenStale};
use throng_spec::{
    AdGroup, Adopt, ColumnType, Limits, LogSettings, NodeSettings, ObjectsSettings, OnRemove,
    Platform, Prediction, Pricing, Role, SecretRef, ServiceSettings, SourceTrigger, Spec,
    StoreEngine, WarehouseSettings, WhenRemoved, load,
};

use super::here;

fn load_valid(path: &Path) -> Spec {
    load(path).unwrap_or_else(|problems| {
        let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", texts.join("\n"))
    })
}

fn load_text(text: &str) -> Spec {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("throng.yaml");
    std::fs::write(&file, text).unwrap();
    load_valid(&file)
}

#[test]
fn a_parameter_of_a_template_in_quotes_is_a_warning() {
    let warnings = |condition: &str| {
        let text = std::fs::read_to_string(here("good/workspaces.yaml")).unwrap();
        let text = text.replacen("region = $region", condition, 1);
        let mut warnings = throng_spec::warnings(&load_text(&text));
        warnings.retain(|warning| warning.contains("in quotes"));
        warnings
    };
    for right in
        ["region = $region", "region = $region AND note = '$5'", "note = 'a$' AND 'b' = $region"]
    {
        assert_eq!(warnings(right), Vec::<String>::new(), "{right}");
    }
    let warned = warnings("region = '$region'");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("'$region' in quotes"), "{warned:?}");
    assert!(warned[0].ends_with("write $region without quotes"), "{warned:?}");
}

#[test]
fn a_source_in_a_bucket_has_the_url_as_its_path() {
    let spec = load_valid(&here("good/gcs.yaml"));
    let [exports, shop] = spec.sources.as_slice() else { panic!() };
    assert_eq!(exports.path.to_str(), Some("gs://ads-exports/users"));
    let bucket = exports.bucket.as_ref().unwrap();
    assert_eq!((bucket.name.as_str(), bucket.prefix.as_str()), ("ads-exports", "users"));
    assert_eq!(bucket.max_bytes, 100 << 30);
    assert!(matches!(
        bucket.service,
        ServiceSettings::Gcs { service_account: Some(SecretRef::File(_)) }
    ));
    assert_eq!(shop.path.to_str(), Some("s3://shop"));
    let bucket = shop.bucket.as_ref().unwrap();
    assert_eq!((bucket.prefix.as_str(), bucket.max_bytes), ("", 1000));
    assert_eq!(bucket.service.server().unwrap().to_string(), "s3.example");
    assert_eq!(bucket.service.secrets().len(), 2);
    assert!(bucket.service.ca_file().is_some_and(|file| file.is_absolute()));
}

#[test]
fn a_stored_source_in_a_bucket_is_checked_again() {
    let json = serde_json::to_string(&load_valid(&here("good/gcs.yaml"))).unwrap();
    for (from, to) in [
        ("\"s3://shop\"", "\"/etc\""),
        ("\"max_bytes\":1000", "\"max_bytes\":0"),
        ("\"prefix\":\"users\"", "\"prefix\":\"../users\""),
        ("https://s3.example", "http://s3.example"),
    ] {
        assert!(json.contains(from), "{from} is not in {json}");
        assert!(serde_json::from_str::<Spec>(&json.replace(from, to)).is_err(), "{to}");
    }
}

/// A spec with a schema at the top level and one in a workspace.
fn load_with_lake(lake: &str) -> Spec {
    let schemas =
        "schemas: [{ name: visits, key: id, fields: [{ name: id, type: text, required: true }] }]";
    load_text(&format!(
        "version: 1\nnode:\n  lake: {lake}\n{schemas}\nworkspaces:\n  - name: acme\n    {schemas}\n"
    ))
}

#[test]
fn ingested_rows_are_in_a_folder_or_a_bucket() {
    let keys = "{ path: 's3://lake/in', max_bytes: 7, s3: { region: eu-central-1, access_key: env:A, secret_key: env:S } }";
    let spec = load_with_lake(keys);
    let bucket = spec.node.lake_bucket.as_ref().unwrap();
    assert_eq!((bucket.url().to_string().as_str(), bucket.max_bytes), ("s3://lake/in", 7));
    assert_eq!(bucket.service.secrets().len(), 2);
    let lakes: Vec<&str> = spec.sources.iter().filter_map(|source| source.path.to_str()).collect();
    assert_eq!(lakes, ["s3://lake/in/default", "s3://lake/in/acme"]);
    for source in &spec.sources {
        let of_source = source.bucket.as_ref().unwrap();
        assert_eq!(source.path.to_str(), Some(of_source.url().to_string().as_str()));
        assert_eq!((of_source.max_bytes, &of_source.service), (7, &bucket.service));
    }
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
    for (from, to) in [("\"s3://lake/in\"", "\"/etc\""), ("\"max_bytes\":7", "\"max_bytes\":0")] {
        assert!(json.contains(from), "{from} is not in {json}");
        assert!(serde_json::from_str::<Spec>(&json.replace(from, to)).is_err(), "{to}");
    }

    let spec = load_with_lake("gs://lake");
    assert!(matches!(
        spec.node.lake_bucket.unwrap().service,
        ServiceSettings::Gcs { service_account: None }
    ));
    assert_eq!(spec.sources[1].path.to_str(), Some("gs://lake/acme"));

    for lake in ["lake", "{ path: lake }"] {
        let spec = load_with_lake(lake);
        assert_eq!(spec.node.lake_bucket, None);
        assert!(spec.node.lake.is_some_and(|path| path.is_absolute() && path.ends_with("lake")));
        assert!(spec.sources.iter().all(|source| source.bucket.is_none()));
    }
}

#[test]
fn a_bucket_of_ingested_rows_that_cannot_be_used_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("throng.yaml");
    for (lake, message) in [
        ("https://lake/in", "the path is neither a folder nor the URL of a bucket"),
        ("s3://lake/a b", "ingested rows cannot have this prefix"),
        ("{ path: lake, s3: { region: x } }", "`s3` has no effect on a folder"),
        ("{ path: 'gs://lake', s3: { region: x } }", "`s3` has no effect on gs://lake"),
        ("{ max_bytes: 7 }", "missing field `path`"),
    ] {
        let text = format!("version: 1\nnode:\n  lake: {lake}\n");
        std::fs::write(&file, text).unwrap();
        let problems = load(&file).unwrap_err();
        let found: Vec<&str> = problems.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(found, [message], "{lake}");
    }
}

#[test]
fn every_field_is_read() {
    let spec = load_valid(&here("good/full.yaml"));
    let buyers = &spec.audiences[0];
    assert!(spec.sources[0].path.is_absolute());
    let decimal = ColumnType::Decimal { digits: 12, scale: 2 };
    let columns = [("customer_id".to_owned(), ColumnType::Text), ("total".to_owned(), decimal)];
    assert_eq!(spec.sources[0].columns, columns);
    assert!(spec.sources[0].trim);
    assert_eq!(spec.sources[0].header, Some(true));
    // The schemas have a source of their own.
    assert_eq!(spec.sources[1].name.as_str(), "lake");
    assert!(
        spec.node.lake.as_ref().is_some_and(|lake| spec.sources[1].path == lake.join("default"))
    );
    let customers = &spec.schemas[0];
    assert_eq!((customers.quarantine_days, customers.fields.len()), (7, 4));
    assert_eq!(customers.fields[2].max.as_deref(), Some("120"));
    assert_eq!(buyers.sql, "SELECT customer_id\nFROM shop.purchases");
    assert_eq!(buyers.sql_at.line, 17);
    assert_eq!(buyers.key.as_deref(), Some("customer_id"));
    assert_eq!(buyers.guard.max_shrink_percent, 30);
    assert_eq!(buyers.guard.max_growth_percent, None);
    assert_eq!(buyers.guard.min_members, 100);
    assert_eq!(buyers.keep_snapshots, 3);
    assert_eq!(spec.audiences[1].sql_at.line, 26);
    assert_eq!(spec.audiences[1].guard.max_growth_percent, Some(400));
    let trigger = SourceTrigger { poll_secs: 30, success_file: Some("_SUCCESS".into()) };
    assert_eq!(
        (&buyers.source_trigger, &spec.audiences[1].source_trigger),
        (&None, &Some(trigger))
    );
    assert!(spec.audiences[1].schedule.is_some());
    assert_eq!((buyers.max_age_hours, spec.audiences[1].max_age_hours), (None, Some(36)));

    assert_eq!(spec.destinations[0].account(), "meta/1001");
    let Platform::Meta(meta) = &spec.destinations[0].platform else { panic!() };
    assert_eq!(meta.access_token, SecretRef::Env("META_TOKEN".into()));
    assert!(matches!(&meta.app_secret, Some(SecretRef::File(path)) if path.is_absolute()));
    assert_eq!(meta.base_url.as_deref(), Some("http://127.0.0.1:7078"));

    let [first, second] = spec.syncs.as_slice() else { panic!() };
    assert_eq!((first.mode, second.mode), (SyncMode::Replace, SyncMode::Mirror));
    assert_eq!((first.batch_rows, second.batch_rows), (5000, 10_000));
    assert_eq!(first.priority, -3);
    assert_eq!((first.adopt, second.adopt), (Adopt::Replace, Adopt::Fail));
    assert_eq!((first.on_remove, second.on_remove), (OnRemove::Delete, OnRemove::Keep));
    let columns = [("email", "EMAIL"), ("customer_id", "EXTERN_ID")];
    let columns: Vec<_> = columns.iter().map(|(c, k)| (c.to_string(), k.to_string())).collect();
    assert_eq!(first.identifiers.columns, columns);
    // Behind an alias: the position of its definition.
    assert_eq!(first.identifiers.sql_at, second.identifiers.sql_at);
    assert_eq!(first.identifiers.sql_at.line, 52);
    assert!(first.identifiers.sql.starts_with("\nSELECT"));

    let [cache, local] = spec.serving_stores.as_slice() else { panic!() };
    let StoreEngine::Redis(redis) = &cache.engine else { panic!() };
    assert_eq!(redis.server().unwrap().to_string(), "cache.internal:6380");
    assert_eq!((redis.database(), redis.is_encrypted(), redis.insecure), (2, false, true));
    assert_eq!(redis.password, Some(SecretRef::Env("REDIS_PASSWORD".into())));
    assert_eq!(
        (redis.username.as_deref(), redis.layout),
        (Some("throng"), StoreLayout::ByAudience)
    );
    assert_eq!(cache.place(), "redis://cache.internal:6380/2 ads: by_audience");
    assert!(cache.has(&buyers.name) && !cache.has(&spec.audiences[1].name));
    assert_eq!((cache.max_writes_per_second, local.max_writes_per_second), (20_000, 50_000));
    assert!(local.has(&buyers.name) && local.has(&spec.audiences[1].name));
    assert_eq!(local.place(), "rediss://cache.internal throng: by_user");
}

#[test]
fn a_table_of_bigtable_is_read_and_survives_json() {
    let spec = load_valid(&here("good/bigtable.yaml"));
    let [users, pod, local, lab] = spec.serving_stores.as_slice() else { panic!() };
    let StoreEngine::Bigtable(table) = &users.engine else { panic!() };
    assert_eq!(table.table_name(), "projects/ads/instances/eu/tables/users");
    assert_eq!((table.family.as_str(), table.app_profile.as_deref()), ("a", Some("batch")));
    assert_eq!(table.credentials, Some(SecretRef::Env("KEY".into())));
    assert_eq!(table.token_url(), Some("http://127.0.0.1:9/token"));
    assert_eq!((users.max_writes_per_second, pod.max_writes_per_second), (9, 50_000));
    let place = "https://bigtable.internal projects/ads/instances/eu/tables/users a";
    assert_eq!(users.place(), place);
    let StoreEngine::Bigtable(table) = &pod.engine else { panic!() };
    assert_eq!(table.family, "audiences");
    assert_eq!(table.api_url(), "https://bigtable.googleapis.com");
    assert_eq!(table.token_url(), Some("http://metadata.google.internal"));
    for store in [local, lab] {
        let StoreEngine::Bigtable(table) = &store.engine else { panic!() };
        assert_eq!((table.is_encrypted(), table.token_url()), (false, None));
    }
    let json = serde_json::to_value(&spec).unwrap();
    assert_eq!(json["serving_stores"][0]["type"], "bigtable");
    assert_eq!(serde_json::from_value::<Spec>(json.clone()).unwrap(), spec);
    let mut wrong = json;
    wrong["serving_stores"][3]["insecure"] = false.into();
    assert!(serde_json::from_value::<Spec>(wrong).is_err());
}

#[test]
fn the_servers_of_bigtable_are_within_the_limits_of_its_spec() {
    let spec = load_valid(&here("good/bigtable.yaml"));
    let mut limits = Limits::default();
    limits.allow_spec(&spec);
    assert_eq!(limits.disallowed(&spec), Vec::<String>::new());
    let expected = [
        "secret env:KEY@127.0.0.1:9",
        "secret env:KEY@bigtable.internal",
        "host 127.0.0.1:8086",
        "host bigtable.googleapis.com",
        "host lab:8086",
        "host metadata.google.internal:80",
    ];
    assert_eq!(limits.lines(), expected);
}

#[test]
fn every_field_of_ad_groups_and_of_the_node_is_read() {
    let spec = load_valid(&here("good/full.yaml"));
    let AdGroup { pricing, price, daily_budget, action_rate, .. } = spec.ad_groups[0];
    assert_eq!(pricing, Pricing::PerClick);
    assert_eq!((price, daily_budget), (Micros(2_000_000), Micros(100_100_000)));
    assert_eq!(action_rate, 0.01);
    assert_eq!(spec.ad_groups[0].prediction, Prediction::Off);
    assert_eq!(spec.ad_groups[0].when_stale, WhenStale::Stop);
    let pacing: Vec<Pacing> = spec.ad_groups.iter().map(|ad_group| ad_group.pacing).collect();
    assert_eq!(pacing, [Pacing::Even, Pacing::Asap]);
    let once: Vec<bool> = spec.ad_groups.iter().map(|a| a.once_per_insertion).collect();
    assert_eq!((once, spec.node.dedupe_hours), (vec![false, true], 36));
    assert_eq!((spec.node.budget_alerts, spec.node.gate_silent_minutes), (true, 7));
    assert_eq!((spec.node.build_workers, spec.node.warehouse_workers), (3, 16));
    assert_eq!(spec.ad_groups[1].prediction, Prediction::InFlight);
    assert_eq!(spec.ad_groups[1].horizon_secs, 180);
    assert_eq!(spec.node.feed_interval_ms, 500);
    assert_eq!(spec.node.token, Some(SecretRef::Env("THRONG_TOKEN".into())));
    assert_eq!(spec.node.public_url.as_deref(), Some("https://ads.example.com"));
    assert_eq!(spec.node.allowed_hosts, ["relay", "lookup:7077"]);
    let receivers: Vec<_> =
        spec.node.alerts.iter().map(|a| (a.name.as_str(), a.min_severity, a.retry_hours)).collect();
    let (warning, critical) = (Severity::Warning, Severity::Critical);
    assert_eq!(receivers, [("hooks.example.com", warning, 24), ("on-call", critical, 72)]);
}

#[test]
fn the_checked_form_survives_json() {
    let spec = load_valid(&here("good/full.yaml"));
    let json = serde_json::to_string(&spec).unwrap();
    assert!(json.contains("env:META_TOKEN"));
    assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
    let files = load_valid(&here("good/gcs.yaml"));
    let json = serde_json::to_string(&files).unwrap();
    assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), files);
}

#[test]
fn a_change_of_the_source_is_a_schedule_of_its_own() {
    let audience = "{ name: a, sql: SELECT 1, schedule: { on: source_changed } }";
    let spec = load_text(&format!("version: 1\naudiences:\n  - {audience}\n"));
    let trigger = SourceTrigger { poll_secs: 60, success_file: None };
    assert_eq!(spec.audiences[0].schedule, None);
    assert_eq!(spec.audiences[0].source_trigger, Some(trigger));
    // A stored spec with other limits is refused.
    let json = serde_json::to_string(&spec).unwrap();
    let wrong = json.replace("\"poll_secs\":60", "\"poll_secs\":1");
    assert_ne!(wrong, json);
    assert!(serde_json::from_str::<Spec>(&wrong).is_err());
}

#[test]
fn an_age_of_a_stored_spec_has_the_limits_of_the_language() {
    let audience = "{ name: a, sql: SELECT 1, max_age_hours: 8760 }";
    let spec = load_text(&format!("version: 1\naudiences:\n  - {audience}\n"));
    let json = serde_json::to_string(&spec).unwrap();
    let wrong = json.replace("\"max_age_hours\":8760", "\"max_age_hours\":8761");
    assert_ne!(wrong, json);
    assert!(serde_json::from_str::<Spec>(&wrong).is_err());
    // One that an earlier version has stored has none.
    let earlier = json.replace("\"max_age_hours\":8760,", "");
    assert_eq!(serde_json::from_str::<Spec>(&earlier).unwrap().audiences[0].max_age_hours, None);
}

#[test]
fn a_warehouse_is_read_and_survives_json() {
    let spec = load_valid(&here("good/bigquery.yaml"));
    let [app, pod] = spec.warehouses.as_slice() else { panic!() };
    let WarehouseSettings::Bigquery(app) = &app.settings else { panic!() };
    assert_eq!((app.project.as_str(), app.location.as_str()), ("app-prod", "asia-south1"));
    assert_eq!(app.api_url(), "http://127.0.0.1:9050");
    assert_eq!(app.price_per_tib, Some(Micros(6_250_000)));
    assert!(matches!(&app.credentials, Some(SecretRef::File(path)) if path.is_absolute()));
    let WarehouseSettings::Bigquery(pod) = &pod.settings else { panic!() };
    assert_eq!(pod.api_url(), "https://bigquery.googleapis.com");
    assert_eq!(pod.token_url(), "http://metadata.google.internal");
    assert_eq!(
        (pod.maximum_bytes_billed, pod.page_rows, pod.timeout_secs),
        (1 << 40, 100_000, 21_600)
    );
    assert_eq!(spec.sources.len(), 1);
    assert_eq!(spec.audiences[0].source.as_ref().map(|name| name.as_str()), Some("app"));
    let json = serde_json::to_value(&spec).unwrap();
    assert_eq!(json["warehouses"][0]["type"], "bigquery");
    assert_eq!(serde_json::from_value::<Spec>(json.clone()).unwrap(), spec);
    let mut wrong = json;
    wrong["audiences"][0]["source"] = "shop".into();
    assert!(serde_json::from_value::<Spec>(wrong).is_err());
}

#[test]
fn the_servers_of_a_warehouse_are_within_the_limits_of_its_spec() {
    let spec = load_valid(&here("good/bigquery.yaml"));
    let mut limits = Limits::default();
    assert!(!limits.disallowed(&spec).is_empty());
    limits.allow_spec(&spec);
    assert_eq!(limits.disallowed(&spec), Vec::<String>::new());
    let lines = limits.lines();
    assert!(lines.contains(&"host metadata.google.internal:80".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with("key.json@oauth2.googleapis.com")), "{lines:?}");
}

#[test]
fn a_postgres_server_is_read_and_survives_json() {
    let spec = load_valid(&here("good/postgres.yaml"));
    let [shop, local] = spec.warehouses.as_slice() else { panic!() };
    let WarehouseSettings::Postgres(shop) = &shop.settings else { panic!() };
    assert_eq!(shop.server().unwrap().to_string(), "db.example:6432");
    assert_eq!((shop.tls, shop.insecure, shop.page_rows), (false, true, 1_000));
    assert_eq!((shop.statement_timeout_secs, shop.timeout_secs), (900, 7_200));
    assert!(matches!(&shop.password, Some(SecretRef::Env(name)) if name == "SHOP_PASSWORD"));
    let WarehouseSettings::Postgres(local) = &local.settings else { panic!() };
    assert_eq!((local.port, local.tls, local.page_rows), (5_432, true, 10_000));
    assert_eq!((local.statement_timeout_secs, local.timeout_secs), (3_600, 21_600));
    assert_eq!((shop.key_range_rows, local.key_range_rows), (Some(500_000), None));
    let json = serde_json::to_value(&spec).unwrap();
    assert_eq!(json["warehouses"][0]["type"], "postgres");
    assert_eq!(serde_json::from_value::<Spec>(json.clone()).unwrap(), spec);
    let mut wrong = json;
    wrong["warehouses"][0]["insecure"] = false.into();
    assert!(serde_json::from_value::<Spec>(wrong).is_err());
    let mut limits = Limits::default();
    limits.allow_spec(&spec);
    let lines = limits.lines();
    assert_eq!(lines, ["secret env:SHOP_PASSWORD@db.example:6432", "host localhost:5432"]);
}

/// As ledgers of earlier versions store it.
#[test]
fn a_destination_is_read_from_the_json_of_an_earlier_version() {
    let json = serde_json::json!({
        "name": "d", "platform": "meta", "account": "act_7", "access_token": "env:T",
        "app_secret": null, "base_url": null, "api_version": "v25.0",
    });
    let read: throng_spec::Destination = serde_json::from_value(json).unwrap();
    assert_eq!((read.account().as_str(), read.max_failed_checks_percent), ("meta/7", 20));
    let unknown = serde_json::json!({ "name": "d", "platform": "fax", "account": "1" });
    assert!(serde_json::from_value::<throng_spec::Destination>(unknown).is_err());
}

#[test]
fn a_destination_for_files_is_read() {
    let spec = load_valid(&here("good/gcs.yaml"));
    let Platform::File(file) = &spec.destinations[0].platform else { panic!() };
    assert_eq!((file.format, file.gzip, &file.root), (FileFormat::Jsonl, true, &None));
    assert!(file.folder.is_absolute() && file.folder.ends_with("good"));
    assert_eq!(spec.destinations[0].account(), format!("file/{}", file.folder.display()));
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a/../b");
    std::fs::create_dir(dir.path().join("b")).unwrap();
    let spec = load_text(&format!(
        "version: 1\ndestinations: [{{ name: d, platform: file, folder: \"{}\" }}]\n",
        folder.display()
    ));
    let Platform::File(file) = &spec.destinations[0].platform else { panic!() };
    assert_eq!((file.format, file.gzip), (FileFormat::Csv, false));
    assert_eq!(file.folder, dir.path().join("b"));
}

#[test]
fn the_shipped_examples_are_valid() {
    let spec = load_valid(&here("../../../../examples/cdnow"));
    assert_eq!((spec.audiences.len(), spec.syncs.len(), spec.destinations.len()), (11, 6, 2));
    assert!(spec.ad_groups.len() > 100);
    let spec = load_valid(&here("../../../../examples/ad-network"));
    assert_eq!((spec.ad_groups.len(), spec.node.budget_alerts), (8, true));
}

#[test]
fn the_example_of_an_agency_is_valid() {
    let spec = load_valid(&here("../../../../examples/agency"));
    assert_eq!((spec.audience_templates.len(), spec.sync_templates.len()), (3, 3));
    assert_eq!((spec.schemas.len(), spec.destinations.len()), (3, 3));
}

#[test]
fn backends_and_roles_are_read() {
    let node = load_valid(&here("good/full.yaml")).node;
    assert_eq!(node.written_log_partitions(), Some(2));
    assert_eq!(NodeSettings::default().written_log_partitions(), None);
    let stored = serde_json::to_string(&node).unwrap();
    let stored: NodeSettings = serde_json::from_str(&stored).unwrap();
    assert_eq!(stored, node, "whether it was written makes no difference between settings");
    assert_eq!((stored.log_partitions, stored.written_log_partitions()), (2, None));
    let default = serde_json::to_value(NodeSettings::default()).unwrap();
    assert_eq!(default.get("warehouse_workers"), None, "as in specs of earlier versions");
    assert_eq!(serde_json::from_value::<NodeSettings>(default).unwrap().warehouse_workers, 4);
    assert!(node.is_shared());
    assert_eq!(node.roles, [Role::Api, Role::Aggregate]);
    let LogSettings::Kafka(kafka) = node.log else { panic!() };
    assert_eq!(
        (kafka.brokers.as_str(), kafka.prefix.as_str()),
        ("kafka-1:9093,kafka-2:9093", "ads")
    );
    assert!(kafka.tls && kafka.ca_file.is_some_and(|path| path.is_absolute()));
    assert_eq!(
        (kafka.sasl.unwrap().mechanism.as_str(), kafka.session_ms),
        ("SCRAM-SHA-256", 3_000)
    );
    let ObjectsSettings::Bucket(bucket) = node.objects else { panic!() };
    assert_eq!((bucket.name.as_str(), bucket.prefix.as_str()), ("ads", "throng"));
    let ServiceSettings::S3 { endpoint, region, keys, ca_file, .. } = bucket.service else {
        panic!()
    };
    assert!(ca_file.is_some_and(|path| path.is_absolute()));
    assert_eq!(endpoint.as_deref(), Some("https://s3.example.com"));
    assert_eq!((region.as_str(), keys.is_some()), ("eu-west-1", true));
    let node = load_valid(&here("good/gcs.yaml")).node;
    assert_eq!(node.roles, Role::ALL);
    let ObjectsSettings::Bucket(bucket) = node.objects else { panic!() };
    assert!(matches!(
        bucket.service,
        ServiceSettings::Gcs { service_account: Some(SecretRef::File(_)) }
    ));
}

#[test]
fn the_smallest_spec_has_the_defaults() {
    assert_eq!(load_text("version: 1\nsyncs:\n").node, NodeSettings::default());
}

#[test]
fn other_tools_names_of_ad_groups_are_accepted() {
    let top = "version: 1\n\
        advertisers: [{ name: a, currency: EUR, time_zone: UTC }]\n\
        campaigns: [{ name: c, advertiser: a }]\n";
    for section in ["line_items", "ad_sets"] {
        let group = "[{ name: g, campaign: c, per: impression, price: 1, daily_budget: 1 }]";
        assert_eq!(load_text(&format!("{top}{section}: {group}\n")).ad_groups.len(), 1);
    }
}

#[test]
fn thousands_of_syncs_may_share_their_identifiers() {
    let mut text = "version: 1\ndestinations: \
        [{ name: d, platform: meta, account: act_1, access_token: env:T }]\naudiences:\n"
        .to_owned();
    for n in 0..2000 {
        text += &format!("  - {{ name: a{n}, sql: SELECT 1 }}\n");
    }
    text += "syncs:\n";
    for n in 0..2000 {
        let identifiers = match n {
            0 => "&i { key: id, sql: SELECT 1, columns: { e: EMAIL } }",
            _ => "*i",
        };
        text += &format!(
            "  - {{ name: s{n}, audience: a{n}, destination: d, identifiers: {identifiers} }}\n"
        );
    }
    assert_eq!(load_text(&text).syncs.len(), 2000);
}

/// A truncated text must not cause a panic.
#[test]
fn a_spec_truncated_anywhere_is_a_spec_or_problems() {
    let whole = std::fs::read(here("good/full.yaml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("throng.yaml");
    let mut valid = 0;
    for length in 0..=whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        match load(&file) {
            Ok(_) => valid += 1,
            Err(problems) => assert!(!problems.is_empty()),
        }
    }
    assert!(valid > 0);
}

/// The same for a text with one byte changed.
#[test]
fn a_spec_with_any_byte_changed_is_a_spec_or_problems() {
    let whole = std::fs::read(here("good/full.yaml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("throng.yaml");
    for at in (0..whole.len()).step_by(3) {
        let mut changed = whole.clone();
        changed[at] = b"\"'{[*&!|>:-#\t\xff\0%"[at % 16];
        std::fs::write(&file, changed).unwrap();
        let _ = load(&file);
    }
}

#[test]
fn encryption_and_caps_of_connections_are_read() {
    let node = load_valid(&here("good/full.yaml")).node;
    let tls = node.tls.unwrap();
    assert!(tls.cert_file.ends_with("good/tls/node.pem") && tls.cert_file.is_absolute());
    assert!(tls.key_file.ends_with("good/tls/node.key") && tls.key_file.is_absolute());
    assert_eq!((node.connections.total, node.connections.per_address), (4000, 500));
    assert!(load_valid(&here("good/gcs.yaml")).node.insecure);
}

#[test]
fn connections_on_this_machine_need_not_be_encrypted() {
    let spec = load_text(
        "version: 1\n\
         destinations: [{ name: d, platform: meta, account: act_1, access_token: env:T, base_url: \"http://localhost:7080\" }]\n\
         node:\n  listen: 127.0.0.1:0\n  log: kafka\n  kafka: { brokers: \"localhost:9092,[::1]:9092\", sasl_mechanism: PLAIN, username: u, password: env:P }\n\
         \x20 objects: s3\n  bucket: { name: b, endpoint: \"http://127.0.0.1:7070\" }\n",
    );
    assert!(!spec.node.insecure);
}

#[test]
fn the_default_cap_of_one_address_is_at_most_the_total() {
    let spec = load_text("version: 1\nnode: { connections: { total: 100 } }\n");
    assert_eq!((spec.node.connections.total, spec.node.connections.per_address), (100, 100));
}

#[test]
fn templates_are_read_and_make_nothing_by_themselves() {
    let spec = load_valid(&here("good/templates.yaml"));
    let names: Vec<_> = spec.audiences.iter().map(|audience| audience.name.as_str()).collect();
    assert_eq!(names, ["all-buyers"]);
    let [buyers] = spec.audience_templates.as_slice() else { panic!() };
    assert_eq!(buyers.name.as_str(), "{region}-buyers");
    assert_eq!(buyers.name.columns().collect::<Vec<_>>(), ["region"]);
    let for_each = &buyers.for_each;
    assert_eq!(for_each.sql, "SELECT DISTINCT region, title FROM shop.regions");
    assert_eq!((for_each.max_rows, for_each.max_removed_percent), (500, 5));
    assert_eq!(for_each.when_removed, WhenRemoved::Archive);
    assert!(for_each.schedule.is_some());
    let [sync] = spec.sync_templates.as_slice() else { panic!() };
    assert_eq!(sync.audience.as_str(), "{region}-buyers");
    assert_eq!(sync.destination.as_str(), "meta-us");
    assert_eq!((sync.for_each.max_rows, sync.for_each.max_removed_percent), (10_000, 10));
    assert_eq!(sync.for_each.when_removed, WhenRemoved::Hold);
    // No row of a template can have this name.
    let text = std::fs::read_to_string(here("good/templates.yaml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("throng.yaml");
    std::fs::write(&file, text.replace("[emea-buyers]", "[emea-visitors]")).unwrap();
    let problems = load(&file).unwrap_err();
    assert_eq!(problems[0].message, "there is no audience named `emea-visitors`");
}
