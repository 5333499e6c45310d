//! Countries, states, cities and postal codes in the platform's form. Pure.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::countries::{alpha2_of, is_country};
use super::text::{REFUSED, is_missing, letters, without_decimal_zero};

pub(super) const ACCENTS: &str = "accents_removed";
pub(super) const COUNTRY_NAME: &str = "country_name_replaced";
pub(super) const STATE_NAME: &str = "state_name_replaced";
pub(super) const STATE_COUNTRY: &str = "country_of_state_code_removed";
/// An ISO 3166-2 code for which the platform documents the name, of another country than the row's, or unknown.
pub(super) const STATE_CODE: &str = "refused_iso_3166_2_code";
pub(super) const ZIP_CUT: &str = "zip_cut_to_five_digits";

/// The codes of Canadian provinces in [`STATES`].
const PROVINCES: &[&str] =
    &["ab", "bc", "mb", "nb", "nl", "ns", "nt", "nu", "on", "pe", "qc", "sk", "yt"];

/// US states, territories and Canadian provinces: code and name without spaces.
const STATES: &[(&str, &str)] = &[
    ("al", "alabama"),
    ("ak", "alaska"),
    ("az", "arizona"),
    ("ar", "arkansas"),
    ("ca", "california"),
    ("co", "colorado"),
    ("ct", "connecticut"),
    ("de", "delaware"),
    ("dc", "districtofcolumbia"),
    ("fl", "florida"),
    ("ga", "georgia"),
    ("hi", "hawaii"),
    ("id", "idaho"),
    ("il", "illinois"),
    ("in", "indiana"),
    ("ia", "iowa"),
    ("ks", "kansas"),
    ("ky", "kentucky"),
    ("la", "louisiana"),
    ("me", "maine"),
    ("md", "maryland"),
    ("ma", "massachusetts"),
    ("mi", "michigan"),
    ("mn", "minnesota"),
    ("ms", "mississippi"),
    ("mo", "missouri"),
    ("mt", "montana"),
    ("ne", "nebraska"),
    ("nv", "nevada"),
    ("nh", "newhampshire"),
    ("nj", "newjersey"),
    ("nm", "newmexico"),
    ("ny", "newyork"),
    ("nc", "northcarolina"),
    ("nd", "northdakota"),
    ("oh", "ohio"),
    ("ok", "oklahoma"),
    ("or", "oregon"),
    ("pa", "pennsylvania"),
    ("ri", "rhodeisland"),
    ("sc", "southcarolina"),
    ("sd", "southdakota"),
    ("tn", "tennessee"),
    ("tx", "texas"),
    ("ut", "utah"),
    ("vt", "vermont"),
    ("va", "virginia"),
    ("wa", "washington"),
    ("wv", "westvirginia"),
    ("wi", "wisconsin"),
    ("wy", "wyoming"),
    ("as", "americansamoa"),
    ("gu", "guam"),
    ("mp", "northernmarianaislands"),
    ("pr", "puertorico"),
    ("vi", "virginislands"),
    ("vi", "usvirginislands"),
    ("ab", "alberta"),
    ("bc", "britishcolumbia"),
    ("mb", "manitoba"),
    ("nb", "newbrunswick"),
    ("nl", "newfoundlandandlabrador"),
    ("ns", "novascotia"),
    ("nt", "northwestterritories"),
    ("nu", "nunavut"),
    ("on", "ontario"),
    ("pe", "princeedwardisland"),
    ("qc", "quebec"),
    ("sk", "saskatchewan"),
    ("yt", "yukon"),
    // Traditional abbreviations.
    ("al", "ala"),
    ("az", "ariz"),
    ("ca", "calif"),
    ("ca", "cal"),
    ("co", "colo"),
    ("ct", "conn"),
    ("dc", "washingtondc"),
    ("fl", "fla"),
    ("il", "ill"),
    ("in", "ind"),
    ("ks", "kans"),
    ("ks", "kan"),
    ("ma", "mass"),
    ("mi", "mich"),
    ("mn", "minn"),
    ("ms", "miss"),
    ("mt", "mont"),
    ("ne", "nebr"),
    ("ne", "neb"),
    ("nv", "nev"),
    ("ok", "okla"),
    ("or", "ore"),
    ("pa", "penn"),
    ("tn", "tenn"),
    ("tx", "tex"),
    ("wa", "wash"),
    ("wv", "wva"),
    ("wi", "wis"),
    ("wi", "wisc"),
    ("wy", "wyo"),
    ("qc", "que"),
    ("on", "ont"),
];

