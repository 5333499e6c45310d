//! Columns of files that a query compares although their types or their texts differ: an integer and a text are compared
//! as numbers, by which `042` is `42`, and two texts are compared as they are, by which `1.0` is not `1` and `9` is more
//! than `10`.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, Subquery};
use throng_files::NumberForms;

use super::key_text::{Origin, Origins, Texts};
use super::layout::OpenTable;
use super::refusal::Refusal;
use super::shown_column::shown_column;

/// What is wrong with the comparisons of a query.
#[derive(Debug, Default)]
pub struct Compared {
    /// The first one that can change the result without an error.
    pub refusal: Option<Refusal>,
    /// Those that may.
    pub doubts: BTreeSet<String>,
}

/// Finds comparisons of columns of files in which values are equal, or are not, other than as keys are.
pub fn compared_columns(plan: &LogicalPlan, tables: &[OpenTable]) -> Compared {
    let mut finder = Finder {
        tables,
        origins: Origins::over(tables),
        scopes: Vec::new(),
        open: vec![(plan, None)],
        found: Compared::default(),
    };
    while let Some((node, scope)) = finder.open.pop() {
        finder.add_node(node, scope);
    }
    finder.found
}

/// A node around a subquery, with that around the query of the node.
type Scope<'p> = (Option<usize>, &'p LogicalPlan);

struct Finder<'p> {
    tables: &'p [OpenTable],
    origins: Origins<'p>,
    scopes: Vec<Scope<'p>>,
    /// Nodes that are still to be visited, each with the innermost of its scopes.
    open: Vec<(&'p LogicalPlan, Option<usize>)>,
    found: Compared,
}

