//! Checks of a spec from the network against the node's limits.

use std::path::Path;

use super::Reader;
use super::fields::{At, Fields};
use super::tree::Entry;
use crate::limits::{FolderRefusal, without_dots};
use crate::{
    FileFolder, HostPort, MetaSettings, NodeSettings, SecretRef, Source, SourceBucket, SpecOrigin,
    StoreEngine, WarehouseSettings,
};

/// The positions of the fields of a destination on a server.
pub(super) struct DestinationAt {
    pub(super) host: At,
    pub(super) access_token: At,
    pub(super) app_secret: At,
}

impl Reader {
    /// Checks that a source may be read, and sets its root.
    pub(super) fn admit_source(&mut self, source: &mut Source, at: &At) {
        let SpecOrigin::Limited { limits, .. } = &self.origin else { return };
        let display_path = display_path(&source.path);
        let (message, help) = match limits.root_of(&source.path) {
            Ok(root) => {
                source.root = (root != source.path).then_some(root);
                return;
            }
            Err(FolderRefusal::Outside) => (
                format!(
                    "this node may not read the folder {display_path} for a spec that was sent to it"
                ),
                format!(
                    "the node's operator can allow it with `--allow-source {display_path}`, or with \
                     `sources: [{display_path}]` in its limits file"
                ),
            ),
            Err(FolderRefusal::Escapes) => (
                format!("{display_path} leads out of the folder that this node may read"),
                "name the real folder, and ask the node's operator to allow that one with \
                 `--allow-source`"
                    .to_owned(),
            ),
            Err(FolderRefusal::Missing) => (
                format!("there is no such folder on the node: {display_path}"),
                "a path is relative to the folder of the spec file, and must exist on the \
                 machine of the node"
                    .to_owned(),
            ),
        };
        self.problem(at, message, Some(help));
    }

    /// Checks that the objects of a source may be read, and that its secrets may be sent to its server. `section`:
    /// the settings of the server.
    pub(super) fn admit_bucket(&mut self, bucket: &SourceBucket, at: &At, section: &At) {
        let SpecOrigin::Limited { limits, .. } = &self.origin else { return };
        let limits = std::sync::Arc::clone(limits);
        let url = bucket.url();
        if !limits.allows_bucket(&url) {
            let message = format!("this node may not read {url} for a spec that was sent to it");
            let help = format!(
                "the node's operator can allow it with `--allow-source {url}`, or with `sources: [\"{url}\"]` in \
                 its limits file"
            );
            return self.problem(at, message, Some(help));
        }
        if bucket.service.ca_file().is_some_and(|file| !limits.allows_ca_file(file)) {
            let message = "this node may not read this `ca_file` for a spec that was sent to it";
            let help = "leave it out, and let the node's operator start the node with a spec that names it, or add \
                        the authority to those of the system";
            self.problem(section, message, Some(help.to_owned()));
        }
        let Ok(host) = bucket.service.server() else { return };
        match bucket.service.secrets() {
            secrets if secrets.is_empty() => self.admit_server(&host, None, section, section),
            secrets => {
                for secret in secrets {
                    self.admit_server(&host, Some(secret), section, section);
                }
            }
        }
    }

    /// Checks that a destination may write to its folder, and sets its root.
    pub(super) fn admit_destination_folder(&mut self, file: &mut FileFolder, at: &At) {
        let SpecOrigin::Limited { limits, .. } = &self.origin else { return };
        let display_path = display_path(&file.folder);
        let (message, help) = match limits.destination_root_of(&file.folder) {
            Ok(root) => {
                file.root = (root != file.folder).then_some(root);
                return;
            }
            Err(FolderRefusal::Outside) => (
                format!(
                    "this node may not write to the folder {display_path} for a spec that was sent to it"
                ),
                format!(
                    "the node's operator can allow it with `--allow-destination-folder {display_path}`, or with \
                     `destination_folders: [{display_path}]` in its limits file"
                ),
            ),
            Err(FolderRefusal::Escapes) => (
                format!("{display_path} is reached through a symbolic link"),
                "name the real folder, and ask the node's operator to allow that one with \
                 `--allow-destination-folder`"
                    .to_owned(),
            ),
            Err(FolderRefusal::Missing) => (
                format!("there is no such folder on the node: {display_path}"),
                "a folder is relative to the folder of the spec file, and must exist on the \
                 machine of the node: create it there"
                    .to_owned(),
            ),
        };
        self.problem(at, message, Some(help));
    }

