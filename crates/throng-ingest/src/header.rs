//! The columns of a file against the fields of its schema.

use throng_schema::Schema;

use crate::cells::Cells;
use crate::error::IngestError;

/// The place of each field's column in a file with these columns; `None` if the file lacks it. Names of columns that
/// are not fields are not repeated: without a header they would be values.
///
/// # Errors
/// [`IngestError::Refused`] if a column is not a field, is there twice, or a required field has no column.
pub(crate) fn places(schema: &Schema, names: &[&[u8]]) -> Result<Vec<Option<usize>>, IngestError> {
    let mut places = vec![None; schema.fields.len()];
    let help = || {
        let fields: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
        format!(
            "the columns are the fields of the schema, separated by commas: {}",
            fields.join(",")
        )
    };
    for (at, name) in names.iter().enumerate() {
        let number = at + 1;
        let field = schema.fields.iter().position(|field| field.name.as_bytes() == *name);
        let Some(field) = field else {
            let message =
                format!("line 1: column {number} of {} is not a field of the schema", names.len());
            return Err(IngestError::refused(message, help()));
        };
        if let Some(first) = places[field].replace(at) {
            let message = format!(
                "line 1: the columns {} and {number} are both `{}`",
                first + 1,
                schema.fields[field].name
            );
            return Err(IngestError::refused(message, "remove one of them"));
        }
    }
    let missing =
        schema.fields.iter().zip(&places).find(|(f, place)| f.required && place.is_none());
    match missing {
        Some((field, _)) => {
            let message =
                format!("line 1: there is no column for the required field `{}`", field.name);
            Err(IngestError::refused(message, help()))
        }
        None => Ok(places),
    }
}

/// The names in the cells of a header.
pub(crate) fn names<'a>(cells: &'a Cells, block: &'a [u8]) -> Vec<&'a [u8]> {
    (0..cells.len()).map(|at| cells.get(at, block).unwrap_or_default().trim_ascii()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_fields_in_any_order() {
        let schema: Schema = serde_json::from_str(
            r#"{"name": "s", "description": null, "key": "id", "fields": [
                {"name": "id", "type": "text", "required": true},
                {"name": "n", "type": "integer"}]}"#,
        )
        .unwrap();
        let found = |names: &[&str]| {
            let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
            places(&schema, &names).map_err(|error| error.to_string())
        };
        assert_eq!(found(&["n", "id"]), Ok(vec![Some(1), Some(0)]));
        assert_eq!(found(&["id"]), Ok(vec![Some(0), None]));
        for (names, message) in [
            (&["id", "ann@example.com"][..], "line 1: column 2 of 2 is not a field of the schema"),
            (&["id", "id"], "line 1: the columns 1 and 2 are both `id`"),
            (&["n"], "line 1: there is no column for the required field `id`"),
            (&[], "line 1: there is no column for the required field `id`"),
        ] {
            assert_eq!(found(names), Err(message.to_owned()));
        }
    }
}
