-- Alerts of one cause are one alert with a count, and are delivered to receivers. A kind that the
-- version before does not know is in `cause`; `kind` then is one that it can read.
ALTER TABLE alerts ADD COLUMN cause TEXT;
ALTER TABLE alerts ADD COLUMN occurrences INTEGER NOT NULL DEFAULT 1;
ALTER TABLE alerts ADD COLUMN last_at INTEGER;
-- Which of its changes are in `alert_events`: 0 none, 1 that it was raised, 2 that it ended as well.
ALTER TABLE alerts ADD COLUMN recorded INTEGER NOT NULL DEFAULT 0;
CREATE INDEX alerts_unrecorded ON alerts (id)
    WHERE recorded = 0 OR (recorded = 1 AND resolved_at IS NOT NULL);

-- The outbox: what receivers have to be told, in order. `event_id` is what they see.
CREATE TABLE alert_events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id    TEXT    NOT NULL UNIQUE,
    alert       INTEGER NOT NULL REFERENCES alerts (id),
    event       TEXT    NOT NULL CHECK (event IN ('raised', 'resolved')),
    at          INTEGER NOT NULL
) STRICT;
CREATE INDEX alert_events_of_alert ON alert_events (alert, id);

-- How far each receiver is, and what went wrong with its next event.
CREATE TABLE alert_receivers (
    name        TEXT    PRIMARY KEY NOT NULL,
    since       INTEGER NOT NULL,
    last_event  INTEGER NOT NULL,
    failures    INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
    next_try_at INTEGER,
    last_error  TEXT,
    last_ok_at  INTEGER
) STRICT;

-- How the delivery of an event to a receiver ended.
CREATE TABLE alert_deliveries (
    receiver    TEXT    NOT NULL,
    event       INTEGER NOT NULL REFERENCES alert_events (id),
    state       TEXT    NOT NULL CHECK (state IN ('delivered', 'expired', 'refused')),
    tries       INTEGER NOT NULL CHECK (tries >= 0),
    http_status INTEGER,
    why         TEXT,
    at          INTEGER NOT NULL,
    PRIMARY KEY (receiver, event)
) STRICT;
CREATE INDEX alert_deliveries_of_event ON alert_deliveries (event);
CREATE INDEX alert_deliveries_newest ON alert_deliveries (at);
