//! BigQuery over its REST API, version 2.
//!
//! A query runs as a batch job with an id of our own, so that a creation whose answer was lost is
//! repeated without a second job. Its result is read in pages by page token; Google keeps it for 24
//! hours after the end of the job.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use throng_google::{AccessTokens, TokenOptions};
use throng_lake::ColumnFacts;
use throng_model::{Clock, Micros, Secret, Timestamp};
use throng_refresh::{KeySink, Page, PageRequest, QueryPlan, Session, Warehouse, WarehouseError};
use throng_spec::BigQuerySettings;

use crate::client::{CallError, CallOptions, Client, NOT_CONNECTED, no_token};
use crate::request;
use crate::response::{Class, Job, JobStatus, PageHead, help_of, is_job_lost, keys_of};

/// What an access token is for.
const SCOPE: &str = "https://www.googleapis.com/auth/bigquery";
/// How often a creation without an answer is repeated, under the same id.
const CREATE_RETRIES: u32 = 3;
/// How long results are kept after the end of a job.
const RESULTS_KEPT: Duration = Duration::from_secs(24 * 3_600);
/// Results are not read in the last minutes of that time: a page must not expire while it is read.
const RESULTS_MARGIN: Duration = Duration::from_secs(300);

const CREATING: &str = "creating a job";
const POLLING: &str = "reading the state of a job";
const READING: &str = "reading a page";

/// A page in the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Cursor {
    /// The id of the job.
    job: String,
    location: String,
    page_token: String,
    /// When its result expires.
    results_until: Timestamp,
}

/// A job that has ended.
struct EndedJob {
    id: String,
    location: String,
    results_until: Timestamp,
}

/// A project of BigQuery.
pub(crate) struct BigQuery {
    settings: BigQuerySettings,
    client: Client,
}

impl BigQuery {
    /// Makes no call. `credentials` is the key file of the service account, if the settings have one.
    pub(crate) fn open(
        settings: &BigQuerySettings,
        credentials: Option<&Secret>,
        clock: Arc<dyn Clock>,
        options: CallOptions,
    ) -> Result<Self, WarehouseError> {
        let tokens = AccessTokens::new(TokenOptions {
            credentials,
            url: settings.token_url(),
            scope: SCOPE,
            clock: Arc::clone(&clock),
            timeout: options.timeout,
            retry: options.retry,
        });
        let tokens = tokens.map_err(no_token)?;
        let client = Client::new(settings.api_url(), tokens, clock, options)?;
        Ok(Self { settings: settings.clone(), client })
    }

    /// Creates a job. One that exists already is ours: nobody else makes such an id.
    async fn create(&self, request: &PageRequest<'_>, id: &str) -> Result<(), WarehouseError> {
        let body = request::create(&self.settings, request.job, id, request.sql);
        let url = self.client.url(&self.settings.project, &["jobs"], &[]);
        let (mut tries, mut may_run) = (1, false);
        loop {
            let error = match self.client.call(Method::POST, url.clone(), Some(&body)).await {
                Ok(_) => return Ok(()),
                Err(error) if error.class() == Some(Class::Exists) => return Ok(()),
                Err(error) => error,
            };
            if !error.is_temporary() {
                return Err(error.into_error(CREATING, true));
            }
            may_run |= matches!(error, CallError::NoAnswer(how) if how != NOT_CONNECTED);
            if tries > CREATE_RETRIES && may_run {
                return Err(not_created(error, id));
            }
            if tries > CREATE_RETRIES {
                return Err(error.into_error(CREATING, true));
            }
            tracing::warn!(job = id, tries, "failed to create a BigQuery job, will retry");
            self.client.pause(&self.client.options().retry, tries).await;
            tries += 1;
        }
    }

