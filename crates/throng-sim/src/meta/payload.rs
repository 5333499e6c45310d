//! `payload` and `session`: the parameters of uploads. Pure.

use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::error::GraphError;
use super::keys::{Column, Form, MatchKey};
use super::members::Row;

/// A request holds at most this many rows.
const MAX_ROWS: usize = 10_000;
/// An answer holds at most this many samples of invalid rows.
const MAX_SAMPLES: usize = 100;

/// A decoded payload. Invalid rows are counted and left out.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) rows: Vec<Row>,
    pub(super) received: u64,
    pub(super) invalid: u64,
    /// The JSON of invalid rows as they were sent, with the reason.
    pub(super) samples: Map<String, Value>,
    /// Cells that should be hashes and are not: a client must never send one.
    pub(super) unhashed_cells: u64,
    /// The family of data sources that the audience must have.
    pub(super) family: String,
    /// The schema's names, joined.
    pub(super) schema: String,
    pub(super) has_value: bool,
}

/// The number of rows of a payload that was not checked yet.
pub(super) fn row_count(payload: &Value) -> u64 {
    payload["data"].as_array().map_or(0, |rows| rows.len() as u64)
}

impl Upload {
    /// Reads and checks a payload.
    ///
    /// # Errors
    /// 100 if the whole payload is invalid, 1/99 for too many rows.
    pub(super) fn parse(payload: &Value) -> Result<Self, GraphError> {
        let wrong = |why: &str| GraphError::parameter("payload", why);
        if !payload.is_object() {
            return Err(wrong("Param payload must be an object with schema and data"));
        }
        let (columns, is_list) = columns_of(&payload["schema"])?;
        check_ids(payload, &columns)?;
        let data = payload["data"]
            .as_array()
            .filter(|rows| !rows.is_empty())
            .ok_or_else(|| wrong("Param payload[data] must be a non-empty array"))?;
        if data.len() > MAX_ROWS {
            return Err(GraphError::too_many_rows());
        }
        let has = |name: &str| columns.iter().any(|column| column.name == name);
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        let mut upload = Self {
            rows: Vec::with_capacity(data.len()),
            received: data.len() as u64,
            invalid: 0,
            samples: Map::new(),
            unhashed_cells: 0,
            family: family_of(&payload["data_source"], is_list),
            schema: names.join(","),
            has_value: has("LOOKALIKE_VALUE"),
        };
        for row in data {
            upload.take_row(row, &columns, is_list)?;
        }
        Ok(upload)
    }

    /// The same counts without rows and samples.
    pub(super) fn without_rows(&self) -> Self {
        Self {
            rows: Vec::new(),
            samples: Map::new(),
            family: self.family.clone(),
            schema: self.schema.clone(),
            ..*self
        }
    }

    fn take_row(
        &mut self,
        row: &Value,
        columns: &[Column],
        is_list: bool,
    ) -> Result<(), GraphError> {
        let cells = match row {
            Value::Array(cells) => cells.as_slice(),
            // A row without brackets requires a schema without brackets.
            single if !is_list => std::slice::from_ref(single),
            _ => return Err(GraphError::arity()),
        };
        if cells.len() != columns.len() {
            return Err(GraphError::arity());
        }
        let texts: Vec<String> = cells.iter().map(cell_text).collect();
        let unhashed = columns.iter().zip(&texts).filter(|(column, text)| {
            column.form == Form::Hash && !text.is_empty() && !column.form.fits(text)
        });
        self.unhashed_cells += unhashed.count() as u64;
        match check(columns, &texts) {
            Ok(packed) => self.rows.push(packed),
            Err(reason) => {
                self.invalid += 1;
                if self.samples.len() < MAX_SAMPLES {
                    self.samples.insert(row.to_string(), Value::String(reason));
                }
            }
        }
        Ok(())
    }
}

