//! Statements that the engine parses or runs differently from standard SQL without an error. They
//! are refused with a hint how to write them: a wrong set of users would not be noticed.
//!
//! * `a IS DISTINCT FROM b AND c` is parsed as `a IS DISTINCT FROM (b AND c)`.
//! * `x NOT IN (SELECT y …)` is true for rows that standard SQL leaves out where `x` or a `y` is NULL,
//!   unless it stands alone or beside AND in WHERE or HAVING.
//! * `FULL JOIN … USING (x)` and `RIGHT JOIN … USING (x)`: see [`merged_columns`](super::merged_columns).
//! * `x SIMILAR TO 'a_c%'` searches for the pattern as a regular expression.
//! * `EXCEPT ALL` and `INTERSECT ALL` do not count how often a row is there.
//! * `x BETWEEN INTERVAL …`, `x IN (INTERVAL …)` and the like compare days before hours: see [`durations`](super::durations).
//! * `FROM t TABLESAMPLE …` reads all rows, and so do `PREWHERE`, `CONNECT BY` and `FROM t PARTITION (…)`. `WITH ROLLUP`
//!   behind `GROUP BY a, b` is not applied.
//! * `to_char(x, 'YYYY-MM')` is the text `YYYY-MM`.
//! * `x ^ 2` is an exclusive or of bits, and not a power.
//! * `(a, b) < (1, 2)` and `(a, b) NOT IN ((1, 2))` are true or false where standard SQL has NULL.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr,
    GroupByWithModifier, Query, Select, SetExpr, SetOperator, SetQuantifier, TableFactor,
    UnaryOperator, Value, Visit, Visitor,
};

use super::merged_columns::loses_rows;
use super::refusal::Misread;

/// What of a statement the engine would run differently, if anything.
pub fn misread(statement: &Statement) -> Option<Misread> {
    let Statement::Statement(statement) = statement else { return None };
    let mut finder = Finder::default();
    match statement.visit(&mut finder) {
        ControlFlow::Break(problem) => Some(explained(problem)),
        ControlFlow::Continue(()) => {
            (finder.negated > finder.plain).then(|| explained(Problem::NotIn))
        }
    }
}

fn explained(problem: Problem) -> Misread {
    let (message, word, help) = match problem {
        Problem::NotIn => (
            "NOT IN with a subquery stands beside OR, in CASE or under NOT, or IN before IS FALSE or IS NULL, where the \
             engine does not treat NULL as SQL does",
            "NOT",
            "write NOT EXISTS (SELECT 1 FROM … WHERE … = …)",
        ),
        Problem::Distinct => (
            "IS DISTINCT FROM is followed by AND or OR, which the engine parses as a part of it",
            "DISTINCT",
            "put it in parentheses: (a IS DISTINCT FROM b) AND …",
        ),
        Problem::Similar => (
            "SIMILAR TO is run as a search for a regular expression, in which % and _ stand for themselves",
            "SIMILAR",
            "write LIKE, where % and _ are enough: x LIKE 'abc%' OR x LIKE 'xyz%'; or a regular expression: \
             x ~ '^(abc|xyz)'",
        ),
        Problem::CountedSets(word) => (
            "EXCEPT ALL and INTERSECT ALL do not count how often a row is there, as standard SQL does",
            word,
            "write EXCEPT or INTERSECT: an audience has each user once; or number the rows of each user with \
             row_number() OVER (PARTITION BY …), and compare the number too",
        ),
        Problem::Merged => (
            "FULL JOIN or RIGHT JOIN stands with USING or NATURAL, whose column the engine takes from the left side only: \
             rows of the right side alone would have no value",
            "JOIN",
            "write the condition with ON, and name the columns: coalesce(a.x, b.x) … FULL JOIN … ON a.x = b.x",
        ),
        Problem::Lengths => (
            "BETWEEN has intervals, of which the engine compares the days before the hours: a difference of timestamps \
             has no days",
            "BETWEEN",
            "write two comparisons, as in now() - seen >= INTERVAL '7 days' AND now() - seen < INTERVAL '30 days', or \
             compare the timestamps: seen BETWEEN now() - INTERVAL '30 days' AND now() - INTERVAL '7 days'",
        ),
        Problem::Intervals => (
            "an interval is compared by IN, IS DISTINCT FROM, greatest, least or nullif, where the engine compares the days \
             before the hours: a difference of timestamps has no days",
            "INTERVAL",
            "compare with one interval by an operator, as in now() - seen > INTERVAL '30 days', or compare the timestamps",
        ),
        Problem::Ignored(word, help) => (
            "PREWHERE, CONNECT BY, PARTITION, and WITH ROLLUP or CUBE of GROUP BY are not applied by the engine",
            word,
            help,
        ),
        Problem::Sample => (
            "TABLESAMPLE is not applied: the engine reads all rows",
            "TABLESAMPLE",
            "leave rows out by a condition, such as user_id % 10 = 0 for a tenth of keys that are integers",
        ),
        Problem::Format(function) => (
            "a format without % is returned as it is, not filled in: the engine has the formats of strftime",
            function,
            "write the format with %, as in to_char(day, '%Y-%m-%d')",
        ),
        Problem::Rows => (
            "several columns are compared at once otherwise than by = and IN, where the engine takes NULL for a value that \
             is less than others and different from them",
            "",
            "compare the columns one by one: NOT (a = 1 AND b = 2) for (a, b) <> (1, 2) and (a, b) NOT IN ((1, 2)), and a < 1 \
             OR (a = 1 AND b < 2) for (a, b) < (1, 2)",
        ),
        Problem::Caret => (
            "^ is an exclusive or of the bits of two integers in the engine, and not a power",
            "^",
            "write power(x, 2) for a power, or (x | y) - (x & y) for an exclusive or",
        ),
    };
    Misread { message, word, help }
}

