//! Identifiers in the form that is hashed, as for ad platforms: a hash that is stored here is the one that a
//! platform matches.

use sha2::{Digest, Sha256};
use throng_destinations::{normalised_email, normalised_phone, phone_has_calling_code};
use throng_model::{HashedIdentifier, from_hex, push_hex};

use crate::reason::Reason;

/// Appends an e-mail address in its normal form; `false` if it is none.
pub(crate) fn email(text: &str, out: &mut String) -> bool {
    if is_plain_email(text.as_bytes()) {
        out.extend(text.bytes().map(|byte| char::from(byte.to_ascii_lowercase())));
        return true;
    }
    normalised_email(text).map(|text| out.push_str(&text)).is_ok()
}

/// Appends a phone number in its normal form. `country`: numbers without a calling code belong to it. Without a country
/// they are refused: the first digits of many of them are the calling code of another country.
pub(crate) fn phone(text: &str, country: Option<&str>, out: &mut String) -> Result<(), Reason> {
    let lacks_code = country.is_none() && !phone_has_calling_code(text);
    match normalised_phone(text, country) {
        Ok(number) if !lacks_code => {
            out.push_str(&number);
            Ok(())
        }
        Err(_) if !lacks_code || !is_like_a_number(text) => Err(Reason::NotAPhone),
        Ok(_) | Err(_) => Err(Reason::NoCallingCode),
    }
}

fn is_like_a_number(text: &str) -> bool {
    let digits = text.chars().filter(|c| c.is_numeric()).count();
    digits >= 4 && !text.chars().any(char::is_alphabetic)
}

/// Replaces what was appended since `start` by its SHA-256.
pub(crate) fn hash_since(start: usize, out: &mut String) {
    let hash = Sha256::digest(&out.as_bytes()[start..]);
    out.truncate(start);
    push_hex(&hash, out);
}

/// Whether a text is a hash already: 64 hexadecimal digits. No identifier has this form.
pub(crate) fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a hash is that of a text for a missing value, such as an empty one or `NULL`. Tools that hash every cell give
/// it to all users without a value.
pub(crate) fn is_hash_of_missing(hash: &str) -> bool {
    from_hex(hash).map(HashedIdentifier).is_some_and(|hash| hash.is_of_missing_value())
}

/// Whether an address is of the common form, whose normal form is its lower case. Others take the slower way.
fn is_plain_email(text: &[u8]) -> bool {
    let Some(at) = memchr::memchr(b'@', text) else { return false };
    let (name, domain) = (&text[..at], &text[at + 1..]);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+-".contains(byte);
    let dots = |text: &[u8]| {
        text.first() == Some(&b'.')
            || text.last() == Some(&b'.')
            || memchr::memmem::find(text, b"..").is_some()
    };
    if text.len() > 254
        || !(1..=64).contains(&name.len())
        || !name.iter().all(is_name)
        || dots(name)
    {
        return false;
    }
    let mut labels = 0;
    let mut last: &[u8] = &[];
    for label in domain.split(|byte| *byte == b'.') {
        let is_label = (1..=63).contains(&label.len())
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && label[0] != b'-'
            && label[label.len() - 1] != b'-';
        if !is_label {
            return false;
        }
        labels += 1;
        last = label;
    }
    labels >= 2 && last.len() >= 2 && !last.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_the_hashes_of_the_platforms() {
        let mut out = "before".to_owned();
        assert!(email(" Mary@Example.com".trim(), &mut out));
        hash_since(6, &mut out);
        let hash = "f1904cf1a9d73a55fa5de0ac823c4403ded71afd4c3248d00bdcd0866552bb79";
        assert_eq!(out, format!("before{hash}"));
        assert!(is_hash(hash) && !is_hash("mary@example.com") && !is_hash_of_missing(hash));
        for text in ["", "NULL", "n/a"] {
            let mut missing = text.to_owned();
            hash_since(0, &mut missing);
            assert!(is_hash_of_missing(&missing) && is_hash_of_missing(&missing.to_uppercase()));
        }
        let mut out = String::new();
        assert_eq!(phone("(706) 767-5127", Some("US"), &mut out), Ok(()));
        assert_eq!(out, "17067675127");
        assert_eq!(phone("call me", Some("US"), &mut out), Err(Reason::NotAPhone));
        assert!(!email("n/a", &mut out));
        assert!(!email("mary%40example.com@example.com", &mut out));
        assert_eq!(out, "17067675127");
    }

    #[test]
    fn a_number_without_country_and_calling_code_is_not_read_as_one_of_another_country() {
        let of = |text: &str, country| {
            let mut out = String::new();
            phone(text, country, &mut out).map(|()| out)
        };
        for text in ["+1 706 767 5127", "001 706 767 5127", "(+1) 706-767-5127", "tel:+17067675127"]
        {
            assert_eq!(of(text, None), Ok("17067675127".to_owned()), "{text}");
        }
        // Those of the first three begin with digits that are codes: 65, 49, 31.
        let national =
            ["6505551234", "(491) 512-3456 78", "3120 555 1234", "0170 1234567", "706 767 5127"];
        for text in national {
            assert_eq!(of(text, None), Err(Reason::NoCallingCode), "{text}");
        }
        for text in ["call me", "n/a", "12", "+12", "mary4567@example.com"] {
            assert_eq!(of(text, None), Err(Reason::NotAPhone), "{text}");
        }
    }

    proptest::proptest! {
        /// The fast way gives what the platform's rules give.
        #[test]
        fn plain_addresses_are_normalised_alike(text in "[aB0._%+-]{0,6}@[aB0.-]{0,8}") {
            if is_plain_email(text.as_bytes()) {
                proptest::prop_assert_eq!(normalised_email(&text), Ok(text.to_ascii_lowercase()));
            }
        }
    }
}
