//! One scan for the models of a template that differ in the values of their parameters only.
//!
//! A model is shared if its parameters are compared with columns for equality, in conditions that are all required
//! (`WHERE region = $region AND …`), or are thresholds of groups (`HAVING count(*) >= $least`). Then one scan without
//! these comparisons returns the rows of all models, and a row belongs to those whose parameters have the values of
//! its columns: they are a *group*. Every other model is scanned by itself.

use std::collections::BTreeMap;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator,
};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use throng_model::{HashSeed, UserHash};
use throng_query::keys::{SharedBatch, SharedStats, is_padded};
use throng_query::model::{Model, ModelInfo, Shape, TableFacts, column_index};
use throng_query::rule::Rule;
use throng_query::tuples::Tuples;
use throng_spec::ParameterValue;

use crate::amount::{NumberKind, values};
use crate::bind::{Parameters, is_named};
use crate::cluster::OnCluster;
use crate::decompose::{DecomposedModel, decompose, without_alias};
use crate::engine::Engine;
use crate::error::LakeError;
use crate::keys::for_each_key;
use crate::part::ScanPart;
use crate::plan::{Planned, shape_of, without_distinct_and_order};
use crate::scan::parts;
use crate::session::Opened;
use crate::stage_error::query_error;
use crate::tuples::{Kind, groups};

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
}

/// Receives the keys of a scan for several models.
pub type SharedSink<'a> =
    dyn FnMut(SharedBatch) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + 'a;

/// The rows of all models.
struct Rows {
    /// The key, the value if the rule is a sum, then the compared columns.
    frame: DataFrame,
    values: Option<NumberKind>,
    /// The parameters that columns are compared with, and how these are read.
    compared: Vec<(String, Kind)>,
    /// The parameters in the condition of groups.
    thresholds: Vec<String>,
    /// Whether users are grouped.
    grouped: bool,
}

impl Engine {
    /// Plans the models of some sets of parameters as one scan; `None` if they cannot be one.
    pub(crate) async fn plan_shared(
        &self,
        model: Model,
        sets: &[Vec<(String, ParameterValue)>],
        served: &[Vec<TableFacts>],
    ) -> Result<Option<SharedPlan>, LakeError> {
        let Some(first) = sets.first() else { return Ok(None) };
        let model = Model { parameters: first.clone(), ..model };
        let planned = self.planned(&model, None).await?;
        for served in served {
            self.check_unchanged(served, &planned.info.tables, &planned.opened).await?;
        }
        let Some(rows) = self.shared_rows(&model, &planned).await? else { return Ok(None) };
        let (mut groups, mut numbers, mut tuples) = (Vec::new(), BTreeMap::new(), Vec::new());
        for set in sets {
            let Some(tuple) = tuple(&rows.compared, set) else { return Ok(None) };
            let next = tuples.len() as u32;
            let group = *numbers.entry(tuple.clone()).or_insert_with(|| {
                tuples.push(tuple);
                next
            });
            groups.push(group);
        }
        let Some(rules) = self.rules(&model, &rows, sets, &planned).await? else {
            return Ok(None);
        };
        if Tuples::new(&tuples).is_none() {
            return Ok(None);
        }
        let plan = rows.frame.logical_plan();
        let by_file = rules.iter().all(|rule| shape_of(plan, *rule) == Shape::FilterOnly);
        let shape = if by_file { Shape::FilterOnly } else { Shape::General };
        let parts = parts(shape, &planned.opened);
        let scan = SharedScan { model, tuples };
        Ok(Some(SharedPlan { info: planned.info, parts, groups, rules, scan }))
    }

