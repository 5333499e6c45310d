-- Who may call a node, and who did what. Only hashes of secrets are stored: SHA-256, as 64
-- hexadecimal digits.
CREATE TABLE tokens (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT    NOT NULL,
    hash         TEXT    NOT NULL UNIQUE CHECK (length(hash) = 64),
    scopes       TEXT    NOT NULL,
    workspace    TEXT,
    owner        TEXT,
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    revoked_at   INTEGER
) STRICT;
CREATE UNIQUE INDEX tokens_valid_names ON tokens (name) WHERE revoked_at IS NULL;

CREATE TABLE sessions (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    hash         TEXT    NOT NULL UNIQUE CHECK (length(hash) = 64),
    token        INTEGER REFERENCES tokens (id),
    binding      TEXT,
    created_at   INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    CHECK ((token IS NULL) = (binding IS NOT NULL))
) STRICT;
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE sign_in_codes (
    hash       TEXT    PRIMARY KEY NOT NULL CHECK (length(hash) = 64),
    token      INTEGER REFERENCES tokens (id),
    binding    TEXT,
    expires_at INTEGER NOT NULL,
    CHECK ((token IS NULL) = (binding IS NOT NULL))
) STRICT;

-- The name of the token of the caller; NULL where the node acted by itself.
ALTER TABLE history ADD COLUMN actor TEXT;
