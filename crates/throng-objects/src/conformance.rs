//! The test suite that every backend passes: each promise in the documentation of [`Objects`] has a
//! case.

#![expect(clippy::unwrap_used, reason = "a test suite: a panic is how a case fails")]

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Objects, ObjectsError};

/// A backend under test.
#[async_trait]
pub trait ObjectsBackend: Send + Sync {
    /// The store of this name for one node; empty on the first call. Two calls with one name return two
    /// nodes of one deployment (the same node, where only one can open the store).
    async fn node(&self, name: &str) -> Arc<dyn Objects>;
}

/// Runs every case on a backend.
///
/// # Panics
/// If a promise is broken; the message and the location say which.
pub async fn suite(backend: &dyn ObjectsBackend) {
    uploaded_files_reach_every_node(backend).await;
    an_upload_does_not_replace_an_object(backend).await;
    large_objects_are_complete(backend).await;
    removed_objects_are_missing(backend).await;
    several_objects_are_uploaded_and_removed(backend).await;
    listings_are_complete(backend).await;
    one_concurrent_swap_succeeds(backend).await;
    bad_names_are_refused(&*backend.node("names").await).await;
    needed_copies_are_not_evicted(backend).await;
}

fn write(node: &dyn Objects, name: &str, bytes: &[u8]) {
    let path = node.root().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

async fn read(node: &dyn Objects, name: &str) -> Vec<u8> {
    std::fs::read(node.download(name).await.unwrap()).unwrap()
}

async fn missing(node: &dyn Objects, name: &str) -> bool {
    matches!(node.download(name).await, Err(ObjectsError::Missing { .. }))
}

async fn uploaded_files_reach_every_node(backend: &dyn ObjectsBackend) {
    let (one, two) = (backend.node("reach").await, backend.node("reach").await);
    write(&*one, "a/b.bin", b"content");
    one.upload("a/b.bin").await.unwrap();
    assert_eq!(read(&*one, "a/b.bin").await, b"content");
    assert_eq!(read(&*two, "a/b.bin").await, b"content");
    assert_eq!(read(&*two, "a/b.bin").await, b"content", "from the cache");
    write(&*one, "a/empty", b"");
    one.upload("a/empty").await.unwrap();
    assert_eq!(read(&*two, "a/empty").await, b"");
    assert!(missing(&*two, "a/c.bin").await);
    assert!(one.upload("a/never-written").await.is_err());
}

async fn an_upload_does_not_replace_an_object(backend: &dyn ObjectsBackend) {
    let one = backend.node("first").await;
    write(&*one, "x", b"first");
    one.upload("x").await.unwrap();
    one.upload("x").await.unwrap();
    assert_eq!(read(&*backend.node("first").await, "x").await, b"first");
}

async fn large_objects_are_complete(backend: &dyn ObjectsBackend) {
    let one = backend.node("large").await;
    // Larger than one part of a multipart upload, and not a multiple of it.
    let large: Vec<u8> =
        (0..23_456_789u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    write(&*one, "large.bin", &large);
    one.upload("large.bin").await.unwrap();
    assert!(read(&*backend.node("large").await, "large.bin").await == large);
}

async fn removed_objects_are_missing(backend: &dyn ObjectsBackend) {
    let (one, two) = (backend.node("removed").await, backend.node("removed").await);
    write(&*one, "r", b"r");
    one.upload("r").await.unwrap();
    one.remove("r").await.unwrap();
    one.remove("r").await.unwrap();
    assert!(missing(&*one, "r").await);
    assert!(missing(&*two, "r").await);
}

async fn several_objects_are_uploaded_and_removed(backend: &dyn ObjectsBackend) {
    let (one, two) = (backend.node("several").await, backend.node("several").await);
    let names: Vec<String> = (0..20).map(|number| format!("s/{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.iter().for_each(|name| write(&*one, name, name.as_bytes()));
    one.upload_all(&names).await.unwrap();
    for name in &names {
        assert_eq!(read(&*two, name).await, name.as_bytes());
    }
    // One whose file was never written is an error.
    assert!(one.upload_all(&["s/0", "s/none"]).await.is_err());
    // One that was never uploaded is not.
    let (removed, kept) = names.split_at(19);
    one.remove_all(removed).await.unwrap();
    one.remove_all(&["s/0", "s/none", "s/19/none"]).await.unwrap();
    one.remove_all(&[]).await.unwrap();
    for name in removed {
        assert!(missing(&*one, name).await && !one.root().join(name).exists());
    }
    assert_eq!(read(&*one, kept[0]).await, kept[0].as_bytes());
}

async fn listings_are_complete(backend: &dyn ObjectsBackend) {
    let one = backend.node("listed").await;
    assert_eq!(one.list("parts").await.unwrap(), []);
    for name in ["parts/1/a", "parts/1/b", "parts/2/a", "partsother/c"] {
        write(&*one, name, b"x");
        one.upload(name).await.unwrap();
    }
    let names = |listed: Vec<crate::ObjectMeta>| -> Vec<String> {
        listed.into_iter().map(|l| l.name).collect()
    };
    let all = backend.node("listed").await.list("parts").await.unwrap();
    assert!(all.iter().all(|l| l.modified.0 > 1_600_000_000_000_000), "{all:?}");
    assert_eq!(names(all), ["parts/1/a", "parts/1/b", "parts/2/a"]);
    assert_eq!(names(one.list("parts/2").await.unwrap()), ["parts/2/a"]);
}

async fn one_concurrent_swap_succeeds(backend: &dyn ObjectsBackend) {
    let (one, two) =
        (backend.node("compare_and_swap").await, backend.node("compare_and_swap").await);
    assert_eq!(one.load("c/0").await.unwrap(), None);
    assert_eq!(one.compare_and_swap("c/0", b"x".to_vec(), Some("nothing")).await.unwrap(), None);
    let first = one.compare_and_swap("c/0", b"1".to_vec(), None).await.unwrap().unwrap();
    assert_eq!(
        two.compare_and_swap("c/0", b"2".to_vec(), None).await.unwrap(),
        None,
        "there is one"
    );
    let seen = two.load("c/0").await.unwrap().unwrap();
    assert_eq!((seen.bytes, seen.version.clone()), (b"1".to_vec(), first.clone()));
    let second =
        two.compare_and_swap("c/0", b"2".to_vec(), Some(&seen.version)).await.unwrap().unwrap();
    assert_eq!(
        one.compare_and_swap("c/0", b"3".to_vec(), Some(&first)).await.unwrap(),
        None,
        "an old version"
    );
    assert_eq!(one.load("c/0").await.unwrap().unwrap().version, second);
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..16u8 {
        let (node, second) = (if n % 2 == 0 { one.clone() } else { two.clone() }, second.clone());
        writers.spawn(async move {
            node.compare_and_swap("c/0", vec![n], Some(&second)).await.unwrap()
        });
    }
    let succeeded = writers.join_all().await.into_iter().flatten().count();
    assert_eq!(succeeded, 1, "only one of the concurrent writers succeeds");
}

async fn bad_names_are_refused(node: &dyn Objects) {
    for name in ["../out", "/etc/passwd", "a//b", ""] {
        assert!(matches!(node.download(name).await, Err(ObjectsError::Name { .. })), "{name}");
        assert!(matches!(node.load(name).await, Err(ObjectsError::Name { .. })), "{name}");
    }
}

async fn needed_copies_are_not_evicted(backend: &dyn ObjectsBackend) {
    let one = backend.node("evict").await;
    for name in ["t/needed", "t/other"] {
        write(&*one, name, name.as_bytes());
        one.upload(name).await.unwrap();
    }
    one.evict(&HashSet::from(["t/needed".to_owned()])).await.unwrap();
    assert!(one.root().join("t/needed").exists());
    assert_eq!(read(&*one, "t/needed").await, b"t/needed");
    assert_eq!(read(&*one, "t/other").await, b"t/other", "downloaded again if it was evicted");
}
