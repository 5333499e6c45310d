//! Identifiers → cells, by the platform's official table. Pure. Where the platform's own libraries
//! contradict the table (they hash advertising ids and empty cells), the table wins.

use throng_activation::{Cell, PreparedRow, Schema, Skip};
use throng_model::{HashedIdentifier, Personal};

use super::countries::{calling_code, is_country};

const NOTHING_USABLE: Skip = Skip("no_usable_identifier");
const NO_EXTERN_ID: Skip = Skip("no_extern_id");
/// All of them.
pub(super) const SKIP_REASONS: &[&str] = &[NOTHING_USABLE.0, NO_EXTERN_ID.0];

/// Normalises and hashes a row.
pub(super) fn prepare(schema: &Schema, cells: &[Option<Personal>]) -> Result<PreparedRow, Skip> {
    let raw = |at: usize| cells.get(at).and_then(Option::as_ref).map_or("", Personal::expose);
    let own_country = schema
        .keys
        .iter()
        .position(|key| key == "COUNTRY")
        .and_then(|at| country(raw(at)))
        .map(|c| c.to_ascii_uppercase());
    let home = own_country.as_deref().or(schema.default_country.as_deref());
    let mut row: Vec<Cell> = Vec::with_capacity(schema.keys.len());
    let mut usable = false;
    for (at, key) in schema.keys.iter().enumerate() {
        let cell = cell(key, raw(at), home);
        // Where somebody lives says nothing about who it is.
        usable |= cell != Cell::Empty && key != "COUNTRY";
        row.push(cell);
    }
    if !usable {
        return Err(NOTHING_USABLE);
    }
    for (key, cell) in schema.keys.iter().zip(&mut row) {
        match (key.as_str(), &*cell) {
            // The platform refuses a row with an empty EXTERN_ID, whatever else is in it.
            ("EXTERN_ID", Cell::Empty) => return Err(NO_EXTERN_ID),
            ("COUNTRY", Cell::Empty) => {
                if let Some(home) = schema.default_country.as_deref().and_then(country) {
                    *cell = Cell::Hashed(HashedIdentifier::of_normalised(&home));
                }
            }
            _ => {}
        }
    }
    Ok(row.into())
}

/// One cell. `home` is the user's country in capital letters, if known.
fn cell(key: &str, raw: &str, home: Option<&str>) -> Cell {
    let raw = raw.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    if raw.is_empty() {
        return Cell::Empty;
    }
    if key == "EXTERN_ID" {
        return Cell::Plain(raw.into());
    }
    if key == "MADID" {
        return advertising_id(raw).map_or(Cell::Empty, |id| Cell::Plain(id.into()));
    }
    if let Some(hash) = already_hashed(raw) {
        return Cell::Hashed(hash);
    }
    match normalised(key, raw, home) {
        Some(text) if !text.is_empty() => Cell::Hashed(HashedIdentifier::of_normalised(&text)),
        _ => Cell::Empty,
    }
}

