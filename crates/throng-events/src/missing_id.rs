//! Ids that senders write where they have none. Pure.

use throng_model::{is_missing_value, trim_invisible};

/// Words for no value, in any case, alone or in brackets or quotes. Besides those of
/// [`is_missing_value`], which as keys may be names: an id is not one.
const WORDS: [&str; 10] = [
    "null",
    "nil",
    "none",
    "nan",
    "n/a",
    "undefined",
    "unknown",
    "not set",
    // What Lua and JavaScript write for a value without a text.
    "userdata: null",
    "object object",
];

/// Begins and ends of placeholders of tags, templates and shells, also percent-encoded.
const PLACEHOLDERS: [(&str, &str); 10] = [
    ("${", "}"),
    ("$(", ")"),
    ("#{", "}"),
    ("%{", "}"),
    ("%%", "%%"),
    ("{{", "}}"),
    ("<%", "%>"),
    ("%24%7b", "%7d"),
    ("%7b%7b", "%7d%7d"),
    ("%25%25", "%25%25"),
];

/// Whether an id is one that senders write where they have none: many events have it. Such are texts that stand for a
/// missing value, placeholders that were not replaced, ids of zeros or of ones only, and white space. Without
/// allocations; nearly all ids are decided by their first and last byte.
#[inline]
pub(crate) fn is_missing_id(id: &[u8]) -> bool {
    if id.is_empty() {
        return true;
    }
    if let [first, .., last] = id
        && first.is_ascii_alphanumeric()
        && last.is_ascii_graphic()
        && !matches!(first, b'0' | b'A' | b'F' | b'N' | b'O' | b'U' | b'f' | b'n' | b'o' | b'u')
    {
        return false;
    }
    is_missing_text(trimmed(id))
}

/// Without white space and invisible characters around it.
fn trimmed(id: &[u8]) -> &[u8] {
    match id {
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => id,
        _ => std::str::from_utf8(id).map_or(id, |text| trim_invisible(text).as_bytes()),
    }
}

fn is_missing_text(id: &[u8]) -> bool {
    let Some(first) = id.first() else { return true };
    match first {
        b'0' | b'A' | b'F' | b'f' | 0xff => is_one_digit(id),
        b'N' | b'O' | b'U' | b'n' | b'o' | b'u' => {
            is_word(id) || is_missing_value(id) || is_missing_urn(id)
        }
        first if first.is_ascii_alphanumeric() => false,
        _ => is_missing_value(id) || is_missing_inside(id) || is_placeholder(id),
    }
}

