//! Limits of a spec that does not come from the node's operator: the source folders, destination
//! folders, secrets and servers that it may name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::{
    BucketUrl, HostPort, NodeSettings, NotABucket, Platform, SecretRef, ServingStore, Source,
    SourceBucket, Spec,
};

/// Where a spec comes from, which decides what it may name.
#[derive(Debug, Clone)]
pub enum SpecOrigin {
    /// From the operator of this process: it may name anything.
    Operator,
    /// From the network.
    Limited {
        /// The limits of what it may name.
        limits: Arc<Limits>,
        /// The node settings in use, which it cannot change.
        running: Box<NodeSettings>,
    },
}

/// An allowed folder of sources, or of destinations' files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Folder {
    /// The absolute path, as it was written.
    path: PathBuf,
    /// The folder that no symbolic link may leave; usually the same.
    root: PathBuf,
}

/// What a spec from the network may name. By default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    folders: BTreeSet<Folder>,
    buckets: BTreeSet<BucketUrl>,
    /// Files of certificate authorities that the node reads to call the servers of buckets.
    ca_files: BTreeSet<PathBuf>,
    destination_folders: BTreeSet<Folder>,
    secrets: BTreeMap<SecretRef, BTreeSet<HostPort>>,
    hosts: BTreeSet<HostPort>,
}

/// Why a folder may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FolderRefusal {
    /// It is not in an allowed folder. The file system was not read, so that nothing about it is
    /// revealed.
    Outside,
    /// Its path is in an allowed folder, and a symbolic link leads out of it.
    Escapes,
    /// It does not exist.
    Missing,
}

/// Reads what `--allow-source` allows: the path of a folder, or the URL of a bucket. The folder may be created later.
///
/// # Errors
/// Why no source can be there, and what to write.
pub fn allowed_source(text: &str) -> Result<PathBuf, String> {
    const FORM: &str = "write a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX";
    let path = Path::new(text);
    let (message, help) = match BucketUrl::parse(text) {
        Some(Ok(_)) => return Ok(path.to_owned()),
        Some(Err(NotABucket { message, help })) => (message, help),
        None if text.trim().is_empty() => ("the path is empty", FORM),
        None if ["s3:", "gs:"].iter().any(|scheme| text.starts_with(scheme)) => {
            ("the URL of a bucket has `//` after its scheme", FORM)
        }
        None if path.metadata().is_ok_and(|found| !found.is_dir()) => {
            ("this is not a folder", "write the folder that it is in")
        }
        None => return Ok(path.to_owned()),
    };
    Err(format!("{message}: {help}"))
}

impl Limits {
    /// Allows sources in `folder` and its subfolders. A relative path is relative to the working
    /// directory. The URL of a bucket allows the objects below it; their server is allowed by
    /// [`Limits::allow_secret`] or [`Limits::allow_host`].
    pub fn allow_source(&mut self, folder: &Path) {
        if let Some(url) = BucketUrl::of_path(folder) {
            // Nothing of an invalid one: see [`allowed_source`].
            self.buckets.extend(url.ok());
            return;
        }
        let path = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        self.folders.insert(Folder { root: path.clone(), path });
    }

    /// Allows destinations that write files to `folder` and its subfolders. A relative path is
    /// relative to the working directory.
    pub fn allow_destination_folder(&mut self, folder: &Path) {
        let path = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let path = without_dots(&path);
        self.destination_folders.insert(Folder { root: path.clone(), path });
    }

    /// Allows sending a secret to a server, and a destination on that server.
    pub fn allow_secret(&mut self, secret: SecretRef, host: HostPort) {
        self.secrets.entry(secret).or_default().insert(host);
    }

    /// Allows destinations and warehouses on a server.
    pub fn allow_host(&mut self, host: HostPort) {
        self.hosts.insert(host);
    }

