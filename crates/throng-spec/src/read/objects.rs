//! Sources and audiences.

use std::path::{Path, PathBuf};

use throng_model::{TimeZoneName, TimestampError};
use throng_spec_types::{SqlFault, one_query};

use super::Reader;
use super::fields::{At, Fields, text_of};
use super::references::placeholder_name;
use super::templates::Template;
use super::tree::{Node, Value};
use crate::{
    Audience, AudienceTemplate, BucketUrl, ColumnType, Guard, Location, MAX_SQL_BYTES, NotABucket,
    ObjectKind, Schedule, ScheduleError, Source, SourceTrigger,
};

/// Columns of a source with declared types.
const MAX_COLUMN_TYPES: usize = 1000;

impl Reader {
    pub(super) fn source(&mut self, mut fields: Fields<'_>) {
        let name = self.name(&mut fields, ObjectKind::Source);
        let types = ["files", "bigquery", "postgres"].map(|word| (word, word));
        match self.word(&mut fields, "type", &types, "files") {
            "bigquery" => return self.bigquery(name, fields),
            "postgres" => return self.postgres(name, fields),
            _ => {}
        }
        let mut source = Source {
            name,
            path: self.folder.clone(),
            root: None,
            description: None,
            columns: Vec::new(),
            trim: false,
            header: None,
            bucket: None,
        };
        if let Some((node, at)) = fields.required(self, "path")
            && let Some(text) = self.text(node, &at)
        {
            self.source_path(&mut source, &mut fields, text, &at);
        } else {
            self.no_bucket(&mut fields, false);
        }
        source.description = self.optional_text(&mut fields, "description");
        if let Some((node, at)) = fields.get("columns") {
            source.columns = self.column_types(node, at);
        }
        source.trim = self.switch(&mut fields, "trim");
        source.header = self.header(&mut fields, !source.columns.is_empty());
        fields.done(self);
        self.spec.sources.push(source);
    }

    /// The folder or the bucket of a source.
    fn source_path(&mut self, source: &mut Source, fields: &mut Fields<'_>, text: &str, at: &At) {
        match BucketUrl::parse(text.trim()) {
            None => {
                self.no_bucket(fields, true);
                source.path = self.folder.join(text);
                let before = self.problems.len();
                // First: no error may reveal anything about a folder that may not be read.
                self.admit_source(source, at);
                if self.problems.len() == before {
                    self.check_is_folder(&source.path, text.trim(), at);
                }
            }
            Some(Ok(url)) => {
                source.path = PathBuf::from(url.to_string());
                source.bucket = Some(self.source_bucket(fields, url, at));
            }
            // The message has no part of the URL: it may be a secret.
            Some(Err(NotABucket { message, help })) => {
                self.no_bucket(fields, false);
                self.problem(at, message, Some(help.to_owned()));
            }
        }
    }

    fn header(&mut self, fields: &mut Fields<'_>, has_columns: bool) -> Option<bool> {
        let (node, at) = fields.get("header")?;
        let (message, help) = match node.value {
            Value::Bool(header) if header || has_columns => return Some(header),
            Value::Bool(_) => (
                "without a header the columns have no names",
                "write `columns: { column: text, … }` with all columns in the order of the files",
            ),
            _ => ("`header` is neither true nor false", "write true or false, without quotes"),
        };
        self.problem(&at, message, Some(help.to_owned()));
        None
    }

