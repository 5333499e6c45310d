//! The messages between a node and a query worker: frames of kind 1, with [`Request`] or [`Reply`] as JSON. The
//! data frames of their answers are those of [`throng_query::keys`]. Pure.

use serde::{Deserialize, Serialize};
use throng_model::HashSeed;
use throng_spec::{ParameterValue, TemplateRows};

use crate::cluster::FoundCluster;
use crate::failure::Failure;
use crate::{
    IdentifierQuery, InputQuery, InputState, Model, ModelInfo, ScanPart, ScanStats, SharedPlan,
    SharedScan, SharedStats, SourceListing, TableFacts,
};

/// A request to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Plan a model and run it over the first rows of each file; answered by [`Reply::Plan`].
    Check { model: Model },
    /// Plan a model; answered by [`Reply::Plan`].
    Plan { model: Model, served: Vec<TableFacts> },
    /// Run a part of a scan, on a cluster if there is one and it is not a part of many; answered by keys and
    /// [`Reply::Scanned`].
    Scan { model: Model, part: ScanPart, seed: HashSeed, cluster: Option<FoundCluster> },
    /// Run an identifier query; answered by its tables, rows and [`Reply::Checked`].
    Identifiers { query: IdentifierQuery, delivered: Vec<Vec<TableFacts>>, seed: HashSeed },
    /// Plan the models of some sets of parameters as one scan; answered by [`Reply::SharedPlan`].
    PlanShared {
        model: Model,
        sets: Vec<Vec<(String, ParameterValue)>>,
        served: Vec<Vec<TableFacts>>,
    },
    /// As [`Request::PlanShared`], without served versions; answered by [`Reply::WhyAlone`].
    WhyAlone { model: Model, sets: Vec<Vec<(String, ParameterValue)>> },
    /// Run a part of a scan for several models, as [`Request::Scan`]; answered by shared keys and
    /// [`Reply::SharedScanned`].
    ScanShared { scan: SharedScan, part: ScanPart, seed: HashSeed, cluster: Option<FoundCluster> },
    /// Run the query of a template; answered by [`Reply::TemplateRows`].
    TemplateRows { sql: String, max_rows: u32 },
    /// List the tables of all sources, reading them or not; answered by [`Reply::Listed`].
    List { contents: bool },
    /// Inspect the files of queries; answered by [`Reply::Inputs`].
    Inputs { queries: Vec<InputQuery> },
    /// Plan an identifier query; answered by [`Reply::CheckedIdentifiers`].
    CheckIdentifiers { sql: String, key: String, columns: Vec<String> },
}

impl Request {
    /// The query whose sources it reads, with the part of it. `None` if it reads those of no query, or of several.
    pub(crate) fn query(&self) -> Option<(&str, Option<&ScanPart>)> {
        match self {
            Self::Check { model }
            | Self::Plan { model, .. }
            | Self::PlanShared { model, .. }
            | Self::WhyAlone { model, .. } => Some((&model.sql, None)),
            Self::Scan { model, part, .. } => Some((&model.sql, Some(part))),
            Self::ScanShared { scan, part, .. } => Some((scan.sql(), Some(part))),
            Self::Identifiers { query, .. } => Some((&query.sql, None)),
            Self::TemplateRows { sql, .. } | Self::CheckIdentifiers { sql, .. } => {
                Some((sql, None))
            }
            Self::List { .. } | Self::Inputs { .. } => None,
        }
    }
}

/// The reply of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// A model is planned.
    Plan { info: ModelInfo, parts: Vec<ScanPart> },
    /// All keys of a scan are sent.
    Scanned(ScanStats),
    /// Several models are planned; `None` if they cannot be one scan.
    SharedPlan(Option<Box<SharedPlan>>),
    /// Why several models cannot be one scan; `None` if they can.
    WhyAlone(Option<String>),
    /// All keys of a scan for several models are sent.
    SharedScanned(SharedStats),
    /// The rows of a template.
    TemplateRows(TemplateRows),
    /// The tables of all sources.
    Listed(Vec<SourceListing>),
    /// The states of the files, in the order of the queries.
    Inputs(Vec<InputState>),
    /// An identifier query can be run; what is doubtful about its files.
    CheckedIdentifiers(Vec<String>),
    /// A query was run.
    Checked,
    /// The request failed.
    Failed(Failure),
}
