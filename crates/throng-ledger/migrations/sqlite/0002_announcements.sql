-- When a task, or its check, was last put on its queue. Work that is due and was not announced for
-- a while is announced again: a lost message harms nobody.
ALTER TABLE tasks ADD COLUMN announced_at INTEGER;
ALTER TABLE tasks ADD COLUMN check_announced_at INTEGER;
