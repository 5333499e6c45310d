//! The parameters of queries: those that a route has, and what is refused.

use std::collections::HashMap;

use throng_model::edit_distance;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::schema::{Schema, SchemaType, Type};
use utoipa::openapi::{OpenApi, RefOr};

/// The longest name of a parameter that a message has in full: those of the API are shorter.
const MAX_NAME_CHARACTERS: usize = 40;

/// Values that a parameter of text has, if they are few: route, parameter, values.
const CHOICES: &[(&str, &str, &[&str])] = &[("/v1/budgets/report", "format", REPORT_FORMATS)];

/// The formats of the budget report.
const REPORT_FORMATS: &[&str] = &["json", "csv"];

/// What the maximum number of rows of a page is for.
const ROWS_OF_PAGE: &str = "the number of rows of the page";

/// The parameters of pages that are not texts: page, parameter, values, what it is for.
const OF_PAGES: &[(&str, &str, Values, &str)] = &[
    ("/alerts", "from", Values::Number, "the number of alerts to skip first"),
    ("/alerts", "limit", Values::Number, ROWS_OF_PAGE),
    ("/audiences", "limit", Values::Number, ROWS_OF_PAGE),
    ("/activation/syncs", "limit", Values::Number, ROWS_OF_PAGE),
    ("/activation/runs", "limit", Values::Number, ROWS_OF_PAGE),
    ("/activation/tasks", "limit", Values::Number, ROWS_OF_PAGE),
    ("/budgets/report", "format", Values::OneOf(REPORT_FORMATS), "`json` or `csv`"),
];

/// The parameters that pages read, each of which may be there once.
const NAMES_OF_PAGES: &[&str] = &[
    "search",
    "state",
    "sort",
    "limit",
    "cursor",
    "workspace",
    "from",
    "to",
    "advertiser",
    "format",
    "user",
    "ad_groups",
];

/// A parameter of a route.
#[derive(Debug)]
struct Parameter {
    name: String,
    values: Values,
    /// What it is for, with its values: the help of a value that is wrong.
    description: String,
}

/// The values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// The handler decides.
    Text,
    /// A number from 0 to `u32::MAX`.
    Number,
    /// `true` or `false`.
    Flag,
    /// One of these.
    OneOf(&'static [&'static str]),
}

impl Values {
    fn of(path: &str, name: &str, schema: Option<&RefOr<Schema>>) -> Self {
        if let Some((_, _, values)) =
            CHOICES.iter().find(|choice| (choice.0, choice.1) == (path, name))
        {
            return Self::OneOf(values);
        }
        match schema {
            Some(RefOr::T(Schema::Object(object))) => match &object.schema_type {
                SchemaType::Type(Type::Integer) => Self::Number,
                SchemaType::Type(Type::Boolean) => Self::Flag,
                _ => Self::Text,
            },
            _ => Self::Text,
        }
    }

    fn has(self, value: &str) -> bool {
        match self {
            Self::Text => true,
            Self::Number => value.parse::<u32>().is_ok(),
            Self::Flag => value.parse::<bool>().is_ok(),
            Self::OneOf(values) => values.contains(&value),
        }
    }

    /// What a value of this kind is, after "is not".
    fn wanted(self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Number => "a whole number".to_owned(),
            Self::Flag => "`true` or `false`".to_owned(),
            Self::OneOf(values) => quoted(values, " or "),
        }
    }
}

/// Names in backticks, with `last` before the last one.
fn quoted(names: &[&str], last: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, others)) => format!("{}{last}{end}", others.join(", ")),
        None => String::new(),
    }
}

/// Why a query is refused, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryProblem {
    /// What is wrong, with the name of the parameter.
    pub message: String,
    /// What the route accepts.
    pub help: String,
}

/// The parameters of the queries of every route under `/v1/`, as the description of the API has them. A parameter that
/// is not known would have no effect: the caller would get the rows of all advertisers instead of one, or a batch would
/// be stored in another workspace.
#[derive(Debug)]
pub struct QueryParameters {
    routes: HashMap<String, Vec<Parameter>>,
}

impl QueryParameters {
    /// Those of a description.
    pub fn of(description: &OpenApi) -> Self {
        let routes = description.paths.paths.iter().filter(|(path, _)| path.starts_with("/v1/"));
        let routes = routes.map(|(path, item)| (path.clone(), parameters(path, item)));
        Self { routes: routes.collect() }
    }

