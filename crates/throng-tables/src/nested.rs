//! Where two types of nested values differ. Pure.

use datafusion::arrow::datatypes::DataType;
use throng_files::Step;

/// A path in nested values, and the two types there; `None`: the field is missing.
pub(super) type Difference<'a> = (Vec<Step>, Option<&'a DataType>, Option<&'a DataType>);

/// The first path at which two types differ. `None` if no field differs: only the order of the
/// fields, or whether they may be NULL.
pub(super) fn difference<'a>(a: &'a DataType, b: &'a DataType) -> Option<Difference<'a>> {
    use DataType::{LargeList, List, Struct};
    Some(match (a, b) {
        _ if a == b || (a.is_string() && b.is_string()) => return None,
        (Struct(m), Struct(n)) => {
            let field = |name: &String| Step::Field(name.clone());
            for one in m {
                let Some(other) = n.iter().find(|other| other.name() == one.name()) else {
                    return Some((vec![field(one.name())], Some(one.data_type()), None));
                };
                if let Some(inner) = difference(one.data_type(), other.data_type()) {
                    return Some(within(field(one.name()), inner));
                }
            }
            let added = n.iter().find(|other| m.iter().all(|one| one.name() != other.name()))?;
            (vec![field(added.name())], None, Some(added.data_type()))
        }
        (List(m) | LargeList(m), List(n) | LargeList(n)) => {
            within(Step::Items, difference(m.data_type(), n.data_type())?)
        }
        _ => (Vec::new(), Some(a), Some(b)),
    })
}

fn within(step: Step, (mut path, a, b): Difference<'_>) -> Difference<'_> {
    path.insert(0, step);
    (path, a, b)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Field;
    use throng_files::shown_path;

    use super::*;

    fn object(fields: &[(&str, DataType)]) -> DataType {
        let field = |(name, of): &(&str, DataType)| Field::new(*name, of.clone(), true);
        DataType::Struct(fields.iter().map(field).collect())
    }

    #[test]
    fn the_first_field_that_differs_is_named() {
        let address = |zip: DataType| object(&[("city", DataType::Utf8), ("zip", zip)]);
        let list = |of: DataType| DataType::new_list(of, true);
        let of = |a: &DataType, b: &DataType| {
            let (path, a, b) = difference(a, b)?;
            Some(format!("{} {a:?} {b:?}", shown_path("x", &path)))
        };
        let (text, number) = (DataType::Utf8View, DataType::Int64);
        for (a, b, found) in [
            (text.clone(), number.clone(), Some("x Some(Utf8View) Some(Int64)")),
            (address(text.clone()), address(DataType::Utf8), None),
            (
                address(text.clone()),
                address(number.clone()),
                Some("x.zip Some(Utf8View) Some(Int64)"),
            ),
            (
                list(object(&[("a", address(number.clone()))])),
                list(object(&[("a", address(DataType::Boolean))])),
                Some("x[].a.zip Some(Int64) Some(Boolean)"),
            ),
            (object(&[]), object(&[("a", number.clone())]), Some("x.a None Some(Int64)")),
            (object(&[("a", number.clone())]), object(&[]), Some("x.a Some(Int64) None")),
        ] {
            assert_eq!(of(&a, &b).as_deref(), found);
        }
    }
}
