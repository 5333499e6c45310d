//! Damage to the files of a data directory while its node is down. Whatever is damaged, a node refuses to
//! start on it, reports a problem, or answers as before.

use std::path::{Path, PathBuf};

use throng_model::{Entropy as _, SplitMix64};

use super::{Running, Target, answers, built, impressions, scale};
use crate::process::{NodeProcess, wait_for};

/// One kind of damage.
#[derive(Debug, Clone, Copy)]
enum Damage {
    FlipBit,
    Truncate,
    ZeroFill,
    Delete,
    Exchange,
    AppendGarbage,
}

const KINDS: [Damage; 6] = [
    Damage::FlipBit,
    Damage::Truncate,
    Damage::ZeroFill,
    Damage::Delete,
    Damage::Exchange,
    Damage::AppendGarbage,
];

/// The files of a data directory, in a fixed order. The lock and the token hold no state.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("listed") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !["lock", "admin.token"].contains(&name.as_str()) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

fn write(path: &Path, bytes: &[u8]) {
    // Snapshots are read-only, so the file is replaced.
    let temporary = path.with_extension("damaged");
    std::fs::write(&temporary, bytes).expect("written");
    std::fs::rename(temporary, path).expect("renamed");
}

/// Damages one file and returns what was done.
fn damage(folder: &Path, random: &mut SplitMix64) -> String {
    let files = files(folder);
    let pick = |random: &mut SplitMix64, most: usize| random.below(most.max(1) as u64) as usize;
    let at = pick(random, files.len());
    let path = &files[at];
    let kind = KINDS[pick(random, KINDS.len())];
    let mut bytes = std::fs::read(path).expect("read");
    let shown = path.strip_prefix(folder).unwrap_or(path).display().to_string();
    let place = pick(random, bytes.len());
    match kind {
        Damage::FlipBit => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << random.below(8);
            }
            write(path, &bytes);
        }
        Damage::Truncate => write(path, &bytes[..place.min(bytes.len())]),
        Damage::ZeroFill => {
            let end = (place + 64).min(bytes.len());
            bytes[place.min(end)..end].fill(0);
            write(path, &bytes);
        }
        Damage::Delete => std::fs::remove_file(path).expect("removed"),
        Damage::Exchange => {
            let other = &files[pick(random, files.len())];
            let theirs = std::fs::read(other).expect("read");
            write(other, &bytes);
            write(path, &theirs);
            return format!(
                "{kind:?} {shown} and {}",
                other.strip_prefix(folder).unwrap_or(other).display()
            );
        }
        Damage::AppendGarbage => {
            bytes.extend((0..100).map(|_| random.below(256) as u8));
            write(path, &bytes);
        }
    }
    format!("{kind:?} {shown} at {place} of {}", bytes.len())
}

/// The outcome of a start on damaged files.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Outcome {
    Refused,
    ReportsProblem,
    Equal,
}

async fn reports_ready(node: &Running) -> bool {
    match node.health().await {
        Ok(health) => health["ready"] == true && health["degraded"] != true,
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_damaged_files_does_not_report_ready_and_answer_wrongly() {
    let target = Target::new();
    let node = target.start();
    built(&node).await;
    for round in 0..3 {
        let sent = impressions(&format!("before-{round}"), 0, 300);
        node.events(sent).await.expect("accepted");
    }
    let expected = wait_for("the spend", async || {
        let answers = answers(&node).await?;
        if answers["spend"][0][1].as_i64() == Some(900 * super::PRICE_MICROS) {
            Ok(answers)
        } else {
            Err(answers.to_string())
        }
    })
    .await;
    assert!(node.terminate(), "a clean end");
    // A kill leaves log records after the checkpoint, and a ledger with a write-ahead log.
    let node = target.start();
    node.events(impressions("behind", 0, 50)).await.expect("accepted");
    node.kill();
    let mut expected = expected;
    expected["spend"][0][1] = (950 * super::PRICE_MICROS).into();

    let mut random = SplitMix64::new(20_261_125);
    let mut outcomes = Vec::new();
    for round in 0..scale(16, 400) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let data_dir = folder.path().join("node");
        copy(&target.data_dir(), &data_dir);
        let done = damage(&data_dir, &mut random);
        let log = folder.path().join("log");
        let started = NodeProcess::try_with(&data_dir, &target.spec(), &log, &[], &[]);
        let outcome = match started.map(|process| Running::of(process, &data_dir)) {
            Err(why) => {
                assert!(!why.contains("panicked"), "round {round}, {done}: {why}");
                assert!(why.contains("error:"), "round {round}, {done}: no reason given: {why}");
                Outcome::Refused
            }
            Ok(node) if !reports_ready(&node).await => Outcome::ReportsProblem,
            Ok(node) => {
                let answered = answers(&node).await;
                match answered {
                    Ok(answered) if answered == expected => Outcome::Equal,
                    // It may have found the damage while it answered.
                    other if reports_ready(&node).await => {
                        panic!(
                            "round {round}, {done}: reports ready and answers {other:?}, not {expected}"
                        )
                    }
                    _ => Outcome::ReportsProblem,
                }
            }
        };
        eprintln!("{round:3} {outcome:?}: {done}");
        outcomes.push(outcome);
    }
    let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    eprintln!(
        "{} refused to start, {} reported a problem, {} answered as before",
        count(Outcome::Refused),
        count(Outcome::ReportsProblem),
        count(Outcome::Equal)
    );
    assert!(count(Outcome::Refused) + count(Outcome::ReportsProblem) > 0, "no damage was detected");
}