    /// Checks the decoded parameters of a query against those of a route, such as `/v1/audiences/{name}`. Routes that
    /// are not described have any.
    ///
    /// # Errors
    /// The first parameter that is unknown, is there twice, or has a value of another kind.
    pub fn check(&self, route: &str, query: &[(String, String)]) -> Result<(), QueryProblem> {
        let Some(known) = self.routes.get(route) else { return Ok(()) };
        for (place, (name, value)) in query.iter().enumerate() {
            let Some(parameter) = known.iter().find(|parameter| parameter.name == *name) else {
                return Err(unknown(route, name, known));
            };
            check_once(name, query.iter().take(place))?;
            check_value(name, value, parameter.values, &parameter.description)?;
        }
        Ok(())
    }
}

/// Checks the decoded parameters of the query of a page, such as `/alerts`. Parameters that pages do not read are ignored:
/// programs that pass links on add some.
///
/// # Errors
/// The first parameter that is there twice, or has a value of another kind.
pub fn check_page_query(path: &str, query: &[(String, String)]) -> Result<(), QueryProblem> {
    for (place, (name, value)) in query.iter().enumerate() {
        if NAMES_OF_PAGES.contains(&name.as_str()) {
            check_once(name, query.iter().take(place))?;
        }
        let typed = OF_PAGES.iter().find(|typed| (typed.0, typed.1) == (path, name.as_str()));
        if let Some((_, _, values, description)) = typed {
            check_value(name, value, *values, description)?;
        }
    }
    Ok(())
}

/// Refuses a parameter that is among those before it.
fn check_once<'a>(
    name: &str,
    mut before: impl Iterator<Item = &'a (String, String)>,
) -> Result<(), QueryProblem> {
    if before.any(|(earlier, _)| earlier == name) {
        return Err(QueryProblem {
            message: format!("the query parameter `{name}` is there twice"),
            help: "send it once".to_owned(),
        });
    }
    Ok(())
}

/// Refuses a value of another kind, without the value.
fn check_value(
    name: &str,
    value: &str,
    values: Values,
    description: &str,
) -> Result<(), QueryProblem> {
    if values.has(value) {
        return Ok(());
    }
    Err(QueryProblem {
        message: format!("the query parameter `{name}` is not {}", values.wanted()),
        help: format!("`{name}`: {description}"),
    })
}

fn unknown(route: &str, name: &str, known: &[Parameter]) -> QueryProblem {
    let mut shown: String = name.chars().take(MAX_NAME_CHARACTERS).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    let message = format!("`{route}` has no query parameter `{shown}`");
    let names: Vec<&str> = known.iter().map(|parameter| parameter.name.as_str()).collect();
    if names.is_empty() {
        return QueryProblem { message, help: "it has none; remove it".to_owned() };
    }
    // The cut name: the distance takes time by the product of the lengths.
    let lower = shown.to_lowercase();
    let nearest = names.iter().map(|name| (edit_distance(name, &lower), *name)).min();
    let near = nearest.filter(|(distance, name)| *distance <= 2 && *distance < name.len());
    let near = near.map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"));
    QueryProblem { message, help: format!("it has {}{near}", quoted(&names, " and ")) }
}

/// The parameters of all methods of a path.
fn parameters(path: &str, item: &PathItem) -> Vec<Parameter> {
    let operations = [&item.get, &item.post].into_iter().flatten();
    operations.flat_map(|operation| of_operation(path, operation)).collect()
}

