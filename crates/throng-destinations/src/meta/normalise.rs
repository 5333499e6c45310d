//! Identifiers → cells, by the platform's official table. Pure. Where the platform's own libraries
//! contradict the table (they hash advertising ids and empty cells), the table takes precedence.
//!
//! Changes other than case and outer spaces, and refused values, are noted with field and reason, so that a
//! run can count them. A note never holds a value.

use throng_activation::{Cell, Note, PreparedRow, Schema, Skip};
use throng_model::{HashedIdentifier, Personal, from_hex};

use super::places::{city, country, state, zip};
use super::text::{
    clean, email, has_address, is_missing, letters, number, person, without_presentation_forms,
};
use super::{damage, phone, text};

const NOTHING_USABLE: Skip = Skip("no_usable_identifier");
const NO_EXTERN_ID: Skip = Skip("no_extern_id");
/// Names and places without an identifier of one person: they would match other people.
const TOO_WEAK: Skip = Skip("only_names_or_places");
/// Every reason for a skipped row.
pub(super) const SKIP_REASONS: &[&str] = &[NOTHING_USABLE.0, NO_EXTERN_ID.0, TOO_WEAK.0];

/// Keys of which each identifies one person.
pub(super) const STRONG_KEYS: &[&str] =
    &["EXTERN_ID", "EMAIL", "PHONE", "MADID", "UID", "APPUID", "PAGEUID"];

/// Every reason of a note.
pub(super) const NOTE_REASONS: &[&str] = &[
    text::INVISIBLE,
    text::COMPOSED,
    text::WIDTH,
    text::MAILTO,
    text::DISPLAY_NAME,
    text::PUNCTUATION,
    text::DECIMAL,
    text::DATE_PART,
    text::MONTH_NAME,
    super::places::ACCENTS,
    super::places::COUNTRY_NAME,
    super::places::STATE_NAME,
    super::places::STATE_COUNTRY,
    super::places::STATE_CODE,
    super::places::ZIP_CUT,
    phone::NOT_IN_PLAN,
    text::REFUSED,
    text::SEVERAL,
    phone::NO_COUNTRY,
    EMAIL_IN_THE_CLEAR,
    phone::LENGTH,
    text::ENCODED,
    HYPHENS,
    NOT_AN_ADVERTISING_ID,
    LIMITED_TRACKING,
    OTHER_HASH,
    HASH_OF_NOTHING,
    text::MISSING,
    PHONE_IN_THE_CLEAR,
    text::SHAPES,
    text::FUTURE,
    damage::WRONG_ENCODING,
    damage::HTML,
    damage::FORMULA,
    HASH_OF_MISSING,
    HASH_NOT_IN_HEX,
];

const EMAIL_IN_THE_CLEAR: &str = "refused_email_in_the_clear";
const PHONE_IN_THE_CLEAR: &str = "refused_phone_in_the_clear";
const HYPHENS: &str = "hyphens_added";
const NOT_AN_ADVERTISING_ID: &str = "refused_not_an_advertising_id";
/// All devices whose users limit ad tracking have the same id of zeros.
const LIMITED_TRACKING: &str = "ad_tracking_is_limited";
/// An MD5, SHA-1 or longer hash: the platform takes SHA-256 only.
const OTHER_HASH: &str = "refused_hash_other_than_sha256";
/// A SHA-256 in base64, with a prefix or in quotes.
const HASH_NOT_IN_HEX: &str = "refused_hash_not_in_hexadecimal";
/// Tools that hash empty cells give all users without an identifier this one.
const HASH_OF_NOTHING: &str = "refused_hash_of_an_empty_text";
/// The same of cells with `NULL`, `n/a` and the like.
const HASH_OF_MISSING: &str = "refused_hash_of_a_missing_value";
/// The code of no country (ISO 3166-1, user-assigned): numbers without a calling code are refused.
const UNKNOWN_COUNTRY: &str = "ZZ";

/// Normalises and hashes a row of a year, after which nobody is born. Notes are appended to `notes`.
pub(super) fn prepare(
    schema: &Schema,
    this_year: u32,
    cells: &[Option<Personal>],
    notes: &mut Vec<Note>,
) -> Result<PreparedRow, Skip> {
    let raw = |at: usize| cells.get(at).and_then(Option::as_ref).map_or("", Personal::expose);
    let cell_of_country = schema.keys.iter().position(|key| key == "COUNTRY").map_or("", raw);
    let own_country = country_of(cell_of_country).map(|c| c.to_ascii_uppercase());
    // A country that is given and not known is not the default: it has other numbers.
    let default = schema.default_country.as_deref().map(|default| {
        if is_other_country(cell_of_country, default) { UNKNOWN_COUNTRY } else { default }
    });
    let home = own_country.as_deref().or(default);
    let mut row: Vec<Cell> = Vec::with_capacity(schema.keys.len());
    let mut reasons = Vec::new();
    for (at, key) in schema.keys.iter().enumerate() {
        let cell = cell(key, raw(at), User { home, this_year }, &mut reasons);
        for reason in reasons.drain(..) {
            notes.push(Note { cell: u8::try_from(at).unwrap_or(u8::MAX), reason });
        }
        row.push(cell);
    }
    check_identifies_one_person(&schema.keys, &row)?;
    for (key, cell) in schema.keys.iter().zip(&mut row) {
        match (key.as_str(), &*cell) {
            // The platform refuses a row with an empty EXTERN_ID, whatever else is in it.
            ("EXTERN_ID", Cell::Empty) => return Err(NO_EXTERN_ID),
            ("COUNTRY", Cell::Empty) => {
                if let Some(home) = default.and_then(|home| country(home, &mut Vec::new())) {
                    *cell = Cell::Hashed(HashedIdentifier::of_normalised(&home));
                }
            }
            _ => {}
        }
    }
    Ok(row.into())
}

