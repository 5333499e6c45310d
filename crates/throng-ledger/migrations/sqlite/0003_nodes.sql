-- What the processes of a deployment say about themselves, every few seconds.
CREATE TABLE nodes (
    name        TEXT PRIMARY KEY NOT NULL,
    roles       TEXT NOT NULL,
    url         TEXT NOT NULL,
    started_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,
    status      TEXT NOT NULL
);
