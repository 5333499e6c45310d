//! The forms of the values of a column of texts: which of them a query would take for numbers or dates. Pure.

/// The form of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A whole number as it is written without a choice: `42`.
    Whole,
    /// A number with digits after the point that are all zeros: `42.0`.
    Pointed,
    /// A whole number in another form: `042`, `+42`.
    Respelled,
    /// Another number.
    Number,
    /// A date or a timestamp.
    Moment,
    /// Anything else.
    Other,
}

/// The forms of the values of a column. Can be merged with those of other files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NumberForms {
    /// A value is a whole number such as `42`.
    pub whole: bool,
    /// A value is a whole number such as `42.0`.
    pub pointed: bool,
    /// A value is a whole number in a form that no integer has, such as `042` or `+42`.
    pub respelled: bool,
    /// Values are in files whose values have not been read.
    pub unread: bool,
    numbers: u64,
    moments: u64,
    values: u64,
}

impl NumberForms {
    /// Of no value. `unread`: there are files whose values have not been read.
    pub fn of(unread: bool) -> Self {
        Self { unread, ..Self::default() }
    }

    pub(crate) fn add(&mut self, form: Form) {
        self.values = self.values.saturating_add(1);
        match form {
            Form::Whole => self.whole = true,
            Form::Pointed => self.pointed = true,
            Form::Respelled => self.respelled = true,
            Form::Number | Form::Moment | Form::Other => {}
        }
        match form {
            Form::Other => {}
            Form::Moment => self.moments = self.moments.saturating_add(1),
            _ => self.numbers = self.numbers.saturating_add(1),
        }
    }

    /// Adds the values of another file.
    pub fn merge(&mut self, other: &Self) {
        self.whole |= other.whole;
        self.pointed |= other.pointed;
        self.respelled |= other.respelled;
        self.unread |= other.unread;
        self.numbers = self.numbers.saturating_add(other.numbers);
        self.moments = self.moments.saturating_add(other.moments);
        self.values = self.values.saturating_add(other.values);
    }

    /// Whether whole numbers have two forms, such as `1` and `1.0`, which are two texts.
    pub fn has_two_forms(&self) -> bool {
        self.whole && self.pointed
    }

    /// What nearly all values are (`numbers`, `dates`), if a few others make the column one of texts.
    pub fn majority_kind(&self) -> Option<&'static str> {
        let nearly_all = |some: u64| some < self.values && some >= self.values - self.values / 10;
        match self {
            // Of so few, one other is not a few.
            _ if self.values < 3 => None,
            _ if self.is_most(self.numbers) || nearly_all(self.numbers) => Some("numbers"),
            _ if self.is_most(self.moments) || nearly_all(self.moments) => Some("dates"),
            _ => None,
        }
    }

    /// Whether all values but one are these.
    fn is_most(&self, some: u64) -> bool {
        some > 0 && some + 1 == self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(forms: &[Form]) -> NumberForms {
        let mut found = NumberForms::default();
        forms.iter().for_each(|form| found.add(*form));
        found
    }

    #[test]
    fn a_few_others_among_numbers_or_dates_are_noticed() {
        assert_eq!(of(&[Form::Whole, Form::Number, Form::Other]).majority_kind(), Some("numbers"));
        assert_eq!(of(&[Form::Moment, Form::Moment, Form::Other]).majority_kind(), Some("dates"));
        assert_eq!(of(&[Form::Whole, Form::Other, Form::Other]).majority_kind(), None);
        assert_eq!(of(&[Form::Other]).majority_kind(), None);
        assert_eq!(of(&[Form::Whole, Form::Whole]).majority_kind(), None);
        let mut many = of(&[Form::Number; 18]);
        many.merge(&of(&[Form::Other; 2]));
        assert_eq!(many.majority_kind(), Some("numbers"));
        many.merge(&of(&[Form::Other]));
        assert_eq!(many.majority_kind(), None);
    }

    #[test]
    fn two_forms_of_whole_numbers_are_noticed_over_all_files() {
        let mut found = of(&[Form::Whole]);
        assert!(!found.has_two_forms());
        found.merge(&of(&[Form::Pointed]));
        assert!(found.has_two_forms() && !found.respelled);
    }
}