/// English names of countries, without spaces and punctuation, with their codes.
const COUNTRIES: &[(&str, &str)] = &[
    ("unitedstates", "us"),
    ("unitedstatesofamerica", "us"),
    ("america", "us"),
    ("unitedkingdom", "gb"),
    ("greatbritain", "gb"),
    ("britain", "gb"),
    ("england", "gb"),
    ("scotland", "gb"),
    ("wales", "gb"),
    ("northernireland", "gb"),
    ("germany", "de"),
    ("deutschland", "de"),
    ("france", "fr"),
    ("spain", "es"),
    ("espana", "es"),
    ("italy", "it"),
    ("italia", "it"),
    ("canada", "ca"),
    ("mexico", "mx"),
    ("brazil", "br"),
    ("brasil", "br"),
    ("argentina", "ar"),
    ("chile", "cl"),
    ("colombia", "co"),
    ("peru", "pe"),
    ("venezuela", "ve"),
    ("ecuador", "ec"),
    ("uruguay", "uy"),
    ("paraguay", "py"),
    ("bolivia", "bo"),
    ("portugal", "pt"),
    ("netherlands", "nl"),
    ("thenetherlands", "nl"),
    ("holland", "nl"),
    ("belgium", "be"),
    ("luxembourg", "lu"),
    ("switzerland", "ch"),
    ("schweiz", "ch"),
    ("austria", "at"),
    ("osterreich", "at"),
    ("ireland", "ie"),
    ("denmark", "dk"),
    ("sweden", "se"),
    ("norway", "no"),
    ("finland", "fi"),
    ("iceland", "is"),
    ("poland", "pl"),
    ("czechrepublic", "cz"),
    ("czechia", "cz"),
    ("slovakia", "sk"),
    ("hungary", "hu"),
    ("romania", "ro"),
    ("bulgaria", "bg"),
    ("greece", "gr"),
    ("turkey", "tr"),
    ("turkiye", "tr"),
    ("croatia", "hr"),
    ("slovenia", "si"),
    ("serbia", "rs"),
    ("estonia", "ee"),
    ("latvia", "lv"),
    ("lithuania", "lt"),
    ("ukraine", "ua"),
    ("belarus", "by"),
    ("russia", "ru"),
    ("russianfederation", "ru"),
    ("israel", "il"),
    ("egypt", "eg"),
    ("morocco", "ma"),
    ("southafrica", "za"),
    ("nigeria", "ng"),
    ("kenya", "ke"),
    ("ghana", "gh"),
    ("ivorycoast", "ci"),
    ("cotedivoire", "ci"),
    ("saudiarabia", "sa"),
    ("unitedarabemirates", "ae"),
    ("qatar", "qa"),
    ("kuwait", "kw"),
    ("india", "in"),
    ("pakistan", "pk"),
    ("bangladesh", "bd"),
    ("srilanka", "lk"),
    ("china", "cn"),
    ("hongkong", "hk"),
    ("taiwan", "tw"),
    ("japan", "jp"),
    ("southkorea", "kr"),
    ("korea", "kr"),
    ("republicofkorea", "kr"),
    ("singapore", "sg"),
    ("malaysia", "my"),
    ("indonesia", "id"),
    ("thailand", "th"),
    ("vietnam", "vn"),
    ("philippines", "ph"),
    ("australia", "au"),
    ("newzealand", "nz"),
    ("puertorico", "pr"),
    ("cyprus", "cy"),
    ("malta", "mt"),
    ("iran", "ir"),
    ("iraq", "iq"),
    ("jordan", "jo"),
    ("lebanon", "lb"),
    ("costarica", "cr"),
    ("panama", "pa"),
    ("guatemala", "gt"),
    ("dominicanrepublic", "do"),
    ("cuba", "cu"),
    ("jamaica", "jm"),
    ("kazakhstan", "kz"),
];

/// Latin letters without marks; other letters stay.
fn without_accents(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.nfd() {
        match c {
            'ß' => out.push_str("ss"),
            'æ' => out.push_str("ae"),
            'œ' => out.push_str("oe"),
            'ø' => out.push('o'),
            'ł' => out.push('l'),
            'đ' | 'ð' => out.push('d'),
            'þ' => out.push_str("th"),
            'ı' => out.push('i'),
            c if is_combining_mark(c) && c < '\u{370}' => {}
            c => out.push(c),
        }
    }
    out.nfc().collect()
}

/// A city from [`letters`]: Latin letters without accents.
pub(super) fn city(letters: &str, notes: &mut Vec<&'static str>) -> String {
    let without_accents = without_accents(letters);
    if without_accents != letters {
        notes.push(ACCENTS);
    }
    without_accents
}

/// Country and subdivision of an ISO 3166-2 code, such as "US-CA", "DE-BY" or "FR-75", in capital letters.
fn iso_code(raw: &str) -> Option<(String, String)> {
    let (country, code) = raw.split_once('-')?;
    let (country, code) = (country.to_ascii_uppercase(), code.to_ascii_uppercase());
    let is_code = (1..=3).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_code && is_country(&country)).then_some((country, code))
}

