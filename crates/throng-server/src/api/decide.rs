//! `POST /v1/decide`: decisions of the gate over HTTP, for ad servers that do not link it.

use axum::extract::State;
use axum::{Extension, Json};
use throng_access::{Caller, Scope};
use throng_aggregator::BudgetsError;
use throng_api::{DecideRequest, DecisionMade, MAX_CANDIDATES, candidates, refusals};
use throng_budget::{Event, EventKind, EventMoney};
use throng_gate::{Gate, OwnInsertion, Reason};
use throng_model::{AdGroupName, Entropy, SystemEntropy, Timestamp, UserKey};

use crate::api::state::DecideState;

use super::body::Body;
use super::error::ApiError;

/// Decides which of the ad groups may be shown to this user now, and says why the others may not.
#[utoipa::path(post, path = "/v1/decide", request_body = DecideRequest, responses((status = 200, body = DecisionMade, description = "`allowed`: names; `refused`: ad_group, code, why; `insertion_id` if one was recorded"), (status = 403, description = "recording an insertion also needs the scope events")))]
pub(crate) async fn decide(
    State(ctx): State<DecideState>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<DecideRequest>,
) -> Result<Json<DecisionMade>, ApiError> {
    if request.ad_groups.len() > MAX_CANDIDATES {
        return Err(ApiError::bad_request("more than 1,000 ad groups in one request"));
    }
    if request.record_insertion && !caller.scopes().allow(Scope::Events) {
        return Err(ApiError::forbidden(caller.name(), "events to record an insertion"));
    }
    let now = ctx.budgets.now();
    if ctx.gate.awaits_frames(ctx.budgets.partitions(), ctx.started_at, now) {
        return Err(ApiError::unavailable("the node has started and does not know the spend yet"));
    }
    let user = request.user_key().map(|key| UserKey::text(key).hash(ctx.seed));
    let (candidates, mut refused) = candidates(request.ad_groups.iter().map(String::as_str));
    let (decision, counted) = match request.record_insertion {
        true => ctx.gate.decide_and_count(user, &candidates, now),
        false => (ctx.gate.decide(user, &candidates, now), None),
    };
    refused.extend(refusals(&decision.refused, Reason::code));
    let mut insertion_id = None;
    if let (Some(counted), Some(chosen)) = (counted, decision.allowed.first()) {
        insertion_id = Some(record_insertion(&ctx, counted, chosen, now).await?);
    }
    Ok(Json(DecisionMade { allowed: decision.allowed, refused, insertion_id }))
}

/// Records an insertion and returns its id.
async fn record_insertion(
    ctx: &DecideState,
    counted: OwnInsertion,
    ad_group: &AdGroupName,
    now: Timestamp,
) -> Result<String, ApiError> {
    if ctx.data_directory_lost.is_cancelled() {
        ctx.gate.insertion_dropped(counted);
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
        // At the ad group's price and rates, as the gate counts it.
        money: EventMoney::NONE,
        placement: None,
    };
    let accepted = match ctx.budgets.accept(vec![event]).await {
        Ok(accepted) => accepted,
        Err(error) => {
            drop_unless_appended(&ctx.gate, counted, &error);
            return Err(error.into());
        }
    };
    match accepted.rejected.into_iter().next() {
        None => {
            ctx.gate.insertion_logged(counted, &accepted.positions, now);
            Ok(id)
        }
        Some((_, problem)) => {
            ctx.gate.insertion_dropped(counted);
            Err(ApiError::unavailable(format!("the insertion was rejected: {}", problem.message)))
        }
    }
}

/// Gives back an insertion whose append failed. Where it is unknown whether the log has it, the gate counts it for ten
/// minutes, which is safe for the budget.
fn drop_unless_appended(gate: &Gate, counted: OwnInsertion, error: &BudgetsError) {
    if !error.may_be_appended() {
        gate.insertion_dropped(counted);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;
    use throng_gate::Catalog;
    use throng_log::LogError;

    use super::*;

    #[test]
    fn an_insertion_that_may_be_in_the_log_keeps_counting() {
        let shoes = AdGroupName::new("shoes").unwrap();
        let catalog: Catalog = serde_json::from_value(json!({ "version": 1, "ad_groups": [{
            "index": 0, "name": "shoes", "daily_budget": 1_000_000, "prediction": true,
            "include": [], "exclude": [], "expected": 600_000,
        }] }))
        .unwrap();
        let own_after = |error: BudgetsError| {
            let gate = Gate::new(catalog.clone(), Duration::from_secs(10));
            let counted = gate.count_insertion(&shoes, Timestamp(0)).unwrap();
            drop_unless_appended(&gate, counted, &error);
            gate.spend(&shoes).unwrap().own.0
        };
        let append = |error| BudgetsError::Append(Arc::new(error));
        let topic = "throng.events".to_owned();
        assert_eq!(own_after(append(LogError::Unconfirmed { topic })), 600_000);
        assert_eq!(own_after(append(LogError::RecordTooLarge { bytes: 2, limit: 1 })), 0);
        assert_eq!(own_after(BudgetsError::CatalogBehind { partition: 0 }), 0);
    }
}
