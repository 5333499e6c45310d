//! `throng ingest`: sends files of records to a node.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bytes::Bytes;
use indicatif::ProgressBar;
use serde_json::Value;
use throng_api::{IngestReport, IngestTotals};
use throng_schema::RecordFormat;
use tokio::io::AsyncReadExt as _;

use crate::args::IngestArgs;
use crate::client::{Client, segment};
use crate::failure::{Failure, report_partial};
use crate::out::{self, Output};

/// Bytes of a file that are read and sent at once.
const CHUNK_BYTES: usize = 256 << 10;
/// The name of the standard input in place of a file.
const STDIN: &str = "-";
/// Files that a message names, at most.
const MAX_NAMED: usize = 10;

/// A file with what its name says.
struct Input<'a> {
    path: &'a Path,
    format: RecordFormat,
    encoding: Option<&'static str>,
}

/// Sends each file as a batch, one after the other. Ends at the first one that the node refuses. Fails if no row of any
/// was accepted.
pub(crate) async fn run(args: &IngestArgs, output: Output) -> Result<ExitCode> {
    if args.batch.is_some() && args.files.len() > 1 {
        let help = "send the files one by one; without --batch each file is known by its content";
        return Err(Failure::wrong_input("--batch names one batch, and there are several files")
            .help(help)
            .into());
    }
    let format = args.format.map(RecordFormat::from);
    let inputs: Vec<Input<'_>> =
        args.files.iter().map(|path| input_of(path, format)).collect::<Result<_>>()?;
    let client = Client::without_timeout(&args.node)?;
    let (mut documents, mut totals) = (Vec::new(), IngestTotals::default());
    let mut failure = None;
    let mut left = inputs.iter();
    for input in left.by_ref() {
        match ingest(&client, args, input, &mut documents).await {
            Ok(report) => {
                totals.add(&report);
                if !output.is_json() {
                    print(input.path, &report);
                }
                let file = input.path.display().to_string();
                report.warning(&file).into_iter().for_each(out::message);
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    totals.note().into_iter().for_each(out::message);
    let left: Vec<&Path> = left.map(|input| input.path).collect();
    not_sent(&left).into_iter().for_each(out::message);
    let failure = failure.or_else(|| totals.is_refused().then(|| Failure::none_accepted().into()));
    let ingested = serde_json::json!({ "batches": documents });
    match failure {
        // The files before it are ingested.
        Some(error) => return Ok(report_partial(&error, &ingested, output)),
        None if output.is_json() => out::json(&ingested),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// What to say of the files behind one that was refused; `None` without any.
fn not_sent(files: &[&Path]) -> Option<String> {
    let named = files.iter().take(MAX_NAMED).map(|path| path.display().to_string());
    let named = named.collect::<Vec<_>>().join(", ");
    match files.len() {
        0 => None,
        count if count > MAX_NAMED => {
            Some(format!("not sent: {named} and {} more", count - MAX_NAMED))
        }
        _ => Some(format!("not sent: {named}")),
    }
}

/// Sends a file. Adds the report to the others as the node has sent it.
async fn ingest(
    client: &Client,
    args: &IngestArgs,
    input: &Input<'_>,
    documents: &mut Vec<Value>,
) -> Result<IngestReport> {
    let answer = send(client, args, input).await;
    let answer = answer.with_context(|| format!("{} is not ingested", input.path.display()))?;
    documents.push(answer.document().clone());
    answer.read()
}

/// The format and encoding of a file, by its name or by --format.
fn input_of(path: &Path, format: Option<RecordFormat>) -> Result<Input<'_>> {
    if path == Path::new(STDIN) {
        let format = format.ok_or_else(|| {
            Failure::wrong_input("the standard input does not say its format")
                .help("name it with --format csv, ndjson or parquet")
        })?;
        return Ok(Input { path, format, encoding: None });
    }
    // Before anything is sent. A pipe is as good as a file.
    let found = std::fs::metadata(path);
    if found.with_context(|| format!("cannot read {}", path.display()))?.is_dir() {
        let failure = Failure::wrong_input(format!("{} is a folder", path.display()));
        return Err(failure.help("name its files").into());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (stem, encoding) = match name.strip_suffix(".gz") {
        Some(stem) => (stem, Some("gzip")),
        None => match name.strip_suffix(".zst") {
            Some(stem) => (stem, Some("zstd")),
            None => (&*name, None),
        },
    };
    let by_name = match stem.rsplit_once('.').map(|(_, ending)| ending) {
        Some("csv") => Some(RecordFormat::Csv),
        Some("ndjson" | "jsonl" | "json") => Some(RecordFormat::Ndjson),
        Some("parquet") => Some(RecordFormat::Parquet),
        _ => None,
    };
    let format = format.or(by_name).ok_or_else(|| {
        let message = format!("{}: its name does not say its format", path.display());
        Failure::wrong_input(message).help("name it with --format csv, ndjson or parquet")
    })?;
    Ok(Input { path, format, encoding })
}

async fn send(
    client: &Client,
    args: &IngestArgs,
    input: &Input<'_>,
) -> Result<crate::client::Answer> {
    let file = opened(input.path).await;
    let file = file.with_context(|| format!("cannot read {}", input.path.display()))?;
    let bytes = file.metadata().await.map_or(0, |metadata| metadata.len());
    let bar = out::byte_bar(&input.path.file_name().unwrap_or_default().to_string_lossy());
    bar.set_length(bytes);
    let path = path_of(args);
    let body = reqwest::Body::wrap_stream(chunks(file, bar.clone()));
    let answer = client.post_body(&path, input.format.content_type(), input.encoding, body).await;
    bar.finish_and_clear();
    answer
}

/// A file, or the standard input.
async fn opened(path: &Path) -> io::Result<tokio::fs::File> {
    if path == Path::new(STDIN) {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        return Ok(tokio::fs::File::from_std(input.into()));
    }
    tokio::fs::File::open(path).await
}

/// The path of the request, with its query.
fn path_of(args: &IngestArgs) -> String {
    let query = [("batch", &args.batch), ("workspace", &args.workspace)];
    let query = query.into_iter().filter_map(|(name, value)| {
        value.as_ref().map(|value| format!("{name}={}", segment(value)))
    });
    let query: Vec<String> = query.collect();
    let path = format!("/v1/ingest/{}", segment(&args.schema));
    match query.is_empty() {
        true => path,
        false => format!("{path}?{}", query.join("&")),
    }
}

/// The file piece by piece.
fn chunks(
    file: tokio::fs::File,
    bar: ProgressBar,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static {
    futures::stream::try_unfold((file, bar), |(mut file, bar)| async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        let count = file.read(&mut buffer).await?;
        if count == 0 {
            return Ok(None);
        }
        buffer.truncate(count);
        bar.inc(count as u64);
        Ok::<_, io::Error>(Some((Bytes::from(buffer), (file, bar))))
    })
}

fn print(path: &Path, report: &IngestReport) {
    let rate = match report.seconds > 0.0 {
        true => {
            format!(", {} rows a second", out::count((report.rows as f64 / report.seconds) as u64))
        }
        false => String::new(),
    };
    let before = if report.repeated { ": ingested before" } else { "" };
    out::line(format!(
        "{}: batch {}{before}: {}, {} accepted, {} in quarantine, days: {}, files: {}{rate}",
        path.display(),
        report.batch,
        out::counted(report.rows, "row"),
        out::count(report.accepted),
        out::count(report.quarantined),
        report.days,
        report.files
    ));
    let faults = report.faults.iter().map(|fault| {
        let field = fault.field.clone().unwrap_or_else(|| "(row)".to_owned());
        vec![field, fault.reason.clone(), out::count(fault.rows), fault.first_line.to_string()]
    });
    let faults: Vec<Vec<String>> = faults.collect();
    if !faults.is_empty() {
        out::table(&["FIELD", "REASON", "ROWS", "FIRST LINE"], faults);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Arguments, Command};

    #[test]
    fn a_request_names_schema_batch_and_workspace() {
        let path = |arguments: &[&str]| {
            let mut line = vec!["throng", "ingest", "--schema", "visits", "a.csv"];
            line.extend(arguments);
            let Command::Ingest(args) = Arguments::try_parse_from(line).unwrap().command else {
                panic!("another command")
            };
            path_of(&args)
        };
        assert_eq!(path(&[]), "/v1/ingest/visits");
        assert_eq!(path(&["--workspace", "acme"]), "/v1/ingest/visits?workspace=acme");
        let both = path(&["--batch", "a:b", "--workspace", "acme"]);
        assert_eq!(both, "/v1/ingest/visits?batch=a%3Ab&workspace=acme");
    }

    #[test]
    fn files_say_what_they_are_before_any_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let input = |name: &str, format| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            let found = input_of(&path, format);
            found.map(|input| (input.format, input.encoding)).map_err(|error| error.to_string())
        };
        assert_eq!(input("A.CSV", None), Ok((RecordFormat::Csv, None)));
        assert_eq!(input("a.jsonl.gz", None), Ok((RecordFormat::Ndjson, Some("gzip"))));
        let parquet = Some(RecordFormat::Parquet);
        assert_eq!(input("a.dat.zst", parquet), Ok((RecordFormat::Parquet, Some("zstd"))));
        assert!(input("a.dat", None).unwrap_err().ends_with("its name does not say its format"));
        let folder = dir.path().join("folder.csv");
        std::fs::create_dir(&folder).unwrap();
        let message = |path: &Path| input_of(path, None).err().unwrap().to_string();
        assert!(message(&folder).ends_with("folder.csv is a folder"));
        assert!(message(&dir.path().join("none.csv")).starts_with("cannot read"));
        let stdin = input_of(Path::new("-"), Some(RecordFormat::Ndjson)).unwrap();
        assert_eq!((stdin.format, stdin.encoding), (RecordFormat::Ndjson, None));
        assert_eq!(message(Path::new("-")), "the standard input does not say its format");
    }

    #[test]
    fn files_behind_one_that_was_refused_are_named() {
        let files: Vec<String> = (0..12).map(|number| format!("{number}.csv")).collect();
        let files: Vec<&Path> = files.iter().map(Path::new).collect();
        assert_eq!(not_sent(&[]), None);
        assert_eq!(not_sent(&files[..2]).unwrap(), "not sent: 0.csv, 1.csv");
        let many = not_sent(&files).unwrap();
        assert!(many.starts_with("not sent: 0.csv, ") && many.ends_with(", 9.csv and 2 more"));
    }
}
