//! Forms of dates and timestamps in texts. Pure.

/// Whether a text is a date such as `1/31/2026`, `31.01.2026 10:00` or `01-31-2026`, or a timestamp with an offset.
pub(crate) fn is_unsorted_moment(text: &[u8]) -> bool {
    if !text.first().is_some_and(u8::is_ascii_digit) {
        return false;
    }
    if text.get(..10).is_some_and(is_date) {
        return matches!(text.get(10), Some(b'T' | b' '))
            && text[10..].iter().any(|byte| matches!(byte, b'+' | b'-'));
    }
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let first = digits(0);
    let second = digits(first + 1);
    let year = first + second + 2;
    let (Some(separator @ (b'/' | b'.' | b'-')), Some(other)) =
        (text.get(first).copied(), text.get(year - 1).copied())
    else {
        return false;
    };
    let years = match separator {
        b'/' => [2, 4],
        _ => [4, 4],
    };
    separator == other
        && (1..=2).contains(&first)
        && (1..=2).contains(&second)
        && years.contains(&digits(year))
        && text.get(year + digits(year)).is_none_or(|next| matches!(next, b' ' | b',' | b'T'))
}

/// The number that two digits are.
pub(crate) fn two(text: &[u8], at: usize) -> Option<u32> {
    let [a @ b'0'..=b'9', b @ b'0'..=b'9'] = text.get(at..at + 2)? else { return None };
    Some(u32::from(a - b'0') * 10 + u32::from(b - b'0'))
}

/// A day of the calendar as `2026-11-25`.
pub(crate) fn is_date(text: &[u8]) -> bool {
    let parts = (two(text, 0), two(text, 2), two(text, 5), two(text, 8));
    let (Some(century), Some(year), Some(month), Some(day)) = parts else { return false };
    let year = century * 100 + year;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    };
    text.len() == 10 && text[4] == b'-' && text[7] == b'-' && (1..=days).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_in_forms_that_do_not_sort_are_known() {
        for text in [
            "1/31/2026",
            "12/1/26",
            "31.01.2026 10:00",
            "01-31-2026",
            "1/5/2026, 10:00",
            "2026-01-31T10:00:00+01:00",
            "2026-01-31 10:00:00 -0500",
        ] {
            assert!(is_unsorted_moment(text.as_bytes()), "{text}");
        }
        for text in
            ["", "1/2", "1/2/3", "10.0.0.1", "1.2.30", "x/1/2026", "2026-01-31-007", "12-34"]
        {
            assert!(!is_unsorted_moment(text.as_bytes()), "{text}");
        }
    }
}
