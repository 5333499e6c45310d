//! `POST /v1/decide`: the gate's answer over HTTP, for those who do not link it.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use throng_budget::{Event, EventKind};
use throng_model::{AdGroupName, Entropy, SystemEntropy, Timestamp, UserKey};
use utoipa::ToSchema;

use crate::NodeContext;
use crate::access::{Caller, Scope};

use super::body::Body;
use super::error::ApiError;

/// A question.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// The user's key; without one only ad groups for everybody are allowed.
    user: Option<String>,
    /// The candidates, at most 1,000, best first.
    ad_groups: Vec<String>,
    /// Record an insertion for the first one allowed, so that its spend is in flight at once.
    #[serde(default)]
    record_insertion: bool,
}

/// Which of these ad groups may be shown to this user now, and why not the others.
#[utoipa::path(post, path = "/v1/decide", request_body = Question, responses((status = 200, body = super::answers::DecisionMade, description = "`allowed`: names; `refused`: ad_group, code, why; `insertion_id` if one was recorded"), (status = 403, description = "recording an insertion needs the scope events too")))]
pub(crate) async fn decide(
    State(ctx): State<Arc<NodeContext>>,
    Extension(caller): Extension<Caller>,
    Body(question): Body<Question>,
) -> Result<Json<Value>, ApiError> {
    if question.ad_groups.len() > 1_000 {
        return Err(ApiError::bad_request("more than 1,000 ad groups in one question"));
    }
    if question.record_insertion && !caller.scopes().allow(Scope::Events) {
        return Err(ApiError::forbidden(caller.name(), "events to record an insertion"));
    }
    let now = ctx.clock.now();
    let user = question.user.as_ref().map(|key| UserKey::text(key.as_str()).hash(ctx.seed));
    let mut refused: Vec<Value> = Vec::new();
    let mut candidates: Vec<AdGroupName> = Vec::with_capacity(question.ad_groups.len());
    for text in &question.ad_groups {
        match AdGroupName::new(text.as_str()) {
            Ok(name) => candidates.push(name),
            Err(error) => refused
                .push(json!({ "ad_group": text, "code": "not_a_name", "why": error.to_string() })),
        }
    }
    let (decision, counted) = match question.record_insertion {
        true => ctx.gate.decide_and_count(user, &candidates, now),
        false => (ctx.gate.decide(user, &candidates, now), None),
    };
    refused.extend(decision.refused.iter().map(|(name, reason)| {
        json!({ "ad_group": name, "code": reason.code(), "why": reason.to_string() })
    }));
    let mut answer = json!({ "allowed": decision.allowed, "refused": refused });
    if let (Some(counted), Some(chosen)) = (counted, decision.allowed.first()) {
        match record(&ctx, chosen, now).await {
            Ok((id, positions)) => {
                ctx.gate.insertion_logged(counted, &positions, now);
                answer["insertion_id"] = json!(id);
            }
            Err(error) => {
                ctx.gate.insertion_dropped(counted);
                return Err(error);
            }
        }
    }
    Ok(Json(answer))
}

/// Records an insertion: its id, and how far in the log it is.
async fn record(
    ctx: &NodeContext,
    ad_group: &AdGroupName,
    now: Timestamp,
) -> Result<(String, Vec<(u32, u64)>), ApiError> {
    if ctx.data_directory_lost.is_cancelled() {
        return Err(super::data_directory_lost());
    }
    let id = format!("decide-{:016x}", SystemEntropy.next_u64());
    let event = Event {
        id: id.clone(),
        kind: EventKind::Insertion,
        ad_group: ad_group.clone(),
        insertion_id: Some(id.clone()),
        at: now,
        inserted_at: None,
    };
    let accepted = ctx.budgets.accept(vec![event]).await;
    let accepted = accepted?;
    match accepted.rejected.into_iter().next() {
        None => Ok((id, accepted.positions)),
        Some((_, problem)) => {
            Err(ApiError::unavailable(format!("the insertion does not count: {}", problem.message)))
        }
    }
}
