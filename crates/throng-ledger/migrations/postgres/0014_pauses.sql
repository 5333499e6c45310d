-- What a person has stopped: the runs and tasks of a sync, the scheduled refreshes of an audience.
-- `skips` counts the firings of the schedule since then, which started no refresh.
CREATE TABLE paused_syncs (
    sync        TEXT    PRIMARY KEY NOT NULL,
    paused_at   BIGINT NOT NULL
);
ALTER TABLE audiences ADD COLUMN paused_at BIGINT;
ALTER TABLE audiences ADD COLUMN skips BIGINT NOT NULL DEFAULT 0;