/// 64 hexadecimal digits are a hash that the lake holds already. No identifier looks like that.
fn already_hashed(raw: &str) -> Option<HashedIdentifier> {
    let bytes = raw.as_bytes();
    if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut hash = [0u8; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(raw.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(HashedIdentifier(hash))
}

fn normalised(key: &str, raw: &str, home: Option<&str>) -> Option<String> {
    match key {
        "EMAIL" => email(raw),
        "PHONE" => phone(raw, home),
        "GEN" => gender(raw),
        "DOBY" => number(raw, 1900, 2100).map(|n| n.to_string()),
        "DOBM" => number(raw, 1, 12).map(|n| format!("{n:02}")),
        "DOBD" => number(raw, 1, 31).map(|n| format!("{n:02}")),
        "FN" | "LN" => Some(letters(raw)),
        "FI" => letters(raw).chars().next().map(String::from),
        "CT" => Some(letters(raw)),
        "ST" => Some(letters(raw)),
        "ZIP" => Some(zip(raw, home)),
        "COUNTRY" => country(raw),
        _ => None,
    }
}

fn email(raw: &str) -> Option<String> {
    let text = raw.to_lowercase();
    let (name, domain) = text.split_once('@')?;
    let odd = |c: char| c.is_whitespace() || c == '@';
    let fine = !name.is_empty()
        && domain.contains('.')
        && !text.contains("..")
        && !domain.contains(odd)
        && !name.contains(odd);
    fine.then(|| text.clone())
}

/// Digits with the calling code, without leading zeros. A number that begins with `+` or `00` has
/// its code; so has one that begins with its country's code and is long enough to. Any other gets
/// the code of the user's country.
fn phone(raw: &str, home: Option<&str>) -> Option<String> {
    let digits: String = raw.chars().filter(char::is_ascii_digit).collect();
    let bare = digits.trim_start_matches('0');
    let international = raw.starts_with('+') || digits.starts_with("00");
    let code = home.and_then(calling_code).unwrap_or_default();
    let has_code = international
        || code.is_empty()
        || (!digits.starts_with('0') && bare.starts_with(code) && bare.len() > 10);
    let full = if has_code {
        bare.to_owned()
    } else if code == "39" {
        // In Italy the leading zero is part of the number.
        format!("{code}{digits}")
    } else {
        format!("{code}{bare}")
    };
    // E.164 allows 15 digits; nothing shorter than 7 with its country code is a subscriber.
    (7..=15).contains(&full.len()).then_some(full)
}

fn gender(raw: &str) -> Option<String> {
    match raw.to_lowercase().as_str() {
        "m" | "male" | "man" => Some("m".to_owned()),
        "f" | "female" | "woman" => Some("f".to_owned()),
        _ => None,
    }
}

fn number(raw: &str, least: u32, most: u32) -> Option<u32> {
    raw.parse().ok().filter(|n| (least..=most).contains(n))
}

/// Lower case without spaces, digits and punctuation; letters of every script stay.
fn letters(raw: &str) -> String {
    // Marks and joiners of scripts such as Devanagari are no letters to `char`, but no ASCII
    // punctuation either: they stay.
    raw.chars()
        .filter(|c| {
            c.is_alphabetic()
                || !(c.is_ascii() || c.is_whitespace() || c.is_numeric() || is_punctuation(*c))
        })
        .flat_map(char::to_lowercase)
        .collect()
}

fn is_punctuation(c: char) -> bool {
    matches!(c, '\u{a1}'..='\u{bf}' | '\u{2010}'..='\u{205e}' | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}')
}

fn zip(raw: &str, home: Option<&str>) -> String {
    let text: String =
        raw.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect();
    // ZIP+4 is told by its hyphen, so that a US code is found without knowing the country.
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('-') {
        Some((five, four))
            if five.len() == 5 && digits(five) && four.len() == 4 && digits(four) =>
        {
            five.to_owned()
        }
        _ if home == Some("US") => {
            text.split('-').next().unwrap_or_default().chars().take(5).collect()
        }
        _ => text,
    }
}

fn country(raw: &str) -> Option<String> {
    let text = raw.trim().to_uppercase();
    let text = if text == "UK" { "GB".to_owned() } else { text };
    is_country(&text).then(|| text.to_lowercase())
}

fn advertising_id(raw: &str) -> Option<String> {
    let text = raw.to_lowercase();
    let fine = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    // Devices without consent all have the id of zeros.
    let zeros = text.bytes().all(|b| b == b'0' || b == b'-');
    (fine && !zeros).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(key: &str, raw: &str, home: Option<&str>) -> String {
        match cell(key, raw, home) {
            Cell::Hashed(hash) => hash.to_hex(),
            Cell::Plain(text) => format!("plain {text}"),
            Cell::Empty => String::new(),
        }
    }

    #[test]
    fn published_hash_vectors_come_out() {
        for (key, raw, hash) in [
            (
                "EMAIL",
                "mary@example.com",
                "f1904cf1a9d73a55fa5de0ac823c4403ded71afd4c3248d00bdcd0866552bb79",
            ),
            (
                "PHONE",
                "1 (555) 987-6543",
                "1ef970831d7963307784fa8688e8fce101a15685d62aa765fed23f3a2c576a4e",
            ),
            ("FN", "  TEST ", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
            ("FN", "..test..", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
            (
                "EMAIL",
                "User1@Example.com",
                "b36a83701f1c3191e19722d6f90274bc1b5501fe69ebf33313e440fe4b0fe210",
            ),
            (
                "PHONE",
                "+1-555-123-4567",
                "d6736136ea896c1bfdc553e0e86e702c70d060d805696ca3e4e9e0961353860a",
            ),
            ("DOBY", "1990", "a7be8e1fe282a37cd666e0632b17d933fa13f21addf4798fc0455bc166e2488c"),
            ("DOBM", "1", "938db8c9f82c8cb58d3f3ef4fd250036a48d26a712753d2fde5abd03a85cabf4"),
            ("DOBD", "15", "e629fa6598d732768f7c726b4b621285f9c3b85303900aa912017db7617d8bdb"),
            ("LN", "Doe", "799ef92a11af918e3fb741df42934f3b568ed2d93ac1df74f1b8d41a27932a6f"),
            ("FN", "John", "96d9632f363564cc3032521409cf22a852f2032eec099ed5967c0d000cec607a"),
            ("FI", "John", "189f40034be7a199f1fa9891668ee3ab6049f82d38c68be70f596eab2e1857b7"),
            ("GEN", "Male", "62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a"),
            (
                "CT",
                "San Francisco",
                "1a6bd4d9d79dc0a79b53795c70d3349fa9e38968a3fbefbfe8783efb1d2b6aac",
            ),
            ("ST", "CA", "6959097001d10501ac7d54c0bdb8db61420f658f2922cc26e46d536119a31126"),
            (
                "ZIP",
                "92000-1234",
                "ad16c1a6866c5887c5b59c1803cb1fc09769f1b403b6f1d9d0f10ad6ab4d5d50",
            ),
            ("COUNTRY", "US", "79adb2a2fce5c6ba215fe5f27f532d4e7edbac4b6a5e09e1ef3a08084a904621"),
            ("LN", " Jones", "9706987d633e05a0d2931c21108b37e8c790570048ac47c48900314bb325d606"),
            (
                "EMAIL",
                "  ALEXZ@example.com   ",
                "509e933019bb285a134a9334b8bb679dff79d0ce023d529af4bd744d47b4fd8a",
            ),
            (
                "EMAIL",
                "Person@email.com ",
                "b375b7bbddb3de3298fbc7641063d9f03a38e118aa4480c8ab9f58740982e8bd",
            ),
            (
                "PHONE",
                "+1(706)-767-5127",
                "2fd199db6d3fa9fe754886ff1822f2867fcb104a6639495eca25c2978efe4ed4",
            ),
            (
                "PHONE",
                "001(706)767-5127",
                "2fd199db6d3fa9fe754886ff1822f2867fcb104a6639495eca25c2978efe4ed4",
            ),
            ("FN", "José", "d994e1d001886fe5b45b1267bd1fa2b752ac50742579bd3dad7b2a2aa0ed6866"),
            ("LN", "Müller", "2dbd218072117713f2d5996a726a9b216ed791ffd0783b6ba4ab6d61b8333192"),
            (
                "PHONE",
                "+44 20 7183 8750",
                "8d5f937f3a5590634cbe975951a6aa1543170671ce6e73cce4062f4e8c288417",
            ),
        ] {
            assert_eq!(sha(key, raw, None), hash, "{key} {raw}");
        }
    }

    #[test]
    fn national_phone_numbers_get_their_country() {
        for (raw, home, full) in [
            ("020 7183 8750", Some("GB"), Some("442071838750")),
            ("(706) 767-5127", Some("US"), Some("17067675127")),
            ("1-706-767-5127", Some("US"), Some("17067675127")),
            ("442071838750", Some("GB"), Some("442071838750")),
            ("0044 20 7183 8750", Some("US"), Some("442071838750")),
            ("06 6982", Some("IT"), Some("39066982")),
            ("030 123456", Some("DE"), Some("4930123456")),
            ("12", Some("US"), None),
            ("call me", Some("US"), None),
            ("1234567890123456", None, None),
        ] {
            assert_eq!(phone(raw, home).as_deref(), full, "{raw}");
        }
    }

    #[test]
    fn some_identifiers_are_not_hashed_and_nonsense_is_empty() {
        for (key, raw, wire) in [
            (
                "MADID",
                "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6",
                "plain f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            ),
            ("MADID", "00000000-0000-0000-0000-000000000000", ""),
            ("EXTERN_ID", " Cust-7 ", "plain Cust-7"),
            ("EMAIL", "nobody", ""),
            ("EMAIL", "a b@c.de", ""),
            ("GEN", "x", ""),
            ("DOBM", "13", ""),
            ("COUNTRY", "Utopia", ""),
            ("FN", "...", ""),
            ("EMAIL", "   ", ""),
        ] {
            assert_eq!(sha(key, raw, None), wire, "{key} {raw}");
        }
        assert_eq!(sha("COUNTRY", "uk", None), sha("COUNTRY", "GB", None));
        let hash = HashedIdentifier::of_normalised("test").to_hex();
        assert_eq!(sha("EMAIL", &hash.to_uppercase(), None), hash);
    }

    fn schema(keys: &[&str]) -> Schema {
        Schema {
            keys: keys.iter().map(|k| (*k).to_owned()).collect(),
            default_country: Some("GB".to_owned()),
        }
    }

    fn row(cells: &[&str]) -> Vec<Option<Personal>> {
        cells.iter().map(|c| (!c.is_empty()).then(|| Personal::new(*c))).collect()
    }

    #[test]
    fn rows_without_anything_usable_are_skipped() {
        let keys = schema(&["EMAIL", "COUNTRY"]);
        assert_eq!(prepare(&keys, &row(&["", "GB"])), Err(NOTHING_USABLE));
        assert_eq!(prepare(&keys, &row(&["nobody", ""])), Err(NOTHING_USABLE));
        assert_eq!(prepare(&keys, &[]), Err(NOTHING_USABLE));
        let filled = prepare(&keys, &row(&["a@b.de", ""])).unwrap();
        assert_eq!(filled[1], Cell::Hashed(HashedIdentifier::of_normalised("gb")));
    }

    #[test]
    fn a_row_without_its_extern_id_is_skipped() {
        let keys = schema(&["EXTERN_ID", "EMAIL"]);
        assert_eq!(prepare(&keys, &row(&["", "a@b.de"])), Err(NO_EXTERN_ID));
        assert_eq!(prepare(&keys, &row(&["7", ""])).unwrap()[1], Cell::Empty);
    }
}