/// The match keys of a row, or the reason why it is invalid.
fn check(columns: &[Column], texts: &[String]) -> Result<Row, String> {
    let cells = || columns.iter().zip(texts);
    if cells().any(|(column, text)| column.key == Some(MatchKey::EXTERN_ID) && text.is_empty()) {
        return Err("empty external ID".to_owned());
    }
    if let Some((column, _)) = cells().find(|(c, text)| !text.is_empty() && !c.form.fits(text)) {
        let what = if column.form == Form::Hash { "hash" } else { "value" };
        return Err(format!("invalid {what} in {}", column.name));
    }
    let mut keys: Vec<(MatchKey, &str)> =
        cells().filter_map(|(column, text)| Some((column.key?, text.as_str()))).collect();
    let row = Row::pack(&mut keys);
    if row.is_empty() { Err("empty row".to_owned()) } else { Ok(row) }
}

fn cell_text(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn columns_of(schema: &Value) -> Result<(Vec<Column>, bool), GraphError> {
    let wrong = |why: &str| GraphError::parameter("payload", why);
    let (names, is_list) = match schema {
        Value::String(name) => (vec![name.as_str()], false),
        Value::Array(names) => (names.iter().filter_map(Value::as_str).collect(), true),
        _ => return Err(wrong("Param payload[schema] must be a key or a list of keys")),
    };
    if names.is_empty() || schema.as_array().is_some_and(|list| list.len() != names.len()) {
        return Err(wrong("Param payload[schema] must be a key or a list of keys"));
    }
    let mut columns: Vec<Column> = Vec::with_capacity(names.len());
    for name in names {
        let column = Column::parse(name)
            .ok_or_else(|| wrong("Param payload[schema] has a key that does not exist"))?;
        if columns.contains(&column) {
            return Err(wrong("Param payload[schema] has the same key twice"));
        }
        columns.push(column);
    }
    if columns.iter().all(|column| column.key.is_none()) {
        return Err(wrong("Param payload[schema] has no key to match by"));
    }
    Ok((columns, is_list))
}

/// Checks the ids of apps and pages that some keys require.
fn check_ids(payload: &Value, columns: &[Column]) -> Result<(), GraphError> {
    let count = |list: &str| payload[list].as_array().map_or(0, Vec::len);
    let has = |name: &str| columns.iter().any(|column| column.name == name);
    if (has("UID") || has("APPUID")) && count("app_ids") == 0 {
        return Err(GraphError::parameter("payload", "Param payload[app_ids] must be given"));
    }
    if has("PAGEUID") && count("page_ids") != 1 {
        let why = "Param payload[page_ids] must have exactly one element";
        return Err(GraphError::parameter("payload", why));
    }
    Ok(())
}

fn family_of(data_source: &Value, is_list: bool) -> String {
    let by_schema = if is_list { "MULTI_HASHES" } else { "HASHES_OR_USER_IDS" };
    data_source["sub_type"].as_str().unwrap_or(by_schema).to_owned()
}

/// A session of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionStep {
    pub(super) id: u64,
    pub(super) seq: u64,
    pub(super) last: bool,
}

impl SessionStep {
    /// Reads and checks a session.
    ///
    /// # Errors
    /// 100 for values that are missing or out of range.
    pub(super) fn parse(session: &Value) -> Result<Self, GraphError> {
        let positive = |name: &str| {
            let value = &session[name];
            value
                .as_u64()
                .or_else(|| value.as_str()?.parse().ok())
                .filter(|number| (1..=i64::MAX as u64).contains(number))
                .ok_or_else(|| {
                    let why = format!("Param session[{name}] must be a positive integer");
                    GraphError::parameter("session", &why)
                })
        };
        let last = match &session["last_batch_flag"] {
            Value::Null => false,
            Value::Bool(last) => *last,
            Value::String(text) if text == "true" || text == "false" => text == "true",
            _ => {
                let why = "Param session[last_batch_flag] must be a boolean";
                return Err(GraphError::parameter("session", why));
            }
        };
        Ok(Self { id: positive("session_id")?, seq: positive("batch_seq")?, last })
    }
}

