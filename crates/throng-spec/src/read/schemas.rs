//! Schemas of ingested records, and the source of their tables.

use std::path::Path;

use throng_model::{SourceName, WorkspaceName};
use throng_schema::{
    Anonymise, Field, FieldType, LAKE_SOURCE, QUARANTINE_DAYS, RecordFormat, Schema,
    workspace_folder,
};

use super::Reader;
use super::fields::{At, Fields, text_of};
use super::tree::Value;
use crate::{ObjectKind, Source, SpecOrigin};

impl Reader {
    pub(super) fn schema(&mut self, mut fields: Fields<'_>) {
        let at = fields.at.clone();
        let before = self.problems.len();
        let formats = RecordFormat::ALL.map(|format| (format.name(), Some(format)));
        let name = self.name(&mut fields, ObjectKind::Schema);
        let description = self.optional_text(&mut fields, "description");
        let format = self.word(&mut fields, "format", &formats, None);
        let key = self.required_text(&mut fields, "key");
        let day = self.optional_text(&mut fields, "day");
        let default_country = self.optional_text(&mut fields, "default_country");
        let quarantine_days =
            self.integer(&mut fields, "quarantine_days", 1..=365, QUARANTINE_DAYS);
        let (list, places) = self.schema_fields(&mut fields);
        fields.done(self);
        let schema = Schema {
            name,
            description,
            format,
            key,
            day,
            default_country,
            quarantine_days,
            fields: list,
        };
        // A setting that could not be read would be reported twice.
        if self.problems.len() == before {
            for problem in schema.problems() {
                let place = problem.field.and_then(|field| places.get(field)).unwrap_or(&at);
                let path = format!("{}.{}", place.path, problem.setting);
                let place = At { path, ..place.clone() };
                self.problem(&place, problem.message, Some(problem.help.to_owned()));
            }
        }
        self.schemas_at.entry(self.workspace.clone()).or_insert(at);
        self.spec.schemas.push(schema);
    }

    /// The fields of a schema, with their positions.
    fn schema_fields(&mut self, fields: &mut Fields<'_>) -> (Vec<Field>, Vec<At>) {
        let (mut list, mut places) = (Vec::new(), Vec::new());
        let Some((node, at)) = fields.required(self, "fields") else { return (list, places) };
        let Value::List(items) = &node.value else {
            let message = format!("expected a list, found {}", node.value.kind());
            let help = "write `fields:` and below it one `- name: …` per column".to_owned();
            self.problem(&at, message, Some(help));
            return (list, places);
        };
        for (index, item) in items.iter().enumerate() {
            let at = at.index(index, item);
            let Some(mut field) = Fields::open(self, item, at.clone()) else { continue };
            let name = self.required_text(&mut field, "name");
            let of = self.required_as(&mut field, "type").unwrap_or(FieldType::Text);
            let required = self.switch(&mut field, "required");
            let (min, max) = (self.bound(&mut field, "min"), self.bound(&mut field, "max"));
            let words = [("hash", Some(Anonymise::Hash)), ("drop", Some(Anonymise::Drop))];
            let anonymise = self.word(&mut field, "anonymise", &words, None);
            field.done(self);
            list.push(Field { name, of, required, min, max, anonymise });
            places.push(at);
        }
        (list, places)
    }

    fn bound(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Option<String> {
        let (node, at) = fields.get(name)?;
        if text_of(&node.value).is_none() {
            let message = format!("`{name}` cannot be {}", node.value.kind());
            let help = "write a number, or a text in quotes such as \"2020-01-01\"".to_owned();
            self.problem(&at, message, Some(help));
            return None;
        }
        self.text(node, &at).map(str::to_owned)
    }

    /// Declares the sources of the tables of schemas, one in each workspace that has some, after all files were
    /// read.
    pub(super) fn add_lake_sources(&mut self) {
        let schemas_at = std::mem::take(&mut self.schemas_at);
        let Some(at) = schemas_at.values().next().cloned() else { return };
        let Some(lake) = self.spec.node.lake.clone() else {
            let help = match self.origin {
                SpecOrigin::Operator => {
                    "add `lake: FOLDER` or `lake: s3://BUCKET/PREFIX` below `node:`"
                }
                SpecOrigin::Limited { .. } => {
                    "its operator restarts the node with `lake: FOLDER` below `node:`"
                }
            };
            let message = "the rows of schemas need a folder or a bucket, and the node has none";
            return self.problem(&at, message, Some(help.to_owned()));
        };
        for (workspace, at) in schemas_at {
            self.add_lake_source(workspace.as_ref(), &lake, &at);
        }
    }

    fn add_lake_source(&mut self, workspace: Option<&WorkspaceName>, lake: &Path, at: &At) {
        let Ok(name) = SourceName::new(LAKE_SOURCE) else { return };
        let name = name.in_workspace(workspace);
        if self.spec.sources.iter().any(|source| source.name == name) {
            let message = format!("the source `{LAKE_SOURCE}` is that of the schemas");
            let help = "rename the source of this name".to_owned();
            return self.problem(at, message, Some(help));
        }
        let mut tables = std::collections::BTreeSet::new();
        let in_sql = |schema: &Schema| schema.name.local().replace(['-', '.'], "_");
        let mut schemas =
            self.spec.schemas.iter().filter(|schema| schema.name.workspace() == name.workspace());
        if let Some(twice) = schemas.find(|schema| !tables.insert(in_sql(schema))) {
            let table = in_sql(twice);
            let message = format!("two schemas are the table `{LAKE_SOURCE}.{table}` in SQL");
            let help = "rename one: SQL sees `-` and `.` as `_`".to_owned();
            return self.problem(at, message, Some(help));
        }
        let folder = workspace_folder(name.workspace());
        let (path, bucket) = (lake.join(folder), self.spec.node.lake_bucket.as_ref());
        let bucket = bucket.map(|bucket| bucket.in_folder(folder));
        self.spec.sources.push(Source {
            name,
            path,
            root: None,
            description: Some("ingested records".to_owned()),
            columns: Vec::new(),
            trim: false,
            header: None,
            bucket,
        });
    }
}
