//! Columns of parameters: their values, and the groups of rows by their comparisons with parameters.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::cast_utils::Parser;
use datafusion::arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator, binary_expr, lit};
use throng_query::tuples::{NumberRange, Tuple, Tuples, append_text};
use throng_spec::ParameterValue;
use throng_tables::is_text;

use crate::LakeError;
use crate::amount::Amount;
use crate::bind::is_date;

/// How the values of a column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer,
    Decimal { scale: u8 },
    Boolean,
    Date,
}

impl Kind {
    /// `None` if no parameter has values of the type.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            of if is_text(of) => Some(Self::Text),
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32 => Some(Self::Integer),
            DataType::Decimal128(digits, scale) if *digits <= 18 => {
                u8::try_from(*scale).ok().map(|scale| Self::Decimal { scale })
            }
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => {
                u8::try_from(*scale).ok().map(|scale| Self::Decimal { scale })
            }
            DataType::Boolean => Some(Self::Boolean),
            DataType::Date32 => Some(Self::Date),
            _ => None,
        }
    }

    /// The column in the one type from which its values are read.
    pub(crate) fn read_type(self) -> DataType {
        match self {
            Self::Text | Self::Date => DataType::Utf8View,
            Self::Integer => DataType::Int64,
            Self::Decimal { scale } => DataType::Decimal128(18, scale.cast_signed()),
            Self::Boolean => DataType::Boolean,
        }
    }

    /// The value of a row of such a column.
    pub(crate) fn value(self, column: &ArrayRef, row: usize) -> ParameterValue {
        match self {
            Self::Text => ParameterValue::Text(column.as_string_view().value(row).to_owned()),
            Self::Date => ParameterValue::Date(column.as_string_view().value(row).to_owned()),
            Self::Integer => ParameterValue::Integer(column.as_primitive::<Int64Type>().value(row)),
            Self::Decimal { scale } => {
                let unscaled = column.as_primitive::<Decimal128Type>().value(row);
                // 18 digits fit.
                ParameterValue::Decimal { unscaled: unscaled as i64, scale }
            }
            Self::Boolean => ParameterValue::Boolean(column.as_boolean().value(row)),
        }
    }

    /// Whether `column = value` is equality of the values as this kind reads them. Where types differ, the engine
    /// converts one of them first.
    pub(crate) fn is_compared_exactly(self, value: &ParameterValue) -> bool {
        matches!(
            (self, value),
            (Self::Text, ParameterValue::Text(_))
                | (Self::Integer, ParameterValue::Integer(_))
                | (Self::Boolean, ParameterValue::Boolean(_))
                | (Self::Date, ParameterValue::Date(_))
        )
    }

    /// Appends the bytes of a row's value, as [`throng_query::tuples::append`] does.
    fn append(self, column: &ArrayRef, row: usize, bytes: &mut Vec<u8>) {
        match self {
            Self::Text | Self::Date => append_text(column.as_string_view().value(row), bytes),
            Self::Integer => {
                bytes.extend(column.as_primitive::<Int64Type>().value(row).to_le_bytes());
            }
            Self::Boolean => bytes.push(u8::from(column.as_boolean().value(row))),
            Self::Decimal { .. } => {
                bytes.extend(column.as_primitive::<Decimal128Type>().value(row).to_le_bytes());
            }
        }
    }

    /// Bits that only equal values of such a column have; `None` if a value has more than 128.
    fn bits(self, column: &ArrayRef, row: usize) -> Option<u128> {
        match self {
            // The length of a text, and the text or, of a longer one, the place of its bytes.
            Self::Text | Self::Date => {
                column.as_string_view().views().get(row).copied().and_then(text_bits)
            }
            Self::Integer => {
                Some(column.as_primitive::<Int64Type>().value(row).cast_unsigned().into())
            }
            Self::Boolean => Some(column.as_boolean().value(row).into()),
            Self::Decimal { .. } => {
                Some(column.as_primitive::<Decimal128Type>().value(row).cast_unsigned())
            }
        }
    }

    /// The numbers of a column for which `column op value` is true: of a decimal all digits, of a date the days since
    /// 1970. `None` if the engine does not compare them as these numbers: texts, and numbers with other types.
    ///
    /// The engine compares whole numbers with decimals as decimals of at most 38 digits. Those here have at most 20
    /// before the point and 18 after it, and none is rounded.
    fn range(self, op: Operator, value: &ParameterValue) -> Option<NumberRange> {
        let number = match value {
            ParameterValue::Integer(number) => Amount::from(*number),
            ParameterValue::Decimal { unscaled, scale } => Amount::decimal(*unscaled, *scale),
            ParameterValue::Date(text) => {
                let days = Date32Type::parse(text).filter(|_| is_date(text))?;
                Amount::from(i64::from(days))
            }
            ParameterValue::Text(_) | ParameterValue::Boolean(_) => return None,
        };
        let scale = match (self, value) {
            (Self::Date, ParameterValue::Date(_)) => 0,
            (Self::Text | Self::Boolean | Self::Date, _) | (_, ParameterValue::Date(_)) => {
                return None;
            }
            (Self::Integer, _) => 0,
            (Self::Decimal { scale }, _) => scale,
        };
        // Rounded down.
        let (below, exact) = number.scaled(scale.into())?;
        let below = i128::from(below);
        let above = if exact { below } else { below + 1 };
        let all = NumberRange::ALL;
        match op {
            Operator::GtEq => Some(NumberRange { low: above, ..all }),
            Operator::Gt => Some(NumberRange { low: below + 1, ..all }),
            Operator::LtEq => Some(NumberRange { high: below, ..all }),
            Operator::Lt => Some(NumberRange { high: above - 1, ..all }),
            _ => None,
        }
    }

    /// The numbers of a column, as [`Kind::range`] has them.
    fn numbers(self, column: &ArrayRef) -> Result<Vec<Option<i128>>, LakeError> {
        Ok(match self {
            Self::Date => {
                let days = read(column, &DataType::Date32)?;
                days.as_primitive::<Date32Type>().iter().map(|day| day.map(i128::from)).collect()
            }
            Self::Integer => {
                let numbers = read(column, &self.read_type())?;
                let numbers = numbers.as_primitive::<Int64Type>().iter();
                numbers.map(|number| number.map(i128::from)).collect()
            }
            Self::Decimal { .. } => {
                read(column, &self.read_type())?.as_primitive::<Decimal128Type>().iter().collect()
            }
            // They have no ranges.
            Self::Text | Self::Boolean => vec![None; column.len()],
        })
    }

    /// A number of such a column as a literal; `None` if the type of the column does not have it.
    fn literal(self, number: i128) -> Option<Expr> {
        let value = match self {
            Self::Date => ScalarValue::Date32(Some(number.try_into().ok()?)),
            Self::Integer => ScalarValue::Int64(Some(number.try_into().ok()?)),
            Self::Decimal { scale } => {
                let fits = number.unsigned_abs() < 10_u128.pow(18);
                fits.then(|| ScalarValue::Decimal128(Some(number), 18, scale.cast_signed()))?
            }
            Self::Text | Self::Boolean => return None,
        };
        Some(lit(value))
    }
}

