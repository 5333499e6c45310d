-- Syncs that an applied spec no longer has, and whose audience on the platform is to be emptied or deleted
-- (`on_remove`): each waits for a person. `definition` is the sync and its destination as they were declared
-- last, as JSON; secrets are references in it. `lease_until`: a process is deleting the audience.
CREATE TABLE sync_removals (
    sync         TEXT    PRIMARY KEY NOT NULL,
    rule         TEXT    NOT NULL CHECK (rule IN ('empty', 'delete')),
    definition   TEXT    NOT NULL,
    requested_at BIGINT NOT NULL,
    approved_at  BIGINT,
    approved_by  TEXT,
    tries        BIGINT NOT NULL DEFAULT 0 CHECK (tries >= 0),
    retry_at     BIGINT,
    lease_until  BIGINT,
    last_error   TEXT,
    CHECK ((approved_at IS NULL) = (approved_by IS NULL))
);
