//! Destinations and syncs.

use throng_model::{AudienceName, DestinationName, FileFormat, SyncMode, SyncName};
use throng_spec_types::max_failed_checks_percent;

use super::access::DestinationAt;
use super::fields::{At, Fields, text_of};
use super::references::placeholder_name;
use super::templates::Template;
use super::tree::{Node, Value};
use super::{Reader, suggest};
use crate::limits::without_dots;
use crate::{
    Adopt, Destination, FileFolder, HostPort, IDENTIFIER_KEYS, Identifiers, Location, MetaSettings,
    ObjectKind, OnRemove, Platform, SecretRef, Sync, SyncTemplate,
};

/// The largest number of columns: no platform accepts more.
const MAX_COLUMNS: usize = 64;

/// Other names for [`IDENTIFIER_KEYS`].
const KEY_SYNONYMS: [(&str, &str); 14] = [
    ("MAIL", "EMAIL"),
    ("E_MAIL", "EMAIL"),
    ("MOBILE", "PHONE"),
    ("FIRST_NAME", "FN"),
    ("LAST_NAME", "LN"),
    ("CITY", "CT"),
    ("STATE", "ST"),
    ("POSTCODE", "ZIP"),
    ("POSTAL_CODE", "ZIP"),
    ("GENDER", "GEN"),
    ("IDFA", "MADID"),
    ("GAID", "MADID"),
    ("EXTERNAL_ID", "EXTERN_ID"),
    ("USER_ID", "EXTERN_ID"),
];

