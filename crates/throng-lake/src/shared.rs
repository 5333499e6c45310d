//! One scan for the models of a template that differ in the values of their parameters only.
//!
//! A model is shared if its parameters are compared with columns, in conditions that are all required (`WHERE region =
//! $region AND amount >= $least`), or are thresholds of groups (`HAVING count(*) >= $least`). Then one scan without
//! these comparisons returns the rows of all models. The models whose parameters have the same values are a *group*,
//! and a row belongs to the groups whose values compare so with its columns. Every other model is scanned by itself.

use std::collections::BTreeMap;

use datafusion::arrow::array::ArrayRef;
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    Aggregate, Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator,
    lit,
};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use throng_model::{HashSeed, UserHash};
use throng_query::keys::{SharedBatch, SharedStats, is_padded};
use throng_query::model::{Model, ModelInfo, Shape, TableFacts, column_index};
use throng_query::rule::Rule;
use throng_spec::ParameterValue;

use crate::amount::{NumberKind, values};
use crate::bind::{Parameters, is_named};
use crate::cluster::OnCluster;
use crate::decompose::{DecomposedModel, decompose, rule_of, without_alias};
use crate::engine::Engine;
use crate::error::LakeError;
use crate::keys::for_each_key;
use crate::part::ScanPart;
use crate::plan::{Planned, shape_of, without_distinct_and_order};
use crate::scan::parts;
use crate::session::Opened;
use crate::stage_error::query_error;
use crate::tuples::{Comparison, KnownGroups, RowGroups, hull, tuples};

/// Keys in one batch, at least, before it goes to the sink; more only by those of its last row, which may be in every
/// group. The process at the other end of the pipe is woken for each.
const MAX_KEYS: usize = 1 << 15;

/// Why models cannot be one scan, as the end of a sentence. Without names and values of the data.
pub(crate) type Alone = &'static str;

const NO_PLACE: Alone = "a parameter is in a place where no comparison can be, such as LIMIT";
const OTHER_QUERY: Alone = "the SQL is not one SELECT with columns, WHERE, GROUP BY and HAVING";
const OTHER_GROUPS: Alone =
    "GROUP BY or HAVING has anything else than thresholds of count(*) or of one sum";
const IN_AGGREGATE: Alone = "a parameter is in GROUP BY or in an aggregate such as sum";
const OTHER_COMPARISON: Alone =
    "a parameter is compared with a column of another type, or by another operator";
const OTHER_USE: Alone = "a parameter is in a function or a subquery, or under OR or NOT";
const OTHER_VALUE: Alone = "a value has another type than the column that it is compared with";
const OTHER_THRESHOLD: Alone =
    "HAVING has anything else than thresholds that are parameters of whole numbers";

/// The models of some sets of parameters, as one scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedPlan {
    /// The model of the first set. Its tables are those of all.
    pub info: ModelInfo,
    /// The parts of the scan.
    pub parts: Vec<ScanPart>,
    /// The group of each set.
    pub groups: Vec<u32>,
    /// Which users of its group are members, for each set.
    pub rules: Vec<Rule>,
    /// What is scanned.
    pub scan: SharedScan,
}

/// A scan for several models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedScan {
    /// The model of the first set.
    model: Model,
    /// The values of each group, in the order of the comparisons.
    tuples: Vec<Vec<ParameterValue>>,
    /// Whether a row may be in several groups.
    #[serde(default)]
    overlapping: bool,
}

impl SharedScan {
    /// The SQL of the models.
    pub(crate) fn sql(&self) -> &str {
        &self.model.sql
    }

    /// The number of groups.
    pub fn groups(&self) -> usize {
        self.tuples.len()
    }

    /// Whether a row may be in several groups, and so have several keys.
    pub fn is_overlapping(&self) -> bool {
        self.overlapping
    }
}

/// Receives the keys of a scan for several models, and may take them.
pub type SharedSink<'a> =
    dyn FnMut(&mut SharedBatch) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + 'a;

