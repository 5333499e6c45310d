-- Audiences on the platform that a sync had and released, once another one has its row in `foreign_audiences`: of
-- another account, or of another name. They still have the users that the sync has sent.
CREATE TABLE former_audiences (
    sync        TEXT    NOT NULL,
    platform_id TEXT    NOT NULL,
    run         INTEGER NOT NULL,
    PRIMARY KEY (sync, platform_id)
) STRICT;
