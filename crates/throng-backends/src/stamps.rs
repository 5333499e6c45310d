//! Checks that ledger, event log, checkpoints and objects of a data directory belong together.
//!
//! Each store carries a stamp: the directory's identity and a sequence number. The ledger is
//! stamped first and durably, then the other stores, and the ledger never gets the next number
//! before all others have the current one. So at any moment, also after a crash, a store's number
//! is the ledger's or one less. Every start increments the number by two, and a running node by one
//! every few seconds: a store that was copied in another run, or at a moment two increments away,
//! has a number that a crash cannot leave, and the node refuses to start with it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use throng_model::{Entropy as _, SystemEntropy};
use throng_spec::{LogSettings, NodeSettings, ObjectsSettings};
use throng_store::{Ledger, StoreStamp};

use crate::error::{BackendError, StampError};

/// The file of a stamp in a store's folder.
const STAMP_FILE: &str = "stamp.json";

/// What a node does at its start if the ledger of its data directory is missing, or if ledger, log
/// and objects are copies of different moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recovery {
    /// It does not start; the error says what is wrong.
    #[default]
    Refuse,
    /// It creates a new ledger beside the existing log and objects.
    NewLedger,
    /// It uses what exists, and gives all stores the same stamp. Kafka topics of another deployment are its own from
    /// then on, also with a new ledger.
    AcceptMismatch,
}

/// A store in a folder of the data directory.
#[derive(Debug, Clone)]
struct Store {
    name: &'static str,
    folder: PathBuf,
}

impl Store {
    /// The store's stamp; `None` if it has none yet.
    fn read(&self) -> Result<Option<StoreStamp>, BackendError> {
        let path = self.folder.join(STAMP_FILE);
        match throng_fs::read(&path) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(stamp) => Ok(Some(stamp)),
                Err(_) => Err(StampError::Unreadable { path }.into()),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BackendError::io("read", path.display())(error)),
        }
    }
}

/// Replaces a stamp atomically and durably: a half-written stamp would stop the next start.
///
/// # Errors
/// Those of the file system.
pub(crate) fn write_stamp(folder: &Path, stamp: &StoreStamp) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    replace_stamp(folder, stamp)
}

/// Writes the stamp of a store, whose folder exists: one that was removed must not come back with a stamp and nothing
/// else.
fn replace_stamp(folder: &Path, stamp: &StoreStamp) -> io::Result<()> {
    let path = folder.join(STAMP_FILE);
    let temporary = path.with_added_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(stamp)?)?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(folder)?.sync_all()
}

