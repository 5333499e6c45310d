//! The texts of keys and identifiers: queries that would write numbers otherwise than their files do are refused.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::JoinType;
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, LogicalPlan, WindowFunctionDefinition,
};
use throng_tables::{Layout, OpenTable, shown};

use crate::LakeError;
use crate::shown::shown_column;

/// How many expressions and nodes of a plan are followed.
const MAX_STEPS: usize = 100_000;

/// Refuses the column `at` of keys or identifiers of a plan if an integer and a decimal, or two decimals, meet in it: by
/// UNION, COALESCE or CASE `1` would become `1.0`. So is one that reads a declared decimal whose files write some values
/// otherwise. What the SQL converts with CAST has the text of that type.
pub(crate) fn refuse_other_texts(
    plan: &LogicalPlan,
    at: usize,
    tables: &[OpenTable],
) -> Result<(), LakeError> {
    let mut origins = Origins::default();
    origins.of_output(plan, at);
    let column = shown_column(plan.schema().field(at).name(), tables);
    if let Some([a, b]) = &origins.unlike {
        let name = a.column.as_ref().map_or(&*column, |(_, name)| name.as_str());
        let name = shown_column(name, tables);
        let (a, b) = (a.shown(tables), b.shown(tables));
        return Err(LakeError::Key {
            message: format!(
                "in the column {column} {a} meets {b}: as keys or identifiers, numbers would have another text than in \
                 their files, as `1` and `1.0` differ, and be other users"
            ),
            help: format!(
                "to use the text of the files, declare `columns: {{ {name}: text }}` in the source; for whole numbers \
                 write CAST({name} AS BIGINT) in each place"
            ),
        });
    }
    for OpenTable { name, layout } in tables {
        let is_read = |column: &String| origins.read.contains(&(name.clone(), column.clone()));
        let found = layout.rewritten.iter();
        let found =
            found.filter(|&column| is_decimal(layout, column)).find(|&column| is_read(column));
        if let Some(found) = found {
            let found = layout.header.shown(found);
            return Err(LakeError::Key {
                message: format!(
                    "the column {found} of {name} is declared as a decimal, which would give keys or identifiers another \
                     text than its files: `1` would become `1.00`"
                ),
                help: format!(
                    "to use the text of the files, declare `columns: {{ {found}: text }}` in the source, and CAST it where \
                     the SQL needs a number; to use that of the type, write CAST({found} AS VARCHAR)"
                ),
            });
        }
    }
    Ok(())
}

/// Whether a column has numbers with digits after the point.
pub(crate) fn is_decimal(layout: &Layout, name: &str) -> bool {
    let column = layout.columns.iter().find(|column| column.name == name);
    column.is_some_and(|column| scale(&column.data_type).is_some_and(|scale| scale > 0))
}

/// Digits after the point of a type whose numbers all have the same count of them.
fn scale(of: &DataType) -> Option<i8> {
    match of {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some((*scale).max(0)),
        other => other.is_integer().then_some(0),
    }
}

