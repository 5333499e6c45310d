//! Expanding the templates of the applied spec again.

use std::collections::BTreeSet;
use std::sync::Arc;

use throng_spec::{Pattern, Plan, Spec};
use throng_store::Ledger;
use throng_templates::{ExpandError, Expanded, Queries, has_templates};

use crate::applier::SpecApplier;
use crate::error::{ApplyError, Refusal};
use crate::lake::LakeOpener;
use crate::stored::{self, LoadedSpec, load_applied};

/// The actor in the history.
const ACTOR: &str = "templates";

impl SpecApplier {
    /// Runs the queries of these templates of the applied spec, and applies what their rows make as a new version.
    /// `None` if nothing has changed.
    ///
    /// # Errors
    /// [`Refusal`]; the applied spec does not change, unless only a step after its write failed, which is logged.
    pub async fn expand_templates(
        &self,
        templates: &BTreeSet<Pattern>,
    ) -> Result<Option<(u64, Plan)>, Refusal> {
        let Some(LoadedSpec { spec, version, .. }) = load_applied(&*self.ledger).await? else {
            return Ok(None);
        };
        let running = self.running.load();
        let lake = match spec.sources == running.sources {
            true => self.lake.load_full(),
            false => Arc::new(self.opener.open(&spec).await?),
        };
        let queries = Queries::Of(templates);
        let expanded = throng_templates::expand(&lake, spec.clone(), Some(&spec), queries).await;
        let Expanded { spec: expanded, warnings } = expanded.map_err(Refusal::of_expansion)?;
        if expanded == spec {
            return Ok(None);
        }
        for warning in warnings {
            tracing::warn!(warning, "warning of a template");
        }
        let now = self.clock.now();
        let Some(written) = stored::write(&*self.ledger, &expanded, Some(version), now).await?
        else {
            let version = self.ledger.applied_version().await?.unwrap_or(0);
            return Err(Refusal::Superseded { version });
        };
        // The spec is applied: other nodes switch to it when they poll the ledger, and so does this one if it
        // fails now.
        if let Err(error) = self.switch_to_applied().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to switch to the spec with the new rows of templates"
            );
        }
        if let Err(error) = self.queue_refreshes(&written, Some(ACTOR)).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to queue the refreshes of new audiences; the role schedule queues them"
            );
        }
        Ok(Some((written.version, written.plan)))
    }
}

/// Adds the objects of its templates to the spec with which a node starts: those of the applied spec where the
/// template and the sources are the same, so that a restart runs no query; else those of the rows of now. If these cannot
/// be read, an applied template keeps the objects that it has: a node must start whatever the data of one client is.
///
/// # Errors
/// [`ApplyError`].
pub async fn expand_at_start(
    ledger: &dyn Ledger,
    opener: &LakeOpener,
    spec: &mut Spec,
) -> Result<(), ApplyError> {
    if !has_templates(spec) {
        return Ok(());
    }
    let lake = opener.open(spec).await?;
    let before = stored::read_usable_spec(ledger).await?.map(|(before, _)| before);
    let queries = Queries::Changed;
    match throng_templates::expand(&lake, spec.clone(), before.as_ref(), queries).await {
        Ok(Expanded { spec: expanded, warnings }) => {
            for warning in warnings {
                tracing::warn!(warning, "warning of a template");
            }
            *spec = expanded;
            Ok(())
        }
        Err(ExpandError::Problems(problems)) => Err(ApplyError::Templates(problems)),
        Err(ExpandError::Worker(error)) => Err(error.into()),
    }
}