enum Problem {
    NotIn,
    Distinct,
    Merged,
    Similar,
    /// With the word of the SQL.
    CountedSets(&'static str),
    /// An interval in BETWEEN.
    Lengths,
    /// An interval in another comparison without an operator.
    Intervals,
    /// With the word of the SQL, and the help.
    Ignored(&'static str, &'static str),
    Sample,
    /// With the name of the function.
    Format(&'static str),
    Caret,
    /// `(a, b) < (1, 2)`.
    Rows,
}

/// Counts the negated subqueries of IN, and those of them that the engine runs correctly.
#[derive(Default)]
struct Finder {
    negated: usize,
    plain: usize,
    /// For each query that is being visited: the NOTs around the current expression, other than
    /// those right before an IN.
    nots: Vec<usize>,
}

impl Visitor for Finder {
    type Break = Problem;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Problem> {
        self.nots.push(0);
        match counted_set(&query.body) {
            Some(word) => ControlFlow::Break(Problem::CountedSets(word)),
            None => ControlFlow::Continue(()),
        }
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<Problem> {
        self.nots.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Problem> {
        let conditions = select.selection.iter().chain(select.having.iter());
        self.plain += conditions.map(supported_not_in).sum::<usize>();
        if let Some((word, help)) = ignored(select) {
            return ControlFlow::Break(Problem::Ignored(word, help));
        }
        match loses_rows(select) {
            true => ControlFlow::Break(Problem::Merged),
            false => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<Problem> {
        match table {
            TableFactor::Table { sample: Some(_), .. }
            | TableFactor::Derived { sample: Some(_), .. } => ControlFlow::Break(Problem::Sample),
            TableFactor::Table { partitions, .. } if !partitions.is_empty() => {
                let help = "write a condition on the column of the folders, as in WHERE day = '2026-11-25'";
                ControlFlow::Break(Problem::Ignored("PARTITION", help))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Problem> {
        if compares_intervals(expr) {
            return ControlFlow::Break(Problem::Intervals);
        }
        if compares_rows(expr, self.nots.last().is_some_and(|n| *n > 0)) {
            return ControlFlow::Break(Problem::Rows);
        }
        match expr {
            Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right)
                if is_logical(right) =>
            {
                return ControlFlow::Break(Problem::Distinct);
            }
            Expr::SimilarTo { .. } => return ControlFlow::Break(Problem::Similar),
            Expr::BinaryOp { op: BinaryOperator::BitwiseXor, .. } => {
                return ControlFlow::Break(Problem::Caret);
            }
            Expr::Between { low, high, .. } if is_interval(low) || is_interval(high) => {
                return ControlFlow::Break(Problem::Lengths);
            }
            Expr::Function(call) => {
                if let Some(name) = formats_nothing(call) {
                    return ControlFlow::Break(Problem::Format(name));
                }
            }
            _ if is_not_in(expr) => self.negated += 1,
            Expr::IsFalse(of)
            | Expr::IsNotFalse(of)
            | Expr::IsNull(of)
            | Expr::IsNotNull(of)
            | Expr::IsUnknown(of)
            | Expr::IsNotUnknown(of)
                if matches!(without_parentheses(of), Expr::InSubquery { .. }) =>
            {
                return ControlFlow::Break(Problem::NotIn);
            }
            Expr::UnaryOp { op: UnaryOperator::Not, .. } => {
                if let Some(nots) = self.nots.last_mut() {
                    *nots += 1;
                }
            }
            Expr::InSubquery { negated: false, .. } if self.nots.last().is_some_and(|n| *n > 0) => {
                return ControlFlow::Break(Problem::NotIn);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Problem> {
        if matches!(expr, Expr::UnaryOp { op: UnaryOperator::Not, .. })
            && !is_not_in(expr)
            && let Some(nots) = self.nots.last_mut()
        {
            *nots = nots.saturating_sub(1);
        }
        ControlFlow::Continue(())
    }
}

/// The word of an EXCEPT ALL or INTERSECT ALL of a query. Those in parentheses are queries of their own.
fn counted_set(body: &SetExpr) -> Option<&'static str> {
    let mut open = vec![body];
    // Thousands of them would need as many stack frames.
    while let Some(set) = open.pop() {
        let SetExpr::SetOperation { left, op, set_quantifier, right } = set else { continue };
        let is_counted = matches!(set_quantifier, SetQuantifier::All | SetQuantifier::AllByName);
        match op {
            SetOperator::Except if is_counted => return Some("EXCEPT"),
            SetOperator::Minus if is_counted => return Some("MINUS"),
            SetOperator::Intersect if is_counted => return Some("INTERSECT"),
            _ => open.extend([left.as_ref(), right.as_ref()]),
        }
    }
    None
}

/// `x NOT IN (SELECT …)` or `NOT (x IN (SELECT …))`.
fn is_not_in(expr: &Expr) -> bool {
    match expr {
        Expr::InSubquery { negated, .. } => *negated,
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
            matches!(without_parentheses(expr), Expr::InSubquery { negated: false, .. })
        }
        _ => false,
    }
}

/// How many NOT INs are the whole condition, or operands of AND.
fn supported_not_in(condition: &Expr) -> usize {
    match without_parentheses(condition) {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            supported_not_in(left) + supported_not_in(right)
        }
        other => usize::from(is_not_in(other)),
    }
}

/// An expression without the parentheses around it.
fn without_parentheses(mut expr: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

/// `INTERVAL '1 day'`, also negated.
fn is_interval(expr: &Expr) -> bool {
    match without_parentheses(expr) {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => is_interval(expr),
        other => matches!(other, Expr::Interval(_)),
    }
}

/// Whether an interval that the SQL states is compared otherwise than by an operator, and than by BETWEEN.
fn compares_intervals(expr: &Expr) -> bool {
    match expr {
        Expr::InList { expr, list, .. } => is_interval(expr) || list.iter().any(is_interval),
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
            is_interval(left) || is_interval(right)
        }
        Expr::Function(call) => {
            ["greatest", "least", "nullif"].contains(&called(call).as_str())
                && arguments(call).any(is_interval)
        }
        _ => false,
    }
}

/// Whether several columns are compared at once, so that it matters whether one of them is NULL.
fn compares_rows(expr: &Expr, is_negated: bool) -> bool {
    let is_row = |of: &Expr| matches!(without_parentheses(of), Expr::Tuple(_));
    match expr {
        Expr::InList { expr, negated, .. } => (*negated || is_negated) && is_row(expr),
        Expr::BinaryOp { left, op, right } => {
            let matters = match op {
                BinaryOperator::Eq => is_negated,
                BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq => true,
                _ => false,
            };
            matters && (is_row(left) || is_row(right))
        }
        _ => false,
    }
}

/// The name of a function in lower case.
fn called(call: &Function) -> String {
    call.name.to_string().replace('"', "").to_lowercase()
}

/// The arguments of a function that have no names.
fn arguments(call: &Function) -> impl Iterator<Item = &Expr> {
    let arguments = match &call.args {
        FunctionArguments::List(list) => list.args.as_slice(),
        _ => &[],
    };
    arguments.iter().filter_map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    })
}

/// The word of a clause that the engine parses and leaves out, with the help.
fn ignored(select: &Select) -> Option<(&'static str, &'static str)> {
    if select.prewhere.is_some() {
        return Some(("PREWHERE", "write the condition in WHERE"));
    }
    if !select.connect_by.is_empty() {
        return Some(("CONNECT", "write WITH RECURSIVE …"));
    }
    let (keys, modifiers) = match &select.group_by {
        GroupByExpr::All(modifiers) => (usize::MAX, modifiers),
        GroupByExpr::Expressions(keys, modifiers) => {
            (keys.iter().map(number_of_keys).sum::<usize>(), modifiers)
        }
    };
    // For one key they would add a row without a key only, and so does WITH TOTALS.
    let word = modifiers.iter().find_map(|modifier| match modifier {
        GroupByWithModifier::Rollup if keys > 1 => Some("ROLLUP"),
        GroupByWithModifier::Cube if keys > 1 => Some("CUBE"),
        GroupByWithModifier::GroupingSets(_) => Some("GROUPING"),
        _ => None,
    });
    Some((word?, "write GROUP BY ROLLUP (…), GROUP BY CUBE (…) or GROUP BY GROUPING SETS (…)"))
}

/// `(a, b)` are two keys.
fn number_of_keys(key: &Expr) -> usize {
    match key {
        Expr::Tuple(keys) => keys.iter().map(number_of_keys).sum(),
        Expr::Nested(key) => number_of_keys(key),
        _ => 1,
    }
}

/// The name of a function that writes dates, if the SQL states a format in which nothing would be filled in.
fn formats_nothing(call: &Function) -> Option<&'static str> {
    let called = called(call);
    let name = ["to_char", "date_format"].into_iter().find(|name| *name == called)?;
    let FunctionArguments::List(list) = &call.args else { return None };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(format)))) = list.args.get(1)
    else {
        return None;
    };
    let Value::SingleQuotedString(text) = &format.value else { return None };
    // The formats of differences of timestamps.
    let is_of_duration = ["pretty", "iso8601"].contains(&text.to_lowercase().as_str());
    (!text.contains('%') && !is_of_duration).then_some(name)
}

fn is_logical(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor, .. }
    )
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    fn refused_query(sql: &str) -> Option<String> {
        let statement = DFParser::parse_sql(sql).unwrap().pop_front().unwrap();
        misread(&statement).map(|found| found.message.to_owned())
    }

