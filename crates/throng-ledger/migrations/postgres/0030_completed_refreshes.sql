-- When an audience was refreshed last: its newest completed refresh is found without reading those that have failed since.
CREATE INDEX IF NOT EXISTS refreshes_completed ON refreshes (audience, state, id, finished_at) WHERE state = 'completed';
