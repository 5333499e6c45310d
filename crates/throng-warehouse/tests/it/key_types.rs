//! A key column whose type is another one than when the served version was made.

use throng_sim_bigquery::{Column, Table};
use throng_store::RefreshState;

use crate::{Site, clicks};

/// The clicks of users whose keys have another type.
fn typed(users: std::ops::Range<u32>, of: &str, prefix: &str) -> Table {
    let mut table = clicks(users);
    table.columns[0] = Column::new("user_id", of);
    for key in table.rows.iter_mut().filter_map(|row| row[0].as_mut()) {
        key.insert_str(0, prefix);
    }
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_column_of_another_type_is_refused_and_the_served_version_stays() {
    let site = Site::new().await;
    assert_eq!(site.refresh().await.state, RefreshState::Completed);
    site.engine.set(typed(0..10, "STRING", "user:"));
    for _ in 0..2 {
        let outcome = site.refresh().await;
        assert_eq!(outcome.state, RefreshState::Failed, "{outcome:?}");
        let reason = outcome.reason.unwrap();
        assert!(reason.contains("the key column user_id is STRING in the source app"), "{reason}");
        assert!(reason.contains("was INTEGER when the served version was made"), "{reason}");
        site.assert_members(0..10).await;
    }
    // Whole numbers of another type are the same keys.
    site.engine.set(typed(0..12, "NUMERIC", ""));
    assert_eq!(site.refresh().await.state, RefreshState::Completed);
    site.assert_members(0..12).await;
}
