//! The calls.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use throng_activation::{
    Answer, Destination, Ensured, Limits, PlatformSize, PreparedRow, Schema, SendClass, SendError,
    SendRequest, Skip,
};
use throng_model::Personal;
use throng_store::Operation;
use url::Url;

use super::config::{Config, MetaAccount, check};
use super::response::{Raw, answer_of, is_not_there, json_of, size_of, usage_of};
use super::{normalise, request};
use crate::RegistryError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A full batch is a few megabytes and is answered in seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// No answer of this API is larger than a page of audiences.
const BODY_LIMIT: usize = 4 << 20;
const PAGE: usize = 100;
/// An account has at most 500 customer-list audiences and some thousand others.
const PAGES_AT_MOST: usize = 200;

/// A Meta ad account.
#[derive(Debug)]
pub struct MetaDestination {
    config: Config,
    proof: Option<String>,
    client: Client,
}

impl MetaDestination {
    /// Checks the settings. Makes no call.
    ///
    /// # Errors
    /// [`RegistryError::Account`] if the settings make no sense.
    pub fn new(account: &MetaAccount) -> Result<Self, RegistryError> {
        let config = check(account)?;
        // Another part of the process may have installed one already: that one is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| RegistryError::Account {
                account: account.account.clone(),
                why: format!("no HTTP client can be made: {error}"),
            })?;
        let proof = config
            .app_secret
            .as_ref()
            .map(|secret| request::app_secret_proof(secret, &config.access_token));
        Ok(Self { config, proof, client })
    }

    /// A call with the token, to the destination's own server and no other. The token goes into a
    /// header: addresses end up in logs.
    fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<RequestBuilder, SendError> {
        let elsewhere = || {
            let message = "a call would not go to the server of the destination's base_url";
            SendError::local(SendClass::Stop, message)
        };
        let url = format!("{}/{path}", self.config.root);
        let mut url = Url::parse(&url).map_err(|_| elsewhere())?;
        if url.origin() != self.config.origin {
            return Err(elsewhere());
        }
        let proof = self.proof.iter().map(|proof| ("appsecret_proof", proof.as_str()));
        let pairs: Vec<(&str, &str)> = query.iter().copied().chain(proof).collect();
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        Ok(self.client.request(method, url).bearer_auth(self.config.access_token.expose()))
    }

    async fn answer(&self, call: RequestBuilder, doing: &str) -> Result<Raw, SendError> {
        let cut = |error: reqwest::Error| {
            let error = error.without_url();
            let how = if error.is_timeout() {
                "there was no answer in time"
            } else if error.is_connect() {
                "no connection could be made"
            } else {
                "the connection was cut"
            };
            SendError::local(SendClass::Retry, format!("{doing} at Meta failed: {how}"))
        };
        let mut response = call.send().await.map_err(cut)?;
        let header = |name: &str| response.headers().get(name).and_then(|h| h.to_str().ok());
        let usage = usage_of(
            header("x-business-use-case-usage"),
            header("x-app-usage"),
            &self.config.account,
        );
        if response.status().is_redirection() {
            return Err(redirected(&response, doing));
        }
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(cut)? {
            if body.len() + chunk.len() > BODY_LIMIT {
                let message = format!("Meta answered {doing} with more than {BODY_LIMIT} bytes");
                return Err(SendError::local(SendClass::Retry, message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Raw { status, body, usage })
    }

    /// The first audience of the account that is wanted.
    async fn find(&self, wanted: impl Fn(&Value) -> bool) -> Result<Option<Value>, SendError> {
        let doing = "listing audiences";
        let path = format!("act_{}/customaudiences", self.config.account);
        let limit = PAGE.to_string();
        let mut after: Option<String> = None;
        for _ in 0..PAGES_AT_MOST {
            let mut query =
                vec![("fields", "id,name,subtype,description"), ("limit", limit.as_str())];
            if let Some(after) = &after {
                query.push(("after", after));
            }
            let raw = self.answer(self.call(Method::GET, &path, &query)?, doing).await?;
            let page = json_of(&raw, doing)?;
            let found = page["data"].as_array().into_iter().flatten().find(|one| wanted(one));
            if let Some(audience) = found {
                return Ok(Some(audience.clone()));
            }
            // The cursor only: `paging.next` is an address, and the token goes to no address that an
            // answer holds.
            let next = page["paging"]["cursors"]["after"].as_str().map(str::to_owned);
            let more = page["data"].as_array().is_some_and(|data| !data.is_empty());
            if !more || next.is_none() || next == after {
                return Ok(None);
            }
            after = next;
        }
        Ok(None)
    }
}

/// Whether an audience is a list of customers of this name, with an id that can be used.
fn is_named(audience: &Value, name: &str) -> bool {
    audience["name"] == name
        && audience["subtype"].as_str().is_none_or(|subtype| subtype == "CUSTOM")
        && id_of(audience).is_some()
}

/// A redirect is not followed: the access token goes to the destination's own server only.
fn redirected(response: &reqwest::Response, doing: &str) -> SendError {
    let status = response.status().as_u16();
    let location = response.headers().get(reqwest::header::LOCATION);
    let to = location.and_then(|to| Url::parse(to.to_str().ok()?).ok());
    // Only the server: the rest may hold what was asked for.
    let to = to.map_or_else(|| "another path".to_owned(), |to| to.origin().ascii_serialization());
    let message = format!(
        "Meta answered {doing} with a redirect (status {status}) to {to}, which is not followed: \
         check the destination's base_url, and proxies on the way"
    );
    SendError { http_status: status, ..SendError::local(SendClass::Retry, message) }
}

fn id_of(value: &Value) -> Option<String> {
    let id = value["id"].as_str()?;
    // The id becomes part of addresses.
    (!id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())).then(|| id.to_owned())
}

#[async_trait]
impl Destination for MetaDestination {
    fn limits(&self) -> Limits {
        Limits { max_batch_rows: 10_000, max_tasks: 16 }
    }

    async fn ensure_audience(&self, name: &str, owner: &str) -> Result<Ensured, SendError> {
        let found = self.find(|audience| is_named(audience, name)).await?;
        if let Some((platform_id, audience)) = found.and_then(|found| Some((id_of(&found)?, found)))
        {
            let description = audience["description"].as_str().unwrap_or_default();
            let own = request::is_of(description, owner);
            return Ok(Ensured { platform_id, created: false, own });
        }
        let doing = "creating an audience";
        let path = format!("act_{}/customaudiences", self.config.account);
        let call =
            self.call(Method::POST, &path, &[])?.json(&request::create_audience(name, owner));
        let raw = self.answer(call, doing).await?;
        let platform_id = id_of(&json_of(&raw, doing)?).ok_or_else(|| {
            SendError::local(SendClass::Retry, "Meta created an audience without telling its id")
        })?;
        Ok(Ensured { platform_id, created: true, own: true })
    }

    fn prepare(&self, schema: &Schema, cells: &[Option<Personal>]) -> Result<PreparedRow, Skip> {
        normalise::prepare(schema, cells, &mut Vec::new())
    }

    async fn send(&self, request: &SendRequest<'_>) -> Result<Answer, SendError> {
        let (method, edge, doing) = match request.operation {
            Operation::Add => (Method::POST, "users", "adding users"),
            // The payload goes into the body: as a parameter it breaks at 300 rows.
            Operation::Remove => (Method::DELETE, "users", "removing users"),
            Operation::Replace => (Method::POST, "usersreplace", "replacing users"),
        };
        let path = format!("{}/{edge}", request.platform_id);
        let call = self.call(method, &path, &[])?.json(&request::users(request));
        let raw = self.answer(call, doing).await?;
        answer_of(&raw, request, doing)
    }

    async fn size(&self, platform_id: &str) -> Result<PlatformSize, SendError> {
        let doing = "reading an audience";
        let fields = "approximate_count_lower_bound,approximate_count_upper_bound,\
                      operation_status,delivery_status";
        let call = self.call(Method::GET, platform_id, &[("fields", fields)])?;
        let raw = self.answer(call, doing).await?;
        Ok(size_of(&json_of(&raw, doing)?))
    }

    async fn delete_audience(&self, platform_id: &str) -> Result<(), SendError> {
        let doing = "deleting an audience";
        let raw = self.answer(self.call(Method::DELETE, platform_id, &[])?, doing).await?;
        let error = match json_of(&raw, doing) {
            Ok(value) if value["success"] == true => return Ok(()),
            Ok(_) => {
                let message = "Meta answered deleting an audience without saying that it did";
                return Err(SendError::local(SendClass::Retry, message));
            }
            Err(error) => error,
        };
        // The same code says that the audience is gone, and that this token may not see it.
        if is_not_there(&raw) && self.find(|one| one["id"] == platform_id).await?.is_none() {
            return Ok(());
        }
        Err(error)
    }

    async fn probe(&self) -> Result<(), SendError> {
        let doing = "reading the ad account";
        let path = format!("act_{}", self.config.account);
        let call = self.call(Method::GET, &path, &[("fields", "id")])?;
        let raw = self.answer(call, doing).await?;
        json_of(&raw, doing).map(|_| ())
    }
}