    /// Allows everything that a spec names: its source folders, its destinations' folders, the
    /// servers of destinations and warehouses, and each secret for the server to which it is sent.
    pub fn allow_spec(&mut self, spec: &Spec) {
        for Source { path, root, bucket, .. } in &spec.sources {
            if let Some(bucket) = bucket {
                self.allow_bucket(bucket);
                continue;
            }
            let root = root.clone().unwrap_or_else(|| path.clone());
            self.folders.insert(Folder { path: path.clone(), root });
        }
        for warehouse in &spec.warehouses {
            for host in warehouse.settings.servers() {
                match warehouse.settings.secret().cloned() {
                    Some(secret) => self.allow_secret(secret, host),
                    None => self.allow_host(host),
                }
            }
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
        self.allow_stores(spec);
    }

    /// Allows the objects of a source, and its server with its secrets.
    fn allow_bucket(&mut self, bucket: &SourceBucket) {
        self.buckets.insert(bucket.url());
        self.ca_files.extend(bucket.service.ca_file().map(Path::to_owned));
        let Ok(host) = bucket.service.server() else { return };
        let secrets = bucket.service.secrets();
        if secrets.is_empty() {
            self.allow_host(host.clone());
        }
        for secret in secrets {
            self.allow_secret(secret.clone(), host.clone());
        }
    }

    /// Allows the servers of serving stores, each with its secret.
    fn allow_stores(&mut self, spec: &Spec) {
        for ServingStore { engine, .. } in &spec.serving_stores {
            for host in engine.servers() {
                match engine.secret().cloned() {
                    Some(secret) => self.allow_secret(secret, host),
                    None => self.allow_host(host),
                }
            }
        }
    }

    /// Also allows what `other` allows.
    pub fn extend(&mut self, other: &Self) {
        self.folders.extend(other.folders.iter().cloned());
        self.buckets.extend(other.buckets.iter().cloned());
        self.ca_files.extend(other.ca_files.iter().cloned());
        self.destination_folders.extend(other.destination_folders.iter().cloned());
        self.hosts.extend(other.hosts.iter().cloned());
        for (secret, hosts) in &other.secrets {
            self.secrets.entry(secret.clone()).or_default().extend(hosts.iter().cloned());
        }
    }

    /// What a spec names and these limits do not allow, one line each. Does not read the file
    /// system.
    pub fn disallowed(&self, spec: &Spec) -> Vec<String> {
        let mut named = Self::default();
        named.allow_spec(spec);
        named.folders.retain(|folder| containing(&self.folders, &folder.path).next().is_none());
        named.buckets.retain(|url| !self.allows_bucket(url));
        named.ca_files.retain(|file| !self.allows_ca_file(file));
        let written = &self.destination_folders;
        named
            .destination_folders
            .retain(|folder| containing(written, &folder.path).next().is_none());
        named.hosts.retain(|host| !self.allows_host(host));
        named.secrets.retain(|secret, hosts| {
            hosts.retain(|host| !self.allows_secret(secret, host));
            !hosts.is_empty()
        });
        named.lines()
    }

    /// Everything that is allowed, one line each, for logs.
    pub fn lines(&self) -> Vec<String> {
        let folders = self.folders.iter().map(|folder| format!("source {}", folder.path.display()));
        let buckets = self.buckets.iter().map(|url| format!("source {url}"));
        let ca_files = self.ca_files.iter().map(|file| format!("ca_file {}", file.display()));
        let folders = folders.chain(buckets).chain(ca_files);
        let secrets = self.secrets.iter().flat_map(|(secret, hosts)| {
            hosts.iter().map(move |host| format!("secret {secret}@{host}"))
        });
        let hosts = self.hosts.iter().map(|host| format!("host {host}"));
        let written = &self.destination_folders;
        let written = written.iter().map(|f| format!("destination folder {}", f.path.display()));
        folders.chain(written).chain(secrets).chain(hosts).collect()
    }

    /// The folders to which destinations may write.
    pub fn destination_folders(&self) -> impl Iterator<Item = &Path> {
        self.destination_folders.iter().map(|folder| folder.path.as_path())
    }

    /// The files of secrets that may be sent.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.secrets.keys().filter_map(SecretRef::file)
    }

    /// Sets the root of each source that is in an allowed folder: no symbolic link of the source
    /// may leave that folder.
    pub fn set_roots(&self, spec: &mut Spec) {
        let folders = spec.sources.iter_mut().filter(|source| source.bucket.is_none());
        for source in folders.filter(|source| source.root.is_none()) {
            let mut allowed = containing(&self.folders, &source.path);
            let found = allowed.find(|folder| folder.root != source.path);
            source.root = found.map(|folder| folder.root.clone());
        }
    }

    /// The root of a source at `path`. The file system is read only for paths whose names are
    /// allowed: otherwise a sent spec could find out which files exist on the node.
    pub(crate) fn root_of(&self, path: &Path) -> Result<PathBuf, FolderRefusal> {
        let mut refusal = FolderRefusal::Outside;
        for folder in containing(&self.folders, path) {
            let Ok(found) = path.canonicalize() else { return Err(FolderRefusal::Missing) };
            match folder.root.canonicalize() {
                Ok(root) if found.starts_with(&root) => return Ok(folder.root.clone()),
                _ => refusal = FolderRefusal::Escapes,
            }
        }
        Err(refusal)
    }

    /// The root of a destination that writes to `path`. As [`Limits::root_of`], and the path itself
    /// may not contain a symbolic link: a link could be exchanged between the check and the write.
    pub(crate) fn destination_root_of(&self, path: &Path) -> Result<PathBuf, FolderRefusal> {
        let mut refusal = FolderRefusal::Outside;
        for folder in containing(&self.destination_folders, path) {
            let Ok(found) = path.canonicalize() else { return Err(FolderRefusal::Missing) };
            let beneath = path.strip_prefix(&folder.root).unwrap_or(path);
            match folder.root.canonicalize() {
                Ok(root) if found == root.join(beneath) => return Ok(folder.root.clone()),
                _ => refusal = FolderRefusal::Escapes,
            }
        }
        Err(refusal)
    }

    /// Whether the objects of this URL may be read.
    pub(crate) fn allows_bucket(&self, url: &BucketUrl) -> bool {
        self.buckets.iter().any(|allowed| allowed.contains(url))
    }

    /// Whether this file of certificate authorities may be read.
    pub(crate) fn allows_ca_file(&self, file: &Path) -> bool {
        self.ca_files.contains(file)
    }

    /// Whether a destination or a warehouse may be on this server.
    pub(crate) fn allows_host(&self, host: &HostPort) -> bool {
        self.hosts.contains(host) || self.secrets.values().any(|hosts| hosts.contains(host))
    }

    /// Whether this secret may be sent to this server.
    pub(crate) fn allows_secret(&self, secret: &SecretRef, host: &HostPort) -> bool {
        self.secrets.get(secret).is_some_and(|hosts| hosts.contains(host))
    }
}

/// The folders of a set that contain `path` by its name, the outermost first.
fn containing<'f>(
    folders: &'f BTreeSet<Folder>,
    path: &Path,
) -> impl Iterator<Item = &'f Folder> + use<'f> {
    let path = without_dots(path);
    // The set is sorted, so a folder comes before its subfolders.
    folders.iter().filter(move |folder| path.starts_with(without_dots(&folder.path)))
}

/// A path without `.` and `..`, by its text only.
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
