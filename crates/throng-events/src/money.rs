//! What an event carries of money itself: its price and its rates, as integers, and their limits. Pure.

/// The highest price of one event, in billionths of the currency's unit: 100 million units.
pub const MAX_PRICE_NANOS: i64 = 100_000_000 * PER_UNIT;
/// A rate of 1, in billionths.
pub const RATE_ONE: u32 = 1_000_000_000;
/// The longest name of a placement.
pub const MAX_PLACEMENT_BYTES: usize = 128;
/// Billionths in a unit: the scale of prices and of rates.
pub(crate) const PER_UNIT: i64 = 1_000_000_000;
/// Millionths in a unit: the scale of a price per thousand, whose millionths are billionths of the price of one.
pub(crate) const CPM_PER_UNIT: i64 = 1_000_000;

const NO_PRICE: i64 = i64::MIN;
const NO_RATE: u32 = u32::MAX;
/// Stands for every rate that does not fit.
const INVALID_RATE: u32 = u32::MAX - 1;

/// The price and the rates that an event carries itself. What it does not carry is that of its ad group. Has
/// whatever a sender wrote; `parse_ndjson` and `ProtobufEvents` refuse what is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventMoney {
    price_nanos: i64,
    impression_rate: u32,
    action_rate: u32,
}

impl Default for EventMoney {
    fn default() -> Self {
        Self::NONE
    }
}

impl EventMoney {
    /// Everything is that of the ad group.
    pub const NONE: Self =
        Self { price_nanos: NO_PRICE, impression_rate: NO_RATE, action_rate: NO_RATE };

    /// With a price, in billionths of the currency's unit: 0 to [`MAX_PRICE_NANOS`]. It is the price of one
    /// billed event; the same number is a price per thousand in millionths.
    #[inline]
    #[must_use]
    pub fn with_price_nanos(self, nanos: i64) -> Self {
        // The lowest number stands for no price; every negative one is refused.
        Self { price_nanos: nanos.max(NO_PRICE + 1), ..self }
    }

    /// With the share of such insertions that are seen, in billionths: 0 to [`RATE_ONE`].
    #[inline]
    #[must_use]
    pub fn with_impression_rate(self, billionths: u32) -> Self {
        Self { impression_rate: billionths.min(INVALID_RATE), ..self }
    }

    /// With the share of such impressions that are clicked, in billionths: 0 to [`RATE_ONE`]. Where
    /// impressions are billed, it has no effect.
    #[inline]
    #[must_use]
    pub fn with_action_rate(self, billionths: u32) -> Self {
        Self { action_rate: billionths.min(INVALID_RATE), ..self }
    }

    /// Its price in billionths of the currency's unit.
    #[inline]
    pub fn price_nanos(self) -> Option<i64> {
        (self.price_nanos != NO_PRICE).then_some(self.price_nanos)
    }

    /// Its impression rate in billionths.
    #[inline]
    pub fn impression_rate(self) -> Option<u32> {
        (self.impression_rate != NO_RATE).then_some(self.impression_rate)
    }

    /// Its action rate in billionths.
    #[inline]
    pub fn action_rate(self) -> Option<u32> {
        (self.action_rate != NO_RATE).then_some(self.action_rate)
    }

    /// Whether it carries anything.
    #[inline]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// The first field that is out of range, or that an event which is not an insertion cannot have.
    pub(crate) fn problem(self, is_insertion: bool) -> Option<MoneyProblem> {
        let price = self.price_nanos();
        if price.is_some_and(|nanos| nanos < 0) {
            return Some(MoneyProblem {
                field: "price",
                message: "is negative",
                help: "send the price of one billed event, 0 or more",
            });
        }
        if price.is_some_and(|nanos| nanos > MAX_PRICE_NANOS) {
            return Some(MoneyProblem {
                field: "price",
                message: "is above 100,000,000",
                help: "send the price of one billed event in units of the advertiser's currency",
            });
        }
        let rates =
            [("impression_rate", self.impression_rate()), ("action_rate", self.action_rate())];
        rates.into_iter().find_map(|(field, rate)| {
            let rate = rate?;
            if !is_insertion {
                return Some(not_of_an_outcome(field));
            }
            (rate > RATE_ONE).then_some(MoneyProblem {
                field,
                message: "is not between 0 and 1",
                help: "write 0.02 for 2 in a hundred",
            })
        })
    }
}

