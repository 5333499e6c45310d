//! Money: integer micros with a currency. Never a float; overflow is an error, never a wrap.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why an amount or a currency is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The sum does not fit into a signed 64-bit number of micros (9.2 trillion units).
    #[error("the amount overflows: sums are limited to about 9.2 trillion currency units")]
    Overflow,
    /// Not a decimal number with at most six digits after the point.
    #[error("`{0}` is not an amount: write it like 12.50, with at most six digits after the point")]
    NotAnAmount(String),
    /// Not an ISO 4217 code.
    #[error("`{0}` is not a currency: write three capital letters such as USD")]
    NotACurrency(String),
}

/// An amount of money in millionths of a currency unit. $0.10 is `Micros(100_000)`.
///
/// ```
/// use throng_model::{Micros, MoneyError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let price: Micros = "0.10".parse()?;
/// assert_eq!(price, Micros(100_000));
/// assert_eq!(price.plus(Micros(5))?.to_string(), "0.100005");
/// // A sum that does not fit is an error, never another number.
/// assert_eq!(Micros(i64::MAX).plus(price), Err(MoneyError::Overflow));
/// # Ok(())
/// # }
/// ```
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Whether a text is an amount with more than six digits after the point.
    pub fn has_too_many_decimals(text: &str) -> bool {
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        text.split_once('.').is_some_and(|(units, fraction)| {
            !units.is_empty() && is_digits(units) && is_digits(fraction) && fraction.len() > 6
        })
    }

    /// The sum.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_add(other.0).map(Self).ok_or(MoneyError::Overflow)
    }

    /// The difference.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_sub(other.0).map(Self).ok_or(MoneyError::Overflow)
    }

    /// `self` times a share between 0 and 1, rounded to the nearest micro. For *expected* amounts
    /// only; billed amounts are never multiplied by a float.
    ///
    /// ```
    /// use throng_model::Micros;
    ///
    /// // An impression of 0.10 that half of the insertions lead to.
    /// assert_eq!(Micros(100_000).times_share(0.5), Micros(50_000));
    /// // A rate above one would make more of an insertion than its price.
    /// assert_eq!(Micros(100_000).times_share(1.5), Micros(100_000));
    /// ```
    pub fn times_share(self, share: f64) -> Self {
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        // A float holds integers up to 2^53 exactly; `as` saturates beyond i64.
        Self((self.0 as f64 * share).round() as i64)
    }
}

impl fmt::Display for Micros {
    /// Units with at least two and at most six digits after the point: `0.10`, `1.000001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let abs = self.0.unsigned_abs();
        let fraction = format!("{:06}", abs % 1_000_000);
        let cut = fraction.trim_end_matches('0').len().max(2);
        write!(f, "{sign}{}.{}", abs / 1_000_000, &fraction[..cut])
    }
}

impl FromStr for Micros {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let bad = || MoneyError::NotAnAmount(text.chars().take(40).collect());
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (units, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(bad()),
            Some(parts) => parts,
            None => (digits, ""),
        };
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if units.is_empty() || !all_digits(units) || !all_digits(fraction) || fraction.len() > 6 {
            return Err(bad());
        }
        let units: i64 = units.parse().map_err(|_| MoneyError::Overflow)?;
        let fraction: i64 = format!("{fraction:0<6}").parse().map_err(|_| bad())?;
        let micros = units
            .checked_mul(1_000_000)
            .and_then(|m| m.checked_add(fraction))
            .ok_or(MoneyError::Overflow)?;
        Ok(Self(if negative { -micros } else { micros }))
    }
}

/// An ISO 4217 currency code, such as `USD`.
///
/// ```
/// use throng_model::Currency;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dollars: Currency = "USD".parse()?;
/// assert_eq!(dollars.as_str(), "USD");
/// let error = "usd".parse::<Currency>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "`usd` is not a currency: write three capital letters such as USD"
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// No currency, which has this code in ISO 4217.
    pub const NONE: Self = Self(*b"XXX");

    /// The three letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }
}

impl FromStr for Currency {
    type Err = MoneyError;
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match text.as_bytes() {
            [a, b, c] if [a, b, c].iter().all(|x| x.is_ascii_uppercase()) => Ok(Self([*a, *b, *c])),
            _ => Err(MoneyError::NotACurrency(text.chars().take(40).collect())),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;
    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        assert_eq!("0.10".parse(), Ok(Micros(100_000)));
        assert_eq!("2".parse(), Ok(Micros(2_000_000)));
        assert_eq!("-1.000001".parse(), Ok(Micros(-1_000_001)));
        for bad in ["", ".5", "100.", ".", "1e3", "1,5", "0.1234567", "+1", "1.-5", "٣"] {
            assert!(bad.parse::<Micros>().is_err(), "{bad}");
        }
        let fine = ["0.0012345", "1.0000000"];
        assert!(fine.iter().all(|text| Micros::has_too_many_decimals(text)));
        let others = ["0.001234", ".0012345", "1e-7", "-0.0012345", "1"];
        assert!(!others.iter().any(|text| Micros::has_too_many_decimals(text)));
        assert_eq!("9999999999999999".parse::<Micros>(), Err(MoneyError::Overflow));
    }

    #[test]
    fn sums_do_not_wrap() {
        assert_eq!(Micros(i64::MAX).plus(Micros(1)), Err(MoneyError::Overflow));
        assert_eq!(Micros(i64::MIN).minus(Micros(1)), Err(MoneyError::Overflow));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(micros in -9_000_000_000_000_000i64..9_000_000_000_000_000) {
            prop_assert_eq!(Micros(micros).to_string().parse(), Ok(Micros(micros)));
        }
    }
}
