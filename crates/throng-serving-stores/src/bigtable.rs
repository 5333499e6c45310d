//! Members in a table of Google Bigtable: a row for each user, a column for each audience. In reading order: `rows`
//! (requests and what their answers mean, pure), `messages`, `calls` (gRPC), and here the tries of a request.

mod calls;
mod messages;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throng_google::AccessTokens;
use throng_model::{AudienceName, Backoff, Entropy as _, SystemEntropy, UserHash};
use throng_spec::BigtableSettings;

use crate::rate::RateLimit;
use crate::writer::BATCH_USERS;
use crate::{Change, MemberStore, StoreError};
use calls::{Calls, Client};
use rows::{complete_rows, row_key, unwritten};

/// The timeout of a write or a question with all its tries and the waits for the rate. Shorter than half of the lease
/// of a write.
const TIMEOUT: Duration = Duration::from_secs(12);
/// Tries of a request.
const MAX_TRIES: u32 = 5;
/// The delays between tries.
const RETRY: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) };

/// Connects to the API, with an access token if there are `tokens`.
pub(crate) async fn connect(
    table: &BigtableSettings,
    tokens: Option<Arc<AccessTokens>>,
    rate: RateLimit,
) -> Result<Box<dyn MemberStore>, StoreError> {
    // Not within the time of a write: its tries may take longer.
    if let Some(tokens) = &tokens {
        tokens.token().await?;
    }
    let calls = Client::connect(table, tokens).await?;
    Ok(Box::new(BigtableStore { calls, table: table.clone(), retry: RETRY, rate }))
}

struct BigtableStore<C> {
    calls: C,
    table: BigtableSettings,
    retry: Backoff,
    rate: RateLimit,
}

impl<C: Calls> BigtableStore<C> {
    async fn write_all(
        &mut self,
        audience: &AudienceName,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let mut left = changes.to_vec();
        let mut tries = 1;
        loop {
            let request = rows::write(&self.table, audience, &left);
            self.rate.wait(left.len()).await;
            let written = self.calls.mutate_rows(request).await;
            let Some((rest, failure)) = unwritten(&left, written)? else { return Ok(()) };
            if tries >= MAX_TRIES {
                return Err(failure.into());
            }
            tracing::debug!(rows = rest.len(), ?failure, "failed to write rows, will retry");
            left = rest;
            self.pause(tries).await;
            tries += 1;
        }
    }

    async fn contains_all(
        &mut self,
        audience: &AudienceName,
        users: &[UserHash],
    ) -> Result<Vec<bool>, StoreError> {
        let mut tries = 1;
        let chunks = loop {
            let request = rows::read(&self.table, audience, users);
            self.rate.wait(users.len()).await;
            match self.calls.read_rows(request).await {
                Err(failure) if failure.is_temporary() && tries < MAX_TRIES => {
                    tracing::debug!(?failure, "failed to read rows, will retry");
                }
                result => break result?,
            }
            self.pause(tries).await;
            tries += 1;
        };
        let found = complete_rows(chunks);
        Ok(users.iter().map(|user| found.contains(&row_key(*user))).collect())
    }

    async fn pause(&self, tries: u32) {
        tokio::time::sleep(self.retry.delay(tries, SystemEntropy.next_u64())).await;
    }
}

#[async_trait]
impl<C: Calls> MemberStore for BigtableStore<C> {
    fn request_users(&self) -> u32 {
        BATCH_USERS as u32
    }

    async fn write(
        &mut self,
        audience: &AudienceName,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let writing = self.write_all(audience, changes);
        tokio::time::timeout(TIMEOUT, writing).await.unwrap_or_else(|_| Err(no_answer()))
    }

    async fn contains(
        &mut self,
        audience: &AudienceName,
        users: &[UserHash],
    ) -> Result<Vec<bool>, StoreError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let reading = self.contains_all(audience, users);
        tokio::time::timeout(TIMEOUT, reading).await.unwrap_or_else(|_| Err(no_answer()))
    }
}

