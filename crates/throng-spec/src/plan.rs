//! The differences between two checked specs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use throng_model::{Currency, Micros, ServingStoreName};

use crate::limits::without_dots;
use crate::{AdGroup, ObjectKind, Pattern, Prediction, Pricing, Spec, Sync};

/// The differences, by kind in the order of a spec, then by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// One entry per object that differs.
    pub changes: Vec<Change>,
    /// What to know before applying it: [`warnings`], and what happens to removed objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Warnings about settings that are allowed but probably not intended: prices above the daily
/// budget, rates of 0, parameters of templates in quotes, and more syncs than an account can have audiences.
pub fn warnings(spec: &Spec) -> Vec<String> {
    let above = |ad_group: &&AdGroup| match ad_group.pricing {
        Pricing::PerThousand => ad_group.price.0 / 1_000 > ad_group.daily_budget.0,
        Pricing::PerImpression | Pricing::PerClick => ad_group.price > ad_group.daily_budget,
    };
    let advertisers = spec.advertisers_of_campaigns();
    let warning = |ad_group: &AdGroup| {
        let currency = advertisers.get(&ad_group.campaign).map(|advertiser| advertiser.currency);
        format!(
            "ad group `{}`: its price of {} is above its daily budget of {}, so that one ad spends more \
             than the whole budget; a price of a thousand impressions is written with `per: thousand`",
            ad_group.name,
            money(ad_group.price, currency),
            money(ad_group.daily_budget, currency)
        )
    };
    let unpredicted = spec.ad_groups.iter().filter(|ad_group| {
        let by_click = matches!(ad_group.pricing, Pricing::PerClick);
        // Rates are kept in billionths.
        let is_zero = |rate: f64| rate < 0.5e-9;
        let is_zero =
            is_zero(ad_group.impression_rate) || (by_click && is_zero(ad_group.action_rate));
        is_zero && ad_group.prediction == Prediction::InFlight
    });
    let unpredicted = unpredicted.map(|ad_group| {
        format!(
            "ad group `{}`: with a rate of 0, or one below a billionth, nothing is ever in flight, so that its \
             spend is not predicted; give the rate that is expected before one is learned",
            ad_group.name
        )
    });
    let warnings = spec.ad_groups.iter().filter(above).map(warning).chain(unpredicted);
    warnings.chain(quoted_parameters(spec)).chain(too_many_audiences(spec)).collect()
}

/// Custom audiences that an ad account of Meta can have, whoever made them.
const MAX_META_AUDIENCES: u64 = 500;

/// Warnings about accounts of Meta with more syncs than audiences that such an account can have.
fn too_many_audiences(spec: &Spec) -> Vec<String> {
    let of_meta =
        spec.destinations.iter().filter(|of| matches!(of.platform, crate::Platform::Meta(_)));
    let accounts: HashMap<_, _> = of_meta.map(|of| (&of.name, of.account())).collect();
    let mut syncs: BTreeMap<&str, u64> = BTreeMap::new();
    for account in spec.syncs.iter().filter_map(|sync| accounts.get(&sync.destination)) {
        *syncs.entry(account.as_str()).or_default() += 1;
    }
    let too_many = syncs.into_iter().filter(|(_, count)| *count > MAX_META_AUDIENCES);
    let warning = |(account, count): (&str, u64)| {
        format!(
            "account `{account}`: {} send to it, and an ad account of Meta has at most {MAX_META_AUDIENCES} \
             audiences: Meta refuses to create the others. Divide the syncs between several accounts",
            throng_model::counted(count, "sync")
        )
    };
    too_many.map(warning).collect()
}

/// Warnings about SQL of templates with a parameter in quotes: it is a text there, which no row of the data has.
fn quoted_parameters(spec: &Spec) -> impl Iterator<Item = String> + '_ {
    spec.audience_templates.iter().filter_map(|template| {
        let name = quoted_parameter(&template.audience.sql)?;
        Some(format!(
            "audience `{}`: its SQL has '${name}' in quotes, which is that text, and not the value of the column \
             `{name}` of a row; write ${name} without quotes",
            template.name
        ))
    })
}

