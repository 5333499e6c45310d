//! File handles: connections may not take those that the node needs for its own work.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::table::Caps;

/// At least so many handles are kept for files, the ledger, Kafka and the bucket.
const KEPT: u64 = 256;
/// Or this share of them, if it is more.
const KEPT_PERCENT: u64 = 20;
/// Fewer connections than this are no service.
const LEAST: u64 = 16;

/// Raises the process's soft limit of open files to the hard one, and returns it; `None` where there
/// is no limit.
pub(super) fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the limit of open files cannot be raised"
            );
            limit.current
        }
    }
}

/// The caps of the settings, or what the limit of open files leaves of them.
pub(super) fn caps(settings: Caps, open_files: Option<u64>) -> Caps {
    let Some(open_files) = open_files else { return settings };
    // Without a rest: 20 percent of the largest limit does not fit into 64 bits times 100.
    let kept = KEPT.max(open_files / 100 * KEPT_PERCENT);
    let left = usize::try_from(open_files.saturating_sub(kept).max(LEAST)).unwrap_or(usize::MAX);
    Caps { total: settings.total.min(left), per_address: settings.per_address.min(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_kept_back_for_the_node_itself() {
        let settings = Caps { total: 8192, per_address: 2048 };
        let total = |open_files| caps(settings, open_files).total;
        assert_eq!(total(None), 8192);
        assert_eq!(total(Some(1 << 20)), 8192);
        assert_eq!(total(Some(u64::MAX)), 8192);
        assert_eq!(total(Some(4096)), 4096 - 800);
        assert_eq!(total(Some(1024)), 1024 - 256);
        assert_eq!(total(Some(64)), 16);
        assert_eq!(caps(settings, Some(1024)).per_address, 768);
    }
}
