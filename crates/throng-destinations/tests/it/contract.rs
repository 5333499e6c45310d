//! The contract between worker and destination, the same for every platform: `docs/specs/destination.md`. A new
//! destination is added to [`subjects`].

use std::collections::BTreeSet;
use std::sync::Arc;

use throng_activation::{
    BatchPart, Destination, EnsuredAudience, PreparedRow, Schema, SendClass, SendError,
    SendRequest, SendResponse, SessionStep, Skip,
};
use throng_destinations::{
    Account, FileAccount, MetaAccount, open, platforms, preparation, size_limits,
};
use throng_model::{FileFormat, Personal, Secret, SyncRunId};
use throng_sim::meta::{MetaSim, MetaSimConfig};
use throng_store::Operation;

use crate::consumer;

const OWNER: &str = "0123456789abcdef";
const OTHER_OWNER: &str = "fedcba9876543210";

/// The members of an audience by its id.
type Members = Box<dyn Fn(&str) -> Option<BTreeSet<String>>>;

/// A destination, and a view of its members that does not use it.
struct Subject {
    platform: &'static str,
    destination: Arc<dyn Destination>,
    /// The `EXTERN_ID`s of the members of an audience; `None` if there is no such audience.
    members: Members,
}

/// Every platform, without audiences.
async fn subjects() -> Vec<Subject> {
    let sim = MetaSim::start(MetaSimConfig::default()).await.unwrap();
    let account = MetaAccount {
        account: "act_12".into(),
        access_token: Secret::new("token"),
        app_secret: None,
        base_url: Some(sim.url()),
        api_version: "v25.0".into(),
    };
    let meta = Subject {
        platform: "meta",
        destination: open(&Account::Meta(account)).unwrap(),
        members: Box::new(move |id: &str| Some(sim.members(id)?.into_iter().collect())),
    };
    let dir = tempfile::tempdir().unwrap();
    let account = FileAccount {
        folder: dir.path().to_owned(),
        root: dir.path().to_owned(),
        format: FileFormat::Csv,
        gzip: false,
    };
    let file = Subject {
        platform: "file",
        destination: open(&Account::File(account)).unwrap(),
        members: Box::new(move |id: &str| consumer::members(&dir.path().join(id))),
    };
    let subjects = vec![meta, file];
    let names: Vec<&str> = subjects.iter().map(|subject| subject.platform).collect();
    assert_eq!(names, platforms().collect::<Vec<_>>(), "a platform is not tested");
    subjects
}

fn schema() -> Schema {
    Schema { keys: vec!["EXTERN_ID".into(), "EMAIL".into()], default_country: None }
}

fn cells(texts: [&str; 2]) -> Vec<Option<Personal>> {
    texts.iter().map(|text| (!text.is_empty()).then(|| Personal::new(*text))).collect()
}

impl Subject {
    fn rows(&self, users: std::ops::Range<u32>) -> Vec<PreparedRow> {
        let row = |user: u32| {
            let (id, email) = (format!("x{user}"), format!("user{user}@example.com"));
            self.destination.prepare(&schema(), &cells([&id, &email])).unwrap()
        };
        users.map(row).collect()
    }

    async fn audience(&self, name: &str) -> String {
        self.destination.ensure_audience(name, OWNER).await.unwrap().platform_id
    }

    /// Sends rows as batch `part` of run 1.
    async fn send(
        &self,
        id: &str,
        part: u32,
        operation: Operation,
        rows: &[PreparedRow],
        session: Option<SessionStep>,
    ) -> Result<SendResponse, SendError> {
        let request = SendRequest {
            platform_id: id,
            part: BatchPart { run: SyncRunId(1), batch: part, first: 0 },
            operation,
            schema: &schema(),
            rows,
            session,
        };
        self.destination.send(&request).await
    }

    /// Sends rows twice, as after a lost response: all rows are counted each time.
    async fn send_twice(&self, id: &str, part: u32, operation: Operation, rows: &[PreparedRow]) {
        for _ in 0..2 {
            let response = self.send(id, part, operation, rows, None).await.unwrap();
            assert_eq!((response.received, response.invalid), (rows.len() as u64, 0));
        }
    }

