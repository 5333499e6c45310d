//! The settings of the process itself: its roles, and its backends.

use std::net::SocketAddr;

use super::fields::{At, Fields};
use super::tree::{Node, Value};
use super::{Reader, suggest};
use crate::{
    BucketSettings, IsWritten, KafkaSettings, LedgerSettings, LogRetention, LogSettings,
    NodeSettings, ObjectsSettings, Role, SaslSettings,
};

/// The values of `objects`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ObjectStore {
    Directory,
    S3,
    Gcs,
}

impl Reader {
    pub(super) fn node(&mut self, node: &Node, at: At) {
        self.check_single_node(&at);
        let default = NodeSettings::default();
        let Some(mut fields) = Fields::open(self, node, at) else { return };
        let token = self.optional_secret(&mut fields, "token");
        let identifiers_key = self.optional_secret(&mut fields, "identifiers_key");
        let public_url = self.public_url(&mut fields);
        let allowed_hosts = self.allowed_hosts(&mut fields);
        let listen = match fields.get("listen") {
            Some((node, at)) => self.listen(node, &at).unwrap_or(default.listen),
            None => default.listen,
        };
        let tls = self.tls(&mut fields);
        let insecure = self.switch(&mut fields, "insecure");
        self.check_encrypted(listen, tls.as_ref(), insecure, &mut fields);
        let connections = self.connections(&mut fields);
        let roles = self.roles(&mut fields).unwrap_or(default.roles);
        let (ledger, log) = (self.ledger(&mut fields), self.log(&mut fields));
        let objects = self.objects(&mut fields);
        let (memory, bounds) = (default.memory_limit_bytes, 64 << 20..=1 << 50);
        let memory_limit_bytes = self.integer(&mut fields, "memory_limit_bytes", bounds, memory);
        let spill_dir =
            self.optional_text(&mut fields, "spill_dir").map(|path| self.folder.join(path));
        let (lake, lake_bucket) = self.lake(&mut fields);
        let log_retention = self.log_retention(&mut fields, default.log_retention);
        let min_free_disk_bytes = self.min_free_disk_bytes(&mut fields);
        let alerts = self.alerts(&mut fields);
        let silent = default.gate_silent_minutes;
        let settings = NodeSettings {
            listen,
            token,
            identifiers_key,
            tls,
            insecure,
            connections,
            public_url,
            allowed_hosts,
            roles,
            ledger,
            log,
            objects,
            memory_limit_bytes,
            spill_dir,
            lake,
            lake_bucket,
            engine: self.engine(&mut fields),
            query_timeout_secs: self.integer(
                &mut fields,
                "query_timeout_secs",
                1..=604_800,
                default.query_timeout_secs,
            ),
            build_workers: self.integer(&mut fields, "build_workers", 1..=256, 2),
            warehouse_workers: self.integer(&mut fields, "warehouse_workers", 1..=256, 4),
            activation_workers: self.integer(&mut fields, "activation_workers", 1..=256, 4),
            log_partitions: self.integer(&mut fields, "log_partitions", 1..=256, 4),
            log_partitions_are_written: IsWritten(fields.get("log_partitions").is_some()),
            log_retention,
            dedupe_hours: self.integer(&mut fields, "dedupe_hours", 1..=168, 24),
            min_free_disk_bytes,
            feed_interval_ms: self.integer(&mut fields, "feed_interval_ms", 50..=60_000, 1000),
            max_request_bytes: self.integer(
                &mut fields,
                "max_request_bytes",
                1024..=1 << 30,
                default.max_request_bytes,
            ),
            request_timeout_secs: self.integer(&mut fields, "request_timeout_secs", 1..=3600, 30),
            alerts,
            budget_alerts: self.switch(&mut fields, "budget_alerts"),
            gate_silent_minutes: self.integer(&mut fields, "gate_silent_minutes", 1..=30, silent),
        };
        self.check_roles(&settings, &mut fields);
        let settings = self.admit_node(settings, &fields);
        fields.done(self);
        self.spec.node = settings;
    }

    /// The node settings of all files are in one of them.
    fn check_single_node(&mut self, at: &At) {
        let Some(first) = self.node_at.replace(at.clone()) else { return };
        let help = format!(
            "the first is at {}:{}: put all settings there",
            first.file.display(),
            first.line
        );
        self.problem(at, "the node settings are in two files", Some(help));
    }