fn is_word(text: &[u8]) -> bool {
    WORDS.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether an id of a usual length has zero bits only, or ones only: UUIDs, ULIDs, and ids of traces in hexadecimal
/// digits, base64 or bytes.
fn is_one_digit(id: &[u8]) -> bool {
    let Some(first) = id.first() else { return false };
    let digits = match (first, id.len()) {
        (b'0' | b'F' | b'f', 16 | 26 | 32 | 36) | (b'A', 22) | (0xff, 16) => id,
        (b'A', 24) => id.strip_suffix(b"==").unwrap_or(id),
        _ => return false,
    };
    digits.iter().all(|byte| byte == first || *byte == b'-')
}

fn is_missing_urn(id: &[u8]) -> bool {
    let scheme = b"urn:uuid:";
    let parts = id.split_at_checked(scheme.len());
    parts.is_some_and(|(start, id)| start.eq_ignore_ascii_case(scheme) && is_one_digit(id))
}

/// In brackets or quotes.
fn is_missing_inside(id: &[u8]) -> bool {
    match id {
        [b'<', inside @ .., b'>']
        | [b'(', inside @ .., b')']
        | [b'[', inside @ .., b']']
        | [b'{', inside @ .., b'}']
        | [b'"', inside @ .., b'"']
        | [b'\'', inside @ .., b'\''] => {
            inside.is_empty() || is_word(inside) || is_one_digit(inside)
        }
        _ => false,
    }
}

/// Whether a text is a placeholder as a whole: `${ID}`, `%%ID%%`, `{{id}}`, `[ID]`, `__ID__`, `{id}`, `$id`.
fn is_placeholder(text: &[u8]) -> bool {
    let is_between = |(start, end): &(&str, &str)| {
        let begin = text.get(..start.len());
        let rest = text.get(start.len()..).unwrap_or_default();
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(start.as_bytes()))
            && rest.len() >= end.len()
            && rest[rest.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
    };
    match text {
        [b'[', name @ .., b']'] | [b'_', b'_', name @ .., b'_', b'_'] if is_constant(name) => true,
        [b'{', name @ .., b'}'] | [b'$', name @ ..] if is_variable(name) => true,
        _ => PLACEHOLDERS.iter().any(is_between),
    }
}

/// A name in upper case, such as `CACHE_BUSTER` or `IDFA_MD5`.
fn is_constant(name: &[u8]) -> bool {
    let is_in_constants =
        |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    name.iter().any(u8::is_ascii_uppercase) && name.iter().all(is_in_constants)
}

/// A name without digits, such as `request_id`: an id in braces has digits.
fn is_variable(name: &[u8]) -> bool {
    let is_in_variables = |byte: &u8| byte.is_ascii_alphabetic() || b"_.".contains(byte);
    name.iter().any(u8::is_ascii_alphabetic) && name.iter().all(is_in_variables)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use throng_model::MISSING_VALUES;

    use super::*;

    #[test]
    fn what_senders_write_where_they_have_no_id_is_missing() {
        for word in ["nil", "null", "None", "NULL", "Undefined", "NaN", "N/A", "userdata: NULL"] {
            for (before, after) in
                [("", ""), (" ", "\n"), ("\u{feff}", "\0"), ("<", ">"), ("\"", "\"")]
            {
                let id = format!("{before}{word}{after}");
                assert!(is_missing_id(id.as_bytes()), "{id:?}");
            }
        }
        for id in
            ["", " ", "\t \t", "\u{200b}\u{200b}", "\u{a0}", "-", "\\N", "#N/A", "[object Object]"]
        {
            assert!(is_missing_id(id.as_bytes()), "{id:?}");
        }
        assert!(is_missing_id(b"object Object") && is_missing_id(b"OBJECT OBJECT"));
        for id in [
            "${AUCTION_ID}",
            "$(id)",
            "%%CACHEBUSTER%%",
            "[CACHEBUSTER]",
            "[IDFA_MD5]",
            "{{request_id}}",
            "{request_id}",
            "$request_id",
            "__REQUEST_ID__",
            "%24%7BAUCTION_ID%7D",
            "%7B%7Bid%7D%7D",
            " ${ID} ",
            "{}",
        ] {
            assert!(is_missing_id(id.as_bytes()), "{id:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_no_id() {
        for id in MISSING_VALUES {
            assert!(is_missing_id(id), "{}", id.escape_ascii());
            assert!(is_missing_id(&[&b" "[..], *id, &b"\n"[..]].concat()), "{}", id.escape_ascii());
        }
    }

    #[test]
    fn ids_of_zeros_or_ones_are_missing() {
        for digit in ["0", "f", "F"] {
            let [four, eight] = [4, 8].map(|times| digit.repeat(times));
            let uuid = format!("{eight}-{four}-{four}-{four}-{eight}{four}");
            for id in [digit.repeat(16), digit.repeat(26), digit.repeat(32), uuid] {
                assert!(is_missing_id(id.as_bytes()), "{id}");
                assert!(is_missing_id(format!("{{{id}}}").as_bytes()), "{{{id}}}");
                assert!(is_missing_id(format!("urn:uuid:{id}").as_bytes()), "urn:uuid:{id}");
                let other = format!("{}1", &id[1..]);
                assert!(!is_missing_id(other.as_bytes()), "{other}");
            }
        }
        assert!(is_missing_id(&[0; 16]) && is_missing_id(&[0xff; 16]));
        assert!(is_missing_id(b"AAAAAAAAAAAAAAAAAAAAAA=="));
    }

    #[test]
    fn ids_of_few_characters_and_ids_like_names_are_ids() {
        for id in [
            "0",
            "1",
            "f",
            "00",
            "0000",
            "n1",
            "u-1",
            "null-1",
            "nilsson",
            "object-1",
            "O1",
            "NaT1",
            "unknown7",
            "_",
            "__a__",
            "[1]",
            "{4f2e}",
            "$5",
            "$2b$10",
            "a b",
            "urn:uuid:4f2e",
            "{3f2504e0-4f89-11d3-9a0c-0305e82c3301}",
            "\u{e9}",
            "imp-${ID}",
            "f0f0f0f0f0f0f0f0",
            "%",
            "$",
            "%%%",
            "[",
        ] {
            assert!(!is_missing_id(id.as_bytes()), "{id:?}");
        }
    }

    proptest! {
        /// The first bytes decide as all of them do, and no bytes are a reason to panic.
        #[test]
        fn the_short_way_decides_as_the_long_one(id in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(is_missing_id(&id), is_missing_text(trimmed(&id)));
        }
    }
}
