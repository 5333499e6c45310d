-- Runs, tasks and history of a workspace: of names, what is before the name in the workspace, such as `acme:` of
-- `acme:autumn`. By equality, because an order of names depends on the collation of the database.
CREATE INDEX IF NOT EXISTS sync_runs_by_workspace ON sync_runs ((substr(sync, 1, strpos(sync, ':'))), id);
CREATE INDEX IF NOT EXISTS tasks_by_workspace ON tasks ((substr(sync, 1, strpos(sync, ':'))), id);
CREATE INDEX IF NOT EXISTS history_by_workspace ON history ((substr(subject, 1, strpos(subject, ':'))), at, id);
