//! The keys of a schema, and the form of their cells.

/// The form of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// 64 lower-case hexadecimal digits.
    Hash,
    /// A mobile advertiser id: 8-4-4-4-12 lower-case hexadecimal digits (the official libraries
    /// hash it, so 64 digits are accepted as well).
    Device,
    /// Any text.
    Text,
    /// Digits.
    Number,
    /// A non-negative number, possibly with a fraction.
    Value,
    /// Processing options, which are ignored.
    Options,
}

/// A key that identifies a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MatchKey(u8);

const MATCH_KEYS: [(&str, Form); 18] = [
    ("EXTERN_ID", Form::Text),
    ("EMAIL", Form::Hash),
    ("PHONE", Form::Hash),
    ("MADID", Form::Device),
    ("UID", Form::Number),
    ("APPUID", Form::Number),
    ("PAGEUID", Form::Number),
    ("FN", Form::Hash),
    ("LN", Form::Hash),
    ("FI", Form::Hash),
    ("GEN", Form::Hash),
    ("DOBY", Form::Hash),
    ("DOBM", Form::Hash),
    ("DOBD", Form::Hash),
    ("CT", Form::Hash),
    ("ST", Form::Hash),
    ("ZIP", Form::Hash),
    ("COUNTRY", Form::Hash),
];

impl MatchKey {
    pub(super) const EXTERN_ID: Self = Self(0);
    /// The keys that identify one person: the first seven.
    pub(super) const STRONG: u32 = 0b111_1111;

    pub(super) fn bit(self) -> u32 {
        1 << self.0
    }

    pub(super) fn name(self) -> &'static str {
        MATCH_KEYS[usize::from(self.0)].0
    }

    /// The keys of a mask, in order.
    pub(super) fn of_mask(mask: u32) -> impl Iterator<Item = Self> {
        (0..MATCH_KEYS.len() as u8).map(Self).filter(move |key| mask & key.bit() != 0)
    }
}

/// A column of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    /// The key that it matches on; `None` for an attribute of the row.
    pub(super) key: Option<MatchKey>,
    pub(super) form: Form,
    pub(super) name: &'static str,
}

const ALIASES: [(&str, &str); 3] =
    [("EMAIL_SHA256", "EMAIL"), ("PHONE_SHA256", "PHONE"), ("MOBILE_ADVERTISER_ID", "MADID")];

const ATTRIBUTES: [(&str, Form); 4] = [
    ("LOOKALIKE_VALUE", Form::Value),
    ("DATA_PROCESSING_OPTIONS", Form::Options),
    ("DATA_PROCESSING_OPTIONS_COUNTRY", Form::Options),
    ("DATA_PROCESSING_OPTIONS_STATE", Form::Options),
];

impl Column {
    /// The column with a name in a schema.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, key)| key);
        let keys = MATCH_KEYS.iter().zip(0u8..);
        let key = keys.filter(|((key, _), _)| *key == name).map(|((name, form), at)| Self {
            key: Some(MatchKey(at)),
            form: *form,
            name,
        });
        let attributes = ATTRIBUTES.iter().filter(|(attribute, _)| *attribute == name);
        key.chain(attributes.map(|(name, form)| Self { key: None, form: *form, name })).next()
    }
}

impl Form {
    /// Whether a non-empty cell is well formed.
    pub(super) fn fits(self, cell: &str) -> bool {
        match self {
            Self::Hash => is_hash(cell),
            Self::Device => is_hash(cell) || is_device_id(cell),
            Self::Text | Self::Options => true,
            Self::Number => cell.bytes().all(|b| b.is_ascii_digit()),
            Self::Value => cell.parse::<f64>().is_ok_and(|value| value.is_finite() && value >= 0.0),
        }
    }
}

/// 64 lower-case hexadecimal digits.
pub(super) fn is_hash(cell: &str) -> bool {
    cell.len() == 64 && cell.bytes().all(is_lower_hex)
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn is_device_id(cell: &str) -> bool {
    cell.len() == 36
        && cell.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => is_lower_hex(byte),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_the_form_of_their_key() {
        let hash = "f1904cf1a9d73a55fa5de0ac823c4403ded71afd4c3248d00bdcd0866552bb79";
        for (key, cell, fits) in [
            ("EMAIL", hash, true),
            ("EMAIL_SHA256", hash, true),
            ("EMAIL", &hash.to_uppercase(), false),
            ("EMAIL", &hash[1..], false),
            ("EMAIL", "mary@example.com", false),
            ("ZIP", "94107", false),
            ("MADID", "5f3a2b18-9c4d-4e7f-b8e2-17d3a1e69b25", true),
            ("MOBILE_ADVERTISER_ID", "5F3A2B18-9C4D-4E7F-B8E2-17D3A1E69B25", false),
            ("EXTERN_ID", "Customer 7", true),
            ("UID", "1234567890", true),
            ("UID", "12x", false),
            ("LOOKALIKE_VALUE", "12.5", true),
            ("LOOKALIKE_VALUE", "-1", false),
        ] {
            assert_eq!(Column::parse(key).unwrap().form.fits(cell), fits, "{key} {cell}");
        }
        assert_eq!(Column::parse("FAX"), None);
        assert_eq!(Column::parse("EXTERN_ID").unwrap().key, Some(MatchKey::EXTERN_ID));
    }
}
