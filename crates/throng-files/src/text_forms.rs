//! Forms of texts that are doubtful as keys: one number or name may be written in several of them. Pure.

/// What is doubtful about the texts of a column, as keys and identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubtfulForm {
    /// Whole numbers are written with and without digits after the point: `1` and `1.0`.
    TwoForms,
}

/// The forms that values of a column have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TextForms {
    /// `1`
    whole: bool,
    /// `1.0`
    pointed: bool,
}

impl TextForms {
    /// Adds a value, as it is written.
    pub(crate) fn add(&mut self, text: &str) {
        if let [b'0'..=b'9', ..] = text.as_bytes() {
            self.add_number(text);
        }
    }

    /// Adds a value that begins with a digit.
    pub(crate) fn add_number(&mut self, text: &str) {
        if self.whole && self.pointed {
            return;
        }
        let all_digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        match text.split_once('.') {
            None => self.whole |= all_digits(text),
            Some((whole, zeros)) => {
                self.pointed |=
                    all_digits(whole) && !zeros.is_empty() && zeros.bytes().all(|b| b == b'0');
            }
        }
    }

    /// Adds integers of a file that states their type.
    pub fn add_integers(&mut self) {
        self.whole = true;
    }

    /// Merges the values of another file.
    pub fn merge(&mut self, other: &Self) {
        self.whole |= other.whole;
        self.pointed |= other.pointed;
    }

    /// What is doubtful about them, if they are text.
    pub fn doubts(&self) -> impl Iterator<Item = DoubtfulForm> + use<> {
        [(self.whole && self.pointed, DoubtfulForm::TwoForms)]
            .into_iter()
            .filter_map(|(is_doubtful, doubt)| is_doubtful.then_some(doubt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubts(texts: &[&str]) -> Vec<DoubtfulForm> {
        let mut forms = TextForms::default();
        texts.iter().for_each(|text| forms.add(text));
        forms.doubts().collect()
    }

    #[test]
    fn whole_numbers_in_two_forms_are_doubtful() {
        for texts in [["1", "2.0"], ["3.00", "42"], ["00042", "42.0"]] {
            assert_eq!(doubts(&texts), [DoubtfulForm::TwoForms], "{texts:?}");
        }
        for texts in [["1", "2.5"], ["1.0", "2.0"], ["1", "2."], ["1", "v1.0"], ["1", "1.0.0"]] {
            assert!(doubts(&texts).is_empty(), "{texts:?}");
        }
    }
}
