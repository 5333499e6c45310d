//! Files of every format, right and wrong.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, DictionaryArray, Float64Array, Int32Array, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::Int32Type;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::data_type::{ByteArray, ByteArrayType, Int96, Int96Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use throng_ingest::{Encoding, IngestRequest};
use throng_schema::{RecordFormat, Schema};

use super::{Rig, csv, schema};

/// `mary@example.com` and `ann@example.com`, by the first digits of their hashes.
const MARY: &str = "f1904cf1";

const THREE: &str = "\u{feff}email,seen,age,note,ssn\r\n\
    Mary@Example.com,2026-11-25,40,\"a \"\"b\"\",\r\nc\",123-45-6789\r\n\
    \r\n\
    mailto:mary@example.com,2026-11-24,,,\r\n";

#[test]
fn rows_are_normalised_hashed_and_partitioned_by_day() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let report = rig.csv("one", THREE).unwrap();
    assert_eq!((report.rows, report.accepted, report.quarantined), (2, 2, 0));
    assert_eq!((report.days, report.files, report.batch.as_str()), (2, 2, "one"));
    let first = format!("2026-11-24 {MARY} - -");
    assert_eq!(rig.rows(), [first, format!("2026-11-25 {MARY} 40 a \"b\",\r\nc")]);
    // Neither the address nor what is dropped is in any file.
    let mut folders = vec![dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            for secret in ["ary@", "123-45"] {
                assert!(
                    memchr::memmem::find(&bytes, secret.as_bytes()).is_none(),
                    "{}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn every_format_and_encoding_gives_the_same_rows() {
    let json = "{\"email\":\"mary@example.com\",\"seen\":\"2026-11-25\",\"age\":40,\"ssn\":null}\n\
        {\"seen\":\"2026-11-25\",\"note\":\"\\u00e4\",\"email\":\"mary@example.com\"}\n";
    let expected = [format!("2026-11-25 {MARY} - ä"), format!("2026-11-25 {MARY} 40 -")];
    let emails: ArrayRef = Arc::new(StringArray::from(vec!["mary@example.com"; 2]));
    let day = 1_795_600_800_000;
    let seen: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![20_782; 2]));
    let ages: ArrayRef = Arc::new(Int32Array::from(vec![Some(40), None]));
    let notes: ArrayRef = Arc::new(StringArray::from(vec![None, Some("ä")]));
    let columns = [("note", notes), ("email", emails), ("seen", seen), ("age", ages)];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    let mut parquet = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(json.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(json.as_bytes(), 1).unwrap();
    for (body, format, encoding) in [
        (json.as_bytes(), RecordFormat::Ndjson, Encoding::Identity),
        (&gzip[..], RecordFormat::Ndjson, Encoding::Gzip),
        (&zstd[..], RecordFormat::Ndjson, Encoding::Zstd),
        (&parquet[..], RecordFormat::Parquet, Encoding::Identity),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::new(dir.path());
        let request = IngestRequest { batch: None, format, encoding };
        let report = rig.ingest.run(&schema(), &request, body).unwrap();
        assert_eq!(report.faults, [], "{format:?}");
        let mut rows = rig.rows();
        rows.sort();
        assert_eq!(rows, expected, "{format:?} {encoding:?}");
        assert_eq!(report.batch, report.digest);
    }
    // A point in time is not a date: it goes to quarantine.
    let seen: ArrayRef =
        Arc::new(TimestampMillisecondArray::from(vec![day]).with_timezone("+02:00"));
    let emails: ArrayRef = Arc::new(StringArray::from(vec!["mary@example.com"]));
    let batch = RecordBatch::try_from_iter([("email", emails), ("seen", seen)]).unwrap();
    let mut parquet = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let encoding = Encoding::Identity;
    let request = IngestRequest { batch: None, format: RecordFormat::Parquet, encoding };
    let report = rig.ingest.run(&schema(), &request, &parquet[..]).unwrap();
    let faults: Vec<_> = report.faults.iter().map(|f| (f.reason.as_str(), f.first_line)).collect();
    assert_eq!(faults, [("not_a_date", 1)]);
    let error = rig.ingest.run(&schema(), &request, &parquet[..parquet.len() - 9]).unwrap_err();
    assert_eq!(error.to_string(), "the content cannot be read as Parquet");
}

/// A Parquet file of rows with this note, each text stored once.
fn parquet_with_note(note: &str, rows: usize) -> Vec<u8> {
    let emails: ArrayRef = Arc::new(StringArray::from(vec!["mary@example.com"; rows]));
    let seen: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![20_782; rows]));
    let notes: ArrayRef = Arc::new(StringArray::from(vec![note; rows]));
    let batch =
        RecordBatch::try_from_iter([("email", emails), ("seen", seen), ("note", notes)]).unwrap();
    let mut parquet = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    parquet
}