fn read(column: &ArrayRef, of: &DataType) -> Result<ArrayRef, LakeError> {
    cast(column, of).map_err(|e| LakeError::engine("reading a compared column", e.into()))
}

/// `column op $parameter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Which of the compared columns it is.
    column: usize,
    kind: Kind,
    op: Operator,
    /// The parameter, with `$`.
    pub(crate) parameter: String,
}

impl Comparison {
    /// `None` if there is no parameter that a column of this type is compared with in a scan for several models.
    pub(crate) fn new(
        column: usize,
        data_type: &DataType,
        op: Operator,
        parameter: &str,
    ) -> Option<Self> {
        let kind = Kind::of(data_type)?;
        let is_ordered =
            matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
        // The engine compares decimals of these types in types with fewer digits.
        let is_short = matches!(data_type, DataType::Decimal32(..) | DataType::Decimal64(..));
        let is_shared = op == Operator::Eq || (is_ordered && !is_short);
        let parameter = parameter.to_owned();
        is_shared.then_some(Self { column, kind, op, parameter })
    }

    /// Whether it is another comparison than equality.
    pub(crate) fn is_range(&self) -> bool {
        self.op != Operator::Eq
    }

    /// Whether the engine compares the column with this value as the groups of a scan do.
    pub(crate) fn is_exact(&self, value: &ParameterValue) -> bool {
        match self.op {
            Operator::Eq => self.kind.is_compared_exactly(value),
            op => self.kind.range(op, value).is_some(),
        }
    }
}

/// A comparison of each column that is compared by order, in the order of the ranges of tuples.
fn ordered(comparisons: &[Comparison]) -> Vec<&Comparison> {
    let mut found: Vec<&Comparison> = Vec::new();
    for comparison in comparisons.iter().filter(|comparison| comparison.is_range()) {
        if found.iter().all(|known| known.column != comparison.column) {
            found.push(comparison);
        }
    }
    found
}

