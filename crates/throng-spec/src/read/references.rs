//! Names of objects and the references to them, over all files.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use throng_model::{DestinationName, NameError, SyncName};

use super::fields::{At, Fields};
use super::tree::Node;
use super::{Reader, suggest};
use crate::{ObjectKind, Pattern};

/// The declared names and the references to names.
#[derive(Default)]
pub(super) struct Names {
    declared: BTreeMap<(ObjectKind, String), At>,
    /// Names that templates may make.
    patterns: Vec<(ObjectKind, Pattern)>,
    references: Vec<(ObjectKind, String, At)>,
    /// Names of sources in SQL, by workspace.
    in_sql: BTreeMap<(Option<String>, String), String>,
    /// The audiences on platforms that syncs write to.
    on_platform: Vec<OnPlatform>,
}

/// The audience on a platform that a sync writes to.
struct OnPlatform {
    sync: SyncName,
    destination: DestinationName,
    /// The audience's name there.
    name: String,
    /// Where the sync is.
    at: At,
}

impl OnPlatform {
    /// The message and the help if another sync writes to the same audience.
    fn conflict(&self, other: &Self) -> (String, String) {
        let (first, second) = (&self.destination, &other.destination);
        let place = match first == second {
            true => format!(" of `{first}`"),
            false => format!(": the destinations `{first}` and `{second}` have one account"),
        };
        let message = format!(
            "the syncs `{}` and `{}` both write to the platform's audience `{}`{place}",
            self.sync, other.sync, self.name
        );
        let help = format!(
            "the first is at {}:{}: give one of them its own `platform_name`",
            self.at.file.display(),
            self.at.line
        );
        (message, help)
    }
}

impl Names {
    /// The message and the help for a name that does not exist. Names of its own workspace are suggested only.
    fn unknown(&self, kind: ObjectKind, name: &str) -> (String, String) {
        let (workspace, name) = split(name);
        let of_workspace = self.declared.keys().filter_map(|(other, declared)| {
            let (of, local) = split(declared);
            (of == workspace).then_some((*other, local))
        });
        let of_workspace: Vec<(ObjectKind, &str)> = of_workspace.collect();
        let of_kind = of_workspace.iter().filter(|(other, _)| *other == kind);
        let known: Vec<&str> = of_kind.map(|(_, name)| *name).collect();
        let elsewhere = of_workspace
            .iter()
            .find(|(_, other)| *other == name)
            .map(|(other, _)| format!("`{name}` is the name of {}", with_article(*other)));
        let near = suggest::nearest(name, known.iter().copied())
            .map(|near| format!("did you mean `{near}`?"));
        let help = near
            .or(elsewhere)
            .or_else(|| suggest::help(name, &known))
            .unwrap_or_else(|| format!("declare the {kind}, or refer to another one"));
        let message = match workspace {
            Some(workspace) => {
                format!("there is no {kind} named `{name}` in the workspace `{workspace}`")
            }
            None => format!("there is no {kind} named `{name}`"),
        };
        (message, help)
    }

    /// Where a name is declared.
    pub(super) fn place(&self, kind: ObjectKind, name: &str) -> Option<At> {
        self.declared.get(&(kind, name.to_owned())).cloned()
    }

    /// Whether a row of a template may have this name. Whether one has is known when the spec is expanded.
    fn could_be_made(&self, (kind, name): &(ObjectKind, String)) -> bool {
        self.patterns.iter().any(|(of, pattern)| of == kind && pattern.could_make(name))
    }
}

