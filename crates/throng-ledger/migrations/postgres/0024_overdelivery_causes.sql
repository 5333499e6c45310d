-- What was spent above the budget of the day, by cause; the rest has no known cause. NULL for days that an earlier
-- version wrote.
ALTER TABLE budget_days ADD COLUMN over_events BIGINT;
ALTER TABLE budget_days ADD COLUMN over_feed BIGINT;
ALTER TABLE budget_days ADD COLUMN over_prediction BIGINT;
ALTER TABLE budget_days ADD COLUMN over_burst BIGINT;
ALTER TABLE budget_days ADD COLUMN over_price_change BIGINT;