/// The tuples of groups with these values, one for each comparison; `None` if one cannot be compared.
pub(crate) fn tuples(comparisons: &[Comparison], groups: &[Vec<ParameterValue>]) -> Option<Tuples> {
    let ordered = ordered(comparisons);
    let tuple = |group: &Vec<ParameterValue>| {
        if group.len() != comparisons.len() {
            return None;
        }
        let mut found = Tuple { values: Vec::new(), ranges: vec![NumberRange::ALL; ordered.len()] };
        for (comparison, value) in comparisons.iter().zip(group) {
            if comparison.is_range() {
                let at = ordered.iter().position(|known| known.column == comparison.column)?;
                let range = found.ranges.get_mut(at)?;
                *range = range.and(comparison.kind.range(comparison.op, value)?);
            } else if comparison.is_exact(value) {
                found.values.push(value.clone());
            } else {
                return None;
            }
        }
        Some(found)
    };
    Tuples::new(&groups.iter().map(tuple).collect::<Option<Vec<Tuple>>>()?)
}

/// A condition that the rows of all groups meet, so that the engine need not read all others. `columns`: those that
/// are compared.
pub(crate) fn hull(tuples: &Tuples, comparisons: &[Comparison], columns: &[Expr]) -> Option<Expr> {
    let ordered = ordered(comparisons);
    let bounds = ordered.iter().zip(tuples.hull()).flat_map(|(comparison, range)| {
        [(Operator::GtEq, range.low), (Operator::LtEq, range.high)].map(|(op, number)| {
            let column = columns.get(comparison.column)?.clone();
            Some(binary_expr(column, op, comparison.kind.literal(number)?))
        })
    });
    bounds.flatten().reduce(Expr::and)
}

/// Bytes of the longest text that a string view has in itself, followed by zeros.
const MAX_TEXT_IN_VIEW: u32 = 12;

fn text_bits(view: u128) -> Option<u128> {
    (view as u32 <= MAX_TEXT_IN_VIEW).then_some(view)
}

/// Mixes the bits of a value, of which texts differ in the upper ones.
#[derive(Debug, Default)]
struct BitsHasher(u64);

impl Hasher for BitsHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u128((*byte).into()));
    }

    fn write_u128(&mut self, bits: u128) {
        let folded = self.0 ^ bits as u64 ^ ((bits >> 64) as u64).rotate_left(32);
        let product = u128::from(folded) * 0x9E37_79B9_7F4A_7C15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

/// The groups of values that rows had, where groups differ in the values of one column only. Values that are in no group
/// are not remembered, so there are at most as many as groups.
#[derive(Debug, Default)]
pub(crate) struct KnownGroups {
    /// Where the groups of a value are, by its bits.
    places: HashMap<u128, Place, BuildHasherDefault<BitsHasher>>,
    groups: Vec<u32>,
}

/// Where the groups of a value are among those that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    start: u32,
    end: u32,
}

impl Place {
    const NONE: Self = Self { start: 0, end: 0 };
    const UNKNOWN: Self = Self { start: u32::MAX, end: 0 };
}

impl KnownGroups {
    fn add(&mut self, bits: u128, groups: &[u32]) {
        let start = self.groups.len();
        // A group has one value, so there are not more than groups.
        let Ok(end) = u32::try_from(start + groups.len()) else { return };
        self.groups.extend_from_slice(groups);
        self.places.insert(bits, Place { start: start as u32, end });
    }

    fn at(&self, place: Place) -> &[u32] {
        self.groups.get(place.start as usize..place.end as usize).unwrap_or_default()
    }

    /// The places of all rows of a column, in one loop that does nothing else: row by row, each would wait for the
    /// memory of the one before it.
    fn places_of(&self, kind: Kind, column: &ArrayRef) -> Vec<Place> {
        let place = |bits: u128| self.places.get(&bits).copied().unwrap_or(Place::UNKNOWN);
        let mut places: Vec<Place> = match kind {
            Kind::Text | Kind::Date => {
                let views = column.as_string_view().views().iter();
                views.map(|view| text_bits(*view).map_or(Place::UNKNOWN, place)).collect()
            }
            Kind::Integer => {
                let numbers = column.as_primitive::<Int64Type>().values().iter();
                numbers.map(|number| place(number.cast_unsigned().into())).collect()
            }
            Kind::Decimal { .. } => {
                let numbers = column.as_primitive::<Decimal128Type>().values().iter();
                numbers.map(|number| place(number.cast_unsigned())).collect()
            }
            Kind::Boolean => {
                let values = column.as_boolean().values().iter();
                values.map(|value| place(value.into())).collect()
            }
        };
        if let Some(nulls) = column.nulls() {
            let rows = places.iter_mut().zip(nulls.iter());
            rows.filter(|(_, is_valid)| !is_valid).for_each(|(place, _)| *place = Place::NONE);
        }
        places
    }
}

