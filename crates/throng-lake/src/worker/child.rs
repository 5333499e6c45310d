//! The worker's side: answers the requests of a lake with the engine.

use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;

use throng_files::FileError;
use throng_query::keys::{IdentifierBatch, not_on_cluster, write_keys, write_shared};
use throng_spec::Source;
use throng_worker::{Handler, Setup, UnopenedFolder};

use super::protocol::{Reply, Request};
use crate::cluster::{Cluster, OnCluster};
use crate::engine::Engine;
use crate::session::EngineLimits;
use crate::{Hashers, KeyBatch, LakeError, SharedBatch};

/// Runs a query worker: see [`throng_worker::main`]. `hashers` are for identifier queries.
pub fn main(hashers: &'static dyn Hashers) -> ExitCode {
    run(hashers, None)
}

/// As [`main`], for a program that can run queries on a cluster.
pub fn main_with_cluster(hashers: &'static dyn Hashers, cluster: &'static dyn Cluster) -> ExitCode {
    run(hashers, Some(cluster))
}

fn run(hashers: &'static dyn Hashers, cluster: Option<&'static dyn Cluster>) -> ExitCode {
    throng_worker::main(move |setup: Setup<Vec<Source>>, unopened| {
        QueryHandler::open(&setup, unopened, hashers, cluster)
    })
}

/// Answers requests.
struct QueryHandler {
    engine: Engine,
    unopened: Vec<UnopenedFolder>,
    hashers: &'static dyn Hashers,
}

impl QueryHandler {
    fn open(
        setup: &Setup<Vec<Source>>,
        unopened: Vec<UnopenedFolder>,
        hashers: &'static dyn Hashers,
        cluster: Option<&'static dyn Cluster>,
    ) -> io::Result<Self> {
        let limits = EngineLimits {
            memory_bytes: setup.confinement.memory_bytes,
            spill_dir: setup.confinement.spill_dir.clone(),
            threads: setup.confinement.threads,
        };
        let engine = Engine::new(&setup.task, &limits, cluster);
        let engine = engine.map_err(|e| io::Error::other(throng_model::with_causes(&e)))?;
        Ok(Self { engine, unopened, hashers })
    }

    async fn answer(&self, request: Request, out: &mut File) -> Result<Reply, LakeError> {
        match request {
            Request::Check { model } => {
                let (info, parts) = self.engine.plan(&model, &[]).await?;
                self.engine.sample_model(&model, &info.key_column).await?;
                Ok(Reply::Plan { info, parts })
            }
            Request::Plan { model, served } => {
                let (info, parts) = self.engine.plan(&model, &served).await?;
                Ok(Reply::Plan { info, parts })
            }
            Request::Scan { model, part, seed, cluster } => {
                let (pipe, mut out) = (&*out, &*out);
                let report = |reason: &str| report_reason(pipe, reason);
                let on = cluster.as_ref().map(|found| OnCluster { found, report: &report });
                let mut sink = |batch: KeyBatch| write_keys(&mut out, &batch).map_err(Into::into);
                self.engine.scan(&model, &part, seed, on, &mut sink).await.map(Reply::Scanned)
            }
            Request::PlanShared { model, sets, served } => {
                let plan = self.engine.plan_shared(model, &sets, &served).await?;
                Ok(Reply::SharedPlan(plan.map(Box::new)))
            }
            Request::WhyAlone { model, sets } => {
                self.engine.why_alone(model, &sets).await.map(Reply::WhyAlone)
            }
            Request::ScanShared { scan, part, seed, cluster } => {
                let (pipe, mut out) = (&*out, &*out);
                let report = |reason: &str| report_reason(pipe, reason);
                let on = cluster.as_ref().map(|found| OnCluster { found, report: &report });
                let mut frame = Vec::new();
                let mut sink = |batch: &SharedBatch| {
                    write_shared(&mut frame, batch)?;
                    out.write_all(&frame)
                };
                let scanned = self.engine.scan_shared(&scan, &part, seed, on, &mut sink).await;
                scanned.map(Reply::SharedScanned)
            }
            Request::TemplateRows { sql, max_rows } => {
                self.engine.template_rows(&sql, max_rows).await.map(Reply::TemplateRows)
            }
            Request::Identifiers { query, delivered, seed } => {
                let hasher = self.hashers.open(&query.hasher);
                let mut hasher = hasher.map_err(|why| LakeError::Sink(why.into()))?;
                let mut sink = |batch: IdentifierBatch| out.write_all(&batch.frame()?);
                self.engine
                    .identifiers(&query, &delivered, seed, hasher.as_mut(), &mut sink)
                    .await?;
                Ok(Reply::Checked)
            }
            Request::Inputs { queries } => Ok(Reply::Inputs(self.engine.input_states(&queries))),
            Request::List { contents } => Ok(Reply::Listed(self.engine.list(contents).await)),
            Request::CheckIdentifiers { sql, key, columns } => {
                let doubts = self.engine.check_identifiers(&sql, &key, &columns).await;
                doubts.map(Reply::CheckedIdentifiers)
            }
        }
    }
}

impl Handler for QueryHandler {
    type Request = Request;
    type Reply = Reply;

    async fn handle(&self, request: Request, out: &mut File) -> Reply {
        let reply = self.answer(request, out).await;
        reply.unwrap_or_else(|error| Reply::Failed(explain(&self.unopened, error).into()))
    }
}

/// Reports to the node why a scan is not run on its cluster.
fn report_reason(mut pipe: &File, reason: &str) -> io::Result<()> {
    pipe.write_all(&not_on_cluster(reason)?)
}

/// Replaces the error of a later open below a folder that could not be opened by the first cause.
/// Without it the error would only say that this worker has no permission.
fn explain(unopened: &[UnopenedFolder], error: LakeError) -> LakeError {
    let LakeError::File(FileError::Source { path, .. }) = &error else { return error };
    match unopened.iter().find(|folder| path.starts_with(&folder.path)) {
        None => error,
        Some(folder) => {
            let source = folder.error.clone().into();
            FileError::Source { path: folder.path.clone(), source }.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_error_below_a_folder_that_was_not_opened_has_the_first_cause() {
        let gone = UnopenedFolder::new(Path::new("/lake/shop"), &io::Error::from_raw_os_error(2));
        let refused = |path: &str| FileError::Source {
            path: path.into(),
            source: io::Error::from_raw_os_error(13),
        };
        let explain = |error: FileError| {
            throng_model::with_causes(&explain(std::slice::from_ref(&gone), error.into()))
        };
        let words = explain(refused("/lake/shop/orders.csv"));
        assert!(words.starts_with("cannot read /lake/shop: No such file"), "{words}");
        let words = explain(refused("/lake/shops"));
        assert!(words.starts_with("cannot read /lake/shops: Permission denied"), "{words}");
        let other = FileError::Changed { path: "/lake/shop/orders.csv".into() };
        assert!(explain(other).contains("has changed"));
    }
}
