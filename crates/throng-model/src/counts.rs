//! Numbers as people read them.

/// A number with separators: `12,345`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun: `1 audience`, `2,000 audiences`. `one`: the noun in the singular, whose plural ends in `s`.
#[must_use]
pub fn counted(number: u64, one: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {one}{s}", count(number))
}

/// A number rounded to some decimals. One that is rounded to zero has no sign.
#[must_use]
pub fn rounded(number: f64, decimals: usize) -> String {
    without_sign_of_zero(format!("{number:.decimals$}"))
}

/// A difference in percent with its sign: `+1.5 %`. One that is rounded to zero has none: `0.0 %`.
#[must_use]
pub fn signed_percent(percent: f64) -> String {
    format!("{} %", without_sign_of_zero(format!("{percent:+.1}")))
}

fn without_sign_of_zero(text: String) -> String {
    match text.strip_prefix(['+', '-']) {
        Some(rest) if rest.bytes().all(|byte| byte == b'0' || byte == b'.') => rest.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounded_zero_has_no_sign() {
        for zero in [-0.049, 0.0, -0.0, 0.049] {
            assert_eq!(signed_percent(zero), "0.0 %", "{zero}");
        }
        assert_eq!([-0.06, 0.06, -12.34].map(signed_percent), ["-0.1 %", "+0.1 %", "-12.3 %"]);
        assert_eq!(
            [-0.004, -0.006, 11.111].map(|number| rounded(number, 2)),
            ["0.00", "-0.01", "11.11"]
        );
        assert_eq!(rounded(-0.4, 0), "0");
        assert_eq!(rounded(f64::NEG_INFINITY, 2), "-inf");
    }

    #[test]
    fn numbers_have_commas() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(12_345_678), "12,345,678");
    }

    #[test]
    fn nouns_are_in_the_plural_except_of_one() {
        let shown = [0, 1, 2_000].map(|number| counted(number, "ad group"));
        assert_eq!(shown, ["0 ad groups", "1 ad group", "2,000 ad groups"]);
    }
}
