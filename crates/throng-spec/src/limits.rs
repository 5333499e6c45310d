//! What a spec may touch that did not come from whoever runs the node: source folders, folders of
//! destinations, secrets and the servers that they are sent to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::{HostPort, MetaAccount, NodeSettings, Platform, SecretRef, Source, Spec};

/// Who a spec comes from.
#[derive(Debug, Clone)]
pub enum Access {
    /// From whoever runs this process: it may name anything.
    Operator,
    /// From the network.
    Limited {
        /// What it may name.
        limits: Arc<Limits>,
        /// The settings that the node runs with, which it cannot change.
        running: Box<NodeSettings>,
    },
}

/// A folder that sources, or files of destinations, may lie in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Folder {
    /// Absolute, as it was written.
    path: PathBuf,
    /// What it leads to must lie beneath this folder; usually the same.
    root: PathBuf,
}

/// What a spec that comes over the network may name. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    folders: BTreeSet<Folder>,
    destination_folders: BTreeSet<Folder>,
    secrets: BTreeMap<SecretRef, BTreeSet<HostPort>>,
    hosts: BTreeSet<HostPort>,
}

/// Why a folder may not be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FolderRefusal {
    /// It lies in no folder that is allowed. The file system was not asked.
    Outside,
    /// It is written beneath an allowed folder and leads out of it.
    LeadsOut,
    /// There is no such folder.
    Missing,
}

impl Limits {
    /// Allows sources in `folder` and below it. A relative path starts at the working directory.
    pub fn allow_source(&mut self, folder: &Path) {
        let path = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        self.folders.insert(Folder { root: path.clone(), path });
    }

    /// Allows destinations that write files in `folder` and below it. A relative path starts at the
    /// working directory.
    pub fn allow_destination_folder(&mut self, folder: &Path) {
        let path = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let path = without_dots(&path);
        self.destination_folders.insert(Folder { root: path.clone(), path });
    }

    /// Allows that a secret is sent to a server, and with it that a destination is there.
    pub fn allow_secret(&mut self, secret: SecretRef, host: HostPort) {
        self.secrets.entry(secret).or_default().insert(host);
    }

    /// Allows destinations on a server.
    pub fn allow_host(&mut self, host: HostPort) {
        self.hosts.insert(host);
    }

    /// Allows what a spec names: its source folders, its destinations' folders and servers, and each
    /// of their secrets for the server that it is used for.
    pub fn allow_spec(&mut self, spec: &Spec) {
        for Source { path, root, .. } in &spec.sources {
            let root = root.clone().unwrap_or_else(|| path.clone());
            self.folders.insert(Folder { path: path.clone(), root });
        }
        for destination in &spec.destinations {
            match &destination.platform {
                Platform::Meta(meta) => {
                    let Ok(host) = meta.server() else { continue };
                    for secret in meta.secrets() {
                        self.allow_secret(secret.clone(), host.clone());
                    }
                }
                Platform::File(file) => {
                    let path = file.folder.clone();
                    let root = file.root.clone().unwrap_or_else(|| path.clone());
                    self.destination_folders.insert(Folder { path, root });
                }
            }
        }
    }

    /// Allows what `other` allows, too.
    pub fn extend(&mut self, other: &Self) {
        self.folders.extend(other.folders.iter().cloned());
        self.destination_folders.extend(other.destination_folders.iter().cloned());
        self.hosts.extend(other.hosts.iter().cloned());
        for (secret, hosts) in &other.secrets {
            self.secrets.entry(secret.clone()).or_default().extend(hosts.iter().cloned());
        }
    }

    /// What a spec names and these limits do not allow, one line each. Asks no file system.
    pub fn beyond(&self, spec: &Spec) -> Vec<String> {
        let mut named = Self::default();
        named.allow_spec(spec);
        named.folders.retain(|folder| over(&self.folders, &folder.path).next().is_none());
        let written = &self.destination_folders;
        named.destination_folders.retain(|folder| over(written, &folder.path).next().is_none());
        named.secrets.retain(|secret, hosts| {
            hosts.retain(|host| !self.allows_secret(secret, host));
            !hosts.is_empty()
        });
        named.lines()
    }

