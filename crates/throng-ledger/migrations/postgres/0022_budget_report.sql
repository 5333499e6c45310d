-- What the insertions of the day were expected to earn and have earned, without those whose outcomes were not due.
-- NULL for days without insertions, and for those that an earlier version wrote.
ALTER TABLE budget_days ADD COLUMN predicted BIGINT;
ALTER TABLE budget_days ADD COLUMN earned BIGINT;
-- The days of all ad groups are read by day.
CREATE INDEX budget_days_by_day ON budget_days (day, ad_group);
