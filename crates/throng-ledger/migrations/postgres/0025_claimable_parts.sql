-- A claim of a part reads the parts that are pending, not those that are done: the refreshes that are processing, and
-- of each the first pending part of the kind that may be claimed. A renewal reads the parts of its holder. SQLite
-- prefers the primary key to an index without all columns of the claim, so the index has them.
CREATE INDEX IF NOT EXISTS refreshes_processing ON refreshes (state, id) WHERE state = 'processing';
CREATE INDEX IF NOT EXISTS refresh_parts_pending ON refresh_parts (refresh, state, kind, number, lease_until)
    WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS refresh_parts_held ON refresh_parts (holder) WHERE state = 'pending' AND holder IS NOT NULL;