    /// Waits until a job has ended with a result.
    async fn wait(&self, id: String) -> Result<EndedJob, WarehouseError> {
        let location = self.settings.location.clone();
        let query = [("location", location.as_str())];
        let url = self.client.url(&self.settings.project, &["jobs", &id], &query);
        let mut polls = 1;
        loop {
            let body = match self.client.read(Method::GET, url.clone(), None).await {
                Ok(body) => body,
                Err(error) if error.class() == Some(Class::NotFound) => {
                    return Err(lost(&id, "BigQuery does not know it"));
                }
                Err(error) => return Err(error.into_error(POLLING, false)),
            };
            let job: Job = parsed(&body, POLLING)?;
            if job.status.state == "DONE" {
                failure(&job.status, &id)?;
                let ended = job.statistics.ended().unwrap_or_else(|| self.client.now());
                let results_until = ended.plus(RESULTS_KEPT);
                return Ok(EndedJob { id, location, results_until });
            }
            self.client.pause(&self.client.options().poll, polls).await;
            polls += 1;
        }
    }

    /// The body of a page; the first one without a token.
    async fn page_body(
        &self,
        job: &EndedJob,
        token: Option<&str>,
    ) -> Result<Vec<u8>, WarehouseError> {
        if self.client.now().plus(RESULTS_MARGIN) >= job.results_until {
            return Err(lost(&job.id, "its result has expired"));
        }
        let rows = self.settings.page_rows.to_string();
        let mut query = vec![("location", job.location.as_str()), ("maxResults", rows.as_str())];
        query.push(("formatOptions.useInt64Timestamp", "true"));
        query.extend(token.map(|token| ("pageToken", token)));
        let url = self.client.url(&self.settings.project, &["queries", &job.id], &query);
        match self.client.read(Method::GET, url, None).await {
            Ok(body) => Ok(body),
            Err(error) if error.class() == Some(Class::NotFound) => {
                Err(lost(&job.id, "BigQuery no longer has its result"))
            }
            // Its page tokens do not belong to the job, for example after a change of the project.
            Err(CallError::Answer { status: 400, reason: Some(reason), .. })
                if token.is_some() && reason == "invalid" =>
            {
                Err(lost(&job.id, "BigQuery refuses its page token"))
            }
            Err(error) => Err(error.into_error(READING, false)),
        }
    }
}

#[async_trait]
impl Warehouse for BigQuery {
    async fn check(&self, sql: &str, key: Option<&str>) -> Result<QueryPlan, WarehouseError> {
        let doing = "checking a query";
        let body = request::dry_run(&self.settings, sql);
        let url = self.client.url(&self.settings.project, &["jobs"], &[]);
        let body = self.client.read(Method::POST, url, Some(&body)).await;
        let body = body.map_err(|error| error.into_error(doing, true))?;
        let job: Job = parsed(&body, doing)?;
        let bytes_processed = job.statistics.bytes_processed().ok_or_else(|| incomplete(doing))?;
        let schema = job.statistics.schema().ok_or_else(|| incomplete(doing))?;
        let found = schema.key(key)?;
        let key_column = schema.fields[found.at].name.clone();
        let columns = schema.fields.into_iter().map(|field| (field.name, field.of)).collect();
        let price = self.settings.price_per_tib;
        Ok(QueryPlan {
            columns,
            key_column,
            key_kind: found.kind,
            estimated_rows: None,
            bytes_processed: Some(bytes_processed),
            cost: price.and_then(|price| cost(bytes_processed, price)),
        })
    }

