//! The state of the platform, and the effect of each call. Pure; the time is passed in.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};
use throng_model::Timestamp;

use super::audience::{Audience, Change, Rules};
use super::call::{Call, Node};
use super::config::MetaSimConfig;
use super::error::GraphError;
use super::params::Params;
use super::payload::{SessionStep, Upload, implicit_session};
use super::usage::{Meter, Score, Usage, quota};

const FIRST_ID: u64 = 23_849_182_000_000_000;
const SOURCES: [&str; 3] =
    ["USER_PROVIDED_ONLY", "PARTNER_PROVIDED_ONLY", "BOTH_USER_AND_PARTNER_PROVIDED"];
const DEFAULT_PAGE: usize = 25;
const LARGEST_PAGE: usize = 1_000;

#[derive(Debug, Default)]
struct Account {
    meter: Meter,
    score: Score,
    /// Oldest first.
    audiences: Vec<u64>,
    /// Replace sessions and their audiences: an id belongs to one audience of the account.
    replace_sessions: HashMap<u64, u64>,
}

/// A call with users, decoded before the state is locked.
#[derive(Debug)]
pub(super) struct UsersCall {
    pub(super) upload: Upload,
    pub(super) step: Option<SessionStep>,
    pub(super) method: &'static str,
    /// The fault script makes this replace fail at its end.
    pub(super) fails: bool,
}

/// The input of a call besides its object.
#[derive(Debug)]
pub(super) enum Input {
    Plain(Params),
    Users(Box<UsersCall>),
}

#[derive(Debug, Default)]
pub(super) struct PlatformState {
    accounts: BTreeMap<String, Account>,
    audiences: BTreeMap<u64, Audience>,
    created: u64,
}

fn rules(config: &MetaSimConfig) -> Rules {
    Rules {
        matches_people: config.matches_people,
        processing_delay: config.processing_delay,
        match_rate: config.match_rate,
        refuse_removals_below: config.refuse_removals_below,
        replace_below_members: config.replace_below_members,
    }
}

impl PlatformState {
    /// The ad account that a node belongs to.
    ///
    /// # Errors
    /// 100/33 if there is no such account or audience.
    pub(super) fn account_of(
        &self,
        node: &Node,
        method: &str,
        config: &MetaSimConfig,
    ) -> Result<String, GraphError> {
        match node {
            Node::Account(account) if config.has_account(account) => Ok(account.clone()),
            Node::Account(account) => Err(GraphError::no_object(method, &format!("act_{account}"))),
            Node::Audience(id) => self
                .audiences
                .get(id)
                .map(|audience| audience.account.clone())
                .ok_or_else(|| GraphError::no_object(method, &id.to_string())),
        }
    }

    /// Charges a call to the account's quota. Calls over the quota count as well.
    ///
    /// # Errors
    /// 80003 over the quota; 17 or 613 when the older meter blocks writes or reads.
    pub(super) fn charge(
        &mut self,
        account: &str,
        call: Call,
        config: &MetaSimConfig,
        now: Timestamp,
    ) -> (Usage, Result<(), GraphError>) {
        let account = self.accounts.entry(account.to_owned()).or_default();
        account.meter.count(now);
        let limit = quota(config.tier, config.quota_calls_per_hour, account.audiences.len() as u64);
        let calls = account.meter.calls();
        let over = calls > limit;
        let regain = if over { account.meter.regain_minutes(now, limit) } else { 0 };
        let usage = Usage {
            percent: (calls * 100).checked_div(limit).unwrap_or(100),
            regain_minutes: regain,
        };
        let blocked =
            config.account_score && account.score.count(now, call.is_write(), config.tier);
        let verdict = if over {
            Err(GraphError::throttled(80_003))
        } else if blocked {
            Err(GraphError::throttled(if call.is_write() { 613 } else { 17 }))
        } else {
            Ok(())
        };
        (usage, verdict)
    }