/// Why a field is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MoneyProblem {
    pub(crate) field: &'static str,
    pub(crate) message: &'static str,
    pub(crate) help: &'static str,
}

fn not_of_an_outcome(field: &'static str) -> MoneyProblem {
    MoneyProblem {
        field,
        message: "is a field of insertions",
        help: "send it with the insertion, and leave it out of impressions and clicks",
    }
}

/// Why a placement is refused; an empty text is none.
pub(crate) fn placement_problem(placement: &[u8], is_insertion: bool) -> Option<MoneyProblem> {
    if placement.is_empty() {
        return None;
    }
    if !is_insertion {
        return Some(not_of_an_outcome("placement"));
    }
    (!is_name(placement)).then_some(MoneyProblem {
        field: "placement",
        message: "is not the name of a placement",
        help: "use 1 to 128 of a-z, 0-9, `-`, `_` and `.`, starting with a letter or a digit",
    })
}

/// Whether bytes are a name, as of ad groups and of placements: what [`throng_model::AdGroupName`] accepts, without a
/// copy.
pub(crate) fn is_name(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| !matches!(first, b'-' | b'_' | b'.'))
        && bytes.len() <= MAX_PLACEMENT_BYTES
        // Nearly all are names: a branch for each byte would only cost time.
        && bytes.iter().fold(true, |are_names, byte| are_names & IN_NAMES[usize::from(*byte)])
}

/// Which bytes a name may have: one load for each byte of every event's ad group.
static IN_NAMES: [bool; 256] = {
    let mut in_names = [false; 256];
    let bytes = b"abcdefghijklmnopqrstuvwxyz0123456789-_.";
    let mut place = 0;
    while place < bytes.len() {
        in_names[bytes[place] as usize] = true;
        place += 1;
    }
    in_names
};

/// A rate in billionths, whatever its size: one that is out of range is refused later.
pub(crate) fn rate_of(billionths: i64) -> u32 {
    u32::try_from(billionths).map_or(INVALID_RATE, |rate| rate.min(INVALID_RATE))
}

/// A decimal number times a scale, which is a power of ten: `0.10` times 1,000,000 is 100,000. `None` if it is
/// not a number, or has more digits than the scale. Saturates.
pub(crate) fn scaled(text: &str, scale: i64) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, part) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (digits, ""),
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(part) {
        return None;
    }
    let mut unit = scale;
    let mut sum = whole.parse::<i64>().unwrap_or(i64::MAX).saturating_mul(scale);
    for digit in part.bytes() {
        if unit % 10 != 0 {
            return None;
        }
        unit /= 10;
        sum = sum.saturating_add(unit.saturating_mul(i64::from(digit - b'0')));
    }
    Some(sum.saturating_mul(sign))
}

/// A rate of a spec in billionths.
#[inline]
pub fn rate_in_billionths(rate: f64) -> u32 {
    (rate.clamp(0.0, 1.0) * f64::from(RATE_ONE)).round() as u32
}

