//! The limits file of a node.

use std::path::{Path, PathBuf};

use super::Reader;
use super::fields::{At, Fields, text_of};
use super::tree::Value;
use crate::files::{SpecFile, SpecFiles};
use crate::{BucketUrl, HostPort, Limits, NotABucket, Problem, SecretRef};

/// Checks the text of a limits file. `path` is its name in problems, and paths in it are relative
/// to its folder. The caller has checked the owner and the mode of the file.
///
/// # Errors
/// Every problem in it.
pub fn check_limits(path: &Path, text: &str) -> Result<Limits, Vec<Problem>> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let file = SpecFile { path: path.to_owned(), text: text.to_owned() };
    let files = SpecFiles { base: base.clone(), files: vec![file] };
    let problems = files.problems();
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut reader = Reader { folder: base, ..Reader::default() };
    let mut limits = Limits::default();
    for file in files.files {
        reader.parse(file, |reader, mut top| {
            reader.version(&mut top);
            reader.limits(&mut top, &mut limits);
            top.done(reader);
        });
    }
    reader.finish().map(|_| limits)
}

impl Reader {
    fn limits(&mut self, top: &mut Fields<'_>, limits: &mut Limits) {
        for (text, at) in self.texts(top, "sources", "[/data/shop]") {
            match BucketUrl::parse(&text) {
                None => {
                    let path = self.folder.join(text);
                    self.check_not_root(&path, &at);
                    limits.allow_source(&path);
                }
                Some(Ok(_)) => limits.allow_source(Path::new(&text)),
                Some(Err(NotABucket { message, help })) => {
                    self.problem(&at, message, Some(help.to_owned()));
                }
            }
        }
        for (text, at) in self.texts(top, "destination_folders", "[/data/audiences]") {
            let path = self.folder.join(text);
            self.check_not_root(&path, &at);
            limits.allow_destination_folder(&path);
        }
        for (text, at) in self.texts(top, "hosts", "[graph.facebook.com]") {
            if let Some(host) = self.host(&text, &at) {
                limits.allow_host(host);
            }
        }
        self.each(top, "secrets", |reader, mut fields| {
            let secret = fields.required(reader, "ref");
            let secret = secret.and_then(|(node, at)| reader.secret(node, &at, "ref"));
            fields.required(reader, "hosts");
            let mut hosts = Vec::new();
            for (text, at) in reader.texts(&mut fields, "hosts", "[graph.facebook.com]") {
                hosts.extend(reader.host(&text, &at));
            }
            fields.done(reader);
            for host in hosts {
                if let Some(secret) = &secret {
                    limits.allow_secret(SecretRef::clone(secret), host);
                }
            }
        });
    }

    fn check_not_root(&mut self, path: &Path, at: &At) {
        if path.canonicalize().is_ok_and(|found| found.parent().is_none()) {
            let help = "name the folders that hold data".to_owned();
            self.problem(at, "this would allow every file of the machine", Some(help));
        }
    }

    fn host(&mut self, text: &str, at: &At) -> Option<HostPort> {
        match text.parse() {
            Ok(host) => Some(host),
            Err(error) => {
                let help = "write HOST or HOST:PORT; without a port it is 443".to_owned();
                let error: crate::NotAHost = error;
                let message = error.to_string();
                let message = message.split(':').next().unwrap_or_default().to_owned();
                self.problem(at, message, Some(help));
                None
            }
        }
    }

    /// A list of texts; nothing if the field is missing.
    fn texts(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
        example: &str,
    ) -> Vec<(String, At)> {
        let Some((node, at)) = fields.get(name) else { return Vec::new() };
        let Value::List(items) = &node.value else {
            let message = format!("expected a list, found {}", node.value.kind());
            self.problem(&at, message, Some(format!("write `{name}: {example}`")));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let at = at.index(index, item);
            if self.text(item, &at).is_some()
                && let Some(text) = text_of(&item.value)
            {
                texts.push((text.trim().to_owned(), at));
            }
        }
        texts
    }
}

/// The limits file that a node reads by default.
pub fn default_limits_file(data_dir: &Path) -> PathBuf {
    data_dir.join("limits.yaml")
}