    /// Executes a call.
    ///
    /// # Errors
    /// As documented for the call in `docs/simulators.md`.
    pub(super) fn apply(
        &mut self,
        call: Call,
        node: &Node,
        input: Input,
        config: &MetaSimConfig,
        now: Timestamp,
    ) -> Result<Value, GraphError> {
        match (node, input) {
            (Node::Account(account), Input::Plain(params)) => match call {
                Call::CreateAudience => self.create(account, params, config, now),
                Call::ListAudiences => self.list(account, &params, config, now),
                _ => read_account(account, &params, config),
            },
            (Node::Account(account), Input::Users(users)) => {
                self.remove_everywhere(account, *users, config, now)
            }
            (Node::Audience(id), Input::Users(users)) => self.users(call, *id, *users, config, now),
            (Node::Audience(id), Input::Plain(params)) => {
                let audience = self.audience(*id, config, now)?;
                match call {
                    Call::UpdateAudience => update(audience, params, now),
                    Call::DeleteAudience => {
                        self.delete(*id);
                        Ok(json!({ "success": true }))
                    }
                    Call::ListSessions => {
                        let id = params.text("session_id").and_then(|id| id.parse().ok());
                        Ok(json!({ "data": audience.sessions(id) }))
                    }
                    _ => select(audience, &fields(&params)),
                }
            }
        }
    }

    fn audience(
        &mut self,
        id: u64,
        config: &MetaSimConfig,
        now: Timestamp,
    ) -> Result<&mut Audience, GraphError> {
        let audience = self
            .audiences
            .get_mut(&id)
            .ok_or_else(|| GraphError::no_object("get", &id.to_string()))?;
        audience.settle(&rules(config), now);
        Ok(audience)
    }

    fn create(
        &mut self,
        account: &str,
        mut params: Params,
        config: &MetaSimConfig,
        now: Timestamp,
    ) -> Result<Value, GraphError> {
        let missing =
            |name: &str| GraphError::parameter(name, &format!("The parameter {name} is required"));
        if !config.has_terms(account) {
            return Err(GraphError::no_terms());
        }
        let name = params.text("name").filter(|n| !n.trim().is_empty()).ok_or(missing("name"))?;
        if params.text("subtype").is_some_and(|subtype| subtype != "CUSTOM") {
            let why = "Param subtype must be CUSTOM: this simulator keeps no other audiences";
            return Err(GraphError::parameter("subtype", why));
        }
        let source = params.text("customer_file_source").ok_or(missing("customer_file_source"))?;
        if !SOURCES.contains(&source.as_str()) {
            let why =
                format!("Param customer_file_source must be one of {{{}}}", SOURCES.join(", "));
            return Err(GraphError::parameter("customer_file_source", &why));
        }
        let retention_days = retention(&params)?;
        let here = self.accounts.entry(account.to_owned()).or_default();
        if params.boolean("enable_fetch_or_create") {
            let same = |id: &&u64| self.audiences.get(id).is_some_and(|a| a.name == name);
            if let Some(id) = here.audiences.iter().find(same) {
                return Ok(json!({ "id": id.to_string() }));
            }
        }
        if here.audiences.len() >= config.max_audiences_per_account {
            return Err(GraphError::too_many_audiences(config.max_audiences_per_account));
        }
        self.created += 1;
        // Ids on the real platform are not consecutive; here they have gaps.
        let id = FIRST_ID + self.created * 10_007;
        here.audiences.push(id);
        let mut audience = Audience::new(id, account, &name, &source, now);
        audience.description = params.text("description");
        audience.opt_out_link = params.text("opt_out_link");
        audience.retention_days = retention_days;
        audience.value_based = params.take_json("is_value_based") == Some(Value::Bool(true));
        self.audiences.insert(id, audience);
        Ok(json!({ "id": id.to_string() }))
    }