    /// Runs one part of a scan for several models.
    pub(crate) async fn scan_shared(
        &self,
        scan: &SharedScan,
        part: &ScanPart,
        seed: HashSeed,
        on: Option<OnCluster<'_>>,
        sink: &mut (dyn FnMut(SharedBatch) -> std::io::Result<()> + Send),
    ) -> Result<SharedStats, LakeError> {
        let planned = self.planned(&scan.model, Some(part)).await?;
        let rows = self.shared_rows(&scan.model, &planned).await?;
        let (Some(rows), Some(tuples)) = (rows, Tuples::new(&scan.tuples)) else {
            return Err(LakeError::Sql {
                message: "the tables have changed since the scan was planned".to_owned(),
                position: None,
                help: Some("refresh the audience again".to_owned()),
            });
        };
        let doing = "scanning the keys";
        let kinds: Vec<Kind> = rows.compared.iter().map(|(_, kind)| *kind).collect();
        let first_compared = 1 + usize::from(rows.values.is_some());
        let mut stats = SharedStats::of(scan.tuples.len());
        let shape = shape_of(rows.frame.logical_plan(), Rule::ANY);
        let mut stream = self.execute(doing, rows.frame, shape, on).await?;
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|e| query_error(doing, e))?;
            let keys = planned.key_column(batch.column(0))?;
            let columns = &batch.columns()[first_compared..];
            let groups = groups(&tuples, &kinds, columns, keys.len())?;
            let found = rows.values.map(|kind| values(batch.column(1), kind)).transpose()?;
            let mut out = SharedBatch::default();
            let mut row = 0;
            for_each_key(&keys, &mut |key| {
                let at = row;
                row += 1;
                let Some(group) = groups[at] else { return };
                stats.rows_read[group as usize] += 1;
                let Some(key) = key else {
                    stats.null_keys[group as usize] += 1;
                    return;
                };
                match found.as_ref().map(|found| found[at]) {
                    // SQL leaves a NULL out of a sum.
                    Some(None) => return,
                    Some(Some(value)) => out.values.push(value),
                    None => {}
                }
                stats.padded_keys[group as usize] += u64::from(is_padded(key));
                out.hashes.push(UserHash::of_canonical(key, seed));
                out.groups.push(group);
            })?;
            if !out.hashes.is_empty() {
                sink(out).map_err(|e| LakeError::Sink(e.into()))?;
            }
            // Lets other tasks of the runtime run between batches.
            tokio::task::yield_now().await;
        }
        planned.opened.compare_files()?;
        Ok(stats)
    }

    /// The rows of all models that differ from this one in the values of parameters.
    async fn shared_rows(
        &self,
        model: &Model,
        planned: &Planned,
    ) -> Result<Option<Rows>, LakeError> {
        let opened = &planned.opened;
        // Some places of a statement take no parameter: such a model is scanned by itself.
        let Ok(unbound) = self.plan_of(&model.sql, None, opened).await else { return Ok(None) };
        let bound = self.plan_of(&model.sql, Some(model.parameters.as_slice()), opened).await?;
        let key = &planned.info.key_column;
        Ok(rows(without_distinct_and_order(unbound), bound, key, &model.parameters, opened))
    }

    /// The rule of each set; `None` if the build cannot evaluate one of them.
    async fn rules(
        &self,
        model: &Model,
        rows: &Rows,
        sets: &[Vec<(String, ParameterValue)>],
        planned: &Planned,
    ) -> Result<Option<Vec<Rule>>, LakeError> {
        if !rows.grouped {
            return Ok(Some(vec![Rule::ANY; sets.len()]));
        }
        let mut known: BTreeMap<Vec<&ParameterValue>, Rule> = BTreeMap::new();
        let mut rules = Vec::with_capacity(sets.len());
        for set in sets {
            let thresholds = rows.thresholds.iter().map(|name| value_of(set, name));
            let Some(thresholds) = thresholds.collect::<Option<Vec<_>>>() else { return Ok(None) };
            let rule = match known.get(&thresholds).copied() {
                Some(rule) => rule,
                None => {
                    let bound =
                        self.plan_of(&model.sql, Some(set.as_slice()), &planned.opened).await?;
                    let Some(found) = decomposed(bound, &planned.info.key_column) else {
                        return Ok(None);
                    };
                    if found.value.map(|(_, kind)| kind) != rows.values {
                        return Ok(None);
                    }
                    known.insert(thresholds, found.rule);
                    found.rule
                }
            };
            rules.push(rule);
        }
        Ok(Some(rules))
    }
}