/// The session id of calls without a session. It is not unique, like on the real platform: it depends on
/// account, method and schema.
pub(super) fn implicit_session(account: &str, method: &str, schema: &str) -> u64 {
    xxh3_64(format!("{account}\n{method}\n{schema}").as_bytes()) >> 1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HASH: &str = "f1904cf1a9d73a55fa5de0ac823c4403ded71afd4c3248d00bdcd0866552bb79";

    #[test]
    fn bad_rows_are_sampled_by_their_json() {
        let upload = Upload::parse(&json!({
            "schema": ["EXTERN_ID", "EMAIL"],
            "data": [["1", HASH], ["", HASH], ["2", "mary@example.com"], ["3", ""]],
        }))
        .unwrap();
        assert_eq!((upload.received, upload.invalid, upload.rows.len()), (4, 2, 2));
        assert_eq!(upload.samples[&format!("[\"\",\"{HASH}\"]")], "empty external ID");
        assert_eq!(upload.samples["[\"2\",\"mary@example.com\"]"], "invalid hash in EMAIL");
        assert_eq!(upload.unhashed_cells, 1);
        assert_eq!(upload.family, "MULTI_HASHES");
    }

    #[test]
    fn invalid_payloads_are_refused() {
        for payload in [
            json!("x"),
            json!({"schema": ["EMAIL"]}),
            json!({"schema": ["EMAIL"], "data": []}),
            json!({"schema": [], "data": [[]]}),
            json!({"schema": ["FAX"], "data": [[HASH]]}),
            json!({"schema": ["EMAIL", 7], "data": [[HASH, HASH]]}),
            json!({"schema": ["EMAIL", "EMAIL_SHA256"], "data": [[HASH, HASH]]}),
            json!({"schema": ["LOOKALIKE_VALUE"], "data": [[1]]}),
            json!({"schema": ["EMAIL", "PHONE"], "data": [[HASH, ""], [HASH]]}),
            json!({"schema": ["EMAIL"], "data": [HASH]}),
            json!({"schema": "UID", "data": ["1"]}),
            json!({"schema": ["PAGEUID"], "data": [["1"]], "page_ids": [1, 2]}),
        ] {
            assert_eq!(Upload::parse(&payload).unwrap_err().code, 100, "{payload}");
        }
    }

    #[test]
    fn single_keys_accept_rows_with_and_without_brackets() {
        for data in [json!([HASH]), json!([[HASH]])] {
            let upload = Upload::parse(&json!({"schema": "EMAIL_SHA256", "data": data})).unwrap();
            assert_eq!((upload.rows.len(), upload.family.as_str()), (1, "HASHES_OR_USER_IDS"));
        }
    }

    #[test]
    fn more_than_ten_thousand_rows_are_refused() {
        let rows = |count| json!({"schema": "EMAIL_SHA256", "data": vec![HASH; count]});
        assert_eq!(Upload::parse(&rows(10_000)).unwrap().received, 10_000);
        let error = Upload::parse(&rows(10_001)).unwrap_err();
        assert_eq!((error.code, error.subcode), (1, Some(99)));
    }

    #[test]
    fn sessions_need_positive_numbers() {
        let step = SessionStep::parse(&json!({"session_id": "7", "batch_seq": 1})).unwrap();
        assert_eq!(step, SessionStep { id: 7, seq: 1, last: false });
        for session in [
            json!({"batch_seq": 1}),
            json!({"session_id": 0, "batch_seq": 1}),
            json!({"session_id": 7, "batch_seq": -1}),
            json!({"session_id": 7, "batch_seq": 1, "last_batch_flag": "maybe"}),
        ] {
            assert_eq!(SessionStep::parse(&session).unwrap_err().code, 100, "{session}");
        }
    }
}