    fn list(
        &mut self,
        account: &str,
        params: &Params,
        config: &MetaSimConfig,
        now: Timestamp,
    ) -> Result<Value, GraphError> {
        let limit = match params.text("limit").map(|text| text.parse::<usize>()) {
            None => DEFAULT_PAGE,
            Some(Ok(limit)) if (1..=LARGEST_PAGE).contains(&limit) => limit,
            Some(_) => {
                let why = format!("Param limit must be between 1 and {LARGEST_PAGE}");
                return Err(GraphError::parameter("limit", &why));
            }
        };
        let position = |name: &str| match params.text(name).map(|text| cursor_id(&text)) {
            Some(None) => Err(GraphError::parameter(name, "Invalid cursor")),
            found => Ok(found.flatten()),
        };
        let (after, before) = (position("after")?, position("before")?);
        // Newest first. Ids grow, so a cursor also works after its audience was deleted.
        let newest_first: Vec<u64> = self
            .accounts
            .get(account)
            .into_iter()
            .flat_map(|account| account.audiences.iter().rev().copied())
            .collect();
        let from = match (after, before) {
            (Some(after), _) => newest_first.partition_point(|id| *id >= after),
            (None, Some(before)) => {
                newest_first.partition_point(|id| *id > before).saturating_sub(limit)
            }
            (None, None) => 0,
        };
        let until = match (after, before) {
            (None, Some(before)) => newest_first.partition_point(|id| *id > before),
            _ => (from + limit).min(newest_first.len()),
        };
        let page = &newest_first[from.min(until)..until];
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            return Ok(json!({ "data": [] }));
        };
        let fields = fields(params);
        let mut data = Vec::with_capacity(page.len());
        for id in page {
            data.push(select(self.audience(*id, config, now)?, &fields)?);
        }
        let cursors = json!({ "before": cursor(*first), "after": cursor(*last) });
        Ok(json!({ "data": data, "paging": { "cursors": cursors } }))
    }

    fn delete(&mut self, id: u64) {
        if let Some(audience) = self.audiences.remove(&id)
            && let Some(account) = self.accounts.get_mut(&audience.account)
        {
            account.audiences.retain(|other| *other != id);
        }
    }

    fn users(
        &mut self,
        call: Call,
        id: u64,
        users: UsersCall,
        config: &MetaSimConfig,
        now: Timestamp,
    ) -> Result<Value, GraphError> {
        let UsersCall { mut upload, step, method, fails } = users;
        let account = self.audience(id, config, now)?.account.clone();
        if let (Call::ReplaceUsers, Some(step)) = (call, step) {
            let used = &mut self.accounts.entry(account.clone()).or_default().replace_sessions;
            if *used.entry(step.id).or_insert(id) != id {
                let why = "Param session[session_id] was used for another audience of the account";
                return Err(GraphError::parameter("session", why));
            }
        }
        let session_id =
            step.map_or_else(|| implicit_session(&account, method, &upload.schema), |step| step.id);
        let samples = std::mem::take(&mut upload.samples);
        let rules = rules(config);
        let audience = self.audience(id, config, now)?;
        let received = match (call, step) {
            (Call::ReplaceUsers, Some(step)) => {
                audience.replace(upload, step, fails, &rules, now)?
            }
            (Call::RemoveUsers, _) => audience.change(Change::Remove, upload, step, &rules, now)?,
            _ => audience.change(Change::Add, upload, step, &rules, now)?,
        };
        let mut reply = json!({
            "audience_id": id.to_string(),
            "session_id": session_id.to_string(),
            "num_received": received.received,
            "num_invalid_entries": received.invalid,
            "invalid_entry_samples": samples,
        });
        if call == Call::ReplaceUsers {
            // The documentation has `account_id` here; the real response is not known.
            reply["account_id"] = json!(account.parse::<u64>().unwrap_or(0));
        }
        Ok(reply)
    }

    /// Removes rows from every audience of an account, except audiences that are being replaced.
    fn remove_everywhere(
        &mut self,
        account: &str,
        users: UsersCall,
        config: &MetaSimConfig,
        now: Timestamp,
    ) -> Result<Value, GraphError> {
        let UsersCall { upload, method, .. } = users;
        let ids = self.accounts.get(account).map(|a| a.audiences.clone()).unwrap_or_default();
        let rules = rules(config);
        for id in ids {
            let part = Upload { rows: upload.rows.clone(), ..upload.without_rows() };
            // If an audience cannot be changed now, people are still removed from the others.
            let _ = self.audience(id, config, now)?.change(Change::Remove, part, None, &rules, now);
        }
        Ok(json!({
            "session_id": implicit_session(account, method, &upload.schema).to_string(),
            "num_received": upload.received,
            "num_invalid_entries": upload.invalid,
            "invalid_entry_samples": upload.samples,
        }))
    }

    /// All audiences, advanced to `now`.
    pub(super) fn settled(
        &mut self,
        config: &MetaSimConfig,
        now: Timestamp,
    ) -> impl Iterator<Item = &Audience> {
        let rules = rules(config);
        self.audiences.values_mut().map(move |audience| {
            audience.settle(&rules, now);
            &*audience
        })
    }

    /// One audience, advanced to `now`.
    pub(super) fn one(
        &mut self,
        id: &str,
        config: &MetaSimConfig,
        now: Timestamp,
    ) -> Option<&Audience> {
        self.audience(id.parse().ok()?, config, now).ok().map(|audience| &*audience)
    }
}

