-- What platforms were given. The rows, and the rows of runs that are not in it yet, are in objects.
CREATE TABLE delivered_states (
    sync        TEXT    PRIMARY KEY NOT NULL,
    account     TEXT    NOT NULL,
    columns     TEXT    NOT NULL,
    identifiers TEXT    NOT NULL,
    state       TEXT,
    users       BIGINT NOT NULL CHECK (users >= 0),
    run         BIGINT NOT NULL,
    due         BIGINT NOT NULL CHECK (due >= 0),
    retry_at    BIGINT,
    tries       BIGINT NOT NULL CHECK (tries >= 0),
    replaces    BIGINT NOT NULL CHECK (replaces IN (0, 1))
);
ALTER TABLE sync_runs ADD COLUMN plan TEXT;
ALTER TABLE sync_runs ADD COLUMN normalised TEXT NOT NULL DEFAULT '{}';
CREATE INDEX sync_runs_unrecorded ON sync_runs (id) WHERE plan IS NOT NULL;
-- Ranges of places in the batch of the rows that the platform refused, as JSON.
ALTER TABLE batches ADD COLUMN refused TEXT;