/// The country of a cell.
fn country_of(raw: &str) -> Option<String> {
    let notes = &mut Vec::new();
    let text = clean(raw, false, notes);
    country(&without_presentation_forms(&text, notes), notes)
}

/// Whether a cell has a country that is not known, or is not `default` as a hash. Cells of missing values and of signs
/// alone, such as `?`, have none.
fn is_other_country(raw: &str, default: &str) -> bool {
    let text = clean(raw, false, &mut Vec::new());
    if is_missing(&text) || !text.contains(char::is_alphanumeric) {
        return false;
    }
    let Some(hash) = from_hex(&text).map(HashedIdentifier) else {
        return country_of(raw).is_none();
    };
    let home = country(default, &mut Vec::new());
    !hash.is_of_missing_value()
        && home.is_none_or(|code| HashedIdentifier::of_normalised(&code) != hash)
}

/// What the form of an identifier depends on.
#[derive(Clone, Copy)]
struct User<'a> {
    /// The user's country in capital letters, if known. [`UNKNOWN_COUNTRY`]: none of those that are known.
    home: Option<&'a str>,
    /// The last year in which somebody is born.
    this_year: u32,
}

impl<'a> User<'a> {
    /// The country whose form postal codes and states have.
    fn home_of_places(self) -> Option<&'a str> {
        self.home.filter(|home| *home != UNKNOWN_COUNTRY)
    }
}

/// Checks that a row identifies one person: by an identifier, or by first and last name together with a birth
/// year or a postal code. With less the platform would match everybody of a name or a town.
fn check_identifies_one_person(keys: &[String], row: &[Cell]) -> Result<(), Skip> {
    let has = |wanted: &[&str]| {
        keys.iter().zip(row).any(|(key, cell)| *cell != Cell::Empty && wanted.contains(&&**key))
    };
    if has(STRONG_KEYS) || (has(&["LN"]) && has(&["FN", "FI"]) && has(&["DOBY", "ZIP"])) {
        return Ok(());
    }
    let none = row.iter().all(|cell| *cell == Cell::Empty);
    let country_only = !has(&["FN", "LN", "FI", "CT", "ST", "ZIP", "GEN", "DOBY", "DOBM", "DOBD"]);
    Err(if none || country_only { NOTHING_USABLE } else { TOO_WEAK })
}

/// One cell.
fn cell(key: &str, raw: &str, user: User<'_>, notes: &mut Vec<&'static str>) -> Cell {
    let text = clean(raw, matches!(key, "FN" | "LN" | "FI"), notes);
    if text.is_empty() {
        return Cell::Empty;
    }
    // As an identifier it would be one of all users without one.
    if is_missing(&text) {
        notes.push(text::MISSING);
        return Cell::Empty;
    }
    if key == "EXTERN_ID" {
        // It is sent unhashed. An e-mail address or a phone number in this cell means that the columns are mixed up.
        let personal = if has_address(&text) || text::has_loose_address(&text) {
            Some(EMAIL_IN_THE_CLEAR)
        } else {
            phone::is_signed_number(&text).then_some(PHONE_IN_THE_CLEAR)
        };
        if let Some(reason) = personal {
            notes.push(reason);
            return Cell::Empty;
        }
        // Undecodable bytes: several users would have the same text.
        if text.contains('\u{fffd}') {
            notes.push(damage::WRONG_ENCODING);
            return Cell::Empty;
        }
        return Cell::Plain(text.into());
    }
    let is_name = matches!(key, "FN" | "LN" | "FI" | "CT" | "ST");
    if let Some(reason) = is_name.then(|| damage::damage_of_name(raw)).flatten() {
        notes.push(reason);
        return Cell::Empty;
    }
    let cell = if key == "MADID" {
        advertising_id(&text, notes).map(|id| Cell::Plain(id.into()))
    } else {
        hashed(key, &text, user, notes).map(Cell::Hashed)
    };
    cell.unwrap_or_else(|reason| {
        notes.push(reason);
        Cell::Empty
    })
}