impl<'p> Finder<'p> {
    fn add_node(&mut self, node: &'p LogicalPlan, scope: Option<usize>) {
        self.open.extend(node.inputs().into_iter().map(|input| (input, scope)));
        let expressions: Vec<&'p Expr> = match node {
            LogicalPlan::Filter(filter) => vec![&filter.predicate],
            LogicalPlan::Projection(projection) => projection.expr.iter().collect(),
            LogicalPlan::Aggregate(of) => of.group_expr.iter().chain(&of.aggr_expr).collect(),
            LogicalPlan::Join(join) => {
                for (left, right) in &join.on {
                    let left = self.origins.of_expr(left, &join.left);
                    let right = self.origins.of_expr(right, &join.right);
                    self.compare(&left, &right);
                }
                join.filter.iter().collect()
            }
            LogicalPlan::Window(window) => window.window_expr.iter().collect(),
            LogicalPlan::Limit(limit) => {
                self.add_limited(&limit.input, scope);
                Vec::new()
            }
            _ => Vec::new(),
        };
        for expr in expressions {
            // A visitor without errors cannot fail.
            let _ = expr.apply(|inner| {
                self.add_expr(inner, node, scope);
                Ok(TreeNodeRecursion::Continue)
            });
        }
    }

    fn add_expr(&mut self, expr: &'p Expr, node: &'p LogicalPlan, scope: Option<usize>) {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
                let left = self.origin(left, node, scope);
                let right = self.origin(right, node, scope);
                self.compare(&left, &right);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_order(*op) => {
                self.add_order([left, right], node, scope);
            }
            Expr::Between(between) => {
                self.add_order([&between.expr, &between.low], node, scope);
            }
            Expr::AggregateFunction(function) if matches!(function.func.name(), "min" | "max") => {
                for of in &function.params.args {
                    let of = self.origin(of, node, scope);
                    self.ordered(&of);
                }
            }
            Expr::WindowFunction(window) => {
                for by in &window.params.order_by {
                    let by = self.origin(&by.expr, node, scope);
                    self.ordered(&by);
                }
            }
            Expr::InSubquery(of) => {
                let left = self.origin(&of.expr, node, scope);
                let right = self.origins.of_output(&of.subquery.subquery, 0);
                self.compare(&left, &right);
                self.add_subquery(&of.subquery, node, scope);
            }
            Expr::Exists(of) => self.add_subquery(&of.subquery, node, scope),
            Expr::ScalarSubquery(of) => self.add_subquery(of, node, scope),
            _ => {}
        }
    }

    /// Adds operands of which one is to be more than the other.
    fn add_order(&mut self, sides: [&Expr; 2], node: &LogicalPlan, scope: Option<usize>) {
        let found = sides.map(|side| self.origin(side, node, scope));
        // A text that is compared with a number is read as one.
        if sides.iter().zip(&found).all(|(side, found)| is_text_side(side, found)) {
            found.iter().for_each(|side| self.ordered(side));
        }
    }

    /// Adds the order of rows of which some are left out.
    fn add_limited(&mut self, mut plan: &'p LogicalPlan, scope: Option<usize>) {
        while let LogicalPlan::Projection(projection) = plan {
            plan = projection.input.as_ref();
        }
        if let LogicalPlan::Sort(sort) = plan {
            for by in &sort.expr {
                let by = self.origin(&by.expr, plan, scope);
                self.ordered(&by);
            }
        }
    }

    fn add_subquery(&mut self, of: &'p Subquery, node: &'p LogicalPlan, scope: Option<usize>) {
        self.scopes.push((scope, node));
        self.open.push((of.subquery.as_ref(), Some(self.scopes.len() - 1)));
    }

    /// The origins of an operand of a node.
    fn origin(&mut self, operand: &Expr, node: &LogicalPlan, scope: Option<usize>) -> Texts {
        if let Expr::OuterReferenceColumn(_, column) = operand {
            let mut around = scope;
            while let Some((outer, node)) = around.and_then(|at| self.scopes.get(at)) {
                for input in node.inputs() {
                    if let Some(at) = input.schema().maybe_index_of_column(column) {
                        return self.origins.of_output(input, at);
                    }
                }
                around = *outer;
            }
            return Texts::default();
        }
        let columns = operand.column_refs();
        let has_all = |input: &&LogicalPlan| columns.iter().all(|c| input.schema().has_column(c));
        match node.inputs().into_iter().find(has_all) {
            Some(input) => self.origins.of_expr(operand, input),
            None => Texts::default(),
        }
    }

    fn compare(&mut self, left: &Texts, right: &Texts) {
        for (number, text) in [(left, right), (right, left)] {
            let number = number.most.as_ref().map(|(_, n)| n).or(number.double.as_ref());
            if let (Some(number), Some(text)) = (number, &text.text) {
                self.number_and_text(number, text);
            }
            if let (Some(number), Some(other)) = (number, &text.double) {
                self.number_and_double(number, other);
            }
        }
        if let (Some(left), Some(right)) = (&left.text, &right.text) {
            self.texts(left, right);
        }
    }

    fn number_and_text(&mut self, number: &Origin, text: &Origin) {
        let (Some((_, column)), Some((_, other)), Some(forms)) =
            (&number.column, &text.column, self.forms(text))
        else {
            return;
        };
        if !forms.respelled && !forms.unread {
            return;
        }
        let column = shown_column(column, self.tables);
        let other = shown_column(other, self.tables);
        let what = format!(
            "{} is compared with {} as a number, by which `042` is `42`",
            number.shown(self.tables),
            text.shown(self.tables)
        );
        let help = format!(
            "to compare the texts of the files, declare `columns: {{ {column}: text }}` in the source, or write \
             CAST({column} AS VARCHAR); or, to compare them as numbers, CAST({other} AS BIGINT)"
        );
        if forms.respelled {
            let message = format!("{what}: as keys they are other users");
            self.found.refusal.get_or_insert(Refusal { message, help });
        } else {
            self.found.doubts.insert(format!("{what}: {help}"));
        }
    }

    /// Notes a column whose values are compared or sorted as text, although nearly all are numbers or dates.
    fn ordered(&mut self, of: &Texts) {
        let Some(text) = &of.text else { return };
        let (Some((table, name)), Some(forms)) = (&text.column, self.forms(text)) else { return };
        let tables = self.tables.iter().filter(|of| of.name == *table);
        let mut columns = tables.flat_map(|of| &of.layout.columns);
        let is_declared = columns.any(|of| of.name == *name && of.converted);
        if is_declared {
            return;
        }
        let column = shown_column(name, self.tables);
        let Some(what) = forms.majority_kind() else {
            if forms.has_unsorted_moments() {
                self.found.doubts.insert(format!(
                    "{} is text, whose dates or times are written in several forms, or in one that does not sort, such as \
                     `1/31/2026` or with an offset, and is compared or sorted as text: convert it, as in \
                     to_date({column}, '%m/%d/%Y') or CAST({column} AS TIMESTAMP)",
                    text.shown(self.tables)
                ));
            }
            return;
        };
        let of = if what == "dates" { "DATE" } else { "DOUBLE" };
        self.found.doubts.insert(format!(
            "{} is text, since a few of its values are not {what}, and is compared or sorted as text, by which `9` is more \
             than `10`: correct these values, write TRY_CAST({column} AS {of}), which is NULL for them, or declare \
             `columns: {{ {column}: text }}` in the source if text is meant",
            text.shown(self.tables)
        ));
    }

    /// Doubles of CSV and JSON files have a form only if they represent all numbers of their files exactly.
    fn number_and_double(&mut self, number: &Origin, double: &Origin) {
        let is_wide = matches!(number.of, DataType::Int64 | DataType::UInt64);
        let (true, Some(_), Some((table, name))) = (is_wide, &number.column, &double.column) else {
            return;
        };
        let tables = self.tables.iter().filter(|of| of.name == *table);
        let mut columns = tables.flat_map(|of| &of.layout.columns);
        if columns.any(|of| of.name == *name && of.written.is_some()) {
            return;
        }
        let column = shown_column(name, self.tables);
        self.found.doubts.insert(format!(
            "{} is compared with {}, in which numbers above 9007199254740992 are rounded, and may be equal to others: \
             write the keys of the files as integers or as text, or CAST({column} AS BIGINT) if none is as large",
            number.shown(self.tables),
            double.shown(self.tables)
        ));
    }

    fn texts(&mut self, left: &Origin, right: &Origin) {
        let (Some(a), Some(b)) = (self.forms(left), self.forms(right)) else { return };
        let differ = (a.whole && b.pointed) || (a.pointed && b.whole);
        if differ && left.column != right.column {
            self.found.doubts.insert(format!(
                "{} is compared with {} as text, and whole numbers are written in two forms there, such as `1` and \
                 `1.0`, which are not equal: write them with one form in all files, or convert both by \
                 CAST(CAST(… AS DECIMAL(38, 1)) AS BIGINT)",
                left.shown(self.tables),
                right.shown(self.tables)
            ));
        }
    }

    /// The forms of the texts of a column of files.
    fn forms(&self, of: &Origin) -> Option<NumberForms> {
        let (table, name) = of.column.as_ref()?;
        let table = self.tables.iter().find(|open| open.name == *table)?;
        table.layout.number_forms_of(name)
    }
}

/// Whether an operand is a text, also if the text is that of a number.
fn is_text_side(side: &Expr, found: &Texts) -> bool {
    match side {
        Expr::Literal(value, _) => value.try_as_str().is_some(),
        _ => found.text.is_some(),
    }
}

/// Whether an operator compares two values for being more or less.
fn is_order(op: Operator) -> bool {
    matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq)
}

/// Whether an operator compares two values for being equal.
fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq | Operator::NotEq | Operator::IsDistinctFrom | Operator::IsNotDistinctFrom
    )
}
