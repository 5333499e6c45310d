//! From rows to objects: names, collisions, references. Pure.

use std::collections::{BTreeMap, BTreeSet};

use throng_spec::{ForEach, Pattern, Problem, Spec, Sync, TemplateRows};

use crate::make::{Template, Unmade};
use crate::removed::removed;

/// Copies of the SQL of templates in an expanded spec, together. It is one row of the ledger.
const MAX_COPIED_BYTES: usize = 64 << 20;
/// Problems of one template, at most.
const MAX_PROBLEMS: usize = 20;

/// The rows of a template.
pub(crate) enum Rows {
    /// As its query returned them.
    Queried(TemplateRows),
    /// The same, of a template that is applied in this form: if the rows do not make objects, it keeps those that it
    /// has. One client's data must not stop the changes of others.
    QueriedOrKept(TemplateRows),
    /// The query was not run: the template keeps the objects that it has.
    Kept,
}

/// An expanded spec.
#[derive(Debug)]
pub struct Expanded {
    /// The spec, with the objects of its templates.
    pub spec: Spec,
    /// Objects that are held or archived because their rows are gone, templates that have none and whose query returns no
    /// rows, and templates whose query or rows have an error, and which keep the objects that they have.
    pub warnings: Vec<String>,
}

/// Who has a name.
#[derive(Debug, Clone)]
enum Owner {
    Written,
    /// A row of this template, with its number in the result of the query if it was queried now.
    Row(Pattern, Option<usize>),
}

/// The objects of one kind.
struct Kind<'a, T: Template> {
    templates: &'a [T],
    rows: &'a [Rows],
    /// Those of the applied spec.
    before: &'a [T::Object],
    /// Names that are taken.
    owners: BTreeMap<String, Owner>,
    /// The objects of each template.
    made: Vec<Vec<T::Object>>,
    /// Whether each template keeps the objects that it has.
    keeps: Vec<bool>,
    /// Why templates keep their objects.
    warnings: Vec<String>,
}

