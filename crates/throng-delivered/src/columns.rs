//! With which columns rows were delivered. A row does not say it: the keys of its cells are those of its file. So it is
//! not known which rows of a file with several column sets have which, and a removal would name the wrong keys.

/// The columns of all delivered rows of a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveredColumns {
    /// The platform's keys, in the order of a row's cells. Without rows, or with several column sets, those of the
    /// newest run.
    pub keys: Vec<String>,
    /// Rows of other columns are on the platform as well. None of the rows can be removed by its identifiers.
    pub has_several: bool,
}

/// The columns of some rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowColumns<'k> {
    /// There are no rows.
    NoRows,
    /// All rows have these.
    Same(&'k [String]),
    /// There may be rows of several column sets.
    Several,
}

impl<'k> RowColumns<'k> {
    /// The columns of these and other rows.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::NoRows, known) | (known, Self::NoRows) => known,
            (Self::Same(one), Self::Same(other)) if one == other => self,
            _ => Self::Several,
        }
    }

    /// Whether these rows and rows with such keys together are of several column sets.
    pub(crate) fn is_mixed_with(self, keys: &'k [String]) -> bool {
        self.and(Self::Same(keys)) == Self::Several
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_two_column_sets_have_several() {
        use RowColumns::{NoRows, Same, Several};
        let (one, other) = (["EMAIL".to_owned()], ["PHONE".to_owned()]);
        let (one, other) = (Same(&one), Same(&other));
        assert_eq!((NoRows.and(NoRows), NoRows.and(one), one.and(NoRows)), (NoRows, one, one));
        assert_eq!((one.and(one), one.and(other), other.and(one)), (one, Several, Several));
        assert_eq!((Several.and(NoRows), NoRows.and(Several)), (Several, Several));
        assert_eq!((Several.and(one), one.and(Several)), (Several, Several));
    }
}
