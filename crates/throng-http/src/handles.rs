//! File handles: some are reserved for the rest of the process, so that connections cannot use all of
//! them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::table::ConnectionLimits;

/// At least this many handles are reserved for files and for connections to other services.
const RESERVED: u64 = 256;
/// Or this percentage of all handles, if it is more.
const RESERVED_PERCENT: u64 = 20;
/// The caps are not lowered below this, whatever the limit of open files is.
const MIN_CONNECTIONS: u64 = 16;

/// Raises the process's soft limit of open files to the hard limit, and returns it; `None` if there
/// is not a limit.
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
                "failed to raise the limit of open files"
            );
            limit.current
        }
    }
}

/// Raises the process's limit of open files, and lowers caps so that some file handles are left for the rest of
/// the process. For listeners other than a [`Server`](crate::Server), which does it itself.
pub fn caps_within_open_files(configured: ConnectionLimits) -> ConnectionLimits {
    caps(configured, raise())
}

/// The caps of the settings, lowered if the limit of open files requires it.
pub(super) fn caps(settings: ConnectionLimits, open_files: Option<u64>) -> ConnectionLimits {
    let Some(open_files) = open_files else { return settings };
    // Divided first: the largest limit times 20 does not fit into 64 bits.
    let reserved = RESERVED.max(open_files / 100 * RESERVED_PERCENT);
    let left = usize::try_from(open_files.saturating_sub(reserved).max(MIN_CONNECTIONS))
        .unwrap_or(usize::MAX);
    ConnectionLimits {
        total: settings.total.min(left),
        per_address: settings.per_address.min(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_reserved_for_the_rest_of_the_process() {
        let settings = ConnectionLimits { total: 8192, per_address: 2048 };
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
