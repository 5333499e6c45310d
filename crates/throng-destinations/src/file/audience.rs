//! What is done with the folder of an audience. Every function is one call of the destination: it may be
//! repeated, and one that was broken off at any place is put right by the next.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use throng_activation::{Ensured, PlatformSize, SessionStep};
use throng_model::HashedIdentifier;

use super::folder::{Folder, Place};
use super::manifest::{About, Manifest, NamedFile, SessionStart, files_of, line};
use super::names::{self, ABOUT, CHANGED, LOCK, MANIFEST, SESSION};
use super::request::Batch;
use super::response::Failure;

/// More than any file beside the batches has; a larger one was written by somebody else.
const LARGEST: u64 = 256 << 20;

fn open(place: &Place, id: &str) -> Result<Folder, Failure> {
    if !names::is_folder(id) {
        return Err(Failure::Refused(
            "the recorded id of the audience is not the name of a folder",
        ));
    }
    let root = place.open().map_err(Failure::Root)?;
    root.folder(id)?.ok_or(Failure::Gone)
}

/// Makes the folder of an audience, or finds it.
pub(super) fn ensure(place: &Place, name: &str, owner: &str) -> Result<Ensured, Failure> {
    let id = names::folder_of(name);
    let root = place.open().map_err(Failure::Root)?;
    let folder = root.make_folder(&id)?;
    let _lock = folder.lock()?;
    if let Some(bytes) = folder.read(ABOUT, LARGEST)? {
        let about = About::read(&bytes).ok_or(Failure::Damaged(ABOUT))?;
        let own = about.name == name && about.owner == owner;
        return Ok(Ensured { platform_id: id, created: false, own });
    }
    // A crash after the folder was made leaves nothing in it that is not hidden.
    if folder.names()?.iter().any(|name| !names::is_hidden(name)) {
        return Ok(Ensured { platform_id: id, created: false, own: false });
    }
    folder.write(ABOUT, &line(&About::new(name, owner))?)?;
    Ok(Ensured { platform_id: id, created: true, own: true })
}

/// Writes a batch.
pub(super) fn put(place: &Place, batch: &Batch) -> Result<(), Failure> {
    let folder = open(place, &batch.audience)?;
    let _lock = folder.lock()?;
    match batch.session {
        Some(step) => put_in_session(&folder, batch, step),
        None => {
            if folder.length(CHANGED)?.is_none() {
                folder.write(CHANGED, b"")?;
            }
            Ok(folder.write(&batch.name, &batch.bytes)?)
        }
    }
}

fn put_in_session(folder: &Folder, batch: &Batch, step: SessionStep) -> Result<(), Failure> {
    let start = SessionStart { session: step.id, run: batch.run };
    if step.seq == 1 {
        folder.write(SESSION, &line(&start)?)?;
    } else {
        let begun = folder.read(SESSION, SessionStart::LONGEST)?;
        if !begun.is_some_and(|begun| start.begins(&begun)) {
            return Err(Failure::SessionLost);
        }
    }
    if !step.repeated {
        folder.write(&batch.name, &batch.bytes)?;
        let named = NamedFile {
            name: batch.name.clone(),
            rows: batch.rows,
            bytes: batch.bytes.len() as u64,
            sha256: HashedIdentifier(Sha256::digest(&batch.bytes).into()).to_hex(),
        };
        folder.append(SESSION, &line(&named)?)?;
    }
    if step.last { close(folder, batch) } else { Ok(()) }
}

/// Says that the set is complete, and removes what it replaces. The set before stays until the next one,
/// for consumers that are reading it.
fn close(folder: &Folder, batch: &Batch) -> Result<(), Failure> {
    let written = folder.read(SESSION, LARGEST)?.ok_or(Failure::SessionLost)?;
    let files = files_of(&written).ok_or(Failure::SessionLost)?;
    for file in &files {
        if folder.length(&file.name)? != Some(file.bytes) {
            return Err(Failure::SessionLost);
        }
    }
    let before = folder.read(MANIFEST, LARGEST)?.and_then(|bytes| Manifest::read(&bytes));
    let before = before.filter(|before| before.run != batch.run);
    let manifest = Manifest::new(batch.run, batch.columns.clone(), files);
    folder.write(MANIFEST, &line(&manifest)?)?;
    folder.remove(CHANGED)?;
    folder.remove(SESSION)?;
    let before = before.iter().flat_map(|before| &before.files);
    let kept: BTreeSet<&str> =
        manifest.files.iter().chain(before).map(|file| file.name.as_str()).collect();
    for name in folder.names()? {
        if names::is_file(&name) && !kept.contains(name.as_str()) {
            folder.remove(&name)?;
        }
    }
    Ok(())
}

/// What can be read back: whether the files of the manifest are there with their lengths, and how many rows
/// they have, unless files were added since.
pub(super) fn size(place: &Place, id: &str) -> Result<PlatformSize, Failure> {
    let folder = open(place, id)?;
    let Some(bytes) = folder.read(MANIFEST, LARGEST)? else { return Ok(PlatformSize::default()) };
    let Some(manifest) = Manifest::read(&bytes) else {
        let trouble = Some(format!("{MANIFEST} cannot be read"));
        return Ok(PlatformSize { trouble, ..PlatformSize::default() });
    };
    let mut trouble = None;
    for file in &manifest.files {
        let NamedFile { name, bytes, .. } = file;
        match folder.length(name)? {
            Some(length) if length == *bytes => continue,
            Some(length) => trouble = Some(format!("{name} has {length} bytes, not {bytes}")),
            None => trouble = Some(format!("{name} is in {MANIFEST} and not in the folder")),
        }
        break;
    }
    let whole = trouble.is_none() && folder.length(CHANGED)?.is_none();
    let rows = whole.then_some(manifest.rows);
    Ok(PlatformSize { lower: rows, upper: rows, settling: false, trouble })
}

/// Removes an audience: every file that was written for it, and its folder if nothing else is in it.
pub(super) fn delete(place: &Place, id: &str) -> Result<(), Failure> {
    let folder = match open(place, id) {
        Err(Failure::Gone) => return Ok(()),
        folder => folder?,
    };
    let _lock = folder.lock()?;
    // First, so that nobody takes what is left for a complete set.
    folder.remove(MANIFEST)?;
    for name in folder.names()? {
        if names::is_file(&name) || (names::is_hidden(&name) && name != LOCK) {
            folder.remove(&name)?;
        }
    }
    folder.remove(ABOUT)?;
    folder.remove(LOCK)?;
    Ok(place.open().map_err(Failure::Root)?.remove_folder(id)?)
}

/// Whether files can be written.
pub(super) fn probe(place: &Place) -> Result<(), Failure> {
    const PROBE: &str = ".throng-probe";
    let root = place.open().map_err(Failure::Root)?;
    root.write(PROBE, b"")?;
    Ok(root.remove(PROBE)?)
}
