//! Planning a `SELECT`.

use std::ops::ControlFlow;
use std::time::Duration;

use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SQLOptions;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Ident, visit_expressions_mut};
use futures::StreamExt;
use throng_tables::{OpenTable, misread_moment, misread_subquery};

use crate::bind::{Parameters, bind};
use crate::conversions::explained;
use crate::engine::Engine;
use crate::error::LakeError;
use crate::part::ScanPart;
use crate::session::Opened;
use crate::sql_error::{missing_column, sql_error};

/// Rows of each file in a test run.
const SAMPLE_ROWS: usize = 1000;
/// The longest time of a test run.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Columns of a statement whose case is corrected, at most.
const MAX_RECASED: usize = 200;

impl Engine {
    /// Plans any `SELECT`; statements that change something are refused.
    pub(crate) async fn select(
        &self,
        sql: &str,
        parameters: &Parameters,
        part: Option<&ScanPart>,
    ) -> Result<(DataFrame, Opened), LakeError> {
        let opened = self.inner.open(sql, part, None).await?;
        let frame = self.select_from(sql, parameters, &opened).await?;
        Ok((frame, opened))
    }

    /// As [`Engine::select`], over the first rows of each file: see [`run_sample`].
    pub(crate) async fn sample(
        &self,
        sql: &str,
        parameters: &Parameters,
    ) -> Result<(DataFrame, Opened), LakeError> {
        let opened = self.inner.open(sql, None, Some(SAMPLE_ROWS)).await?;
        let frame = self.select_from(sql, parameters, &opened).await?;
        Ok((frame, opened))
    }

    async fn select_from(
        &self,
        sql: &str,
        parameters: &Parameters,
        opened: &Opened,
    ) -> Result<DataFrame, LakeError> {
        let plan = self.plan_of(sql, Some(parameters), opened).await?;
        let wrong = |e| sql_error(sql, &e, &opened.tables);
        if plan.schema().fields().is_empty()
            && let Some(fault) = unusable_columns(&opened.tables)
        {
            return Err(fault);
        }
        // The engine checks types when a query is run: they are faults of the SQL.
        let state = opened.context.state();
        let types =
            state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {});
        let analyzed = types.map_err(wrong)?;
        if let Some(found) = misread_moment(&analyzed) {
            return Err(LakeError::misread(sql, found));
        }
        opened.context.execute_logical_plan(plan).await.map_err(wrong)
    }

    /// The plan of a `SELECT`; without `parameters` they stay in it.
    pub(crate) async fn plan_of(
        &self,
        sql: &str,
        parameters: Option<&Parameters>,
        opened: &Opened,
    ) -> Result<LogicalPlan, LakeError> {
        let wrong = |e| sql_error(sql, &e, &opened.tables);
        let state = opened.context.state();
        let dialect = state.config_options().sql_parser.dialect;
        let mut statement = state.sql_to_statement(sql, &dialect).map_err(wrong)?;
        if let Some(parameters) = parameters {
            bind(sql, &mut statement, parameters)?;
        }
        let (mut first, mut recased) = (None, Vec::new());
        let plan = loop {
            let error = match state.statement_to_plan(statement.clone()).await {
                Ok(plan) => break plan,
                Err(error) => error,
            };
            let name = missing_column(&error).map(|(name, _)| name.to_owned());
            let is_recased = recased.len() < MAX_RECASED
                && name.as_ref().is_some_and(|name| recase(&mut statement, name, &opened.tables));
            match name.map(|name| name.to_lowercase()) {
                Some(name) if is_recased => {
                    recased.push(name);
                    first.get_or_insert(error);
                }
                // The first error is about what the user wrote; the others about what was made of it.
                Some(name) if recased.contains(&name) => {
                    return Err(wrong(first.unwrap_or(error)));
                }
                _ => return Err(wrong(error)),
            }
        };
        let options = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        options.verify_plan(&plan).map_err(wrong)?;
        if let Some(found) = misread_subquery(&plan) {
            return Err(LakeError::misread(sql, found));
        }
        Ok(plan)
    }
}

/// Runs a query over the first rows of each file and discards its rows: so casts and functions that fail are found
/// before the query is used.
///
/// # Errors
/// The error of the query.
pub(crate) async fn run_sample(frame: &DataFrame, opened: &Opened) -> Result<(), LakeError> {
    let doing = "running the query over the first rows of each file";
    let explained = |e| explained(LakeError::engine(doing, e), frame, opened);
    let mut rows = frame.clone().execute_stream().await.map_err(explained)?;
    let all = async {
        while let Some(batch) = rows.next().await {
            batch.map_err(explained)?;
        }
        Ok(())
    };
    // A query that takes longer is accepted.
    tokio::time::timeout(SAMPLE_TIMEOUT, all).await.unwrap_or(Ok(()))
}

/// Why a table has no column that can be used.
fn unusable_columns(tables: &[OpenTable]) -> Option<LakeError> {
    let fault = |message: String, help: String| LakeError::Sql {
        message,
        position: None,
        help: Some(help),
    };
    tables.iter().find_map(|OpenTable { layout, .. }| {
        let twice = layout.twice.first().and_then(|(name, _)| layout.twice_fault(name));
        let twice = twice.map(|(message, help)| fault(message, help.to_owned()));
        let conflict = layout.conflicts.first();
        twice.or_else(|| conflict.map(|of| fault(of.message.clone(), of.help.clone())))
    })
}

/// The engine converts unquoted names to lower case. If exactly one column of the tables differs
/// from such a name only in case, the name is replaced by it. Returns whether something was
/// changed.
fn recase(statement: &mut Statement, name: &str, tables: &[OpenTable]) -> bool {
    let lower = name.to_lowercase();
    let columns = tables.iter().flat_map(|table| &table.layout.columns);
    let mut alike: Vec<&str> = columns
        .map(|column| column.name.as_str())
        .filter(|column| column.to_lowercase() == lower && *column != name)
        .collect();
    alike.sort_unstable();
    alike.dedup();
    let ([column], Statement::Statement(statement)) = (alike.as_slice(), statement) else {
        return false;
    };
    let mut changed = false;
    let mut correct = |ident: &mut Ident| {
        if ident.quote_style.is_none() && ident.value.to_lowercase() == lower {
            ident.value = (*column).to_owned();
            ident.quote_style = Some('"');
            changed = true;
        }
    };
    let _: ControlFlow<()> = visit_expressions_mut(statement, |expr| {
        match expr {
            Expr::Identifier(ident) => correct(ident),
            Expr::CompoundIdentifier(parts) => {
                if let Some(last) = parts.last_mut() {
                    correct(last);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    changed
}
