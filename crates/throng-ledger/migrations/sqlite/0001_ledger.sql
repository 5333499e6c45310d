-- The whole ledger. Times are microseconds since 1970; money is micros; enums are their names.
-- `due_at` says from when on somebody may take the work: the due indexes hold open work only.

CREATE TABLE deployment (
    only_row    INTEGER PRIMARY KEY CHECK (only_row = 1),
    hash_seed   INTEGER NOT NULL
) STRICT;

CREATE TABLE applied_specs (
    version     INTEGER PRIMARY KEY CHECK (version >= 1),
    spec        TEXT    NOT NULL,
    applied_at  INTEGER NOT NULL
) STRICT;

-- Rows are never deleted: an ad group's number belongs to it for ever.
CREATE TABLE ad_groups (
    name        TEXT    PRIMARY KEY NOT NULL,
    number      INTEGER NOT NULL UNIQUE CHECK (number BETWEEN 0 AND 4294967295)
) STRICT;

CREATE TABLE budget_days (
    ad_group    TEXT    NOT NULL,
    day         INTEGER NOT NULL,
    budget      INTEGER NOT NULL,
    actual      INTEGER NOT NULL,
    PRIMARY KEY (ad_group, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE audiences (
    name            TEXT    PRIMARY KEY NOT NULL,
    current_version INTEGER,
    last_version    INTEGER NOT NULL DEFAULT 0 CHECK (last_version >= 0),
    last_fired      INTEGER,
    CHECK (current_version IS NULL OR current_version BETWEEN 1 AND last_version),
    FOREIGN KEY (name, current_version) REFERENCES snapshots (audience, version)
) STRICT;

CREATE TABLE refreshes (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    audience         TEXT    NOT NULL REFERENCES audiences (name),
    state            TEXT    NOT NULL
        CHECK (state IN ('scheduled', 'processing', 'halted', 'completed', 'failed', 'held')),
    started_by       TEXT    NOT NULL CHECK (started_by IN ('schedule', 'manual', 'apply')),
    scheduled_at     INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    not_before       INTEGER NOT NULL,
    failures         INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
    holder           TEXT,
    lease_until      INTEGER,
    rows_read        INTEGER NOT NULL DEFAULT 0 CHECK (rows_read >= 0),
    null_keys        INTEGER NOT NULL DEFAULT 0 CHECK (null_keys >= 0),
    rows_expected    INTEGER CHECK (rows_expected >= 0),
    reason           TEXT,
    snapshot_version INTEGER CHECK (snapshot_version >= 1),
    due_at           INTEGER GENERATED ALWAYS AS (
        CASE WHEN state IN ('scheduled', 'halted') THEN not_before
             WHEN state = 'processing' THEN lease_until END) STORED,
    CHECK ((state = 'processing') = (holder IS NOT NULL)),
    CHECK ((state = 'processing') = (lease_until IS NOT NULL)),
    CHECK ((state IN ('completed', 'failed', 'held')) = (finished_at IS NOT NULL)),
    CHECK (state NOT IN ('completed', 'held') OR snapshot_version IS NOT NULL),
    CHECK (state <> 'held' OR reason IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX refreshes_open ON refreshes (audience)
    WHERE state IN ('scheduled', 'processing', 'halted');
CREATE INDEX refreshes_due ON refreshes (scheduled_at, id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX refreshes_of_audience ON refreshes (audience, id);

CREATE TABLE refresh_parts (
    refresh     INTEGER NOT NULL REFERENCES refreshes (id),
    number      INTEGER NOT NULL CHECK (number BETWEEN 0 AND 4294967295),
    kind        TEXT    NOT NULL CHECK (kind IN ('scan', 'shards')),
    state       TEXT    NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done')),
    covers      TEXT    NOT NULL,
    output      TEXT,
    PRIMARY KEY (refresh, number),
    CHECK ((state = 'done') = (output IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE snapshots (
    audience          TEXT    NOT NULL,
    version           INTEGER NOT NULL CHECK (version >= 1),
    state             TEXT    NOT NULL CHECK (state IN ('held', 'published', 'rejected')),
    path              TEXT    NOT NULL,
    members           INTEGER NOT NULL CHECK (members >= 0),
    rows_read         INTEGER NOT NULL CHECK (rows_read >= 0),
    null_keys         INTEGER NOT NULL CHECK (null_keys BETWEEN 0 AND rows_read),
    bytes             INTEGER NOT NULL CHECK (bytes >= 0),
    model_fingerprint TEXT    NOT NULL,
    refresh           INTEGER NOT NULL REFERENCES refreshes (id),
    created_at        INTEGER NOT NULL,
    PRIMARY KEY (audience, version)
) STRICT;

-- Outlives the snapshots, for charts.
CREATE TABLE audience_sizes (
    audience    TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    members     INTEGER NOT NULL CHECK (members >= 0),
    PRIMARY KEY (audience, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE dictionary_shards (
    shard       INTEGER PRIMARY KEY CHECK (shard BETWEEN 0 AND 255),
    version     INTEGER NOT NULL CHECK (version >= 1),
    manifest    TEXT    NOT NULL
) STRICT;

CREATE TABLE sync_runs (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    sync             TEXT    NOT NULL,
    audience         TEXT    NOT NULL,
    destination      TEXT    NOT NULL,
    mode             TEXT    NOT NULL CHECK (mode IN ('mirror', 'add', 'replace')),
    from_version     INTEGER CHECK (from_version >= 1),
    to_version       INTEGER NOT NULL CHECK (to_version >= 1),
    state            TEXT    NOT NULL CHECK (state IN ('active', 'completed', 'failed', 'held')),
    adds             INTEGER NOT NULL CHECK (adds >= 0),
    removes          INTEGER NOT NULL CHECK (removes >= 0),
    read             INTEGER NOT NULL CHECK (read = adds + removes),
    sent             INTEGER NOT NULL DEFAULT 0 CHECK (sent >= 0),
    skipped          INTEGER NOT NULL DEFAULT 0 CHECK (skipped >= 0),
    rejected         INTEGER NOT NULL DEFAULT 0 CHECK (rejected >= 0),
    pending          INTEGER NOT NULL CHECK (pending >= 0),
    skipped_reasons  TEXT    NOT NULL DEFAULT '{}',
    rejected_reasons TEXT    NOT NULL DEFAULT '{}',
    created_at       INTEGER NOT NULL,
    finished_at      INTEGER,
    reason           TEXT,
    CHECK (read = sent + skipped + rejected + pending),
    CHECK ((state IN ('completed', 'failed')) = (finished_at IS NOT NULL)),
    CHECK (state <> 'completed' OR pending = 0),
    CHECK (state <> 'held' OR reason IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX sync_runs_open ON sync_runs (sync) WHERE state IN ('active', 'held');
CREATE INDEX sync_runs_of_sync ON sync_runs (sync, id);

CREATE TABLE tasks (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    run          INTEGER NOT NULL UNIQUE REFERENCES sync_runs (id),
    sync         TEXT    NOT NULL,
    audience     TEXT    NOT NULL,
    destination  TEXT    NOT NULL,
    state        TEXT    NOT NULL
        CHECK (state IN ('queued', 'running', 'done', 'failed', 'held')),
    priority     INTEGER NOT NULL,
    failures     INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
    not_before   INTEGER NOT NULL,
    holder       TEXT,
    lease_until  INTEGER,
    batches      INTEGER NOT NULL CHECK (batches >= 0),
    batches_done INTEGER NOT NULL DEFAULT 0 CHECK (batches_done BETWEEN 0 AND batches),
    last_error   TEXT,
    created_at   INTEGER NOT NULL,
    finished_at  INTEGER,
    checked      INTEGER NOT NULL DEFAULT 0 CHECK (checked IN (0, 1)),
    due_at       INTEGER GENERATED ALWAYS AS (
        CASE state WHEN 'queued' THEN not_before WHEN 'running' THEN lease_until END) STORED,
    unchecked_since INTEGER GENERATED ALWAYS AS (
        CASE WHEN state = 'done' AND checked = 0 THEN finished_at END) STORED,
    CHECK ((state = 'running') = (holder IS NOT NULL)),
    CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CHECK ((state IN ('done', 'failed')) = (finished_at IS NOT NULL)),
    CHECK (state <> 'done' OR batches_done = batches)
) STRICT;
CREATE INDEX tasks_due ON tasks (priority DESC, id, due_at, destination) WHERE due_at IS NOT NULL;
CREATE INDEX tasks_by_state ON tasks (state);
CREATE INDEX tasks_ended ON tasks (finished_at DESC, id DESC) WHERE finished_at IS NOT NULL;
CREATE INDEX tasks_unchecked ON tasks (unchecked_since, id) WHERE unchecked_since IS NOT NULL;

CREATE TABLE batches (
    task             INTEGER NOT NULL REFERENCES tasks (id),
    number           INTEGER NOT NULL CHECK (number >= 0),
    operation        TEXT    NOT NULL CHECK (operation IN ('add', 'remove', 'replace')),
    first_rank       INTEGER NOT NULL CHECK (first_rank >= 0),
    row_count        INTEGER NOT NULL CHECK (row_count >= 0),
    state            TEXT    NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done')),
    sent             INTEGER CHECK (sent >= 0),
    skipped_reasons  TEXT,
    rejected_reasons TEXT,
    PRIMARY KEY (task, number),
    CHECK ((state = 'done') = (sent IS NOT NULL)),
    CHECK ((state = 'done') = (skipped_reasons IS NOT NULL)),
    CHECK ((state = 'done') = (rejected_reasons IS NOT NULL)),
    CHECK (sent IS NULL OR sent <= row_count)
) STRICT, WITHOUT ROWID;

CREATE TABLE receipts (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    task            INTEGER NOT NULL,
    batch           INTEGER NOT NULL,
    operation       TEXT    NOT NULL CHECK (operation IN ('add', 'remove', 'replace')),
    row_count       INTEGER NOT NULL CHECK (row_count >= 0),
    received        INTEGER NOT NULL CHECK (received >= 0),
    invalid         INTEGER NOT NULL CHECK (invalid >= 0),
    invalid_reasons TEXT    NOT NULL,
    http_status     INTEGER NOT NULL CHECK (http_status BETWEEN 0 AND 65535),
    error_code      INTEGER,
    platform_ref    TEXT,
    at              INTEGER NOT NULL,
    FOREIGN KEY (task, batch) REFERENCES batches (task, number)
) STRICT;
CREATE INDEX receipts_of_task ON receipts (task, id);

CREATE TABLE checks (
    task        INTEGER PRIMARY KEY REFERENCES tasks (id),
    run         INTEGER NOT NULL REFERENCES sync_runs (id),
    verdict     TEXT    NOT NULL CHECK (verdict IN ('passed', 'suspect', 'failed')),
    reasons     TEXT    NOT NULL,
    at          INTEGER NOT NULL
) STRICT;
CREATE INDEX checks_newest ON checks (at, task);

CREATE TABLE platform_audiences (
    sync              TEXT    PRIMARY KEY NOT NULL,
    platform_id       TEXT    NOT NULL,
    delivered_version INTEGER CHECK (delivered_version >= 1),
    delivered_at      INTEGER,
    CHECK ((delivered_version IS NULL) = (delivered_at IS NULL))
) STRICT;

CREATE TABLE alerts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        TEXT    NOT NULL CHECK (kind IN
        ('refresh_failed', 'snapshot_held', 'task_failed', 'run_held', 'check_failed')),
    subject     TEXT    NOT NULL,
    message     TEXT    NOT NULL,
    raised_at   INTEGER NOT NULL,
    resolved_at INTEGER
) STRICT;
CREATE UNIQUE INDEX alerts_open ON alerts (kind, subject) WHERE resolved_at IS NULL;

CREATE TABLE history (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    subject_kind TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    what         TEXT    NOT NULL,
    why          TEXT    NOT NULL,
    at           INTEGER NOT NULL
) STRICT;
CREATE INDEX history_of_subject ON history (subject_kind, subject, at, id);
CREATE INDEX history_newest ON history (at, id);
