-- How many partitions the event log has. An ad group's partition is made of its name and this number, so
-- it never changes.
ALTER TABLE deployment ADD COLUMN log_partitions BIGINT;
