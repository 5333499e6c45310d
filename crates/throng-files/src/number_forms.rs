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
    /// A date.
    Day,
    /// A timestamp with a `T` before the time.
    Moment,
    /// A timestamp with a space before the time.
    SpacedMoment,
    /// A date or a timestamp in a form by which texts do not sort as moments do: `1/31/2026`, or with an offset.
    UnsortedMoment,
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
    /// Those in other forms, which are not among `moments`.
    unsorted_moments: u64,
    values: u64,
    /// A timestamp has a `T` before the time.
    unspaced: bool,
    /// A timestamp has a space there.
    spaced: bool,
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
            Form::Moment => self.unspaced = true,
            Form::SpacedMoment => self.spaced = true,
            Form::Number | Form::Day | Form::UnsortedMoment | Form::Other => {}
        }
        match form {
            Form::Other => {}
            Form::Day | Form::Moment | Form::SpacedMoment => {
                self.moments = self.moments.saturating_add(1);
            }
            Form::UnsortedMoment => {
                self.unsorted_moments = self.unsorted_moments.saturating_add(1);
            }
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
        self.unsorted_moments = self.unsorted_moments.saturating_add(other.unsorted_moments);
        self.unspaced |= other.unspaced;
        self.spaced |= other.spaced;
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

    /// Whether nearly all values are dates or timestamps whose texts do not sort as they do: in a form such as
    /// `1/31/2026`, with offsets, or some with a `T` and others with a space.
    pub fn has_unsorted_moments(&self) -> bool {
        let moments = self.moments.saturating_add(self.unsorted_moments);
        let differ = self.unsorted_moments > 0 || (self.spaced && self.unspaced);
        differ && moments >= self.values - self.values / 10
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
    fn moments_whose_texts_do_not_sort_are_noticed() {
        let unsorted = |forms: &[Form]| of(forms).has_unsorted_moments();
        assert!(unsorted(&[Form::UnsortedMoment; 2]));
        assert!(unsorted(&[Form::Moment, Form::SpacedMoment]));
        assert!(!unsorted(&[Form::Moment; 3]) && !unsorted(&[Form::SpacedMoment; 3]));
        assert!(
            !unsorted(&[Form::Day, Form::SpacedMoment]) && !unsorted(&[Form::Day, Form::Moment])
        );
        assert!(!unsorted(&[]) && !unsorted(&[Form::UnsortedMoment, Form::Other]));
        let mut files = of(&[Form::Moment; 9]);
        files.merge(&of(&[Form::SpacedMoment, Form::Other]));
        assert!(files.has_unsorted_moments());
    }

    #[test]
    fn two_forms_of_whole_numbers_are_noticed_over_all_files() {
        let mut found = of(&[Form::Whole]);
        assert!(!found.has_two_forms());
        found.merge(&of(&[Form::Pointed]));
        assert!(found.has_two_forms() && !found.respelled);
    }
}