#[test]
fn large_rows_of_a_small_parquet_file_do_not_fill_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let (format, encoding) = (RecordFormat::Parquet, Encoding::Identity);
    let request = IngestRequest { batch: None, format, encoding };
    let bomb = parquet_with_note(&"x".repeat(64 << 10), 1000);
    assert!(bomb.len() < 2 << 20, "{}", bomb.len());
    let error = rig.ingest.run(&schema(), &request, &bomb[..]).unwrap_err();
    assert_eq!(error.to_string(), "rows 1 and later have more than 32 KiB on average");
    assert!(rig.rows().is_empty() && rig.left_over().is_empty());
    let long = parquet_with_note(&"x".repeat(2 << 20), 1);
    let report = rig.ingest.run(&schema(), &request, &long[..]).unwrap();
    let faults: Vec<_> = report.faults.iter().map(|f| (f.reason.as_str(), f.first_line)).collect();
    assert_eq!((report.accepted, faults), (0, vec![("row_too_long", 1)]));
}

#[test]
fn rows_that_fail_are_quarantined_with_reason_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let long = "x".repeat(3 << 20);
    let text = format!(
        "email,seen,age\nmary@example.com,2026-11-25,40\nnobody,2026-11-25,40\n\
         mary@example.com,25.11.2026,40\nmary@example.com,2026-11-25,12\nmary@example.com,2026-11-25\n\
         mary@example.com,2026-11-25,4,5\n5\" x,2026-11-25,40\n{long}\n,2026-11-25,40\nno one,2026-11-25,40\n"
    );
    let report = rig.csv("b", &text).unwrap();
    assert_eq!((report.rows, report.accepted, report.quarantined), (10, 1, 9));
    let faults: Vec<(Option<&str>, &str, u64, u64)> = report
        .faults
        .iter()
        .map(|f| (f.field.as_deref(), f.reason.as_str(), f.rows, f.first_line))
        .collect();
    assert_eq!(
        faults,
        [
            (None, "wrong_width", 2, 6),
            (None, "misplaced_quote", 1, 8),
            (None, "row_too_long", 1, 9),
            (Some("email"), "missing", 1, 10),
            (Some("email"), "not_an_email", 2, 3),
            (Some("seen"), "not_a_date", 1, 4),
            (Some("age"), "below_min", 1, 5),
        ]
    );
    let rows = rig.quarantine();
    assert_eq!((rows.len() as u64, report.quarantine_kept), (9, 9));
    assert_eq!(rows[0]["row"], "nobody,2026-11-25,40");
    assert_eq!(rows[0]["reason"], "not_an_email");
    assert!(rows[6]["row"].as_str().unwrap().len() <= 64 << 10);
    let folder = dir.path().join("private/quarantine/default/customers");
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    assert_eq!(mode(&file), 0o600);
    // Thirty days later it is removed.
    assert_eq!(rig.ingest.remove_expired(&[schema()]).unwrap(), 0);
    rig.clock.advance(std::time::Duration::from_secs(31 * 86_400));
    assert_eq!(rig.ingest.remove_expired(&[schema()]).unwrap(), 1);
    assert_eq!(rig.quarantine().len(), 0);
}

#[test]
fn files_that_were_joined_and_line_ends_of_windows_make_no_values() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let faults = |report: &throng_api::IngestReport| -> Vec<(String, u64, u64)> {
        report.faults.iter().map(|f| (f.reason.clone(), f.rows, f.first_line)).collect()
    };
    let returns = "age,seen,email\r\r\n40,2026-11-25,mary@example.com\r\r\n\r\r\n\
                   41,2026-11-25,\"ann@example.com\"\r\r\n\x1a";
    let report = rig.csv("returns", returns).unwrap();
    assert_eq!((report.rows, report.accepted), (2, 2), "{:?}", report.faults);
    let joined = "email,seen,age\nmary@example.com,2026-11-25,40\n email,Seen,AGE\n\
                  ann@example.com,2026-11-25,40\n\u{feff}email,seen,age\n\u{feff}\"email\",seen,age\n\
                  bob@example.com,2026-11-25,40\n";
    let report = rig.csv("joined", joined).unwrap();
    assert_eq!((report.rows, report.accepted), (6, 3));
    let expected = [("repeated_header", 2, 3), ("byte_order_mark", 1, 6)];
    assert_eq!(faults(&report), expected.map(|(why, rows, line)| (why.to_owned(), rows, line)));
    let objects = "\u{feff}{\"email\":\"mary@example.com\",\"seen\":\"2026-11-25\"}\n\
                   \u{feff}{\"email\":\"ann@example.com\",\"seen\":\"2026-11-25\"}\n\u{feff}\n\x1a";
    let request = IngestRequest { format: RecordFormat::Ndjson, ..csv("objects") };
    let report = rig.ingest.run(&schema(), &request, objects.as_bytes()).unwrap();
    assert_eq!((report.rows, report.accepted), (2, 2), "{:?}", report.faults);
}