/// The hash of an identifier, or the reason why there is none.
fn hashed(
    key: &str,
    raw: &str,
    user: User<'_>,
    notes: &mut Vec<&'static str>,
) -> Result<HashedIdentifier, &'static str> {
    if let Some(hash) = already_hashed(key, raw)? {
        return Ok(hash);
    }
    let text = normalised(key, raw, user, notes)?;
    if text.is_empty() {
        return Err(text::REFUSED);
    }
    Ok(HashedIdentifier::of_normalised(&text))
}

/// 64 hexadecimal digits are a hash that the lake contains already. No identifier has this form, or that of another
/// hash.
fn already_hashed(key: &str, raw: &str) -> Result<Option<HashedIdentifier>, &'static str> {
    if let Some(hash) = from_hex(raw).map(HashedIdentifier) {
        if hash.is_of_nothing() {
            return Err(HASH_OF_NOTHING);
        }
        // Of names and places some of the texts are values.
        let is_missing = matches!(key, "EMAIL" | "PHONE") && hash.is_of_missing_value();
        return if is_missing { Err(HASH_OF_MISSING) } else { Ok(Some(hash)) };
    }
    let is_other =
        matches!(raw.len(), 32 | 40 | 56 | 96 | 128) && raw.bytes().all(|b| b.is_ascii_hexdigit());
    if is_other {
        return Err(OTHER_HASH);
    }
    if is_sha256_in_other_form(raw) { Err(HASH_NOT_IN_HEX) } else { Ok(None) }
}

/// Whether a text is a SHA-256 as databases write one that is not converted to hexadecimal: in base64, with a prefix, or
/// in quotes. The letters of it are those of no name.
fn is_sha256_in_other_form(raw: &str) -> bool {
    let bare = raw.trim_matches(['"', '\'']);
    let digits =
        ["0x", "0X", "\\x", "sha256:"].iter().find_map(|prefix| bare.strip_prefix(*prefix));
    if from_hex::<32>(digits.unwrap_or(bare)).is_some() {
        return true;
    }
    // 32 bytes are 43 characters of base64, and one to fill the last group.
    let text = bare.strip_suffix('=').unwrap_or(bare);
    let has = |is: fn(&u8) -> bool| text.as_bytes().iter().any(is);
    text.len() == 43
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/-_".contains(&b))
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_uppercase)
}

/// The text to hash, or the reason why there is none.
fn normalised(
    key: &str,
    raw: &str,
    user: User<'_>,
    notes: &mut Vec<&'static str>,
) -> Result<String, &'static str> {
    match key {
        "EMAIL" => return email(raw, notes),
        "PHONE" => return phone::normalised(raw, user.home, notes),
        _ => {}
    }
    let text = without_presentation_forms(raw, notes);
    // The columns are mixed up.
    if matches!(key, "FN" | "LN" | "FI" | "CT" | "ST") && text.contains('@') && has_address(&text) {
        return Err(text::REFUSED);
    }
    let mut of_date = |part| number(&text, part, user.this_year, notes);
    let found = match key {
        "DOBY" => return of_date(text::Part::Year).map(|n| n.to_string()),
        "DOBM" => return of_date(text::Part::Month).map(|n| format!("{n:02}")),
        "DOBD" => return of_date(text::Part::Day).map(|n| format!("{n:02}")),
        "GEN" => gender(&text),
        "FN" | "LN" => Some(person(&text)),
        "FI" => person(&text).chars().next().map(String::from),
        "CT" => Some(city(&letters(&text), notes)),
        "ST" => return state(&text, user.home_of_places(), notes),
        "ZIP" => zip(&text, user.home_of_places(), notes),
        "COUNTRY" => country(&text, notes),
        _ => None,
    };
    found.ok_or(text::REFUSED)
}

fn gender(raw: &str) -> Option<String> {
    match raw.to_lowercase().as_str() {
        "m" | "male" | "man" => Some("m".to_owned()),
        "f" | "female" | "woman" => Some("f".to_owned()),
        _ => None,
    }
}

/// A UUID in lower case with hyphens, as the platform has it. 32 digits without hyphens may
/// as well be an MD5 hash: they are taken only if the UUID is a random one, as advertising ids are.
fn advertising_id(raw: &str, notes: &mut Vec<&'static str>) -> Result<String, &'static str> {
    let text = raw.to_lowercase();
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(NOT_AN_ADVERTISING_ID);
    }
    if digits.bytes().all(|b| b == b'0') {
        return Err(LIMITED_TRACKING);
    }
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    let id = parts.join("-");
    if id == text {
        return Ok(id);
    }
    let is_random = parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']);
    if text != digits || !is_random {
        return Err(NOT_AN_ADVERTISING_ID);
    }
    notes.push(HYPHENS);
    Ok(id)
}

#[cfg(test)]
mod tests;