    fn log_retention(&mut self, fields: &mut Fields<'_>, default: LogRetention) -> LogRetention {
        let (bytes, hours) = (64 << 20..=1 << 50, 1..=8_784);
        LogRetention {
            bytes: self.integer(fields, "log_retention_bytes", bytes, default.bytes),
            hours: self.integer(fields, "log_retention_hours", hours, default.hours),
        }
    }

    /// `None` unless set: the default depends on the size of the disk.
    fn min_free_disk_bytes(&mut self, fields: &mut Fields<'_>) -> Option<u64> {
        let is_set = fields.get("min_free_disk_bytes").is_some();
        let bytes = self.integer(fields, "min_free_disk_bytes", 0..=1 << 50, 0);
        is_set.then_some(bytes)
    }

    fn ledger(&mut self, fields: &mut Fields<'_>) -> LedgerSettings {
        let words = [("sqlite", false), ("postgres", true)];
        let postgres = self.word(fields, "ledger", &words, false);
        let place = fields.get("ledger_url").map(|(_, at)| at);
        let url = self.optional_secret(fields, "ledger_url");
        let connections = self.integer(fields, "ledger_connections", 2..=1000, 10);
        let insecure = self.switch(fields, "ledger_insecure");
        match (postgres, url) {
            (true, Some(url)) => LedgerSettings::Postgres { url, connections, insecure },
            (true, None) => {
                if place.is_none()
                    && let Some((_, at)) = fields.get("ledger")
                {
                    let help = "add `ledger_url: env:NAME` below `node:`; the variable holds \
                                postgres://user:password@host:port/database";
                    let message = "a PostgreSQL ledger needs its URL";
                    self.problem(&at, message, Some(help.to_owned()));
                }
                LedgerSettings::Sqlite
            }
            (false, _) => {
                if let Some(at) = place {
                    let help = "add `ledger: postgres`, or remove the URL".to_owned();
                    self.problem(&at, "a ledger in SQLite has no URL", Some(help));
                }
                LedgerSettings::Sqlite
            }
        }
    }

    fn listen(&mut self, node: &Node, at: &At) -> Option<SocketAddr> {
        let text = self.text(node, at)?;
        let Ok(address) = text.parse::<SocketAddr>() else {
            let shown: String = text.chars().take(60).collect();
            let help = "write an IP address and a port, such as 127.0.0.1:7077".to_owned();
            self.problem(at, format!("`{shown}` is not an address"), Some(help));
            return None;
        };
        Some(address)
    }

