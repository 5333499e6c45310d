//! Tracing spans of the work that takes long: a log line within one has the span's name and fields,
//! so that all lines about one refresh, run, task or partition are found by its id. Each span is
//! opened at one place, where the work begins. docs/operate/tracing.md lists them; a test compares.
//!
//! Their level is ERROR, which says nothing about failures: a filter drops spans of a lower level
//! than it lets through, and the default filter is `warn`.

use throng_model::{AudienceName, DestinationName, RefreshId, SyncName, SyncRunId, TaskId};
use tracing::{Span, error_span};

/// A refresh of an audience, from when a worker claims it until it is published, held or failed.
pub fn refresh(refresh: RefreshId, audience: &AudienceName) -> Span {
    error_span!("refresh", %refresh, %audience)
}

/// A run of a sync: planning it, and each of its tasks. `run` is missing until the run is recorded.
pub fn sync_run(run: Option<SyncRunId>, sync: &SyncName, audience: &AudienceName) -> Span {
    error_span!("sync_run", run = run.map(tracing::field::display), %sync, %audience)
}

/// A task, from when a worker claims it until it is done or released. It lies within [`sync_run`].
pub fn task(task: TaskId, destination: &DestinationName) -> Span {
    error_span!("task", %task, %destination)
}

/// A replica of a partition, from when its checkpoint is read until it stops.
pub fn partition(partition: u32) -> Span {
    error_span!("partition", partition)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    /// Enables every span and keeps none.
    struct EnableAll;

    impl Subscriber for EnableAll {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, _: &Event<'_>) {}

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn the_documented_spans_are_current() {
        let audience = AudienceName::new("lapsed").unwrap();
        let rows: Vec<String> = tracing::subscriber::with_default(EnableAll, || {
            let spans = [
                refresh(RefreshId(1), &audience),
                sync_run(Some(SyncRunId(2)), &SyncName::new("lapsed-meta").unwrap(), &audience),
                task(TaskId(3), &DestinationName::new("meta").unwrap()),
                partition(4),
            ];
            let row = |span: &Span| {
                let metadata = span.metadata().unwrap();
                assert_eq!(*metadata.level(), tracing::Level::ERROR);
                let fields: Vec<String> =
                    metadata.fields().iter().map(|field| format!("`{field}`")).collect();
                format!("| `{}` | {} |", metadata.name(), fields.join(", "))
            };
            spans.iter().map(row).collect()
        });
        let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
            .join("../../docs/operate/tracing.md");
        let text = std::fs::read_to_string(path).unwrap();
        let documented: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(documented.len(), rows.len(), "{documented:?}");
        for (line, row) in documented.iter().zip(&rows) {
            assert!(line.starts_with(row), "{line} should start with {row}");
        }
    }
}
