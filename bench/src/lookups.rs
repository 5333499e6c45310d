//! Membership lookups: in process compared with one hash set per audience, and over HTTP compared with
//! Redis.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use hashbrown::HashSet;
use roaring::RoaringBitmap;
use serde_json::json;
use throng_membership::{
    MembershipIndex, ShardDictionary, SnapshotFile, SnapshotMeta, seed_check, write_snapshot,
};
use throng_model::{AudienceName, Entropy, HashSeed, SplitMix64, Timestamp, UserHash, UserKey};

use crate::Programs;
use crate::audiences::{node_dir, python};
use crate::node::{Node, peak_kib};
use crate::peer::{Redis, wrk};

const SEED: HashSeed = HashSeed(11);

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Number of users in the dictionary
    #[arg(long, default_value_t = 10_000_000)]
    users: u64,
    /// Number of audiences; each has a tenth of the users
    #[arg(long, default_value_t = 32)]
    audiences: u32,
    /// Lookups per measurement
    #[arg(long, default_value_t = 5_000_000)]
    lookups: u64,
    /// Number of alternating runs of each
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

type Sets = Vec<HashSet<u64, foldhash::fast::RandomState>>;

pub(crate) fn run(options: &Options) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let index = index(dir.path(), options)?;
    let names: Vec<AudienceName> = index.names().cloned().collect();
    let bytes = folder_bytes(dir.path())?;
    let before = resident_kib()?;
    let sets = sets(options);
    let set_kib = resident_kib()?.saturating_sub(before);
    for round in 1..=options.rounds {
        let (ours, hits) = timed(options, |user, audience| index.contains(user, &names[audience]));
        let (peer, peer_hits) = timed(options, |user, audience| sets[audience].contains(&user.0));
        anyhow::ensure!(hits == peer_hits, "{hits} hits against {peer_hits}");
        let (all, found) = timed_all(options, |user| index.ids_of(user).count());
        let (peer_all, peer_found) =
            timed_all(options, |user| sets.iter().filter(|set| set.contains(&user.0)).count());
        anyhow::ensure!(found == peer_found, "{found} found against {peer_found}");
        let line = json!({
            "figure": "lookups", "round": round, "users": options.users,
            "audiences": options.audiences,
            "throng": { "one_ns": ours, "all_audiences_ns": all, "bytes": bytes },
            "hash_sets": { "one_ns": peer, "all_audiences_ns": peer_all, "bytes": set_kib << 10 },
        });
        println!("{line}");
    }
    println!("{}", json!({ "figure": "lookups", "peak_kib": peak_kib(std::process::id())? }));
    Ok(())
}

fn user(number: u64) -> UserHash {
    UserKey::text(format!("u{number:012}")).hash(SEED)
}

/// Whether a user is among the tenth of an audience. Pseudo-random, so that compression cannot use an order.
fn is_member(hash: UserHash, audience: u32) -> bool {
    SplitMix64::new(hash.0 ^ u64::from(audience).wrapping_mul(0x9e37_79b9_7f4a_7c15)).below(10) == 0
}

fn index(dir: &Path, options: &Options) -> Result<MembershipIndex> {
    let mut shards: BTreeMap<u8, Vec<UserHash>> = BTreeMap::new();
    for number in 0..options.users {
        let hash = user(number);
        shards.entry(hash.shard()).or_default().push(hash);
    }
    let mut dictionaries = vec![None; 256];
    let mut ordinals: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
    let mut lens = vec![0; 256];
    for (shard, hashes) in &mut shards {
        hashes.sort_unstable();
        hashes.dedup();
        let assigned = ShardDictionary::default().assign(dir, hashes)?;
        let manifest = assigned.manifest.context("new users make a manifest")?;
        let dictionary = ShardDictionary::open(dir, &manifest)?;
        lens[usize::from(*shard)] = dictionary.len();
        dictionaries[usize::from(*shard)] = Some(dictionary);
        ordinals.insert(*shard, assigned.ordinals);
    }
    let mut snapshots = Vec::new();
    for audience in 0..options.audiences {
        let name = AudienceName::new(format!("audience-{audience:03}"))?;
        let meta = SnapshotMeta {
            audience: name.clone(),
            version: 1,
            model_fingerprint: String::new(),
            rows_read: options.users,
            null_keys: 0,
            created_at: Timestamp(0),
            seed_check: seed_check(SEED),
            dictionary_len: lens.clone(),
        };
        let bitmaps = (0..=u8::MAX).map(|shard| {
            let pairs = shards.get(&shard)?.iter().zip(ordinals.get(&shard)?);
            let mut members: RoaringBitmap =
                pairs.filter(|(hash, _)| is_member(**hash, audience)).map(|(_, o)| *o).collect();
            members.optimize();
            let mut bytes = Vec::new();
            members.serialize_into(&mut bytes).ok().map(|()| bytes)
        });
        let path = PathBuf::from(format!("snapshots/{name}.throng"));
        write_snapshot(dir, &path, &meta, bitmaps)?;
        snapshots.push((name, Arc::new(SnapshotFile::open(&dir.join(path))?)));
    }
    Ok(MembershipIndex::new(SEED, dictionaries, snapshots)?)
}

