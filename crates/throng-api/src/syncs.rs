//! Syncs, the sizes of their audiences on platforms, and their removals.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use throng_model::{AudienceName, DestinationName, SyncName, Timestamp, count, counted};
use utoipa::ToSchema;

use crate::alerts::next_try;
use crate::runs::{ActivationMode, ActivationVerdict};

/// Why nothing is sent for a sync that waits for members, for people.
pub const NO_MEMBERS: &str = "the audience has no members, so there is nothing to send, and no list is created on the \
                              platform until it has some";

/// The syncs of the applied spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "syncs": [
        {
            "name": "buyers-on-meta", "audience": "buyers", "destination": "meta", "mode": "mirror",
            "paused_at": null, "platform_id": "120210000000001", "delivered_version": 3,
            "delivered_at": 1795536000000000_i64, "delivered_users": 1200345, "removals_due": 0,
            "removals_retry_at": null, "waits_for_members": false,
            "size": {
                "sync": "buyers-on-meta", "account": "meta/12", "platform_id": "120210000000001",
                "at": 1795536000000000_i64, "lower": 940000, "upper": 1100000, "delivered": 1200345,
                "settling": false
            }
        }
    ],
    "destinations": ["meta"]
}))]
pub struct SyncList {
    /// The syncs, in the order of the spec.
    pub syncs: Vec<SyncSummary>,
    /// The names of all destinations, or of those of the workspace, also without a sync, in the order of the spec.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub destinations: Vec<DestinationName>,
    /// The cursor of the next page; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The cursor of the previous page; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_cursor: Option<String>,
}

/// A sync, and the state of its audience on the platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SyncSummary {
    /// The name of the sync.
    #[schema(value_type = String)]
    pub name: SyncName,
    /// The audience.
    #[schema(value_type = String)]
    pub audience: AudienceName,
    /// The destination.
    #[schema(value_type = String)]
    pub destination: DestinationName,
    /// The mode.
    pub mode: ActivationMode,
    /// When it was paused; null if it is not paused.
    #[schema(value_type = Option<i64>)]
    pub paused_at: Option<Timestamp>,
    /// The id of the audience on the platform; null until it is created.
    pub platform_id: Option<String>,
    /// The delivered version; null until a run has completed.
    pub delivered_version: Option<u64>,
    /// When that version was delivered.
    #[schema(value_type = Option<i64>)]
    pub delivered_at: Option<Timestamp>,
    /// The number of delivered users; null until those of the delivered version are counted, after its run.
    pub delivered_users: Option<u64>,
    /// Removals that the platform refused.
    pub removals_due: u64,
    /// When they are retried; null if there are none.
    #[schema(value_type = Option<i64>)]
    pub removals_retry_at: Option<Timestamp>,
    /// Whether the audience has no members and no list on the platform: nothing is sent, and no list is created until it
    /// has some. False while a run is open.
    #[serde(default)]
    pub waits_for_members: bool,
    /// The newest size of the audience on the platform; null if it has not been read.
    pub size: Option<SyncSize>,
}

impl SyncList {
    /// The syncs that deliver to a destination, none if there is none. Its name may be without the workspace if the default
    /// workspace has no destination of this name, also without syncs, and only one other workspace has one with syncs.
    ///
    /// # Errors
    /// A text for people with the full names, if several workspaces have such a destination.
    pub fn for_destination(self, name: &str) -> Result<Vec<SyncSummary>, String> {
        let names: BTreeSet<&DestinationName> =
            self.syncs.iter().map(|sync| &sync.destination).collect();
        let mut declared = self.destinations.iter().chain(names.iter().copied());
        let is_full = declared.any(|full| full.as_str() == name);
        let is_meant = |full: &DestinationName| match is_full {
            true => full.as_str() == name,
            false => full.local() == name,
        };
        let meant: BTreeSet<DestinationName> =
            names.into_iter().filter(|full| is_meant(full)).cloned().collect();
        if meant.len() > 1 {
            let full: Vec<&str> = meant.iter().map(DestinationName::as_str).collect();
            let message = format!("several workspaces have a destination `{name}`");
            return Err(format!("{message}: name one of {}", full.join(", ")));
        }
        Ok(self.syncs.into_iter().filter(|sync| meant.contains(&sync.destination)).collect())
    }
}

impl SyncSummary {
    /// What a list of syncs says beside the state, for people: removals that the platform refused with the time of the next
    /// try, or that the sync waits for members; empty if neither.
    pub fn remarks(&self, now: Timestamp) -> String {
        match self.removals_due {
            0 if self.waits_for_members => "waits for members".to_owned(),
            0 => String::new(),
            due => {
                format!(
                    "{} due; {}",
                    counted(due, "removal"),
                    next_try(self.removals_retry_at, now)
                )
            }
        }
    }

