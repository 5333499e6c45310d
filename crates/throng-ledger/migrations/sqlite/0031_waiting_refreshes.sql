-- Refreshes that were requested while another one of their audience was open and may have listed its files: at most one
-- for each audience. `refresh`: its id, which the refresh gets when the open one has ended. `forced`: it scans although
-- its inputs have not changed.
CREATE TABLE waiting_refreshes (
    audience     TEXT    PRIMARY KEY NOT NULL REFERENCES audiences (name),
    refresh      INTEGER NOT NULL,
    forced       INTEGER NOT NULL CHECK (forced IN (0, 1)),
    requested_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
