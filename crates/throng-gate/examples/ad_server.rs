//! An ad server with a gate: it applies frames of the feed, decides, counts its own insertions until the
//! feed has them, and prints each decision with its reasons.
//!
//! ```sh
//! cargo run -p throng-gate --example ad_server                         # a demonstration
//! cargo run -p throng-gate --example ad_server -- catalog.json feed    # against a node, see README.md
//! ```
//!
//! `catalog.json` is the answer of `GET /v1/catalog`; `feed` is a file or a pipe with the body of
//! `GET /v1/feed?format=3`. Requests are lines of the standard input:
//!
//! ```text
//! decide USER AD_GROUP...              which of these may this user (-: unknown) see now?
//! logged NUMBER PARTITION:OFFSET...    the answer to the event of insertion NUMBER
//! dropped NUMBER                       the insertion was not made after all
//! spend AD_GROUP                       what the gate knows
//! ```

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use throng_gate::feed::{FeedEntry, Frame, FrameKind, PassThroughRate};
use throng_gate::{Catalog, FrameOutcome, Gate, OwnInsertion};
use throng_membership::{
    MembershipIndex, ShardDictionary, SnapshotFile, SnapshotMeta, SnapshotWriter, seed_check,
};
use throng_model::{
    AdGroupIndex, AdGroupName, AudienceName, Clock, HashSeed, ManualClock, Micros, SHARD_COUNT,
    SystemClock, Timestamp, UserHash, UserKey,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Ten times the feed's default interval.
const STALE_AFTER: Duration = Duration::from_secs(10);
/// A longer frame is not a frame: the bytes are of another protocol.
const LONGEST_FRAME: u32 = 64 << 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut output = io::stdout().lock();
    match arguments.as_slice() {
        [] => demonstrate(&mut output),
        [catalog, feed] => serve(Path::new(catalog), Path::new(feed), &mut output),
        _ => Err("usage: ad_server [CATALOG FEED]".into()),
    }
}

/// Decides for requests from the standard input, while another thread applies the feed.
fn serve(catalog: &Path, feed: &Path, output: &mut impl Write) -> Result<()> {
    let catalog = catalog.to_owned();
    let load = move || -> Result<Catalog> {
        Ok(serde_json::from_reader(BufReader::new(File::open(&catalog)?))?)
    };
    let gate = Arc::new(Gate::new(load()?, STALE_AFTER));
    let mut feed = BufReader::new(File::open(feed)?);
    let (applied, first) = mpsc::sync_channel(1);
    let follower = Arc::clone(&gate);
    std::thread::spawn(move || {
        let ended = follow(&mut feed, &follower, &load, || _ = applied.try_send(()));
        match ended {
            Ok(()) => eprintln!("the feed has ended"),
            Err(error) => eprintln!("the feed has ended: {error}"),
        }
    });
    // Before the first frame every ad group has zero spend: what is shown then may be over budget already.
    first.recv().map_err(|_| "the feed has ended before its first frame")?;
    let membership = Arc::new(MembershipIndex::empty(HashSeed(0)));
    let mut server = AdServer::new(gate, Arc::new(SystemClock), membership);
    for line in io::stdin().lock().lines() {
        if let Err(error) = server.answer(&line?, output) {
            writeln!(output, "  {error}")?;
        }
        output.flush()?;
    }
    Ok(())
}

/// Applies frames until the feed ends. A real ad server then connects again, after a pause that grows.
fn follow(
    feed: &mut impl Read,
    gate: &Gate,
    catalog: &impl Fn() -> Result<Catalog>,
    mut applied: impl FnMut(),
) -> Result<()> {
    while let Some(bytes) = read_frame(feed)? {
        match gate.apply(&Frame::decode(&bytes)?) {
            FrameOutcome::NeedKeyframe => {
                return Err("a frame is missing: connect again, keyframes come first".into());
            }
            FrameOutcome::Applied { unknown, catalog_behind, .. }
                if catalog_behind || unknown > 0 =>
            {
                gate.set_catalog(catalog()?);
            }
            FrameOutcome::Applied { .. } | FrameOutcome::Ignored => {}
        }
        applied();
    }
    Ok(())
}

