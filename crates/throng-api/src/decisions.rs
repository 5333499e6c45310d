//! Lookups and decisions.

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use throng_model::{AdGroupName, AudienceName, NameError};
use utoipa::ToSchema;

/// Users to look up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "keys": ["00002", "00003"] }))]
pub struct LookupRequest {
    /// The keys of the users; at most 10,000.
    pub keys: Vec<String>,
}

/// The audiences of a user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "key": "00002", "audiences": ["buyers", "loyal"] }))]
pub struct UserAudiences {
    /// The key, as in the request.
    pub key: String,
    /// The names of the audiences, sorted.
    #[schema(value_type = Vec<String>)]
    pub audiences: Vec<AudienceName>,
    /// Audiences whose snapshot is damaged or cannot be fetched, so that it is unknown whether the user is in
    /// them. Omitted if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub unknown: Vec<AudienceName>,
}

/// The users in the order of their keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "users": [{ "key": "00002", "audiences": ["buyers", "loyal"] }] }))]
pub struct LookupResult {
    /// The users.
    pub users: Vec<UserAudiences>,
}

/// The most ad groups of one request for a decision.
pub const MAX_CANDIDATES: usize = 1_000;

/// What an answer has of a text that is not a name: as much as a name may have.
const MAX_SHOWN_CHARACTERS: usize = 128;

/// A request for a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "user": "00002", "ad_groups": ["shoes", "gloves"], "record_insertion": true }))]
pub struct DecideRequest {
    /// The key of the user; without it only ad groups without audiences are allowed.
    pub user: Option<String>,
    /// The candidates, best first; at most 1,000.
    pub ad_groups: Vec<String>,
    /// Record an insertion of the first allowed ad group, so that its spend is in flight at once.
    #[serde(default)]
    pub record_insertion: bool,
}

impl DecideRequest {
    /// The key of the user. An empty one is none, as it is in the rows of a build.
    // Why: all requests without a user would be those of one user, and at a pass-through rate of a half an ad group
    // would be shown at all of them in one minute and at none in the next.
    pub fn user_key(&self) -> Option<&str> {
        self.user.as_deref().filter(|key| !key.is_empty())
    }
}

/// Which ad groups may be shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "allowed": ["shoes"],
    "refused": [{ "ad_group": "gloves", "code": "not_in_audience", "why": "the user is not in `winter`" }],
    "insertion_id": "decide-9f86d081884c7d65"
}))]
pub struct DecisionMade {
    /// The ad groups that may be shown, in the order of the request.
    #[schema(value_type = Vec<String>)]
    pub allowed: Vec<AdGroupName>,
    /// The other ad groups.
    pub refused: Vec<DecisionRefusal>,
    /// The id of the recorded insertion; omitted if none was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insertion_id: Option<String>,
}

impl DecisionMade {
    /// A line for each ad group, and one for the recorded insertion, with tabs between the columns.
    pub fn into_lines(self) -> Vec<String> {
        let allowed = self.allowed.into_iter().map(|ad_group| format!("allowed\t{ad_group}"));
        let refused = self.refused.into_iter();
        let refused = refused.map(|one| format!("refused\t{}\t{}", one.ad_group, one.why));
        let insertion = self.insertion_id.map(|id| format!("insertion\t{id}"));
        allowed.chain(refused).chain(insertion).collect()
    }
}

/// Why an ad group may not be shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecisionRefusal {
    /// The ad group, as in the request; of a text that is not a name the first 128 characters.
    pub ad_group: String,
    /// A stable code, such as `not_in_audience`; docs/gate-sidecar.md lists all of them.
    pub code: String,
    /// The reason, for people.
    pub why: String,
}

impl DecisionRefusal {
    /// The refusal of a text that is not a name. A longer text than a name can be is not repeated in full: an answer with
    /// a thousand of them would be larger than the request.
    fn not_a_name(text: &str) -> Self {
        let text: String = match text.char_indices().nth(MAX_SHOWN_CHARACTERS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        };
        let why = NameError { text: text.clone() }.to_string();
        Self { ad_group: text, code: "not_a_name".to_owned(), why }
    }
}

/// The names of ad groups, and the refusals of what is not a name.
pub fn candidates<'a>(
    texts: impl Iterator<Item = &'a str>,
) -> (Vec<AdGroupName>, Vec<DecisionRefusal>) {
    let (mut names, mut refused) = (Vec::new(), Vec::new());
    for text in texts {
        match AdGroupName::new(text) {
            Ok(name) => names.push(name),
            Err(_) => refused.push(DecisionRefusal::not_a_name(text)),
        }
    }
    (names, refused)
}

/// The ad groups that a gate refuses, with the code and the text of each reason. A gate defines the reasons.
pub fn refusals<Reason: Display>(
    refused: &[(AdGroupName, Reason)],
    code: impl Fn(&Reason) -> &'static str,
) -> impl Iterator<Item = DecisionRefusal> {
    refused.iter().map(move |(name, reason)| DecisionRefusal {
        ad_group: name.to_string(),
        code: code(reason).to_owned(),
        why: reason.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_that_is_not_a_name_is_not_repeated_in_full() {
        let long = "é".repeat(5_000);
        let whole = "E".repeat(MAX_SHOWN_CHARACTERS);
        let (names, refused) = candidates([long.as_str(), "shoes", whole.as_str()].into_iter());
        assert_eq!(names, [AdGroupName::new("shoes").unwrap()]);
        let shown = format!("{}…", "é".repeat(MAX_SHOWN_CHARACTERS));
        let texts: Vec<&str> = refused.iter().map(|one| one.ad_group.as_str()).collect();
        assert_eq!(texts, [shown.as_str(), whole.as_str()]);
        for one in &refused {
            let why = format!("`{}` is not a name: ", one.ad_group);
            assert!(one.why.starts_with(&why) && one.why.len() < 600, "{}", one.why);
        }
    }

    #[test]
    fn the_id_of_a_recorded_insertion_has_a_line() {
        let refused = serde_json::json!([
            { "ad_group": "gloves", "code": "out_of_budget", "why": "no money" }
        ]);
        let mut made = serde_json::json!({ "allowed": ["shoes"], "refused": refused });
        let of = |made: &serde_json::Value| {
            serde_json::from_value::<DecisionMade>(made.clone()).unwrap().into_lines()
        };
        let mut lines = vec!["allowed\tshoes", "refused\tgloves\tno money"];
        assert_eq!(of(&made), lines);
        made["insertion_id"] = serde_json::json!("decide-1");
        lines.push("insertion\tdecide-1");
        assert_eq!(of(&made), lines);
    }
}