    /// What it means that another audience on the platform takes the place of that of the sync, for people; `None` if it
    /// has none.
    pub fn recreate_text(&self) -> Option<String> {
        let Self { name, audience, destination, .. } = self;
        let id = self.platform_id.as_ref()?;
        let users = match self.delivered_users {
            Some(users) => counted(users, "user"),
            None => "its users".to_owned(),
        };
        Some(format!(
            "{name} gets another audience on {destination}, and its next run sends every row of {audience} again; \
             {id} stays there with {users}, and is no longer updated. Unless it was deleted there, delete or rename it \
             there first, or give the sync another platform_name: the run fails while {destination} has an audience \
             of that name"
        ))
    }
}

/// The sizes of the audience of a sync on the platform over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "sync": "buyers-on-meta", "platform_id": "120210000000001", "verdict": "passed", "reason": null,
    "sizes": [
        {
            "sync": "buyers-on-meta", "account": "meta/12", "platform_id": "120210000000001",
            "at": 1795536000000000_i64, "lower": 940000, "upper": 1100000, "delivered": 1200345,
            "settling": false
        }
    ]
}))]
pub struct SyncSizes {
    /// The sync.
    #[schema(value_type = String)]
    pub sync: SyncName,
    /// The id of the current audience on the platform.
    pub platform_id: Option<String>,
    /// The verdict about the sizes of this audience; null if too little is known for one, and of a platform whose
    /// sizes are not numbers of people.
    pub verdict: Option<ActivationVerdict>,
    /// Null if the verdict is `passed` or null.
    pub reason: Option<String>,
    /// Oldest first.
    pub sizes: Vec<SyncSize>,
}

impl SyncSizes {
    /// What the sizes say together, for people.
    pub fn verdict_text(&self) -> String {
        match (self.verdict, &self.reason) {
            (Some(verdict), Some(reason)) => format!("{verdict}: {reason}"),
            (Some(verdict), None) => verdict.to_string(),
            (None, _) => "too little is known yet".to_owned(),
        }
    }
}

/// The size that the platform reported at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "sync": "buyers-on-meta", "account": "meta/12", "platform_id": "120210000000001",
    "at": 1795536000000000_i64, "lower": 940000, "upper": 1100000, "delivered": 1200345,
    "settling": false
}))]
pub struct SyncSize {
    /// The sync.
    #[schema(value_type = String)]
    pub sync: SyncName,
    /// The account, such as `meta/12`.
    pub account: String,
    /// The id of the audience on the platform.
    pub platform_id: String,
    /// When it was read.
    #[schema(value_type = i64)]
    pub at: Timestamp,
    /// The lower bound in people; null if the platform does not report it.
    pub lower: Option<u64>,
    /// The upper bound in people; null if the platform does not report it.
    pub upper: Option<u64>,
    /// The users that had been delivered at that time.
    pub delivered: u64,
    /// Whether the platform was still processing an upload.
    pub settling: bool,
}

/// How to run a sync.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "full": true }))]
pub struct RunSync {
    /// Send all users again, in a session that replaces the list of the platform.
    #[serde(default)]
    pub full: bool,
    /// As `full`, and discard the record of what was delivered: for a record, or its key, that is lost.
    #[serde(default)]
    pub forget_delivered: bool,
}

/// The sync that was changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "sync": "buyers-on-meta" }))]
pub struct SyncNamed {
    /// The name of the sync.
    #[schema(value_type = String)]
    pub sync: SyncName,
}

/// A run that was requested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "sync": "buyers-on-meta",
    "blocked": "run 12 failed: there is no audience 120210000000001"
}))]
pub struct RunRequested {
    /// The name of the sync.
    #[schema(value_type = String)]
    pub sync: SyncName,
    /// Why nothing is delivered now: its last run failed, or its account is held. The requested run ends in the same way
    /// unless that has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
}

impl RunRequested {
    /// What becomes of the run, for people. `name`: the sync, as the caller has named it.
    pub fn text(&self, name: &str) -> String {
        match &self.blocked {
            None => format!("a run of {name} is being planned; see `throng sync runs`"),
            Some(reason) => format!(
                "{name} is blocked: {reason}\none run is planned for this request, and ends in the same way unless \
                 that has changed; see `throng sync runs`"
            ),
        }
    }
}

/// What became of the runs that were requested of several syncs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunsRequested {
    /// The syncs of which a run was requested.
    pub requested: Vec<RunRequested>,
    /// The others.
    pub refused: Vec<RunRefused>,
}