    fn column_types(&mut self, node: &Node, at: At) -> Vec<(String, ColumnType)> {
        let Value::Map(entries) = &node.value else {
            let message = format!("expected columns, found {}", node.value.kind());
            self.problem(&at, message, Some("write `columns: { column: text, … }`".to_owned()));
            return Vec::new();
        };
        if entries.len() > MAX_COLUMN_TYPES {
            let message = format!("there are more than {MAX_COLUMN_TYPES} columns");
            self.problem(&at, message, Some("declare those that need it".to_owned()));
            return Vec::new();
        }
        // Reports columns that are given twice.
        let Some(fields) = Fields::open(self, node, at) else { return Vec::new() };
        let mut columns: Vec<(String, ColumnType)> = Vec::new();
        for entry in entries {
            let at = fields.at.key(entry).at(&entry.node);
            let Some(text) = self.text(&entry.node, &at) else { continue };
            let Ok(of) = text.parse() else {
                let message = format!("{text} is not a type of a column");
                self.problem(&at, message, Some(ColumnType::HELP.to_owned()));
                continue;
            };
            let lower = entry.key.to_lowercase();
            if columns.iter().any(|(name, _)| *name != entry.key && name.to_lowercase() == lower) {
                let help = "columns that differ in case only are one column: keep one of them";
                let message = format!("the column {} is declared twice", entry.key);
                self.problem(&at, message, Some(help.to_owned()));
            }
            columns.push((entry.key.clone(), of));
        }
        columns
    }