/// Makes the objects of all templates; `audiences` and `syncs` have the rows of each in their order.
///
/// # Errors
/// Every row that makes no object, and every reference to an object that no row makes.
pub(crate) fn expand(
    mut spec: Spec,
    before: Option<&Spec>,
    audiences: &[Rows],
    syncs: &[Rows],
) -> Result<Expanded, Vec<Problem>> {
    spec.audiences.retain(|audience| audience.made_from.is_none());
    spec.syncs.retain(|sync| sync.made_from.is_none());
    let audience_templates = std::mem::take(&mut spec.audience_templates);
    let sync_templates = std::mem::take(&mut spec.sync_templates);
    let mut problems = Vec::new();
    let before_audiences = before.map(|before| before.audiences.as_slice()).unwrap_or_default();
    let before_syncs = before.map(|before| before.syncs.as_slice()).unwrap_or_default();
    let mut audience_kind = Kind::new(
        "audience",
        &audience_templates,
        audiences,
        before_audiences,
        &spec.audiences,
        &mut problems,
    );
    let mut sync_kind =
        Kind::new("sync", &sync_templates, syncs, before_syncs, &spec.syncs, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    // Syncs first: an audience is needed as long as a sync refers to it.
    let mut warnings = std::mem::take(&mut audience_kind.warnings);
    warnings.append(&mut sync_kind.warnings);
    warnings.extend(sync_kind.hold(|_| false));
    spec.syncs.extend(sync_kind.made.into_iter().flatten());
    let needed = referred(&spec);
    warnings.extend(audience_kind.hold(|name| needed.contains(name)));
    spec.audiences.extend(audience_kind.made.into_iter().flatten());
    spec.audience_templates = audience_templates;
    spec.sync_templates = sync_templates;
    let problems = [missing(&spec), same_on_platform(&spec), too_large(&spec)].concat();
    if problems.is_empty() { Ok(Expanded { spec, warnings }) } else { Err(problems) }
}

impl<'a, T: Template> Kind<'a, T> {
    fn new(
        kind: &'static str,
        templates: &'a [T],
        rows: &'a [Rows],
        before: &'a [T::Object],
        written: &[T::Object],
        problems: &mut Vec<Problem>,
    ) -> Self {
        let owners = written.iter().map(|object| (T::name_of(object).to_owned(), Owner::Written));
        let owners = owners.collect();
        let (made, keeps, warnings) = (Vec::new(), Vec::new(), Vec::new());
        let mut all = Self { templates, rows, before, owners, made, keeps, warnings };
        for (template, rows) in templates.iter().zip(rows) {
            let made = match rows {
                Rows::Queried(rows) => Some(all.make(kind, template, rows, problems)),
                Rows::QueriedOrKept(rows) => all.make_or_warn(kind, template, rows),
                Rows::Kept => None,
            };
            all.keeps.push(made.is_none());
            let mut made = made.unwrap_or_else(|| all.keep(kind, template, problems));
            made.sort_by(|a, b| T::name_of(a).cmp(T::name_of(b)));
            all.made.push(made);
        }
        all
    }

    /// `None` if a row makes no object: then no name is taken, and the problems are warnings.
    fn make_or_warn(
        &mut self,
        kind: &'static str,
        template: &T,
        rows: &TemplateRows,
    ) -> Option<Vec<T::Object>> {
        let mut problems = Vec::new();
        let made = self.make(kind, template, rows, &mut problems);
        if problems.is_empty() {
            return Some(made);
        }
        for object in &made {
            self.owners.remove(T::name_of(object));
        }
        self.warnings.extend(problems.iter().map(|problem| kept(template.name(), problem)));
        None
    }

    fn of_template<'s>(&'s self, template: &'s T) -> impl Iterator<Item = &'s T::Object> {
        self.before.iter().filter(move |object| {
            T::made_from(object).is_some_and(|made_from| made_from.template == *template.name())
        })
    }

    fn make(
        &mut self,
        kind: &'static str,
        template: &T,
        rows: &TemplateRows,
        problems: &mut Vec<Problem>,
    ) -> Vec<T::Object> {
        let mut made = Vec::with_capacity(rows.rows.len());
        let mut unmade: BTreeMap<Unmade, Vec<usize>> = BTreeMap::new();
        let mut collisions = 0;
        for (at, values) in rows.rows.iter().enumerate() {
            let row: Vec<_> = rows.columns.iter().cloned().zip(values.iter().cloned()).collect();
            let object = match template.make(&row) {
                Ok(object) => object,
                Err(why) => {
                    unmade.entry(why).or_default().push(at + 1);
                    continue;
                }
            };
            match self.claim(kind, &object, template, Some(at + 1)) {
                Ok(()) => made.push(object),
                Err(problem) if collisions < MAX_PROBLEMS => {
                    collisions += 1;
                    problems.push(problem);
                }
                Err(_) => {}
            }
        }
        for (Unmade { message, help, is_of_row }, numbers) in unmade.into_iter().take(MAX_PROBLEMS)
        {
            let message = match is_of_row {
                true => format!("{message} ({})", TemplateRows::shown(&numbers)),
                false => message,
            };
            problems.push(problem(template.for_each(), message, help.to_owned()));
        }
        made
    }

    fn keep(
        &mut self,
        kind: &'static str,
        template: &T,
        problems: &mut Vec<Problem>,
    ) -> Vec<T::Object> {
        let of_rows = |object: &&T::Object| T::made_from(object).is_some_and(|from| !from.held);
        let kept: Vec<T::Object> = self.of_template(template).filter(of_rows).cloned().collect();
        let mut made = Vec::with_capacity(kept.len());
        for object in kept {
            match self.claim(kind, &object, template, None) {
                Ok(()) => made.push(object),
                Err(problem) => problems.push(problem),
            }
        }
        made
    }

    /// Takes the name of an object for its row, which has this number. Messages have the name and the numbers of rows, and
    /// no value of them.
    fn claim(
        &mut self,
        kind: &'static str,
        object: &T::Object,
        template: &T,
        row: Option<usize>,
    ) -> Result<(), Problem> {
        let (name, pattern) = (T::name_of(object), template.name());
        let (message, help) = match self.owners.get(name) {
            None => {
                self.owners.insert(name.to_owned(), Owner::Row(pattern.clone(), row));
                return Ok(());
            }
            Some(Owner::Written) => (
                format!(
                    "a row of `{pattern}` makes the {kind} `{name}`, which is also written in the spec{}",
                    numbered(&[row])
                ),
                "rename one of them, or leave the row out",
            ),
            Some(Owner::Row(other, other_row)) if other == pattern => (
                format!(
                    "two rows of `{pattern}` make the {kind} `{name}`{}",
                    numbered(&[*other_row, row])
                ),
                "return each row once with DISTINCT, or name a column that differs",
            ),
            Some(Owner::Row(other, _)) => (
                format!(
                    "a row of `{other}` and a row of `{pattern}` both make the {kind} `{name}`{}",
                    numbered(&[row])
                ),
                "give one of the templates another name",
            ),
        };
        Err(problem(template.for_each(), message, help.to_owned()))
    }

    /// Adds the objects that stay although their rows have vanished. Returns what to say about all of them.
    fn hold(&mut self, is_needed: impl Fn(&str) -> bool) -> Vec<String> {
        let mut warnings = Vec::new();
        let (templates, rows, keeps) = (self.templates, self.rows, self.keeps.clone());
        for (at, ((template, rows), keeps)) in templates.iter().zip(rows).zip(keeps).enumerate() {
            let had = self.of_template(template).count();
            // A name that another object has now is not held: the held object is replaced.
            let vanished: Vec<T::Object> = self
                .of_template(template)
                .filter(|object| !self.owners.contains_key(T::name_of(object)))
                .cloned()
                .collect();
            let held = match rows {
                Rows::Queried(rows) | Rows::QueriedOrKept(rows) if !keeps => {
                    let decided = removed(template, vanished, had, rows, &is_needed);
                    warnings.extend(decided.warnings);
                    decided.held
                }
                _ => vanished,
            };
            if let Some(made) = self.made.get_mut(at) {
                made.extend(held);
                made.sort_by(|a, b| T::name_of(a).cmp(T::name_of(b)));
            }
        }
        warnings
    }
}

/// The numbers of rows that are known, in parentheses, with a space before them.
fn numbered(rows: &[Option<usize>]) -> String {
    let known: Vec<usize> = rows.iter().copied().flatten().collect();
    match known.is_empty() {
        true => String::new(),
        false => format!(" ({})", TemplateRows::shown(&known)),
    }
}

/// What to say of a template that keeps its objects because of a problem.
pub(crate) fn kept(template: &Pattern, problem: &Problem) -> String {
    let Problem { file, line, message, .. } = problem;
    format!(
        "the template `{template}` keeps the objects that it has: {message} ({}:{line})",
        file.display()
    )
}

fn problem(for_each: &ForEach, message: String, help: String) -> Problem {
    Problem::in_sql(&for_each.sql_at, (1, 1), "for_each", message, Some(help))
}

/// The audiences that syncs, serving stores and ad groups refer to.
fn referred(spec: &Spec) -> BTreeSet<String> {
    let of_ad_groups = spec.ad_groups.iter().flat_map(|a| a.include.iter().chain(&a.exclude));
    let of_stores = spec.serving_stores.iter().flat_map(|store| store.audiences.iter().flatten());
    let all = spec.syncs.iter().map(|sync| &sync.audience).chain(of_ad_groups).chain(of_stores);
    all.map(ToString::to_string).collect()
}

/// References to audiences and destinations that do not exist.
fn missing(spec: &Spec) -> Vec<Problem> {
    let audiences: BTreeSet<&str> = spec.audiences.iter().map(|a| a.name.as_str()).collect();
    let destinations: BTreeSet<&str> = spec.destinations.iter().map(|d| d.name.as_str()).collect();
    let mut problems = Vec::new();
    for sync in &spec.syncs {
        let (kind, name) = if !audiences.contains(sync.audience.as_str()) {
            ("audience", sync.audience.as_str())
        } else if !destinations.contains(sync.destination.as_str()) {
            ("destination", sync.destination.as_str())
        } else {
            continue;
        };
        let message = format!("sync `{}`: there is no {kind} named `{name}`", sync.name);
        let help = format!("declare the {kind}, or leave the row out");
        problems.push(located(spec, sync, message, help));
    }
    let of_ad_groups = spec.ad_groups.iter().flat_map(|ad_group| {
        let named = ad_group.include.iter().chain(&ad_group.exclude);
        named.map(move |name| ("ad group", ad_group.name.as_str(), name.as_str()))
    });
    let of_stores = spec.serving_stores.iter().flat_map(|store| {
        let named = store.audiences.iter().flatten();
        named.map(move |name| ("serving store", store.name.as_str(), name.as_str()))
    });
    for (kind, of, name) in of_ad_groups.chain(of_stores) {
        if audiences.contains(name) {
            continue;
        }
        let made_by = spec.audience_templates.iter().find(|t| t.name.could_make(name));
        let message = format!(
            "{kind} `{of}`: there is no audience named `{name}`: no row of a template makes it"
        );
        let help = "refer to another audience, or return its row".to_owned();
        problems.extend(made_by.map(|t| problem(&t.for_each, message, help)));
    }
    problems.truncate(MAX_PROBLEMS);
    problems
}

/// A problem of a sync, where it comes from: its template, or its identifiers' SQL.
fn located(spec: &Spec, sync: &Sync, message: String, help: String) -> Problem {
    let template = sync.made_from.as_ref().and_then(|made_from| {
        spec.sync_templates.iter().find(|template| template.name == made_from.template)
    });
    match template {
        Some(template) => problem(&template.for_each, message, help),
        None => Problem::in_sql(&sync.identifiers.sql_at, (1, 1), "syncs", message, Some(help)),
    }
}

/// A sync, with the template that made it.
fn described(sync: &Sync) -> String {
    match &sync.made_from {
        Some(from) => format!("`{}` (a row of `{}`)", sync.name, from.template),
        None => format!("`{}`", sync.name),
    }
}

/// Syncs that write to one audience of a platform: each would remove the users of the other. Destinations with one
/// account have the same audiences.
fn same_on_platform(spec: &Spec) -> Vec<Problem> {
    let accounts = spec.destinations.iter().map(|of| (of.name.as_str(), of.account()));
    let accounts: BTreeMap<&str, String> = accounts.collect();
    let mut first: BTreeMap<(Option<&str>, &str, String), &Sync> = BTreeMap::new();
    let mut problems = Vec::new();
    for sync in &spec.syncs {
        let name = sync.name_on_platform();
        let destination = sync.destination.as_str();
        let account = accounts.get(destination).map_or(destination, String::as_str);
        let key = (sync.destination.workspace(), account, name.clone());
        let Some(other) = first.insert(key, sync) else { continue };
        let place = match other.destination == sync.destination {
            true => format!(" of `{destination}`"),
            false => {
                let other = &other.destination;
                format!(": the destinations `{other}` and `{destination}` have one account")
            }
        };
        let message = format!(
            "the syncs {} and {} both write to the platform's audience `{name}`{place}",
            described(other),
            described(sync)
        );
        let help = "give one of them its own `platform_name`".to_owned();
        problems.push(located(spec, sync, message, help));
    }
    problems.truncate(MAX_PROBLEMS);
    problems
}

/// A spec whose copies of SQL are too large to be stored.
fn too_large(spec: &Spec) -> Vec<Problem> {
    let made = spec.audiences.iter().filter(|audience| audience.made_from.is_some());
    let audiences: usize = made.map(|audience| audience.sql.len()).sum();
    let made = spec.syncs.iter().filter(|sync| sync.made_from.is_some());
    let syncs: usize = made.map(|sync| sync.identifiers.sql.len()).sum();
    if audiences + syncs <= MAX_COPIED_BYTES {
        return Vec::new();
    }
    let for_each = spec.audience_templates.iter().map(|template| &template.for_each);
    let for_each =
        for_each.chain(spec.sync_templates.iter().map(|template| &template.for_each)).next();
    let message = format!(
        "the SQL of all rows has more than {} MiB, as each has a copy of it",
        MAX_COPIED_BYTES >> 20
    );
    let help = "write shorter SQL, or return fewer rows".to_owned();
    for_each.map(|for_each| problem(for_each, message, help)).into_iter().collect()
}
