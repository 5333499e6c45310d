//! The speed of the demo's clock.

/// How many times faster than real time the ad traffic runs.
///
/// # Errors
/// If the text is not a number above zero: at zero or below it the traffic would never end.
pub fn speed(text: &str) -> Result<f64, String> {
    let read = text.parse::<f64>().ok().filter(|speed| speed.is_finite() && *speed > 0.0);
    read.ok_or_else(|| format!("`{text}` is not a speed: write a number above 0, such as 40"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_speed_is_above_zero() {
        assert_eq!(super::speed("0.5"), Ok(0.5));
        assert_eq!(super::speed("40"), Ok(40.0));
        for wrong in ["0", "-1", "NaN", "inf", "", "fast", "-0"] {
            assert!(super::speed(wrong).is_err(), "{wrong}");
        }
    }
}