fn of_operation(path: &str, operation: &Operation) -> Vec<Parameter> {
    let declared = operation.parameters.iter().flatten().filter_map(|declared| match declared {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(parameter),
        _ => None,
    });
    let known = declared.map(|declared| Parameter {
        name: declared.name.clone(),
        values: Values::of(path, &declared.name, declared.schema.as_ref()),
        description: declared.description.clone().unwrap_or_default(),
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde::de::value::{Error, StrDeserializer};

    use super::*;
    use crate::BudgetReportFormat;

    /// The description has a text there, without its values.
    #[test]
    fn the_formats_of_the_budget_report_are_those_that_the_handler_reads() {
        let of_report =
            CHOICES.iter().find(|choice| (choice.0, choice.1) == ("/v1/budgets/report", "format"));
        let (_, _, accepted) = of_report.unwrap();
        // The message names every value: "unknown variant `-`, expected `json` or `csv`".
        let unknown = BudgetReportFormat::deserialize(StrDeserializer::<Error>::new("-"));
        let message = unknown.unwrap_err().to_string();
        let read: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
        assert_eq!(read, *accepted, "{message}");
    }

    fn known() -> QueryParameters {
        let parameter = |name: &str, values| Parameter {
            name: name.to_owned(),
            values,
            description: format!("what `{name}` is for"),
        };
        let ingest = vec![parameter("batch", Values::Text), parameter("workspace", Values::Text)];
        let report = vec![
            parameter("format", Values::OneOf(&["json", "csv"])),
            parameter("limit", Values::Number),
            parameter("force", Values::Flag),
        ];
        let routes =
            [("/v1/ingest/{schema}", ingest), ("/v1/report", report), ("/v1/budgets", vec![])];
        QueryParameters {
            routes: routes.map(|(route, known)| (route.to_owned(), known)).into_iter().collect(),
        }
    }

    fn check(route: &str, query: &[(&str, &str)]) -> Result<(), (String, String)> {
        let pairs = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let checked = known().check(route, &pairs.collect::<Vec<_>>());
        checked.map_err(|problem| (problem.message, problem.help))
    }

    #[test]
    fn unknown_parameters_are_refused_by_name() {
        let route = "/v1/ingest/{schema}";
        assert_eq!(check(route, &[("batch", "1"), ("workspace", "acme")]), Ok(()));
        for name in ["workspce", "Workspace", "work_space"] {
            let (message, help) = check(route, &[("batch", "1"), (name, "acme")]).unwrap_err();
            assert_eq!(message, format!("`{route}` has no query parameter `{name}`"));
            assert_eq!(help, "it has `batch` and `workspace`; did you mean `workspace`?");
        }
        let (_, help) = check(route, &[("tenant", "acme")]).unwrap_err();
        assert_eq!(help, "it has `batch` and `workspace`");
        let (message, help) = check("/v1/budgets", &[("advertiser", "shop")]).unwrap_err();
        assert!(message.contains("`advertiser`") && help == "it has none; remove it", "{message}");
        let long = "x".repeat(100_000);
        let (message, _) = check(route, &[(long.as_str(), "1")]).unwrap_err();
        assert!(message.chars().count() < 120, "{message}");
        assert_eq!(check("/budgets", &[("any", "1")]), Ok(()), "not of the API");
    }

    #[test]
    fn parameters_that_are_there_twice_are_refused() {
        let (message, _) = check("/v1/report", &[("limit", "1"), ("limit", "1")]).unwrap_err();
        assert_eq!(message, "the query parameter `limit` is there twice");
    }

    #[test]
    fn a_page_refuses_values_of_another_kind_and_ignores_parameters_of_others() {
        let check = |path: &str, query: &[(&str, &str)]| {
            let pairs = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            check_page_query(path, &pairs.collect::<Vec<_>>())
        };
        for (path, name) in [
            ("/alerts", "from"),
            ("/alerts", "limit"),
            ("/audiences", "limit"),
            ("/activation/syncs", "limit"),
            ("/activation/runs", "limit"),
            ("/activation/tasks", "limit"),
        ] {
            assert_eq!(
                check(path, &[(name, "7"), ("utm_source", "a"), ("utm_source", "b")]),
                Ok(())
            );
            for value in ["abc", "", "-1", "4294967296"] {
                let problem = check(path, &[(name, value)]).unwrap_err();
                assert_eq!(
                    problem.message,
                    format!("the query parameter `{name}` is not a whole number")
                );
                assert!(
                    problem.help.starts_with(&format!("`{name}`: the number of ")),
                    "{problem:?}"
                );
            }
        }
        assert_eq!(check("/budgets/report", &[("from", "abc"), ("format", "csv")]), Ok(()));
        let format = check("/budgets/report", &[("format", "xlsx")]).unwrap_err();
        assert_eq!(format.message, "the query parameter `format` is not `json` or `csv`");
        let twice = check("/decide", &[("user", "u1"), ("user", "u2")]).unwrap_err();
        assert_eq!(twice.message, "the query parameter `user` is there twice");
    }

    #[test]
    fn values_of_another_kind_are_refused_without_the_value() {
        let right = [("format", "csv"), ("limit", "10"), ("force", "true")];
        assert_eq!(check("/v1/report", &right), Ok(()));
        for (name, value, wanted) in [
            ("format", "xlsx", "`json` or `csv`"),
            ("format", "CSV", "`json` or `csv`"),
            ("limit", "ten", "a whole number"),
            ("limit", "-1", "a whole number"),
            ("limit", "4294967296", "a whole number"),
            ("force", "yes", "`true` or `false`"),
        ] {
            let (message, help) = check("/v1/report", &[(name, value)]).unwrap_err();
            assert_eq!(message, format!("the query parameter `{name}` is not {wanted}"));
            assert_eq!(help, format!("`{name}`: what `{name}` is for"));
        }
    }
}