/// Reads the fields of a platform's destinations.
type PlatformReader = fn(&mut Reader, &mut Fields<'_>) -> Platform;

impl Reader {
    pub(super) fn destination(&mut self, mut fields: Fields<'_>) {
        let before = self.problems.len();
        let name = self.name(&mut fields, ObjectKind::Destination);
        fields.required(self, "platform");
        let platforms: [(&str, PlatformReader); 2] = [("meta", Self::meta), ("file", Self::file)];
        let if_wrong: PlatformReader = Self::meta;
        let read = self.word(&mut fields, "platform", &platforms, if_wrong);
        let platform = read(self, &mut fields);
        let usual = max_failed_checks_percent();
        let max_failed_checks_percent =
            self.integer(&mut fields, "max_failed_checks_percent", 0..=100, usual);
        let at = fields.at.clone();
        fields.done(self);
        let destination = Destination { name, platform, max_failed_checks_percent };
        // What replaces an invalid account is not one.
        if self.problems.len() == before {
            self.check_account(&destination, &at);
        }
        self.spec.destinations.push(destination);
    }

    /// The fields of a destination that writes files.
    fn file(&mut self, fields: &mut Fields<'_>) -> Platform {
        let mut file = FileFolder {
            folder: self.folder.clone(),
            root: None,
            format: FileFormat::default(),
            gzip: false,
        };
        if let Some((node, at)) = fields.required(self, "folder")
            && let Some(text) = self.text(node, &at)
        {
            file.folder = without_dots(&self.folder.join(text));
            let before = self.problems.len();
            // First: no error may reveal anything about a folder that may not be written.
            self.admit_destination_folder(&mut file, &at);
            if self.problems.len() == before {
                self.check_is_folder(&file.folder, text.trim(), &at);
            }
        }
        let formats = [("csv", FileFormat::Csv), ("jsonl", FileFormat::Jsonl)];
        file.format = self.word(fields, "format", &formats, FileFormat::default());
        file.gzip = self.switch(fields, "gzip");
        Platform::File(file)
    }

    /// The fields of a destination that is a Meta ad account.
    fn meta(&mut self, fields: &mut Fields<'_>) -> Platform {
        let account = self.account(fields);
        let mut place = |name| fields.get(name).map(|(_, at)| at);
        let (token_at, secret_at) = (place("access_token"), place("app_secret"));
        let host_at = place("base_url").or_else(|| place("platform"));
        let access_token = fields
            .required(self, "access_token")
            .and_then(|(node, at)| self.secret(node, &at, "access_token"));
        let app_secret = self.optional_secret(fields, "app_secret");
        let base_url = self.base_url(fields);
        let place = fields.get("base_url").map(|(_, at)| at);
        let url = base_url.as_deref().zip(place);
        let insecure = self.insecure(fields, url, "the access token and identifiers");
        let api_version = self.api_version(fields);
        let at = fields.at.clone();
        let meta = MetaSettings {
            account,
            access_token: access_token.unwrap_or_else(|| SecretRef::Env("UNSET".to_owned())),
            app_secret,
            base_url,
            insecure,
            api_version,
        };
        let at = DestinationAt {
            host: host_at.unwrap_or_else(|| at.clone()),
            access_token: token_at.unwrap_or_else(|| at.clone()),
            app_secret: secret_at.unwrap_or(at),
        };
        self.admit_destination(&meta, &at);
        Platform::Meta(meta)
    }

    fn account(&mut self, fields: &mut Fields<'_>) -> String {
        let Some((node, at)) = fields.required(self, "account") else { return String::new() };
        let Some(text) = self.text(node, &at) else { return String::new() };
        let digits =
            |text: &str| (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if !text.strip_prefix("act_").is_some_and(digits) {
            let help = if digits(text) {
                format!("write `account: act_{text}`")
            } else {
                "write act_ and the digits of the ad account, such as act_1234567890".to_owned()
            };
            self.problem(&at, "this is not an ad account of meta", Some(help));
        }
        text.to_owned()
    }

    /// The base URL. Messages do not contain it: it may contain a password.
    fn base_url(&mut self, fields: &mut Fields<'_>) -> Option<String> {
        let (node, at) = fields.get("base_url")?;
        let text = self.text(node, &at)?;
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let server = rest.unwrap_or_default().split('/').next().unwrap_or_default();
        let plain = !text.contains(|c: char| c.is_whitespace() || c.is_control());
        if server.is_empty() || !plain {
            let help = "write http://HOST:PORT or https://HOST".to_owned();
            self.problem(&at, "this is not a URL of a server", Some(help));
        } else if server.contains('@') || text.contains(['?', '#']) {
            let help = "leave out user, password, `?…` and `#…`; a token goes to `access_token`";
            self.problem(&at, "a base URL is a server and a path only", Some(help.to_owned()));
        } else if HostPort::of_url(text).is_err() {
            let help = "write http://HOST:PORT or https://HOST".to_owned();
            self.problem(&at, "this is not a URL of a server", Some(help));
        }
        Some(text.trim_end_matches('/').to_owned())
    }

    fn api_version(&mut self, fields: &mut Fields<'_>) -> String {
        let default = "v25.0".to_owned();
        let Some((node, at)) = fields.get("api_version") else { return default };
        let Some(text) = self.text(node, &at) else { return default };
        let numbers = text.strip_prefix('v').and_then(|rest| rest.split_once('.'));
        let number =
            |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if !numbers.is_some_and(|(major, minor)| number(major) && number(minor)) {
            let help = "write a version such as v25.0".to_owned();
            self.problem(&at, "this is not a version of the API", Some(help));
        }
        text.to_owned()
    }

    pub(super) fn sync(&mut self, mut fields: Fields<'_>) {
        let Some(template) = self.template(&mut fields, ObjectKind::Sync) else {
            return self.written_sync(fields);
        };
        let audience =
            self.reference_pattern::<AudienceName>(&mut fields, "audience", ObjectKind::Audience);
        let destination = self.reference_pattern::<DestinationName>(
            &mut fields,
            "destination",
            ObjectKind::Destination,
        );
        let platform_name = self.pattern(&mut fields, "platform_name");
        let unnamed = (placeholder_name(), placeholder_name(), placeholder_name());
        let sync = self.sync_settings(&mut fields, unnamed);
        fields.done(self);
        if let Some(sync) = sync {
            let Template { name, for_each } = template;
            self.spec.sync_templates.push(SyncTemplate {
                name,
                audience,
                destination,
                platform_name,
                for_each,
                sync,
            });
        }
    }

    fn written_sync(&mut self, mut fields: Fields<'_>) {
        let name: SyncName = self.name(&mut fields, ObjectKind::Sync);
        let audience: AudienceName = self.reference(&mut fields, "audience", ObjectKind::Audience);
        let destination: DestinationName =
            self.reference(&mut fields, "destination", ObjectKind::Destination);
        let names = (name.clone(), audience.clone(), destination.clone());
        let sync = self.sync_settings(&mut fields, names);
        let platform_name = self.optional_text(&mut fields, "platform_name");
        let at = fields.at.clone();
        fields.done(self);
        let on_platform =
            platform_name.clone().unwrap_or_else(|| Sync::default_platform_name(&audience));
        self.writes_to(&name, (&destination, on_platform), at);
        self.spec.syncs.extend(sync.map(|sync| Sync { platform_name, ..sync }));
    }

    /// The fields of a sync that are the same for every row of a template.
    fn sync_settings(
        &mut self,
        fields: &mut Fields<'_>,
        (name, audience, destination): (SyncName, AudienceName, DestinationName),
    ) -> Option<Sync> {
        let words =
            [("mirror", SyncMode::Mirror), ("add", SyncMode::Add), ("replace", SyncMode::Replace)];
        let mode = self.word(fields, "mode", &words, SyncMode::Mirror);
        let identifiers =
            fields.required(self, "identifiers").and_then(|(node, at)| self.identifiers(node, at));
        let max_removed_percent = self.integer(fields, "max_removed_percent", 0..=100, 50);
        let batch_rows = self.integer(fields, "batch_rows", 1..=10_000, 10_000);
        let priority = self.integer(fields, "priority", -1_000_000..=1_000_000, 0);
        let words = [("fail", Adopt::Fail), ("replace", Adopt::Replace)];
        let adopt = self.word(fields, "adopt", &words, Adopt::Fail);
        let words =
            [("keep", OnRemove::Keep), ("empty", OnRemove::Empty), ("delete", OnRemove::Delete)];
        let on_remove = self.word(fields, "on_remove", &words, OnRemove::Keep);
        Some(Sync {
            name,
            audience,
            destination,
            mode,
            identifiers: identifiers?,
            max_removed_percent,
            batch_rows,
            priority,
            platform_name: None,
            adopt,
            on_remove,
            made_from: None,
        })
    }

    fn identifiers(&mut self, node: &Node, at: At) -> Option<Identifiers> {
        let mut fields = Fields::open(self, node, at)?;
        let (sql, sql_at): (String, Location) = self.sql(&mut fields);
        let key = self.required_text(&mut fields, "key");
        let columns = fields
            .required(self, "columns")
            .map(|(node, at)| self.columns(node, at))
            .unwrap_or_default();
        let default_country = self.default_country(&mut fields);
        fields.done(self);
        Some(Identifiers { sql, key, columns, default_country, sql_at })
    }

    fn columns(&mut self, node: &Node, at: At) -> Vec<(String, String)> {
        let Value::Map(entries) = &node.value else {
            let message = format!("expected columns, found {}", node.value.kind());
            let help = "write `columns: { column: EMAIL, … }`".to_owned();
            self.problem(&at, message, Some(help));
            return Vec::new();
        };
        if entries.is_empty() {
            let help = "name at least one, such as `{ email: EMAIL }`".to_owned();
            self.problem(&at, "there are no columns", Some(help));
        }
        if entries.len() > MAX_COLUMNS {
            let help = "keep those that the platform accepts".to_owned();
            self.problem(&at, format!("there are more than {MAX_COLUMNS} columns"), Some(help));
            return Vec::new();
        }
        // Reports columns that are given twice.
        Fields::open(self, node, at.clone());
        let mut columns: Vec<(String, String)> = Vec::new();
        for entry in entries {
            let path = format!("{}.{}", at.path, entry.key);
            let at = At { path, ..at.at(&entry.node) };
            let key = text_of(&entry.node.value).unwrap_or_default();
            if !IDENTIFIER_KEYS.contains(&key) {
                self.unknown_key(key, &at);
            } else if let Some((other, _)) =
                columns.iter().find(|(column, other)| other == key && *column != entry.key)
            {
                let message = format!("`{other}` and `{}` are both {key}", entry.key);
                let help = "keep one: the platform accepts each key once per row".to_owned();
                self.problem(&at, message, Some(help));
            }
            columns.push((entry.key.clone(), key.to_owned()));
        }
        columns
    }

    fn unknown_key(&mut self, key: &str, at: &At) {
        let folded = key.to_ascii_uppercase().replace([' ', '-'], "_");
        let near = KEY_SYNONYMS
            .iter()
            .find(|(synonym, _)| *synonym == folded)
            .map(|(_, key)| *key)
            .or_else(|| suggest::nearest(&folded, IDENTIFIER_KEYS));
        let help = match near {
            Some(near) => format!("did you mean {near}?"),
            None => format!("write one of {}", IDENTIFIER_KEYS.join(", ")),
        };
        let shown: String = key.chars().take(40).collect();
        self.problem(at, format!("`{shown}` is not an identifier key"), Some(help));
    }

    fn default_country(&mut self, fields: &mut Fields<'_>) -> Option<String> {
        let (node, at) = fields.get("default_country")?;
        let text = self.text(node, &at)?;
        if text.len() != 2 || !text.bytes().all(|b| b.is_ascii_uppercase()) {
            let help = "write two capital letters (ISO 3166), such as US".to_owned();
            self.problem(&at, "this is not a country", Some(help));
        }
        Some(text.to_owned())
    }
}
