//! What was given away on a day, by cause.

use throng_api::GivenAwayByCause;
use throng_model::{Micros, MoneyError};
use throng_store::BudgetDayRow;

/// Causes with the unknown one, in the order of [`GivenAwayByCause`].
const CAUSES: usize = 6;

/// Sums of what was given away, by cause. Of 128 bits: no number of rows overflows them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CauseSums([i128; CAUSES]);

impl CauseSums {
    /// Adds a day of an ad group. `given_away`: what it has spent above its budget.
    ///
    /// What has no known cause is the rest. If the known ones are more than was given away, they are of another budget
    /// than that of the row, and none of them says anything about it.
    pub(crate) fn add(&mut self, row: &BudgetDayRow, given_away: i128) {
        let amounts = row.causes.unwrap_or_default().amounts().map(|amount| i128::from(amount.0));
        let known: i128 = amounts.iter().sum();
        let is_valid = known <= given_away && amounts.iter().all(|amount| *amount >= 0);
        let [of_known @ .., unknown] = &mut self.0;
        if is_valid {
            of_known.iter_mut().zip(amounts).for_each(|(sum, amount)| *sum += amount);
        }
        *unknown += if is_valid { given_away - known } else { given_away };
    }

    /// The amounts for a response.
    pub(crate) fn micros(&self) -> Result<GivenAwayByCause, MoneyError> {
        let micros = |sum: i128| i64::try_from(sum).map(Micros).map_err(|_| MoneyError::Overflow);
        let [events, feed, prediction, burst, price_change, unknown] = self.0;
        Ok(GivenAwayByCause {
            events_micros: micros(events)?,
            feed_micros: micros(feed)?,
            prediction_micros: micros(prediction)?,
            burst_micros: micros(burst)?,
            price_change_micros: micros(price_change)?,
            unknown_micros: micros(unknown)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use throng_model::{BudgetDay, OverdeliveryCauses};

    use super::*;

    fn row(causes: Option<[i64; 5]>) -> BudgetDayRow {
        BudgetDayRow {
            ad_group: "shoes".parse().unwrap(),
            day: BudgetDay(20_000),
            budget: Micros(100),
            actual: Micros(130),
            prediction: None,
            currency: None,
            causes: causes.map(|amounts| OverdeliveryCauses::of_amounts(amounts.map(Micros))),
        }
    }

    #[test]
    fn the_rest_has_no_known_cause() {
        let of = |causes| {
            let mut sums = CauseSums::default();
            sums.add(&row(causes), 30);
            sums.micros().unwrap().amounts().map(|amount| amount.0)
        };
        assert_eq!(of(None), [0, 0, 0, 0, 0, 30]);
        assert_eq!(of(Some([1, 2, 3, 4, 5])), [1, 2, 3, 4, 5, 15]);
        assert_eq!(of(Some([6; 5])), [6, 6, 6, 6, 6, 0]);
        assert_eq!(of(Some([6, 6, 6, 6, 7])), [0, 0, 0, 0, 0, 30], "of another budget");
        assert_eq!(of(Some([i64::MAX; 5])), [0, 0, 0, 0, 0, 30]);
        assert_eq!(of(Some([-1, 0, 0, 0, 0])), [0, 0, 0, 0, 0, 30]);
    }

    proptest! {
        /// To the micro.
        #[test]
        fn causes_add_up_to_what_is_given_away(
            rows in prop::collection::vec(
                (prop::option::of([0i64..40, 0..40, 0..40, 0..40, 0..40]), 0i128..120),
                0..20,
            ),
        ) {
            let mut sums = CauseSums::default();
            rows.iter().for_each(|(causes, given_away)| sums.add(&row(*causes), *given_away));
            let amounts = sums.micros().unwrap().amounts();
            prop_assert!(amounts.iter().all(|amount| amount.0 >= 0));
            let total: i128 = amounts.iter().map(|amount| i128::from(amount.0)).sum();
            prop_assert_eq!(total, rows.iter().map(|(_, given_away)| given_away).sum::<i128>());
        }
    }
}
