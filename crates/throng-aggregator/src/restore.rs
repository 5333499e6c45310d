//! What is read from checkpoints: the state with which a partition continues, and the spend history of an ad
//! group.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use throng_budget::{
    AdGroupConfig, AdGroupRates, CheckpointFiles, Engine, EventBuffer, LogPosition, NamedFiles,
    Series,
};
use throng_model::{AdGroupName, BudgetDay, Micros, Timestamp};
use throng_objects::Objects;

use super::checkpoint::{Checkpoint, CheckpointStore};
use super::state::PartitionState;
use super::{BudgetsError, files, ids, slices};

/// The spend of an ad group over time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpendHistory {
    /// Its recent figures.
    pub series: Series,
    /// Actual spend of its last 8 budget days and of the next two, oldest first, days without spend too.
    pub days: Vec<(BudgetDay, Micros)>,
    /// Actual spend by quarters of an hour, each with its start; those without spend are left out.
    pub slices: Vec<(Timestamp, Micros)>,
    /// Its declared and learned rates.
    pub rates: AdGroupRates,
}

impl SpendHistory {
    pub(super) fn of(engine: &Engine, ad_group: &AdGroupName, now: Timestamp) -> Option<Self> {
        let series = engine.series(ad_group)?;
        let days = engine.days(ad_group, now).unwrap_or_default();
        let slices = engine.slices(ad_group).unwrap_or_default();
        Some(Self { series, days, slices, rates: engine.rates(ad_group).unwrap_or_default() })
    }
}

/// The spend history of an ad group, from the last checkpoint of its partition.
pub(super) async fn history_of(
    objects: Arc<dyn Objects>,
    number: u32,
    ad_groups: Vec<AdGroupConfig>,
    ad_group: &AdGroupName,
    now: Timestamp,
) -> Result<Option<SpendHistory>, BudgetsError> {
    let (_, found) = CheckpointStore::open(Arc::clone(&objects), number).await?;
    // An ad group that has not spent has an empty history; `None` would say that the spec does not
    // have it.
    let Some(found) = found else {
        return Ok(SpendHistory::of(&Engine::new(number, 0, 0, ad_groups), ad_group, now));
    };
    let named = named_files(number, &found.state)?;
    let slices = slices::load(&*objects, number, named.slices).await?;
    // Without the runs of ids: they are needed to apply events alone, and reading them would make
    // each request slow.
    let restored = Engine::restore_figures(&found.state, number, ad_groups, now, &slices);
    let (engine, _) =
        restored.map_err(|source| BudgetsError::State { partition: number, source })?;
    Ok(SpendHistory::of(&engine, ad_group, now))
}

/// The names of the files that a checkpoint's state needs.
pub(super) fn named_files(number: u32, state: &[u8]) -> Result<NamedFiles, BudgetsError> {
    let named = Engine::named_files(state);
    named.map_err(|source| BudgetsError::State { partition: number, source })
}

/// Reads the files that a checkpoint names.
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

/// What a state is restored from besides its checkpoint.
pub(super) struct RestoreSource {
    pub(super) number: u32,
    pub(super) ad_groups: Vec<AdGroupConfig>,
    pub(super) epoch: u64,
    pub(super) catalog_version: u64,
    pub(super) now: Timestamp,
    pub(super) dedupe_window: Duration,
    pub(super) files: CheckpointFiles,
}

impl RestoreSource {
    /// Removes files of the partition that the state does not need: see [`files::remove_orphans`].
    pub(super) async fn remove_orphans(&self, objects: &dyn Objects) {
        let needed = self.objects();
        for folder in [ids::folder(self.number), slices::folder(self.number)] {
            files::remove_orphans(objects, &folder, &needed, self.now).await;
        }
    }

    /// The objects of its files.
    fn objects(&self) -> HashSet<String> {
        let runs = self.files.runs.keys().map(|run| ids::object(self.number, run));
        let slices = self.files.slices.keys().map(|file| slices::object(self.number, file));
        runs.chain(slices).collect()
    }

    /// The state of a checkpoint; an empty one if there is no checkpoint.
    pub(super) fn state(&self, found: Option<Checkpoint>) -> Result<PartitionState, BudgetsError> {
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
        // After the restore: the engine compares it with the window of the checkpoint. If it is
        // longer now, ids are missing, and events of that time could count twice.
        engine.set_dedupe_window(self.dedupe_window, self.now);
        let LogPosition { next_offset: offset, last_record } = position;
        Ok(PartitionState { engine, offset, last_record, epoch, buffer: EventBuffer::default() })
    }
}