fn is_text(of: &DataType) -> bool {
    match of {
        DataType::Dictionary(_, value) => is_text(value),
        other => other.is_string(),
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
struct Origin {
    of: DataType,
    /// The table and the name, if it is a column of files.
    column: Option<(String, String)>,
    /// It is a value in the SQL, which is not a user.
    literal: bool,
}

impl Origin {
    fn computed(of: DataType) -> Self {
        Self { of, column: None, literal: false }
    }

    fn shown(&self, tables: &[OpenTable]) -> String {
        let of = shown(&self.of);
        match &self.column {
            Some((table, column)) => format!("{table}.{} ({of})", shown_column(column, tables)),
            None => format!("a value of type {of}"),
        }
    }
}

/// Follows the values of a column to their origins.
#[derive(Debug, Default)]
struct Origins {
    /// The first two origins found that meet and whose texts differ.
    unlike: Option<[Origin; 2]>,
    /// The columns of files that are read as they are: table and name.
    read: BTreeSet<(String, String)>,
    steps: usize,
}

impl Origins {
    /// The origins of an output column of a plan.
    fn of_output(&mut self, plan: &LogicalPlan, at: usize) -> Vec<Origin> {
        self.steps += 1;
        let Some((_, field)) = plan.schema().iter().nth(at).filter(|_| self.steps < MAX_STEPS)
        else {
            return Vec::new();
        };
        match plan {
            LogicalPlan::Projection(p) => self.of_nth(p.expr.iter(), at, &p.input),
            LogicalPlan::Distinct(Distinct::On(on)) => {
                self.of_nth(on.select_expr.iter(), at, &on.input)
            }
            LogicalPlan::Aggregate(aggregate)
                if !aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) =>
            {
                let columns = aggregate.group_expr.iter().chain(&aggregate.aggr_expr);
                self.of_nth(columns, at, &aggregate.input)
            }
            LogicalPlan::Window(window) => {
                match at.checked_sub(window.input.schema().fields().len()) {
                    Some(at) => self.of_nth(window.window_expr.iter(), at, &window.input),
                    None => self.of_output(&window.input, at),
                }
            }
            LogicalPlan::Join(join) => {
                let left = match join.join_type {
                    JoinType::RightSemi | JoinType::RightAnti => 0,
                    _ => join.left.schema().fields().len(),
                };
                match at.checked_sub(left) {
                    Some(at) => self.of_output(&join.right, at),
                    None => self.of_output(&join.left, at),
                }
            }
            LogicalPlan::Union(_) => self.of_unions(plan, at),
            LogicalPlan::RecursiveQuery(query) => {
                let inputs = [&query.static_term, &query.recursive_term];
                let inputs = inputs.map(|input| self.of_output(input, at));
                self.meet(inputs.into())
            }
            LogicalPlan::Filter(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Distinct(Distinct::All(_))
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Repartition(_) => {
                plan.inputs().first().map_or_else(Vec::new, |input| self.of_output(input, at))
            }
            LogicalPlan::TableScan(scan) => {
                let name = &scan.table_name;
                let table = format!("{}.{}", name.schema().unwrap_or_default(), name.table());
                let column = (table, field.name().clone());
                self.read.insert(column.clone());
                let (of, column) = (field.data_type().clone(), Some(column));
                vec![Origin { of, column, literal: false }]
            }
            _ => vec![Origin::computed(field.data_type().clone())],
        }
    }

    /// The origins of an output column of a chain of unions, each of which has the one before as its first input.
    fn of_unions(&mut self, plan: &LogicalPlan, at: usize) -> Vec<Origin> {
        let (mut first, mut others) = (plan, Vec::new());
        // Thousands of them would need as many stack frames.
        loop {
            first = match first {
                LogicalPlan::Union(union) => {
                    let Some((input, rest)) = union.inputs.split_first() else { return Vec::new() };
                    others.push(rest);
                    input.as_ref()
                }
                LogicalPlan::Distinct(Distinct::All(input)) => input.as_ref(),
                _ => break,
            };
        }
        let mut found = self.of_output(first, at);
        for rest in others.into_iter().rev() {
            let mut values = vec![found];
            for input in rest {
                values.push(self.of_output(input, at));
            }
            found = self.meet(values);
        }
        found
    }

    fn of_nth<'e>(
        &mut self,
        mut columns: impl Iterator<Item = &'e Expr>,
        at: usize,
        input: &LogicalPlan,
    ) -> Vec<Origin> {
        columns.nth(at).map_or_else(Vec::new, |expr| self.of_expr(expr, input))
    }

    /// The origins of an expression over the rows of a plan.
    fn of_expr(&mut self, expr: &Expr, input: &LogicalPlan) -> Vec<Origin> {
        self.steps += 1;
        if self.steps >= MAX_STEPS {
            return Vec::new();
        }
        match expr {
            Expr::Alias(alias) => self.of_expr(&alias.expr, input),
            Expr::Column(column) => match input.schema().maybe_index_of_column(column) {
                Some(at) => self.of_output(input, at),
                None => Vec::new(),
            },
            Expr::Literal(value, _) => {
                vec![Origin { of: value.data_type(), column: None, literal: true }]
            }
            Expr::Cast(cast) => vec![Origin::computed(cast.field.data_type().clone())],
            Expr::TryCast(cast) => vec![Origin::computed(cast.field.data_type().clone())],
            Expr::ScalarSubquery(subquery) => self.of_output(&subquery.subquery, 0),
            _ => match passed_on(expr) {
                Some(values) => {
                    let values = values.into_iter().map(|value| self.of_expr(value, input));
                    let values = values.collect();
                    self.meet(values)
                }
                None => {
                    let of = expr.get_type(input.schema()).ok();
                    of.map(Origin::computed).into_iter().collect()
                }
            },
        }
    }

    /// The origins of a column in which values of several ones meet, whose type is that of all of them.
    fn meet(&mut self, values: Vec<Vec<Origin>>) -> Vec<Origin> {
        let mut all: Vec<Origin> = Vec::new();
        for origin in values.into_iter().flatten() {
            if !all.contains(&origin) {
                all.push(origin);
            }
        }
        // A number that meets a text is written as text, in its own form.
        if let Some(text) = all.iter().find(|origin| is_text(&origin.of)) {
            return vec![Origin::computed(text.of.clone())];
        }
        let scales = || all.iter().filter_map(|o| scale(&o.of).map(|scale| (scale, o)));
        let most = scales().max_by_key(|(scale, _)| *scale);
        // A decimal that meets a double loses its zeros.
        let least = match all.iter().find(|origin| origin.of.is_floating()) {
            Some(double) => Some((0, double)),
            None => scales().filter(|(_, o)| !o.literal).min_by_key(|(scale, _)| *scale),
        };
        if let (Some((most, a)), Some((least, b))) = (most, least)
            && most > least
        {
            self.unlike.get_or_insert_with(|| [b.clone(), a.clone()]);
        }
        all
    }
}

/// The values of which an expression returns one; `None` if it computes another.
fn passed_on(expr: &Expr) -> Option<Vec<&Expr>> {
    match expr {
        Expr::Case(case) => {
            let then = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
            Some(then.chain(case.else_expr.as_deref()).collect())
        }
        Expr::ScalarFunction(function) => match function.name() {
            // All of them decide the type.
            "coalesce" | "nvl" | "nvl2" | "nullif" | "greatest" | "least" => {
                Some(function.args.iter().collect())
            }
            _ => None,
        },
        Expr::AggregateFunction(function) => {
            let arguments = function.params.args.iter();
            returns_an_argument(function.func.name()).then(|| arguments.take(1).collect())
        }
        Expr::WindowFunction(window) => {
            let name = match &window.fun {
                WindowFunctionDefinition::AggregateUDF(function) => function.name(),
                WindowFunctionDefinition::WindowUDF(function) => function.name(),
            };
            let arguments = window.params.args.iter().enumerate();
            match name {
                // The second one is the distance, the third one what rows without a neighbour get.
                "lag" | "lead" => {
                    Some(arguments.filter(|(at, _)| *at != 1).map(|(_, e)| e).collect())
                }
                _ => returns_an_argument(name).then(|| arguments.take(1).map(|(_, e)| e).collect()),
            }
        }
        _ => None,
    }
}

/// Whether an aggregate or window function returns one of the values of its first argument.
fn returns_an_argument(function: &str) -> bool {
    matches!(function, "min" | "max" | "first_value" | "last_value" | "nth_value")
}
