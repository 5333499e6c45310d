-- Writes of audiences to serving stores, each also its receipt. `place`: where and in which form members are written.
-- `from_version`, `to_version`: NULL where the store has or gets no members. `rewrite`: every known user is written.
-- `users`: users to add or remove, NULL until that is counted. `batches`, `added`, `removed`: what is in the store.
-- `checked`: the newest check since the write is done, as JSON.
CREATE TABLE store_writes (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    store        TEXT    NOT NULL,
    audience     TEXT    NOT NULL,
    place        TEXT    NOT NULL,
    from_version INTEGER,
    to_version   INTEGER,
    rewrite      INTEGER NOT NULL CHECK (rewrite IN (0, 1)),
    state        TEXT    NOT NULL CHECK (state IN ('open', 'done', 'replaced')),
    users        INTEGER CHECK (users >= added + removed),
    batches      INTEGER NOT NULL DEFAULT 0 CHECK (batches >= 0),
    added        INTEGER NOT NULL DEFAULT 0 CHECK (added >= 0),
    removed      INTEGER NOT NULL DEFAULT 0 CHECK (removed >= 0),
    tries        INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
    retry_at     INTEGER,
    error        TEXT,
    holder       TEXT,
    lease_until  INTEGER,
    started_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    checked      TEXT
) STRICT;
CREATE INDEX store_writes_of_audience ON store_writes (store, audience, id);
CREATE UNIQUE INDEX store_writes_open ON store_writes (store, audience) WHERE state = 'open';
