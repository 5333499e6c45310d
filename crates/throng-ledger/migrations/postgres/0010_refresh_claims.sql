-- Tries of a refresh that have neither ended in words nor finished a part: those that the process died
-- with, and the one in hand.
ALTER TABLE refreshes ADD COLUMN claims BIGINT NOT NULL DEFAULT 0 CHECK (claims >= 0);
