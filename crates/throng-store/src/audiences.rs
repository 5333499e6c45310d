//! Audiences, their refreshes cut into parts, their snapshots, and the user dictionary.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throng_model::{AudienceName, RefreshId, Timestamp};

use crate::Result;

/// The state of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshState {
    /// Waits for a builder.
    Scheduled,
    /// A builder has claimed it.
    Processing,
    /// A builder received SIGTERM and released it; another one may continue.
    Halted,
    /// Its snapshot is published, or it is `unchanged`.
    Completed,
    /// It gave up. An alert says why.
    Failed,
    /// The guard holds its snapshot until a person approves or rejects it.
    Held,
}

/// What started a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshTrigger {
    /// The audience's schedule.
    Schedule,
    /// A person, by CLI, API or page.
    Manual,
    /// The audience was new or its model changed when a spec was applied.
    Apply,
    /// Files of the tables that the model reads have changed.
    SourceChanged,
}

/// One refresh of one audience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refresh {
    /// Its number.
    pub id: RefreshId,
    /// The audience.
    pub audience: AudienceName,
    /// The state.
    pub state: RefreshState,
    /// What started it.
    pub trigger: RefreshTrigger,
    /// When it was queued.
    pub scheduled_at: Timestamp,
    /// When a builder first claimed it.
    pub started_at: Option<Timestamp>,
    /// When it was completed, failed or held.
    pub finished_at: Option<Timestamp>,
    /// It is not tried before this time (backoff after a failure).
    pub not_before: Timestamp,
    /// How many times it has failed.
    pub failures: u32,
    /// How many tries ended without a result since a part was last finished, because their process
    /// died. The current try does not count.
    #[serde(default)]
    pub crashes: u32,
    /// The process that has it, while `processing`.
    pub holder: Option<String>,
    /// When the holder's lease expires, unless it is renewed.
    pub lease_until: Option<Timestamp>,
    /// Rows that the model has returned so far.
    pub rows_read: u64,
    /// Rows among them whose key was NULL.
    pub null_keys: u64,
    /// Expected rows, if known, for progress and ETA.
    pub rows_expected: Option<u64>,
    /// Why it failed or is held, in plain words.
    pub reason: Option<String>,
    /// The version of the snapshot it made, once it made one; if it is `unchanged`, the version that
    /// it confirmed.
    pub snapshot_version: Option<u64>,
    /// It scans even if its inputs have not changed.
    #[serde(default)]
    pub forced: bool,
    /// It is completed without a snapshot of its own: model and files are those of the version that
    /// is served.
    #[serde(default)]
    pub unchanged: bool,
}

/// A part is a scan of a piece of the source, or the build of a group of user shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// Query → hashed keys by user shard.
    Scan,
    /// Hashed keys of some user shards → dictionary → bitmaps.
    Shards,
}

/// The state of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    /// Not finished. A part that was being processed at a crash is processed again.
    Pending,
    /// Its output is durable.
    Done,
}

/// A part to be recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPart {
    /// The kind.
    pub kind: PartKind,
    /// Its number within the refresh, over all kinds.
    pub number: u32,
    /// What it covers, as JSON that the builder understands (a file, a range of shards).
    pub covers: serde_json::Value,
}

/// One part of a refresh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The kind.
    pub kind: PartKind,
    /// Its number within the refresh.
    pub number: u32,
    /// The state.
    pub state: PartState,
    /// What it covers.
    pub covers: serde_json::Value,
    /// Its output (file name, counts), once done.
    pub output: Option<serde_json::Value>,
    /// The process that has it, or had it last.
    pub holder: Option<String>,
}

/// Whether a snapshot may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Waits for approval.
    Held,
    /// Was or is served.
    Published,
    /// A person rejected it.
    Rejected,
}

