//! How a refresh is divided into parts, and how the ledger stores them. Pure.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use throng_lake::{ColumnFacts, Inputs, Model, ModelInfo, Rule, ScanPart, TableFacts};
use throng_model::{RefreshId, SHARD_COUNT};
use throng_store::{NewPart, Part, PartKind, PartState};

use super::error::RefreshError;

/// User shards in one part.
pub(super) const SHARDS_PER_PART: usize = 16;

/// What a scan part covers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ScanCovers {
    /// The model that the refresh started with, in the first part only. A spec that is applied
    /// while the refresh runs must not make a snapshot of two models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<Model>,
    /// The tables of the model, in the first part only; `None` in parts that an older version
    /// planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tables: Option<Vec<TableFacts>>,
    /// The files of the model, in the first part only; `None` as with `tables`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) inputs: Option<Inputs>,
    /// The part of the source.
    pub(super) part: ScanPart,
    /// The page of a warehouse's result, instead of a part of a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) page: Option<PageCovers>,
}

/// A page of a warehouse's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PageCovers {
    /// The job: see [`crate::WarehouseJob::attempt`].
    pub(super) attempt: u32,
    /// See [`crate::PageRequest::cursor`].
    pub(super) cursor: Option<serde_json::Value>,
}

/// What a shards part covers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct ShardsCovers {
    /// The first user shard.
    pub(super) first: u8,
    /// The last user shard.
    pub(super) last: u8,
    /// Which users are members, by the model that the refresh started with.
    pub(super) rule: Rule,
}

/// The output of a scan part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ScanOutput {
    /// The object.
    pub(super) object: String,
    pub(super) rows_read: u64,
    pub(super) null_keys: u64,
    /// Rows whose key has white space around it; 0 of a part that an older version ran.
    #[serde(default)]
    pub(super) padded_keys: u64,
    /// What [`throng_part_files::KeyFile::open`] compares with: a complete file can still be that of
    /// another part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) checksum: Option<u64>,
    /// For a page of a warehouse's result: how it continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) page: Option<PageOutput>,
}

/// How a warehouse's result continues after a page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PageOutput {
    /// The cursor of the next page; `None` after the last one.
    pub(super) next: Option<serde_json::Value>,
    /// The rows of the whole result; `None` if only its last page tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) total_rows: Option<u64>,
    /// Its key column; `None` of a page that an older version read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<ColumnFacts>,
}

/// The output of a shards part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ShardsOutput {
    /// The object.
    pub(super) object: String,
    pub(super) members: u64,
    /// What [`throng_part_files::bits::read`] compares with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) checksum: Option<u64>,
}

/// The parts of a refresh: its scans, then the user shards in groups, numbered from `first`.
pub(super) fn plan(
    model: &Model,
    scans: Vec<ScanPart>,
    info: &ModelInfo,
    first: u32,
) -> serde_json::Result<Vec<NewPart>> {
    let mut parts = Vec::with_capacity(scans.len() + SHARD_COUNT / SHARDS_PER_PART);
    for (number, part) in (first..).zip(scans) {
        let is_first = number == first;
        let (model, tables) = is_first.then(|| (model.clone(), info.tables.clone())).unzip();
        let inputs = is_first.then(|| info.inputs.clone());
        let covers = ScanCovers { model, tables, inputs, part, page: None };
        let covers = serde_json::to_value(covers)?;
        parts.push(NewPart { kind: PartKind::Scan, number, covers });
    }
    parts.extend(shards(first + parts.len() as u32, info.rule)?);
    Ok(parts)
}

/// The user shards in groups, numbered from `number`.
pub(super) fn shards(number: u32, rule: Rule) -> serde_json::Result<Vec<NewPart>> {
    let mut parts = Vec::with_capacity(SHARD_COUNT / SHARDS_PER_PART);
    for first in (0..SHARD_COUNT).step_by(SHARDS_PER_PART) {
        let last = first + SHARDS_PER_PART - 1;
        let covers = ShardsCovers { first: first as u8, last: last as u8, rule };
        let (kind, number) = (PartKind::Shards, number + parts.len() as u32);
        parts.push(NewPart { kind, number, covers: serde_json::to_value(covers)? });
    }
    Ok(parts)
}