    fn assert_members(&self, id: &str, users: std::ops::Range<u32>, what: &str) {
        let wanted: BTreeSet<String> = users.map(|user| format!("x{user}")).collect();
        assert_eq!((self.members)(id), Some(wanted), "{}: {what}", self.platform);
    }
}

fn step(id: i64, seq: u64, last: bool, sent_before: u64) -> Option<SessionStep> {
    Some(SessionStep { id, seq, last, repeated: false, sent_before, estimated_total: 10 })
}

#[tokio::test]
async fn an_audience_is_created_once_and_identified_by_its_owner() {
    for subject in subjects().await {
        let destination = &subject.destination;
        destination.probe().await.unwrap();
        assert_eq!(destination.limits().sizes, size_limits(subject.platform));
        let first = destination.ensure_audience("throng: a", OWNER).await.unwrap();
        assert!(first.created && first.own, "{}", subject.platform);
        let rows = subject.rows(0..1);
        subject.send_twice(&first.platform_id, 0, Operation::Add, &rows).await;
        for (owner, own) in [(OWNER, true), (OTHER_OWNER, false)] {
            let second = destination.ensure_audience("throng: a", owner).await.unwrap();
            assert_eq!(second, EnsuredAudience { created: false, own, ..first.clone() });
        }
        let other = destination.ensure_audience("throng: b", OWNER).await.unwrap();
        assert!(other.created && other.platform_id != first.platform_id);
    }
}

#[tokio::test]
async fn rows_are_prepared_without_an_account_and_skipped_with_a_known_reason() {
    for subject in subjects().await {
        let known = preparation(subject.platform).unwrap();
        for texts in [["x1", "Ann@Example.com "], ["x1", "nobody"], ["", "a@example.com"], ["", ""]]
        {
            let row = subject.destination.prepare(&schema(), &cells(texts));
            assert_eq!(row, (known.prepare)(&schema(), 2026, &cells(texts), &mut Vec::new()));
            match row {
                Ok(row) => assert_eq!(row.len(), 2, "a cell for each key"),
                Err(Skip(reason)) => assert!(known.skip_reasons.contains(&reason), "{reason}"),
            }
        }
        let hashed = subject.destination.prepare(&schema(), &cells(["x1", "ann@example.com"]));
        let other = subject.destination.prepare(&schema(), &cells(["x1", " ANN@example.com"]));
        assert_eq!(hashed, other, "{}: one identifier, one hash", subject.platform);
    }
}

#[tokio::test]
async fn rows_are_added_and_removed_however_often_they_are_sent() {
    for subject in subjects().await {
        let (id, other) = (subject.audience("a").await, subject.audience("b").await);
        let all = subject.rows(0..30);
        subject.send_twice(&id, 0, Operation::Add, &all[..20]).await;
        subject.send_twice(&id, 1, Operation::Add, &all[20..]).await;
        subject.send_twice(&other, 0, Operation::Add, &all[..3]).await;
        subject.assert_members(&id, 0..30, "added");
        subject.send_twice(&id, 2, Operation::Remove, &all[10..]).await;
        subject.assert_members(&id, 0..10, "removed");
        subject.assert_members(&other, 0..3, "another audience");
        let size = subject.destination.size(&id).await.unwrap();
        assert_eq!((size.settling, size.problem), (false, None), "{}", subject.platform);
    }
}

#[tokio::test]
async fn a_session_replaces_the_list_when_it_is_closed_and_not_before() {
    for subject in subjects().await {
        let id = subject.audience("a").await;
        let all = subject.rows(0..30);
        let replace = Operation::Replace;
        subject.send_twice(&id, 0, Operation::Add, &all[20..]).await;
        // Interrupted after its first request, and started over.
        subject.send(&id, 1, replace, &all[..5], step(7, 1, false, 0)).await.unwrap();
        subject.assert_members(&id, 20..30, "the session is open");
        let first = subject.send(&id, 1, replace, &all[..5], step(7, 1, false, 0)).await.unwrap();
        let last = subject.send(&id, 2, replace, &all[5..8], step(7, 6, true, 5)).await.unwrap();
        assert_eq!((first.received, last.received), (5, 3), "{}", subject.platform);
        subject.assert_members(&id, 0..8, "the session is closed");
        // Requests of a session that is not open.
        for seq in [9, 21] {
            let late = subject.send(&id, 3, replace, &all[8..9], step(7, seq, false, 8)).await;
            assert_eq!(late.unwrap_err().class, SendClass::Restart, "{}", subject.platform);
        }
        subject.assert_members(&id, 0..8, "a late request");
    }
}

