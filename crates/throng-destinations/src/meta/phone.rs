//! Phone numbers by the metadata of libphonenumber. Pure; takes some microseconds.

use phonenumber::metadata::DATABASE;
use phonenumber::{PhoneNumber, Type, country};
use unicode_normalization::UnicodeNormalization;

use super::text::{REFUSED, SEVERAL, without_decimal_zero};

/// The number is sent although it is in no known range of the numbering plan: plans change more often than
/// lengths.
pub(super) const NOT_IN_PLAN: &str = "not_in_a_known_number_range";
/// The length differs from that of every number of its country that can be dialled from abroad.
pub(super) const LENGTH: &str = "refused_length_impossible_in_its_country";
pub(super) const NO_COUNTRY: &str = "refused_no_calling_code";

/// E.164 allows 15 digits; with its country code no subscriber number is shorter than 7.
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// The digits with the calling code, without `+`. `home` is the user's country in capital letters: numbers
/// without a calling code belong to it. Without `home` a number is assumed to begin with its calling code.
pub(super) fn normalised(
    raw: &str,
    home: Option<&str>,
    notes: &mut Vec<&'static str>,
) -> Result<String, &'static str> {
    let text: String = raw.nfkc().collect();
    let text = without_decimal_zero(text.trim(), notes);
    if text.len() > 100 {
        return Err(REFUSED);
    }
    if is_several(text) {
        return Err(SEVERAL);
    }
    let text = text.strip_prefix("tel:").unwrap_or(text);
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if digits.trim_start_matches('0').len() < 4 || !is_number(text) {
        return Err(REFUSED);
    }
    let home = home.and_then(|home| home.parse::<country::Id>().ok());
    // "(+44) 7911 …": the parser expects the sign at the beginning.
    let signed = text.trim_start_matches(['(', ' ', '[']).starts_with('+');
    let mut candidates = Vec::new();
    let mut reliable = usize::MAX;
    if signed {
        candidates.extend(parse(None, &format!("+{}", after_plus(text))));
    } else {
        if home.is_some() {
            candidates.extend(parse(home, text));
        }
        if let Some(rest) = digits.strip_prefix("00") {
            candidates.extend(parse(None, &format!("+{rest}")));
        } else if home.is_none() && digits.starts_with('0') {
            return Err(NO_COUNTRY);
        }
        if home.is_some() {
            // The next candidate is a guess: digits of the user's country may begin like another calling code.
            reliable = candidates.len();
        }
        candidates.extend(parse(None, &format!("+{}", tail(text))));
    }
    // A valid number, otherwise a possible one: see `isValidNumber` and `isPossibleNumber` of libphonenumber.
    let known = candidates.iter().find(|number| number.is_valid());
    let found =
        known.or_else(|| candidates.iter().take(reliable).find(|number| is_possible(number)));
    let Some(number) = found else {
        return Err(if candidates.is_empty() { REFUSED } else { LENGTH });
    };
    if known.is_none() {
        notes.push(NOT_IN_PLAN);
    }
    Ok(digits_of(number))
}

/// Whether numbers of this length exist under the calling code, in the country that it mainly belongs to.
/// Lengths that can only be dialled within an area do not count: with the calling code they reach nobody.
fn is_possible(number: &PhoneNumber) -> bool {
    let countries = DATABASE.by_code(&number.code().value());
    let Some(main) = countries.and_then(|countries| countries.into_iter().next()) else {
        return false;
    };
    let national = number.national();
    // Zero has one digit as well.
    let digits = national.value().checked_ilog10().unwrap_or(0) + 1 + u32::from(national.zeros());
    // The general description has no lengths of its own: libphonenumber collects those of the types.
    TYPES
        .iter()
        .filter_map(|kind| main.descriptors().get(*kind))
        .any(|numbers| numbers.possible_length().iter().any(|length| u32::from(*length) == digits))
}

/// The types of numbers that may be dialled from abroad.
const TYPES: [Type; 10] = [
    Type::FixedLine,
    Type::Mobile,
    Type::TollFree,
    Type::PremiumRate,
    Type::SharedCost,
    Type::PersonalNumber,
    Type::Voip,
    Type::Pager,
    Type::Uan,
    Type::Voicemail,
];

/// Two numbers in one cell: it is not known which of them is the user's.
fn is_several(text: &str) -> bool {
    let long = |part: &&str| part.bytes().filter(u8::is_ascii_digit).count() >= 7;
    text.split([',', ';', '|', '/', '\n']).filter(long).count() > 1 || text.matches('+').count() > 1
}

/// Digits with common separators, and at most one extension at the end.
fn is_number(text: &str) -> bool {
    let lower = text.to_lowercase();
    let end =
        ["ext", "x", "#", ";", "anexo", "int"].iter().filter_map(|mark| lower.find(mark)).min();
    let main = &lower[..end.unwrap_or(lower.len())];
    main.chars().all(|c| {
        c.is_ascii_digit()
            || c.is_whitespace()
            || "+-.()[]/~\u{2010}\u{2011}\u{2012}\u{2013}\u{2014}\u{2212}".contains(c)
    })
}

/// The text after the sign, without a trunk prefix in brackets: `+44 (0)20` is dialled without it.
fn after_plus(text: &str) -> String {
    let rest = text.split_once('+').map_or(text, |(_, rest)| rest);
    tail(&rest.replace("(0)", ""))
}

/// The number without an extension.
fn tail(text: &str) -> String {
    let lower = text.to_lowercase();
    let end =
        ["ext", "x", "#", ";", "anexo", "int"].iter().filter_map(|mark| lower.find(mark)).min();
    lower[..end.unwrap_or(lower.len())].chars().filter(char::is_ascii_digit).collect()
}

