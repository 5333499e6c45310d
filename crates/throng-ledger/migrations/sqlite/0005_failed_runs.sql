-- Which syncs are not settled is asked about once a second: of thousands of syncs with years of runs,
-- without reading them all.
CREATE INDEX sync_runs_failed ON sync_runs (sync, id) WHERE state = 'failed';