#[tokio::test]
async fn a_session_is_closed_by_a_row_that_it_already_has() {
    for subject in subjects().await {
        let id = subject.audience("a").await;
        let rows = subject.rows(0..4);
        let replace = Operation::Replace;
        subject.send(&id, 0, replace, &rows, step(8, 1, false, 0)).await.unwrap();
        let closing = step(8, 12, true, 4).map(|step| SessionStep { repeated: true, ..step });
        subject.send(&id, 1, replace, &rows[3..], closing).await.unwrap();
        subject.assert_members(&id, 0..4, "closed by a repeated row");
        let size = subject.destination.size(&id).await.unwrap();
        assert_eq!((size.settling, size.problem), (false, None), "{}", subject.platform);
    }
}

#[tokio::test]
async fn a_session_that_two_workers_send_ends_with_the_whole_list() {
    for subject in subjects().await {
        let id = subject.audience("a").await;
        let all = subject.rows(0..9);
        let parts = [&all[..3], &all[3..6], &all[6..]];
        let send = async |part: usize, session| {
            subject.send(&id, part as u32, Operation::Replace, parts[part], session).await
        };
        // A worker is paused before its last request, and another one begins the session again.
        send(0, step(7, 1, false, 0)).await.unwrap();
        send(1, step(7, 4, false, 3)).await.unwrap();
        send(0, step(7, 1, false, 0)).await.unwrap();
        // A platform that cannot compare what it has with what was sent closes the session.
        if let Err(error) = send(2, step(7, 7, true, 6)).await {
            assert_eq!(error.class, SendClass::Restart, "{}: {error}", subject.platform);
        }
        match send(1, step(7, 4, false, 3)).await {
            Ok(_) => drop(send(2, step(7, 7, true, 6)).await.unwrap()),
            Err(error) => {
                assert_eq!(error.class, SendClass::Restart, "{}: {error}", subject.platform);
                for (part, last) in [(0, false), (1, false), (2, true)] {
                    let before = 3 * part as u64;
                    send(part, step(8, before + 1, last, before)).await.unwrap();
                }
            }
        }
        subject.assert_members(&id, 0..9, "two workers");
    }
}

#[tokio::test]
async fn an_audience_is_deleted_and_deleted_again() {
    for subject in subjects().await {
        let (id, other) = (subject.audience("a").await, subject.audience("b").await);
        for audience in [&id, &other] {
            let rows = subject.rows(0..3);
            subject.send_twice(audience, 0, Operation::Add, &rows).await;
        }
        for _ in 0..2 {
            subject.destination.delete_audience(&id).await.unwrap();
            assert_eq!((subject.members)(&id), None, "{}", subject.platform);
        }
        subject.assert_members(&other, 0..3, "another audience");
        assert!(subject.destination.ensure_audience("a", OWNER).await.unwrap().created);
    }
}

#[tokio::test]
async fn a_request_for_a_missing_audience_fails_without_quoting_a_value() {
    for subject in subjects().await {
        let rows = subject.rows(0..3);
        let id = subject.audience("a").await;
        subject.destination.delete_audience(&id).await.unwrap();
        let error = subject.send(&id, 0, Operation::Add, &rows, None).await.unwrap_err();
        assert_eq!(error.class, SendClass::Stop, "{}: {}", subject.platform, error.message);
        for value in ["example.com", "@"] {
            assert!(!error.message.contains(value), "{}", error.message);
        }
        assert!(subject.destination.size(&id).await.is_err());
    }
}