/// What an insertion earns on average, in micros: the price in billionths times both rates in billionths, to
/// the nearest micro. At least one micro if it can earn anything, as an insertion that earns less than half a
/// micro is in flight too.
#[inline]
pub fn expected_micros(price_nanos: i64, impression_rate: u32, action_rate: u32) -> i64 {
    const ONE: u128 = RATE_ONE as u128;
    let rate = |rate: u32| u128::from(rate.min(RATE_ONE));
    // At most 2^63 · 2^30 · 2^30.
    let seen = u128::from(price_nanos.max(0).cast_unsigned()) * rate(impression_rate);
    let (product, unit) = match rate(action_rate) {
        // Where impressions are billed: a division by less than 2^64 is several times faster.
        ONE => (seen, 1_000 * ONE),
        acted => (seen * acted, 1_000 * ONE * ONE),
    };
    let micros = i64::try_from((product + unit / 2) / unit).unwrap_or(i64::MAX);
    micros.max(i64::from(product > 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use throng_model::AdGroupName;

    use super::*;

    proptest! {
        #[test]
        fn the_name_of_an_ad_group_is_a_name(text in "[a-c0-2A._:\\- ä-]{0,5}|[a-z]{126,130}") {
            prop_assert_eq!(is_name(text.as_bytes()), AdGroupName::new(&*text).is_ok());
        }
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        for (text, scale, wanted) in [
            ("0.10", PER_UNIT, Some(100_000_000)),
            ("2.5", CPM_PER_UNIT, Some(2_500_000)),
            ("0.000000001", PER_UNIT, Some(1)),
            ("-3", PER_UNIT, Some(-3_000_000_000)),
            ("12345678.123456789", PER_UNIT, Some(12_345_678_123_456_789)),
            ("99999999999999999999", PER_UNIT, Some(i64::MAX)),
            ("0.0000000001", PER_UNIT, None),
            ("0.0000001", CPM_PER_UNIT, None),
            ("", PER_UNIT, None),
            ("-", PER_UNIT, None),
            (".5", PER_UNIT, None),
            ("5.", PER_UNIT, None),
            ("1.2.3", PER_UNIT, None),
            ("1,5", PER_UNIT, None),
            ("1e3", PER_UNIT, None),
            ("+1", PER_UNIT, None),
        ] {
            assert_eq!(scaled(text, scale), wanted, "{text}");
        }
    }

    #[test]
    fn expected_is_the_product_to_the_nearest_micro() {
        // 0.10 × 0.9.
        assert_eq!(expected_micros(100_000_000, 900_000_000, RATE_ONE), 90_000);
        // 2 × 0.6 × 0.0005.
        assert_eq!(expected_micros(2_000_000_000, 600_000_000, 500_000), 600);
        // Half a micro is rounded up, and less than that is one micro.
        assert_eq!(expected_micros(2_500, RATE_ONE, RATE_ONE), 3);
        assert_eq!(expected_micros(1, 1, 1), 1);
        assert_eq!([expected_micros(0, RATE_ONE, 1), expected_micros(5_000, 0, 1)], [0, 0]);
        assert_eq!(expected_micros(-5, RATE_ONE, RATE_ONE), 0);
        assert_eq!(
            expected_micros(i64::MAX, u32::MAX, u32::MAX),
            i64::MAX / 1_000 + 1,
            "rates above 1 are 1"
        );
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let none = EventMoney::NONE;
        assert!(none.is_none() && none.problem(true).is_none() && none.problem(false).is_none());
        let field = |money: EventMoney, is_insertion| money.problem(is_insertion).map(|p| p.field);
        for (price, wanted) in [
            (0, None),
            (MAX_PRICE_NANOS, None),
            (MAX_PRICE_NANOS + 1, Some("price")),
            (-1, Some("price")),
            (i64::MIN, Some("price")),
            (i64::MAX, Some("price")),
        ] {
            let money = none.with_price_nanos(price);
            assert_eq!([field(money, true), field(money, false)], [wanted; 2], "{price}");
        }
        for rate in [0, 1, RATE_ONE] {
            let money = none.with_impression_rate(rate);
            assert_eq!((field(money, true), money.impression_rate()), (None, Some(rate)));
            assert_eq!(field(money, false), Some("impression_rate"), "not of an outcome");
            assert_eq!(field(none.with_action_rate(rate), false), Some("action_rate"));
        }
        for rate in [RATE_ONE + 1, u32::MAX - 1, u32::MAX, rate_of(-1), rate_of(i64::MAX)] {
            assert_eq!(field(none.with_action_rate(rate), true), Some("action_rate"), "{rate}");
        }
        let placement = |text: &str, is_insertion| {
            placement_problem(text.as_bytes(), is_insertion).map(|problem| problem.field)
        };
        assert_eq!([placement("", true), placement("", false)], [None; 2]);
        assert_eq!(placement("home-feed.top_1", true), None);
        assert_eq!(placement("home", false), Some("placement"));
        let long = "a".repeat(MAX_PLACEMENT_BYTES + 1);
        for wrong in ["Home", "-a", "a b", "ä", &*long] {
            assert_eq!(placement(wrong, true), Some("placement"), "{wrong}");
        }
    }
}