/// Keys that are not in the sink yet.
struct Unsent<'s> {
    batch: SharedBatch,
    sink: &'s mut (dyn FnMut(&SharedBatch) -> std::io::Result<()> + Send),
}

impl Unsent<'_> {
    /// Keeps the memory of the batch.
    fn send(&mut self) -> std::io::Result<()> {
        let sent = (self.sink)(&self.batch);
        self.batch.clear();
        sent
    }
}

/// The rows of all models.
struct Rows {
    /// The key, the value if the rule is a sum, then the compared columns.
    frame: DataFrame,
    values: Option<NumberKind>,
    /// The comparisons of columns with parameters.
    comparisons: Vec<Comparison>,
    /// The compared columns, by their names in the frame.
    columns: Vec<Expr>,
    /// The condition of groups, with its parameters, and the groups.
    having: Option<(Expr, Aggregate)>,
}

impl Engine {
    /// Plans the models of some sets of parameters as one scan; `None` if they cannot be one.
    pub(crate) async fn plan_shared(
        &self,
        model: Model,
        sets: &[Vec<(String, ParameterValue)>],
        served: &[Vec<TableFacts>],
    ) -> Result<Option<SharedPlan>, LakeError> {
        Ok(self.try_shared(model, sets, served).await?.ok())
    }

    /// Why the models of some sets of parameters cannot be one scan; `None` if they can.
    pub(crate) async fn why_alone(
        &self,
        model: Model,
        sets: &[Vec<(String, ParameterValue)>],
    ) -> Result<Option<String>, LakeError> {
        Ok(self.try_shared(model, sets, &[]).await?.err().map(str::to_owned))
    }

    async fn try_shared(
        &self,
        model: Model,
        sets: &[Vec<(String, ParameterValue)>],
        served: &[Vec<TableFacts>],
    ) -> Result<Result<SharedPlan, Alone>, LakeError> {
        let Some(first) = sets.first() else { return Ok(Err("there is no audience")) };
        let model = Model { parameters: first.clone(), ..model };
        let planned = self.planned(&model, None).await?;
        for served in served {
            self.check_unchanged(served, &planned.info.tables, &planned.opened).await?;
        }
        let rows = match self.shared_rows(&model, &planned).await? {
            Ok(rows) => rows,
            Err(why) => return Ok(Err(why)),
        };
        let (mut groups, mut numbers, mut values) = (Vec::new(), BTreeMap::new(), Vec::new());
        for set in sets {
            let Some(of_set) = values_of(&rows.comparisons, set) else {
                return Ok(Err(OTHER_VALUE));
            };
            let next = values.len() as u32;
            let group = *numbers.entry(of_set.clone()).or_insert_with(|| {
                values.push(of_set);
                next
            });
            groups.push(group);
        }
        let Some(rules) = rules(&rows, sets) else { return Ok(Err(OTHER_THRESHOLD)) };
        if tuples(&rows.comparisons, &values).is_none() {
            return Ok(Err(OTHER_VALUE));
        }
        let plan = rows.frame.logical_plan();
        let by_file = rules.iter().all(|rule| shape_of(plan, *rule) == Shape::FilterOnly);
        let shape = if by_file { Shape::FilterOnly } else { Shape::General };
        let parts = parts(shape, &planned.opened);
        let overlapping = rows.comparisons.iter().any(Comparison::is_range);
        let scan = SharedScan { model, tuples: values, overlapping };
        Ok(Ok(SharedPlan { info: planned.info, parts, groups, rules, scan }))
    }

