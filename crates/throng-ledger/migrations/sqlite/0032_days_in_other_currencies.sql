-- What ad groups have spent in a day in a currency other than that of their row in budget_days: they were removed and
-- added again in another currency.
CREATE TABLE budget_days_in_other_currencies (
    ad_group          TEXT    NOT NULL,
    day               INTEGER NOT NULL,
    budget            INTEGER NOT NULL,
    actual            INTEGER NOT NULL,
    currency          TEXT    NOT NULL,
    predicted         INTEGER,
    earned            INTEGER,
    over_events       INTEGER,
    over_feed         INTEGER,
    over_prediction   INTEGER,
    over_burst        INTEGER,
    over_price_change INTEGER,
    PRIMARY KEY (ad_group, day, currency)
) STRICT, WITHOUT ROWID;
