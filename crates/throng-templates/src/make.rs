//! One object from one row. Pure.

use throng_model::WorkspaceName;
use throng_spec::{
    Audience, AudienceTemplate, ForEach, MadeFrom, ParameterValue, Pattern, Sync, SyncTemplate,
};

/// A row: its columns with their values.
pub(crate) type Row = [(String, ParameterValue)];

/// Why a row makes no object. Contains columns and no values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unmade {
    pub(crate) message: String,
    pub(crate) help: &'static str,
    /// Whether other rows may make one: then the row is named.
    pub(crate) is_of_row: bool,
}

/// What audience and sync templates have in common.
pub(crate) trait Template {
    type Object: Clone + PartialEq;

    fn name(&self) -> &Pattern;
    fn for_each(&self) -> &ForEach;
    /// Whether this column of a row is a parameter of the SQL.
    fn has_parameter(&self, column: &str) -> bool;
    /// The object of a row.
    fn make(&self, row: &Row) -> Result<Self::Object, Unmade>;
    fn name_of(object: &Self::Object) -> &str;
    fn made_from(object: &Self::Object) -> Option<&MadeFrom>;
    fn made_from_mut(object: &mut Self::Object) -> Option<&mut MadeFrom>;
}

impl Template for AudienceTemplate {
    type Object = Audience;

    fn name(&self) -> &Pattern {
        &self.name
    }

    fn for_each(&self) -> &ForEach {
        &self.for_each
    }

    fn has_parameter(&self, column: &str) -> bool {
        self.audience.names_parameter(column)
    }

    fn make(&self, row: &Row) -> Result<Audience, Unmade> {
        let description =
            self.description.as_ref().map(|pattern| fill(pattern, row)).transpose()?;
        Ok(Audience {
            name: name(&self.name, row)?,
            description: description.filter(|text| !text.trim().is_empty()),
            made_from: Some(made_from(&self.name, row)),
            ..self.audience.clone()
        })
    }

    fn name_of(object: &Audience) -> &str {
        object.name.as_str()
    }

    fn made_from(object: &Audience) -> Option<&MadeFrom> {
        object.made_from.as_ref()
    }

    fn made_from_mut(object: &mut Audience) -> Option<&mut MadeFrom> {
        object.made_from.as_mut()
    }
}

impl Template for SyncTemplate {
    type Object = Sync;

    fn name(&self) -> &Pattern {
        &self.name
    }

    fn for_each(&self) -> &ForEach {
        &self.for_each
    }

    fn has_parameter(&self, _: &str) -> bool {
        false
    }

    fn make(&self, row: &Row) -> Result<Sync, Unmade> {
        let platform_name =
            self.platform_name.as_ref().map(|pattern| fill(pattern, row)).transpose()?;
        if platform_name.as_ref().is_some_and(|name| name.trim().is_empty()) {
            return Err(Unmade {
                message: "`platform_name` of a row is empty".to_owned(),
                help: "leave such rows out, or use another column",
                is_of_row: true,
            });
        }
        Ok(Sync {
            name: name(&self.name, row)?,
            audience: name(&self.audience, row)?,
            destination: name(&self.destination, row)?,
            platform_name,
            made_from: Some(made_from(&self.name, row)),
            ..self.sync.clone()
        })
    }

    fn name_of(object: &Sync) -> &str {
        object.name.as_str()
    }

    fn made_from(object: &Sync) -> Option<&MadeFrom> {
        object.made_from.as_ref()
    }

    fn made_from_mut(object: &mut Sync) -> Option<&mut MadeFrom> {
        object.made_from.as_mut()
    }
}

fn made_from(template: &Pattern, row: &Row) -> MadeFrom {
    MadeFrom { template: template.clone(), values: row.to_vec(), held: false }
}

/// The value of a column; names of columns do not differ in case only.
pub(crate) fn value<'r>(row: &'r Row, column: &str) -> Option<&'r ParameterValue> {
    let same = |(name, _): &&(String, ParameterValue)| name.eq_ignore_ascii_case(column);
    row.iter().find(same).map(|(_, value)| value)
}

fn fill(pattern: &Pattern, row: &Row) -> Result<String, Unmade> {
    let filled = pattern.fill(|column| value(row, column).map(ToString::to_string));
    filled.map_err(|column| Unmade {
        message: format!("the query returns no column `{column}`, which `{pattern}` names"),
        help: "name a column of `for_each`, or return it there",
        is_of_row: false,
    })
}

fn name<T: TryFrom<String>>(pattern: &Pattern, row: &Row) -> Result<T, Unmade> {
    let filled = fill(pattern, row)?;
    let workspace = filled.split_once(':').map(|(workspace, _)| workspace);
    // A value with the separator would make an object of another workspace.
    if workspace != pattern.workspace() {
        return Err(not_a_name(pattern, row));
    }
    T::try_from(filled).map_err(|_| not_a_name(pattern, row))
}

/// Says which column makes no name, without its value.
fn not_a_name(pattern: &Pattern, row: &Row) -> Unmade {
    // Names have the same characters in every kind of object, and those of workspaces have no separator.
    let is_name = |text: &str| WorkspaceName::try_from(format!("a{text}")).is_ok();
    let wrong = pattern.columns().find(|column| {
        value(row, column).is_none_or(|value| {
            let text = value.to_string();
            text.is_empty() || !is_name(&text)
        })
    });
    let message = match wrong {
        Some(column) => format!(
            "the value of the column `{column}` cannot be a part of a name, in a row of `{pattern}`"
        ),
        None => format!("a row of `{pattern}` makes no name"),
    };
    let help = "names have 1 to 128 of a-z, 0-9, `-`, `_` and `.`, and start with a letter or a digit: \
                return such a column, for example lower(…)";
    Unmade { message, help, is_of_row: true }
}