    /// Checks that the path is a folder.
    pub(super) fn check_is_folder(&mut self, path: &Path, shown: &str, at: &At) {
        let (message, help) = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => return,
            Ok(_) => ("the path is a file", "name the folder of the file"),
            Err(_) => {
                ("there is no such folder", "a path is relative to the folder of the spec file")
            }
        };
        self.problem(at, format!("{message}: {shown}"), Some(help.to_owned()));
    }

    pub(super) fn audience(&mut self, mut fields: Fields<'_>) {
        let template = self.template(&mut fields, ObjectKind::Audience);
        let name = match &template {
            Some(_) => placeholder_name(),
            None => self.name(&mut fields, ObjectKind::Audience),
        };
        let (mut description, mut descriptions) = (None, None);
        match &template {
            Some(_) => descriptions = self.pattern(&mut fields, "description"),
            None => description = self.optional_text(&mut fields, "description"),
        }
        let source = self.audience_source(&mut fields, template.is_some());
        let (sql, sql_at) = self.sql(&mut fields);
        let key = self.optional_text(&mut fields, "key");
        let schedule = fields.get("schedule").map(|(node, at)| self.schedule(node, at));
        let (schedule, source_trigger) = schedule.unwrap_or_default();
        let max_age_hours = fields.get("max_age_hours");
        let max_age_hours = max_age_hours
            .and_then(|(node, at)| self.whole(node, &at, "max_age_hours", &(1..=8_760)));
        let guard = fields.get("guard").map(|(node, at)| self.guard(node, at)).unwrap_or_default();
        let keep_snapshots = self.integer(&mut fields, "keep_snapshots", 1..=1000, 10);
        fields.done(self);
        let audience = Audience {
            name,
            description,
            source,
            sql,
            key,
            schedule,
            source_trigger,
            max_age_hours,
            guard,
            keep_snapshots,
            sql_at,
            made_from: None,
        };
        match template {
            Some(Template { name, for_each }) => {
                let template =
                    AudienceTemplate { name, description: descriptions, for_each, audience };
                self.spec.audience_templates.push(template);
            }
            None => self.spec.audiences.push(audience),
        }
    }

    /// The required field `sql`, and the position of its text.
    pub(super) fn sql(&mut self, fields: &mut Fields<'_>) -> (String, Location) {
        match fields.required(self, "sql") {
            Some((node, at)) => self.sql_of(node, &at),
            None => {
                let nowhere = Location { file: fields.at.file.to_path_buf(), line: fields.at.line };
                (String::new(), nowhere)
            }
        }
    }

    /// An SQL text, and its position.
    pub(super) fn sql_of(&mut self, node: &Node, at: &At) -> (String, Location) {
        let nowhere = Location { file: at.file.to_path_buf(), line: at.line };
        let Value::Text { text, first_line, in_comment } = &node.value else {
            let message = format!("expected SQL, found {}", node.value.kind());
            let help = "write `sql: |` and the SELECT below it, indented".to_owned();
            self.problem(at, message, Some(help));
            return (String::new(), nowhere);
        };
        if let Some((line, word)) = in_comment {
            let message = format!(
                "YAML joins the lines of this SQL, so that `{word}` in line {line} is a part of the comment before it"
            );
            let help =
                "write `sql: |` and the SELECT below it, indented: then its lines stay apart";
            self.problem(at, message, Some(help.to_owned()));
            return (String::new(), nowhere);
        }
        let (message, help) = match one_query(text) {
            Ok(query) => {
                return (query.to_owned(), Location { line: *first_line, ..nowhere });
            }
            Err(SqlFault::Empty) => {
                ("the SQL is empty".to_owned(), "write a SELECT that yields user keys")
            }
            Err(SqlFault::Several) => (
                "the SQL contains several statements".to_owned(),
                "keep one SELECT; use WITH for steps in between",
            ),
            Err(SqlFault::TooLong) => (
                format!("the SQL is longer than {} KiB", MAX_SQL_BYTES >> 10),
                "put long lists into a table of a source, and join it",
            ),
            Err(SqlFault::NotAQuery(word)) => (
                format!("the SQL begins with `{word}`, not with SELECT"),
                "write a SELECT or WITH … SELECT: specs only read data",
            ),
            Err(SqlFault::Unclosed(what)) => {
                (format!("a {what} in the SQL is not closed"), "close it")
            }
        };
        self.problem(at, message, Some(help.to_owned()));
        (String::new(), nowhere)
    }

    /// The cron pattern and the trigger of a schedule, which has at least one of them.
    pub(super) fn schedule(
        &mut self,
        node: &Node,
        at: At,
    ) -> (Option<Schedule>, Option<SourceTrigger>) {
        if let Value::Text { text, .. } = &node.value {
            let help = match text.trim() {
                "source_changed" => "write `schedule: { on: source_changed }`".to_owned(),
                cron => format!("write `schedule: {{ cron: \"{cron}\" }}`"),
            };
            self.problem(&at, "a schedule has fields: cron and time_zone", Some(help));
            return (None, None);
        }
        let Some(mut fields) = Fields::open(self, node, at) else { return (None, None) };
        let zone = match fields.get("time_zone") {
            Some((node, at)) => self.time_zone(node, &at),
            None => Some(TimeZoneName::utc()),
        };
        let trigger = self.source_trigger(&mut fields);
        let cron = match fields.get("on") {
            Some(_) => fields.get("cron"),
            None => fields.required(self, "cron"),
        };
        let cron = cron.and_then(|(node, at)| Some((self.text(node, &at)?, at)));
        if let (None, Some(_), Some((_, at))) = (&cron, &trigger, fields.get("time_zone")) {
            let help = "add `cron: …`, or remove it".to_owned();
            self.problem(&at, "`time_zone` has no effect without `cron`", Some(help));
        }
        fields.done(self);
        let Some((text, at)) = cron else { return (None, trigger) };
        match Schedule::new(text, zone.clone().unwrap_or_else(TimeZoneName::utc)) {
            Ok(schedule) => (zone.map(|_| schedule), trigger),
            Err(error) => {
                let help = match &error {
                    ScheduleError::Never { .. } => "name a day that this month has",
                    ScheduleError::NotAPattern { .. } => {
                        "write minute, hour, day of month, month and day of week, such as \
                         \"0 3 * * *\" for every day at three"
                    }
                };
                self.problem(&at, error.to_string(), Some(help.to_owned()));
                (None, trigger)
            }
        }
    }

    /// The fields `on`, `poll_secs` and `success_file` of a schedule.
    fn source_trigger(&mut self, fields: &mut Fields<'_>) -> Option<SourceTrigger> {
        let Some((node, at)) = fields.get("on") else {
            for name in ["poll_secs", "success_file"] {
                if let Some((_, at)) = fields.get(name) {
                    let message = format!("`{name}` has no effect without `on`");
                    let help = "add `on: source_changed`, or remove it".to_owned();
                    self.problem(&at, message, Some(help));
                }
            }
            return None;
        };
        let event = text_of(&node.value);
        if event != Some("source_changed") {
            let help = "write `on: source_changed`; for a time, write `cron` instead".to_owned();
            self.problem(&at, "`on` is not an event that starts a refresh", Some(help));
        }
        let poll_secs = self.integer(fields, "poll_secs", SourceTrigger::POLL_SECS, 60);
        let success_file = fields.get("success_file");
        let success_file = success_file.and_then(|(node, at)| Some((self.text(node, &at)?, at)));
        if let Some((text, at)) = &success_file
            && !SourceTrigger::is_file_name(text)
        {
            let help = "write the name of a file without its folder, such as _SUCCESS".to_owned();
            self.problem(at, "`success_file` is not the name of a file", Some(help));
        }
        let success_file = success_file.map(|(text, _)| text.to_owned());
        Some(SourceTrigger { poll_secs, success_file })
    }

    pub(super) fn time_zone(&mut self, node: &Node, at: &At) -> Option<TimeZoneName> {
        let text = self.text(node, at)?;
        let error = match text.parse::<TimeZoneName>() {
            Ok(zone) => return Some(zone),
            Err(error) => error,
        };
        let near = super::suggest::nearest(text, COMMON_ZONES);
        let help = match near {
            _ if matches!(error, TimestampError::DependsOnMachine(_)) => {
                "it is not the same zone on every machine: write an IANA name such as America/New_York"
                    .to_owned()
            }
            Some(near) => format!("did you mean {near}?"),
            None => "write an IANA name such as America/New_York".to_owned(),
        };
        let shown: String = text.chars().take(60).collect();
        self.problem(at, format!("`{shown}` is not a time zone"), Some(help));
        None
    }

    fn guard(&mut self, node: &Node, at: At) -> Guard {
        let default = Guard::default();
        let Some(mut fields) = Fields::open(self, node, at) else { return default };
        let shrink = default.max_shrink_percent;
        let max_shrink_percent = self.integer(&mut fields, "max_shrink_percent", 0..=100, shrink);
        let max_growth_percent = match fields.get("max_growth_percent") {
            Some((Node { value: Value::Text { text, .. }, .. }, _)) if text == "off" => None,
            Some((Node { value: Value::Text { .. }, .. }, at)) => {
                let help = "write a number of percent such as 400, or off".to_owned();
                self.problem(&at, "`max_growth_percent` cannot be this text", Some(help));
                None
            }
            Some((node, at)) => self.whole(node, &at, "max_growth_percent", &(0..=1_000_000)),
            None => default.max_growth_percent,
        };
        let members = default.min_members;
        let min_members = self.integer(&mut fields, "min_members", 0..=100_000_000_000, members);
        fields.done(self);
        Guard { max_shrink_percent, max_growth_percent, min_members }
    }
}

/// For suggestions only; every IANA name is accepted.
const COMMON_ZONES: [&str; 32] = [
    "UTC",
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "America/Toronto",
    "America/Sao_Paulo",
    "America/Mexico_City",
    "Europe/London",
    "Europe/Dublin",
    "Europe/Paris",
    "Europe/Berlin",
    "Europe/Madrid",
    "Europe/Rome",
    "Europe/Amsterdam",
    "Europe/Stockholm",
    "Europe/Warsaw",
    "Europe/Istanbul",
    "Europe/Kyiv",
    "Africa/Cairo",
    "Africa/Lagos",
    "Africa/Johannesburg",
    "Asia/Dubai",
    "Asia/Kolkata",
    "Asia/Singapore",
    "Asia/Hong_Kong",
    "Asia/Shanghai",
    "Asia/Tokyo",
    "Asia/Seoul",
    "Asia/Jakarta",
    "Australia/Sydney",
    "Pacific/Auckland",
];
