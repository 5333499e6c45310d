//! The texts of records as values. No function allocates, except [`date_text`].

const MICROS_PER_SECOND: i64 = 1_000_000;
/// The days of the years 1 to 9999, which four digits can name, since 1970-01-01.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;
/// Microseconds of a day.
pub const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// A signed 64-bit integer in decimal digits.
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = sign(text);
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for byte in digits {
        let digit = i64::from(byte.checked_sub(b'0').filter(|digit| *digit <= 9)?);
        value = value.checked_mul(10)?;
        value = if negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    Some(value)
}

/// A decimal number as an integer of its last digit: 1.5 with `scale` 2 is 150. A number with more digits than
/// the type has is not a value, except for zeros at the end.
pub fn decimal(text: &[u8], digits: u8, scale: u8) -> Option<i128> {
    let (negative, rest) = sign(text);
    let (whole, fraction) = match rest.iter().position(|byte| *byte == b'.') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &[][..]),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let scale = usize::from(scale);
    let (kept, cut) = fraction.split_at(fraction.len().min(scale));
    if !cut.iter().all(|byte| *byte == b'0') {
        return None;
    }
    let mut value: i128 = 0;
    let zeros = std::iter::repeat_n(&b'0', scale - kept.len());
    for byte in whole.iter().chain(kept).chain(zeros) {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value = value.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    let limit = 10i128.checked_pow(u32::from(digits))?;
    (value < limit).then_some(if negative { -value } else { value })
}

/// `true`, `false`, `1` or `0`, in any case.
pub fn boolean(text: &[u8]) -> Option<bool> {
    if text == b"1" || text.eq_ignore_ascii_case(b"true") {
        Some(true)
    } else if text == b"0" || text.eq_ignore_ascii_case(b"false") {
        Some(false)
    } else {
        None
    }
}

