//! What queues carry: one JSON object that names a task. Also in `docs/specs/task-message.md`.

use serde::{Deserialize, Serialize};
use throng_log::Message;
use throng_model::{AudienceName, DestinationName, SyncName, TaskId};
use throng_store::Task;

/// The version of the message that this program writes, and the newest that it reads.
const VERSION: u32 = 1;

/// A task is due, or waits for its check. Holds no personal data: what is sent is read by the
/// worker. The ledger's row is what counts; this only says where to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notice {
    version: u32,
    /// The task's number in the ledger.
    pub(super) task: TaskId,
    /// For people who look at the topic, and for other consumers.
    pub(super) sync: SyncName,
    pub(super) audience: AudienceName,
    pub(super) destination: DestinationName,
    /// Higher goes first.
    pub(super) priority: i32,
}

/// What messages of every version have.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Notice {
    /// The message of a task.
    pub(super) fn message(task: &Task) -> serde_json::Result<Message> {
        let notice = Self {
            version: VERSION,
            task: task.id,
            sync: task.sync.clone(),
            audience: task.audience.clone(),
            destination: task.destination.clone(),
            priority: task.priority,
        };
        Ok(Message::new(task.id.to_string(), serde_json::to_vec(&notice)?))
    }

    /// Reads a message. The error says what is wrong with it.
    pub(super) fn read(message: &Message) -> Result<Self, String> {
        let no_notice =
            |error: serde_json::Error| format!("the message is no notice of a task: {error}");
        // Of a newer version nothing else is known.
        let Versioned { version } = serde_json::from_slice(&message.body).map_err(no_notice)?;
        if version > VERSION {
            return Err(format!(
                "the message has version {version}, this program knows {VERSION}: a newer version of \
                 throng wrote it"
            ));
        }
        serde_json::from_slice(&message.body).map_err(no_notice)
    }
}

/// A task that gave up, for whoever reads the dead-letter topic.
pub(super) fn dead_letter(task: &Task, reason: &str) -> Message {
    let letter = serde_json::json!({
        "version": VERSION,
        "task": task.id,
        "sync": task.sync,
        "audience": task.audience,
        "destination": task.destination,
        "failures": task.failures,
        "reason": reason,
    });
    Message::new(task.id.to_string(), letter.to_string())
}

/// A message that nobody can read.
pub(super) fn unreadable(message: &Message, reason: &str) -> Message {
    let body = String::from_utf8_lossy(&message.body);
    let body: String = body.chars().take(1_000).collect();
    let letter = serde_json::json!({ "version": VERSION, "message": body, "reason": reason });
    Message::new(message.key.clone(), letter.to_string())
}

/// Reads a message as workers do, whether it can be read or not; for the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_readable(body: &[u8]) -> bool {
    let message = Message::new("key", body.to_vec());
    match Notice::read(&message) {
        Ok(_) => true,
        Err(reason) => {
            assert!(!unreadable(&message, &reason).body.is_empty());
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_newer_versions_and_nonsense_are_told() {
        let read = |body: &str| Notice::read(&Message::new("1", body.to_owned()));
        let good =
            r#"{"version":1,"task":7,"sync":"s","audience":"a","destination":"d","priority":-2}"#;
        assert_eq!(read(good).unwrap().task, TaskId(7));
        // A field more is no reason to refuse.
        assert!(read(&good.replace("\"task\"", "\"more\":1,\"task\"")).is_ok());
        let newer = ["version\":2,\"task\":7", "version\":2,\"tasks\":[7]", "version\":2"];
        for newer in newer.map(|fields| format!("{{\"{fields}}}")) {
            let refused = read(&newer).unwrap_err();
            assert!(refused.contains("version 2, this program knows 1"), "{newer}: {refused}");
        }
        for bad in ["", "{}", "[1]", "\"text\"", "{\"version\":1,\"task\":\"x\"}"] {
            assert!(read(bad).unwrap_err().contains("no notice"), "{bad}");
        }
    }
}
