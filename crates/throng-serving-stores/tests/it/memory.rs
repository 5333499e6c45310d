//! Stores in memory, whose requests can be held while the test changes something.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use throng_model::{AudienceName, ManualClock, UserHash};
use throng_serving_stores::{Change, Connector, MemberStore, StoreError};
use throng_spec::ServingStore;
use tokio::sync::Notify;

/// All stores of a test.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Members by place and audience.
    members: Mutex<BTreeMap<(String, AudienceName), BTreeSet<UserHash>>>,
    /// The users of each write.
    writes: Mutex<Vec<usize>>,
    /// The users of each question.
    questions: Mutex<Vec<usize>>,
    /// The write that is held, from 0, before the store carries it out.
    held: Mutex<Option<usize>>,
    reached: Notify,
    released: Notify,
    /// The clock that each write advances, and by how much.
    clock: Mutex<Option<(Arc<ManualClock>, Duration)>>,
}

impl Memory {
    /// Holds the write with this number.
    pub(crate) fn hold(&self, write: usize) {
        *self.held.lock() = Some(write);
    }

    /// Waits until the write is held.
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets the held write continue.
    pub(crate) fn release(&self) {
        self.released.notify_one();
    }

    /// Each write takes so long.
    pub(crate) fn writes_take(&self, clock: &Arc<ManualClock>, duration: Duration) {
        *self.clock.lock() = Some((Arc::clone(clock), duration));
    }

    /// The users of each write.
    pub(crate) fn writes(&self) -> Vec<usize> {
        self.writes.lock().clone()
    }

    /// The users of each question.
    pub(crate) fn questions(&self) -> Vec<usize> {
        self.questions.lock().clone()
    }

    /// The members of an audience in a place.
    pub(crate) fn members(&self, place: &str, audience: &AudienceName) -> BTreeSet<UserHash> {
        let key = (place.to_owned(), audience.clone());
        self.members.lock().get(&key).cloned().unwrap_or_default()
    }
}

/// Connects to the stores in memory.
pub(crate) struct MemoryConnector(pub(crate) Arc<Memory>);

#[async_trait]
impl Connector for MemoryConnector {
    async fn connect(&self, store: &ServingStore) -> Result<Box<dyn MemberStore>, StoreError> {
        Ok(Box::new(MemoryStore { memory: Arc::clone(&self.0), place: store.place() }))
    }
}

struct MemoryStore {
    memory: Arc<Memory>,
    place: String,
}

#[async_trait]
impl MemberStore for MemoryStore {
    fn request_users(&self) -> u32 {
        1_000
    }

    async fn write(
        &mut self,
        audience: &AudienceName,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let number = {
            let mut writes = self.memory.writes.lock();
            writes.push(changes.len());
            writes.len() - 1
        };
        let is_held = *self.memory.held.lock() == Some(number);
        if is_held {
            self.memory.reached.notify_one();
            self.memory.released.notified().await;
        }
        if let Some((clock, duration)) = &*self.memory.clock.lock() {
            clock.advance(*duration);
        }
        let mut all = self.memory.members.lock();
        let members = all.entry((self.place.clone(), audience.clone())).or_default();
        for change in changes {
            if change.added {
                members.insert(change.user);
            } else {
                members.remove(&change.user);
            }
        }
        Ok(())
    }

    async fn contains(
        &mut self,
        audience: &AudienceName,
        users: &[UserHash],
    ) -> Result<Vec<bool>, StoreError> {
        self.memory.questions.lock().push(users.len());
        let members = self.memory.members(&self.place, audience);
        Ok(users.iter().map(|user| members.contains(user)).collect())
    }
}
