//! Lookups: which audiences is this user in?

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use throng_model::{AudienceName, HashSeed, SHARD_COUNT, UserHash};
use xxhash_rust::xxh3::Xxh3;

use crate::{MembershipError, ShardDictionary, SnapshotFile, seed_check};

/// An audience's number within one [`MembershipIndex`]; another index may number differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AudienceId(pub u32);

/// The shard and ordinal of a known user: located once, valid for all audiences of the same index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Located {
    /// The user shard.
    pub shard: u8,
    /// The ordinal in that shard.
    pub ordinal: u32,
}

/// All dictionaries and the snapshots that are served. Immutable: a new snapshot is published by
/// making another index and swapping it. That is cheap, because open files are shared.
///
/// ```
/// use std::sync::Arc;
///
/// use throng_membership::{
///     MembershipIndex, ShardDictionary, SnapshotFile, SnapshotMeta, SnapshotWriter, seed_check,
/// };
/// use throng_model::{AudienceName, HashSeed, SHARD_COUNT, Timestamp, UserKey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let root = folder.path();
/// // One known user, who is in the audience `buyers`.
/// let seed = HashSeed(7);
/// let user = UserKey::text("user-1").hash(seed);
/// let assigned = ShardDictionary::default().assign(root, &[user])?;
/// let dictionary = ShardDictionary::open(root, &assigned.manifest.unwrap_or_default())?;
/// let mut dictionaries = vec![None; SHARD_COUNT];
/// let mut dictionary_len = vec![0; SHARD_COUNT];
/// dictionary_len[usize::from(user.shard())] = dictionary.len();
/// dictionaries[usize::from(user.shard())] = Some(dictionary);
///
/// let buyers = AudienceName::new("buyers")?;
/// let mut snapshot = SnapshotWriter::new(SnapshotMeta {
///     audience: buyers.clone(),
///     version: 1,
///     model_fingerprint: String::new(),
///     rows_read: 1,
///     null_keys: 0,
///     created_at: Timestamp(0),
///     seed_check: seed_check(seed),
///     dictionary_len,
/// })?;
/// snapshot.shard(user.shard(), assigned.ordinals.into_iter().collect())?;
/// snapshot.write(root, "buyers".as_ref())?;
///
/// let file = Arc::new(SnapshotFile::open(&root.join("buyers"))?);
/// let index = MembershipIndex::new(seed, dictionaries, vec![(buyers.clone(), file)])?;
/// assert_eq!(index.audiences_of(user), [&buyers]);
/// assert!(!index.contains(UserKey::text("user-2").hash(seed), &buyers));
/// # Ok(())
/// # }
/// ```
pub struct MembershipIndex {
    seed: HashSeed,
    dictionaries: Vec<Option<ShardDictionary>>,
    snapshots: Vec<(AudienceName, Arc<SnapshotFile>)>,
    ids: HashMap<AudienceName, AudienceId>,
    missing: Vec<AudienceName>,
    /// Computed when it is first asked for.
    fingerprint: OnceLock<String>,
}

impl fmt::Debug for MembershipIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MembershipIndex")
            .field("audiences", &self.ids.len())
            .finish_non_exhaustive()
    }
}

