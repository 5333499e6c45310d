//! Content that is not what it is sent as: whether a batch is refused for it, and the hint of what it is instead.

use throng_schema::{RecordFormat, Schema};

use crate::error::IngestError;
use crate::reason::Reason;
use crate::source::Content;
use crate::tally::Tally;

/// Refuses a batch of CSV or JSON lines of which no row has the form of a record: all rows failed as a whole, before
/// any value was checked. One row whose values were checked is enough for the batch to be what it is sent as; its
/// rows are in quarantine then. A file that can be read as Parquet is Parquet, whatever its rows are.
pub(crate) fn check(
    tally: &Tally,
    content: &Content<'_>,
    format: RecordFormat,
    schema: &Schema,
) -> Result<(), IngestError> {
    let Some((reason, line)) = tally.unreadable().filter(|_| format != RecordFormat::Parquet)
    else {
        return Ok(());
    };
    let (cause, help) = match reason {
        Reason::UnknownField => {
            let fields = schema.fields.iter().map(|field| field.name.as_str());
            let fields = fields.collect::<Vec<_>>().join(",");
            let help = format!("the names in the objects are the fields of the schema: {fields}");
            ("the row has a field that is not in the schema", help)
        }
        Reason::WrongWidth => {
            let help = "separate cells by commas, and write those with commas in quotes";
            ("the row has more or fewer cells than the header", help.to_owned())
        }
        Reason::MisplacedQuote => {
            let help = "write a cell with quotes in it as `\"a \"\"cell\"\"\"`";
            ("a quote of the row is misplaced", help.to_owned())
        }
        Reason::RepeatedHeader => (
            "the row repeats the header",
            "send files one by one instead of joining them".to_owned(),
        ),
        Reason::ByteOrderMark => {
            ("the row begins with a byte order mark", "send the file without it".to_owned())
        }
        Reason::RowTooLong => {
            ("the row is longer than 1 MiB", "end each row with a line feed".to_owned())
        }
        _ => ("the row is not a JSON object", "write one JSON object a line".to_owned()),
    };
    let message =
        format!("line {line}: {cause}, and no row of the content has the form of a record");
    Err(with_hint(IngestError::refused(message, help), content, format, schema))
}

/// The error of content that cannot be read, with the hint of what the content is if it is not of its format.
pub(crate) fn with_hint(
    error: IngestError,
    content: &Content<'_>,
    format: RecordFormat,
    schema: &Schema,
) -> IngestError {
    match error {
        IngestError::Refused { message, help } => {
            let found = hint(content.beginning(), content.is_encoded(), format, schema);
            IngestError::Refused { message, help: found.unwrap_or(help) }
        }
        other => other,
    }
}

/// What content begins like, and how to send that. `None` if it begins like its format, or like nothing known.
/// `is_encoded`: the content was decoded from what was sent.
fn hint(
    beginning: &[u8],
    is_encoded: bool,
    format: RecordFormat,
    schema: &Schema,
) -> Option<String> {
    let compressed = |name: &str, ending: &str| match is_encoded {
        true => format!("decoded, it begins like {name}: compress it only once"),
        false => format!(
            "it begins like {name}: send it with `content-encoding: {name}`, or name the file `{ending}`"
        ),
    };
    if beginning.starts_with(b"\x1f\x8b") {
        return Some(compressed("gzip", ".gz"));
    }
    if beginning.starts_with(b"\x28\xb5\x2f\xfd") {
        return Some(compressed("zstd", ".zst"));
    }
    if beginning.starts_with(b"PK\x03\x04") {
        let help = "it begins like a ZIP archive, as spreadsheets are: send the file in it, or the sheet as CSV";
        return Some(help.to_owned());
    }
    let text = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning).trim_ascii_start();
    if text.first() == Some(&b'<') {
        let help =
            "it begins like HTML or XML, such as the error page of a server: fetch the file again";
        return Some(help.to_owned());
    }
    let (name, found) = if beginning.starts_with(b"PAR1") {
        ("Parquet", RecordFormat::Parquet)
    } else if matches!(text.first(), Some(b'{' | b'[')) {
        ("JSON", RecordFormat::Ndjson)
    } else if names_a_field(text, schema) {
        ("CSV", RecordFormat::Csv)
    } else {
        return None;
    };
    (found != format).then(|| {
        format!(
            "it begins like {name}: send it with the content type `{}`, or name the file `.{}`",
            found.content_type(),
            found.name()
        )
    })
}

/// Whether the first line has the name of a field as a cell.
fn names_a_field(text: &[u8], schema: &Schema) -> bool {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.split(|byte| *byte == b',').any(|cell| {
        let cell = cell.trim_ascii();
        let quoted = cell.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        let name = quoted.unwrap_or(cell);
        schema.fields.iter().any(|field| field.name.as_bytes() == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_says_what_the_content_is_and_how_to_send_it() {
        let schema: Schema = serde_json::from_str(
            r#"{"name": "s", "description": null, "key": "id", "fields": [
                {"name": "id", "type": "text", "required": true}]}"#,
        )
        .unwrap();
        let found = |beginning: &[u8], format| hint(beginning, false, format, &schema);
        let (csv, json, parquet) = (RecordFormat::Csv, RecordFormat::Ndjson, RecordFormat::Parquet);
        let all = [csv, json, parquet];
        for (beginning, formats, part) in [
            (&b"\x1f\x8b\x08\0"[..], &all[..], "gzip: send it with `content-encoding: gzip`"),
            (&b"\x28\xb5\x2f\xfd\x04"[..], &all[..], "send it with `content-encoding: zstd`"),
            (&b"PK\x03\x04\x14"[..], &all[..], "a ZIP archive"),
            (&b"\xef\xbb\xbf\r\n<!DOCTYPE html>"[..], &all[..], "HTML"),
            (
                &b"PAR1\x15"[..],
                &all[..2],
                "Parquet: send it with the content type `application/vnd.",
            ),
            (
                &b"{\"id\":\"a\"}\n"[..],
                &[csv, parquet][..],
                "the content type `application/x-ndjson`",
            ),
            (&b"n, \"id\" \r\n1,a\n"[..], &all[1..], "the content type `text/csv`"),
        ] {
            for format in formats {
                let hint = found(beginning, *format);
                assert!(hint.as_ref().is_some_and(|text| text.contains(part)), "{part} {hint:?}");
            }
        }
        for (beginning, format) in [
            (&b"PAR1\x15"[..], parquet),
            (&b"{\n"[..], json),
            (&b"["[..], json),
            (&b"id\n"[..], csv),
            (&b"a,b\n"[..], json),
            (&b""[..], csv),
        ] {
            assert_eq!(found(beginning, format), None);
        }
        let twice = hint(b"\x1f\x8b\x08\0", true, json, &schema);
        assert!(twice.is_some_and(|text| text.ends_with("compress it only once")));
    }
}