    /// Runs one part of a scan for several models.
    pub(crate) async fn scan_shared(
        &self,
        scan: &SharedScan,
        part: &ScanPart,
        seed: HashSeed,
        on: Option<OnCluster<'_>>,
        sink: &mut (dyn FnMut(&SharedBatch) -> std::io::Result<()> + Send),
    ) -> Result<SharedStats, LakeError> {
        let planned = self.planned(&scan.model, Some(part)).await?;
        let rows = self.shared_rows(&scan.model, &planned).await?.ok();
        let found = rows.and_then(|rows| Some((tuples(&rows.comparisons, &scan.tuples)?, rows)));
        let Some((tuples, rows)) = found else {
            return Err(LakeError::Sql {
                message: "the tables have changed since the scan was planned".to_owned(),
                position: None,
                help: Some("refresh the audience again".to_owned()),
            });
        };
        let doing = "scanning the keys";
        let first_compared = 1 + usize::from(rows.values.is_some());
        let frame = match hull(&tuples, &rows.comparisons, &rows.columns) {
            Some(hull) => rows.frame.filter(hull).map_err(|e| LakeError::engine(doing, e))?,
            None => rows.frame,
        };
        let mut stats = SharedStats::of(scan.tuples.len());
        let shape = shape_of(frame.logical_plan(), Rule::ANY);
        let mut stream = self.execute(doing, frame, shape, on).await?;
        let mut known = KnownGroups::default();
        let mut unsent = Unsent { batch: SharedBatch::default(), sink };
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|e| planned.opened.unless_changed(query_error(doing, e)))?;
            let keys = planned.key_column(batch.column(0))?;
            let columns = &batch.columns()[first_compared..];
            let groups = RowGroups::new(&tuples, &mut known, &rows.comparisons, columns)?;
            let values = rows.values.map(|kind| values(batch.column(1), kind)).transpose()?;
            push_rows(&keys, values.as_deref(), groups, seed, &mut stats, &mut unsent)?;
            // Lets other tasks of the runtime run between batches.
            tokio::task::yield_now().await;
        }
        if !unsent.batch.hashes.is_empty() {
            unsent.send().map_err(|e| LakeError::Sink(e.into()))?;
        }
        planned.opened.compare_files()?;
        Ok(stats)
    }

    /// The rows of all models that differ from this one in the values of parameters.
    async fn shared_rows(
        &self,
        model: &Model,
        planned: &Planned,
    ) -> Result<Result<Rows, Alone>, LakeError> {
        let opened = &planned.opened;
        // Some places of a statement take no parameter: such a model is scanned by itself.
        let Ok(unbound) = self.plan_of(&model.sql, None, opened).await else {
            return Ok(Err(NO_PLACE));
        };
        let bound = self.plan_of(&model.sql, Some(model.parameters.as_slice()), opened).await?;
        let key = &planned.info.key_column;
        Ok(rows(without_distinct_and_order(unbound), bound, key, &model.parameters, opened))
    }
}

/// The rule of each set; `None` if the build cannot evaluate one of them. No set is planned for it: the statement of each
/// would take longer than the scan where thousands have thresholds of their own.
fn rules(rows: &Rows, sets: &[Vec<(String, ParameterValue)>]) -> Option<Vec<Rule>> {
    let Some((condition, aggregate)) = &rows.having else {
        return Some(vec![Rule::ANY; sets.len()]);
    };
    let rule = |set: &Vec<(String, ParameterValue)>| {
        let (rule, values) = rule_of(&with_values(condition, set)?, aggregate)?;
        (values == rows.values).then_some(rule)
    };
    sets.iter().map(rule).collect()
}

/// A condition with the values of its parameters; `None` if one is not a whole number, which no rule has as a threshold.
fn with_values(condition: &Expr, set: &Parameters) -> Option<Expr> {
    let mut are_whole = true;
    let bound = condition.clone().transform_up(|expr| {
        let value = match &expr {
            Expr::Placeholder(parameter) => value_of(set, &parameter.id),
            _ => return Ok(Transformed::no(expr)),
        };
        let Some(ParameterValue::Integer(number)) = value else {
            are_whole = false;
            return Ok(Transformed::no(expr));
        };
        Ok(Transformed::yes(lit(*number)))
    });
    bound.ok().filter(|_| are_whole).map(|bound| bound.data)
}

fn value_of<'s>(set: &'s Parameters, placeholder: &str) -> Option<&'s ParameterValue> {
    set.iter().find(|(name, _)| is_named(placeholder, name)).map(|(_, value)| value)
}