    /// `roles: [api, build]`; every role unless set.
    fn roles(&mut self, fields: &mut Fields<'_>) -> Option<Vec<Role>> {
        let (node, at) = fields.get("roles")?;
        let Value::List(items) = &node.value else {
            let help = "write a list, such as `roles: [api, build]`".to_owned();
            self.problem(&at, "the roles are not a list", Some(help));
            return None;
        };
        let mut roles = Vec::new();
        for (place, item) in items.iter().enumerate() {
            let at = at.index(place, item);
            let Some(text) = self.text(item, &at) else { continue };
            match text.parse::<Role>() {
                Ok(role) if !roles.contains(&role) => roles.push(role),
                Ok(_) => {}
                Err(error) => {
                    let known = Role::ALL.map(Role::name);
                    let help = match suggest::nearest(text, known) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("write one of {}", known.join(", ")),
                    };
                    self.problem(&at, error.to_string(), Some(help));
                }
            }
        }
        if items.is_empty() {
            let help = "remove the line for a node with every role".to_owned();
            self.problem(&at, "a node without a role does nothing", Some(help));
        }
        Some(roles).filter(|roles| !roles.is_empty())
    }

    /// A block of settings for one choice of a backend.
    pub(super) fn block<'n>(
        &mut self,
        fields: &mut Fields<'n>,
        name: &'static str,
        chosen: bool,
        choice: &'static str,
        example: &'static str,
    ) -> Option<Fields<'n>> {
        match (chosen, fields.get(name)) {
            (true, Some((node, at))) => Fields::open(self, node, at),
            (true, None) => {
                if let Some((_, at)) = fields.get(choice) {
                    let help = format!("add `{name}:` below `node:`, such as\n{example}");
                    self.problem(&at, format!("this needs the settings node.{name}"), Some(help));
                }
                None
            }
            (false, Some((_, at))) => {
                let help =
                    format!("set node.{choice} to what these settings are for, or remove them");
                self.problem(&at, format!("node.{choice} does not use these settings"), Some(help));
                None
            }
            (false, None) => None,
        }
    }

    fn log(&mut self, fields: &mut Fields<'_>) -> LogSettings {
        let words = [("files", false), ("kafka", true)];
        let kafka = self.word(fields, "log", &words, false);
        let example = "  kafka:\n    brokers: kafka-1:9092,kafka-2:9092";
        let Some(mut block) = self.block(fields, "kafka", kafka, "log", example) else {
            return LogSettings::Files;
        };
        let brokers = self.required_text(&mut block, "brokers");
        let prefix = self.optional_text(&mut block, "prefix");
        let tls = self.switch(&mut block, "tls");
        let ca_file = self.optional_text(&mut block, "ca_file").map(|path| self.folder.join(path));
        let mechanisms = [
            ("PLAIN", "PLAIN"),
            ("SCRAM-SHA-256", "SCRAM-SHA-256"),
            ("SCRAM-SHA-512", "SCRAM-SHA-512"),
        ];
        let mechanism = self.word(&mut block, "sasl_mechanism", &mechanisms, "SCRAM-SHA-512");
        let sasl = self.sasl(&mut block, mechanism);
        let session_ms = self.integer(&mut block, "session_ms", 1_000..=300_000, 6_000);
        let exposes_password = sasl.is_some() && mechanism == "PLAIN" && !tls;
        let insecure = self.insecure_kafka(&mut block, &brokers, exposes_password);
        block.done(self);
        LogSettings::Kafka(KafkaSettings {
            brokers,
            prefix: prefix.unwrap_or_else(|| "throng".to_owned()),
            tls,
            ca_file,
            sasl,
            session_ms,
            insecure,
        })
    }

    /// The user of Kafka. What is set without a user would be ignored: the connection would have no authentication.
    fn sasl(&mut self, block: &mut Fields<'_>, mechanism: &str) -> Option<SaslSettings> {
        let username = self.optional_text(block, "username");
        let password = self.optional_secret(block, "password");
        let [user_at, password_at, mechanism_at] = ["username", "password", "sasl_mechanism"]
            .map(|name| block.get(name).map(|(_, at)| at));
        let (at, message, help) = match (user_at, password_at, mechanism_at) {
            (Some(at), None, _) => {
                (at, "a user of Kafka needs a password", "add `password: env:NAME`")
            }
            (None, Some(at), _) => (
                at,
                "a password of Kafka needs a user",
                "add `username: NAME`, or remove the password",
            ),
            (None, None, Some(at)) => (
                at,
                "a mechanism of SASL needs a user and a password",
                "add `username: NAME` and `password: env:NAME`, or remove the mechanism",
            ),
            // A value that is wrong has its own problem.
            _ => {
                let (username, password) = (username?, password?);
                return Some(SaslSettings { mechanism: mechanism.to_owned(), username, password });
            }
        };
        self.problem(&at, message, Some(help.to_owned()));
        None
    }

    fn objects(&mut self, fields: &mut Fields<'_>) -> ObjectsSettings {
        let words = [
            ("directory", ObjectStore::Directory),
            ("s3", ObjectStore::S3),
            ("gcs", ObjectStore::Gcs),
        ];
        let store = self.word(fields, "objects", &words, ObjectStore::Directory);
        let example = "  bucket:\n    name: my-bucket";
        let chosen = store != ObjectStore::Directory;
        let Some(mut block) = self.block(fields, "bucket", chosen, "objects", example) else {
            return ObjectsSettings::Directory;
        };
        let name = self.required_text(&mut block, "name");
        let prefix = self.optional_text(&mut block, "prefix").unwrap_or_default();
        let cache_bytes = self.integer(&mut block, "cache_bytes", 0..=1 << 50, 10 << 30);
        let service = match store {
            ObjectStore::Gcs => self.gcs(&mut block),
            _ => self.s3(&mut block),
        };
        block.done(self);
        let prefix = prefix.trim_matches('/').to_owned();
        ObjectsSettings::Bucket(BucketSettings { name, prefix, cache_bytes, service })
    }

    /// A node may leave out roles only if all backends are shared: otherwise no other node can run
    /// them.
    fn check_roles(&mut self, settings: &NodeSettings, fields: &mut Fields<'_>) {
        if let Some((_, at)) = fields.get("roles")
            && !settings.is_shared()
            && settings.roles.len() < Role::ALL.len()
        {
            let help =
                "set ledger: postgres, log: kafka and objects: s3 or gcs, or remove the line"
                    .to_owned();
            let message = "a node can leave roles to other nodes only if they share ledger, log \
                           and objects";
            self.problem(&at, message, Some(help));
        }
    }
}