impl MembershipIndex {
    /// An index over dictionaries by shard (missing ones are empty) and one snapshot per audience.
    /// Read the snapshots from the ledger before the dictionaries: then no snapshot needs a newer
    /// dictionary.
    ///
    /// # Errors
    /// [`MembershipError::OtherSeed`], [`MembershipError::DictionaryTooOld`], or
    /// [`MembershipError::Misuse`] for a dictionary of another shard or an audience given twice.
    pub fn new(
        seed: HashSeed,
        mut dictionaries: Vec<Option<ShardDictionary>>,
        mut snapshots: Vec<(AudienceName, Arc<SnapshotFile>)>,
    ) -> Result<Self, MembershipError> {
        dictionaries.resize(SHARD_COUNT, None);
        for (index, dictionary) in dictionaries.iter().enumerate() {
            let shard = dictionary.as_ref().and_then(ShardDictionary::shard);
            if shard.is_some_and(|shard| usize::from(shard) != index) {
                return Err(MembershipError::Misuse(format!(
                    "the dictionary given for shard {index} is that of another shard"
                )));
            }
        }
        snapshots.sort_by(|a, b| a.0.cmp(&b.0));
        let check = seed_check(seed);
        let mut ids = HashMap::with_capacity(snapshots.len());
        for (number, (audience, snapshot)) in snapshots.iter().enumerate() {
            if snapshot.meta().seed_check != check {
                return Err(MembershipError::OtherSeed { audience: audience.clone() });
            }
            for (shard, &needs) in (0..=u8::MAX).zip(&snapshot.meta().dictionary_len) {
                let has = dictionaries[usize::from(shard)].as_ref().map_or(0, ShardDictionary::len);
                if has < needs {
                    let audience = audience.clone();
                    return Err(MembershipError::DictionaryTooOld { audience, shard, has, needs });
                }
            }
            if ids.insert(audience.clone(), AudienceId(number as u32)).is_some() {
                return Err(MembershipError::Misuse(format!(
                    "audience `{audience}` is given twice"
                )));
            }
        }
        let (missing, fingerprint) = (Vec::new(), OnceLock::new());
        Ok(Self { seed, dictionaries, snapshots, ids, missing, fingerprint })
    }

    /// An index without users and audiences.
    ///
    /// ```
    /// use throng_membership::MembershipIndex;
    /// use throng_model::{HashSeed, UserKey};
    ///
    /// let index = MembershipIndex::empty(HashSeed(7));
    /// let user = UserKey::text("user-1").hash(index.seed());
    /// assert_eq!((index.users(), index.locate(user)), (0, None));
    /// ```
    pub fn empty(seed: HashSeed) -> Self {
        Self {
            seed,
            dictionaries: vec![None; SHARD_COUNT],
            snapshots: Vec::new(),
            ids: HashMap::new(),
            missing: Vec::new(),
            fingerprint: OnceLock::new(),
        }
    }

    /// Sets the audiences that should be served and cannot be: see [`missing`](Self::missing).
    #[must_use]
    pub fn with_missing(mut self, mut missing: Vec<AudienceName>) -> Self {
        missing.sort_unstable();
        self.missing = missing;
        self.fingerprint = OnceLock::new();
        self
    }

