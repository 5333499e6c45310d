//! One audience: its members, its sessions, and its readable fields. Pure; the time is passed in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use throng_model::Timestamp;

use super::error::GraphError;
use super::members::{Members, Row};
use super::payload::{SessionStep, Upload};

/// A replace session ends this long after its first batch.
pub(super) const REPLACE_WINDOW: Duration = Duration::from_secs(90 * 60);
/// Sessions kept for `/sessions`.
const SESSIONS_KEPT: usize = 100;
/// With fewer matched people, counts are not shown.
const SMALLEST_COUNT: u64 = 100;

const IN_PROGRESS: i64 = 1_870_145;
const FAILED: i64 = 1_870_148;
const TIMED_OUT: i64 = 1_870_158;
const NOT_FIRST: i64 = 1_870_147;
const FINISHED: i64 = 1_870_159;
const TOO_LARGE: i64 = 1_870_144;

/// A replace that is being uploaded.
#[derive(Debug)]
struct Replace {
    id: u64,
    started: Timestamp,
    schema: String,
    staged: Members,
}

/// A session as `/sessions` lists it.
#[derive(Debug, Clone)]
struct SessionRecord {
    id: u64,
    started: Timestamp,
    ended: Option<Timestamp>,
    received: u64,
    invalid: u64,
}

/// The change that an upload makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Remove,
}

/// The counts of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) received: u64,
    pub(super) invalid: u64,
}

/// Settings that audiences depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) matches_people: bool,
    pub(super) processing_delay: Duration,
    pub(super) match_rate: f64,
    pub(super) refuse_removals_below: Option<u64>,
    pub(super) replace_below_members: u64,
}

#[derive(Debug)]
pub(super) struct Audience {
    pub(super) id: u64,
    pub(super) account: String,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) opt_out_link: Option<String>,
    pub(super) source: String,
    pub(super) retention_days: Option<u64>,
    pub(super) value_based: bool,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    pub(super) content_updated: Option<Timestamp>,
    pub(super) members: Members,
    /// Determined by the first upload.
    family: Option<String>,
    /// Matched people, as of the last settled change.
    shown: u64,
    /// When the current change settles, and its status until then.
    settling: Option<(Timestamp, i64)>,
    replace: Option<Replace>,
    replace_failed: bool,
    /// Ended replace sessions: id -> timed out.
    ended: BTreeMap<u64, bool>,
    sessions: VecDeque<SessionRecord>,
}

impl Audience {
    pub(super) fn new(id: u64, account: &str, name: &str, source: &str, now: Timestamp) -> Self {
        Self {
            id,
            account: account.to_owned(),
            name: name.to_owned(),
            description: None,
            opt_out_link: None,
            source: source.to_owned(),
            retention_days: None,
            value_based: false,
            created: now,
            updated: now,
            content_updated: None,
            members: Members::default(),
            family: None,
            shown: 0,
            settling: None,
            replace: None,
            replace_failed: false,
            ended: BTreeMap::new(),
            sessions: VecDeque::new(),
        }
    }

    /// Advances to `now`: closes a replace session whose window is over (the rows that have arrived are then
    /// the audience), and shows settled changes.
    pub(super) fn settle(&mut self, rules: &Rules, now: Timestamp) {
        let closes = self.replace.as_ref().map(|replace| replace.started.plus(REPLACE_WINDOW));
        if let Some(closes) = closes.filter(|closes| now >= *closes) {
            self.finish_replace(rules, closes, true);
        }
        if self.settling.is_some_and(|(until, _)| now >= until) {
            self.settling = None;
            self.shown = (self.members.len() as f64 * rules.match_rate.clamp(0.0, 1.0)) as u64;
        }
    }

