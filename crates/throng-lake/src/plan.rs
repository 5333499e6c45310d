//! Planning models: their columns and key, their shape, and the rows to scan.

use datafusion::arrow::array::ArrayRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use throng_query::inputs::Inputs;
use throng_query::model::{KeyKind, Model, ModelInfo, Shape, column_index};
use throng_query::rule::Rule;
use throng_tables::{
    compared_columns, is_written, listed_column, refuse_other_texts, unapplied_length,
};

use crate::amount::NumberKind;
use crate::decompose::{DecomposedModel, decompose};
use crate::doubts;
use crate::engine::Engine;
use crate::error::LakeError;
use crate::facts::facts;
use crate::keys::{key_column, kind_of};
use crate::part::ScanPart;
use crate::select::run_sample;
use crate::session::Opened;
use crate::sql_error::sql_error;
use crate::volatility::is_time_dependent;

/// A planned model: only its key column, without a final DISTINCT or an aggregation that the build
/// does itself.
pub(crate) struct Planned {
    /// Keys, and values if the rule is a sum.
    pub(crate) frame: DataFrame,
    /// The kind of the values.
    pub(crate) values: Option<NumberKind>,
    /// How the files write the key, if the engine would write it differently.
    written: Option<String>,
    pub(crate) opened: Opened,
    pub(crate) info: ModelInfo,
}

impl Planned {
    /// The keys of a batch as they are written in their files.
    pub(crate) fn key_column(&self, column: &ArrayRef) -> Result<ArrayRef, LakeError> {
        key_column(column, self.written.as_deref())
    }
}

impl Engine {
    pub(crate) async fn planned(
        &self,
        model: &Model,
        part: Option<&ScanPart>,
    ) -> Result<Planned, LakeError> {
        let (frame, opened) = self.select(&model.sql, &model.parameters, part).await?;
        let fields = frame.schema().fields();
        let columns: Vec<(String, String)> =
            fields.iter().map(|f| (f.name().clone(), f.data_type().to_string())).collect();
        let names = || {
            let names = columns.iter().map(|(name, _)| listed_column(name, &opened.tables));
            names.collect::<Vec<_>>().join(", ")
        };
        let at = match &model.key {
            Some(key) => column_index(key, columns.iter().map(|(name, _)| name.as_str()))
                .ok_or_else(|| LakeError::Key {
                    message: format!("the model returns no column {key}"),
                    help: format!("the columns are: {}", names()),
                })?,
            None if columns.len() == 1 => 0,
            None => {
                return Err(LakeError::Key {
                    message: format!("the model returns {} columns", columns.len()),
                    help: format!(
                        "name the users' column with `key:`; the columns are: {}",
                        names()
                    ),
                });
            }
        };
        let written = is_written(&fields[at]).map(str::to_owned);
        let key_kind = match written {
            Some(_) => KeyKind::Text,
            None => kind_of(&columns[at].0, fields[at].data_type())?,
        };
        refuse_other_texts(frame.logical_plan(), at, &opened.tables)?;
        if let Some(refusal) = compared_columns(frame.logical_plan(), &opened.tables).refusal {
            return Err(refusal.into());
        }
        let tables = facts(frame.logical_plan(), &opened.tables, &[columns[at].0.as_str()]);
        let name = columns[at].0.as_str();
        let mut warnings = doubts::of_query(&opened.tables, frame.logical_plan(), &[name], name);
        if part.is_none() {
            warnings.extend(unapplied_length(&model.sql));
        }
        let inputs = Inputs {
            fingerprint: match part {
                None => self.inner.fingerprint(&opened)?,
                // The files of a part are not those of the model.
                Some(_) => String::new(),
            },
            time_dependent: is_time_dependent(frame.logical_plan()),
        };
        let ModelRows { frame, values, rule, shape } = rows_of(&model.sql, frame, at, &opened)?;
        let estimated_rows = estimate(&frame).await;
        let info = ModelInfo {
            key_column: columns[at].0.clone(),
            key_kind,
            columns,
            estimated_rows,
            files: opened.tables.iter().map(|table| table.layout.files.len()).sum(),
            fingerprint: model.fingerprint(),
            shape,
            rule,
            tables,
            inputs,
            warnings,
        };
        Ok(Planned { frame, values, written, opened, info })
    }

    /// Runs a planned model over the first rows of each file, as the build runs it: what the build does itself, such as
    /// adding up beyond 64 bits, is left out.
    ///
    /// # Errors
    /// The error of the query.
    pub(crate) async fn sample_model(
        &self,
        model: &Model,
        key_column: &str,
    ) -> Result<(), LakeError> {
        let (frame, opened) = self.sample(&model.sql, &model.parameters).await?;
        let names = frame.schema().fields().iter().map(|field| field.name().as_str());
        let at = column_index(key_column, names).ok_or_else(|| LakeError::Key {
            message: "the columns of the query have changed since it was planned".to_owned(),
            help: "check it again".to_owned(),
        })?;
        let rows = rows_of(&model.sql, frame, at, &opened)?;
        run_sample(&rows.frame, &opened).await
    }
}

/// What is scanned of a model.
struct ModelRows {
    /// Keys, and values if the rule is a sum.
    frame: DataFrame,
    values: Option<NumberKind>,
    rule: Rule,
    shape: Shape,
}

/// Separates the rows of a model whose key is its column `at` from what the build does itself.
fn rows_of(
    sql: &str,
    frame: DataFrame,
    at: usize,
    opened: &Opened,
) -> Result<ModelRows, LakeError> {
    let (state, plan) = frame.into_parts();
    let plan = without_distinct_and_order(plan);
    let column = Expr::Column(plan.schema().qualified_field(at).into());
    let decomposed = decompose(&plan, at);
    let DecomposedModel { rows, key, value, rule } = decomposed.unwrap_or(DecomposedModel {
        rows: plan,
        key: column,
        value: None,
        rule: Rule::ANY,
    });
    let shape = shape_of(&rows, rule);
    let (value, values) = value.unzip();
    let value = value.map(|value| value.alias("value of the rule"));
    let frame = DataFrame::new(state, rows)
        .select(std::iter::once(key.alias("key")).chain(value).collect::<Vec<_>>())
        .map_err(|e| sql_error(sql, &e, &opened.tables))?;
    Ok(ModelRows { frame, values, rule, shape })
}

/// The plan without a final DISTINCT or ORDER BY: a set has no duplicates and no order, and the
/// build removes duplicates at a lower cost.
pub(crate) fn without_distinct_and_order(mut plan: LogicalPlan) -> LogicalPlan {
    loop {
        plan = match plan {
            LogicalPlan::Distinct(Distinct::All(input)) => input.as_ref().clone(),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => sort.input.as_ref().clone(),
            other => return other,
        };
    }
}

/// Whether each row of one table is evaluated by itself. Where rows are counted or added up,
/// DISTINCT depends on more than one.
pub(crate) fn shape_of(plan: &LogicalPlan, rule: Rule) -> Shape {
    let mut simple = true;
    let mut scans = 0;
    let visited = plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(_) => scans += 1,
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            }
            LogicalPlan::Distinct(Distinct::All(_)) if rule == Rule::ANY => {}
            _ => simple = false,
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if visited.is_ok() && simple && scans == 1 { Shape::FilterOnly } else { Shape::General }
}

/// The engine's own estimate, if it has one.
async fn estimate(frame: &DataFrame) -> Option<u64> {
    let plan = frame.clone().create_physical_plan().await.ok()?;
    let statistics =
        StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new()).ok()?;
    statistics.num_rows.get_value().map(|rows| *rows as u64)
}
