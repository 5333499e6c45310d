//! The messages of the task queues: a JSON object that names a task. Specified in
//! `docs/specs/task-message.md`.

use serde::{Deserialize, Serialize};
use throng_log::Message;
use throng_model::{AudienceName, DestinationName, SyncName, TaskId};
use throng_store::Task;

/// The version of the messages that this program writes, and the newest version that it reads.
const VERSION: u32 = 1;

/// A task that is due, or that waits for its check. Has no personal data: the worker reads the rows to send.
/// Only a hint: the state of the task is its row in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TaskMessage {
    version: u32,
    /// The task's number in the ledger.
    pub(super) task: TaskId,
    /// This and the next two fields are for people who inspect the topic, and for other consumers.
    pub(super) sync: SyncName,
    pub(super) audience: AudienceName,
    pub(super) destination: DestinationName,
    /// A higher priority is sent first.
    pub(super) priority: i32,
}

/// The field that messages of every version have.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl TaskMessage {
    /// The message of a task.
    pub(super) fn message(task: &Task) -> serde_json::Result<Message> {
        let body = Self {
            version: VERSION,
            task: task.id,
            sync: task.sync.clone(),
            audience: task.audience.clone(),
            destination: task.destination.clone(),
            priority: task.priority,
        };
        Ok(Message::new(task.id.to_string(), serde_json::to_vec(&body)?))
    }

    /// Decodes a message. The error is the reason why it is invalid.
    pub(super) fn read(message: &Message) -> Result<Self, String> {
        let invalid =
            |error: serde_json::Error| format!("the message is not a task message: {error}");
        // The other fields of a newer version are not known.
        let Versioned { version } = serde_json::from_slice(&message.body).map_err(invalid)?;
        if version > VERSION {
            return Err(format!(
                "the message has version {version}, this program supports {VERSION}: a newer version of \
                 throng wrote it"
            ));
        }
        serde_json::from_slice(&message.body).map_err(invalid)
    }
}

/// The dead letter of a failed task.
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

/// The dead letter of an invalid message.
pub(super) fn invalid_message(message: &Message, reason: &str) -> Message {
    let body = String::from_utf8_lossy(&message.body);
    let body: String = body.chars().take(1_000).collect();
    let letter = serde_json::json!({ "version": VERSION, "message": body, "reason": reason });
    Message::new(message.key.clone(), letter.to_string())
}

/// Decodes a message like a worker. Returns whether it is valid. For the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_readable_message(body: &[u8]) -> bool {
    let message = Message::new("key", body.to_vec());
    match TaskMessage::read(&message) {
        Ok(_) => true,
        Err(reason) => {
            assert!(!invalid_message(&message, &reason).body.is_empty());
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_newer_versions_and_invalid_messages_are_rejected() {
        let read = |body: &str| TaskMessage::read(&Message::new("1", body.to_owned()));
        let good =
            r#"{"version":1,"task":7,"sync":"s","audience":"a","destination":"d","priority":-2}"#;
        assert_eq!(read(good).unwrap().task, TaskId(7));
        // An additional field is accepted.
        assert!(read(&good.replace("\"task\"", "\"more\":1,\"task\"")).is_ok());
        let newer = ["version\":2,\"task\":7", "version\":2,\"tasks\":[7]", "version\":2"];
        for newer in newer.map(|fields| format!("{{\"{fields}}}")) {
            let refused = read(&newer).unwrap_err();
            assert!(refused.contains("version 2, this program supports 1"), "{newer}: {refused}");
        }
        for bad in ["", "{}", "[1]", "\"text\"", "{\"version\":1,\"task\":\"x\"}"] {
            assert!(read(bad).unwrap_err().contains("not a task message"), "{bad}");
        }
    }
}