    /// Checks that a destination may be on its server, and that its secrets may be sent there.
    pub(super) fn admit_destination(&mut self, destination: &MetaSettings, at: &DestinationAt) {
        let SpecOrigin::Limited { limits, .. } = &self.origin else { return };
        let limits = std::sync::Arc::clone(limits);
        let Ok(host) = destination.server() else { return };
        if !limits.allows_host(&host) {
            let message =
                format!("this node may not send to {host} for a spec that was sent to it");
            let secret = &destination.access_token;
            return self.problem(&at.host, message, Some(allow_secret(secret, &host)));
        }
        let secrets = [
            (Some(&destination.access_token), &at.access_token),
            (destination.app_secret.as_ref(), &at.app_secret),
        ];
        for (secret, at) in secrets {
            let Some(secret) = secret else { continue };
            if !limits.allows_secret(secret, &host) {
                let message = format!("this node does not send the secret {secret} to {host}");
                self.problem(at, message, Some(allow_secret(secret, &host)));
            }
        }
    }

    /// Checks that a serving store may be on its servers, and that its secret may be sent there.
    pub(super) fn admit_store(&mut self, engine: &StoreEngine, server: &At, secret: &At) {
        for host in engine.servers() {
            self.admit_server(&host, engine.secret(), server, secret);
        }
    }

    /// Checks that a warehouse may be called, and that its secret may be sent to its servers.
    pub(super) fn admit_warehouse(&mut self, warehouse: &WarehouseSettings, at: &At) {
        for host in warehouse.servers() {
            self.admit_server(&host, warehouse.secret(), at, at);
        }
    }

    fn admit_server(
        &mut self,
        host: &HostPort,
        secret: Option<&SecretRef>,
        host_at: &At,
        secret_at: &At,
    ) {
        let SpecOrigin::Limited { limits, .. } = &self.origin else { return };
        match secret {
            Some(secret) if !limits.allows_secret(secret, host) => {
                let message = format!("this node does not send the secret {secret} to {host}");
                self.problem(secret_at, message, Some(allow_secret(secret, host)));
            }
            None if !limits.allows_host(host) => {
                let message =
                    format!("this node may not send to {host} for a spec that was sent to it");
                let help = format!(
                    "the node's operator can allow it with `--allow-host {host}`, or with `hosts: \
                     [\"{host}\"]` in its limits file"
                );
                self.problem(host_at, message, Some(help));
            }
            _ => {}
        }
    }

    /// Returns the settings to use. The settings of a node cannot be changed over the network: a
    /// field that is written must have the value in use, and a field that is not written keeps it.
    pub(super) fn admit_node(&mut self, read: NodeSettings, fields: &Fields<'_>) -> NodeSettings {
        let SpecOrigin::Limited { running, .. } = &self.origin else { return read };
        let running = running.as_ref().clone();
        let differing = differing_fields(&read, &running);
        // One field of a spec is two of the settings.
        let is_known =
            |field: &str| field == "lake_bucket" && differing.iter().any(|f| f == "lake");
        for field in differing.iter().filter(|field| !is_known(field)) {
            let Some(entry) = fields.entries().iter().find(|entry| belongs_to(entry, field)) else {
                continue;
            };
            let key: String = entry.key.chars().take(60).collect();
            let message = format!("`node.{key}` is not what this node runs with");
            let help = "leave it out, or restart the node with `throng up --spec` to change it: \
                        settings of a node are not taken from a spec that was sent to it";
            self.problem(&fields.at.key(entry), message, Some(help.to_owned()));
        }
        running
    }
}

fn allow_secret(secret: &SecretRef, host: &HostPort) -> String {
    format!(
        "the node's operator can allow it with `--allow-secret {secret}@{host}`, or with `secrets: \
         [{{ ref: \"{secret}\", hosts: [\"{host}\"] }}]` in its limits file"
    )
}

fn display_path(path: &Path) -> String {
    without_dots(path).display().to_string().chars().filter(|c| !c.is_control()).take(400).collect()
}

/// The fields of the settings' JSON form with different values.
fn differing_fields(read: &NodeSettings, running: &NodeSettings) -> Vec<String> {
    let json = |settings| serde_json::to_value(settings).unwrap_or_default();
    let (read, running) = (json(read), json(running));
    let (Some(read), Some(running)) = (read.as_object(), running.as_object()) else {
        return Vec::new();
    };
    let names = read.keys().chain(running.keys().filter(|name| !read.contains_key(*name)));
    names.filter(|name| read.get(*name) != running.get(*name)).cloned().collect()
}

/// Whether a field as it is written belongs to a field of the settings.
fn belongs_to(entry: &Entry, field: &str) -> bool {
    let key = entry.key.as_str();
    key == field
        || match field {
            "ledger" => key.starts_with("ledger_"),
            "log" => key == "kafka",
            "objects" => key == "bucket",
            "engine" => key == "ballista",
            "log_retention" => key.starts_with("log_retention_"),
            "lake_bucket" => key == "lake",
            _ => false,
        }
}
