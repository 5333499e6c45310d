//! Content that is not what it is sent as is refused as a whole, whichever rows a reader of its format sees in it.

use std::io::Write as _;

use throng_ingest::{Encoding, IngestError, IngestRequest};
use throng_schema::RecordFormat;

use super::{Rig, csv, schema};

const JSON: &str = "{\"email\":\"mary@example.com\",\"seen\":\"2026-11-25\"}\n";
const HTML: &str = "\n<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>\n";
const CSV: &str = "email,seen\nmary@example.com,2026-11-25\n";

fn json(batch: &str) -> IngestRequest {
    IngestRequest { format: RecordFormat::Ndjson, ..csv(batch) }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// The message and the help of a batch that is refused.
fn refusal(rig: &Rig, request: &IngestRequest, body: &[u8]) -> (String, String) {
    match rig.ingest.run(&schema(), request, body) {
        Err(IngestError::Refused { message, help }) => (message, help),
        other => panic!("{other:?}"),
    }
}

#[test]
fn content_without_a_record_is_refused_with_what_it_begins_like_and_its_id_stays_free() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let form = "and no row of the content has the form of a record";
    let no_object = "line 1: the row is not a JSON object";
    let (once, twice) = (gzip(JSON.as_bytes()), gzip(&gzip(JSON.as_bytes())));
    let (lines, cells) = (json("a"), csv("a"));
    let as_gzip = IngestRequest { encoding: Encoding::Gzip, ..json("a") };
    for (request, body, line, hint) in [
        (&lines, &once[..], no_object, "gzip: send it with"),
        (&as_gzip, &twice[..], no_object, "compress it only once"),
        (&lines, HTML.as_bytes(), "line 2: the row is not a JSON object", "HTML"),
        (&lines, CSV.as_bytes(), no_object, "`text/csv`"),
        (&lines, &b"{\n\"email\":\n1\n}"[..], no_object, "one JSON object a line"),
        (
            &lines,
            &b"{\"error\":\"not found\"}\n"[..],
            "line 1: the row has a field that is not in the schema",
            "email,seen,age,note,ssn",
        ),
        (
            &cells,
            &b"email,seen\nmary@example.com;2026-11-25\n"[..],
            "line 2: the row has more or fewer cells than the header",
            "by commas",
        ),
        (&cells, &b"email,seen\n5\" x,y\n\n1\n"[..], "line 2: a quote of the row", "quotes"),
    ] {
        let (message, help) = refusal(&rig, request, body);
        assert!(message.starts_with(line) && message.ends_with(form), "{message}");
        assert!(help.contains(hint), "{message}: {help}");
        assert!(rig.rows().is_empty() && rig.left_over().is_empty(), "{message}");
        assert!(rig.quarantine().is_empty(), "{message}");
    }
    let report = rig.ingest.run(&schema(), &lines, JSON.as_bytes()).unwrap();
    assert_eq!((report.accepted, report.repeated), (1, false));
}

#[test]
fn a_header_that_cannot_be_read_has_the_hint_too() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let (cells, once) = (csv(""), gzip(CSV.as_bytes()));
    let parquet = IngestRequest { format: RecordFormat::Parquet, ..csv("") };
    for (request, body, hint) in [
        (&cells, &once[..], "`content-encoding: gzip`"),
        (&cells, HTML.as_bytes(), "HTML"),
        (&cells, JSON.as_bytes(), "`application/x-ndjson`"),
        (&parquet, CSV.as_bytes(), "`text/csv`"),
        (&parquet, &b"PAR1, and nothing of the rest"[..], "send a whole Parquet file"),
    ] {
        let (message, help) = refusal(&rig, request, body);
        assert!(help.contains(hint), "{message}: {help}");
    }
}

#[test]
fn rows_whose_values_fail_are_in_quarantine_also_if_none_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let rows = "no object\n{\"email\":\"nobody\",\"seen\":\"2026-11-25\"}\n";
    let report = rig.ingest.run(&schema(), &json("a"), rows.as_bytes()).unwrap();
    assert_eq!((report.rows, report.accepted, report.quarantined), (2, 0, 2));
    assert_eq!(rig.quarantine().len(), 2);
    // One record, whatever the other rows are.
    let rows = format!("{HTML}{JSON}");
    let report = rig.ingest.run(&schema(), &json("b"), rows.as_bytes()).unwrap();
    assert_eq!((report.rows, report.accepted), (3, 1));
    // A file with a header only, or with blank lines only, has no row that could be wrong.
    assert_eq!(rig.csv("c", "email,seen\n").unwrap().rows, 0);
    assert_eq!(rig.ingest.run(&schema(), &json("d"), &b"\n\n"[..]).unwrap().rows, 0);
}
