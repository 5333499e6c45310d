//! The rules of jobs and pages. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use throng_model::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use crate::engine::Table;
use crate::error::ApiError;

/// A creation that was read and checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewJob {
    pub(crate) id: String,
    pub(crate) sql: String,
    pub(crate) dataset: Option<String>,
    pub(crate) dry_run: bool,
    pub(crate) labels: Vec<(String, String)>,
    maximum_bytes: Option<u64>,
}

/// Whether a text is a job id.
fn is_job_id(id: &str) -> bool {
    (1..=1024).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Whether a text is a label's name or value.
fn is_label(text: &str) -> bool {
    text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

impl NewJob {
    /// Reads the body of a creation in a project and the location of its tables.
    pub(crate) fn read(body: &Value, project: &str, location: &str) -> Result<Self, ApiError> {
        let (reference, configuration) = (&body["jobReference"], &body["configuration"]);
        let dry_run = configuration["dryRun"] == true;
        if reference["projectId"].as_str().is_some_and(|other| other != project) {
            return Err(ApiError::invalid("Value for field projectId does not match the URL"));
        }
        if reference["location"].as_str().is_some_and(|other| other != location) {
            let message = format!("Dataset was not found in location {}", reference["location"]);
            return Err(ApiError::not_found(&message));
        }
        let id = reference["jobId"].as_str().unwrap_or(if dry_run { "dry" } else { "" });
        if !is_job_id(id) {
            return Err(ApiError::invalid("Invalid job ID"));
        }
        let query = &configuration["query"];
        let sql = query["query"].as_str().unwrap_or_default();
        if sql.trim().is_empty() {
            return Err(ApiError::invalid("Required parameter is missing: query"));
        }
        if query["useLegacySql"] != false {
            return Err(ApiError::invalid(
                "Only GoogleSQL is simulated: useLegacySql must be false",
            ));
        }
        let priority = query["priority"].as_str().unwrap_or("INTERACTIVE");
        if !["BATCH", "INTERACTIVE"].contains(&priority) {
            return Err(ApiError::invalid("Invalid value for priority"));
        }
        let maximum_bytes = match &query["maximumBytesBilled"] {
            Value::Null => None,
            Value::String(text) => {
                let bytes = text.parse();
                Some(bytes.map_err(|_| ApiError::invalid("Invalid maximumBytesBilled"))?)
            }
            _ => return Err(ApiError::invalid("maximumBytesBilled is not a text")),
        };
        let mut labels = Vec::new();
        for (name, value) in configuration["labels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or("?");
            if !is_label(name) || !is_label(value) {
                return Err(ApiError::invalid(format!("Invalid label {name}")));
            }
            labels.push((name.clone(), value.to_owned()));
        }
        let dataset = query["defaultDataset"]["datasetId"].as_str().map(str::to_owned);
        let (id, sql) = (id.to_owned(), sql.to_owned());
        Ok(Self { id, sql, dataset, dry_run, labels, maximum_bytes })
    }

    /// Checks what the job would read.
    pub(crate) fn check_bytes(&self, table: &Table) -> Result<(), ApiError> {
        match self.maximum_bytes {
            Some(maximum) if table.bytes > maximum => {
                let message = format!("Query exceeded limit for bytes billed: {maximum}");
                Err(ApiError::new(400, "bytesBilledLimitExceeded", message))
            }
            _ => Ok(()),
        }
    }
}

/// A job.
#[derive(Debug)]
struct Job {
    location: String,
    table: Table,
    /// How often its state was read.
    polls: u32,
    ended: Option<Timestamp>,
    failed: Option<&'static str>,
}

impl Job {
    fn state(&self, needed: u32) -> &'static str {
        match self.polls {
            polls if self.ended.is_some() || polls >= needed => "DONE",
            polls if polls < needed / 2 => "PENDING",
            _ => "RUNNING",
        }
    }
}

/// The jobs of all projects, by project and id.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    jobs: BTreeMap<(String, String), Job>,
}

/// A page that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageQuery<'a> {
    pub(crate) location: Option<&'a str>,
    pub(crate) max_results: Option<&'a str>,
    pub(crate) page_token: Option<&'a str>,
}

