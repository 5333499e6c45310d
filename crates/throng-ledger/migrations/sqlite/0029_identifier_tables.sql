-- The tables that the delivered identifiers were read from, with the types of their columns, as the source of identifiers
-- writes them: NULL for states that an earlier version wrote.
ALTER TABLE delivered_states ADD COLUMN tables TEXT;