/// Reads what a part covers, or its output.
pub(super) fn read<T: DeserializeOwned>(
    value: Option<&serde_json::Value>,
) -> Result<T, RefreshError> {
    Ok(T::deserialize(value.unwrap_or(&serde_json::Value::Null))?)
}

/// The attempt of the newest job among the parts; `None` if no warehouse runs the SQL.
pub(super) fn newest_job(recorded: &[Part]) -> Result<Option<u32>, RefreshError> {
    let mut newest = None;
    for part in recorded.iter().filter(|part| part.kind == PartKind::Scan) {
        let covers: ScanCovers = read(Some(&part.covers))?;
        newest = newest.max(covers.page.map(|page| page.attempt));
    }
    Ok(newest)
}

/// The pages of a job that are done, with their outputs, in the order of their parts.
pub(super) fn pages(
    recorded: &[Part],
    attempt: u32,
) -> Result<Vec<(PageCovers, ScanOutput)>, RefreshError> {
    let mut pages = Vec::new();
    for part in recorded.iter().filter(|part| is_done_scan(part)) {
        let covers: ScanCovers = read(Some(&part.covers))?;
        if let Some(page) = covers.page.filter(|page| page.attempt == attempt) {
            pages.push((page, read(part.output.as_ref())?));
        }
    }
    Ok(pages)
}

/// The scans that are done: their numbers and outputs. Of a warehouse's pages only those of the
/// newest job: a builder that has lost its lease may have added one of an earlier job, whose rows
/// are those of another time.
pub(super) fn scan_outputs(recorded: &[Part]) -> Result<Vec<(u32, ScanOutput)>, RefreshError> {
    let newest = newest_job(recorded)?;
    let mut outputs = Vec::new();
    for part in recorded.iter().filter(|part| is_done_scan(part)) {
        let covers: ScanCovers = read(Some(&part.covers))?;
        if covers.page.map(|page| page.attempt) == newest {
            outputs.push((part.number, read(part.output.as_ref())?));
        }
    }
    Ok(outputs)
}

fn is_done_scan(part: &Part) -> bool {
    part.kind == PartKind::Scan && part.state == PartState::Done
}

/// The prefix of the names of a refresh's objects.
pub(super) fn folder(id: RefreshId) -> String {
    format!("refreshes/{id}")
}

/// The file of a scan part. `unique` differs for each try: after a lease has expired two builders
/// may run one part at the same time, and their files need not be the same.
pub(super) fn scan_file(number: u32, unique: u64) -> String {
    format!("scan-{number}-{unique:016x}.keys")
}

/// The file of a shards part; `unique` as with scans.
pub(super) fn shards_file(number: u32, unique: u64) -> String {
    format!("shards-{number}-{unique:016x}.bits")
}

#[cfg(test)]
mod tests {
    use throng_lake::{KeyKind, Shape};

    use super::*;

    #[test]
    fn parts_have_consecutive_numbers_and_cover_every_shard_once() {
        let sql = "SELECT id FROM s.t".into();
        let model = Model { sql, key: None, source: None, parameters: Vec::new() };
        let scan = |path: &str| ScanPart { file: Some(path.into()), planned_files: None };
        let scans = vec![scan("/a"), scan("/b")];
        let info = ModelInfo {
            columns: Vec::new(),
            key_column: "id".into(),
            key_kind: KeyKind::Text,
            estimated_rows: None,
            files: 2,
            fingerprint: model.fingerprint(),
            shape: Shape::FilterOnly,
            rule: Rule::ANY,
            tables: Vec::new(),
            inputs: Inputs::default(),
            warnings: Vec::new(),
        };
        let parts = plan(&model, scans, &info, 5).unwrap();
        assert!(parts.iter().zip(5..).all(|(part, number)| part.number == number));
        let mut shards = Vec::new();
        let mut models = Vec::new();
        for part in parts {
            match part.kind {
                PartKind::Scan => {
                    let covers: ScanCovers = serde_json::from_value(part.covers).unwrap();
                    models.push(covers.model);
                }
                PartKind::Shards => {
                    let covers: ShardsCovers = serde_json::from_value(part.covers).unwrap();
                    shards.extend(covers.first..=covers.last);
                }
            }
        }
        assert_eq!(models, [Some(model), None]);
        assert_eq!(shards, (0..=u8::MAX).collect::<Vec<_>>());
    }
}
