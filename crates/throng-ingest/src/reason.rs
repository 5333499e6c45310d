//! Why a row goes to quarantine.

/// Why a row goes to quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    Missing,
    NotUtf8,
    NotAnInteger,
    NotADecimal,
    NotABoolean,
    NotATimestamp,
    NotADate,
    NotAnEmail,
    NotAPhone,
    NoCallingCode,
    BelowMin,
    AboveMax,
    WrongWidth,
    MisplacedQuote,
    RowTooLong,
    NotAnObject,
    NestedValue,
    UnknownField,
    DuplicateField,
    RepeatedHeader,
    ByteOrderMark,
}

impl Reason {
    /// The stable word for reports and quarantine files.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NotUtf8 => "not_utf8",
            Self::NotAnInteger => "not_an_integer",
            Self::NotADecimal => "not_a_decimal",
            Self::NotABoolean => "not_a_boolean",
            Self::NotATimestamp => "not_a_timestamp",
            Self::NotADate => "not_a_date",
            Self::NotAnEmail => "not_an_email",
            Self::NotAPhone => "not_a_phone",
            Self::NoCallingCode => "no_calling_code",
            Self::BelowMin => "below_min",
            Self::AboveMax => "above_max",
            Self::WrongWidth => "wrong_width",
            Self::MisplacedQuote => "misplaced_quote",
            Self::RowTooLong => "row_too_long",
            Self::NotAnObject => "not_an_object",
            Self::NestedValue => "nested_value",
            Self::UnknownField => "unknown_field",
            Self::DuplicateField => "duplicate_field",
            Self::RepeatedHeader => "repeated_header",
            Self::ByteOrderMark => "byte_order_mark",
        }
    }
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowFault {
    /// The place of the field in the schema; `None` for the whole row.
    pub(crate) field: Option<usize>,
    /// Why.
    pub(crate) reason: Reason,
}

impl RowFault {
    pub(crate) fn of_row(reason: Reason) -> Self {
        Self { field: None, reason }
    }

    pub(crate) fn of_field(field: usize, reason: Reason) -> Self {
        Self { field: Some(field), reason }
    }
}