impl Reader {
    /// The required field `name` of an object, which declares it.
    pub(super) fn name<T>(&mut self, fields: &mut Fields<'_>, kind: ObjectKind) -> T
    where
        T: TryFrom<String, Error = NameError> + AsRef<str>,
    {
        let found = fields.required(self, "name");
        let Some((name, at)) =
            found.and_then(|(node, at)| Some((self.name_at::<T>(node, &at)?, at)))
        else {
            return placeholder_name();
        };
        self.declare(kind, name.as_ref(), at);
        name
    }

    /// Declares the names of a template.
    pub(super) fn declare_pattern(&mut self, kind: ObjectKind, pattern: &Pattern, at: At) {
        self.declare(kind, pattern.as_str(), at);
        self.names.patterns.push((kind, pattern.clone()));
    }

    fn declare(&mut self, kind: ObjectKind, name: &str, at: At) {
        let key = (kind, name.to_owned());
        match self.names.declared.get(&key).cloned() {
            Some(first) => {
                let message = format!("there are two {kind}s named `{name}`");
                let help = format!(
                    "the first is at {}:{}: rename or remove one",
                    first.file.display(),
                    first.line
                );
                self.problem(&at, message, Some(help));
            }
            None => {
                self.names.declared.insert(key, at.clone());
                if kind == ObjectKind::Source {
                    self.name_in_sql(name, &at);
                }
            }
        }
    }

    /// A name as it is written, in the workspace that is read.
    pub(super) fn name_at<T>(&mut self, node: &Node, at: &At) -> Option<T>
    where
        T: TryFrom<String, Error = NameError>,
    {
        let text = self.text(node, at)?.to_owned();
        if text.contains(':') {
            let shown: String = text.chars().take(60).collect();
            let help = "write the name alone: what is below `workspaces` is in the workspace, and refers to objects \
                        of the same workspace";
            self.problem(at, format!("`{shown}` is not a name"), Some(help.to_owned()));
            return None;
        }
        let name = self.any_name_at::<T>(node, at)?;
        match &self.workspace {
            None => Some(name),
            Some(workspace) => T::try_from(format!("{workspace}:{text}")).ok(),
        }
    }

    /// A name, which may begin with a workspace if the kind of object can be in one.
    fn any_name_at<T>(&mut self, node: &Node, at: &At) -> Option<T>
    where
        T: TryFrom<String, Error = NameError>,
    {
        let text = self.text(node, at)?.to_owned();
        match T::try_from(text.clone()) {
            Ok(name) => Some(name),
            Err(_) => {
                let shown: String = text.chars().take(60).collect();
                let help = "use 1 to 128 of a-z, 0-9, `-`, `_` and `.`, starting with a letter \
                            or a digit";
                self.problem(at, format!("`{shown}` is not a name"), Some(help.to_owned()));
                None
            }
        }
    }

    fn name_in_sql(&mut self, name: &str, at: &At) {
        let (workspace, name) = split(name);
        let in_sql = name.replace(['-', '.'], "_");
        let key = (workspace.map(str::to_owned), in_sql);
        match self.names.in_sql.get(&key).cloned() {
            Some(other) => {
                let in_sql = key.1;
                let message =
                    format!("the sources `{other}` and `{name}` are both `{in_sql}` in SQL");
                let help = "rename one: SQL sees `-` and `.` as `_`".to_owned();
                self.problem(at, message, Some(help));
            }
            None => {
                self.names.in_sql.insert(key, name.to_owned());
            }
        }
    }

    /// A required field that holds the name of another object.
    pub(super) fn reference<T>(
        &mut self,
        fields: &mut Fields<'_>,
        field: &'static str,
        kind: ObjectKind,
    ) -> T
    where
        T: TryFrom<String, Error = NameError> + AsRef<str>,
    {
        let found = fields.required(self, field);
        found.and_then(|(node, at)| self.refer(node, at, kind)).unwrap_or_else(placeholder_name)
    }

    /// Records a reference of `node` to an object of a kind.
    pub(super) fn refer<T>(&mut self, node: &Node, at: At, kind: ObjectKind) -> Option<T>
    where
        T: TryFrom<String, Error = NameError> + AsRef<str>,
    {
        let name: T = self.name_at(node, &at)?;
        self.names.references.push((kind, name.as_ref().to_owned(), at));
        Some(name)
    }

    /// As [`Reader::refer`], of an object that belongs to no workspace: the name may begin with a workspace.
    pub(super) fn refer_anywhere<T>(&mut self, node: &Node, at: At, kind: ObjectKind) -> Option<T>
    where
        T: TryFrom<String, Error = NameError> + AsRef<str>,
    {
        let name: T = self.any_name_at(node, &at)?;
        self.names.references.push((kind, name.as_ref().to_owned(), at));
        Some(name)
    }

    /// Records to which audience of the platform a sync writes.
    pub(super) fn writes_to(&mut self, sync: &SyncName, to: (&DestinationName, String), at: At) {
        let (destination, name) = to;
        let (sync, destination) = (sync.clone(), destination.clone());
        self.names.on_platform.push(OnPlatform { sync, destination, name, at });
    }

    /// Checks that no two syncs write to the same audience of the platform, after all files were read: each would
    /// remove the other's users. Destinations with one account have the same audiences.
    pub(super) fn check_platform_names(&mut self) {
        // An invalid account is reported where it is.
        let is_valid = |account: &String| self.accounts.contains_key(account);
        let accounts: BTreeMap<DestinationName, String> = self
            .spec
            .destinations
            .iter()
            .map(|destination| (destination.name.clone(), destination.account()))
            .filter(|(_, account)| is_valid(account))
            .collect();
        let mut first: BTreeMap<(Option<String>, String, String), OnPlatform> = BTreeMap::new();
        for sync in std::mem::take(&mut self.names.on_platform) {
            let account = accounts.get(&sync.destination).cloned();
            let account = account.unwrap_or_else(|| sync.destination.to_string());
            // Two workspaces with one account are refused, without the names of the other one's objects.
            let workspace = sync.destination.workspace().map(str::to_owned);
            match first.entry((workspace, account, sync.name.clone())) {
                Entry::Occupied(other) if other.get().sync != sync.sync => {
                    let (message, help) = other.get().conflict(&sync);
                    self.problem(&sync.at, message, Some(help));
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(entry) => {
                    entry.insert(sync);
                }
            }
        }
    }

    /// Checks all references, after all files were read.
    pub(super) fn check_references(&mut self) {
        for (kind, name, at) in std::mem::take(&mut self.names.references) {
            let key = (kind, name);
            if self.names.declared.contains_key(&key) || self.names.could_be_made(&key) {
                continue;
            }
            // A suggestion costs a comparison with every name.
            if self.is_full() {
                return;
            }
            let (kind, name) = key;
            let (message, help) = self.names.unknown(kind, &name);
            self.problem(&at, message, Some(help));
        }
    }
}

/// The workspace in front of a stored name, and the name in it.
fn split(name: &str) -> (Option<&str>, &str) {
    match name.split_once(':') {
        Some((workspace, local)) => (Some(workspace), local),
        None => (None, name),
    }
}

fn with_article(kind: ObjectKind) -> String {
    let article = if kind.as_str().starts_with('a') { "an" } else { "a" };
    format!("{article} {kind}")
}

/// The name that replaces an invalid one, which was reported.
pub(super) fn placeholder_name<T: TryFrom<String, Error = NameError>>() -> T {
    T::try_from("unnamed".to_owned()).expect("`unnamed` is a name")
}
