//! "Try a decision": the request of an ad server, with the decision and its reasons.

use axum::extract::{Query, State};
use serde::Deserialize;
use throng_api::{DecisionMade, candidates, refusals};
use throng_gate::Reason;
use throng_model::UserKey;
use throng_page::decide::DecisionView;

use super::{Context, Page, html};
use crate::NodeContext;

/// The query of the page.
#[derive(Deserialize)]
pub(super) struct DecideQuery {
    #[serde(default)]
    user: String,
    #[serde(default)]
    ad_groups: String,
}

pub(super) async fn page(State(ctx): Context, Query(query): Query<DecideQuery>) -> Page {
    let view = (!query.user.is_empty()).then(|| decide(&ctx, &query));
    html(throng_page::decide::page(&query.user, &query.ad_groups, view))
}

/// Decides about the ad groups of the query, or about all if it names none.
fn decide(ctx: &NodeContext, query: &DecideQuery) -> DecisionView {
    let texts = query.ad_groups.split([' ', ',']).filter(|text| !text.is_empty());
    let (mut names, invalid) = candidates(texts);
    if names.is_empty() && invalid.is_empty() {
        names = ctx.spec.load().ad_groups.iter().map(|a| a.name.clone()).collect();
    }
    let user = UserKey::text(query.user.clone()).hash(ctx.seed);
    let membership = ctx.membership.load();
    let decision = ctx.gate.decide(Some(user), &names, ctx.budgets.now());
    let refused = refusals(&decision.refused, Reason::code).chain(invalid).collect();
    DecisionView {
        audiences: membership.audiences_of(user).into_iter().cloned().collect(),
        decision: DecisionMade { allowed: decision.allowed, refused, insertion_id: None },
    }
}
