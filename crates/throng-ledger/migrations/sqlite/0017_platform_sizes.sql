-- Sizes of audiences on platforms as they were read for checks, one row for each time. `lower_bound` and
-- `upper_bound` are what the platform shows, NULL where it shows nothing. `delivered`: users that the
-- platform was given for the sync at that time. `settling`: it was still at work on an upload.
CREATE TABLE platform_sizes (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    sync        TEXT    NOT NULL,
    account     TEXT    NOT NULL,
    platform_id TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    lower_bound INTEGER CHECK (lower_bound >= 0),
    upper_bound INTEGER CHECK (upper_bound >= 0),
    delivered   INTEGER NOT NULL CHECK (delivered >= 0),
    settling    INTEGER NOT NULL CHECK (settling IN (0, 1))
) STRICT;
CREATE INDEX platform_sizes_of_sync ON platform_sizes (sync, id);
CREATE INDEX platform_sizes_by_time ON platform_sizes (at);
-- When the size was read last, or a process began to read it.
ALTER TABLE platform_audiences ADD COLUMN size_read_at INTEGER;
-- Why a run is held: 'guard', 'adoption' or 'account'. NULL for runs that are not held, and for those that
-- an earlier version held: `reason` says it in words.
ALTER TABLE sync_runs ADD COLUMN hold_cause TEXT;
