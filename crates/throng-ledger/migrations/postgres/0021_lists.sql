-- The orders and filters of lists that are read in pages. Each index ends with the id, which decides between rows
-- with the same value. Runs by sync have an index already.
CREATE INDEX sync_runs_by_audience ON sync_runs (audience, id);
CREATE INDEX sync_runs_by_state ON sync_runs (state, id);
CREATE INDEX tasks_by_sync ON tasks (sync, id);
CREATE INDEX tasks_by_audience ON tasks (audience, id);
CREATE INDEX tasks_by_state_and_id ON tasks (state, id);
CREATE INDEX alerts_by_last_time ON alerts ((coalesce(last_at, raised_at)), id);
