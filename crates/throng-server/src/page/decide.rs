//! "Try a decision": the question of an ad server, with the answer in words.

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use throng_model::{AdGroupName, UserKey};

use super::{Context, Page, render};

#[derive(Deserialize)]
pub(super) struct Question {
    #[serde(default)]
    user: String,
    #[serde(default)]
    ad_groups: String,
}

#[derive(Template)]
#[template(path = "decide.html")]
struct Decide {
    user: String,
    ad_groups: String,
    answer: Option<Answer>,
}

struct Answer {
    audiences: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    allowed: bool,
    why: String,
}

impl Decide {
    fn place(&self) -> &'static str {
        "/decide"
    }
}

pub(super) async fn page(State(ctx): Context, Query(question): Query<Question>) -> Page {
    let answer = (!question.user.is_empty()).then(|| {
        let mut not_names = Vec::new();
        let mut named: Vec<AdGroupName> = Vec::new();
        for text in question.ad_groups.split([' ', ',']).filter(|text| !text.is_empty()) {
            match AdGroupName::new(text) {
                Ok(name) => named.push(name),
                Err(error) => not_names.push(Row {
                    name: text.chars().take(128).collect(),
                    allowed: false,
                    why: error.to_string(),
                }),
            }
        }
        let candidates = if named.is_empty() && not_names.is_empty() {
            ctx.spec.load().ad_groups.iter().map(|a| a.name.clone()).collect()
        } else {
            named
        };
        let user = UserKey::text(question.user.clone()).hash(ctx.seed);
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
        Answer {
            audiences: membership.audiences_of(user).into_iter().map(|a| a.to_string()).collect(),
            rows: allowed.chain(refused).chain(not_names).collect(),
        }
    });
    render(&Decide { user: question.user, ad_groups: question.ad_groups, answer })
}