/// The state of an ISO 3166-2 code. Outside of the US and Canada the platform documents names only: as text, "DE-BY"
/// would be the state "deby", which matches nobody.
fn state_of_code(
    (country, code): &(String, String),
    home: Option<&str>,
    notes: &mut Vec<&'static str>,
) -> Result<String, &'static str> {
    let code = code.to_ascii_lowercase();
    let is_province = PROVINCES.contains(&code.as_str());
    let is_known = STATES.iter().any(|(known, _)| *known == code)
        && match country.as_str() {
            "US" => !is_province,
            "CA" => is_province,
            _ => false,
        };
    if !is_known || home.is_some_and(|home| home != country.as_str()) {
        return Err(STATE_CODE);
    }
    notes.push(STATE_COUNTRY);
    Ok(code)
}

/// Two letters in the US and Canada; elsewhere the name in lower-case letters.
pub(super) fn state(
    raw: &str,
    home: Option<&str>,
    notes: &mut Vec<&'static str>,
) -> Result<String, &'static str> {
    if let Some(code) = iso_code(raw) {
        return state_of_code(&code, home, notes);
    }
    let name = without_accents(&letters(raw));
    let has_state_codes = matches!(home, None | Some("US" | "CA"));
    if !has_state_codes {
        return Ok(name);
    }
    if STATES.iter().any(|(code, _)| *code == name) {
        return Ok(name);
    }
    if let Some((code, _)) = STATES.iter().find(|(_, known)| *known == name) {
        notes.push(STATE_NAME);
        return Ok((*code).to_owned());
    }
    // Without a country it may be a state of any country: its name, as outside of the US and Canada.
    if home.is_none() { Ok(name) } else { Err(REFUSED) }
}

/// How many digits a postal code of a country has, where all of its codes are digits. Only countries whose data is
/// common, and whose codes may begin with a zero or are written with a prefix.
fn digits_of_zip(home: Option<&str>) -> Option<usize> {
    match home? {
        "AT" | "AU" | "BE" | "CH" | "DK" | "NO" | "NZ" => Some(4),
        "DE" | "ES" | "FI" | "FR" | "IT" | "MX" | "PL" | "SE" | "TR" => Some(5),
        _ => None,
    }
}

/// A postal code without spaces and dashes, as the Conversions API documents `zp`; five digits in the US. Zeros alone are
/// not a code: exports write them for a missing one.
pub(super) fn zip(raw: &str, home: Option<&str>, notes: &mut Vec<&'static str>) -> Option<String> {
    let code = zip_of_form(raw, home, notes)?;
    code.contains(|c: char| c != '0').then_some(code)
}

/// As [`zip`], with codes of zeros.
fn zip_of_form(raw: &str, home: Option<&str>, notes: &mut Vec<&'static str>) -> Option<String> {
    let raw = without_decimal_zero(raw, notes);
    let text: String =
        raw.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect();
    // Digits of other scripts, such as those of Arabic, are not those of the code.
    if text.contains(|c: char| c.is_numeric() && !c.is_ascii_digit()) {
        return None;
    }
    let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
    // ZIP+4 is recognised by its form, also without a country.
    let plus_four = match text.split_once('-') {
        Some((five, four)) => digits(five, 5) && digits(four, 4),
        None => digits(&text, 9) && matches!(home, None | Some("US")),
    };
    if plus_four {
        notes.push(ZIP_CUT);
        return text.get(..5).map(str::to_owned);
    }
    // A US code without its leading zeros is ambiguous.
    if home == Some("US") && !digits(&text, 5) {
        return None;
    }
    let text = text.replace('-', "");
    // Also elsewhere numbers have lost leading zeros; "D-01067" has a prefix that is not a part of the code.
    if digits_of_zip(home).is_some_and(|length| !digits(&text, length)) {
        return None;
    }
    // Only Bermuda has codes of letters, those of post office boxes such as `HM CX`: elsewhere it is a word such as
    // `none`.
    let is_box = home == Some("BM") && text.len() == 4 && text != "none";
    let has_digit = text.chars().any(char::is_numeric);
    (text.chars().all(char::is_alphanumeric) && (has_digit || is_box)).then_some(text)
}

/// The two letters of a country, by code of two or three letters or by its English name.
pub(super) fn country(raw: &str, notes: &mut Vec<&'static str>) -> Option<String> {
    if is_missing(raw) {
        return None;
    }
    let name = without_accents(&letters(raw));
    // `N A` is not Namibia.
    if name == "na" && !raw.trim_matches(['"', '\'']).eq_ignore_ascii_case("na") {
        return None;
    }
    let name = if name == "uk" { "gb".to_owned() } else { name };
    if is_country(&name.to_uppercase()) {
        return Some(name);
    }
    let found = alpha2_of(&name.to_uppercase()).map(str::to_lowercase).or_else(|| {
        COUNTRIES.iter().find(|(known, _)| *known == name).map(|(_, code)| (*code).to_owned())
    })?;
    notes.push(COUNTRY_NAME);
    Some(found)
}
