-- Which data directory this ledger belongs to, and how far it is: compared with the log and the
-- objects beside it, so that copies of different moments are not mixed unnoticed.
CREATE TABLE store_stamp (
    only_row    INTEGER PRIMARY KEY CHECK (only_row = 1),
    instance    TEXT    NOT NULL,
    sequence    INTEGER NOT NULL CHECK (sequence >= 1),
    writes      INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Counts the writes that only try whether the ledger can be written. An update to equal values would
-- not be written at all.
CREATE TABLE write_probe (
    only_row    INTEGER PRIMARY KEY CHECK (only_row = 1),
    writes      INTEGER NOT NULL
) STRICT;