/// One immutable version of an audience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The audience.
    pub audience: AudienceName,
    /// 1, 2, 3, … per audience.
    pub version: u64,
    /// The state.
    pub state: SnapshotState,
    /// The name of its object.
    pub path: String,
    /// How many users.
    pub members: u64,
    /// Rows that were scanned: those that the model returns or counts.
    pub rows_read: u64,
    /// Rows among them whose key was NULL.
    pub null_keys: u64,
    /// Size of the file.
    pub bytes: u64,
    /// XXH3 (128 bits) of the file in 32 hexadecimal digits. `None` if it was made before checksums
    /// were recorded: the other fields identify the file then.
    #[serde(default)]
    pub checksum: Option<String>,
    /// The tables that it was made of, with the types of the columns that it used, as JSON. The
    /// next refresh must find the same types. `None` if it was made before they were recorded.
    #[serde(default)]
    pub tables: Option<String>,
    /// The state of the files that it was made of, as JSON. `None` if it was made before it was
    /// recorded.
    #[serde(default)]
    pub inputs: Option<String>,
    /// Fingerprint of the model's SQL and key column.
    pub model_fingerprint: String,
    /// The refresh that made it.
    pub refresh: RefreshId,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An audience in the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AudienceRow {
    /// The audience.
    pub name: AudienceName,
    /// The version that is served, once there is one.
    pub current: Option<Snapshot>,
    /// Its newest refresh, if any.
    pub refresh: Option<Refresh>,
    /// The id of the refresh that was requested while that one runs, and is queued when it has ended: see
    /// [`AudienceLedger::request_refresh`].
    #[serde(default)]
    pub waiting_refresh: Option<RefreshId>,
    /// When its newest completed refresh ended: its snapshot was published or approved, or it is `unchanged`.
    #[serde(default)]
    pub refreshed_at: Option<Timestamp>,
    /// When the schedule last fired.
    pub last_fired: Option<Timestamp>,
    /// Since when it is paused: no refresh of it is queued.
    #[serde(default)]
    pub paused_at: Option<Timestamp>,
    /// Since when the version that it serves is pinned, by a rollback: no refresh of it is queued.
    #[serde(default)]
    pub pinned_at: Option<Timestamp>,
    /// See [`AudienceLedger::record_source_state`].
    #[serde(default)]
    pub source_state: Option<String>,
}

impl AudienceRow {
    /// Why no refresh of it is queued: `paused`, `pinned to version 3`, or both. `None` if
    /// refreshes may be queued.
    pub fn stopped(&self) -> Option<String> {
        let paused = self.paused_at.map(|_| "paused".to_owned());
        let version = self.current.as_ref().map_or(0, |current| current.version);
        let pinned = self.pinned_at.map(|_| format!("pinned to version {version}"));
        match (paused, pinned) {
            (Some(paused), Some(pinned)) => Some(format!("{paused} and {pinned}")),
            (paused, pinned) => paused.or(pinned),
        }
    }
}

/// The list of dictionary segments of one user shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DictionaryShard {
    /// The shard, 0 to 255.
    pub shard: u8,
    /// Goes up by one with each change; 0 means that the shard is empty.
    pub version: u64,
    /// The segments, as text that throng-membership understands.
    pub manifest: String,
}

