//! How a refresh is divided into parts, and how the ledger stores them. Pure.

use serde::{Deserialize, Serialize};
use throng_lake::{Model, ModelInfo, Rule, ScanPart, TableFacts};
use throng_model::{RefreshId, SHARD_COUNT};
use throng_store::{NewPart, PartKind};

/// User shards in one part.
pub(super) const SHARDS_PER_PART: usize = 16;

/// What a scan part covers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ScanCovers {
    /// The model that the refresh started with, in the first part only. A spec that is applied
    /// while the refresh runs must not make a snapshot of two models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<Model>,
    /// The tables of the model, in the first part only; `None` in parts that an older version
    /// planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tables: Option<Vec<TableFacts>>,
    /// The part of the source.
    pub(super) part: ScanPart,
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
    /// What [`super::files::KeyFile::open`] compares with: a complete file can still be that of
    /// another part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) checksum: Option<u64>,
}

/// The output of a shards part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ShardsOutput {
    /// The object.
    pub(super) object: String,
    pub(super) members: u64,
    /// What [`super::bits::read`] compares with.
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
    let mut add = |kind, covers| {
        parts.push(NewPart { kind, number: first + parts.len() as u32, covers });
    };
    for (index, part) in scans.into_iter().enumerate() {
        let (model, tables) = (index == 0).then(|| (model.clone(), info.tables.clone())).unzip();
        add(PartKind::Scan, serde_json::to_value(ScanCovers { model, tables, part })?);
    }
    for first in (0..SHARD_COUNT).step_by(SHARDS_PER_PART) {
        let last = first + SHARDS_PER_PART - 1;
        let covers = ShardsCovers { first: first as u8, last: last as u8, rule: info.rule };
        add(PartKind::Shards, serde_json::to_value(covers)?);
    }
    Ok(parts)
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
        let model = Model { sql: "SELECT id FROM s.t".into(), key: None, parameters: Vec::new() };
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