fn parse(home: Option<country::Id>, text: &str) -> Option<PhoneNumber> {
    let number = phonenumber::parse(home, text).ok();
    number.filter(|number| DIGITS.contains(&digits_of(number).len()))
}

/// Calling code and national number, with its leading zeros.
fn digits_of(number: &PhoneNumber) -> String {
    let national = number.national();
    let zeros = "0".repeat(usize::from(national.zeros()));
    format!("{}{zeros}{}", number.code().value(), national.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phone(raw: &str, home: Option<&str>) -> Result<String, &'static str> {
        normalised(raw, home, &mut Vec::new())
    }

    #[test]
    fn numbers_are_those_of_libphonenumber() {
        for (raw, home, full) in [
            ("020 7183 8750", "GB", "442071838750"),
            ("(706) 767-5127", "US", "17067675127"),
            ("1-706-767-5127", "US", "17067675127"),
            ("442071838750", "GB", "442071838750"),
            ("0044 20 7183 8750", "US", "442071838750"),
            ("06 6982", "IT", "39066982"),
            ("030 123456", "DE", "4930123456"),
            ("+44 (0)20 7946 0018", "GB", "442079460018"),
            ("+31 (0)30 123 4123 x999", "NL", "31301234123"),
            ("+1 202 555 0143 ext. 89", "US", "12025550143"),
            ("011 44 20 7946 0018", "US", "442079460018"),
            ("8 (912) 345-67-89", "RU", "79123456789"),
            ("+49 (0) 209 22 33 44 55", "DE", "4920922334455"),
            ("011 91234-5678", "BR", "5511912345678"),
            ("06 30 123 4567", "HU", "36301234567"),
            ("07 01 02 03 04", "CI", "2250701020304"),
            ("+39 06 698 12345", "IT", "390669812345"),
            ("(+44) 7911 123456", "GB", "447911123456"),
            ("0412 345 678", "AU", "61412345678"),
            ("011 15-2345-6789", "AR", "5491123456789"),
            ("\u{ff0b}44 7911 123456", "GB", "447911123456"),
            ("2025550143.0", "US", "12025550143"),
            ("8 029 123-45-67", "BY", "375291234567"),
            ("8 612 34567", "LT", "37061234567"),
            ("+46 (0)73-682 92 91", "SE", "46736829291"),
            ("tel:+1-202-555-0143", "US", "12025550143"),
            ("0091 98765 43210", "IN", "919876543210"),
            ("098765 43210", "IN", "919876543210"),
        ] {
            assert_eq!(phone(raw, Some(home)).as_deref(), Ok(full), "{raw} {home}");
        }
        assert_eq!(phone("15551234567.0", None).as_deref(), Ok("15551234567"));
    }

    #[test]
    fn a_length_that_is_impossible_in_its_country_is_refused() {
        for (raw, home) in [
            // Too short, too long, and the local form of an area.
            ("+1 202 555", Some("US")),
            ("+1 202 555 01433", Some("US")),
            ("555-0143", Some("US")),
            ("+33 6 12 34 56 7", Some("FR")),
            ("06 12 34 56 789", Some("FR")),
            ("+44 20 7946 00", Some("GB")),
            ("+39 06 123", Some("IT")),
            ("+370 6 123 456", None),
            // Also not a number of the Netherlands, although 31 is their calling code and 7 digits are possible.
            ("312 555 014", Some("US")),
            // Between two lengths that exist.
            ("+41 79 123 45 678", Some("CH")),
        ] {
            assert_eq!(phone(raw, home), Err(LENGTH), "{raw}");
        }
    }

    #[test]
    fn a_possible_number_outside_of_known_ranges_is_sent_with_a_note() {
        for (raw, home, full) in [
            ("+1 555 987 6543", Some("US"), "15559876543"),
            ("(555) 987-6543", Some("US"), "15559876543"),
            ("+1 202 055 0143", None, "12020550143"),
            ("0044 1 234 567 890", Some("US"), "441234567890"),
        ] {
            let mut notes = Vec::new();
            assert_eq!(normalised(raw, home, &mut notes).as_deref(), Ok(full), "{raw}");
            let number = phonenumber::parse(None, format!("+{full}")).unwrap();
            assert_eq!(notes.contains(&NOT_IN_PLAN), !number.is_valid(), "{raw}");
        }
        let mut notes = Vec::new();
        normalised("(706) 767-5127", Some("US"), &mut notes).unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        normalised("+1 555 987 6543", None, &mut notes).unwrap();
        assert_eq!(notes, [NOT_IN_PLAN]);
    }

    #[test]
    fn texts_that_are_not_numbers_are_refused() {
        for (raw, home, why) in [
            ("12", Some("US"), REFUSED),
            ("call me", Some("US"), REFUSED),
            ("1234567890123456", None, REFUSED),
            ("+0000000000", Some("US"), REFUSED),
            ("0", Some("US"), REFUSED),
            ("202-555-0143, 202-555-0199", Some("US"), SEVERAL),
            ("+12025550143 +12025550199", Some("US"), SEVERAL),
            ("020 7183 8750", None, NO_COUNTRY),
            ("ann@example.com", Some("US"), REFUSED),
        ] {
            assert_eq!(phone(raw, home), Err(why), "{raw}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_causes_a_panic(raw in "\\PC{0,40}", digits in "[+0-9() x.#;-]{0,30}") {
            for text in [raw, digits] {
                for home in [None, Some("US"), Some("AR"), Some("ZZ")] {
                    if let Ok(full) = phone(&text, home) {
                        proptest::prop_assert!(full.bytes().all(|b| b.is_ascii_digit()));
                    }
                }
            }
        }
    }
}
