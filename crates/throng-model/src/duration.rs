//! Durations as people write them.

/// `90d`, `12h`, `30m`, `45s` or `2w`, in seconds: a whole number above 0 with its unit.
///
/// # Errors
/// What is wrong with the text, with a hint.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    let help =
        || format!("`{text}` is not a duration: write a number with s, m, h, d or w, as 90d");
    let unit = text.chars().next_back().ok_or_else(help)?;
    let number = text.strip_suffix(unit).unwrap_or_default();
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(help()),
    };
    let number: u64 = number.parse().map_err(|_| help())?;
    number.checked_mul(factor).filter(|secs| *secs > 0).ok_or_else(help)
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_have_a_unit() {
        for (text, secs) in [("45s", 45), ("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000)] {
            assert_eq!(super::parse_seconds(text), Ok(secs));
        }
        for wrong in ["", "d", "0d", "1.5d", "90", "-1d", "90 d", "99999999999999999w"] {
            assert!(super::parse_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