    fn refused(condition: &str) -> Option<String> {
        refused_query(&format!("SELECT id FROM s.t WHERE {condition}"))
    }

    #[test]
    fn a_merged_column_of_a_full_or_right_join_is_refused() {
        for sql in [
            "SELECT id FROM s.a FULL JOIN s.b USING (id)",
            "SELECT Id AS x FROM s.a RIGHT JOIN s.b USING (id)",
            "SELECT * FROM s.a FULL OUTER JOIN s.b USING (id)",
            "SELECT id FROM s.a NATURAL FULL JOIN s.b",
            "SELECT a.id FROM s.a NATURAL RIGHT JOIN s.b",
            "SELECT c.id FROM s.a FULL JOIN s.b USING (id) JOIN s.c USING (id)",
            "SELECT c.id FROM s.a RIGHT JOIN s.b USING (id) JOIN s.c ON id = c.id",
            "SELECT b.id FROM s.a FULL JOIN s.b USING (id) WHERE id > 1",
            "WITH t AS (SELECT id FROM s.a FULL JOIN s.b USING (id)) SELECT id FROM t",
        ] {
            assert!(refused_query(sql).unwrap().contains("FULL JOIN or RIGHT JOIN"), "{sql}");
        }
    }

    #[test]
    fn forms_that_the_engine_has_in_name_only_are_refused() {
        for (sql, word) in [
            ("SELECT id FROM s.t WHERE a SIMILAR TO '(abc|xyz)%'", "SIMILAR TO"),
            ("SELECT id FROM s.t WHERE b OR a NOT SIMILAR TO 'a_c'", "SIMILAR TO"),
            ("SELECT id FROM s.t EXCEPT ALL SELECT id FROM s.u", "EXCEPT ALL"),
            (
                "SELECT id FROM s.t UNION (SELECT id FROM s.t INTERSECT ALL SELECT id FROM s.u)",
                "ALL",
            ),
            ("SELECT id FROM (SELECT id FROM s.t EXCEPT ALL SELECT id FROM s.u) AS x", "ALL"),
        ] {
            assert!(refused_query(sql).unwrap().contains(word), "{sql}");
        }
        for sql in [
            "SELECT id FROM s.t EXCEPT SELECT id FROM s.u UNION ALL SELECT id FROM s.w",
            "SELECT id FROM s.t WHERE a ~ '^(abc|xyz)'",
        ] {
            assert_eq!(refused_query(sql), None, "{sql}");
        }
    }

