//! `FULL JOIN … USING`, `RIGHT JOIN … USING` and their natural forms. By standard SQL the column that they are joined by
//! is the first one that is not NULL of both sides. The engine takes that of the left side, and rows of the right side
//! alone have no value. Pure.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem, TableFactor,
    TableWithJoins, Visit, Visitor,
};

/// Whether the columns of a select depend on a merged column that the engine takes from the left side only.
pub(super) fn loses_rows(select: &Select) -> bool {
    let mut merged = Merged::default();
    select.from.iter().for_each(|from| merged.add(from));
    if merged.is_natural || merged.is_joined_again {
        return true;
    }
    if merged.names.is_empty() {
        return false;
    }
    if select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_))) {
        return true;
    }
    // Derived tables have columns of their own.
    let mut without_from = select.clone();
    without_from.from.clear();
    names_any(&without_from, &merged.names)
}

/// Columns of joins that keep rows of their right side alone.
#[derive(Default)]
struct Merged {
    /// Their names in lower case.
    names: BTreeSet<String>,
    /// All columns of the same name.
    is_natural: bool,
    /// A later join uses one.
    is_joined_again: bool,
}

impl Merged {
    fn add(&mut self, from: &TableWithJoins) {
        self.add_nested(&from.relation);
        for Join { relation, join_operator, .. } in &from.joins {
            self.add_nested(relation);
            let (keeps_right, constraint) = match join_operator {
                JoinOperator::Right(constraint)
                | JoinOperator::RightOuter(constraint)
                | JoinOperator::FullOuter(constraint) => (true, constraint),
                JoinOperator::Join(constraint)
                | JoinOperator::Inner(constraint)
                | JoinOperator::Left(constraint)
                | JoinOperator::LeftOuter(constraint) => (false, constraint),
                _ => continue,
            };
            match constraint {
                JoinConstraint::Using(columns) => {
                    let columns: Vec<String> = columns.iter().map(column_name).collect();
                    self.is_joined_again |= columns.iter().any(|name| self.names.contains(name));
                    self.names.extend(columns.into_iter().filter(|_| keeps_right));
                }
                JoinConstraint::Natural => {
                    self.is_joined_again |= !self.names.is_empty();
                    self.is_natural |= keeps_right;
                }
                JoinConstraint::On(condition) => {
                    self.is_joined_again |= names_any(condition, &self.names);
                }
                JoinConstraint::None => {}
            }
        }
    }

    fn add_nested(&mut self, relation: &TableFactor) {
        if let TableFactor::NestedJoin { table_with_joins, .. } = relation {
            self.add(table_with_joins);
        }
    }
}

fn column_name(name: &ObjectName) -> String {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.map(|ident| ident.value.to_lowercase()).unwrap_or_default()
}

/// Whether a column of one of these names is used without its table. Subqueries have columns of their own.
fn names_any(within: &impl Visit, names: &BTreeSet<String>) -> bool {
    within.visit(&mut NameFinder { names, depth: 0 }).is_break()
}

struct NameFinder<'n> {
    names: &'n BTreeSet<String>,
    /// Subqueries around the current expression.
    depth: usize,
}

impl Visitor for NameFinder<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident)
                if self.depth == 0 && self.names.contains(&ident.value.to_lowercase()) =>
            {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}