/// The values that columns are compared with; `None` if one has another type than its column.
fn values_of(comparisons: &[Comparison], set: &Parameters) -> Option<Vec<ParameterValue>> {
    let value = |comparison: &Comparison| {
        let value = value_of(set, &comparison.parameter);
        value.filter(|value| comparison.is_exact(value)).cloned()
    };
    comparisons.iter().map(value).collect()
}

fn count(counts: &mut [u64], groups: &[u32]) {
    groups.iter().for_each(|group| counts[*group as usize] += 1);
}

/// Appends a value so many times: mostly once, for which a loop would take longer than the rest of the row.
fn push<T: Copy>(to: &mut Vec<T>, value: T, times: usize) {
    if times == 1 {
        to.push(value);
    } else {
        to.extend(std::iter::repeat_n(value, times));
    }
}

/// Adds the keys of a batch to those that go to the sink: for each row, one for every group that it is in.
fn push_rows(
    keys: &ArrayRef,
    values: Option<&[Option<u64>]>,
    mut groups: RowGroups<'_>,
    seed: HashSeed,
    stats: &mut SharedStats,
    unsent: &mut Unsent<'_>,
) -> Result<(), LakeError> {
    let mut passed = Ok(());
    let mut row = 0;
    for_each_key(keys, &mut |key| {
        let at = row;
        row += 1;
        if passed.is_err() {
            return;
        }
        let found = groups.of(at);
        if found.is_empty() {
            return;
        }
        count(&mut stats.rows_read, found);
        let Some(key) = key else { return count(&mut stats.null_keys, found) };
        match values.map(|values| values[at]) {
            // SQL leaves a NULL out of a sum.
            Some(None) => return,
            Some(Some(value)) => push(&mut unsent.batch.values, value, found.len()),
            None => {}
        }
        if is_padded(key) {
            count(&mut stats.padded_keys, found);
        }
        let hash = UserHash::of_canonical(key, seed);
        push(&mut unsent.batch.hashes, hash, found.len());
        unsent.batch.groups.extend_from_slice(found);
        if unsent.batch.hashes.len() >= MAX_KEYS {
            passed = unsent.send();
        }
    })?;
    passed.map_err(|e| LakeError::Sink(e.into()))
}

fn key_index(plan: &LogicalPlan, key: &str) -> Option<usize> {
    let names: Vec<&str> = plan.schema().fields().iter().map(|f| f.name().as_str()).collect();
    column_index(key, names.iter().copied())
}

fn decomposed(bound: LogicalPlan, key: &str) -> Option<DecomposedModel> {
    let plan = without_distinct_and_order(bound);
    decompose(&plan, key_index(&plan, key)?)
}

/// Separates the rows of all models from the comparisons with parameters.
fn rows(
    unbound: LogicalPlan,
    bound: LogicalPlan,
    key: &str,
    parameters: &Parameters,
    opened: &Opened,
) -> Result<Rows, Alone> {
    let LogicalPlan::Projection(projection) = &unbound else { return Err(OTHER_QUERY) };
    let having = match projection.input.as_ref() {
        LogicalPlan::Filter(filter) => match filter.input.as_ref() {
            LogicalPlan::Aggregate(aggregate) => Some((filter, aggregate)),
            _ => None,
        },
        _ => None,
    };
    let grouped = having.map_or(projection.input.as_ref(), |(filter, _)| filter.input.as_ref());
    let (source, key, value) = match grouped {
        LogicalPlan::Aggregate(aggregate) => {
            let DecomposedModel { key, value, .. } = decomposed(bound, key).ok_or(OTHER_GROUPS)?;
            let mut all = aggregate.group_expr.iter().chain(&aggregate.aggr_expr);
            if all.any(has_parameter) {
                return Err(IN_AGGREGATE);
            }
            (aggregate.input.as_ref(), key, value)
        }
        source => {
            let key = key_index(&unbound, key).and_then(|at| projection.expr.get(at));
            (source, without_alias(key.ok_or(OTHER_QUERY)?).clone(), None)
        }
    };
    let (input, conditions) = match source {
        LogicalPlan::Filter(filter) => {
            (filter.input.as_ref(), split_conjunction(&filter.predicate))
        }
        other => (other, Vec::new()),
    };
    let compared = compared(&conditions, source, parameters).ok_or(OTHER_COMPARISON)?;
    let Compared { rest, comparisons, columns } = compared;
    let input = LogicalPlanBuilder::from(input.clone());
    let input = match conjunction(rest) {
        Some(condition) => input.filter(condition).map_err(|_| OTHER_USE)?,
        None => input,
    };
    let (value, values) = value.unzip();
    let value = value.map(|value| value.alias("value of the rule"));
    let input = input.build().map_err(|_| OTHER_USE)?;
    let frame = DataFrame::new(opened.context.state(), input);
    let name = |at: usize| format!("parameter {at}");
    let selected = columns.into_iter().enumerate().map(|(at, column)| column.alias(name(at)));
    let columns = (0..selected.len()).map(|at| Expr::Column(Column::from_name(name(at)))).collect();
    let selected = std::iter::once(key.alias("key")).chain(value).chain(selected);
    let frame = frame.select(selected.collect::<Vec<_>>()).map_err(|_| OTHER_USE)?;
    if plan_has_parameter(frame.logical_plan()) {
        return Err(OTHER_USE);
    }
    let having = having.map(|(filter, groups)| (filter.predicate.clone(), groups.clone()));
    Ok(Rows { frame, values, comparisons, columns, having })
}

