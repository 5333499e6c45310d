//! Operations on the folder of an audience. Every function is one call of the destination: it can be
//! repeated, and the next call repairs what an interrupted one left behind.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use throng_activation::{EnsuredAudience, PlatformSize, SessionStep};
use throng_model::HashedIdentifier;

use super::folder::{Folder, Location};
use super::manifest::{About, Manifest, NamedFile, SessionStart, files_of, line};
use super::marks;
use super::names::{self, ABOUT, CHANGED, LOCK, MANIFEST, SESSION};
use super::request::BatchFile;
use super::response::Failure;

/// Larger than any file except batches; a larger file was written by another program.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Opens the destination's folder, for an audience of this id.
fn open_root(location: &Location, id: &str) -> Result<Folder, Failure> {
    if !names::is_folder(id) {
        return Err(Failure::Refused(
            "the recorded id of the audience is not the name of a folder",
        ));
    }
    location.open().map_err(Failure::Root)
}

/// Opens the folder of an audience that was created before.
fn open(root: &Folder, id: &str) -> Result<Folder, Failure> {
    match root.folder(id)? {
        Some(folder) => Ok(folder),
        None if marks::has(root, id)? => Err(Failure::Missing),
        // Not missing: there is no evidence that it was ever here.
        None => Err(Failure::NotMounted),
    }
}

/// Finds the folder of an audience, or creates it.
pub(super) fn ensure(
    location: &Location,
    name: &str,
    owner: &str,
) -> Result<EnsuredAudience, Failure> {
    let id = names::folder_of(name);
    let root = location.open().map_err(Failure::Root)?;
    let folder = root.create_folder(&id)?;
    let _lock = folder.lock()?;
    let ensured = ensure_in(&folder, id, name, owner)?;
    if ensured.own {
        marks::record(&root, &ensured.platform_id)?;
    }
    Ok(ensured)
}

fn ensure_in(
    folder: &Folder,
    id: String,
    name: &str,
    owner: &str,
) -> Result<EnsuredAudience, Failure> {
    if let Some(bytes) = folder.read(ABOUT, MAX_FILE_BYTES)? {
        let about = About::read(&bytes).ok_or(Failure::Damaged(ABOUT))?;
        let own = about.name == name && about.owner == owner;
        // After a crash right after an audience was created, nobody knows that it was.
        let created = own && is_unused(folder)?;
        return Ok(EnsuredAudience { platform_id: id, created, own });
    }
    // A crash after the folder was created leaves only hidden files in it. Other files belong to somebody
    // else.
    if folder.names()?.iter().any(|name| !names::is_hidden(name)) {
        return Ok(EnsuredAudience { platform_id: id, created: false, own: false });
    }
    folder.write(ABOUT, &line(&About::new(name, owner))?)?;
    Ok(EnsuredAudience { platform_id: id, created: true, own: true })
}

/// Whether no batch was ever written to an audience. Consumers may remove files that they have applied, but not
/// the traces of them.
fn is_unused(folder: &Folder) -> Result<bool, Failure> {
    Ok(folder.names()?.iter().all(|name| name == ABOUT || names::is_auxiliary(name)))
}