/// Finds the groups of the rows of a batch.
pub(crate) struct RowGroups<'t> {
    tuples: &'t Tuples,
    known: &'t mut KnownGroups,
    /// The columns that are compared for equality, in the order of the values of tuples.
    equal: Vec<(Kind, ArrayRef)>,
    /// The numbers of the columns that are compared by order, in the order of the ranges of tuples.
    ordered: Vec<Vec<Option<i128>>>,
    /// Where the groups of each row are, if one column alone is compared.
    places: Vec<Place>,
    /// The last row's.
    bytes: Vec<u8>,
    numbers: Vec<i128>,
    groups: Vec<u32>,
}

impl<'t> RowGroups<'t> {
    /// `columns`: those that are compared. `known` is kept from batch to batch of one scan.
    pub(crate) fn new(
        tuples: &'t Tuples,
        known: &'t mut KnownGroups,
        comparisons: &[Comparison],
        columns: &[ArrayRef],
    ) -> Result<Self, LakeError> {
        let equal = comparisons.iter().filter(|comparison| !comparison.is_range());
        let equal = equal.map(|Comparison { kind, column, .. }| {
            read(&columns[*column], &kind.read_type()).map(|column| (*kind, column))
        });
        let equal = equal.collect::<Result<Vec<_>, LakeError>>()?;
        let ordered = ordered(comparisons).into_iter();
        let ordered = ordered.map(|found| found.kind.numbers(&columns[found.column]));
        let ordered = ordered.collect::<Result<Vec<_>, LakeError>>()?;
        let places = match equal.as_slice() {
            [(kind, column)] if ordered.is_empty() => known.places_of(*kind, column),
            _ => Vec::new(),
        };
        let (bytes, numbers, groups) = Default::default();
        Ok(Self { tuples, known, equal, ordered, places, bytes, numbers, groups })
    }

