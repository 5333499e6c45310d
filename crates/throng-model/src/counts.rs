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

#[cfg(test)]
mod tests {
    use super::*;

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
