//! The suite that every backend passes: each promise in the documentation of [`Objects`] has a
//! case.

#![expect(clippy::unwrap_used, reason = "a test suite: a panic is how a case fails")]

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Objects, ObjectsError};

/// A backend under test.
#[async_trait]
pub trait Backend: Send + Sync {
    /// A node's view of the store of this name: empty at first. Two calls with one name give two
    /// nodes of one deployment (the same node, where only one can have the store).
    async fn node(&self, name: &str) -> Arc<dyn Objects>;
}

/// Runs every case on a backend.
///
/// # Panics
/// If a promise is not kept; the message and the place say which.
pub async fn suite(backend: &dyn Backend) {
    kept_files_reach_every_node(backend).await;
    what_is_there_first_stays(backend).await;
    large_objects_arrive_whole(backend).await;
    removed_is_removed(backend).await;
    listings_are_complete(backend).await;
    swaps_have_one_winner(backend).await;
    bad_names_are_refused(&*backend.node("names").await).await;
    needed_copies_survive_a_trim(backend).await;
}

fn write(node: &dyn Objects, name: &str, bytes: &[u8]) {
    let path = node.root().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

async fn read(node: &dyn Objects, name: &str) -> Vec<u8> {
    std::fs::read(node.fetch(name).await.unwrap()).unwrap()
}

async fn missing(node: &dyn Objects, name: &str) -> bool {
    matches!(node.fetch(name).await, Err(ObjectsError::Missing { .. }))
}

async fn kept_files_reach_every_node(backend: &dyn Backend) {
    let (one, two) = (backend.node("reach").await, backend.node("reach").await);
    write(&*one, "a/b.bin", b"content");
    one.keep("a/b.bin").await.unwrap();
    assert_eq!(read(&*one, "a/b.bin").await, b"content");
    assert_eq!(read(&*two, "a/b.bin").await, b"content");
    assert_eq!(read(&*two, "a/b.bin").await, b"content", "from the cache");
    write(&*one, "a/empty", b"");
    one.keep("a/empty").await.unwrap();
    assert_eq!(read(&*two, "a/empty").await, b"");
    assert!(missing(&*two, "a/c.bin").await);
    assert!(one.keep("a/never-written").await.is_err());
}

async fn what_is_there_first_stays(backend: &dyn Backend) {
    let one = backend.node("first").await;
    write(&*one, "x", b"first");
    one.keep("x").await.unwrap();
    one.keep("x").await.unwrap();
    assert_eq!(read(&*backend.node("first").await, "x").await, b"first");
}

async fn large_objects_arrive_whole(backend: &dyn Backend) {
    let one = backend.node("large").await;
    // Past the size of one part of an upload, and no multiple of it.
    let large: Vec<u8> =
        (0..23_456_789u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    write(&*one, "large.bin", &large);
    one.keep("large.bin").await.unwrap();
    assert!(read(&*backend.node("large").await, "large.bin").await == large);
}

async fn removed_is_removed(backend: &dyn Backend) {
    let (one, two) = (backend.node("removed").await, backend.node("removed").await);
    write(&*one, "r", b"r");
    one.keep("r").await.unwrap();
    one.remove("r").await.unwrap();
    one.remove("r").await.unwrap();
    assert!(missing(&*one, "r").await);
    assert!(missing(&*two, "r").await);
}

async fn listings_are_complete(backend: &dyn Backend) {
    let one = backend.node("listed").await;
    assert_eq!(one.list("parts").await.unwrap(), []);
    for name in ["parts/1/a", "parts/1/b", "parts/2/a", "partsother/c"] {
        write(&*one, name, b"x");
        one.keep(name).await.unwrap();
    }
    let names = |listed: Vec<crate::Listed>| -> Vec<String> {
        listed.into_iter().map(|l| l.name).collect()
    };
    let all = backend.node("listed").await.list("parts").await.unwrap();
    assert!(all.iter().all(|l| l.modified.0 > 1_600_000_000_000_000), "{all:?}");
    assert_eq!(names(all), ["parts/1/a", "parts/1/b", "parts/2/a"]);
    assert_eq!(names(one.list("parts/2").await.unwrap()), ["parts/2/a"]);
}

async fn swaps_have_one_winner(backend: &dyn Backend) {
    let (one, two) = (backend.node("swap").await, backend.node("swap").await);
    assert_eq!(one.load("c/0").await.unwrap(), None);
    assert_eq!(one.swap("c/0", b"x".to_vec(), Some("nothing")).await.unwrap(), None);
    let first = one.swap("c/0", b"1".to_vec(), None).await.unwrap().unwrap();
    assert_eq!(two.swap("c/0", b"2".to_vec(), None).await.unwrap(), None, "it is there");
    let seen = two.load("c/0").await.unwrap().unwrap();
    assert_eq!((seen.bytes, seen.version.clone()), (b"1".to_vec(), first.clone()));
    let second = two.swap("c/0", b"2".to_vec(), Some(&seen.version)).await.unwrap().unwrap();
    assert_eq!(one.swap("c/0", b"3".to_vec(), Some(&first)).await.unwrap(), None, "fenced off");
    assert_eq!(one.load("c/0").await.unwrap().unwrap().version, second);
    let mut rivals = tokio::task::JoinSet::new();
    for n in 0..16u8 {
        let (node, second) = (if n % 2 == 0 { one.clone() } else { two.clone() }, second.clone());
        rivals.spawn(async move { node.swap("c/0", vec![n], Some(&second)).await.unwrap() });
    }
    let won = rivals.join_all().await.into_iter().flatten().count();
    assert_eq!(won, 1, "of all rivals one wins");
}

async fn bad_names_are_refused(node: &dyn Objects) {
    for name in ["../out", "/etc/passwd", "a//b", ""] {
        assert!(matches!(node.fetch(name).await, Err(ObjectsError::Name { .. })), "{name}");
        assert!(matches!(node.load(name).await, Err(ObjectsError::Name { .. })), "{name}");
    }
}

async fn needed_copies_survive_a_trim(backend: &dyn Backend) {
    let one = backend.node("trim").await;
    for name in ["t/needed", "t/other"] {
        write(&*one, name, name.as_bytes());
        one.keep(name).await.unwrap();
    }
    one.trim(&HashSet::from(["t/needed".to_owned()])).await.unwrap();
    assert!(one.root().join("t/needed").exists());
    assert_eq!(read(&*one, "t/needed").await, b"t/needed");
    assert_eq!(read(&*one, "t/other").await, b"t/other", "fetched again if it went");
}
