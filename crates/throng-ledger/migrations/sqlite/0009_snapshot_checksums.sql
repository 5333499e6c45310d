-- By what a snapshot's file is known besides its name: NULL for those that were made before.
ALTER TABLE snapshots ADD COLUMN checksum TEXT;
