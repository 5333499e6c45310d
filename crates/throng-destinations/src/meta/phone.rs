//! Phone numbers by the metadata of libphonenumber. Pure; takes some microseconds.

use phonenumber::metadata::DATABASE;
use phonenumber::{Metadata, Type, country};
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
/// More than a calling code and the longest area code have, such as `49` and `33201`.
const MIN_WHOLE_DIGITS: usize = 8;

/// The digits with the calling code, without `+`. `home` is the user's country in capital letters: numbers
/// without a calling code belong to it, and are refused if there is no such country. Without `home` a number is assumed
/// to begin with its calling code.
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
    // Often written for the United Kingdom, and no code of ISO 3166.
    let home = home.map(|home| if home == "UK" { "GB" } else { home });
    let country = home.map(|home| home.parse::<country::Id>().ok());
    if has_other_ending(text, country) {
        return Err(SEVERAL);
    }
    let (candidates, reliable) = readings(text, country)?;
    // A valid number, otherwise a possible one: see `isValidNumber` and `isPossibleNumber` of libphonenumber.
    let known = candidates.iter().find(|number| number.valid);
    let found =
        known.or_else(|| candidates.iter().take(reliable).find(|number| is_possible(number)));
    let Some(number) = found else {
        return Err(if candidates.is_empty() { REFUSED } else { LENGTH });
    };
    if known.is_none() {
        notes.push(NOT_IN_PLAN);
    }
    Ok(number.digits())
}

/// The readings of a text, and how many of them are not guesses. `country`: `Some(None)` is one that does not exist.
fn readings(
    text: &str,
    country: Option<Option<country::Id>>,
) -> Result<(Vec<Number>, usize), &'static str> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    Ok(match (is_signed(text), country) {
        (true, _) => (after_plus(text), usize::MAX),
        (false, Some(Some(country))) => of_home(country, text, &digits),
        (false, unknown) => match digits.strip_prefix("00") {
            Some(rest) => (international(rest), usize::MAX),
            // The number belongs to a country whose calling code is not known: its digits begin with none.
            None if unknown.is_some() || digits.starts_with('0') => return Err(NO_COUNTRY),
            None => (international(&tail(text)), usize::MAX),
        },
    })
}

/// Whether a number has more digits than the calling code and an area, of which some are numbers too.
fn is_whole(number: &Number) -> bool {
    number.valid && number.digits().len() >= MIN_WHOLE_DIGITS
}

/// Whether a text is a whole number with digits behind a separator, as in `+49 170 1234567 / 8`: another last digit, an
/// extension or another number. All digits together are a number of somebody else, if they are one. A separator behind
/// the digits of an area, as in `0170/1234567`, has no whole number before it.
fn has_other_ending(text: &str, country: Option<Option<country::Id>>) -> bool {
    text.match_indices(['/', ';', '~', '\n']).any(|(at, separator)| {
        let (before, behind) = (&text[..at], &text[at + separator.len()..]);
        let behind = behind.trim_start_matches(|c: char| c.is_whitespace() || c == '-');
        let ending = behind.bytes().take_while(u8::is_ascii_digit).count();
        // Behind an area there are more digits, and no zero of another area.
        ((1..=3).contains(&ending) || behind.starts_with('0'))
            && before.bytes().filter(u8::is_ascii_digit).count() >= 7
            && readings(before, country).is_ok_and(|(readings, _)| readings.iter().any(is_whole))
    })
}

/// Whether a number says that it begins with a calling code: by `+`, or by `00`.
pub(super) fn has_calling_code(raw: &str) -> bool {
    let text: String = raw.nfkc().collect();
    let text = text.trim();
    let text = text.strip_prefix("tel:").unwrap_or(text);
    is_signed(text) || text.chars().filter(char::is_ascii_digit).take(2).eq(['0', '0'])
}

/// Whether there is a sign before all digits. "(+44) 7911 …": the parser expects it at the beginning.
fn is_signed(text: &str) -> bool {
    text.trim_start_matches(['(', ' ', '[']).starts_with('+')
}

