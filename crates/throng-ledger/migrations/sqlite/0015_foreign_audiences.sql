-- Audiences on the platform that have a sync's name and hold users whom its runs did not put there: those
-- that a run found (`found` = 1), and those that the sync had and let go of. `run` is the newest run of the
-- sync at that time.
CREATE TABLE foreign_audiences (
    sync        TEXT    PRIMARY KEY NOT NULL,
    platform_id TEXT    NOT NULL,
    run         INTEGER NOT NULL,
    found       INTEGER NOT NULL CHECK (found IN (0, 1))
) STRICT;
