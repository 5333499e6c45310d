//! The types of CSV columns. The engine guesses from the first rows; here all rows are looked at.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Column;
use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::bool_or;
use datafusion::prelude::{Expr, lit, try_cast};

use crate::LakeError;

/// What the rows of a column say against its guessed type.
#[derive(Debug, Clone, Copy, Default)]
struct Findings {
    /// A number is written with a leading zero: `00042` is a name and not the number 42.
    leading_zero: bool,
    /// A value is not of the guessed type.
    misfit: bool,
    /// A value is not of the guessed type and no decimal fraction either.
    no_fraction: bool,
}

/// The type that holds every value as it is written, or at least as a number.
fn settled(guessed: &DataType, found: Findings) -> DataType {
    if !found.leading_zero && !found.misfit {
        guessed.clone()
    } else if guessed.is_integer() && !found.leading_zero && !found.no_fraction {
        DataType::Float64
    } else {
        DataType::Utf8
    }
}

/// The guessed schema with the types that fit all rows. `text` is the same table with every column
/// as text; it is read once, and not at all if all columns are text anyway.
pub(crate) async fn corrected(guessed: &Schema, text: DataFrame) -> Result<Schema, LakeError> {
    let doing = "looking through a table's columns";
    let fail = |e| LakeError::engine(doing, e);
    let typed: Vec<&Field> = guessed
        .fields()
        .iter()
        .map(AsRef::as_ref)
        .filter(|f| !matches!(f.data_type(), DataType::Utf8 | DataType::Null))
        .collect();
    if typed.is_empty() {
        return Ok(guessed.clone());
    }
    let questions: Vec<Expr> = typed
        .iter()
        .enumerate()
        .flat_map(|(place, field)| {
            let named = |what: &str| format!("{what}{place}");
            let [zero, misfit, no_fraction] = questions(field);
            [
                bool_or(zero).alias(named("zero")),
                bool_or(misfit).alias(named("misfit")),
                bool_or(no_fraction).alias(named("fraction")),
            ]
        })
        .collect();
    let answers = text.aggregate(Vec::new(), questions).map_err(fail)?;
    let answers = answers.collect().await.map_err(fail)?;
    let yes = |column: usize| {
        answers.iter().filter(|batch| batch.num_rows() > 0).any(|batch| {
            // NULL: there were no rows.
            batch.column(column).as_boolean().iter().next().flatten().unwrap_or(false)
        })
    };
    let findings: Vec<(&str, Findings)> = typed
        .iter()
        .enumerate()
        .map(|(place, field)| {
            let at = place * 3;
            let found =
                Findings { leading_zero: yes(at), misfit: yes(at + 1), no_fraction: yes(at + 2) };
            (field.name().as_str(), found)
        })
        .collect();
    let fields: Vec<Field> = guessed
        .fields()
        .iter()
        .map(|field| {
            let found = findings.iter().find(|(name, _)| name == field.name());
            let data_type = found.map(|(_, found)| settled(field.data_type(), *found));
            let field = field.as_ref().clone();
            match data_type {
                Some(data_type) => field.with_data_type(data_type),
                None => field,
            }
        })
        .collect();
    Ok(Schema::new(fields))
}

/// Whether a value has a leading zero, misfits, and misfits without being a fraction.
fn questions(field: &Field) -> [Expr; 3] {
    let value = || Expr::Column(Column::from_name(field.name()));
    let there = || value().is_not_null().and(value().not_eq(lit("")));
    let misfit = || there().and(try_cast(value(), field.data_type().clone()).is_null());
    let zero = if field.data_type().is_integer() {
        value().like(lit("0_%")).or(value().like(lit("-0_%")))
    } else {
        lit(false)
    };
    let fraction = value().like(lit("%.%")).and(try_cast(value(), DataType::Float64).is_not_null());
    [zero, misfit(), misfit().and(fraction.is_not_true())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_changed_for_the_sake_of_a_type() {
        let found =
            |leading_zero, misfit, no_fraction| Findings { leading_zero, misfit, no_fraction };
        let int = DataType::Int64;
        assert_eq!(settled(&int, found(false, false, false)), int);
        assert_eq!(settled(&int, found(true, false, false)), DataType::Utf8);
        assert_eq!(settled(&int, found(false, true, false)), DataType::Float64);
        // Twenty digits are an identifier: a float would merge neighbours.
        assert_eq!(settled(&int, found(false, true, true)), DataType::Utf8);
        assert_eq!(settled(&DataType::Date32, found(false, true, false)), DataType::Utf8);
    }
}