/// The name in the first `'$name'` of SQL.
fn quoted_parameter(sql: &str) -> Option<&str> {
    sql.split("'$").skip(1).find_map(|rest| {
        let (name, behind) = rest.split_at(rest.find(|c: char| !c.is_alphanumeric() && c != '_')?);
        let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
        (is_name && behind.starts_with('\'')).then_some(name)
    })
}

pub(crate) fn money(amount: Micros, currency: Option<Currency>) -> String {
    match currency {
        Some(currency) => format!("{amount} {currency}"),
        None => amount.to_string(),
    }
}

/// One object that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The kind of object.
    pub kind: ObjectKind,
    /// Its name; `node` for the node settings.
    pub name: String,
    /// The currency of its amounts in the new spec, if it is an ad group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// The currency in the old spec, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency_before: Option<Currency>,
    /// The name pattern of the template whose row makes it, or has made it if it is removed. `None` if the spec has it
    /// without a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The action on it.
    pub action: Action,
}

/// The action on an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is added.
    Added,
    /// It is changed, in at least one field.
    Changed(Vec<FieldChange>),
    /// It is removed.
    Removed,
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Its path, such as `daily_budget` or `guard.max_shrink_percent`.
    pub field: String,
    /// JSON of the checked value; `null` if it was not set. Money is in micros.
    pub old: Value,
    /// JSON of the checked value; `null` if it is not set. Money is in micros.
    pub new: Value,
}