    /// The groups of a row; none for rows with a NULL, to which nothing compares.
    pub(crate) fn of(&mut self, row: usize) -> &[u32] {
        let bits = match (self.places.get(row), self.equal.first()) {
            (Some(place), _) if *place != Place::UNKNOWN => return self.known.at(*place),
            (Some(_), Some((kind, column))) => kind.bits(column, row),
            _ => None,
        };
        // An earlier row of the batch may have had the value.
        if let Some(known) = bits.and_then(|bits| self.known.places.get(&bits)) {
            return self.known.at(*known);
        }
        self.bytes.clear();
        self.numbers.clear();
        self.groups.clear();
        for (kind, column) in &self.equal {
            if column.is_null(row) {
                return &[];
            }
            kind.append(column, row, &mut self.bytes);
        }
        for numbers in &self.ordered {
            let Some(number) = numbers[row] else { return &[] };
            self.numbers.push(number);
        }
        self.tuples.append_groups(&self.bytes, &self.numbers, &mut self.groups);
        if let Some(bits) = bits.filter(|_| !self.groups.is_empty()) {
            self.known.add(bits, &self.groups);
        }
        &self.groups
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{BooleanArray, Decimal128Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn values_that_rows_had_before_have_the_same_groups() {
        let long = "a name of more than twelve bytes";
        let names = ["a", "b", "", "abcdefghijkl", "abcdefghijklm", long, "a", "b"];
        let comparisons = [Comparison::new(0, &DataType::Utf8, Operator::Eq, "$name").unwrap()];
        let groups: Vec<Vec<ParameterValue>> =
            names.iter().map(|name| vec![ParameterValue::Text((*name).to_owned())]).collect();
        let tuples = tuples(&comparisons, &groups).unwrap();
        let column: ArrayRef = Arc::new(StringArray::from(vec![
            Some("b"),
            Some("z"),
            None,
            Some(long),
            Some("abcdefghijklm"),
            Some("abcdefghijkl"),
            Some(""),
            Some("a"),
            Some("b\0"),
            Some("b"),
        ]));
        let b = vec![1, 7];
        let (none, a) = (Vec::new(), vec![0, 6]);
        let expected = [b.clone(), none.clone(), none.clone(), vec![5], vec![4], vec![3], vec![2]];
        let expected: Vec<Vec<u32>> = expected.into_iter().chain([a, none, b]).collect();
        let mut known = KnownGroups::default();
        for _ in 0..2 {
            let columns = [Arc::clone(&column)];
            let mut rows = RowGroups::new(&tuples, &mut known, &comparisons, &columns).unwrap();
            let found: Vec<Vec<u32>> = (0..column.len()).map(|row| rows.of(row).to_vec()).collect();
            assert_eq!(found, expected);
        }
        // Neither values of no group nor long ones.
        assert_eq!(known.places.len(), 4);
    }

    #[test]
    fn values_of_every_type_have_their_groups_in_each_batch() {
        let decimals = Decimal128Array::from(vec![Some(150), None, Some(-7), Some(150)]);
        let columns: [(ArrayRef, [ParameterValue; 2]); 3] = [
            (
                Arc::new(Int64Array::from(vec![Some(5), None, Some(-1), Some(5)])),
                [5, -1].map(ParameterValue::Integer),
            ),
            (
                Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)])),
                [true, false].map(ParameterValue::Boolean),
            ),
            (
                Arc::new(StringArray::from(vec![Some("x"), None, Some("y"), Some("x")])),
                ["x", "y"].map(|text| ParameterValue::Text(text.to_owned())),
            ),
        ];
        for (column, values) in columns {
            let of = column.data_type();
            let comparisons = [Comparison::new(0, of, Operator::Eq, "$value").unwrap()];
            let groups: Vec<Vec<ParameterValue>> = values.into_iter().map(|v| vec![v]).collect();
            let tuples = tuples(&comparisons, &groups).unwrap();
            let mut known = KnownGroups::default();
            for _ in 0..2 {
                let columns = [Arc::clone(&column)];
                let mut rows = RowGroups::new(&tuples, &mut known, &comparisons, &columns).unwrap();
                let found: Vec<Vec<u32>> = (0..4).map(|row| rows.of(row).to_vec()).collect();
                assert_eq!(found, [vec![0], vec![], vec![1], vec![0]], "{of}");
            }
            assert_eq!(known.places.len(), 2, "{of}");
        }
        // Decimals are compared as ranges only; their places are found alike.
        let kind = Kind::Decimal { scale: 2 };
        let column: ArrayRef = Arc::new(decimals);
        let mut known = KnownGroups::default();
        known.add(150, &[3]);
        let places = known.places_of(kind, &column);
        let groups = |place: &Place| known.at(*place).to_vec();
        assert_eq!(
            places.iter().map(groups).collect::<Vec<_>>(),
            [vec![3], vec![], vec![], vec![3]]
        );
        assert_eq!((places[1], places[2]), (Place::NONE, Place::UNKNOWN));
    }

    #[test]
    fn bounds_are_those_of_the_numbers_that_a_column_has() {
        let decimal = |unscaled| ParameterValue::Decimal { unscaled, scale: 3 };
        let all = NumberRange::ALL;
        let (from, to) = (|low| NumberRange { low, ..all }, |high| NumberRange { high, ..all });
        // Hundredths compared with thousandths.
        for (thousandths, expected) in [
            (1_005, [from(101), from(101), to(100), to(100)]),
            (1_000, [from(100), from(101), to(100), to(99)]),
            (-1_005, [from(-100), from(-100), to(-101), to(-101)]),
        ] {
            let ops = [Operator::GtEq, Operator::Gt, Operator::LtEq, Operator::Lt];
            let range = |op| Kind::Decimal { scale: 2 }.range(op, &decimal(thousandths));
            assert_eq!(ops.map(range), expected.map(Some), "{thousandths}");
        }
        let date = |text: &str| ParameterValue::Date(text.to_owned());
        let since = |kind: Kind, value| kind.range(Operator::GtEq, &value);
        assert_eq!(since(Kind::Date, date("1970-01-02")), Some(from(1)));
        assert_eq!(
            since(Kind::Integer, ParameterValue::Integer(i64::MIN)),
            Some(from(i64::MIN.into()))
        );
        for (kind, value) in [
            (Kind::Date, date("2026-02-31")),
            (Kind::Date, ParameterValue::Integer(1)),
            (Kind::Integer, date("1970-01-02")),
            (Kind::Text, ParameterValue::Text("a".to_owned())),
            (Kind::Boolean, ParameterValue::Boolean(true)),
            // It has too many digits: such models are scanned alone.
            (Kind::Decimal { scale: 2 }, ParameterValue::Integer(i64::MAX)),
        ] {
            assert_eq!(since(kind, value.clone()), None, "{kind:?} {value:?}");
        }
    }
}
