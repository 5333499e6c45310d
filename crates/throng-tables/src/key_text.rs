//! The texts of keys and identifiers: queries that would write numbers and timestamps otherwise than their files do are
//! refused.

use std::collections::{BTreeSet, HashMap};

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{JoinType, ScalarValue};
use datafusion::logical_expr::{
    BinaryExpr, Cast, Distinct, Expr, ExprSchemable, LogicalPlan, Operator, Values,
    WindowFunctionDefinition,
};

use super::layout::{Column, Layout, OpenTable, is_text, shown};
use super::refusal::Refusal;
use super::shown_column::shown_column;

/// Refuses the column `at` of keys or identifiers of a plan if an integer and a decimal, or two decimals, meet in it: by
/// UNION, COALESCE or CASE `1` would become `1.0`. So is one in which a number and a text meet and the engine reads the
/// text as a number, one in which a number of several forms or a timestamp becomes a part of a text, and one that reads a
/// declared decimal whose files write some values otherwise. What the SQL converts with CAST has the text of that type.
///
/// # Errors
/// Why the column is refused.
pub fn refuse_other_texts(
    plan: &LogicalPlan,
    at: usize,
    tables: &[OpenTable],
) -> Result<(), Refusal> {
    let mut origins = Origins::over(tables);
    origins.of_output(plan, at);
    let column = shown_column(plan.schema().field(at).name(), tables);
    if let Some(unlike) = &origins.unlike {
        return Err(unlike.refusal(&column, tables));
    }
    for OpenTable { name, layout } in tables {
        let is_read = |column: &String| origins.read.contains(&(name.clone(), column.clone()));
        let found = layout.rewritten.iter();
        let found =
            found.filter(|&column| is_decimal(layout, column)).find(|&column| is_read(column));
        if let Some(found) = found {
            let found = layout.header.shown(found);
            return Err(Refusal {
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
pub fn is_decimal(layout: &Layout, name: &str) -> bool {
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

/// Where a value comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) of: DataType,
    /// The table and the name, if it is a column of files.
    pub(super) column: Option<(String, String)>,
    /// No file has a value of it, and its type is that of a text only for lack of another.
    is_empty: bool,
    /// It is a column of timestamps, and no file has another text of them than the engine.
    is_kept: bool,
}

impl Origin {
    pub(super) fn shown(&self, tables: &[OpenTable]) -> String {
        let of = shown(&self.of);
        match &self.column {
            Some((table, column)) => format!("{table}.{} ({of})", shown_column(column, tables)),
            None => format!("a value of type {of}"),
        }
    }

    /// Whether a Parquet file states its type.
    fn is_stated(&self, tables: &[OpenTable]) -> bool {
        let Some((table, name)) = &self.column else { return false };
        tables.iter().any(|open| open.name == *table && open.layout.is_stated(name))
    }

    /// How the column `name` becomes text: by its declared type, if that decides, or by `cast`.
    fn as_text(&self, name: &str, cast: &str, tables: &[OpenTable]) -> String {
        if self.is_stated(tables) {
            return cast.to_owned();
        }
        format!(
            "to use the text of the files, declare `columns: {{ {name}: text }}` in the source, or {cast}"
        )
    }
}

/// Whether the engine writes the timestamps of a column as its files do, or no file has a text of them.
fn is_kept(column: &Column) -> bool {
    match (&column.data_type, column.written.as_deref()) {
        (DataType::Timestamp(..), None) => !column.converted,
        // The engine leaves zeros of fractions out.
        (DataType::Timestamp(TimeUnit::Second, _), Some(form)) => form == "T",
        _ => false,
    }
}

/// Values whose text would not be that of their files.
#[derive(Debug)]
enum Unlike {
    /// Two numbers that meet.
    Numbers(Origin, Origin),
    /// A text that is read as a number, because it meets one.
    ReadAsNumber { text: Origin, number: Origin },
    /// A number of several forms, or a timestamp, that becomes a text or a part of one.
    WrittenAsText(Origin),
}

impl Unlike {
    fn refusal(&self, column: &str, tables: &[OpenTable]) -> Refusal {
        let name_of = |origin: &Origin| {
            let name = origin.column.as_ref().map_or(column, |(_, name)| name.as_str());
            shown_column(name, tables).into_owned()
        };
        match self {
            Self::Numbers(a, b) => {
                let stated = if b.is_stated(tables) { b } else { a };
                let (name, a, b) = (name_of(a), a.shown(tables), b.shown(tables));
                let cast = format!("for whole numbers write CAST({name} AS BIGINT) in each place");
                Refusal {
                    message: format!(
                        "in the column {column} {a} meets {b}: as keys or identifiers, numbers would have another text \
                         than in their files, as `1` and `1.0` differ, and be other users"
                    ),
                    help: stated.as_text(&name, &cast, tables),
                }
            }
            Self::ReadAsNumber { text, number } => {
                let (name, text) = (name_of(number), text.shown(tables));
                let cast = format!("write CAST({name} AS VARCHAR) where they meet");
                let help = number.as_text(&name, &cast, tables);
                let number = number.shown(tables);
                Refusal {
                    message: format!(
                        "in the column {column} {number} meets {text}, which the engine reads as a number: as keys or \
                         identifiers, `007` would become `7`, and be another user"
                    ),
                    help,
                }
            }
            Self::WrittenAsText(origin) => {
                let (name, shown) = (name_of(origin), origin.shown(tables));
                let (form, whole) = match origin.of.is_floating() {
                    true => (
                        "`5` would become `5.0`",
                        format!(", or CAST({name} AS BIGINT) for whole numbers"),
                    ),
                    false => ("a space would become `T`", String::new()),
                };
                let cast =
                    format!("write CAST({name} AS VARCHAR) to use the text of the type{whole}");
                Refusal {
                    message: format!(
                        "in the column {column} {shown} becomes text, or a part of it: as keys or identifiers, values \
                         would have another text than in their files, as {form}, and be other users"
                    ),
                    help: origin.as_text(&name, &cast, tables),
                }
            }
        }
    }
}

/// Of the origins that meet in a column, those that decide whether their texts differ.
#[derive(Debug, Clone, Default)]
pub(super) struct Texts {
    /// A text. A number that meets it is written as text, in its own form, or the text is read as a number.
    pub(super) text: Option<Origin>,
    /// The number with the most digits after the point, and their count.
    pub(super) most: Option<(i8, Origin)>,
    /// That with the fewest. Not a number in the SQL, which is not a user.
    fewest: Option<(i8, Origin)>,
    /// A floating-point number.
    pub(super) double: Option<Origin>,
    /// A timestamp that files may write otherwise than the engine.
    moment: Option<Origin>,
}

impl Texts {
    fn of(origin: Origin, is_literal: bool) -> Self {
        let number = scale(&origin.of).map(|scale| (scale, origin.clone()));
        let is_moment = matches!(origin.of, DataType::Timestamp(..)) && !origin.is_kept;
        Self {
            fewest: number.clone().filter(|_| !is_literal),
            most: number,
            text: is_text(&origin.of).then(|| origin.clone()),
            moment: is_moment.then(|| origin.clone()),
            double: origin.of.is_floating().then_some(origin),
        }
    }

    fn computed(of: DataType) -> Self {
        Self::of(Origin { of, column: None, is_empty: false, is_kept: false }, false)
    }

    fn of_literal(value: &ScalarValue) -> Self {
        // Such a text is the number that it is read as.
        let is_number = |text: &str| text.parse::<i64>().is_ok_and(|n| n.to_string() == text);
        let of = match value.try_as_str() {
            Some(Some(text)) if is_number(text) => DataType::Int64,
            _ => value.data_type(),
        };
        Self::of(Origin { of, column: None, is_empty: false, is_kept: false }, true)
    }

    fn is_unknown(&self) -> bool {
        self.text.is_none() && self.is_text_only()
    }

    /// Whether no number and no timestamp is among them.
    fn is_text_only(&self) -> bool {
        self.most.is_none() && self.double.is_none() && self.moment.is_none()
    }

    /// A column of files whose values are written otherwise in a text.
    fn rewritten(&self) -> Option<&Origin> {
        let both = [&self.double, &self.moment];
        both.into_iter().flatten().find(|origin| origin.column.is_some())
    }
}

/// An output column of a node of a plan, which stays where it is while it is followed.
type OutputColumn = (*const LogicalPlan, usize);

/// Follows the values of a column to their origins.
#[derive(Debug, Default)]
pub(super) struct Origins<'t> {
    tables: &'t [OpenTable],
    /// The first origins found whose texts are not those of their files.
    unlike: Option<Unlike>,
    /// The columns of files that are read as they are: table and name.
    read: BTreeSet<(String, String)>,
    /// Each column is followed once: the steps would double where an expression names one twice.
    known: HashMap<OutputColumn, Texts>,
}

impl<'t> Origins<'t> {
    /// Of queries over these tables.
    pub(super) fn over(tables: &'t [OpenTable]) -> Self {
        Self { tables, ..Self::default() }
    }

    /// The origins of an output column of a plan.
    pub(super) fn of_output(&mut self, plan: &LogicalPlan, at: usize) -> Texts {
        let column = (std::ptr::from_ref(plan), at);
        if let Some(known) = self.known.get(&column) {
            return known.clone();
        }
        let found = self.of_node(plan, at);
        self.known.insert(column, found.clone());
        found
    }

    fn of_node(&mut self, plan: &LogicalPlan, at: usize) -> Texts {
        let Some((_, field)) = plan.schema().iter().nth(at) else { return Texts::default() };
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
                self.meet(inputs.into(), Some(field.data_type()))
            }
            LogicalPlan::Unnest(unnest) => {
                let found = unnest.dependency_indices.get(at);
                let found = found.map(|at| self.of_output(&unnest.input, *at)).unwrap_or_default();
                if found.is_unknown() { Texts::computed(field.data_type().clone()) } else { found }
            }
            LogicalPlan::Values(values) => self.of_values(values, at, field.data_type()),
            LogicalPlan::Filter(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Distinct(Distinct::All(_))
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Repartition(_) => {
                plan.inputs().first().map_or_else(Texts::default, |input| self.of_output(input, at))
            }
            LogicalPlan::TableScan(scan) => {
                let name = &scan.table_name;
                let table = format!("{}.{}", name.schema().unwrap_or_default(), name.table());
                self.of_file_column(table, field.name(), field.data_type())
            }
            _ => Texts::computed(field.data_type().clone()),
        }
    }

    fn of_file_column(&mut self, table: String, name: &str, of: &DataType) -> Texts {
        let tables = self.tables;
        let open = tables.iter().find(|open| open.name == table);
        let found = open.and_then(|open| open.layout.columns.iter().find(|c| c.name == name));
        let is_empty = found.is_some_and(|column| column.empty);
        let is_kept = found.is_some_and(is_kept);
        let column = (table, name.to_owned());
        self.read.insert(column.clone());
        Texts::of(Origin { of: of.clone(), column: Some(column), is_empty, is_kept }, false)
    }

    /// The origins of an output column of a chain of unions, each of which has the one before as its first input.
    fn of_unions(&mut self, plan: &LogicalPlan, at: usize) -> Texts {
        let (mut first, mut others) = (plan, Vec::new());
        // Thousands of them would need as many stack frames.
        loop {
            first = match first {
                _ if self.known.contains_key(&(std::ptr::from_ref(first), at)) => break,
                LogicalPlan::Union(union) => {
                    let Some((input, rest)) = union.inputs.split_first() else {
                        return Texts::default();
                    };
                    others.push((first, rest));
                    input.as_ref()
                }
                LogicalPlan::Distinct(Distinct::All(input)) => input.as_ref(),
                _ => break,
            };
        }
        let mut found = self.of_output(first, at);
        for (union, rest) in others.into_iter().rev() {
            let mut values = vec![found];
            for input in rest {
                values.push(self.of_output(input, at));
            }
            // A number that meets a text becomes text.
            found = self.meet(values, None);
            self.known.insert((std::ptr::from_ref(union), at), found.clone());
        }
        found
    }

    fn of_nth<'e>(
        &mut self,
        mut columns: impl Iterator<Item = &'e Expr>,
        at: usize,
        input: &LogicalPlan,
    ) -> Texts {
        columns.nth(at).map_or_else(Texts::default, |expr| self.of_expr(expr, input))
    }

    /// The origins of an expression over the rows of a plan.
    pub(super) fn of_expr(&mut self, expr: &Expr, input: &LogicalPlan) -> Texts {
        match expr {
            Expr::Alias(alias) => self.of_expr(&alias.expr, input),
            Expr::Column(column) => match input.schema().maybe_index_of_column(column) {
                Some(at) => self.of_output(input, at),
                None => Texts::default(),
            },
            Expr::Literal(value, _) => Texts::of_literal(value),
            Expr::Cast(cast) => Texts::computed(cast.field.data_type().clone()),
            Expr::TryCast(cast) => Texts::computed(cast.field.data_type().clone()),
            Expr::ScalarSubquery(subquery) => self.of_output(&subquery.subquery, 0),
            _ => match passed_on(expr) {
                Some(values) => {
                    let values = values.into_iter().map(|value| self.of_expr(value, input));
                    let values = values.collect();
                    // By CASE a number that meets a text becomes text.
                    let of = match expr {
                        Expr::Case(_) => None,
                        _ => expr.get_type(input.schema()).ok(),
                    };
                    self.meet(values, of.as_ref().map(value_type))
                }
                None => {
                    let of = expr.get_type(input.schema()).ok();
                    if of.as_ref().is_some_and(is_text) {
                        self.note_parts(expr, input);
                    }
                    of.map(Texts::computed).unwrap_or_default()
                }
            },
        }
    }

    /// The origins of a column of rows that the SQL states.
    fn of_values(&mut self, values: &Values, at: usize, of: &DataType) -> Texts {
        let cells = values.values.iter().filter_map(|row| row.get(at));
        // The engine converts values to the type of all rows.
        let found = cells.filter_map(|cell| match cell {
            Expr::Literal(value, _) => Some(Texts::of_literal(value)),
            Expr::Cast(Cast { expr, .. }) => match expr.as_ref() {
                Expr::Literal(value, _) => Some(Texts::of_literal(value)),
                _ => None,
            },
            _ => None,
        });
        let found: Vec<Texts> = found.collect();
        let is_written =
            |cell: &Expr| matches!(cell, Expr::Literal(value, _) if value.data_type().is_numeric());
        if values.values.iter().filter_map(|row| row.get(at)).any(is_written) {
            self.meet(found, Some(of));
        }
        Texts::computed(of.clone())
    }

    /// Notes a column of files that becomes a part of a text in another form than in its files.
    fn note_parts(&mut self, expr: &Expr, input: &LogicalPlan) {
        let (is_joined, parts): (bool, Vec<&Expr>) = match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
                (true, vec![left.as_ref(), right.as_ref()])
            }
            Expr::ScalarFunction(function) => match function.name() {
                "concat" | "concat_ws" => (true, function.args.iter().collect()),
                "upper" | "lower" | "btrim" | "ltrim" | "rtrim" => {
                    (false, function.args.iter().collect())
                }
                _ => return,
            },
            _ => return,
        };
        for part in parts {
            let part = self.of_expr(part, input);
            if let Some(origin) = part.rewritten().filter(|_| is_joined) {
                self.unlike.get_or_insert_with(|| Unlike::WrittenAsText(origin.clone()));
            }
        }
    }

    /// The origins of a column in which values of several ones meet, whose type is that of all of them. `of`: this type, if
    /// a text may be read as a number.
    fn meet(&mut self, values: Vec<Texts>, of: Option<&DataType>) -> Texts {
        let mut all = Texts::default();
        for value in values {
            let before = all.text.clone();
            // Of the texts, one that has values.
            all.text = all.text.filter(|text| !text.is_empty).or(value.text).or(before);
            all.double = all.double.or(value.double);
            all.moment = all.moment.or(value.moment);
            if let Some((scale, _)) = &value.most
                && all.most.as_ref().is_none_or(|(most, _)| scale > most)
            {
                all.most = value.most;
            }
            if let Some((scale, _)) = &value.fewest
                && all.fewest.as_ref().is_none_or(|(fewest, _)| scale < fewest)
            {
                all.fewest = value.fewest;
            }
        }
        let is_numeric = of.is_some_and(DataType::is_numeric);
        // No value of it is read as a number.
        all.text = all.text.filter(|text| !(text.is_empty && is_numeric));
        if let Some(text) = &all.text {
            if let Some(of) = of.filter(|of| of.is_numeric()) {
                let number = all.most.as_ref().map(|(_, origin)| origin).or(all.double.as_ref());
                if let Some(number) = number {
                    self.unlike.get_or_insert_with(|| Unlike::ReadAsNumber {
                        text: text.clone(),
                        number: number.clone(),
                    });
                }
                return Texts::computed(of.clone());
            }
            if let Some(origin) = all.rewritten() {
                self.unlike.get_or_insert_with(|| Unlike::WrittenAsText(origin.clone()));
            }
            let is_empty = text.is_empty && all.is_text_only();
            let of = text.of.clone();
            return Texts::of(Origin { of, column: None, is_empty, is_kept: false }, false);
        }
        // A decimal that meets a double loses its zeros.
        let fewest = match &all.double {
            Some(double) => Some((0, double)),
            None => all.fewest.as_ref().map(|(scale, origin)| (*scale, origin)),
        };
        if let (Some((most, a)), Some((fewest, b))) = (&all.most, fewest)
            && *most > fewest
        {
            self.unlike.get_or_insert_with(|| Unlike::Numbers(b.clone(), a.clone()));
        }
        all
    }
}

/// The type of a value, or of the values of a list.
fn value_type(of: &DataType) -> &DataType {
    match of {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => field.data_type(),
        other => other,
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
            "coalesce" | "nvl" | "nvl2" | "nullif" | "greatest" | "least" | "make_array"
            | "array_append" | "array_prepend" => Some(function.args.iter().collect()),
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
    matches!(function, "min" | "max" | "first_value" | "last_value" | "nth_value" | "array_agg")
}
