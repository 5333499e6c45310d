//! The calls of the destination.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use throng_activation::{
    Destination, DestinationLimits, EnsuredAudience, PlatformSize, PreparedRow, Schema, SendClass,
    SendError, SendRequest, SendResponse, Skip,
};
use throng_model::Personal;
use throng_store::Operation;
use url::Url;

use super::config::{Config, MetaAccount, check};
use super::response::{RawResponse, is_not_found, json_of, response_of, size_of, usage_of};
use super::{SIZES, normalise, request};
use crate::calls::paced;
use crate::platform::LATEST_YEAR;
use crate::{AccountCalls, CallKind, CallPermit, Permission, RegistryError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A full batch is a few megabytes and is answered in seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// No response of this API is larger than a page of audiences.
const MAX_BODY_BYTES: usize = 4 << 20;
const PAGE: usize = 100;
/// An account has at most 500 customer-list audiences and a few thousand others. A list that is longer is an
/// error: if its rest counted as "not there", an audience would be created twice, or count as deleted.
const MAX_PAGES: usize = 200;
/// How long a call that continues a search waits for quota. If it were refused, all pages before would be read again,
/// and near the end of the quota no search would ever reach its end.
const MAX_PAGE_WAIT: Duration = Duration::from_secs(120);

/// A Meta ad account.
#[derive(Debug)]
pub struct MetaDestination {
    config: Config,
    proof: Option<String>,
    client: Client,
    calls: Option<Arc<AccountCalls>>,
}

impl MetaDestination {
    /// Checks the settings. Makes no call.
    ///
    /// # Errors
    /// [`RegistryError::Account`] if the settings are invalid.
    pub fn new(account: &MetaAccount) -> Result<Self, RegistryError> {
        let config = check(account)?;
        // Another part of the process may have installed a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        // A proxy does not reach a server of this machine, and would read the token.
        let builder = if config.is_local { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| RegistryError::Account {
            account: account.account.clone(),
            why: format!("cannot create an HTTP client: {error}"),
        })?;
        let proof = config
            .app_secret
            .as_ref()
            .map(|secret| request::app_secret_proof(secret, &config.access_token));
        Ok(Self { config, proof, client, calls: None })
    }

    /// Paces the account's calls: without this it makes them whatever its quota is.
    #[must_use]
    pub fn with_calls(self, calls: Arc<AccountCalls>) -> Self {
        Self { calls: Some(calls), ..self }
    }

    /// Reserves a call that delivers no rows.
    fn read_permit(&self) -> Result<CallPermit, SendError> {
        let Some(calls) = &self.calls else { return Ok(CallPermit::unlimited()) };
        granted(calls.reserve(CallKind::Read))
    }

    /// Reserves a call that continues a search, which would begin again without it.
    async fn next_permit(&self) -> Result<CallPermit, SendError> {
        let Some(calls) = &self.calls else { return Ok(CallPermit::unlimited()) };
        granted(calls.reserve_within(CallKind::Read, MAX_PAGE_WAIT).await)
    }

    /// Reserves a call that delivers rows to an audience. Responses to uploads do not have the account's meter, so the
    /// audience is read if the meter has to be known.
    async fn upload_permit(&self, platform_id: &str) -> Result<CallPermit, SendError> {
        let Some(calls) = &self.calls else { return Ok(CallPermit::unlimited()) };
        loop {
            let permit = match calls.reserve(CallKind::Upload) {
                Permission::Go(permit) => return Ok(permit),
                Permission::Wait(wait) => return Err(paced(wait)),
                Permission::ReadMeter(permit) => permit,
            };
            let doing = "reading an audience";
            let call = self.call(Method::GET, platform_id, &[("fields", "id")])?;
            let read = self.exchange(call, doing, permit).await;
            let read = read.and_then(|raw| json_of(&raw, doing));
            // Any other failure is none of the upload, whose rows were not refused and whose session is not lost: it
            // goes without the meter, and its own response counts.
            if let Err(error @ SendError { class: SendClass::Throttled(_), .. }) = read {
                return Err(error);
            }
        }
    }

    /// Builds a call with the token, to the destination's own server only. The token is sent in a header,
    /// because URLs are logged.
    fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<RequestBuilder, SendError> {
        let wrong_server = || {
            let message =
                "the URL of a call does not belong to the server of the destination's base_url";
            SendError::local(SendClass::Stop, message)
        };
        let url = format!("{}/{path}", self.config.root);
        let mut url = Url::parse(&url).map_err(|_| wrong_server())?;
        if url.origin() != self.config.origin {
            return Err(wrong_server());
        }
        let proof = self.proof.iter().map(|proof| ("appsecret_proof", proof.as_str()));
        let pairs: Vec<(&str, &str)> = query.iter().copied().chain(proof).collect();
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        Ok(self.client.request(method, url).bearer_auth(self.config.access_token.expose()))
    }

    /// Makes a call that delivers no rows.
    async fn read(&self, call: RequestBuilder, doing: &str) -> Result<RawResponse, SendError> {
        self.exchange(call, doing, self.read_permit()?).await
    }

    /// Makes a call. All calls are made here.
    async fn exchange(
        &self,
        call: RequestBuilder,
        doing: &str,
        mut permit: CallPermit,
    ) -> Result<RawResponse, SendError> {
        let connection_error = |error: reqwest::Error| {
            let error = error.without_url();
            let how = if error.is_timeout() {
                "the response timed out"
            } else if error.is_connect() {
                "the connection failed"
            } else {
                "the connection was closed"
            };
            SendError::local(SendClass::Retry, format!("{doing} at Meta failed: {how}"))
        };
        let mut response = call.send().await.map_err(connection_error)?;
        let header = |name: &str| response.headers().get(name).and_then(|h| h.to_str().ok());
        let usage = usage_of(
            header("x-business-use-case-usage"),
            header("x-app-usage"),
            &self.config.account,
        );
        if let Some(usage) = usage {
            permit.observe(usage);
        }
        if response.status().is_redirection() {
            return Err(redirected(&response, doing));
        }
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(connection_error)? {
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                let message =
                    format!("Meta responded to {doing} with more than {MAX_BODY_BYTES} bytes");
                return Err(SendError::local(SendClass::Retry, message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(RawResponse { status, body, usage })
    }

    /// Finds the first audience of the account for which `wanted` is true. `None` only after the whole list was
    /// read.
    async fn find(&self, wanted: impl Fn(&Value) -> bool) -> Result<Option<Value>, SendError> {
        let doing = "listing audiences";
        let path = format!("act_{}/customaudiences", self.config.account);
        let limit = PAGE.to_string();
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut query =
                vec![("fields", "id,name,subtype,description"), ("limit", limit.as_str())];
            if let Some(after) = &after {
                query.push(("after", after));
            }
            let permit = match &after {
                None => self.read_permit()?,
                Some(_) => self.next_permit().await?,
            };
            let raw = self.exchange(self.call(Method::GET, &path, &query)?, doing, permit).await?;
            let page = json_of(&raw, doing)?;
            let incomplete = || {
                let message = "Meta responded to listing audiences with an incomplete list";
                SendError::local(SendClass::Retry, message)
            };
            let audiences = page["data"].as_array().ok_or_else(incomplete)?;
            if let Some(audience) = audiences.iter().find(|one| wanted(one)) {
                return Ok(Some(audience.clone()));
            }
            // Only the cursor: `paging.next` is a URL, and the token must never be sent to a URL from a
            // response.
            let next = page["paging"]["cursors"]["after"].as_str().map(str::to_owned);
            // Meta may return an empty page before the end, and names a next page with it.
            let has_next = page["paging"]["next"].is_string();
            if next.is_none() && has_next {
                return Err(incomplete());
            }
            if next.is_none() || (audiences.is_empty() && !has_next) {
                return Ok(None);
            }
            if next == after {
                return Err(incomplete());
            }
            after = next;
        }
        Err(SendError::local(SendClass::Stop, too_many_audiences(&self.config.account)))
    }
}

/// The permit of a call that delivers no rows.
fn granted(permission: Permission) -> Result<CallPermit, SendError> {
    match permission {
        Permission::Go(permit) | Permission::ReadMeter(permit) => Ok(permit),
        Permission::Wait(wait) => Err(paced(wait)),
    }
}

/// The message if an account has more audiences than are searched.
fn too_many_audiences(account: &str) -> String {
    format!(
        "listing audiences at Meta ended after {} of them, so that it is not known whether the account {account} \
         has the audience: delete audiences of the account that are no longer used",
        MAX_PAGES * PAGE
    )
}

/// Whether an audience is a customer list of this name with a valid id.
fn is_named(audience: &Value, name: &str) -> bool {
    audience["name"] == name
        && audience["subtype"].as_str().is_none_or(|subtype| subtype == "CUSTOM")
        && id_of(audience).is_some()
}

/// The error of a redirect. It is not followed: the access token is sent to the destination's own server only.
fn redirected(response: &reqwest::Response, doing: &str) -> SendError {
    let status = response.status().as_u16();
    let location = response.headers().get(reqwest::header::LOCATION);
    let to = location.and_then(|to| Url::parse(to.to_str().ok()?).ok());
    // Only the server: the rest of the URL may contain the query.
    let to = to.map_or_else(|| "another path".to_owned(), |to| to.origin().ascii_serialization());
    let message = format!(
        "Meta responded to {doing} with a redirect (status {status}) to {to}, which is not followed: \
         check the destination's base_url, and proxies between"
    );
    SendError { http_status: status, ..SendError::local(SendClass::Retry, message) }
}

fn id_of(value: &Value) -> Option<String> {
    let id = value["id"].as_str()?;
    // The id becomes part of URLs.
    (!id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())).then(|| id.to_owned())
}

#[async_trait]
impl Destination for MetaDestination {
    fn limits(&self) -> DestinationLimits {
        DestinationLimits { max_batch_rows: 10_000, max_tasks: 16, sizes: SIZES }
    }

    async fn ensure_audience(&self, name: &str, owner: &str) -> Result<EnsuredAudience, SendError> {
        let found = self.find(|audience| is_named(audience, name)).await?;
        if let Some((platform_id, audience)) = found.and_then(|found| Some((id_of(&found)?, found)))
        {
            let description = audience["description"].as_str().unwrap_or_default();
            let own = request::is_owned_by(description, owner);
            return Ok(EnsuredAudience { platform_id, created: false, own });
        }
        let doing = "creating an audience";
        let path = format!("act_{}/customaudiences", self.config.account);
        let call =
            self.call(Method::POST, &path, &[])?.json(&request::create_audience(name, owner));
        let raw = self.exchange(call, doing, self.next_permit().await?).await?;
        let platform_id = id_of(&json_of(&raw, doing)?).ok_or_else(|| {
            SendError::local(SendClass::Retry, "Meta created an audience and returned no id")
        })?;
        Ok(EnsuredAudience { platform_id, created: true, own: true })
    }

    fn prepare(&self, schema: &Schema, cells: &[Option<Personal>]) -> Result<PreparedRow, Skip> {
        normalise::prepare(schema, LATEST_YEAR, cells, &mut Vec::new())
    }

    async fn send(&self, request: &SendRequest<'_>) -> Result<SendResponse, SendError> {
        let (method, edge, doing) = match request.operation {
            Operation::Add => (Method::POST, "users", "adding users"),
            // The payload is sent in the body: as a query parameter it fails at 300 rows.
            Operation::Remove => (Method::DELETE, "users", "removing users"),
            Operation::Replace => (Method::POST, "usersreplace", "replacing users"),
        };
        let permit = self.upload_permit(request.platform_id).await?;
        let path = format!("{}/{edge}", request.platform_id);
        let call = self.call(method, &path, &[])?.json(&request::users(request));
        let raw = self.exchange(call, doing, permit).await?;
        response_of(&raw, request, doing)
    }

    async fn size(&self, platform_id: &str) -> Result<PlatformSize, SendError> {
        let doing = "reading an audience";
        let fields = "approximate_count_lower_bound,approximate_count_upper_bound,\
                      operation_status,delivery_status";
        let call = self.call(Method::GET, platform_id, &[("fields", fields)])?;
        let raw = self.read(call, doing).await?;
        Ok(size_of(&json_of(&raw, doing)?))
    }

    async fn delete_audience(&self, platform_id: &str) -> Result<(), SendError> {
        let doing = "deleting an audience";
        let raw = self.read(self.call(Method::DELETE, platform_id, &[])?, doing).await?;
        let error = match json_of(&raw, doing) {
            Ok(value) if value["success"] == true => return Ok(()),
            Ok(_) => {
                let message = "Meta did not confirm that the audience is deleted";
                return Err(SendError::local(SendClass::Retry, message));
            }
            Err(error) => error,
        };
        // The same code means that the audience does not exist and that this token may not see it. If an
        // invisible audience counted as deleted, its users would stay on the platform unnoticed.
        if is_not_found(&raw) && self.find(|one| one["id"] == platform_id).await?.is_none() {
            return Ok(());
        }
        Err(error)
    }

    async fn probe(&self) -> Result<(), SendError> {
        let doing = "reading the ad account";
        let path = format!("act_{}", self.config.account);
        let call = self.call(Method::GET, &path, &[("fields", "id")])?;
        let raw = self.read(call, doing).await?;
        json_of(&raw, doing).map(|_| ())
    }
}
