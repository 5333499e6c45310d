-- The currency of the amounts of the day; NULL for days that an earlier version wrote.
ALTER TABLE budget_days ADD COLUMN currency TEXT;