    /// 32 hexadecimal digits that change with what is served: seed, dictionaries, snapshots and
    /// [`missing`](Self::missing). Computed once.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            let mut hasher = Xxh3::new();
            hasher.update(&self.seed.0.to_le_bytes());
            for dictionary in self.dictionaries.iter().flatten() {
                hasher.update(dictionary.manifest().as_bytes());
            }
            for (audience, file) in &self.snapshots {
                let identity = file.identity();
                let sum = identity.checksum.as_deref().unwrap_or_default();
                let text = format!(
                    "\n{audience} {} {} {} {} {sum}",
                    identity.version, identity.model_fingerprint, identity.members, identity.bytes
                );
                hasher.update(text.as_bytes());
            }
            for audience in &self.missing {
                hasher.update(format!("\n-{audience}").as_bytes());
            }
            format!("{:032x}", hasher.digest128())
        })
    }

    /// Audiences that have a published snapshot, but none here that can be used. The answers of
    /// this index do not contain them, so an answer about a user must report them as unknown.
    pub fn missing(&self) -> &[AudienceName] {
        &self.missing
    }

    /// The seed that user keys must be hashed with.
    pub fn seed(&self) -> HashSeed {
        self.seed
    }

    /// A shard's dictionary, if it has one.
    pub fn dictionary(&self, shard: u8) -> Option<&ShardDictionary> {
        self.dictionaries[usize::from(shard)].as_ref()
    }

    /// An audience's snapshot, if it has one.
    pub fn snapshot(&self, audience: &AudienceName) -> Option<&Arc<SnapshotFile>> {
        self.id(audience).map(|id| &self.snapshots[id.0 as usize].1)
    }

    /// An audience's number, if it has a snapshot.
    pub fn id(&self, audience: &AudienceName) -> Option<AudienceId> {
        self.ids.get(audience).copied()
    }

    /// The audience of a number; `None` for a number of another index.
    pub fn name(&self, id: AudienceId) -> Option<&AudienceName> {
        self.snapshots.get(id.0 as usize).map(|s| &s.0)
    }

    /// All audiences, by name; the index of each is its [`AudienceId`].
    pub fn names(&self) -> impl ExactSizeIterator<Item = &AudienceName> {
        self.snapshots.iter().map(|s| &s.0)
    }

    /// All audiences, by name, with the snapshot that is served.
    pub fn snapshots(&self) -> impl ExactSizeIterator<Item = (&AudienceName, &Arc<SnapshotFile>)> {
        self.snapshots.iter().map(|(name, file)| (name, file))
    }

    /// How many users are known in all shards.
    pub fn users(&self) -> u64 {
        self.dictionaries.iter().flatten().map(|d| u64::from(d.len())).sum()
    }

    /// Finds a user; `None` if no audience ever had them.
    #[inline]
    pub fn locate(&self, user: UserHash) -> Option<Located> {
        let shard = user.shard();
        let ordinal = self.dictionaries[usize::from(shard)].as_ref()?.ordinal(user)?;
        Some(Located { shard, ordinal })
    }

    /// Whether a located user is in an audience. A number of another index gives `false`.
    #[inline]
    pub fn contains_at(&self, user: Located, audience: AudienceId) -> bool {
        self.snapshots
            .get(audience.0 as usize)
            .is_some_and(|(_, file)| file.contains(user.shard, user.ordinal))
    }

    /// Whether a user is in an audience; `false` if either is unknown.
    pub fn contains(&self, user: UserHash, audience: &AudienceName) -> bool {
        self.id(audience)
            .is_some_and(|id| self.locate(user).is_some_and(|user| self.contains_at(user, id)))
    }

    /// The numbers of a user's audiences, ascending. Nothing for an unknown user.
    pub fn ids_of(&self, user: UserHash) -> impl Iterator<Item = AudienceId> + '_ {
        self.locate(user).into_iter().flat_map(move |user| {
            let count = self.snapshots.len() as u32;
            (0..count).map(AudienceId).filter(move |&id| self.contains_at(user, id))
        })
    }

    /// A user's audiences, by name. Nothing for an unknown user.
    pub fn audiences_of(&self, user: UserHash) -> Vec<&AudienceName> {
        self.ids_of(user).filter_map(|id| self.name(id)).collect()
    }

    /// The audiences of many users, in the order given. Locates users in the order of their hashes,
    /// and tests audience by audience within a shard, so that lookups share cache lines.
    pub fn batch(&self, users: &[UserHash]) -> Vec<Vec<AudienceId>> {
        let mut located: Vec<(Located, u32)> = Vec::with_capacity(users.len());
        let mut order: Vec<u32> = (0..users.len() as u32).collect();
        order.sort_unstable_by_key(|&index| users[index as usize]);
        located.extend(
            order.iter().filter_map(|&index| Some((self.locate(users[index as usize])?, index))),
        );
        let mut found = vec![Vec::new(); users.len()];
        for shard in located.chunk_by_mut(|a, b| a.0.shard == b.0.shard) {
            shard.sort_unstable_by_key(|(user, _)| user.ordinal);
            for id in (0..self.snapshots.len() as u32).map(AudienceId) {
                for (user, index) in shard.iter() {
                    if self.contains_at(*user, id) {
                        found[*index as usize].push(id);
                    }
                }
            }
        }
        found
    }
}