/// The next frame: its length in 4 bytes, little-endian, and the frame. `None`: the feed has ended.
fn read_frame(feed: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match feed.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_le_bytes(length);
    if length > LONGEST_FRAME {
        return Err(format!("a frame of {length} bytes: this is not a feed").into());
    }
    let mut bytes = vec![0; length as usize];
    feed.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

struct AdServer {
    gate: Arc<Gate>,
    clock: Arc<dyn Clock>,
    /// The seed that user keys are hashed with: that of the membership index.
    seed: HashSeed,
    /// How many insertions there were; the last one's number.
    insertions: u64,
    /// Insertions whose events have not been answered yet.
    unanswered: HashMap<u64, OwnInsertion>,
}

impl AdServer {
    fn new(gate: Arc<Gate>, clock: Arc<dyn Clock>, membership: Arc<MembershipIndex>) -> Self {
        let seed = membership.seed();
        gate.set_membership(membership);
        Self { gate, clock, seed, insertions: 0, unanswered: HashMap::new() }
    }

    /// Answers one line.
    fn answer(&mut self, line: &str, output: &mut impl Write) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["decide", user, candidates @ ..] => self.decide(user, candidates, output),
            ["logged", number, positions @ ..] => {
                let positions: Vec<(u32, u64)> =
                    positions.iter().map(|text| position(text)).collect::<Result<_>>()?;
                let insertion = self.unanswered(number)?;
                self.gate.insertion_logged(insertion, &positions, self.clock.now());
                Ok(())
            }
            ["dropped", number] => {
                let insertion = self.unanswered(number)?;
                self.gate.insertion_dropped(insertion);
                Ok(())
            }
            ["spend", ad_group] => self.spend(ad_group, output),
            _ => Err("a line begins with decide, logged, dropped or spend".into()),
        }
    }

    fn decide(&mut self, user: &str, candidates: &[&str], output: &mut impl Write) -> Result<()> {
        let candidates: Vec<AdGroupName> = candidates
            .iter()
            .map(|name| AdGroupName::new(*name))
            .collect::<std::result::Result<_, _>>()?;
        let user = (user != "-").then(|| UserKey::text(user).hash(self.seed));
        let now = self.clock.now();
        let (decision, counted) = self.gate.decide_and_count(user, &candidates, now);
        for (ad_group, reason) in &decision.refused {
            writeln!(output, "  not {ad_group}: {reason}")?;
        }
        let (Some(chosen), Some(counted)) = (decision.allowed.first(), counted) else {
            writeln!(output, "  no ad")?;
            return Ok(());
        };
        self.insertions += 1;
        let number = self.insertions;
        self.unanswered.insert(number, counted);
        // What is sent to `POST /v1/events`; its answer has the positions for `logged`.
        let event = serde_json::json!({
            "id": format!("insertion-{number}"),
            "kind": "insertion",
            "ad_group": chosen,
            "insertion_id": format!("insertion-{number}"),
            "at": now.to_string(),
        });
        writeln!(output, "  insertion {number} of {chosen}: {event}")?;
        Ok(())
    }

    fn spend(&self, ad_group: &str, output: &mut impl Write) -> Result<()> {
        let ad_group = AdGroupName::new(ad_group)?;
        let spend = self.gate.spend(&ad_group).ok_or("the catalog does not have it")?;
        writeln!(
            output,
            "  {} spent, {} in flight, {} of own insertions; budget {}",
            spend.actual, spend.in_flight, spend.own, spend.budget
        )?;
        Ok(())
    }

    fn unanswered(&mut self, number: &str) -> Result<OwnInsertion> {
        let insertion = self.unanswered.remove(&number.parse::<u64>()?);
        insertion.ok_or_else(|| "there is no such insertion without an answer".into())
    }
}

/// `PARTITION:OFFSET`, as in `positions` of the answer to events.
fn position(text: &str) -> Result<(u32, u64)> {
    let (partition, offset) = text.split_once(':').ok_or("a position is PARTITION:OFFSET")?;
    Ok((partition.parse()?, offset.parse()?))
}

/// The catalog of the demonstration.
const CATALOG: &str = r#"{"version": 1, "ad_groups": [
  {"index": 0, "name": "shoes", "daily_budget": 100000000, "currency": "USD", "prediction": true,
   "include": ["buyers"], "exclude": [], "when_stale": "stop", "expected": 500000},
  {"index": 1, "name": "hats", "daily_budget": 50000000, "currency": "USD", "prediction": true,
   "include": [], "exclude": [], "when_stale": "serve", "expected": 200000}
]}"#;

/// The seed of the demonstration.
const SEED: HashSeed = HashSeed(7);

/// A few requests around the end of a budget, with two frames that come in between.
fn demonstrate(output: &mut impl Write) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let catalog: Catalog = serde_json::from_str(CATALOG)?;
    let load = || -> Result<Catalog> { Ok(catalog.clone()) };
    let clock = Arc::new(ManualClock::new("2026-11-27T18:00:00Z".parse()?));
    let gate = Arc::new(Gate::new(catalog.clone(), STALE_AFTER));
    let shown = Arc::clone(&clock) as Arc<dyn Clock>;
    let mut server = AdServer::new(Arc::clone(&gate), shown, Arc::new(membership(folder.path())?));

    writeln!(output, "a keyframe: shoes has 99.00 of 100.00 spent and 0.40 in flight")?;
    let hats = entry(1, 0, 0);
    let keyframe = frame(1, FrameKind::Keyframe, clock.now(), 10, vec![entry(0, 99, 40), hats]);
    follow(&mut stream(&keyframe)?.as_slice(), &gate, &load, || ())?;
    let lines = [
        "decide user-2 shoes",
        "decide user-1 shoes hats",
        "decide user-1 shoes hats",
        "decide user-1 shoes hats",
        "dropped 2",
        "logged 1 0:11",
        "spend shoes",
    ];
    answer(&mut server, &lines, output)?;

    writeln!(output, "a delta that has the log up to offset 11, and so insertion 1")?;
    let delta = FrameKind::Delta { base_version: 1 };
    let delta = frame(2, delta, clock.now(), 11, vec![entry(0, 99, 90)]);
    follow(&mut stream(&delta)?.as_slice(), &gate, &load, || ())?;
    answer(&mut server, &["spend shoes"], output)?;

    writeln!(output, "30 seconds without a frame")?;
    clock.advance(Duration::from_secs(30));
    answer(&mut server, &["decide user-1 shoes hats"], output)
}