fn no_answer() -> StoreError {
    StoreError::Unreachable("no answer in time".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use tokio::time::Instant;
    use tonic::Code;

    use super::messages::{CellChunk, MutateRowsRequest, ReadRowsRequest};
    use super::rows::{Failure, Written};
    use super::*;
    use crate::rate::NextRequest;

    /// Users in a second.
    const RATE: u32 = 10_000;

    /// A table in memory whose answers have scripted failures.
    #[derive(Default)]
    struct Script {
        /// For each request the codes of its first rows, which are not written, and the end of its answer.
        failures: VecDeque<(Vec<Code>, Option<Failure>)>,
        rows: BTreeSet<Vec<u8>>,
        /// The numbers of rows of the requests.
        requests: Vec<usize>,
    }

    #[async_trait]
    impl Calls for Script {
        async fn mutate_rows(&mut self, request: MutateRowsRequest) -> Written {
            self.requests.push(request.entries.len());
            let (codes, failure) = self.failures.pop_front().unwrap_or_default();
            let mut written = Written { rows: Vec::new(), failure };
            for (at, row) in request.entries.into_iter().enumerate() {
                let code = match codes.get(at) {
                    Some(code) => *code,
                    // What comes after the end of an answer is neither written nor reported.
                    None if written.failure.is_some() => continue,
                    None => {
                        if row.mutations[0].set_cell.is_some() {
                            self.rows.insert(row.row_key);
                        } else {
                            self.rows.remove(&row.row_key);
                        }
                        Code::Ok
                    }
                };
                written.rows.push((at as i64, code));
            }
            written
        }

        async fn read_rows(&mut self, request: ReadRowsRequest) -> Result<Vec<CellChunk>, Failure> {
            let keys = request.rows.unwrap().row_keys;
            self.requests.push(keys.len());
            if let Some((_, Some(failure))) = self.failures.pop_front() {
                return Err(failure);
            }
            let found = keys.into_iter().filter(|key| self.rows.contains(key));
            let chunk = |row_key| CellChunk { row_key, reset_row: false, commit_row: true };
            Ok(found.map(chunk).collect())
        }
    }

    fn store(failures: Vec<(Vec<Code>, Option<Failure>)>) -> BigtableStore<Script> {
        let first = Duration::from_millis(1);
        BigtableStore {
            calls: Script { failures: failures.into(), ..Script::default() },
            table: BigtableSettings {
                project: "p".to_owned(),
                instance: "i".to_owned(),
                table: "t".to_owned(),
                family: "f".to_owned(),
                app_profile: None,
                credentials: None,
                token_url: None,
                metadata_url: None,
                endpoint: None,
                insecure: false,
            },
            retry: Backoff { first, longest: first },
            rate: RateLimit::new(NextRequest::default(), RATE),
        }
    }

    fn added(users: std::ops::Range<u64>) -> Vec<Change> {
        users.map(|n| Change { user: UserHash(n), added: true }).collect()
    }

    fn connection() -> Failure {
        Failure::Connection("reset".to_owned())
    }

    #[tokio::test]
    async fn only_rows_that_failed_are_sent_again() {
        let audience = "buyers".parse().unwrap();
        let mut store = store(vec![
            (vec![Code::Unavailable, Code::Aborted, Code::ResourceExhausted], None),
            (vec![Code::DeadlineExceeded], Some(connection())),
            (vec![], Some(Failure::Code(Code::Unavailable))),
            (vec![Code::Aborted], None),
        ]);
        store.write(&audience, &added(0..10)).await.unwrap();
        assert_eq!(store.calls.requests, [10, 3, 3, 3, 1]);
        assert_eq!(store.calls.rows.len(), 10);
        let removed: Vec<Change> =
            added(0..4).iter().map(|change| Change { added: false, ..*change }).collect();
        store.write(&audience, &removed).await.unwrap();
        let users: Vec<UserHash> = (0..12).map(UserHash).collect();
        let found = store.contains(&audience, &users).await.unwrap();
        let expected: Vec<bool> = (0..12).map(|n| (4..10).contains(&n)).collect();
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn each_try_counts_towards_the_rate() {
        let audience = "buyers".parse().unwrap();
        let unavailable = || (vec![], Some(Failure::Code(Code::Unavailable)));
        let mut store = store(vec![unavailable(), (vec![], Some(connection()))]);
        store.rate = RateLimit::new(NextRequest::default(), 1_000);
        let begun = Instant::now();
        // The third of three tries writes.
        store.write(&audience, &added(0..50)).await.unwrap();
        store.calls.failures.extend([unavailable()]);
        let users: Vec<UserHash> = (0..50).map(UserHash).collect();
        store.contains(&audience, &users).await.unwrap();
        assert_eq!(store.calls.requests, [50; 5]);
        // Five requests of 50 users take a quarter of a second.
        let next = store.rate.reserve(0, begun);
        assert!(next >= begun + Duration::from_millis(249), "{:?}", next - begun);
    }

    #[tokio::test]
    async fn a_write_fails_after_its_tries_or_at_once() {
        let audience = "buyers".parse().unwrap();
        let overloaded = (vec![Code::ResourceExhausted], None);
        let mut store_of = store(vec![overloaded; 5]);
        let error = store_of.write(&audience, &added(0..2)).await.unwrap_err();
        assert!(matches!(error, StoreError::Overloaded), "{error}");
        assert_eq!(store_of.calls.requests, [2, 1, 1, 1, 1]);
        let mut store_of = store(vec![(vec![], Some(Failure::Code(Code::PermissionDenied)))]);
        let error = store_of.write(&audience, &added(0..2)).await.unwrap_err();
        assert!(matches!(error, StoreError::TokenRefused(_)), "{error}");
        assert_eq!(store_of.calls.requests, [2]);
    }

    #[tokio::test]
    async fn a_question_is_asked_again_and_never_without_users() {
        let audience = "buyers".parse().unwrap();
        let unavailable = || (vec![], Some(Failure::Code(Code::Unavailable)));
        let mut store_of = store(vec![unavailable(), (vec![], Some(connection()))]);
        assert!(store_of.contains(&audience, &[]).await.unwrap().is_empty());
        assert_eq!(store_of.contains(&audience, &[UserHash(1)]).await.unwrap(), [false]);
        assert_eq!(store_of.calls.requests, [1, 1, 1]);
        let mut store_of = store(vec![unavailable(); 5]);
        let error = store_of.contains(&audience, &[UserHash(1)]).await.unwrap_err();
        assert!(matches!(error, StoreError::NotReady(_)), "{error}");
    }
}
