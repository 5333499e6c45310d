//! Files of closed slices of spend as objects, read by every replica of the partition.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use parking_lot::Mutex;
use throng_budget::SliceFile;
use throng_model::Timestamp;
use throng_objects::Objects;

use super::state::PartitionState;
use super::{BudgetsError, files};

pub(super) fn folder(partition: u32) -> String {
    format!("slices/{partition}")
}

pub(super) fn object(partition: u32, name: &str) -> String {
    format!("slices/{partition}/{name}")
}

/// Reads the files of these names.
pub(super) async fn load(
    objects: &dyn Objects,
    partition: u32,
    names: Vec<String>,
) -> Result<HashMap<String, SliceFile>, BudgetsError> {
    let mut loaded = HashMap::with_capacity(names.len());
    for name in names {
        let object = object(partition, &name);
        let file = match files::load(objects, &object, read).await {
            Ok(file) => file,
            Err(source) => return Err(BudgetsError::Slices { object, source }),
        };
        // The name follows from the contents: another file would replace the spend of past days.
        if file.name() != name {
            let source =
                io::Error::new(io::ErrorKind::InvalidData, "its contents do not match its name");
            return Err(BudgetsError::Slices { object, source: source.into() });
        }
        loaded.insert(name, file);
    }
    Ok(loaded)
}

fn read(path: &Path) -> io::Result<SliceFile> {
    let bytes = throng_fs::read(path)?;
    SliceFile::read(&bytes).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}

/// Packs closed slices into files, and writes those that are new, so that the next checkpoint names them.
pub(super) async fn save(
    objects: &dyn Objects,
    partition: u32,
    state: &Mutex<PartitionState>,
    now: Timestamp,
) -> Result<(), BudgetsError> {
    let unsaved = {
        let mut state = state.lock();
        state.engine.pack_closed_slices(now);
        state.engine.unsaved_slice_files()
    };
    // Without the lock, so that events are applied during the writes.
    for (name, content) in unsaved {
        let object = object(partition, &name);
        if let Err(source) = files::store(objects, &object, content).await {
            return Err(BudgetsError::Slices { object, source });
        }
        // Not before it is stored: from here on checkpoints name the file and do not have its
        // contents.
        state.lock().engine.slice_file_saved(&name);
    }
    Ok(())
}