fn answer(server: &mut AdServer, lines: &[&str], output: &mut impl Write) -> Result<()> {
    for line in lines {
        writeln!(output, "> {line}")?;
        server.answer(line, output)?;
    }
    Ok(())
}

/// An ad group with so many dollars spent and so many cents in flight.
fn entry(index: u32, dollars: i64, cents: i64) -> FeedEntry {
    let (actual, in_flight) = (Micros(dollars * 1_000_000), Micros(cents * 10_000));
    let (index, pass_through_rate) = (AdGroupIndex(index), PassThroughRate::ALL);
    FeedEntry { index, actual, in_flight, flags: 0, pass_through_rate }
}

fn frame(
    version: u64,
    kind: FrameKind,
    at: Timestamp,
    log_position: u64,
    entries: Vec<FeedEntry>,
) -> Frame {
    let log_position = Some(log_position);
    Frame { partition: 0, epoch: 1, version, kind, at, catalog_version: 1, log_position, entries }
}

/// A frame as it comes through `GET /v1/feed`.
fn stream(frame: &Frame) -> Result<Vec<u8>> {
    let frame = frame.encode();
    let mut bytes = u32::try_from(frame.len())?.to_le_bytes().to_vec();
    bytes.extend(frame);
    Ok(bytes)
}

/// Three users, of whom `user-1` is in the audience `buyers`. A real ad server opens the files that a
/// node has published.
fn membership(root: &Path) -> Result<MembershipIndex> {
    let mut users = ["user-1", "user-2", "user-3"].map(|key| UserKey::text(key).hash(SEED));
    let buyer = users[0];
    users.sort_unstable();
    let mut shards: BTreeMap<u8, Vec<UserHash>> = BTreeMap::new();
    for user in users {
        shards.entry(user.shard()).or_default().push(user);
    }
    let mut dictionaries: Vec<Option<ShardDictionary>> = vec![None; SHARD_COUNT];
    for (shard, users) in shards {
        let assigned = ShardDictionary::default().assign(root, &users)?;
        let manifest = assigned.manifest.unwrap_or_default();
        dictionaries[usize::from(shard)] = Some(ShardDictionary::open(root, &manifest)?);
    }
    let dictionary_len =
        dictionaries.iter().map(|d| d.as_ref().map_or(0, ShardDictionary::len)).collect();
    let ordinal = dictionaries[usize::from(buyer.shard())].as_ref().and_then(|d| d.ordinal(buyer));
    let buyers = AudienceName::new("buyers")?;
    let mut writer = SnapshotWriter::new(SnapshotMeta {
        audience: buyers.clone(),
        version: 1,
        model_fingerprint: String::new(),
        rows_read: 1,
        null_keys: 0,
        created_at: Timestamp(0),
        seed_check: seed_check(SEED),
        dictionary_len,
    })?;
    writer.shard(buyer.shard(), ordinal.into_iter().collect())?;
    writer.write(root, Path::new("buyers"))?;
    let snapshot = SnapshotFile::open(&root.join("buyers"))?;
    Ok(MembershipIndex::new(SEED, dictionaries, vec![(buyers, Arc::new(snapshot))])?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_demonstration_shows_each_reason() {
        let mut output = Vec::new();
        super::demonstrate(&mut output).unwrap();
        let text = String::from_utf8(output).unwrap();
        let insertion = |number: u32, ad_group: &str| {
            format!("  insertion {number} of {ad_group}: {{\"id\":\"insertion-{number}\"")
        };
        let expected: [&str; 10] = [
            "  not shoes: the user is not in audience `buyers`",
            "  no ad",
            &insertion(1, "shoes"),
            &insertion(2, "shoes"),
            "  not shoes: 99.00 spent and 1.40 in flight reach the budget of 100.00 USD",
            &insertion(3, "hats"),
            "  99.00 spent, 0.40 in flight, 0.50 of own insertions; budget 100.00",
            "  99.00 spent, 0.90 in flight, 0.00 of own insertions; budget 100.00",
            "  not shoes: no feed frame about its spend since 2026-11-27T18:00:00Z, and it stops when stale",
            &insertion(4, "hats"),
        ];
        let mut answers = text.lines().filter(|line| line.starts_with("  "));
        for expected in expected {
            let line = answers.next().unwrap_or("nothing");
            assert!(line.starts_with(expected), "`{line}` instead of `{expected}`\n{text}");
        }
        assert_eq!(answers.next(), None);
    }

    #[test]
    fn what_is_not_a_feed_is_an_error() {
        let mut page = &b"HTTP/1.1 503 Service Unavailable"[..];
        let error = super::read_frame(&mut page).unwrap_err().to_string();
        assert_eq!(error, "a frame of 1347703880 bytes: this is not a feed");
    }
}