impl RunsRequested {
    /// Of how many syncs no run was requested although it was to be; `None` if there is none.
    pub fn incomplete(&self) -> Option<String> {
        let refused = self.refused.len() as u64;
        let all = refused.saturating_add(self.requested.len() as u64);
        (refused > 0)
            .then(|| format!("not requested: {} of {}", count(refused), counted(all, "run")))
    }

    /// What was requested, and what was not with the reasons, for people. `named`: the destination, such as ` to meta`.
    pub fn result(&self, named: &str) -> String {
        let refused = self.refused.iter();
        let mut lines: Vec<String> =
            refused.map(|of| format!("{} is left out: {}", of.sync, of.error)).collect();
        if !self.requested.is_empty() || lines.is_empty() {
            let runs = counted(self.requested.len() as u64, "run");
            lines
                .push(format!("requested: {runs}{named}, of what differs; see `throng sync runs`"));
        }
        lines.join("\n")
    }
}

/// A sync of which no run was requested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRefused {
    /// The name of the sync.
    pub sync: SyncName,
    /// Why, such as that it is running.
    pub error: String,
}

/// What to do with the audience of a removed sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyncRemovalRule {
    /// Remove all users that were delivered.
    Empty,
    /// Delete the audience.
    Delete,
}

/// Removals that are not finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "removals": [
        {
            "sync": "buyers-on-meta", "rule": "empty", "audience": "throng: buyers",
            "destination": "meta", "platform_id": "120210000000001", "users": 1200345,
            "requested_at": 1795536000000000_i64, "approved_at": null, "approved_by": null,
            "tries": 0, "retry_at": null, "last_error": null
        }
    ]
}))]
pub struct RemovalList {
    /// The removals.
    pub removals: Vec<SyncRemoval>,
}

