//! Hashed identifiers from the lake.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use throng_activation::{
    IdentifierQueries, IdentifierRow, IdentifierRows, IdentifierSource, SendClass, SendError,
};
use throng_lake::{IdentifierQuery, IdentifierStream, Lake, LakeError, Model, TableFacts};
use throng_model::{HashSeed, Retry, SyncName};
use throng_spec::Identifiers;

use crate::hashing::HashingSettings;

/// The identifier queries of syncs over the lake.
pub struct LakeQueries {
    /// SQL over the sources of the applied spec.
    pub lake: Arc<ArcSwap<Lake>>,
    /// The deployment's hash seed.
    pub seed: HashSeed,
}

impl std::fmt::Debug for LakeQueries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LakeQueries").finish_non_exhaustive()
    }
}

impl IdentifierQueries for LakeQueries {
    fn query_of(&self, sync: &throng_spec::Sync, platform: &str) -> Arc<dyn IdentifierSource> {
        let keys = sync.identifiers.columns.iter().map(|(_, key)| key.clone()).collect();
        let default_country = sync.identifiers.default_country.clone();
        Arc::new(LakeIdentifiers {
            lake: self.lake.load().in_workspace(sync.name.workspace()),
            sync: sync.name.clone(),
            identifiers: sync.identifiers.clone(),
            settings: HashingSettings { platform: platform.to_owned(), keys, default_country },
            seed: self.seed,
        })
    }
}

/// A sync's identifier query over the lake.
struct LakeIdentifiers {
    /// Over the sources of the sync's workspace.
    lake: Lake,
    sync: SyncName,
    identifiers: Identifiers,
    /// The hashing for the platform.
    settings: HashingSettings,
    seed: HashSeed,
}

fn class(error: &LakeError) -> SendClass {
    match error.retry() {
        Retry::Never => SendClass::Stop,
        Retry::Backoff | Retry::After(_) => SendClass::Retry,
    }
}

#[async_trait]
impl IdentifierSource for LakeIdentifiers {
    async fn open(&self, delivered: &[String]) -> Result<Box<dyn IdentifierRows>, SendError> {
        let hasher = serde_json::to_value(&self.settings)
            .map_err(|_| SendError::local(SendClass::Stop, "cannot encode the columns as JSON"))?;
        let query = IdentifierQuery {
            sql: self.identifiers.sql.clone(),
            key: self.identifiers.key.clone(),
            columns: self.identifiers.columns.iter().map(|(column, _)| column.clone()).collect(),
            hasher,
        };
        let fingerprint = fingerprint(&query);
        let delivered = tables_of(&fingerprint, delivered);
        let opened = self.lake.identifiers_after(&query, delivered, self.seed).await;
        let (tables, stream) = opened.map_err(|error| {
            let at = &self.identifiers.sql_at;
            let place = format!("{}:{}", at.file.display(), at.line);
            let mut words = throng_model::with_causes(&error);
            if let (LakeError::File(_), Some(help)) = (&error, error.help()) {
                words.push_str(&format!("; {help}"));
            }
            let message = format!("sync {}: identifiers.sql at {place}: {words}", self.sync);
            SendError::local(class(&error), message)
        })?;
        let tables = recorded(fingerprint, tables);
        let (sync, settings) = (self.sync.clone(), self.settings.clone());
        Ok(Box::new(LakeRows { stream, sync, settings, tables }))
    }
}

/// The tables of identifiers, as they are recorded with what was delivered.
#[derive(Debug, Serialize, Deserialize)]
struct RecordedTables {
    /// The [`fingerprint`] of the query that has read them.
    query: String,
    tables: Vec<TableFacts>,
}

/// Changes with the SQL and the key of a query, and not with its comments and layout.
fn fingerprint(query: &IdentifierQuery) -> String {
    let (sql, key) = (query.sql.clone(), Some(query.key.clone()));
    Model { sql, key, source: None, parameters: Vec::new() }.fingerprint()
}

/// The tables to record. `None` if they cannot be encoded.
fn recorded(query: String, tables: Vec<TableFacts>) -> Option<String> {
    // Only columns and their types are compared: a table that is emptied removes users, which has a limit of its own.
    let columns = |table: TableFacts| TableFacts {
        has_rows: None,
        doubts: Vec::new(),
        unread: None,
        ..table
    };
    let tables = tables.into_iter().map(columns).collect();
    serde_json::to_string(&RecordedTables { query, tables }).ok()
}

/// The recorded tables of a query. Those of other queries, and what cannot be read, are left out.
fn tables_of(query: &str, recorded: &[String]) -> Vec<Vec<TableFacts>> {
    let read = recorded.iter().filter_map(|text| serde_json::from_str::<RecordedTables>(text).ok());
    let same = read.filter(|of| of.query == query);
    same.map(|of| of.tables).collect()
}

struct LakeRows {
    stream: IdentifierStream,
    sync: SyncName,
    settings: HashingSettings,
    /// The tables to record.
    tables: Option<String>,
}

#[async_trait]
impl IdentifierRows for LakeRows {
    async fn next(&mut self) -> Result<Option<Vec<IdentifierRow>>, SendError> {
        match self.stream.next().await {
            None => Ok(None),
            Some(Ok(rows)) => self.settings.read(rows).map(Some).map_err(|error| {
                SendError::local(SendClass::Stop, format!("sync {}: {error}", self.sync))
            }),
            Some(Err(error)) => {
                // Errors of the lake have no values of the data.
                let message = format!(
                    "sync {}: identifiers.sql was interrupted: {}",
                    self.sync,
                    throng_model::with_causes(&error)
                );
                Err(SendError::local(class(&error), message))
            }
        }
    }

    fn tables(&self) -> Option<String> {
        self.tables.clone()
    }
}

#[cfg(test)]
mod tests {
    use throng_lake::ColumnFacts;

    use super::*;

    fn query(sql: &str, key: &str) -> IdentifierQuery {
        let (sql, key) = (sql.to_owned(), key.to_owned());
        IdentifierQuery { sql, key, columns: Vec::new(), hasher: serde_json::Value::Null }
    }

    #[test]
    fn recorded_tables_are_those_of_the_same_query() {
        let (name, of) = ("user_id".to_owned(), "text".to_owned());
        let facts = TableFacts {
            name: "crm.users".to_owned(),
            has_rows: Some(true),
            columns: vec![ColumnFacts { name, of, declared: false, is_key: true }],
            doubts: vec!["a doubt".to_owned()],
            unread: None,
        };
        let of = |sql, key| fingerprint(&query(sql, key));
        let first = of("SELECT user_id, email FROM crm.users", "user_id");
        let text = recorded(first.clone(), vec![facts.clone()]).unwrap();
        assert!(!text.contains("a doubt"), "{text}");
        let all = [text, "{".to_owned()];
        let same = of("SELECT user_id,  email FROM crm.users -- all", "user_id");
        let found = tables_of(&same, &all);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0][0].has_rows, &found[0][0].columns), (None, &facts.columns));
        for other in [of("SELECT user_id, email FROM crm.people", "user_id"), of("SELECT 1", "id")]
        {
            assert_eq!(tables_of(&other, &all), Vec::<Vec<TableFacts>>::new());
        }
    }
}
