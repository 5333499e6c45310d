-- What ad groups have spent in a day in a currency other than that of their row in budget_days: they were removed and
-- added again in another currency.
CREATE TABLE budget_days_in_other_currencies (
    ad_group          TEXT    NOT NULL,
    day               BIGINT  NOT NULL,
    budget            BIGINT  NOT NULL,
    actual            BIGINT  NOT NULL,
    currency          TEXT    NOT NULL,
    predicted         BIGINT,
    earned            BIGINT,
    over_events       BIGINT,
    over_feed         BIGINT,
    over_prediction   BIGINT,
    over_burst        BIGINT,
    over_price_change BIGINT,
    PRIMARY KEY (ad_group, day, currency)
);