/// Conditions on rows, taken apart.
struct Compared {
    /// Those without parameters that are compared.
    rest: Vec<Expr>,
    comparisons: Vec<Comparison>,
    columns: Vec<Expr>,
}

/// `None` if a comparison is not exact. `source`: the plan that has the conditions.
fn compared(
    conditions: &[&Expr],
    source: &LogicalPlan,
    parameters: &Parameters,
) -> Option<Compared> {
    let (rest, comparisons, columns) = Default::default();
    let mut found = Compared { rest, comparisons, columns };
    for condition in conditions {
        let compared = comparisons_of(condition);
        if compared.is_empty() {
            found.rest.push((*condition).clone());
        }
        for (column, op, name) in compared {
            let known = found.columns.iter().position(|known| known == column);
            let at = known.unwrap_or(found.columns.len());
            if at == found.columns.len() {
                found.columns.push(column.clone());
            }
            let comparison =
                Comparison::new(at, &column.get_type(source.schema()).ok()?, op, name)?;
            if !comparison.is_exact(value_of(parameters, name)?) {
                return None;
            }
            found.comparisons.push(comparison);
        }
    }
    Some(found)
}

/// `column op $parameter`, either way round, and `column BETWEEN $low AND $high`, which is two comparisons; none if the
/// condition has another form.
fn comparisons_of(condition: &Expr) -> Vec<(&Expr, Operator, &str)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
            (column @ Expr::Column(_), Expr::Placeholder(parameter)) => {
                vec![(column, *op, parameter.id.as_str())]
            }
            (Expr::Placeholder(parameter), column @ Expr::Column(_)) => {
                let swapped = op.swap().map(|op| (column, op, parameter.id.as_str()));
                swapped.into_iter().collect()
            }
            _ => Vec::new(),
        },
        Expr::Between(Between { expr, negated: false, low, high }) => {
            match (expr.as_ref(), low.as_ref(), high.as_ref()) {
                (column @ Expr::Column(_), Expr::Placeholder(low), Expr::Placeholder(high)) => {
                    vec![
                        (column, Operator::GtEq, low.id.as_str()),
                        (column, Operator::LtEq, high.id.as_str()),
                    ]
                }
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

/// The parameters of an expression, with `$`.
fn parameters_of(expr: &Expr) -> Vec<String> {
    let mut found = Vec::new();
    // The closure never fails.
    let _ = expr.apply(|expr| {
        if let Expr::Placeholder(parameter) = expr {
            found.push(parameter.id.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn has_parameter(expr: &Expr) -> bool {
    !parameters_of(expr).is_empty()
}

fn plan_has_parameter(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= has_parameter(expr);
            Ok(TreeNodeRecursion::Continue)
        })
    });
    found || visited.is_err()
}