/// Whose refreshes a builder claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimFilter<'a> {
    /// Those of all audiences.
    All,
    /// Those of these audiences.
    Only(&'a [AudienceName]),
    /// Those of all audiences except these.
    Except(&'a [AudienceName]),
}

/// Audiences, refreshes, parts, snapshots, dictionary.
#[async_trait]
pub trait AudienceLedger: Send + Sync {
    /// All audiences that have ever had a refresh, by name.
    async fn audiences(&self) -> Result<Vec<AudienceRow>>;

    /// The version that each audience serves, by name; audiences without one are left out. Cheap
    /// enough to be called every second.
    async fn served_versions(&self) -> Result<Vec<(AudienceName, u64)>>;

    /// One audience. `None` if it never had a refresh.
    async fn audience(&self, name: &AudienceName) -> Result<Option<AudienceRow>>;

    /// Queues a refresh. If one of the same audience is already scheduled, halted or processing,
    /// returns that one instead: refreshes of one audience never run concurrently. `WrongState` if
    /// the audience is paused or pinned.
    async fn schedule_refresh(
        &self,
        audience: &AudienceName,
        trigger: RefreshTrigger,
        now: Timestamp,
    ) -> Result<RefreshId>;

    /// [`schedule_refresh`](Self::schedule_refresh) of a refresh that scans even if its inputs have not
    /// changed. One that is open becomes such a refresh.
    async fn force_refresh(
        &self,
        audience: &AudienceName,
        trigger: RefreshTrigger,
        now: Timestamp,
    ) -> Result<RefreshId>;

    /// Queues a refresh that reads everything that is in the source now, for a person. If one is scheduled that has not
    /// started, returns that one. If the open one has started, it may have listed its files already: another refresh
    /// is queued when it ends, at most one for each audience. Returns the id of that one: the ledger has no refresh
    /// of this id before. If the open one is cancelled, so is the one that waits for it: it has failed with the same
    /// reason. `force`: the refresh scans even if its inputs have not changed. `WrongState` if the audience is paused
    /// or pinned.
    async fn request_refresh(
        &self,
        audience: &AudienceName,
        force: bool,
        now: Timestamp,
    ) -> Result<RefreshId>;

    /// Records the newest state of the source's files that needs no other refresh, and with `refresh`
    /// queues the refresh for it, in one step. `false` (and nothing is changed) if it is recorded
    /// already, if a refresh is open, which may or may not read these files, or if the audience is
    /// paused or pinned, or unknown.
    async fn record_source_state(
        &self,
        audience: &AudienceName,
        state: &str,
        refresh: bool,
        now: Timestamp,
    ) -> Result<bool>;

    /// Claims the oldest refresh of the filter's audiences that is due: scheduled or halted with
    /// `not_before <= now`, or processing with an expired lease. Atomic: no two callers get the same
    /// one. The try counts as a crash until it is halted, failed or finishes a part, because a
    /// process that dies cannot report it.
    async fn claim_filtered_refresh(
        &self,
        filter: ClaimFilter<'_>,
        holder: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<Refresh>>;

    /// [`claim_filtered_refresh`](Self::claim_filtered_refresh) of all audiences.
    async fn claim_refresh(
        &self,
        holder: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<Refresh>> {
        self.claim_filtered_refresh(ClaimFilter::All, holder, now, lease_until).await
    }

    /// [`claim_refresh`](Self::claim_refresh) for the open refresh of one audience.
    async fn claim_refresh_of(
        &self,
        audience: &AudienceName,
        holder: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<Refresh>>;

    /// Renews the lease and records progress; `rows_expected` of `None` leaves the stored value.
    /// `LeaseLost` if another process has the refresh, or no process.
    async fn record_refresh_progress(
        &self,
        id: RefreshId,
        holder: &str,
        lease_until: Timestamp,
        rows_read: u64,
        null_keys: u64,
        rows_expected: Option<u64>,
    ) -> Result<()>;

    /// One refresh.
    async fn refresh(&self, id: RefreshId) -> Result<Refresh>;

    /// The newest refreshes first, of one audience or of all.
    async fn refreshes(&self, audience: Option<&AudienceName>, limit: u32) -> Result<Vec<Refresh>>;

    /// Records the parts of a refresh; parts that are already recorded stay. `WrongState` if the
    /// refresh has ended. `replacing`: its holder plans the refresh again, and these parts replace
    /// all recorded ones. Their numbers must be higher, so that the output of an old part, which
    /// another builder may still finish, is `NotFound` and never taken for that of a new one.
    /// `LeaseLost` if another process holds the refresh.
    async fn add_parts(
        &self,
        id: RefreshId,
        parts: &[NewPart],
        replacing: Option<&str>,
    ) -> Result<()>;

    /// The parts of a refresh by number.
    async fn parts(&self, id: RefreshId) -> Result<Vec<Part>>;

    /// Claims the next part of a refresh that can be processed, if the refresh is processing. Such a
    /// part is pending and has no holder with a valid lease; parts of the kind `shards` wait until
    /// every scan of their refresh is done. Two builders may still process one part after a lease
    /// has expired: parts are safe to repeat.
    async fn claim_part(
        &self,
        of: RefreshId,
        holder: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<Part>>;

    /// [`claim_part`](Self::claim_part) of the oldest refresh of the filter's audiences that has one.
    async fn claim_filtered_part(
        &self,
        filter: ClaimFilter<'_>,
        holder: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<(RefreshId, Part)>>;

    /// Renews the leases of all parts that `holder` has claimed.
    async fn renew_part_leases(&self, holder: &str, lease_until: Timestamp) -> Result<()>;

    /// Releases a part that is not done. Does nothing if another builder has it.
    async fn release_part(&self, id: RefreshId, number: u32, holder: &str) -> Result<()>;

    /// Records that a part's output is durable. Safe to repeat: the first output stays.
    async fn finish_part(
        &self,
        id: RefreshId,
        number: u32,
        output: &serde_json::Value,
    ) -> Result<()>;

    /// `processing → halted` for a holder that died: its try counts as a crash. Another builder can immediately claim the
    /// refresh and its unfinished parts. `LeaseLost` if another process has the refresh, or no process.
    async fn recover_refresh(&self, id: RefreshId, holder: &str, now: Timestamp) -> Result<()>;

    /// Ends the open refresh of an audience as `failed`, whichever process has it, and deletes its
    /// parts. Does not count as a failure. `None` if there is no open refresh, or another one than `id`. The
    /// holder loses its lease.
    async fn cancel_refresh(
        &self,
        audience: &AudienceName,
        id: Option<RefreshId>,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<Refresh>>;

    /// A try failed. With `retry_at` the refresh becomes `scheduled` again and keeps its parts;
    /// without it, it becomes `failed` and its parts are deleted. Counts the failure in both cases.
    async fn fail_refresh(
        &self,
        id: RefreshId,
        holder: &str,
        reason: &str,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Refresh>;

    /// Completes a refresh as `unchanged`, with the version that is served. `false` (and nothing is
    /// changed) if another version is served by now, or if the refresh is forced. `LeaseLost` if
    /// another process has the refresh.
    async fn confirm_unchanged(
        &self,
        id: RefreshId,
        holder: &str,
        version: u64,
        now: Timestamp,
    ) -> Result<bool>;

    /// `held → published` and current, and its refresh is `completed`. `WrongState` if it is not
    /// held, if a newer version is served, or if the audience is pinned.
    async fn approve(
        &self,
        audience: &AudienceName,
        version: u64,
        now: Timestamp,
    ) -> Result<Snapshot>;

    /// `held → rejected`, and its refresh is `failed`, with this reason before that of the hold. `WrongState` if it is
    /// not held.
    async fn reject(
        &self,
        audience: &AudienceName,
        version: u64,
        reason: &str,
        now: Timestamp,
    ) -> Result<Snapshot>;

    /// Makes an older published snapshot current again and pins it: until it is unpinned, only
    /// another rollback makes another snapshot current. `WrongState` if it was never published.
    async fn rollback(
        &self,
        audience: &AudienceName,
        version: u64,
        now: Timestamp,
    ) -> Result<Snapshot>;

    /// The snapshots of an audience that are not deleted, newest first.
    async fn snapshots(&self, audience: &AudienceName) -> Result<Vec<Snapshot>>;

    /// One snapshot.
    async fn snapshot(&self, audience: &AudienceName, version: u64) -> Result<Snapshot>;

    /// Sizes over time for charts: of all published snapshots, also deleted ones, oldest first, at
    /// most the newest `limit`.
    async fn size_history(
        &self,
        audience: &AudienceName,
        limit: u32,
    ) -> Result<Vec<(Timestamp, u64)>>;

    /// The dictionary of all shards that have one.
    async fn dictionary(&self) -> Result<Vec<DictionaryShard>>;

    /// One shard's dictionary. Version 0 and an empty manifest if there is none.
    async fn dictionary_shard(&self, shard: u8) -> Result<DictionaryShard>;

    /// Replaces a shard's manifest if its version is still `expected`; `false` if it is not. The
    /// files that the manifest names must already be durable, or a crash leaves a dictionary
    /// without its files.
    async fn compare_and_swap_dictionary(
        &self,
        shard: u8,
        expected: u64,
        manifest: &str,
    ) -> Result<bool>;
}
