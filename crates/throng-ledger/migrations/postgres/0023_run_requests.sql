-- A run was requested and is not planned yet. NULL for states that an earlier version wrote: there an empty
-- fingerprint of the identifiers and `replaces` are the request.
ALTER TABLE delivered_states ADD COLUMN requested BIGINT CHECK (requested IN (0, 1));