/// The limits of pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageLimits {
    pub(crate) rows: usize,
    pub(crate) kept: Duration,
}

impl Jobs {
    /// Whether there is a job with this id.
    pub(crate) fn has(&self, project: &str, id: &str) -> bool {
        self.jobs.contains_key(&(project.to_owned(), id.to_owned()))
    }

    pub(crate) fn insert(
        &mut self,
        project: &str,
        id: &str,
        location: &str,
        table: Table,
    ) -> Result<Value, ApiError> {
        if self.has(project, id) {
            let message = format!("Already Exists: Job {project}:{location}.{id}");
            return Err(ApiError::new(409, "duplicate", message));
        }
        let location = location.to_owned();
        let job = Job { location, table, polls: 0, ended: None, failed: None };
        let resource = resource(project, id, &job, "PENDING");
        self.jobs.insert((project.to_owned(), id.to_owned()), job);
        Ok(resource)
    }

    pub(crate) fn remove(&mut self, project: &str, id: &str) {
        self.jobs.remove(&(project.to_owned(), id.to_owned()));
    }

    /// Ends a job with an error.
    pub(crate) fn fail(&mut self, project: &str, id: &str, now: Timestamp) {
        if let Some(job) = self.jobs.get_mut(&(project.to_owned(), id.to_owned())) {
            job.failed = Some("jobBackendError");
            job.ended = Some(now);
        }
    }

    fn find(
        &mut self,
        project: &str,
        id: &str,
        location: Option<&str>,
    ) -> Result<&mut Job, ApiError> {
        let key = (project.to_owned(), id.to_owned());
        let job = self.jobs.get_mut(&key).filter(|job| location == Some(job.location.as_str()));
        job.ok_or_else(|| ApiError::not_found(&format!("Job {project}:{id}")))
    }

    /// The state of a job.
    pub(crate) fn poll(
        &mut self,
        project: &str,
        id: &str,
        location: Option<&str>,
        (needed, now): (u32, Timestamp),
    ) -> Result<Value, ApiError> {
        let job = self.find(project, id, location)?;
        let state = job.state(needed);
        job.polls += 1;
        if state == "DONE" && job.ended.is_none() {
            job.ended = Some(now);
        }
        Ok(resource(project, id, job, state))
    }

    /// A page of a result, and the number of its first row.
    pub(crate) fn page(
        &mut self,
        (project, id): (&str, &str),
        query: PageQuery<'_>,
        limits: PageLimits,
        now: Timestamp,
    ) -> Result<(Value, usize), ApiError> {
        let job = self.find(project, id, query.location)?;
        let Some(ended) = job.ended else { return Ok((json!({ "jobComplete": false }), 0)) };
        if let Some(reason) = job.failed {
            return Err(ApiError::new(400, reason, "The job encountered an internal error"));
        }
        if now >= ended.plus(limits.kept) {
            return Err(ApiError::not_found("the anonymous table of the result has expired"));
        }
        let asked = match query.max_results {
            None => limits.rows,
            Some(text) => text.parse().map_err(|_| ApiError::invalid("Invalid maxResults"))?,
        };
        let total = job.table.rows.len();
        let first = match query.page_token {
            None => 0,
            Some(token) => (0..total)
                .find(|first| page_token(id, *first) == token)
                .ok_or_else(|| ApiError::invalid("Invalid page token"))?,
        };
        let end = total.min(first + asked.clamp(1, limits.rows));
        let cell = |cell: &Option<String>| json!({ "v": cell });
        let rows: Vec<Value> = job.table.rows[first..end]
            .iter()
            .map(|row| json!({ "f": row.iter().map(cell).collect::<Vec<_>>() }))
            .collect();
        let mut page = json!({
            "kind": "bigquery#getQueryResultsResponse",
            "jobComplete": true,
            "schema": job.table.schema(),
            "totalRows": total.to_string(),
            "rows": rows,
        });
        if end < total {
            page["pageToken"] = page_token(id, end).into();
        }
        Ok((page, first))
    }
}