/// A number with its calling code.
struct Number {
    code: u16,
    /// With its leading zeros.
    national: String,
    /// It is in a range of the numbering plan.
    valid: bool,
}

impl Number {
    fn digits(&self) -> String {
        format!("{}{}", self.code, self.national)
    }
}

/// The readings of digits that begin with a calling code. The second one only if the parser has changed the digits
/// and the result is not valid: each reading costs expressions of a numbering plan, and there are too many plans
/// to keep those of all compiled.
fn international(digits: &str) -> Vec<Number> {
    let mut readings: Vec<Number> = parse(None, &format!("+{digits}")).into_iter().collect();
    if readings.iter().all(|number| !number.valid && number.digits() != digits) {
        readings.extend(unstripped(digits));
    }
    readings
}

/// The readings of a text without a sign in a country, and how many of them are not guesses.
fn of_home(home: country::Id, text: &str, digits: &str) -> (Vec<Number>, usize) {
    let whole = tail(text);
    // The parser strips the trunk prefix of this country from numbers of others.
    let abroad = after_international_prefix(home, &whole).map(international).unwrap_or_default();
    let is_known = |candidates: &[Number]| candidates.iter().any(|number| number.valid);
    let mut candidates = abroad;
    if candidates.is_empty() {
        candidates.extend(parse(Some(home), text));
        // If the parser has stripped nothing, the same digits are read again.
        if candidates.iter().all(|number| !number.valid && number.national != whole) {
            candidates.extend(unstripped_of(home, &whole));
        }
    }
    if let Some(rest) = digits.strip_prefix("00").filter(|_| !is_known(&candidates)) {
        candidates.extend(international(rest));
    }
    // The next ones are guesses: digits of the user's country may begin like another calling code.
    let reliable = candidates.len();
    if !is_known(&candidates) {
        candidates.extend(international(&whole));
    }
    (candidates, reliable)
}

/// The digits after the prefix with which numbers of other countries are dialled in a country.
fn after_international_prefix(home: country::Id, digits: &str) -> Option<&str> {
    let id: &str = home.as_ref();
    let prefix = DATABASE.by_id(id)?.international_prefix()?;
    let end = prefix.find(digits).filter(|found| found.start() == 0)?.end();
    digits.get(end..).filter(|rest| !rest.starts_with('0'))
}

/// The number of these digits as they are, if it is valid. The parser strips a trunk prefix also where only the number
/// with these digits is valid: the 8 of `+7 800 555-35-35`.
fn unstripped(digits: &str) -> Option<Number> {
    if digits.starts_with('0') || !DIGITS.contains(&digits.len()) {
        return None;
    }
    (1..=3).find_map(|length| {
        let (code, national) = digits.split_at_checked(length)?;
        let code: u16 = code.parse().ok()?;
        // The country that the code mainly belongs to.
        let plan = DATABASE.by_code(&code)?.into_iter().next()?;
        let valid = is_in_plan(plan, national);
        valid.then(|| Number { code, national: national.to_owned(), valid })
    })
}

/// The same for digits that are dialled in a country: without its trunk prefix, or as they are.
fn unstripped_of(home: country::Id, dialled: &str) -> Option<Number> {
    let id: &str = home.as_ref();
    let plan = DATABASE.by_id(id)?;
    let without_trunk = plan.national_prefix().and_then(|prefix| dialled.strip_prefix(prefix));
    let national = without_trunk.into_iter().chain([dialled]).find(|n| is_in_plan(plan, n))?;
    let number = Number { code: plan.country_code(), national: national.to_owned(), valid: true };
    DIGITS.contains(&number.digits().len()).then_some(number)
}

/// Whether a national number is in a range of a numbering plan.
fn is_in_plan(plan: &Metadata, national: &str) -> bool {
    let mut ranges = TYPES.iter().filter_map(|kind| plan.descriptors().get(*kind));
    plan.descriptors().general().is_match(national) && ranges.any(|range| range.is_match(national))
}

