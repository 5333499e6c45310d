-- `forced`: a refresh that scans although its inputs have not changed. `unchanged`: one that found its inputs
-- unchanged; `snapshot_version` is the version that it confirmed. `by_source`: files of the source have changed;
-- `started_by` is 'schedule' then, which earlier versions know.
ALTER TABLE refreshes ADD COLUMN forced INTEGER NOT NULL DEFAULT 0 CHECK (forced IN (0, 1));
ALTER TABLE refreshes ADD COLUMN unchanged INTEGER NOT NULL DEFAULT 0 CHECK (unchanged IN (0, 1));
ALTER TABLE refreshes ADD COLUMN by_source INTEGER NOT NULL DEFAULT 0 CHECK (by_source IN (0, 1));
-- The state of the files that a snapshot was made of, as JSON: NULL for those that were made before.
ALTER TABLE snapshots ADD COLUMN inputs TEXT;
-- The newest state of the source's files that needs no refresh for it: its snapshot is published, or it was the
-- reason for a refresh.
ALTER TABLE audiences ADD COLUMN source_state TEXT;