/// Days since 1970-01-01 of a date such as `2026-11-25`, of the years 1 to 9999.
pub fn date(text: &[u8]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = number(&[*y1, *y2, *y3, *y4])?;
    let (month, day) = (number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    if year < 1 || !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    Some(days_from_civil(year, month, day))
}

/// Microseconds since 1970-01-01T00:00:00Z of a point in time: a date, `T` or a space, hours and minutes, with or
/// without seconds, their fraction, and `Z` or an offset such as `+02:00`. Without an offset it is in UTC. A
/// fraction finer than microseconds is not a value, except for zeros at the end. A date alone is its midnight. In UTC it
/// is in the years 1 to 9999.
pub fn timestamp(text: &[u8]) -> Option<i64> {
    let days = i64::from(date(text.get(..10)?)?);
    let midnight = days * MICROS_PER_DAY;
    let rest = &text[10..];
    if rest.is_empty() {
        return Some(midnight);
    }
    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, rest @ ..] = rest else { return None };
    let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
    let (seconds, micros, rest) = match rest {
        [b':', s1, s2, rest @ ..] => {
            let (micros, rest) = fraction(rest)?;
            (number(&[*s1, *s2])?, micros, rest)
        }
        rest => (0, 0, rest),
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let of_day = i64::from(hours * 3600 + minutes * 60 + seconds) * MICROS_PER_SECOND + micros;
    let micros = midnight + of_day - i64::from(offset_seconds(rest)?) * MICROS_PER_SECOND;
    // An offset can move it to the year 0 or 10000.
    DAYS.contains(&micros.div_euclid(MICROS_PER_DAY)).then_some(micros)
}

/// The date of days since 1970-01-01, such as `2026-11-25`.
pub fn date_text(days: i32) -> String {
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

fn number(digits: &[u8]) -> Option<i32> {
    let mut value = 0;
    for byte in digits {
        value = value * 10 + i32::from(byte.checked_sub(b'0').filter(|digit| *digit <= 9)?);
    }
    Some(value)
}

/// The microseconds of `.123456`, and what follows it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', rest @ ..] = text else { return Some((0, text)) };
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at(count);
    if digits.is_empty() || digits.iter().skip(6).any(|byte| *byte != b'0') {
        return None;
    }
    let mut micros = 0;
    for at in 0..6 {
        micros = micros * 10 + digits.get(at).map_or(0, |byte| i64::from(byte - b'0'));
    }
    Some((micros, rest))
}

fn offset_seconds(text: &[u8]) -> Option<i32> {
    let (direction, digits) = match text {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match digits {
        [h1, h2] => (number(&[*h1, *h2])?, 0),
        [h1, h2, m1, m2] | [h1, h2, b':', m1, m2] => (number(&[*h1, *h2])?, number(&[*m1, *m2])?),
        _ => return None,
    };
    (hours <= 23 && minutes <= 59).then_some(direction * (hours * 3600 + minutes * 60))
}

fn days_of(year: i32, month: i32) -> i32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The algorithm of Howard Hinnant's "chrono-compatible low-level date algorithms", for years from 1.
fn days_from_civil(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i32) -> (i64, i64, i64) {
    let days = i64::from(days) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact() {
        for (text, value) in [
            ("0", Some(0)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("+7", Some(7)),
            ("007", Some(7)),
            ("", None),
            ("-", None),
            ("1.0", None),
            ("1e3", None),
            ("٣", None),
        ] {
            assert_eq!(integer(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn decimals_are_never_rounded() {
        for (text, value) in [
            ("1234.5", Some(123_450)),
            ("-0.01", Some(-1)),
            (".5", Some(50)),
            ("5.", Some(500)),
            ("1.500", Some(150)),
            ("1.501", None),
            ("9999.99", Some(999_999)),
            ("10000", None),
            (".", None),
            ("", None),
            ("1,5", None),
            ("1e2", None),
        ] {
            assert_eq!(decimal(text.as_bytes(), 6, 2), value, "{text}");
        }
        assert_eq!(
            decimal(b"99999999999999999999999999999999999999", 38, 0).map(|v| v > 0),
            Some(true)
        );
    }

    #[test]
    fn dates_exist_in_the_calendar() {
        for (text, days) in [
            ("1970-01-01", Some(0)),
            ("1969-12-31", Some(-1)),
            ("2000-02-29", Some(11_016)),
            ("2026-11-25", Some(20_782)),
            ("1900-02-29", None),
            ("2026-13-01", None),
            ("2026-04-31", None),
            ("0000-01-01", None),
            ("2026-1-1", None),
            ("25.11.2026", None),
        ] {
            assert_eq!(date(text.as_bytes()), days, "{text}");
        }
    }

    #[test]
    fn points_in_time_are_in_utc() {
        let second = MICROS_PER_SECOND;
        for (text, micros) in [
            ("1970-01-01", Some(0)),
            ("1970-01-01T00:00:01Z", Some(second)),
            ("1970-01-01 00:00:01", Some(second)),
            ("1970-01-01T00:01", Some(60 * second)),
            ("1970-01-01T02:00:00+02:00", Some(0)),
            ("1970-01-01T00:00:00-0130", Some(5_400 * second)),
            ("1970-01-01T00:00:00.5Z", Some(second / 2)),
            ("1970-01-01T00:00:00.123456000", Some(123_456)),
            ("0001-01-01T00:30:00+00:30", Some(-719_162 * MICROS_PER_DAY)),
            ("0001-01-01T00:30:00+00:31", None),
            ("9999-12-31T22:59:59.999999-01:00", Some(2_932_897 * MICROS_PER_DAY - 1)),
            ("9999-12-31T23:00:00-01:00", None),
            ("1970-01-01T00:00:00.1234567", None),
            ("1970-01-01T24:00:00", None),
            ("1970-01-01T00:00:60", None),
            ("1970-01-01T00:00:00.", None),
            ("1970-01-01T00", None),
            ("noon", None),
        ] {
            assert_eq!(timestamp(text.as_bytes()), micros, "{text}");
        }
    }

    #[test]
    fn booleans_have_few_spellings() {
        assert_eq!(boolean(b"TRUE"), Some(true));
        assert_eq!(boolean(b"0"), Some(false));
        assert_eq!(boolean(b"yes"), None);
    }

    proptest::proptest! {
        #[test]
        fn dates_are_written_as_they_are_read(days in -719_162i32..=2_932_896) {
            proptest::prop_assert_eq!(date(date_text(days).as_bytes()), Some(days));
        }

        #[test]
        fn no_text_causes_a_panic(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let _ = (integer(&text), decimal(&text, 38, 38), boolean(&text), date(&text), timestamp(&text));
        }

        #[test]
        fn integers_are_read_as_they_are_written(number: i64) {
            proptest::prop_assert_eq!(integer(number.to_string().as_bytes()), Some(number));
        }
    }
}
