//! Units of times that are sent as numbers since 1970. Pure.

use throng_model::Timestamp;

/// Whole numbers up to this one are exact in a 64-bit float: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// 2000-01-01 and 2100-01-01 in seconds since 1970.
const FIRST: i64 = 946_684_800;
const LAST: i64 = 4_102_444_800;
/// Units of a numeric time: how many of each make a second. A time from 2000 to 2100 is in the range of
/// exactly one unit.
const UNITS: [i64; 4] = [1, 1_000, 1_000_000, 1_000_000_000];
/// Index in `UNITS`.
const NANOS: usize = 3;

/// The unit in which a number is a time from 2000 to 2100: its index in [`UNITS`].
pub(crate) fn unit_of(number: i64) -> Option<usize> {
    UNITS.iter().position(|unit| (FIRST * unit..LAST * unit).contains(&number))
}

/// A time from 2000 to 2100, in the unit that follows from its size.
pub(crate) fn in_micros(number: i64) -> Option<Timestamp> {
    let unit = unit_of(number)?;
    Some(Timestamp(match unit {
        NANOS => number.div_euclid(1_000),
        unit => number * (1_000_000 / UNITS[unit]),
    }))
}

/// Whole numbers and numbers with a fraction, in any unit, to the nearest microsecond.
pub(crate) fn float_in_micros(number: f64) -> Option<Timestamp> {
    let whole = number.abs() < EXACT && number.fract() == 0.0;
    let unit = unit_of(number as i64)?;
    match (whole, unit) {
        (true, _) => in_micros(number as i64),
        // Nanoseconds are beyond what a float holds exactly; the microsecond is not.
        (false, NANOS) => Some(Timestamp((number / 1_000.0).round() as i64)),
        (false, unit) => {
            Some(Timestamp((number * (1_000_000 / UNITS[unit]) as f64).round() as i64))
        }
    }
}