/// Whether numbers of this length exist under the calling code, in the country that it mainly belongs to.
/// Lengths that can only be dialled within an area do not count: with the calling code they reach nobody.
fn is_possible(number: &Number) -> bool {
    let countries = DATABASE.by_code(&number.code);
    let Some(main) = countries.and_then(|countries| countries.into_iter().next()) else {
        return false;
    };
    // The general description has no lengths of its own: libphonenumber collects those of the types.
    TYPES.iter().filter_map(|kind| main.descriptors().get(*kind)).any(|numbers| {
        let lengths = numbers.possible_length().iter();
        lengths.copied().any(|length| usize::from(length) == number.national.len())
    })
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

/// The readings of what follows the sign. A zero in brackets is a trunk prefix, as in `+44 (0)20`, or a part of the
/// number, as in `+39 (0)6` of Italy. If no reading is valid, it is not known which one is meant, unless only one of
/// them has a possible length. If both are valid, the zero is kept, as libphonenumber does, except before a mobile
/// number of full length: of Italy, 9 digits are rarely one.
fn after_plus(text: &str) -> Vec<Number> {
    let rest = text.split_once('+').map_or(text, |(_, rest)| rest);
    let compact: String = rest.chars().filter(|c| !c.is_whitespace()).collect();
    let (kept, dropped) = (tail(&compact), tail(&compact.replace("(0)", "")));
    let mut without = international(&dropped);
    if kept == dropped {
        return without;
    }
    let with = international(&kept);
    let has_valid = |readings: &[Number]| readings.iter().any(|number| number.valid);
    match (has_valid(&without), has_valid(&with)) {
        (true, true) if without.iter().any(is_full_mobile) => without,
        (true, false) => without,
        (_, true) => with,
        (false, false) => {
            without.extend(with);
            let mut possible = without.iter().filter(|n| is_possible(n)).map(Number::digits);
            let first = possible.next();
            let is_ambiguous = possible.any(|other| Some(other) != first);
            if is_ambiguous { Vec::new() } else { without }
        }
    }
}

/// Whether a number is a mobile one of the country that its calling code mainly belongs to, and none is longer.
fn is_full_mobile(number: &Number) -> bool {
    let countries = DATABASE.by_code(&number.code);
    let main = countries.and_then(|countries| countries.into_iter().next());
    let mobile = main.and_then(|main| main.descriptors().get(Type::Mobile));
    mobile.is_some_and(|mobile| {
        let longest = mobile.possible_length().iter().max();
        let is_full = longest.is_some_and(|most| usize::from(*most) == number.national.len());
        is_full && mobile.is_match(&number.national)
    })
}

/// Whether a text is a number with a sign and 8 to 15 digits.
pub(super) fn is_signed_number(text: &str) -> bool {
    let text: String = text.nfkc().collect();
    let text = text.trim();
    let text = text.strip_prefix("tel:").unwrap_or(text);
    let digits = text.chars().filter(char::is_ascii_digit).count();
    is_signed(text) && (8..=15).contains(&digits) && is_number(text)
}

/// The number without an extension.
fn tail(text: &str) -> String {
    let lower = text.to_lowercase();
    let end =
        ["ext", "x", "#", ";", "anexo", "int"].iter().filter_map(|mark| lower.find(mark)).min();
    lower[..end.unwrap_or(lower.len())].chars().filter(char::is_ascii_digit).collect()
}

fn parse(home: Option<country::Id>, text: &str) -> Option<Number> {
    let parsed = phonenumber::parse(home, text).ok()?;
    let number = Number {
        code: parsed.code().value(),
        national: parsed.national().to_string(),
        valid: parsed.is_valid(),
    };
    DIGITS.contains(&number.digits().len()).then_some(number)
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
            // A slash behind the digits of an area.
            ("0170/1234567", "DE", "491701234567"),
            ("+49 170 / 1234567", "DE", "491701234567"),
            ("+49 33201/12345", "DE", "493320112345"),
            ("+49 170 1234567 /", "DE", "491701234567"),
            ("tel:+49-170-1234567;ext=5", "DE", "491701234567"),
            ("0091 98765 43210", "IN", "919876543210"),
            ("098765 43210", "IN", "919876543210"),
            // The zero of Gabon is a part of the number, that of Germany is not.
            ("0024106031234", "DE", "24106031234"),
            ("+241 06 03 12 34", "DE", "24106031234"),
            // Freephone numbers begin like the trunk prefix.
            ("+7 800 555-35-35", "RU", "78005553535"),
            ("8 800 555-35-35", "RU", "78005553535"),
            ("800 555 35 35", "RU", "78005553535"),
            ("810 49 30 123456", "RU", "4930123456"),
        ] {
            assert_eq!(phone(raw, Some(home)).as_deref(), Ok(full), "{raw} {home}");
        }
        assert_eq!(phone("15551234567.0", None).as_deref(), Ok("15551234567"));
    }

    #[test]
    fn a_zero_in_brackets_is_dropped_unless_it_belongs_to_the_number() {
        for (raw, full) in [
            ("+39 (0)6 698 12345", "390669812345"),
            ("+39 (0) 2 1234 5678", "390212345678"),
            ("+39 ( 0 ) 2 1234 5678", "390212345678"),
            ("+39 (0)340 1234567", "393401234567"),
            ("+39 (0)347 1234567", "393471234567"),
            // Both readings are valid: a mobile number, and a number of Lecco with its area code 0341.
            ("+39 (0)341 1234567", "393411234567"),
            ("+39 (0)341 123456", "390341123456"),
            ("+241 (0)6 03 12 34", "24106031234"),
            ("+225 (0)7 01 02 03 04", "2250701020304"),
            ("+242 (0)6 612 3456", "242066123456"),
            ("+44 (0) 20 7946 0018", "442079460018"),
            ("+7 (0) 912 345 67 89", "79123456789"),
            // In no known range, but only one reading has a possible length.
            ("+1 (0) 555 987 6543", "15559876543"),
        ] {
            assert_eq!(phone(raw, None).as_deref(), Ok(full), "{raw}");
        }
        // Neither is valid, and both lengths are possible.
        assert_eq!(phone("+39 (0)170 66907", None), Err(REFUSED));
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
            ("+49 170 1234567 / 8", None, SEVERAL),
            ("+49 170 1234567/8", Some("DE"), SEVERAL),
            ("0170 1234567 / -68", Some("DE"), SEVERAL),
            ("0049 170 1234567/89/90", Some("US"), SEVERAL),
            ("+49 170 1234567\n8", Some("DE"), SEVERAL),
            ("+49 170 1234567; 8", Some("DE"), SEVERAL),
            ("+49 170 1234567 or 8", Some("DE"), REFUSED),
            ("+49 170 1234567 oder 0171 1234567", Some("DE"), REFUSED),
            ("020 7183 8750", None, NO_COUNTRY),
            ("ann@example.com", Some("US"), REFUSED),
        ] {
            assert_eq!(phone(raw, home), Err(why), "{raw}");
        }
    }

    #[test]
    fn a_number_of_a_country_that_does_not_exist_is_not_taken_for_one_of_another() {
        for (raw, full) in [
            ("020 7183 8750", "442071838750"),
            ("7911 123456", "447911123456"),
            ("+49 30 123456", "4930123456"),
        ] {
            assert_eq!(phone(raw, Some("UK")).as_deref(), Ok(full), "{raw}");
        }
        // Egypt has the calling code 20, and Poland 48.
        for raw in ["(202) 555-0143", "48 22 123 45 67", "020 7183 8750"] {
            assert_eq!(phone(raw, Some("EN")), Err(NO_COUNTRY), "{raw}");
        }
        for raw in ["+48 22 123 45 67", "0048 22 123 45 67"] {
            assert_eq!(phone(raw, Some("EN")).as_deref(), Ok("48221234567"), "{raw}");
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
