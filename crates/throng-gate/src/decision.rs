//! What a gate answers.

use std::fmt;
use std::sync::Arc;

use throng_feed::PassThroughRate;
use throng_model::{AudienceName, Currency, Micros, Timestamp};

/// Which of the candidates may be shown. `Id` is what the caller named them by.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<Id> {
    /// These may, in the order of the candidates.
    pub allowed: Vec<Id>,
    /// These may not, and why.
    pub refused: Vec<(Id, Reason)>,
}

/// Why an ad group may not be shown. `Display` explains it, for logs and support.
///
/// ```
/// use throng_gate::Reason;
/// use throng_model::Micros;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let reason = Reason::OutOfBudget {
///     actual: Micros(99_500_000),
///     in_flight: Some(Micros(500_000)),
///     budget: Micros(100_000_000),
///     currency: Some("USD".parse()?),
/// };
/// assert_eq!(
///     reason.to_string(),
///     "99.50 spent and 0.50 in flight reach the budget of 100.00 USD"
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The catalog does not have it.
    UnknownAdGroup,
    /// The user is in none of the audiences that it includes, or is not known.
    NotInAudience {
        /// Those audiences.
        audiences: Arc<[AudienceName]>,
    },
    /// The user is in none of the audiences that it includes and that are built, and one of them is not built, so it
    /// is unknown whether the user is in that one.
    InclusionUnknown {
        /// That audience.
        audience: AudienceName,
    },
    /// The user is in an audience that it excludes.
    Excluded {
        /// That audience.
        audience: AudienceName,
    },
    /// It excludes an audience that has not been built, so it is unknown who is in it.
    ExclusionUnknown {
        /// That audience.
        audience: AudienceName,
    },
    /// What is spent and in flight has reached the budget.
    OutOfBudget {
        /// Spent today.
        actual: Micros,
        /// Expected to be spent by ads already shown; `None` if prediction is off.
        in_flight: Option<Micros>,
        /// The day's budget.
        budget: Micros,
        /// The currency of the amounts, if the catalog says it.
        currency: Option<Currency>,
    },
    /// The server has closed it before its budget is reached: what is in flight may come to more than its mean.
    NearBudget {
        /// Spent today.
        actual: Micros,
        /// Expected to be spent by ads already shown.
        in_flight: Micros,
        /// The day's budget.
        budget: Micros,
        /// The currency of the amounts, if the catalog says it.
        currency: Option<Currency>,
    },
    /// The server has closed it for another reason: it was removed from the spec, say.
    Closed,
    /// It is shown at a share of requests for now, and this is not one of them.
    Throttled {
        /// That share.
        pass_through_rate: PassThroughRate,
    },
    /// The feed is stale, and the ad group's `when_stale` is `stop`.
    Stale {
        /// When the last frame was made; `None` if there never was one.
        since: Option<Timestamp>,
    },
    /// The clock is so far behind the time of the last frame that it is unknown whether the feed is stale, and the ad
    /// group's `when_stale` is `stop`.
    ClockBehind {
        /// When the last frame was made, by the node's clock.
        frame_at: Timestamp,
    },
}

impl Reason {
    /// A fixed code for counting: `not_in_audience`, `out_of_budget`, … Both [`Closed`](Self::Closed) and
    /// [`NearBudget`](Self::NearBudget) are `closed`.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    ///
    /// use throng_gate::Reason;
    ///
    /// let refused = [(1, Reason::Closed), (2, Reason::UnknownAdGroup), (3, Reason::Closed)];
    /// let mut counts = BTreeMap::new();
    /// for (_, reason) in &refused {
    ///     *counts.entry(reason.code()).or_insert(0) += 1;
    /// }
    /// assert_eq!(counts, BTreeMap::from([("closed", 2), ("unknown_ad_group", 1)]));
    /// ```
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownAdGroup => "unknown_ad_group",
            Self::NotInAudience { .. } => "not_in_audience",
            Self::InclusionUnknown { .. } => "inclusion_unknown",
            Self::Excluded { .. } => "excluded",
            Self::ExclusionUnknown { .. } => "exclusion_unknown",
            Self::OutOfBudget { .. } => "out_of_budget",
            Self::NearBudget { .. } | Self::Closed => "closed",
            Self::Throttled { .. } => "throttled",
            Self::Stale { .. } => "stale",
            Self::ClockBehind { .. } => "clock_behind",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAdGroup => f.write_str("there is no ad group of this name"),
            Self::NotInAudience { audiences } => match &audiences[..] {
                [one] => write!(f, "the user is not in audience `{one}`"),
                several => {
                    f.write_str("the user is in none of the audiences ")?;
                    for (number, audience) in several.iter().enumerate() {
                        write!(f, "{}`{audience}`", if number == 0 { "" } else { ", " })?;
                    }
                    Ok(())
                }
            },
            Self::InclusionUnknown { audience } => write!(
                f,
                "the ad group includes audience `{audience}`, which has not been built yet"
            ),
            Self::Excluded { audience } => {
                write!(f, "the user is in audience `{audience}`, which the ad group excludes")
            }
            Self::ExclusionUnknown { audience } => write!(
                f,
                "the ad group excludes audience `{audience}`, which has not been built yet"
            ),
            Self::OutOfBudget { actual, in_flight, budget, currency } => {
                match in_flight {
                    Some(in_flight) => {
                        write!(
                            f,
                            "{actual} spent and {in_flight} in flight reach the budget of {budget}"
                        )
                    }
                    None => write!(f, "{actual} spent reach the budget of {budget}"),
                }?;
                currency.map_or(Ok(()), |currency| write!(f, " {currency}"))
            }
            Self::NearBudget { actual, in_flight, budget, currency } => {
                write!(
                    f,
                    "the server has closed the ad group: {actual} spent and {in_flight} in flight leave too little of the budget of {budget}"
                )?;
                currency.map_or(Ok(()), |currency| write!(f, " {currency}"))
            }
            Self::Closed => f.write_str("the server has closed the ad group"),
            Self::Throttled { pass_through_rate } => write!(
                f,
                "the ad group is shown at {} of requests to spend its budget in time, and not at this one",
                pass_through_rate.percent_text()
            ),
            Self::Stale { since: Some(since) } => {
                write!(f, "no feed frame about its spend since {since}, and it stops when stale")
            }
            Self::Stale { since: None } => {
                f.write_str("no feed frame about its spend yet, and it stops when stale")
            }
            Self::ClockBehind { frame_at } => write!(
                f,
                "the last feed frame is of {frame_at}, and the clock here is far behind that: set the clock"
            ),
        }
    }
}
