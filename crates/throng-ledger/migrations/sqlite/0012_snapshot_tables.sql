-- The tables that a snapshot was made of, with the types of their columns, as JSON: NULL for those that were
-- made before.
ALTER TABLE snapshots ADD COLUMN tables TEXT;