#[test]
fn lines_behind_a_quote_that_is_not_closed_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let row = |note: &str| format!("mary@example.com,2026-11-25,40,{note}\n");
    let plain = row("fine").repeat(7);
    // The quote of 5 feet opens a cell, which the quote after seven rows ends.
    let text = format!(
        "email,seen,age,note\n{}{}{plain}{}{}",
        row("fine"),
        row("\"5 feet"),
        row("\"tall\" he says"),
        row("fine")
    );
    let report = rig.csv("a", &text).unwrap();
    assert_eq!((report.rows, report.accepted, report.quarantined), (11, 2, 9));
    let faults: Vec<_> =
        report.faults.iter().map(|f| (f.reason.as_str(), f.rows, f.first_line)).collect();
    assert_eq!(faults, [("misplaced_quote", 9, 3)]);
    assert_eq!((rig.quarantine().len(), report.quarantine_kept), (1, 1));
    // Line breaks in a row whose values are checked are a part of it.
    let text = format!("email,seen,age,note\n{}", row("\"a\nb\nc\"").replace(",40,", ",4,"));
    let report = rig.csv("b", &text).unwrap();
    assert_eq!((report.rows, report.quarantined), (1, 1));
}

#[test]
fn files_that_cannot_be_used_are_refused_by_name_and_nothing_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    for (text, message) in [
        ("", "the content is empty"),
        ("mary@example.com,2026-11-25\n", "line 1: column 1 of 2 is not a field of the schema"),
        ("email,email,seen\n", "line 1: the columns 1 and 2 are both `email`"),
        ("email;seen\n", "line 1: column 1 of 1 is not a field of the schema"),
        ("email,age\n", "line 1: there is no column for the required field `seen`"),
        ("email,\"se\"en\n", "line 1: a quote of the header is misplaced"),
        (
            "email,seen\nmary@example.com,\"2026\n",
            "a quote that opens in line 1 or later is not closed",
        ),
    ] {
        assert_eq!(rig.refusal(text), message);
    }
    let encoding = Encoding::Gzip;
    let request = IngestRequest { encoding, ..csv("") };
    let error = rig.ingest.run(&schema(), &request, THREE.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("encoding"), "{error}");
    let json = IngestRequest { format: RecordFormat::Ndjson, ..csv("") };
    let error = rig.ingest.run(&schema(), &json, &b"[{}]"[..]).unwrap_err();
    assert_eq!(error.to_string(), "line 1: the content is a JSON array");
    let mut only_json = schema();
    only_json.format = Some(RecordFormat::Ndjson);
    let error = rig.ingest.run(&only_json, &csv(""), THREE.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "the schema `customers` accepts ndjson only");
    assert!(rig.rows().is_empty() && rig.left_over().is_empty() && rig.quarantine().is_empty());
}

/// A Parquet file of two rows with times of the type INT96, as Spark writes them: nanoseconds of a Julian day.
fn parquet_of_spark(times: [Vec<u32>; 2]) -> Vec<u8> {
    let columns = "message m { required binary id (UTF8); required int96 seen; }";
    let columns = Arc::new(parse_message_type(columns).unwrap());
    let mut file = Vec::new();
    let properties = Arc::new(WriterProperties::default());
    let mut writer = SerializedFileWriter::new(&mut file, columns, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let ids = ["a", "b"].map(ByteArray::from);
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&ids, None, None).unwrap();
    column.close().unwrap();
    let times = times.map(Int96::from);
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int96Type>().write_batch(&times, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    file
}

#[test]
fn times_of_spark_after_2262_are_not_of_another_century() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let visits: Schema = serde_json::from_str(
        r#"{"name": "visits", "description": null, "key": "id", "day": "seen", "fields": [
            {"name": "id", "type": "text", "required": true},
            {"name": "seen", "type": "timestamp", "required": true}]}"#,
    )
    .unwrap();
    let (format, encoding) = (RecordFormat::Parquet, Encoding::Identity);
    let request = IngestRequest { batch: None, format, encoding };
    // 9999-12-31, which stands for no end, and a second and a microsecond after 2026-11-25.
    let file = parquet_of_spark([vec![0, 0, 5_373_484], vec![1_000_001_000, 0, 2_461_370]]);
    let report = rig.ingest.run(&visits, &request, &file[..]).unwrap();
    assert_eq!((report.accepted, report.days), (2, 2), "{:?}", report.faults);
    for day in ["9999-12-31", "2026-11-25"] {
        let folder = rig.lake().join("visits").join(format!("day={day}"));
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "{day}");
    }
}

