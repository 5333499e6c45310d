//! A connector whose process is killed at a request: it never continues, and the test drops it.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use throng_model::{AudienceName, UserHash};
use throng_serving_stores::{Change, Connector, MemberStore, StoreConnector, StoreError};
use throng_spec::ServingStore;
use tokio::sync::Notify;

/// Where to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kill {
    /// At this request from now, from 0.
    pub(crate) request: u64,
    /// Whether the store has carried it out.
    pub(crate) after: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Cut {
    kill: Mutex<Option<Kill>>,
    reached: Notify,
    requests: Mutex<u64>,
}

impl Cut {
    pub(crate) fn set(&self, kill: Option<Kill>) {
        *self.kill.lock() = kill;
        *self.requests.lock() = 0;
    }

    /// Requests since [`Cut::set`].
    pub(crate) fn requests(&self) -> u64 {
        *self.requests.lock()
    }

    /// Waits until the place is reached.
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }

    fn next(&self) -> Option<Kill> {
        let mut requests = self.requests.lock();
        let number = *requests;
        *requests += 1;
        self.kill.lock().filter(|kill| kill.request == number)
    }

    async fn die(&self) {
        self.reached.notify_one();
        std::future::pending::<()>().await;
    }
}

pub(crate) struct CutConnector {
    pub(crate) inner: StoreConnector,
    pub(crate) cut: Arc<Cut>,
}

#[async_trait]
impl Connector for CutConnector {
    async fn connect(&self, store: &ServingStore) -> Result<Box<dyn MemberStore>, StoreError> {
        let inner = self.inner.connect(store).await?;
        Ok(Box::new(CutStore { inner, cut: Arc::clone(&self.cut) }))
    }
}

struct CutStore {
    inner: Box<dyn MemberStore>,
    cut: Arc<Cut>,
}

#[async_trait]
impl MemberStore for CutStore {
    fn request_users(&self) -> u32 {
        self.inner.request_users()
    }

    async fn write(
        &mut self,
        audience: &AudienceName,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let kill = self.cut.next();
        if kill.is_some_and(|kill| !kill.after) {
            self.cut.die().await;
        }
        self.inner.write(audience, changes).await?;
        if kill.is_some() {
            self.cut.die().await;
        }
        Ok(())
    }

    async fn contains(
        &mut self,
        audience: &AudienceName,
        users: &[UserHash],
    ) -> Result<Vec<bool>, StoreError> {
        self.inner.contains(audience, users).await
    }
}