/// The token of the page that begins at a row. Nobody can tell the row from it.
fn page_token(id: &str, first: usize) -> String {
    format!("B{:016x}", xxh3_64(format!("{id}/{first}").as_bytes()))
}

/// A job as the API returns it.
fn resource(project: &str, id: &str, job: &Job, state: &str) -> Value {
    let mut resource = json!({
        "kind": "bigquery#job",
        "jobReference": { "projectId": project, "jobId": id, "location": job.location },
        "status": { "state": state },
        "statistics": { "totalBytesProcessed": job.table.bytes.to_string() },
    });
    if let Some(ended) = job.ended {
        resource["statistics"]["endTime"] = (ended.0 / 1_000).to_string().into();
    }
    if let Some(reason) = job.failed {
        resource["status"]["errorResult"] =
            json!({ "reason": reason, "message": "internal error" });
    }
    resource
}

/// The answer to a dry run.
pub(crate) fn dry_run(project: &str, location: &str, table: &Table) -> Value {
    json!({
        "kind": "bigquery#job",
        "jobReference": { "projectId": project, "location": location },
        "status": { "state": "DONE" },
        "statistics": {
            "totalBytesProcessed": table.bytes.to_string(),
            "query": { "statementType": "SELECT", "schema": table.schema() },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Column;

    fn table(rows: usize) -> Table {
        let columns = vec![Column::new("id", "INTEGER")];
        Table { columns, rows: (0..rows).map(|n| vec![Some(n.to_string())]).collect(), bytes: 10 }
    }

    #[test]
    fn a_job_runs_once_and_its_pages_are_named_by_tokens() {
        let (mut jobs, now) = (Jobs::default(), Timestamp(0));
        jobs.insert("p", "j", "EU", table(5)).unwrap();
        assert_eq!(jobs.insert("p", "j", "EU", table(5)).unwrap_err().status, 409);
        assert_eq!(jobs.poll("p", "j", Some("US"), (2, now)).unwrap_err().status, 404);
        let limits = PageLimits { rows: 2, kept: Duration::from_secs(60) };
        fn query(page_token: Option<&str>) -> PageQuery<'_> {
            PageQuery { location: Some("EU"), max_results: None, page_token }
        }
        let page = jobs.page(("p", "j"), query(None), limits, now).unwrap().0;
        assert_eq!(page["jobComplete"], false);
        let states: Vec<Value> = (0..3)
            .map(|_| jobs.poll("p", "j", Some("EU"), (2, now)).unwrap()["status"]["state"].clone())
            .collect();
        assert_eq!(states, ["PENDING", "RUNNING", "DONE"]);
        let (mut token, mut firsts) = (None::<String>, Vec::new());
        loop {
            let (page, first) =
                jobs.page(("p", "j"), query(token.as_deref()), limits, now).unwrap();
            firsts.push(first);
            match page["pageToken"].as_str() {
                Some(next) => token = Some(next.to_owned()),
                None => break,
            }
        }
        assert_eq!(firsts, [0, 2, 4]);
        let forged = jobs.page(("p", "j"), query(Some("B0")), limits, now).unwrap_err();
        assert_eq!((forged.status, forged.reason), (400, "invalid"));
        let later = now.plus(limits.kept);
        assert_eq!(jobs.page(("p", "j"), query(None), limits, later).unwrap_err().status, 404);
    }

    #[test]
    fn creations_are_checked() {
        let read = |body: Value| NewJob::read(&body, "p", "EU");
        let job = |id: &str, query: Value| json!({ "jobReference": { "jobId": id }, "configuration": { "query": query } });
        let good = json!({ "query": "SELECT 1", "useLegacySql": false, "maximumBytesBilled": "9" });
        let read_good = read(job("a-1", good.clone())).unwrap();
        assert_eq!(
            read_good.check_bytes(&table(1)).unwrap_err().reason,
            "bytesBilledLimitExceeded"
        );
        assert!(read(job("a.1", good)).is_err());
        assert!(read(job("a", json!({ "query": "SELECT 1" }))).is_err());
        let number = json!({ "query": "SELECT 1", "useLegacySql": false, "maximumBytesBilled": 9 });
        assert!(read(job("a", number)).is_err());
    }
}