/// The folders that carry stamps, below a data directory.
pub(crate) fn stamped_folders(data_dir: &Path) -> [(&'static str, PathBuf); 3] {
    let objects = data_dir.join("objects");
    [
        ("event log", data_dir.join("log")),
        ("folder of checkpoints", objects.join("checkpoints")),
        ("object storage", objects),
    ]
}

/// Checks that a run, also one that crashed, can have left these stamps together.
fn compare(
    ledger: Option<&StoreStamp>,
    stores: &[(&'static str, Option<StoreStamp>)],
) -> Result<(), StampError> {
    for (store, found) in stores {
        let store = *store;
        match (ledger, found) {
            (None, None) => {}
            (None, Some(found)) => {
                let found = found.sequence;
                return Err(StampError::LedgerOlder { store, found, ledger: 0 });
            }
            // A crash during the very first stamping: the ledger comes first.
            (Some(ledger), None) if ledger.sequence == 1 => {}
            (Some(ledger), None) => {
                return Err(StampError::Older { store, found: 0, ledger: ledger.sequence });
            }
            (Some(ledger), Some(found)) if found.instance != ledger.instance => {
                return Err(StampError::Foreign { store });
            }
            (Some(ledger), Some(found)) => {
                let (found, ledger) = (found.sequence, ledger.sequence);
                if found > ledger {
                    return Err(StampError::LedgerOlder { store, found, ledger });
                }
                if found.saturating_add(1) < ledger {
                    return Err(StampError::Older { store, found, ledger });
                }
            }
        }
    }
    Ok(())
}

/// The stamps of a data directory that a node has open.
#[derive(Debug)]
pub struct Stamps {
    stores: Vec<Store>,
    /// The ledger's.
    current: StoreStamp,
    /// Whether all stores have the ledger's.
    aligned: bool,
}

impl Stamps {
    /// Compares the stores in the data directory with the ledger, and changes nothing. `None` if
    /// log and objects are both shared.
    ///
    /// # Errors
    /// [`BackendError::Stamp`] if they do not belong together.
    pub async fn open(
        data_dir: &Path,
        settings: &NodeSettings,
        ledger: &dyn Ledger,
        recovery: Recovery,
    ) -> Result<Option<Self>, BackendError> {
        let mut stores = Vec::new();
        for (name, folder) in stamped_folders(data_dir) {
            let is_here = match name {
                "event log" => matches!(settings.log, LogSettings::Files),
                _ => matches!(settings.objects, ObjectsSettings::Directory),
            };
            if is_here {
                stores.push(Store { name, folder });
            }
        }
        if stores.is_empty() {
            return Ok(None);
        }
        let of_ledger = ledger.stamp().await?;
        let mut found = Vec::with_capacity(stores.len());
        for store in &stores {
            found.push((
                store.name,
                match (store.read(), recovery) {
                    (Err(_), Recovery::NewLedger | Recovery::AcceptMismatch) => None,
                    (read, _) => read?,
                },
            ));
        }
        if recovery == Recovery::Refuse {
            compare(of_ledger.as_ref(), &found)?;
        }
        let known = of_ledger.iter().chain(found.iter().filter_map(|(_, stamp)| stamp.as_ref()));
        let newest = known.clone().map(|stamp| stamp.sequence).max().unwrap_or(0);
        let instance = known.map(|stamp| stamp.instance.clone()).next().unwrap_or_else(|| {
            format!("{:016x}{:016x}", SystemEntropy.next_u64(), SystemEntropy.next_u64())
        });
        let sequence = match (recovery, of_ledger) {
            (Recovery::Refuse, Some(stamp)) => stamp.sequence,
            // Above every number that a store has, so that a stale copy is never taken for a
            // current one.
            (_, _) => newest.saturating_add(1),
        };
        let current = StoreStamp { instance, sequence };
        Ok(Some(Self { stores, current, aligned: false }))
    }

    /// Increments the number by two, so that a copy of the previous run differs from this one by
    /// more than a crash can leave: after one increment it would look like a crash between ledger
    /// and stores.
    ///
    /// # Errors
    /// [`BackendError`] if the ledger or a folder cannot be written.
    pub async fn start_run(&mut self, ledger: &dyn Ledger) -> Result<(), BackendError> {
        // The first round completes the stamping that a crash cut off.
        for _ in 0..3 {
            let target = self.target();
            ledger.put_stamp(&target).await?;
            self.current = target;
            self.create_folders()
                .and_then(|()| self.write_stores())
                .map_err(|(folder, error)| BackendError::io("stamp", folder.display())(error))?;
        }
        Ok(())
    }

    /// The stamp that the ledger gets next.
    pub(crate) fn target(&self) -> StoreStamp {
        let mut target = self.current.clone();
        if self.aligned {
            target.sequence = target.sequence.saturating_add(1);
        }
        target
    }

    /// Records that this stamp was written to the ledger.
    pub(crate) fn ledger_stamped(&mut self, stamp: StoreStamp) {
        self.aligned &= stamp == self.current;
        self.current = stamp;
    }

    fn create_folders(&self) -> Result<(), (PathBuf, io::Error)> {
        for Store { folder, .. } in &self.stores {
            fs::create_dir_all(folder).map_err(|error| (folder.clone(), error))?;
        }
        Ok(())
    }

    /// Writes the ledger's stamp to the stores. Blocks for a few syncs of the disk.
    pub(crate) fn write_stores(&mut self) -> Result<(), (PathBuf, io::Error)> {
        self.aligned = false;
        for store in &self.stores {
            replace_stamp(&store.folder, &self.current)
                .map_err(|error| (store.folder.clone(), error))?;
        }
        self.aligned = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use throng_ledger::SqliteLedger;

    use super::*;

    fn stamp(sequence: u64) -> Option<StoreStamp> {
        Some(StoreStamp { instance: "a".to_owned(), sequence })
    }

    fn of(ledger: Option<StoreStamp>, log: Option<StoreStamp>) -> Result<(), StampError> {
        compare(ledger.as_ref(), &[("event log", log), ("object storage", ledger.clone())])
    }

    #[test]
    fn only_what_a_crash_can_leave_is_accepted() {
        assert_eq!(of(None, None), Ok(()));
        assert_eq!(of(stamp(7), stamp(7)), Ok(()));
        assert_eq!(of(stamp(7), stamp(6)), Ok(()));
        assert_eq!(of(stamp(1), None), Ok(()));
        assert!(matches!(of(stamp(7), stamp(5)), Err(StampError::Older { found: 5, .. })));
        assert!(matches!(of(stamp(2), None), Err(StampError::Older { found: 0, .. })));
        assert!(matches!(of(stamp(7), stamp(8)), Err(StampError::LedgerOlder { found: 8, .. })));
        assert!(matches!(of(None, stamp(1)), Err(StampError::LedgerOlder { ledger: 0, .. })));
        let other = Some(StoreStamp { instance: "b".to_owned(), sequence: 7 });
        assert!(matches!(of(stamp(7), other), Err(StampError::Foreign { .. })));
    }

    /// The stamps of a data directory: the ledger's and those of the stores.
    type State = (Option<StoreStamp>, Vec<Option<StoreStamp>>);

    async fn state(dir: &Path, ledger: &SqliteLedger) -> State {
        use throng_store::MaintenanceLedger as _;
        let read = |folder: PathBuf| {
            let text = fs::read(folder.join(STAMP_FILE)).ok()?;
            Some(serde_json::from_slice(&text).unwrap())
        };
        let stores = stamped_folders(dir).into_iter().map(|(_, folder)| read(folder)).collect();
        (ledger.stamp().await.unwrap(), stores)
    }

    /// The stamps at any moment of a run are accepted, and no store of one run is accepted with the
    /// stores of another run.
    #[tokio::test]
    async fn stores_of_different_runs_are_never_mixed() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap();
        let settings = NodeSettings::default();
        let names: Vec<&'static str> = stamped_folders(dir.path()).map(|(name, _)| name).to_vec();
        let accepted = |(ledger, stores): &State| {
            let stores: Vec<_> = names.iter().copied().zip(stores.iter().cloned()).collect();
            compare(ledger.as_ref(), &stores).is_ok()
        };
        let mut runs: Vec<State> = Vec::new();
        for ticks in [0, 0, 1, 3] {
            let opened = Stamps::open(dir.path(), &settings, &ledger, Recovery::Refuse).await;
            let mut stamps = opened.unwrap().unwrap();
            stamps.start_run(&ledger).await.unwrap();
            for _ in 0..ticks {
                use throng_store::MaintenanceLedger as _;
                let target = stamps.target();
                ledger.put_stamp(&target).await.unwrap();
                stamps.ledger_stamped(target);
                // A crash before the stores are written.
                assert!(accepted(&state(dir.path(), &ledger).await));
                stamps.write_stores().unwrap();
            }
            runs.push(state(dir.path(), &ledger).await);
        }
        for (a, first) in runs.iter().enumerate() {
            for (b, second) in runs.iter().enumerate() {
                for (store, name) in names.iter().enumerate() {
                    let mut mixed = first.clone();
                    mixed.1[store] = second.1[store].clone();
                    assert_eq!(accepted(&mixed), a == b, "runs {a} and {b}, {name}");
                }
                let ledger_of_other = (second.0.clone(), first.1.clone());
                assert_eq!(accepted(&ledger_of_other), a == b, "runs {a} and {b}, ledger");
            }
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_removed_during_a_run_is_not_created_again() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap();
        let settings = NodeSettings::default();
        let opened = Stamps::open(dir.path(), &settings, &ledger, Recovery::Refuse).await;
        let mut stamps = opened.unwrap().unwrap();
        stamps.start_run(&ledger).await.unwrap();
        let (objects, aside) = (dir.path().join("objects"), dir.path().join("aside"));
        fs::rename(&objects, &aside).unwrap();
        let (folder, error) = stamps.write_stores().unwrap_err();
        assert_eq!((folder, error.kind()), (objects.join("checkpoints"), io::ErrorKind::NotFound));
        assert!(!objects.exists());
        fs::rename(&aside, &objects).unwrap();
        stamps.write_stores().unwrap();
    }
}