    #[test]
    fn clauses_that_the_engine_does_not_apply_are_refused() {
        for (sql, word) in [
            ("SELECT id FROM s.t TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE"),
            ("SELECT id FROM s.a JOIN s.t AS t TABLESAMPLE SYSTEM (10) USING (id)", "TABLESAMPLE"),
            ("SELECT id FROM s.t WHERE a BETWEEN INTERVAL '1 day' AND INTERVAL '7 days'", "days"),
            ("SELECT id FROM s.t WHERE a - b NOT BETWEEN -INTERVAL '1 day' AND c", "BETWEEN"),
            ("SELECT id FROM s.t WHERE a - b IN (INTERVAL '1 day', INTERVAL '7 days')", "IN,"),
            ("SELECT id FROM s.t WHERE a - b IS DISTINCT FROM INTERVAL '1 day'", "IS DISTINCT"),
            ("SELECT id FROM s.t WHERE GREATEST(a - b, INTERVAL '1 day') > c", "greatest"),
            ("SELECT id FROM s.t PREWHERE a = 1", "PREWHERE"),
            ("SELECT id FROM s.t WHERE b START WITH a = 1 CONNECT BY PRIOR id = a", "CONNECT BY"),
            ("SELECT id FROM s.t PARTITION (p0) WHERE a", "PARTITION"),
            ("SELECT id FROM s.t GROUP BY id, a WITH ROLLUP HAVING count(*) > 1", "ROLLUP"),
            ("SELECT id FROM (SELECT id, a FROM s.t GROUP BY id, a WITH CUBE) AS x", "CUBE"),
            ("SELECT id FROM s.t GROUP BY (id, a) WITH ROLLUP", "ROLLUP"),
            ("SELECT id FROM s.t WHERE to_char(day, 'YYYY-MM') = '2026-06'", "format"),
            ("SELECT id FROM s.t WHERE DATE_FORMAT(day, 'yyyy') = '2026'", "format"),
            ("SELECT id FROM s.t WHERE 1 + a ^ 2 > 10", "power"),
            ("SELECT id FROM s.t WHERE (a, b) < (1, 2)", "several columns"),
            ("SELECT id FROM s.t WHERE ((a, b)) <> (1, 2) AND c", "several columns"),
            ("SELECT id FROM s.t WHERE (a, b) NOT IN ((1, 2), (3, 4))", "several columns"),
            ("SELECT id FROM s.t WHERE NOT (c AND (a, b) IN ((1, 2), (3, 4)))", "several columns"),
            ("SELECT id FROM s.t WHERE NOT ((a, b) = (1, 2))", "several columns"),
        ] {
            assert!(refused_query(sql).unwrap().contains(word), "{sql}");
        }
        for condition in [
            "day BETWEEN now() - INTERVAL '30 days' AND now()",
            "a - b > INTERVAL '7 days'",
            "to_char(day, '%Y-%m') = '2026-06'",
            "to_char(day, pattern) = '2026-06'",
            "to_char(now() - seen, 'pretty') = 'x'",
            "to_char(day) = 'YYYY-MM'",
            "a IN (1, 2) AND greatest(a, b) > 1",
            "power(a, 2) > 10 AND (a | b) - (a & b) = 1 AND c ~ '^x'",
            "coalesce(a - b, c) > INTERVAL '1 day'",
            "(a, b) = (1, 2) OR (a, b) IN ((3, 4), (5, 6))",
        ] {
            assert_eq!(refused(condition), None, "{condition}");
        }
        for sql in [
            "SELECT id FROM s.t GROUP BY id WITH ROLLUP",
            "SELECT id FROM s.t GROUP BY (id) WITH ROLLUP",
            "SELECT id FROM s.t GROUP BY ROLLUP (id, a)",
            "SELECT id, row_number() OVER (PARTITION BY a ORDER BY b) AS n FROM s.t",
        ] {
            assert_eq!(refused_query(sql), None, "{sql}");
        }
    }

