//! Publishing several snapshots, of which some are refused or cannot be written.

use throng_model::Timestamp;

use super::*;
use crate::fixture::{HOLDER, Rig};

fn publications(rig: &Rig) -> Vec<Publication<'_>> {
    let members = rig.members.iter();
    let new = members.map(|member| Publication {
        audience: &member.audience,
        refresh: &member.refresh,
        output: rig.output(member),
    });
    new.collect()
}

/// Puts a file in the place of the folder of an audience's snapshots.
fn block(rig: &Rig, name: &str) {
    let snapshots = rig.dir.path().join("objects/snapshots");
    std::fs::create_dir_all(&snapshots).unwrap();
    std::fs::write(snapshots.join(name), "").unwrap();
}

/// Asserts that the files on the disk are those of this many snapshots in the ledger.
async fn assert_no_other_files(rig: &Rig, count: usize) {
    let (files, named) = rig.snapshot_files().await;
    assert_eq!(files, named);
    assert_eq!(named.len(), count);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_written_fails_alone_and_no_other_file_is_left() {
    let rig = Rig::new(&["a", "b", "c"]).await;
    block(&rig, "b");
    let all = publications(&rig);
    let results = publish_all(&rig.ctx, &all, HOLDER, &CancellationToken::new()).await;
    let published = results.iter().map(|result| result.as_ref().map(Result::is_ok));
    assert_eq!(published.collect::<Vec<_>>(), [Some(true), Some(false), Some(true)]);
    assert_no_other_files(&rig, 2).await;
}

#[tokio::test]
async fn at_shutdown_none_is_tried_alone() {
    let rig = Rig::new(&["a", "b", "c"]).await;
    block(&rig, "b");
    let all = publications(&rig);
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let results = publish_all(&rig.ctx, &all, HOLDER, &shutdown).await;
    assert!(results.len() == 3 && results.iter().all(Option::is_none));
    assert_no_other_files(&rig, 0).await;
}

#[tokio::test]
async fn the_file_of_a_refused_snapshot_is_removed() {
    let rig = Rig::new(&["a", "b", "c"]).await;
    let refresh = &rig.members[1].refresh;
    let (ledger, now) = (&rig.ctx.ledger, Timestamp(1));
    ledger.halt_refreshes(&[refresh.id], HOLDER, now).await.unwrap();
    let claimed = ledger.claim_refresh_of(&refresh.audience, "other", now, Timestamp(9)).await;
    assert!(claimed.unwrap().is_some());
    let all = publications(&rig);
    let results = publish_all(&rig.ctx, &all, HOLDER, &CancellationToken::new()).await;
    let lost = |result: &Option<Result<PublishOutcome, RefreshError>>| {
        result.as_ref().is_some_and(|it| it.as_ref().is_err_and(RefreshError::lease_lost))
    };
    assert_eq!(results.iter().map(lost).collect::<Vec<_>>(), [false, true, false]);
    assert_no_other_files(&rig, 2).await;
}

#[tokio::test]
async fn a_snapshot_whose_recording_was_not_answered_keeps_its_file() {
    let rig = Rig::new(&["a", "b"]).await;
    let prepared = prepare(&rig.ctx, &publications(&rig)).await.unwrap();
    // The second time as after an answer that was lost: the refreshes have ended.
    for _ in 0..2 {
        let results = record(&rig.ctx, &prepared, HOLDER).await.unwrap();
        assert!(results.len() == 2 && results.iter().all(Result::is_ok), "{results:?}");
        assert_no_other_files(&rig, 2).await;
    }
}
