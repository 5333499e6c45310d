//! Bytes as hexadecimal digits.

/// Two lower-case hexadecimal digits for each byte.
pub fn to_hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(2 * bytes.len());
    push_hex(bytes, &mut hex);
    hex
}

/// Appends two lower-case hexadecimal digits for each byte.
pub fn push_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// The bytes of a text of hexadecimal digits in lower or upper case. `None` if the text is anything
/// else, or does not have two digits for each of the `N` bytes.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = byte_of(pair)?;
    }
    Some(bytes)
}

/// As [`from_hex`], for any number of bytes.
pub fn from_hex_of_any_length(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(byte_of).collect()
}

fn byte_of(pair: &[u8]) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let [high, low] = pair else { return None };
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = to_hex(&bytes);
        assert!(text.starts_with("000102") && text.ends_with("fdfeff"), "{text}");
        assert_eq!(from_hex::<256>(&text).as_ref().map(<[u8; 256]>::as_slice), Some(&bytes[..]));
        assert_eq!(from_hex_of_any_length(&text.to_uppercase()), Some(bytes));
        assert_eq!((to_hex(&[]).as_str(), from_hex::<0>("")), ("", Some([])));
    }

    #[test]
    fn other_texts_have_no_bytes() {
        for text in ["0", "0g", "+1", " 1", "ü", "000", "00 0"] {
            assert_eq!(from_hex_of_any_length(text), None, "{text}");
            assert_eq!(from_hex::<1>(text), None, "{text}");
        }
        assert_eq!(from_hex::<2>("00"), None);
        assert_eq!(from_hex::<1>("0000"), None);
    }
}