fn sets(options: &Options) -> Sets {
    (0..options.audiences)
        .map(|audience| {
            let hashes = (0..options.users).map(user);
            hashes.filter(|hash| is_member(*hash, audience)).map(|hash| hash.0).collect()
        })
        .collect()
}

/// Users and audiences in random order, so that caches do not help. With hashes: an ad server has them
/// already.
fn queries(options: &Options, count: u64) -> Vec<(UserHash, usize)> {
    let mut random = SplitMix64::new(5);
    (0..count)
        .map(|_| {
            let hash = user(random.below(options.users));
            (hash, random.below(u64::from(options.audiences)) as usize)
        })
        .collect()
}

fn timed(options: &Options, look_up: impl Fn(UserHash, usize) -> bool) -> (f64, u64) {
    let queries = queries(options, options.lookups);
    let started = Instant::now();
    let hits =
        queries.iter().filter(|(user, audience)| black_box(look_up(*user, *audience))).count();
    (started.elapsed().as_nanos() as f64 / queries.len() as f64, hits as u64)
}

fn timed_all(options: &Options, look_up: impl Fn(UserHash) -> usize) -> (f64, usize) {
    let queries = queries(options, options.lookups / 10);
    let started = Instant::now();
    let found = queries.iter().map(|(user, _)| black_box(look_up(*user))).sum();
    (started.elapsed().as_nanos() as f64 / queries.len() as f64, found)
}

fn folder_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            folder_bytes(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(bytes)
}

fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.context("/proc/self/status has no RssAnon")?.parse()?)
}

#[derive(clap::Args, Debug)]
pub(crate) struct HttpOptions {
    #[command(flatten)]
    programs: Programs,
    /// The folder of the benchmark `audiences`: its node `filter` is queried
    #[arg(long, default_value = "target/bench-data")]
    data: PathBuf,
    /// Number of users in the queries
    #[arg(long, default_value_t = 30_000_000)]
    users: u64,
    /// The largest number of members in Redis
    #[arg(long, default_value_t = 10_000_000)]
    redis_members: u64,
    /// Number of alternating runs of each
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

pub(crate) fn run_http(options: &HttpOptions) -> Result<()> {
    let limit = options.redis_members.to_string();
    let members = python(&options.programs, &options.data, &["members", "filter", &limit])?;
    let redis = Redis::start(false)?;
    redis.load(Path::new(members["file"].as_str().context("a file")?))?;
    let spec = options.data.join("filter.yaml");
    let node = Node::start(&options.programs.throng()?, &node_dir(&options.data, "filter"), &spec)?;
    let users = options.users;
    let one = format!(
        "math.randomseed(7)\nfunction request()\n  return wrk.format('GET', string.format('/v1/users/u%012d/audiences', math.random(0, {users} - 1)))\nend\n"
    );
    let many = format!(
        "math.randomseed(7)\nwrk.headers['Content-Type'] = 'application/json'\nlocal bodies = {{}}\nfor b = 1, 64 do\n  local keys = {{}}\n  for k = 1, 1000 do keys[k] = string.format('\"u%012d\"', math.random(0, {users} - 1)) end\n  bodies[b] = '{{\"keys\":[' .. table.concat(keys, ',') .. ']}}'\nend\nfunction request()\n  return wrk.format('POST', '/v1/lookups', nil, bodies[math.random(64)])\nend\n"
    );
    let range = users.to_string();
    let member = ["SISMEMBER", "audience", "u__rand_int__"];
    for round in 1..=options.rounds {
        let ours = wrk(&node, 50, &one)?;
        let peer = redis.benchmark(&["-r", &range, "-n", "500000"], &member)?;
        let batched = wrk(&node, 8, &many)? * 1_000.0;
        let pipelined = redis.benchmark(&["-r", &range, "-n", "3000000", "-P", "100"], &member)?;
        let line = json!({
            "figure": "http", "round": round,
            "throng": { "one_per_s": ours, "batch_of_1000_keys_per_s": batched,
                "peak_kib": node.peak_kib()? },
            "redis": { "one_per_s": peer, "pipelined_100_per_s": pipelined,
                "peak_kib": redis.peak_kib()?, "members": members["members"] },
        });
        println!("{line}");
    }
    Ok(())
}
