//! The state of this node that activation reads.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throng_activation::{
    DeliveredError, IdentifierKeys, IdentifierQueries, IdentifierSource, NodeState,
};
use throng_membership::{MembershipIndex, SnapshotFile};
use throng_model::Retry;
use throng_objects::ObjectsError;
use throng_refresh::{RefreshError, open_snapshot};
use throng_spec::Spec;
use throng_store::Snapshot;
use tokio::sync::Notify;

use super::hashing::HashingSettings;
use super::identifier_keys::identifier_keys;
use super::identifiers::LakeIdentifiers;
use crate::{Change, NodeContext};

/// The parts of a node that change while it runs.
pub(super) struct ActivationNode {
    pub(super) ctx: Arc<NodeContext>,
}

#[async_trait]
impl NodeState for ActivationNode {
    fn spec_and_version(&self) -> (Arc<Spec>, u64) {
        self.ctx.spec_and_version()
    }

    fn membership(&self) -> Arc<MembershipIndex> {
        self.ctx.membership.load_full()
    }

    async fn open_snapshot(&self, row: &Snapshot) -> Result<Option<SnapshotFile>, ObjectsError> {
        match open_snapshot(&self.ctx.objects, row).await {
            Ok(file) => Ok(Some(file)),
            Err(RefreshError::Objects(error)) if error.retry() != Retry::Never => Err(error),
            Err(error) => {
                let (audience, version) = (&row.audience, row.version);
                let error = &error as &dyn std::error::Error;
                tracing::error!(%audience, version, error, "failed to open snapshot");
                Ok(None)
            }
        }
    }

    async fn identifier_keys(&self) -> Result<IdentifierKeys, DeliveredError> {
        identifier_keys(&self.ctx).await
    }

    fn poll_delay(&self, duration: Duration) -> Duration {
        self.ctx.poll_delay(duration)
    }

    fn wake(&self) -> &Notify {
        &self.ctx.wake_activate
    }

    fn publish_change(&self) {
        self.ctx.publish_change(Change::Activation);
    }
}

impl IdentifierQueries for ActivationNode {
    fn query_of(&self, sync: &throng_spec::Sync, platform: &str) -> Arc<dyn IdentifierSource> {
        let keys = sync.identifiers.columns.iter().map(|(_, key)| key.clone()).collect();
        let default_country = sync.identifiers.default_country.clone();
        Arc::new(LakeIdentifiers {
            lake: self.ctx.lake.load_full(),
            sync: sync.name.clone(),
            identifiers: sync.identifiers.clone(),
            settings: HashingSettings { platform: platform.to_owned(), keys, default_country },
            seed: self.ctx.seed,
        })
    }
}