    #[test]
    fn columns_with_their_tables_and_other_joins_are_accepted() {
        for sql in [
            "SELECT coalesce(a.id, b.id) AS id FROM s.a FULL JOIN s.b USING (id)",
            "SELECT b.id FROM s.a RIGHT JOIN s.b USING (id)",
            "SELECT coalesce(a.id, b.id) AS id FROM s.a FULL JOIN s.b USING (id) \
             WHERE coalesce(a.id, b.id) NOT IN (SELECT id FROM s.optout)",
            "SELECT a.id, (SELECT max(id) FROM s.u) AS n FROM s.a RIGHT JOIN s.b USING (id)",
            "SELECT coalesce(a.id, b.id) FROM (SELECT id FROM s.a) a FULL JOIN s.b USING (id)",
            "SELECT coalesce(a.id, b.id) AS id FROM s.a FULL JOIN s.b ON a.id = b.id",
            "SELECT id FROM s.a LEFT JOIN s.b USING (id) JOIN s.c USING (id)",
            "SELECT id FROM s.a NATURAL JOIN s.b",
        ] {
            assert_eq!(refused_query(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_the_engine_runs_correctly_is_accepted() {
        for condition in [
            "id NOT IN (SELECT id FROM s.u)",
            "(a > 1 OR b) AND (id NOT IN (SELECT id FROM s.u)) AND c",
            "NOT (id IN (SELECT id FROM s.u))",
            "a = 1 OR id IN (SELECT id FROM s.u)",
            "(id IN (SELECT id FROM s.u)) IS NOT TRUE",
            "a = 1 OR NOT EXISTS (SELECT 1 FROM s.u WHERE u.id = t.id)",
            "a = 1 OR id IN (SELECT id FROM s.u WHERE v NOT IN (SELECT v FROM s.w))",
            "NOT EXISTS (SELECT 1 FROM s.u WHERE u.id IN (SELECT id FROM s.w))",
            "NOT (a = 1 OR b = 2)",
            "a NOT IN ('x', 'y') OR b",
            "(a IS DISTINCT FROM b) AND c",
            "c OR (a IS NOT DISTINCT FROM b)",
            "a IS DISTINCT FROM b",
        ] {
            assert_eq!(refused(condition), None, "{condition}");
        }
    }

    #[test]
    fn what_it_runs_differently_is_refused() {
        for condition in [
            "a = 1 OR id NOT IN (SELECT id FROM s.u)",
            "CASE WHEN id NOT IN (SELECT id FROM s.u) THEN true ELSE false END",
            "NOT (a = 1 AND id IN (SELECT id FROM s.u))",
            "NOT (id NOT IN (SELECT id FROM s.u))",
            "(id NOT IN (SELECT id FROM s.u)) = true",
            "id IN (SELECT id FROM s.u) IS NULL",
            "(id IN (SELECT id FROM s.u)) IS FALSE",
        ] {
            assert!(refused(condition).unwrap().contains("NOT IN"), "{condition}");
        }
        for condition in ["a IS DISTINCT FROM b AND c", "a IS NOT DISTINCT FROM b OR c = 1"] {
            assert!(refused(condition).unwrap().contains("IS DISTINCT FROM"), "{condition}");
        }
    }
}
