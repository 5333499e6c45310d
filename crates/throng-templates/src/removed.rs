//! What happens to the objects of rows that have vanished. Pure.

use throng_spec::{TemplateRows, WhenRemoved};

use crate::make::{Template, value};

/// Names in a warning, at most.
const MAX_SHOWN: usize = 10;

/// The objects whose rows have vanished: which are held, and what to say about them.
pub(crate) struct Removed<O> {
    pub(crate) held: Vec<O>,
    pub(crate) warnings: Vec<String>,
}

/// Decides about the objects of a template that the applied spec has and that no row makes.
///
/// They stay, unless the template archives them, and its rows are not suspiciously few: an emptied table archives
/// nothing, nor does one that lost more than `max_removed_percent`. One that `is_needed` stays too, because
/// something in the spec refers to it.
pub(crate) fn removed<T: Template>(
    template: &T,
    vanished: Vec<T::Object>,
    had: usize,
    rows: &TemplateRows,
    is_needed: impl Fn(&str) -> bool,
) -> Removed<T::Object> {
    if vanished.is_empty() {
        let nothing = rows.rows.is_empty().then(|| {
            let pattern = template.name();
            format!("template `{pattern}`: the query returns no rows, so it makes nothing")
        });
        return Removed { held: Vec::new(), warnings: nothing.into_iter().collect() };
    }
    let for_each = template.for_each();
    let count = vanished.len();
    let suspicious = match for_each.when_removed {
        WhenRemoved::Hold => None,
        WhenRemoved::Archive if rows.rows.is_empty() => {
            Some("the query returns no rows".to_owned())
        }
        WhenRemoved::Archive => {
            let percent = for_each.max_removed_percent;
            let allowed = (had as u128) * u128::from(percent);
            (count as u128 * 100 > allowed).then(|| {
                format!(
                    "{count} of {had} rows are gone, more than max_removed_percent of {percent}"
                )
            })
        }
    };
    let holds_all = for_each.when_removed == WhenRemoved::Hold || suspicious.is_some();
    let (kept, archived): (Vec<_>, Vec<_>) =
        vanished.into_iter().partition(|object| holds_all || is_needed(T::name_of(object)));
    let held: Vec<_> =
        kept.into_iter().map(|object| hold(template, &rows.columns, object)).collect();
    let mut warnings = Vec::new();
    let pattern = template.name();
    if !held.is_empty() {
        let names = names::<T>(&held);
        warnings.push(match suspicious {
            Some(why) => format!("template `{pattern}`: {why}; all are held: {names}"),
            None => format!("template `{pattern}`: held without a row: {names}"),
        });
    }
    if !archived.is_empty() {
        let names = names::<T>(&archived);
        warnings.push(format!("template `{pattern}`: archived, as their rows are gone: {names}"));
    }
    Removed { held, warnings }
}

/// The object as the template makes it now, from the row that it had. If the template needs other columns now, the
/// object stays as it was: its SQL would have a parameter without a value.
fn hold<T: Template>(template: &T, columns: &[String], object: T::Object) -> T::Object {
    let row = T::made_from(&object).map(|made_from| made_from.values.clone()).unwrap_or_default();
    let lacks = |column: &String| template.has_parameter(column) && value(&row, column).is_none();
    let remade = match columns.iter().any(lacks) {
        true => None,
        false => template.make(&row).ok().filter(|new| T::name_of(new) == T::name_of(&object)),
    };
    let mut held = remade.unwrap_or(object);
    if let Some(made_from) = T::made_from_mut(&mut held) {
        made_from.held = true;
    }
    held
}

fn names<T: Template>(objects: &[T::Object]) -> String {
    let shown: Vec<String> =
        objects.iter().take(MAX_SHOWN).map(|object| format!("`{}`", T::name_of(object))).collect();
    match objects.len().saturating_sub(MAX_SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