impl Plan {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Compares two specs by the names of their objects. `None` is the empty spec. The position of an
/// SQL text in its file does not count. Costs one JSON value per object.
pub fn plan(old: Option<&Spec>, new: &Spec) -> Plan {
    let mut changes = Vec::new();
    macro_rules! compare {
        ($kind:ident, $field:ident) => {
            compare(
                ObjectKind::$kind,
                old.map(|spec| spec.$field.as_slice()).unwrap_or_default(),
                &new.$field,
                |object| object.name.as_str(),
                &mut changes,
            );
        };
    }
    compare!(Source, sources);
    compare!(Source, warehouses);
    compare!(Schema, schemas);
    compare!(Audience, audiences);
    compare!(Audience, audience_templates);
    compare!(Destination, destinations);
    compare!(Sync, syncs);
    compare!(Sync, sync_templates);
    compare!(ServingStore, serving_stores);
    compare!(Advertiser, advertisers);
    compare!(Campaign, campaigns);
    compare!(AdGroup, ad_groups);
    let nodes: Vec<_> = old.iter().map(|spec| spec.node.clone()).collect();
    compare(ObjectKind::Node, &nodes, std::slice::from_ref(&new.node), |_| "node", &mut changes);
    name_currencies(&mut changes, old, new);
    name_templates(&mut changes, old, new);
    let mut warnings = warnings(new);
    warnings.extend(changed_currencies(old, new));
    warnings.extend(moved_to_another_currency(old, new));
    warnings.extend(renamed_on_the_platform(old, new));
    warnings.extend(removed_workspaces(old, new));
    let kept = new.ad_groups.iter().map(|ad_group| &ad_group.name).collect::<BTreeSet<_>>();
    let before = old.map(|spec| spec.ad_groups.as_slice()).unwrap_or_default();
    warnings.extend(before.iter().filter(|before| !kept.contains(&before.name)).map(|removed| {
        format!(
            "ad group `{}` is removed: its events are refused; its spend is kept for 8 days, in \
             case it is added again in the same currency",
            removed.name
        )
    }));
    let stores = old.map(|spec| spec.serving_stores.as_slice()).unwrap_or_default();
    let is_kept =
        |name: &ServingStoreName| new.serving_stores.iter().any(|store| store.name == *name);
    warnings.extend(stores.iter().filter(|store| !is_kept(&store.name)).map(|removed| {
        format!(
            "serving store `{}` is removed: what was written to it stays there and is not updated",
            removed.name
        )
    }));
    Plan { changes, warnings }
}

/// Warnings about syncs with another name for their audience on the platform.
fn renamed_on_the_platform(old: Option<&Spec>, new: &Spec) -> Vec<String> {
    let before = |sync: &Sync| old?.syncs.iter().find(|before| before.name == sync.name);
    let renamed = |sync: &&Sync| {
        before(sync).is_some_and(|before| before.name_on_platform() != sync.name_on_platform())
    };
    let warning = |sync: &Sync| {
        format!(
            "sync `{0}`: an existing audience on the platform keeps its name; `throng sync recreate {0}` \
             creates one with the new name",
            sync.name
        )
    };
    new.syncs.iter().filter(renamed).map(warning).collect()
}

/// Warnings about workspaces that no longer have an object.
fn removed_workspaces(old: Option<&Spec>, new: &Spec) -> Vec<String> {
    let (before, now) = (old.map(Spec::workspaces).unwrap_or_default(), new.workspaces());
    let warning = |name: &&str| {
        format!(
            "workspace `{name}` is removed: its ingested rows, its rows in quarantine and its tokens stay; under \
             another name everything of it is built and sent again"
        )
    };
    before.difference(&now).map(warning).collect()
}

/// Warnings about advertisers that get another currency: one about their ad groups that stay, one about those that are
/// added, which may have been removed before.
fn changed_currencies(old: Option<&Spec>, new: &Spec) -> Vec<String> {
    let Some(old) = old else { return Vec::new() };
    let known: BTreeSet<_> = old.ad_groups.iter().map(|ad_group| &ad_group.name).collect();
    let advertisers = new.advertisers_of_campaigns();
    let mut warnings = Vec::new();
    for advertiser in &new.advertisers {
        let before = old.advertisers.iter().find(|before| before.name == advertiser.name);
        let Some(before) = before.filter(|before| before.currency != advertiser.currency) else {
            continue;
        };
        let (name, from, to) = (&advertiser.name, before.currency, advertiser.currency);
        let is_of = |ad_group: &&AdGroup| {
            advertisers.get(&ad_group.campaign).is_some_and(|of| of.name == advertiser.name)
        };
        let (stay, added): (Vec<_>, Vec<_>) =
            new.ad_groups.iter().filter(is_of).partition(|ad_group| known.contains(&ad_group.name));
        if !stay.is_empty() || added.is_empty() {
            warnings.push(format!(
                "advertiser `{name}`: what its ad groups have spent in {from} is not converted, and counts as {to}"
            ));
        }
        if !added.is_empty() {
            warnings.push(format!(
                "advertiser `{name}`: ad groups that are added again begin without what they have spent in {from}; \
                 for 8 days after they were removed they get it back with that currency"
            ));
        }
    }
    warnings
}

/// Warnings about ad groups that get another currency with another campaign or advertiser.
fn moved_to_another_currency(old: Option<&Spec>, new: &Spec) -> Vec<String> {
    let Some(old) = old else { return Vec::new() };
    let old_ad_groups: HashMap<_, _> = old.ad_groups.iter().map(|a| (&a.name, a)).collect();
    let old_advertisers = old.advertisers_of_campaigns();
    let advertisers = new.advertisers_of_campaigns();
    let warning = |now: &AdGroup| {
        let before = old_advertisers.get(&old_ad_groups.get(&now.name)?.campaign)?;
        let after = advertisers.get(&now.campaign)?;
        let (from, to) = (before.currency, after.currency);
        let moved = from != to && before.name != after.name;
        moved.then(|| {
            format!(
                "ad group `{}`: what it has spent in {from} is not converted, and counts as {to}",
                now.name
            )
        })
    };
    new.ad_groups.iter().filter_map(warning).collect()
}

/// Sets the currencies of the amounts of changed ad groups.
fn name_currencies(changes: &mut [Change], old: Option<&Spec>, new: &Spec) {
    let of_spec = |spec: &Spec| -> BTreeMap<String, Option<Currency>> {
        let advertisers = spec.advertisers_of_campaigns();
        let currency = |a: &AdGroup| advertisers.get(&a.campaign).map(|found| found.currency);
        spec.ad_groups.iter().map(|a| (a.name.to_string(), currency(a))).collect()
    };
    let (before, now) = (old.map(of_spec).unwrap_or_default(), of_spec(new));
    for change in changes.iter_mut().filter(|change| change.kind == ObjectKind::AdGroup) {
        change.currency = now.get(&change.name).copied().flatten();
        let before = before.get(&change.name).copied().flatten();
        change.currency_before =
            before.filter(|before| change.currency.is_some_and(|currency| currency != *before));
    }
}

/// Sets the templates of the objects that rows make.
fn name_templates(changes: &mut [Change], old: Option<&Spec>, new: &Spec) {
    let (before, now) = (old.map(templates_of).unwrap_or_default(), templates_of(new));
    for change in changes {
        let made = if change.action == Action::Removed { &before } else { &now };
        let template = made.get(&(change.kind, change.name.as_str()));
        change.template = template.map(|template| template.as_str().to_owned());
    }
}

/// The template of each object that a row makes, by kind and name.
fn templates_of(spec: &Spec) -> BTreeMap<(ObjectKind, &str), &Pattern> {
    let audiences = spec.audiences.iter().filter_map(|audience| {
        let made_from = audience.made_from.as_ref()?;
        Some(((ObjectKind::Audience, audience.name.as_str()), &made_from.template))
    });
    let syncs = spec.syncs.iter().filter_map(|sync| {
        let made_from = sync.made_from.as_ref()?;
        Some(((ObjectKind::Sync, sync.name.as_str()), &made_from.template))
    });
    audiences.chain(syncs).collect()
}

fn compare<T: Serialize>(
    kind: ObjectKind,
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> &str,
    changes: &mut Vec<Change>,
) {
    let mut pairs: BTreeMap<&str, (Option<&T>, Option<&T>)> = BTreeMap::new();
    for object in old {
        pairs.entry(name(object)).or_default().0 = Some(object);
    }
    for object in new {
        pairs.entry(name(object)).or_default().1 = Some(object);
    }
    for (name, pair) in pairs {
        let action = match pair {
            (Some(old), Some(new)) => {
                let fields = field_changes(&fields_of(old), &fields_of(new));
                if fields.is_empty() {
                    continue;
                }
                Action::Changed(fields)
            }
            (None, _) => Action::Added,
            (Some(_), None) => Action::Removed,
        };
        changes.push(Change {
            kind,
            name: name.to_owned(),
            currency: None,
            currency_before: None,
            template: None,
            action,
        });
    }
}

fn field_changes(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<FieldChange> {
    let gone = old.keys().filter(|field| !new.contains_key(*field));
    new.keys()
        .chain(gone)
        .filter_map(|field| {
            let value = |of: &Map<String, Value>| of.get(field).cloned().unwrap_or(Value::Null);
            let (old, new) = (value(old), value(new));
            (old != new).then(|| FieldChange { field: field.clone(), old, new })
        })
        .collect()
}

/// The fields of an object by path, without positions in files.
fn fields_of(object: &impl Serialize) -> Map<String, Value> {
    let mut fields = Map::new();
    let value = serde_json::to_value(object).unwrap_or(Value::Null);
    flatten("", value, &mut fields);
    fields
}

fn flatten(path: &str, value: Value, fields: &mut Map<String, Value>) {
    let Value::Object(object) = value else {
        fields.insert(path.to_owned(), comparable(path, value));
        return;
    };
    for (field, value) in object {
        // The position of a text in a file, and the root of a source or destination, do not count. Name and prefix
        // of a source's bucket are its path.
        let is_in_path = path == "bucket" && (field == "name" || field == "prefix");
        if field != "sql_at" && !(path.is_empty() && field == "root") && !is_in_path {
            let path = if path.is_empty() { field } else { format!("{path}.{field}") };
            flatten(&path, value, fields);
        }
    }
}

/// A value as it is compared: the folder of a source is the same with `.` and `..` in its path, which it has where the
/// spec names it by a relative path. The source keeps them: behind a symbolic link, `..` leads to another folder.
fn comparable(path: &str, value: Value) -> Value {
    match value {
        // Not the URL of a bucket.
        Value::String(text) if path == "path" && text.starts_with('/') => {
            without_dots(Path::new(&text)).to_string_lossy().into()
        }
        other => other,
    }
}
