//! What a check of a backend found.

use serde::Serialize;

/// The result of the check of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `ledger`, `log`, `objects`, `topics` (ledger and Kafka compared), `snapshots` (ledger and
    /// bucket compared), `checkpoints` (bucket and Kafka compared), `lake`, `roles` or `store` (one of the serving stores).
    pub backend: &'static str,
    /// Whether a node could work with it.
    pub ok: bool,
    /// What was found, in one line.
    #[serde(rename = "says")]
    pub message: String,
    /// How to fix it, or what happens next.
    pub help: Option<String>,
}

impl Finding {
    pub(crate) fn ok_with(backend: &'static str, message: impl Into<String>) -> Self {
        Self { backend, ok: true, message: message.into(), help: None }
    }

    pub(crate) fn failed(backend: &'static str, error: &dyn std::error::Error, help: &str) -> Self {
        let message = throng_model::with_causes(error);
        Self { backend, ok: false, message, help: Some(help.to_owned()) }
    }
}
