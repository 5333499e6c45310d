-- Delivered users who are not on the platform's list after the run, including those that a replace session drops.
-- NULL for runs that an earlier version planned.
ALTER TABLE sync_runs ADD COLUMN users_removed BIGINT CHECK (users_removed >= 0);
-- Users whom runs have removed from the audience until the size was read, in total. NULL for sizes that an earlier
-- version read.
ALTER TABLE platform_sizes ADD COLUMN removed BIGINT CHECK (removed >= 0);
-- The newest run that this counts. NULL if no run had ended, and for sizes that an earlier version read.
ALTER TABLE platform_sizes ADD COLUMN removed_run BIGINT;
