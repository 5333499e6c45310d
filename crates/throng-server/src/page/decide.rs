//! "Try a decision": the request of an ad server, with the decision and its reasons.

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use throng_model::{AdGroupName, UserKey};

use super::{Context, Page, render};

/// The query of the page.
#[derive(Deserialize)]
pub(super) struct DecideQuery {
    #[serde(default)]
    user: String,
    #[serde(default)]
    ad_groups: String,
}

#[derive(Template)]
#[template(path = "decide.html")]
struct DecidePage {
    user: String,
    ad_groups: String,
    decision: Option<DecisionView>,
}

struct DecisionView {
    audiences: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    allowed: bool,
    why: String,
}

impl DecidePage {
    fn menu_path(&self) -> &'static str {
        "/decide"
    }
}

pub(super) async fn page(State(ctx): Context, Query(query): Query<DecideQuery>) -> Page {
    let view = (!query.user.is_empty()).then(|| {
        let mut invalid_names = Vec::new();
        let mut names: Vec<AdGroupName> = Vec::new();
        for text in query.ad_groups.split([' ', ',']).filter(|text| !text.is_empty()) {
            match AdGroupName::new(text) {
                Ok(name) => names.push(name),
                Err(error) => invalid_names.push(Row {
                    name: text.chars().take(128).collect(),
                    allowed: false,
                    why: error.to_string(),
                }),
            }
        }
        let candidates = if names.is_empty() && invalid_names.is_empty() {
            ctx.spec.load().ad_groups.iter().map(|a| a.name.clone()).collect()
        } else {
            names
        };
        let user = UserKey::text(query.user.clone()).hash(ctx.seed);
        let membership = ctx.membership.load();
        let decision = ctx.gate.decide(Some(user), &candidates, ctx.clock.now());
        let allowed = decision.allowed.iter().map(|name| Row {
            name: name.to_string(),
            allowed: true,
            why: String::new(),
        });
        let refused = decision.refused.iter().map(|(name, reason)| Row {
            name: name.to_string(),
            allowed: false,
            why: reason.to_string(),
        });
        DecisionView {
            audiences: membership.audiences_of(user).into_iter().map(|a| a.to_string()).collect(),
            rows: allowed.chain(refused).chain(invalid_names).collect(),
        }
    });
    render(&DecidePage { user: query.user, ad_groups: query.ad_groups, decision: view })
}
