-- Parts of one refresh are done by any builder: who has a part in hand, or has done it, and until when
-- it may be silent.
ALTER TABLE refresh_parts ADD COLUMN holder TEXT;
ALTER TABLE refresh_parts ADD COLUMN lease_until INTEGER;