#[test]
fn times_that_an_offset_moves_out_of_the_years_of_four_digits_are_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let visits: Schema = serde_json::from_str(
        r#"{"name": "visits", "description": null, "key": "id", "day": "seen", "fields": [
            {"name": "id", "type": "text", "required": true},
            {"name": "seen", "type": "timestamp", "required": true}]}"#,
    )
    .unwrap();
    let text = "id,seen\na,0001-01-01T00:30:00+01:00\nb,9999-12-31T23:30:00-01:00\n\
        c,0001-01-01T00:30:00-01:00\nd,9999-12-31T23:30:00+01:00\n";
    let report = rig.ingest.run(&visits, &csv("a"), text.as_bytes()).unwrap();
    let faults: Vec<_> = report.faults.iter().map(|f| (f.reason.as_str(), f.rows)).collect();
    assert_eq!((report.accepted, faults), (2, vec![("not_a_timestamp", 2)]));
    let entries = std::fs::read_dir(rig.lake().join("visits")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut days: Vec<String> = names.filter(|name| name.starts_with("day=")).collect();
    days.sort();
    // The last one has the file without rows that gives the table its columns.
    assert_eq!(days, ["day=0001-01-01", "day=9999-12-31", "day=__HIVE_DEFAULT_PARTITION__"]);
}

#[test]
fn numbers_in_fields_of_text_are_kept_as_written_and_floats_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let text = "email,seen,note\nmary@example.com,2026-11-25,1.2E+10\n";
    assert_eq!(rig.csv("a", text).unwrap().accepted, 1);
    let json = "{\"email\":\"mary@example.com\",\"seen\":\"2026-11-25\",\"note\":1.20}\n";
    let request = IngestRequest { format: RecordFormat::Ndjson, ..csv("b") };
    assert_eq!(rig.ingest.run(&schema(), &request, json.as_bytes()).unwrap().accepted, 1);
    let written = ["1.20", "1.2E+10"].map(|note| format!("2026-11-25 {MARY} - {note}"));
    assert_eq!(rig.rows(), written);
    let parquet = |name: &str, column: ArrayRef| {
        let emails: ArrayRef = Arc::new(StringArray::from(vec!["mary@example.com"]));
        let seen: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![20_782]));
        let columns = [("email", emails), ("seen", seen), (name, column)];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut parquet = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        parquet
    };
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.2e10]));
    let request = IngestRequest { format: RecordFormat::Parquet, ..csv("c") };
    let file = parquet("note", Arc::clone(&floats));
    let error = rig.ingest.run(&schema(), &request, &file[..]).unwrap_err();
    assert_eq!(error.to_string(), "the column `note` is Float64, and its field is text");
    assert!(error.help().is_some_and(|help| help.contains("write the column as text")), "{error}");
    assert_eq!(rig.rows(), written);
    // What is dropped may be a float, and integers have one text.
    let file = parquet("ssn", floats);
    assert_eq!(rig.ingest.run(&schema(), &request, &file[..]).unwrap().accepted, 1);
    let file = parquet("note", Arc::new(Int32Array::from(vec![120])));
    let request = IngestRequest { format: RecordFormat::Parquet, ..csv("d") };
    assert_eq!(rig.ingest.run(&schema(), &request, &file[..]).unwrap().accepted, 1);
    assert!(rig.rows().contains(&format!("2026-11-25 {MARY} - 120")));
}

#[test]
fn bytes_are_refused_also_in_a_dictionary() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let emails: ArrayRef = Arc::new(StringArray::from(vec!["mary@example.com"]));
    let seen: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![20_782]));
    // Not UTF-8: as text it would be NULL.
    let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&[0xe4_u8][..]]));
    let notes = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0]), bytes);
    let notes: ArrayRef = Arc::new(notes);
    let batch =
        RecordBatch::try_from_iter([("email", emails), ("seen", seen), ("note", notes)]).unwrap();
    let mut parquet = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let (format, encoding) = (RecordFormat::Parquet, Encoding::Identity);
    let request = IngestRequest { batch: None, format, encoding };
    let error = rig.ingest.run(&schema(), &request, &parquet[..]).unwrap_err();
    assert!(error.to_string().starts_with("the column `note` is Dictionary"), "{error}");
    assert!(rig.rows().is_empty());
}