/// Writes a batch.
pub(super) fn put(location: &Location, batch: &BatchFile) -> Result<(), Failure> {
    let root = open_root(location, &batch.audience)?;
    let folder = open(&root, &batch.audience)?;
    let _lock = folder.lock()?;
    marks::record(&root, &batch.audience)?;
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

fn put_in_session(folder: &Folder, batch: &BatchFile, step: SessionStep) -> Result<(), Failure> {
    let start = SessionStart { session: step.id, run: batch.run };
    if step.seq == 1 {
        folder.write(SESSION, &line(&start)?)?;
    } else {
        let session_file = folder.read(SESSION, SessionStart::MAX_BYTES)?;
        if !session_file.is_some_and(|session_file| start.is_start_of(&session_file)) {
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
    if step.last { close_session(folder, batch, step) } else { Ok(()) }
}

/// Marks the set as complete, and removes what it replaces. The previous set remains until the next one, for
/// consumers that are still reading it. The files are compared with the session first: without that a
/// manifest could list a file that somebody has removed.
///
/// The rows of the session are compared with those that the caller has sent: two tries of one run have the same
/// session id, and a worker that was paused could otherwise close the set of which another try has sent a part.
fn close_session(folder: &Folder, batch: &BatchFile, step: SessionStep) -> Result<(), Failure> {
    let session_file = folder.read(SESSION, MAX_FILE_BYTES)?.ok_or(Failure::SessionLost)?;
    let files = files_of(&session_file).ok_or(Failure::SessionLost)?;
    let written = files.iter().try_fold(0u64, |rows, file| rows.checked_add(file.rows));
    let last_rows = if step.repeated { 0 } else { batch.rows };
    if written.is_none() || written != step.sent_before.checked_add(last_rows) {
        return Err(Failure::SessionLost);
    }
    for file in &files {
        if folder.length(&file.name)? != Some(file.bytes) {
            return Err(Failure::SessionLost);
        }
    }
    let previous = folder.read(MANIFEST, MAX_FILE_BYTES)?.and_then(|bytes| Manifest::read(&bytes));
    // The answer of the first time was lost: the previous set is no longer known, and may still be read.
    let is_repeated = previous.as_ref().is_some_and(|previous| previous.run == batch.run);
    let manifest = Manifest::new(batch.run, batch.columns.clone(), files);
    folder.write(MANIFEST, &line(&manifest)?)?;
    folder.remove(CHANGED)?;
    folder.remove(SESSION)?;
    if is_repeated {
        return Ok(());
    }
    let previous = previous.iter().flat_map(|previous| &previous.files);
    let kept: BTreeSet<&str> =
        manifest.files.iter().chain(previous).map(|file| file.name.as_str()).collect();
    for name in folder.names()? {
        if names::is_file(&name) && !kept.contains(name.as_str()) {
            folder.remove(&name)?;
        }
    }
    Ok(())
}

/// Reads an audience: whether the files of the manifest exist with their lengths, and how many rows they
/// have, unless files were added after the manifest.
pub(super) fn size(location: &Location, id: &str) -> Result<PlatformSize, Failure> {
    let folder = open(&open_root(location, id)?, id)?;
    let Some(bytes) = folder.read(MANIFEST, MAX_FILE_BYTES)? else {
        return Ok(PlatformSize::default());
    };
    let Some(manifest) = Manifest::read(&bytes) else {
        let problem = Some(format!("{MANIFEST} cannot be read"));
        return Ok(PlatformSize { problem, ..PlatformSize::default() });
    };
    let mut problem = None;
    for file in &manifest.files {
        let NamedFile { name, bytes, .. } = file;
        match folder.length(name)? {
            Some(length) if length == *bytes => continue,
            Some(length) => problem = Some(format!("{name} has {length} bytes, not {bytes}")),
            None => problem = Some(format!("{name} is in {MANIFEST} and not in the folder")),
        }
        break;
    }
    let whole = problem.is_none() && folder.length(CHANGED)?.is_none();
    let rows = whole.then_some(manifest.rows);
    Ok(PlatformSize { lower: rows, upper: rows, settling: false, problem })
}

/// Removes an audience: every file that was written for it, and its folder if that is empty then.
pub(super) fn delete(location: &Location, id: &str) -> Result<(), Failure> {
    let root = open_root(location, id)?;
    let folder = match open(&root, id) {
        Err(Failure::Missing) => return Ok(()),
        folder => folder?,
    };
    let _lock = folder.lock()?;
    // First, so that no consumer takes the remaining files for a complete set.
    folder.remove(MANIFEST)?;
    for name in folder.names()? {
        if names::is_file(&name) || (names::is_hidden(&name) && name != LOCK) {
            folder.remove(&name)?;
        }
    }
    // By its mark, a call that is repeated knows that the audience was here and is deleted. On a full disk it can be
    // written only now, and until then a repeated call finds the folder.
    marks::record(&root, id)?;
    folder.remove(ABOUT)?;
    folder.remove(LOCK)?;
    Ok(root.remove_folder(id)?)
}

/// Checks that files can be written.
pub(super) fn probe(location: &Location) -> Result<(), Failure> {
    const PROBE: &str = ".throng-probe";
    let root = location.open().map_err(Failure::Root)?;
    root.write(PROBE, b"")?;
    Ok(root.remove(PROBE)?)
}