    async fn page(
        &self,
        request: &PageRequest<'_>,
        sink: &mut KeySink<'_>,
        _session: &mut Session,
    ) -> Result<Page, WarehouseError> {
        let (job, token) = match request.cursor {
            None => {
                let id = request::job_id(request.job);
                self.create(request, &id).await?;
                (self.wait(id).await?, None)
            }
            Some(cursor) => {
                let cursor = Cursor::deserialize(cursor)
                    .map_err(|_| lost("of the ledger", "its cursor cannot be read"))?;
                let Cursor { job, location, page_token, results_until } = cursor;
                (EndedJob { id: job, location, results_until }, Some(page_token))
            }
        };
        let body = self.page_body(&job, token.as_deref()).await?;
        let head: PageHead = parsed(&body, READING)?;
        if !head.job_complete {
            let message = format!("BigQuery has no result of the job {} yet", job.id);
            return Err(WarehouseError::Unavailable { message, after: None });
        }
        let total_rows = head.total_rows().ok_or_else(|| incomplete(READING))?;
        let schema = head.schema.as_ref().ok_or_else(|| incomplete(READING))?;
        let key = schema.key(request.key)?;
        let field = &schema.fields[key.at];
        let key_column = ColumnFacts::key(field.name.clone(), field.of.clone());
        let keys = keys_of(&body, key, request.seed).ok_or_else(|| incomplete(READING))?;
        let next = head.next();
        if next == token && next.is_some() {
            return Err(lost(&job.id, "its pages repeat"));
        }
        let next = next.map(|page_token| Cursor {
            job: job.id,
            location: job.location,
            page_token,
            results_until: job.results_until,
        });
        sink(&keys.hashes, keys.null_keys)?;
        Ok(Page {
            rows: keys.rows,
            null_keys: keys.null_keys,
            padded_keys: keys.padded_keys,
            total_rows: Some(total_rows),
            is_later: false,
            key: key_column,
            next: next.map(serde_json::to_value).transpose().map_err(|_| incomplete(READING))?,
        })
    }
}

/// The error of a job that was not created after all tries.
fn not_created(error: CallError, id: &str) -> WarehouseError {
    match error {
        // It may run. Another id could make a second job that runs, and costs, beside it.
        CallError::NoAnswer(how) => WarehouseError::Refused {
            message: format!("the creation of the job {id} was tried four times: {how}"),
            help: Some("look for the job in BigQuery, then refresh the audience again".to_owned()),
        },
        other => other.into_error(CREATING, true),
    }
}

/// The error of a job that has failed. BigQuery's message is left out: it may contain a value of the
/// data.
fn failure(status: &JobStatus, id: &str) -> Result<(), WarehouseError> {
    let Some(error) = &status.error_result else { return Ok(()) };
    let reason = &error.reason;
    if is_job_lost(reason) {
        return Err(lost(id, &format!("it has failed ({reason})")));
    }
    // Another try under this id would find the same failure.
    let message = format!("the job {id} has failed ({reason})");
    let help = help_of(reason).unwrap_or("its message is in BigQuery's list of jobs");
    Err(WarehouseError::Refused { message, help: Some(help.to_owned()) })
}

fn lost(id: &str, why: &str) -> WarehouseError {
    WarehouseError::JobLost { job: id.to_owned(), why: why.to_owned() }
}

fn incomplete(doing: &str) -> WarehouseError {
    let message = format!("BigQuery responded to {doing} with an incomplete answer");
    WarehouseError::Unavailable { message, after: None }
}

fn parsed<'b, T: Deserialize<'b>>(body: &'b [u8], doing: &str) -> Result<T, WarehouseError> {
    // The parser's message may contain a value.
    serde_json::from_slice(body).map_err(|_| incomplete(doing))
}

/// The price of reading, rounded up to a micro; `None` if it is too large to be a price.
fn cost(bytes: u64, price_per_tib: Micros) -> Option<Micros> {
    const TIB: i128 = 1 << 40;
    let micros = (i128::from(bytes) * i128::from(price_per_tib.0) + TIB - 1) / TIB;
    Some(Micros(i64::try_from(micros).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_exact_and_rounded_up() {
        let price = Micros(6_250_000);
        assert_eq!(cost(1 << 40, price), Some(price));
        assert_eq!(cost(1 << 39, price), Some(Micros(3_125_000)));
        assert_eq!(cost(1, price), Some(Micros(1)));
        assert_eq!(cost(0, price), Some(Micros(0)));
        assert_eq!(cost(u64::MAX, Micros(i64::MAX)), None);
    }
}
