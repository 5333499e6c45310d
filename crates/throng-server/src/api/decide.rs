//! `POST /v1/decide`: the gate's answer over HTTP, for those who do not link it.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use throng_budget::{Event, EventKind};
use throng_model::{AdGroupName, Entropy, SystemEntropy, UserKey};
use utoipa::ToSchema;

use crate::NodeContext;
use crate::access::{Caller, Scope};

use super::body::Body;
use super::error::ApiError;

/// A question.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Question {
    /// The user's key; without one only ad groups for everybody are allowed.
    user: Option<String>,
    /// The candidates, at most 1,000, best first.
    #[schema(value_type = Vec<String>)]
    ad_groups: Vec<AdGroupName>,
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
    let decision = ctx.gate.decide(user, &question.ad_groups, now);
    let refused: Vec<Value> = decision
        .refused
        .iter()
        .map(|(name, reason)| {
            json!({ "ad_group": name, "code": reason.code(), "why": reason.to_string() })
        })
        .collect();
    let mut answer = json!({ "allowed": decision.allowed, "refused": refused });
    if let (true, Some(chosen)) = (question.record_insertion, decision.allowed.first()) {
        if ctx.data_directory_lost.is_cancelled() {
            return Err(super::data_directory_lost());
        }
        let insertion_id = format!("decide-{:016x}", SystemEntropy.next_u64());
        let event = Event {
            id: insertion_id.clone(),
            kind: EventKind::Insertion,
            ad_group: chosen.clone(),
            insertion_id: Some(insertion_id.clone()),
            at: now,
            inserted_at: None,
        };
        let accepted = ctx.budgets.accept(vec![event]).await;
        accepted.map_err(|error| ApiError::unavailable(error.to_string()))?;
        answer["insertion_id"] = json!(insertion_id);
    }
    Ok(Json(answer))
}
