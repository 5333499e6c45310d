//! What checkpoints hold: the state that a partition goes on with, and the past of an ad group.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use throng_budget::{AdGroupConfig, CheckpointFiles, Engine, LogPosition, NamedFiles, Series};
use throng_model::{AdGroupName, BudgetDay, Micros, Timestamp};
use throng_objects::Objects;

use super::checkpoint::{Checkpoint, Slot};
use super::partition::State;
use super::{BudgetsError, ids, slices};

/// What an ad group has spent over time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Past {
    /// Its recent figures.
    pub series: Series,
    /// Actual spend of its last 8 budget days and of the next one, from the oldest to the newest, zeros too.
    pub days: Vec<(BudgetDay, Micros)>,
    /// Actual spend by quarters of an hour that have any, each with its beginning.
    pub slices: Vec<(Timestamp, Micros)>,
}

impl Past {
    pub(super) fn of(engine: &Engine, ad_group: &AdGroupName, now: Timestamp) -> Option<Self> {
        let series = engine.series(ad_group)?;
        let days = engine.days(ad_group, now).unwrap_or_default();
        Some(Self { series, days, slices: engine.slices(ad_group).unwrap_or_default() })
    }
}

/// The past of an ad group as the last checkpoint of its partition has it.
pub(super) async fn past_of(
    objects: Arc<dyn Objects>,
    number: u32,
    ad_groups: Vec<AdGroupConfig>,
    ad_group: &AdGroupName,
    now: Timestamp,
) -> Result<Option<Past>, BudgetsError> {
    let (_, found) = Slot::open(Arc::clone(&objects), number).await?;
    let Some(found) = found else {
        return Ok(Past::of(&Engine::new(number, 0, 0, ad_groups), ad_group, now));
    };
    let named = named_files(number, &found.state)?;
    let slices = slices::load(&*objects, number, named.slices).await?;
    let restored = Engine::restore_figures(&found.state, number, ad_groups, now, &slices);
    let (engine, _) =
        restored.map_err(|source| BudgetsError::State { partition: number, source })?;
    Ok(Past::of(&engine, ad_group, now))
}

/// The names of the files that the state in a checkpoint needs.
pub(super) fn named_files(number: u32, state: &[u8]) -> Result<NamedFiles, BudgetsError> {
    let named = Engine::named_files(state);
    named.map_err(|source| BudgetsError::State { partition: number, source })
}

/// The files that a checkpoint needs besides itself.
pub(super) async fn load_files(
    objects: &dyn Objects,
    number: u32,
    found: Option<&Checkpoint>,
) -> Result<CheckpointFiles, BudgetsError> {
    let Some(found) = found else { return Ok(CheckpointFiles::default()) };
    let named = named_files(number, &found.state)?;
    let runs = ids::load(objects, number, named.runs).await?;
    let slices = slices::load(objects, number, named.slices).await?;
    Ok(CheckpointFiles { runs, slices })
}

/// What a state is made of besides its checkpoint.
pub(super) struct Restored {
    pub(super) number: u32,
    pub(super) ad_groups: Vec<AdGroupConfig>,
    pub(super) epoch: u64,
    pub(super) catalog_version: u64,
    pub(super) now: Timestamp,
    pub(super) promise: Duration,
    pub(super) files: CheckpointFiles,
}

impl Restored {
    /// The objects of its files.
    pub(super) fn objects(&self) -> HashSet<String> {
        let runs = self.files.runs.keys().map(|run| ids::object(self.number, run));
        let slices = self.files.slices.keys().map(|file| slices::object(self.number, file));
        runs.chain(slices).collect()
    }

    /// The state in the checkpoint; an empty one if there is none.
    pub(super) fn state(&self, found: Option<Checkpoint>) -> Result<State, BudgetsError> {
        let Self { number, epoch, catalog_version, .. } = *self;
        let ad_groups = self.ad_groups.clone();
        let (mut engine, position) = match found {
            None => {
                (Engine::new(number, epoch, catalog_version, ad_groups), LogPosition::default())
            }
            Some(Checkpoint { state, .. }) => {
                let (now, files) = (self.now, &self.files);
                Engine::restore(&state, number, epoch, catalog_version, ad_groups, now, files)
                    .map_err(|source| BudgetsError::State { partition: number, source })?
            }
        };
        engine.set_promise(self.promise, self.now);
        let LogPosition { next_offset: offset, last_record } = position;
        Ok(State { engine, offset, last_record, epoch })
    }
}