/// A sync that was removed from the spec, and whose audience on the platform is to be emptied or deleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SyncRemoval {
    /// The sync.
    #[schema(value_type = String)]
    pub sync: SyncName,
    /// What to do with the audience.
    pub rule: SyncRemovalRule,
    /// The name of the audience on the platform.
    pub audience: Option<String>,
    /// The destination.
    #[schema(value_type = Option<String>)]
    pub destination: Option<DestinationName>,
    /// The id of the audience on the platform.
    pub platform_id: Option<String>,
    /// Null if the number of delivered users is unknown.
    pub users: Option<u64>,
    /// When the spec without the sync was applied.
    #[schema(value_type = i64)]
    pub requested_at: Timestamp,
    /// Null while it waits for approval.
    #[schema(value_type = Option<i64>)]
    pub approved_at: Option<Timestamp>,
    /// The name of the token that approved it.
    pub approved_by: Option<String>,
    /// Failed attempts to delete the audience.
    pub tries: u32,
    /// When it is retried.
    #[schema(value_type = Option<i64>)]
    pub retry_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(destination: &str, platform_id: Option<&str>) -> SyncSummary {
        SyncSummary {
            name: "s".parse().unwrap(),
            audience: "buyers".parse().unwrap(),
            destination: destination.parse().unwrap(),
            mode: ActivationMode::Mirror,
            paused_at: None,
            platform_id: platform_id.map(str::to_owned),
            delivered_version: Some(3),
            delivered_at: None,
            delivered_users: Some(1_200_345),
            removals_due: 0,
            removals_retry_at: None,
            waits_for_members: false,
            size: None,
        }
    }

    #[test]
    fn runs_of_which_one_is_refused_are_incomplete() {
        let requested = |name: &str| RunRequested { sync: name.parse().unwrap(), blocked: None };
        let refused = |name: &str| RunRefused {
            sync: name.parse().unwrap(),
            error: "it is running".to_owned(),
        };
        let of = |requested, refused| RunsRequested { requested, refused };
        let all = of(vec![requested("a"), requested("b")], Vec::new());
        assert_eq!(all.incomplete(), None);
        let text = "requested: 2 runs to meta, of what differs; see `throng sync runs`";
        assert_eq!(all.result(" to meta"), text);
        let one = of(vec![requested("a")], vec![refused("b")]);
        assert_eq!(one.incomplete().unwrap(), "not requested: 1 of 2 runs");
        let text = "b is left out: it is running\nrequested: 1 run, of what differs; see `throng sync runs`";
        assert_eq!(one.result(""), text);
        let none = of(Vec::new(), vec![refused("a")]);
        assert_eq!(none.incomplete().unwrap(), "not requested: 1 of 1 run");
        assert_eq!(none.result(" to meta"), "a is left out: it is running");
        let nothing = of(Vec::new(), Vec::new());
        assert_eq!(nothing.incomplete(), None);
        assert!(nothing.result("").starts_with("requested: 0 runs, "));
    }

    #[test]
    fn remarks_are_removals_that_are_due_or_that_there_are_no_members() {
        let now: Timestamp = "2026-11-25T18:40:00Z".parse().unwrap();
        let sync = summary("meta", None);
        assert_eq!(sync.remarks(now), "");
        let waiting = SyncSummary { waits_for_members: true, ..sync.clone() };
        assert_eq!(waiting.remarks(now), "waits for members");
        let at = now.plus(std::time::Duration::from_secs(5));
        let due = SyncSummary { removals_due: 1_200, removals_retry_at: Some(at), ..sync };
        assert_eq!(due.remarks(now), "1,200 removals due; next try 2026-11-25T18:40:05Z");
    }

    #[test]
    fn a_sync_of_an_earlier_node_waits_for_nothing() {
        let mut value = serde_json::to_value(summary("meta", None)).unwrap();
        value.as_object_mut().unwrap().remove("waits_for_members");
        let read: SyncSummary = serde_json::from_value(value).unwrap();
        assert_eq!(read, summary("meta", None));
    }

    #[test]
    fn the_question_before_an_audience_is_recreated_has_the_numbers() {
        let text = summary("meta", Some("120")).recreate_text().unwrap();
        assert_eq!(
            text,
            "s gets another audience on meta, and its next run sends every row of buyers again; \
             120 stays there with 1,200,345 users, and is no longer updated. Unless it was deleted there, delete or \
             rename it there first, or give the sync another platform_name: the run fails while meta has an audience \
             of that name"
        );
        assert_eq!(summary("meta", None).recreate_text(), None, "nothing is there");
    }

    /// A list with a sync for each of these destinations.
    fn list_of(destinations: &[&str]) -> SyncList {
        let syncs = destinations.iter().map(|destination| summary(destination, None)).collect();
        SyncList { syncs, destinations: Vec::new(), next_cursor: None, previous_cursor: None }
    }

    /// The destinations of the syncs that a name stands for.
    fn found(destinations: &[&str], name: &str) -> Result<Vec<String>, String> {
        let list = list_of(destinations);
        let syncs = list.for_destination(name)?;
        Ok(syncs.iter().map(|sync| sync.destination.to_string()).collect())
    }

    #[test]
    fn sizes_without_a_verdict_are_not_passed() {
        let text = |verdict, reason: Option<&str>| {
            let (sync, reason) = ("s".parse().unwrap(), reason.map(str::to_owned));
            let (platform_id, sizes) = (None, Vec::new());
            SyncSizes { sync, platform_id, verdict, reason, sizes }.verdict_text()
        };
        let failed = text(Some(ActivationVerdict::Failed), Some("it is empty"));
        assert_eq!(failed, "failed: it is empty");
        assert_eq!(text(Some(ActivationVerdict::Passed), None), "passed");
        assert_eq!(text(None, None), "too little is known yet");
    }

    #[test]
    fn runs_of_many_syncs_are_those_of_the_destination() {
        let all = ["acme:meta", "acme:file", "globex:file", "acme:meta", "meta-2"];
        assert_eq!(found(&all, "acme:meta").unwrap(), ["acme:meta", "acme:meta"]);
        assert_eq!(found(&all, "meta").unwrap(), ["acme:meta", "acme:meta"]);
        assert_eq!(found(&all, "globex:file").unwrap(), ["globex:file"]);
        assert_eq!(
            found(&all, "file").unwrap_err(),
            "several workspaces have a destination `file`: name one of acme:file, globex:file"
        );
        for name in ["", "globex:meta", "me", "acme"] {
            assert!(found(&all, name).unwrap().is_empty(), "{name}");
        }
        let with_default = ["acme:meta", "globex:meta", "meta"];
        assert_eq!(found(&with_default, "meta").unwrap(), ["meta"]);
    }

    #[test]
    fn a_destination_without_syncs_does_not_stand_for_one_of_another_workspace() {
        let list = |destination: &str| SyncList {
            destinations: vec!["acme:meta".parse().unwrap(), destination.parse().unwrap()],
            ..list_of(&["acme:meta"])
        };
        assert!(list("meta").for_destination("meta").unwrap().is_empty());
        assert_eq!(list("meta").for_destination("acme:meta").unwrap().len(), 1);
        assert_eq!(list("globex:meta").for_destination("meta").unwrap().len(), 1);
    }

    #[test]
    fn a_run_of_a_blocked_sync_says_why_and_what_becomes_of_it() {
        let of = |blocked: Option<&str>| {
            let blocked = blocked.map(str::to_owned);
            RunRequested { sync: "acme:vip".parse().unwrap(), blocked }.text("vip")
        };
        assert_eq!(of(None), "a run of vip is being planned; see `throng sync runs`");
        let text = of(Some("its account is held"));
        assert!(text.starts_with("vip is blocked: its account is held\none run"), "{text}");
    }
}
