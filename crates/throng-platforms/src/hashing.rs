//! Hashing of identifiers in the query worker, which reads them: the platforms' hashers, and the decoding of the
//! rows that it returns.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use throng_activation::{
    IdentifierRow, InvalidPreparedRow, Reasons, Schema, decode_with_notes, encode_with_notes,
};
use throng_destinations::{Preparation, preparation};
use throng_lake::{HashedRow, Hashers, RowHasher};
use throng_model::{Clock, Personal};

/// All reasons of a platform; `None` if the platform is not known.
pub(super) fn reasons(platform: &str) -> Option<Reasons> {
    preparation(platform).map(|p| Reasons { skips: p.skip_reasons, notes: p.note_reasons })
}

/// The settings of a query's hashing, which are sent to the query worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HashingSettings {
    /// The platform's name.
    pub(super) platform: String,
    /// As in [`Schema`].
    pub(super) keys: Vec<String>,
    /// As in [`Schema`].
    pub(super) default_country: Option<String>,
}

impl HashingSettings {
    /// Decodes the rows that a worker has hashed with these settings.
    pub(super) fn read(
        &self,
        rows: Vec<HashedRow>,
    ) -> Result<Vec<IdentifierRow>, InvalidPreparedRow> {
        let reasons = reasons(&self.platform).ok_or(InvalidPreparedRow)?;
        rows.into_iter()
            .map(|(user, bytes)| {
                let (row, notes) = decode_with_notes(&bytes, self.keys.len(), reasons)?;
                Ok(IdentifierRow { user, row, notes })
            })
            .collect()
    }
}

/// The hashers of all platforms, for the query worker.
struct Platforms<'a> {
    clock: &'a dyn Clock,
}

impl Hashers for Platforms<'_> {
    fn open(&self, settings: &serde_json::Value) -> Result<Box<dyn RowHasher>, String> {
        if settings.is_null() {
            return Ok(Box::new(KeysOnly));
        }
        let settings =
            HashingSettings::deserialize(settings).map_err(|_| "invalid settings of a platform")?;
        let preparation = preparation(&settings.platform)
            .ok_or_else(|| format!("unknown platform {}", settings.platform))?;
        let schema = Schema { keys: settings.keys, default_country: settings.default_country };
        let this_year = u32::from(self.clock.now().year().unsigned_abs());
        Ok(Box::new(Hasher { preparation, schema, this_year }))
    }
}

/// The hasher of queries without identifiers.
struct KeysOnly;

impl RowHasher for KeysOnly {
    fn hash(&mut self, _: &[Option<Personal>], _: &mut Vec<u8>) {}
}

struct Hasher {
    preparation: Preparation,
    schema: Schema,
    /// In UTC, when the query began.
    this_year: u32,
}

impl RowHasher for Hasher {
    fn hash(&mut self, cells: &[Option<Personal>], out: &mut Vec<u8>) {
        let mut notes = Vec::new();
        let row = (self.preparation.prepare)(&self.schema, self.this_year, cells, &mut notes);
        let Preparation { skip_reasons, note_reasons, .. } = self.preparation;
        let reasons = Reasons { skips: skip_reasons, notes: note_reasons };
        // A row that cannot be encoded is sent as invalid bytes, which the parent process reports.
        if encode_with_notes(&row, &notes, reasons, out).is_err() {
            out.clear();
        }
    }
}

/// Runs this process as a query worker until its standard input ends. Programs that start nodes call it at
/// the start of `main` if their first argument is `throng_worker::SUBCOMMAND`. `clock`: by it a year of birth is in the
/// future.
pub fn query_worker(clock: &'static dyn Clock) -> ExitCode {
    throng_lake::worker::main(platforms(clock))
}

/// As [`query_worker`], for a program that can run queries on a cluster.
pub fn query_worker_with_cluster(
    clock: &'static dyn Clock,
    cluster: &'static dyn throng_lake::Cluster,
) -> ExitCode {
    throng_lake::worker::main_with_cluster(platforms(clock), cluster)
}

/// For the rest of the process, which is a query worker.
fn platforms(clock: &'static dyn Clock) -> &'static dyn Hashers {
    let platforms: &'static Platforms<'static> = Box::leak(Box::new(Platforms { clock }));
    platforms
}

#[cfg(test)]
mod tests {
    use throng_activation::{Cell, Skip};
    use throng_model::{HashedIdentifier, ManualClock, Timestamp, UserHash};

    use super::*;

    #[test]
    fn a_year_of_birth_in_the_future_is_refused() {
        let settings = HashingSettings {
            platform: "meta".into(),
            keys: vec!["EMAIL".into(), "DOBY".into()],
            default_country: None,
        };
        let value = serde_json::to_value(&settings).unwrap();
        let clock = ManualClock::new("2026-12-31T23:59:59Z".parse::<Timestamp>().unwrap());
        let mut hasher = Platforms { clock: &clock }.open(&value).unwrap();
        for (year, is_sent) in [("1996", true), ("2026", true), ("2027", false)] {
            let mut bytes = Vec::new();
            let cells = [Personal::new("ann@example.com"), Personal::new(year)].map(Some);
            hasher.hash(&cells, &mut bytes);
            let rows = settings.read(vec![(UserHash(1), bytes.into())]).unwrap();
            assert_eq!(rows[0].row.as_ref().unwrap()[1] != Cell::Empty, is_sent);
        }
    }

    #[test]
    fn decoded_rows_equal_the_prepared_ones() {
        let settings = HashingSettings {
            platform: "meta".into(),
            keys: vec!["EMAIL".into()],
            default_country: None,
        };
        let value = serde_json::to_value(&settings).unwrap();
        let clock = ManualClock::default();
        let platforms = Platforms { clock: &clock };
        let mut hasher = platforms.open(&value).unwrap();
        let mut row = |text: &str| {
            let mut bytes = Vec::new();
            hasher.hash(&[Some(Personal::new(text))], &mut bytes);
            (UserHash(1), bytes.into())
        };
        let rows = settings.read(vec![row(" Ann@Example.com"), row("  ")]).unwrap();
        let ann = HashedIdentifier::of_normalised("ann@example.com");
        assert_eq!(rows[0].row, Ok(vec![Cell::Hashed(ann)].into()));
        assert_eq!(rows[1].row, Err(Skip("no_usable_identifier")));
        assert!(settings.read(vec![(UserHash(1), [9].into())]).is_err());
        assert!(platforms.open(&serde_json::json!({ "platform": "metta" })).is_err());
    }
}