    /// Adds or removes rows.
    ///
    /// # Errors
    /// 2650 during a replace or for the wrong family of data sources; 100 for a value-based audience without
    /// values; 200/1870047 if too few members would remain.
    pub(super) fn change(
        &mut self,
        change: Change,
        upload: Upload,
        step: Option<SessionStep>,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<Received, GraphError> {
        self.settle(rules, now);
        if self.replace.is_some() {
            return Err(GraphError::replace(IN_PROGRESS));
        }
        let (received, invalid) = (upload.received, upload.invalid);
        match change {
            Change::Add => {
                self.check_family(&upload)?;
                upload.rows.into_iter().for_each(|row| self.members.add(row));
            }
            Change::Remove => self.remove(&upload.rows, rules)?,
        }
        self.touch(441, rules, now);
        let total = match step {
            Some(step) => self.record_session(step.id, step.last, received, invalid, now),
            None => received,
        };
        Ok(Received { received: total, invalid })
    }

    fn remove(&mut self, rows: &[Row], rules: &Rules) -> Result<(), GraphError> {
        if let Some(least) = rules.refuse_removals_below {
            let removed = self.members.find(rows, rules.matches_people).len() as u64;
            if removed > 0 && self.members.len() - removed < least {
                return Err(GraphError::too_small());
            }
        }
        self.members.remove(rows, rules.matches_people);
        Ok(())
    }

    /// Adds one batch to a replace session.
    ///
    /// # Errors
    /// 2650 with a subcode for a violation of the session's rules; 100 if the schema changes within the
    /// session.
    pub(super) fn replace(
        &mut self,
        upload: Upload,
        step: SessionStep,
        fails: bool,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<Received, GraphError> {
        self.settle(rules, now);
        self.check_step(step, rules)?;
        self.check_family(&upload)?;
        if step.seq == 1 {
            self.sessions.retain(|session| session.id != step.id);
            self.replace_failed = false;
            self.replace = Some(Replace {
                id: step.id,
                started: now,
                schema: upload.schema.clone(),
                staged: Members::default(),
            });
        }
        let Some(replace) = &mut self.replace else {
            return Err(GraphError::replace(NOT_FIRST));
        };
        if replace.schema != upload.schema {
            let why = "The schema must stay the same within a replace session";
            return Err(GraphError::parameter("payload", why));
        }
        upload.rows.into_iter().for_each(|row| replace.staged.add(row));
        let (received, invalid) = (upload.received, upload.invalid);
        let total = self.record_session(step.id, step.last, received, invalid, now);
        if step.last && fails {
            self.ended.insert(step.id, false);
            self.replace = None;
            self.replace_failed = true;
            return Err(GraphError::replace(FAILED));
        }
        if step.last {
            self.finish_replace(rules, now, false);
        }
        Ok(Received { received: total, invalid })
    }

    fn check_step(&self, step: SessionStep, rules: &Rules) -> Result<(), GraphError> {
        let refused = |subcode| Err(GraphError::replace(subcode));
        match (self.ended.get(&step.id), &self.replace) {
            (Some(true), _) => refused(TIMED_OUT),
            (Some(false), _) => refused(FINISHED),
            // Repeating the first batch starts the session over; other batches may come in any order.
            (None, Some(open)) if open.id == step.id => Ok(()),
            (None, Some(_)) => refused(IN_PROGRESS),
            (None, None) if step.seq != 1 => refused(NOT_FIRST),
            (None, None) if self.settling.is_some() => refused(IN_PROGRESS),
            (None, None) if self.members.len() >= rules.replace_below_members => refused(TOO_LARGE),
            (None, None) => Ok(()),
        }
    }

    fn check_family(&mut self, upload: &Upload) -> Result<(), GraphError> {
        if self.value_based && !upload.has_value {
            return Err(GraphError::needs_value());
        }
        match &self.family {
            Some(first) if *first != upload.family => {
                Err(GraphError::wrong_family(first, &upload.family))
            }
            Some(_) => Ok(()),
            None => {
                self.family = Some(upload.family.clone());
                Ok(())
            }
        }
    }

    fn finish_replace(&mut self, rules: &Rules, at: Timestamp, timed_out: bool) {
        let Some(replace) = self.replace.take() else { return };
        self.members = replace.staged;
        self.ended.insert(replace.id, timed_out);
        if let Some(session) = self.sessions.iter_mut().find(|s| s.id == replace.id) {
            session.ended = Some(at);
        }
        self.touch(414, rules, at);
    }

    fn touch(&mut self, status: i64, rules: &Rules, at: Timestamp) {
        self.content_updated = Some(at);
        self.updated = at;
        self.settling = Some((at.plus(rules.processing_delay), status));
        if rules.processing_delay.is_zero() {
            self.settle(rules, at);
        }
    }

    /// Counts a batch of a session; returns the rows received in the session so far.
    fn record_session(
        &mut self,
        id: u64,
        last: bool,
        received: u64,
        invalid: u64,
        now: Timestamp,
    ) -> u64 {
        if !self.sessions.iter().any(|session| session.id == id) {
            if self.sessions.len() == SESSIONS_KEPT {
                self.sessions.pop_front();
            }
            self.sessions.push_back(SessionRecord {
                id,
                started: now,
                ended: None,
                received: 0,
                invalid: 0,
            });
        }
        let Some(session) = self.sessions.iter_mut().find(|session| session.id == id) else {
            return received;
        };
        session.received += received;
        session.invalid += invalid;
        if last {
            session.ended = Some(now);
        }
        session.received
    }

    fn operation_status(&self) -> (i64, &'static str) {
        match (&self.replace, self.settling) {
            (Some(_), _) | (None, Some((_, 414))) => (414, "Audience replace in progress."),
            (None, Some(_)) => (441, "We're finding people who fit your audience criteria."),
            (None, None) if self.replace_failed => (415, "Audience replace failed."),
            (None, None) => (200, "Normal"),
        }
    }

    /// Rounded bounds of the count, or -1 and -1.
    fn bounds(&self) -> (i64, i64) {
        if self.shown < SMALLEST_COUNT {
            return (-1, -1);
        }
        // Two significant digits.
        let step = 10u64.pow(self.shown.ilog10() - 1);
        let lower = self.shown / step * step;
        (lower as i64, (lower + step) as i64)
    }

    /// The value of a field; `None` if there is no such field.
    pub(super) fn field(&self, name: &str) -> Option<Value> {
        let seconds = |at: Timestamp| json!(at.0.div_euclid(1_000_000));
        let status =
            |(code, description): (i64, &str)| json!({ "code": code, "description": description });
        let delivery = if self.shown < SMALLEST_COUNT {
            (300, "Audience too small. Fewer than 100 people were found.")
        } else {
            (200, "This audience is ready for use.")
        };
        Some(match name {
            "id" => json!(self.id.to_string()),
            "account_id" => json!(self.account),
            "name" => json!(self.name),
            "description" => json!(self.description.as_deref().unwrap_or_default()),
            "opt_out_link" => json!(self.opt_out_link.as_deref().unwrap_or_default()),
            "subtype" => json!("CUSTOM"),
            "customer_file_source" => json!(self.source),
            "approximate_count_lower_bound" => json!(self.bounds().0),
            "approximate_count_upper_bound" => json!(self.bounds().1),
            "delivery_status" => status(delivery),
            "operation_status" => status(self.operation_status()),
            "is_value_based" => json!(self.value_based),
            "retention_days" => json!(self.retention_days.unwrap_or(0)),
            "time_created" => seconds(self.created),
            "time_updated" => seconds(self.updated),
            "time_content_updated" => seconds(self.content_updated.unwrap_or(self.created)),
            "delete_time" => json!(0),
            "permission_for_actions" => json!({
                "can_edit": true, "can_see_insight": true, "can_share": true,
                "subtype_supports_lookalike": true, "supports_recipient_lookalike": false,
            }),
            "fields_violating_integrity_policy" | "lookalike_audience_ids" | "audience_labels" => {
                json!([])
            }
            "data_source" => match &self.family {
                Some(family) => json!({ "type": "FILE_IMPORTED", "sub_type": family }),
                None => json!({ "type": "UNKNOWN", "sub_type": "ANYTHING" }),
            },
            "data_source_types" => json!(self.family.as_ref().map_or("", |_| "FILE_IMPORTED")),
            "datafile_custom_audience_uploading_status" => json!("HAS_NO_DATAFILE"),
            _ => return None,
        })
    }

    /// `/sessions`: every value is a string.
    pub(super) fn sessions(&self, id: Option<u64>) -> Vec<Value> {
        let seconds = |at: Timestamp| at.0.div_euclid(1_000_000).to_string();
        let records = self.sessions.iter().rev().filter(|s| id.is_none_or(|id| s.id == id));
        records
            .map(|session| {
                let done = session.ended.is_some() && self.settling.is_none();
                let matched = if done {
                    (session.received - session.invalid).to_string()
                } else {
                    "-1".to_owned()
                };
                json!({
                    "session_id": session.id.to_string(),
                    "start_time": seconds(session.started),
                    "end_time": session.ended.map_or_else(|| "0".to_owned(), seconds),
                    "num_received": session.received.to_string(),
                    "num_matched": matched,
                    "num_invalid_entries": session.invalid.to_string(),
                    "progress": if done { "100" } else { "0" },
                    "stage": if done { "finished" } else { "uploading" },
                })
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "audience_tests.rs"]
mod tests;