fn cursor(id: u64) -> String {
    format!("QVFIU{id:x}")
}

fn cursor_id(cursor: &str) -> Option<u64> {
    u64::from_str_radix(cursor.strip_prefix("QVFIU")?, 16).ok()
}

fn retention(params: &Params) -> Result<Option<u64>, GraphError> {
    match params.text("retention_days").map(|text| text.parse::<u64>()) {
        None => Ok(None),
        Some(Ok(days)) if (1..=180).contains(&days) => Ok(Some(days)),
        Some(_) => {
            let why = "Param retention_days must be between 1 and 180";
            Err(GraphError::parameter("retention_days", why))
        }
    }
}

/// The requested fields of a read. Subfields in braces are ignored.
fn fields(params: &Params) -> Vec<String> {
    let asked = params.text("fields").unwrap_or_default();
    let mut depth = 0usize;
    let flat: String = asked
        .chars()
        .filter(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => return depth == 0 && !c.is_whitespace(),
            }
            false
        })
        .collect();
    flat.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn select(audience: &Audience, fields: &[String]) -> Result<Value, GraphError> {
    let mut selected = Map::new();
    for field in fields {
        let value =
            audience.field(field).ok_or_else(|| GraphError::no_field(field, "CustomAudience"))?;
        selected.insert(field.clone(), value);
    }
    selected.entry("id").or_insert_with(|| json!(audience.id.to_string()));
    Ok(Value::Object(selected))
}

fn update(audience: &mut Audience, params: Params, now: Timestamp) -> Result<Value, GraphError> {
    if params.has("name") {
        audience.name = params
            .text("name")
            .filter(|name| !name.trim().is_empty())
            .ok_or_else(|| GraphError::parameter("name", "Param name must not be empty"))?;
    }
    if let Some(days) = retention(&params)? {
        audience.retention_days = Some(days);
    }
    if let Some(description) = params.text("description") {
        audience.description = Some(description);
    }
    if let Some(link) = params.text("opt_out_link") {
        audience.opt_out_link = Some(link);
    }
    audience.updated = now;
    Ok(json!({ "success": true }))
}

fn read_account(
    account: &str,
    params: &Params,
    config: &MetaSimConfig,
) -> Result<Value, GraphError> {
    let terms = || {
        if config.has_terms(account) { json!({ "custom_audience_tos": 1 }) } else { json!({}) }
    };
    let mut selected = Map::new();
    for field in fields(params) {
        let value = match field.as_str() {
            "tos_accepted" | "user_tos_accepted" => terms(),
            "account_id" => json!(account),
            "name" => json!(format!("Simulated account {account}")),
            "account_status" => json!(1),
            "currency" => json!("USD"),
            "timezone_name" => json!("UTC"),
            "id" => continue,
            other => return Err(GraphError::no_field(other, "AdAccount")),
        };
        selected.insert(field, value);
    }
    selected.insert("id".to_owned(), json!(format!("act_{account}")));
    Ok(Value::Object(selected))
}
