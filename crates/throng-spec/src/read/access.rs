//! What a spec from the network may name: checks against the node's limits.

use std::path::Path;

use super::Reader;
use super::fields::{At, Fields};
use super::tree::Entry;
use crate::limits::{FolderRefusal, without_dots};
use crate::{Access, FileFolder, HostPort, MetaAccount, NodeSettings, SecretRef, Source};

/// Where the parts of a destination on a server are written.
pub(super) struct DestinationAt {
    pub(super) host: At,
    pub(super) access_token: At,
    pub(super) app_secret: At,
}

impl Reader {
    /// Whether a source may be read; sets what it must not lead out of.
    pub(super) fn admit_source(&mut self, source: &mut Source, at: &At) {
        let Access::Limited { limits, .. } = &self.access else { return };
        let shown = shown(&source.path);
        let (message, help) = match limits.root_of(&source.path) {
            Ok(root) => {
                source.root = (root != source.path).then_some(root);
                return;
            }
            Err(FolderRefusal::Outside) => (
                format!("this node may not read the folder {shown} for a spec that was sent to it"),
                format!(
                    "whoever runs the node allows it with `--allow-source {shown}`, or with \
                     `sources: [{shown}]` in its limits file"
                ),
            ),
            Err(FolderRefusal::LeadsOut) => (
                format!("{shown} leads out of the folder that this node may read"),
                "name the real folder, and let whoever runs the node allow that one with \
                 `--allow-source`"
                    .to_owned(),
            ),
            Err(FolderRefusal::Missing) => (
                format!("there is no such folder on the node: {shown}"),
                "a path is relative to the folder of the spec file, and is looked for on the \
                 machine of the node"
                    .to_owned(),
            ),
        };
        self.problem(at, message, Some(help));
    }

    /// Whether a destination may write to its folder; sets beneath which folder it follows no link.
    pub(super) fn admit_destination_folder(&mut self, file: &mut FileFolder, at: &At) {
        let Access::Limited { limits, .. } = &self.access else { return };
        let shown = shown(&file.folder);
        let (message, help) = match limits.destination_root_of(&file.folder) {
            Ok(root) => {
                file.root = (root != file.folder).then_some(root);
                return;
            }
            Err(FolderRefusal::Outside) => (
                format!(
                    "this node may not write to the folder {shown} for a spec that was sent to it"
                ),
                format!(
                    "whoever runs the node allows it with `--allow-destination-folder {shown}`, or with \
                     `destination_folders: [{shown}]` in its limits file"
                ),
            ),
            Err(FolderRefusal::LeadsOut) => (
                format!("{shown} is reached through a symbolic link"),
                "name the real folder, and let whoever runs the node allow that one with \
                 `--allow-destination-folder`"
                    .to_owned(),
            ),
            Err(FolderRefusal::Missing) => (
                format!("there is no such folder on the node: {shown}"),
                "a folder is relative to the folder of the spec file, and is looked for on the \
                 machine of the node: make it there"
                    .to_owned(),
            ),
        };
        self.problem(at, message, Some(help));
    }

    /// Whether a destination may be where it is, and its secrets sent there.
    pub(super) fn admit_destination(&mut self, destination: &MetaAccount, at: &DestinationAt) {
        let Access::Limited { limits, .. } = &self.access else { return };
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

    /// The settings of a node cannot be changed over the network: what is written must be what runs,
    /// and what is not written stays as it runs.
    pub(super) fn admit_node(&mut self, read: NodeSettings, fields: &Fields<'_>) -> NodeSettings {
        let Access::Limited { running, .. } = &self.access else { return read };
        let running = running.as_ref().clone();
        for field in differing(&read, &running) {
            let Some(entry) = fields.entries().iter().find(|entry| belongs(entry, &field)) else {
                continue;
            };
            let key: String = entry.key.chars().take(60).collect();
            let message = format!("`node.{key}` is not what this node runs with");
            let help = "leave it out, or start the node anew with `throng up --spec` to change it: \
                        settings of a node are not taken from a spec that was sent to it";
            self.problem(&fields.at.key(entry), message, Some(help.to_owned()));
        }
        running
    }
}

fn allow_secret(secret: &SecretRef, host: &HostPort) -> String {
    format!(
        "whoever runs the node allows it with `--allow-secret {secret}@{host}`, or with `secrets: \
         [{{ ref: \"{secret}\", hosts: [\"{host}\"] }}]` in its limits file"
    )
}

fn shown(path: &Path) -> String {
    without_dots(path).display().to_string().chars().filter(|c| !c.is_control()).take(400).collect()
}

/// The fields of the settings' JSON form whose values differ.
fn differing(read: &NodeSettings, running: &NodeSettings) -> Vec<String> {
    let json = |settings| serde_json::to_value(settings).unwrap_or_default();
    let (read, running) = (json(read), json(running));
    let (Some(read), Some(running)) = (read.as_object(), running.as_object()) else {
        return Vec::new();
    };
    let names = read.keys().chain(running.keys().filter(|name| !read.contains_key(*name)));
    names.filter(|name| read.get(*name) != running.get(*name)).cloned().collect()
}

/// Whether a written field is part of a field of the settings.
fn belongs(entry: &Entry, field: &str) -> bool {
    let key = entry.key.as_str();
    key == field
        || match field {
            "ledger" => key.starts_with("ledger_"),
            "log" => key == "kafka",
            "objects" => key == "bucket",
            _ => false,
        }
}
