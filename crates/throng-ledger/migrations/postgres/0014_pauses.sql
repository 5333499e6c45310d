-- What a person has stopped: the runs and tasks of a sync, the refreshes of an audience. A rollback pins
-- the version that it made current. `skips` counts the firings of the schedule since then, which started
-- no refresh.
CREATE TABLE paused_syncs (
    sync        TEXT    PRIMARY KEY NOT NULL,
    paused_at   BIGINT NOT NULL
);
ALTER TABLE audiences ADD COLUMN paused_at BIGINT;
ALTER TABLE audiences ADD COLUMN pinned_at BIGINT;
ALTER TABLE audiences ADD COLUMN skips BIGINT NOT NULL DEFAULT 0;
-- A person has put a task of this destination back in the queue: a rest of the account that began before
-- `at` is over.
CREATE TABLE ended_rests (
    destination TEXT    PRIMARY KEY NOT NULL,
    at          BIGINT NOT NULL
);