    /// Every single thing that is allowed, one line each, for logs.
    pub fn lines(&self) -> Vec<String> {
        let folders = self.folders.iter().map(|folder| format!("source {}", folder.path.display()));
        let secrets = self.secrets.iter().flat_map(|(secret, hosts)| {
            hosts.iter().map(move |host| format!("secret {secret}@{host}"))
        });
        let hosts = self.hosts.iter().map(|host| format!("host {host}"));
        let written = &self.destination_folders;
        let written = written.iter().map(|f| format!("destination folder {}", f.path.display()));
        folders.chain(written).chain(secrets).chain(hosts).collect()
    }

    /// Folders that destinations may write to.
    pub fn destination_folders(&self) -> impl Iterator<Item = &Path> {
        self.destination_folders.iter().map(|folder| folder.path.as_path())
    }

    /// Files of secrets that may be sent.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.secrets.keys().filter_map(SecretRef::file)
    }

    /// Sets the folder that each source must not lead out of, where one is allowed that the source
    /// lies in.
    pub fn set_roots(&self, spec: &mut Spec) {
        for source in spec.sources.iter_mut().filter(|source| source.root.is_none()) {
            let mut allowed = over(&self.folders, &source.path);
            let found = allowed.find(|folder| folder.root != source.path);
            source.root = found.map(|folder| folder.root.clone());
        }
    }

    /// The folder that a source at `path` must not lead out of. The file system is asked only about
    /// paths that are allowed by their names.
    pub(crate) fn root_of(&self, path: &Path) -> Result<PathBuf, FolderRefusal> {
        let mut refusal = FolderRefusal::Outside;
        for folder in over(&self.folders, path) {
            let Ok(found) = path.canonicalize() else { return Err(FolderRefusal::Missing) };
            match folder.root.canonicalize() {
                Ok(root) if found.starts_with(&root) => return Ok(folder.root.clone()),
                _ => refusal = FolderRefusal::LeadsOut,
            }
        }
        Err(refusal)
    }

    /// The folder beneath which a destination that writes to `path` follows no symbolic link. As
    /// [`Limits::root_of`], and there may be no link on the way: files are not written through one.
    pub(crate) fn destination_root_of(&self, path: &Path) -> Result<PathBuf, FolderRefusal> {
        let mut refusal = FolderRefusal::Outside;
        for folder in over(&self.destination_folders, path) {
            let Ok(found) = path.canonicalize() else { return Err(FolderRefusal::Missing) };
            let beneath = path.strip_prefix(&folder.root).unwrap_or(path);
            match folder.root.canonicalize() {
                Ok(root) if found == root.join(beneath) => return Ok(folder.root.clone()),
                _ => refusal = FolderRefusal::LeadsOut,
            }
        }
        Err(refusal)
    }

    /// Whether a destination may be on this server.
    pub(crate) fn allows_host(&self, host: &HostPort) -> bool {
        self.hosts.contains(host) || self.secrets.values().any(|hosts| hosts.contains(host))
    }

    /// Whether this secret may be sent to this server.
    pub(crate) fn allows_secret(&self, secret: &SecretRef, host: &HostPort) -> bool {
        self.secrets.get(secret).is_some_and(|hosts| hosts.contains(host))
    }
}

impl MetaAccount {
    /// The references of all its secrets.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        std::iter::once(&self.access_token).chain(&self.app_secret)
    }
}

/// The folders of a set that `path` lies in by its name, the outermost first.
fn over<'f>(
    folders: &'f BTreeSet<Folder>,
    path: &Path,
) -> impl Iterator<Item = &'f Folder> + use<'f> {
    let path = without_dots(path);
    // In the order of a set, a folder comes before what lies in it.
    folders.iter().filter(move |folder| path.starts_with(without_dots(&folder.path)))
}

/// A path without `.` and `..`, by its text alone.
pub(crate) fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