fn value_of<'s>(set: &'s Parameters, placeholder: &str) -> Option<&'s ParameterValue> {
    set.iter().find(|(name, _)| is_named(placeholder, name)).map(|(_, value)| value)
}

/// The values that columns are compared with; `None` if one has another type than its column.
fn tuple(compared: &[(String, Kind)], set: &Parameters) -> Option<Vec<ParameterValue>> {
    let value = |(name, kind): &(String, Kind)| {
        value_of(set, name).filter(|value| kind.is_compared_exactly(value)).cloned()
    };
    compared.iter().map(value).collect()
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
) -> Option<Rows> {
    let LogicalPlan::Projection(projection) = &unbound else { return None };
    let having = match projection.input.as_ref() {
        LogicalPlan::Filter(filter) if matches!(*filter.input, LogicalPlan::Aggregate(_)) => {
            Some(filter)
        }
        _ => None,
    };
    let grouped = having.map_or(projection.input.as_ref(), |filter| filter.input.as_ref());
    let (source, key, value, is_grouped) = match grouped {
        LogicalPlan::Aggregate(aggregate) => {
            let DecomposedModel { key, value, .. } = decomposed(bound, key)?;
            let mut all = aggregate.group_expr.iter().chain(&aggregate.aggr_expr);
            if all.any(has_parameter) {
                return None;
            }
            (aggregate.input.as_ref(), key, value, true)
        }
        source => {
            let at = key_index(&unbound, key)?;
            (source, without_alias(projection.expr.get(at)?).clone(), None, false)
        }
    };
    let (input, conditions) = match source {
        LogicalPlan::Filter(filter) => {
            (filter.input.as_ref(), split_conjunction(&filter.predicate))
        }
        other => (other, Vec::new()),
    };
    let (mut rest, mut compared, mut columns) = (Vec::new(), Vec::new(), Vec::new());
    for condition in conditions {
        let Some((column, name)) = comparison(condition) else {
            rest.push(condition.clone());
            continue;
        };
        let kind = Kind::of(&column.get_type(source.schema()).ok()?)?;
        if !kind.is_compared_exactly(value_of(parameters, name)?) {
            return None;
        }
        compared.push((name.to_owned(), kind));
        columns.push(column.clone().alias(format!("parameter {}", columns.len())));
    }
    let input = LogicalPlanBuilder::from(input.clone());
    let input = match conjunction(rest) {
        Some(condition) => input.filter(condition).ok()?,
        None => input,
    };
    let (value, values) = value.unzip();
    let value = value.map(|value| value.alias("value of the rule"));
    let frame = DataFrame::new(opened.context.state(), input.build().ok()?);
    let selected = std::iter::once(key.alias("key")).chain(value).chain(columns);
    let frame = frame.select(selected.collect::<Vec<_>>()).ok()?;
    if plan_has_parameter(frame.logical_plan()) {
        return None;
    }
    let thresholds = having.map(|filter| parameters_of(&filter.predicate)).unwrap_or_default();
    Some(Rows { frame, values, compared, thresholds, grouped: is_grouped })
}

/// `column = $parameter`, either way round.
fn comparison(condition: &Expr) -> Option<(&Expr, &str)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else {
        return None;
    };
    match (left.as_ref(), right.as_ref()) {
        (column @ Expr::Column(_), Expr::Placeholder(parameter))
        | (Expr::Placeholder(parameter), column @ Expr::Column(_)) => {
            Some((column, parameter.id.as_str()))
        }
        _ => None,
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
