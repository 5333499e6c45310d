//! Maps values of this crate to the types of the API: problems, tokens and sessions, and tests of receivers. What
//! is not of this crate: `throng_operations::mapping`.

use throng_access::Scopes;
use throng_alerts::ReceiverTest;
use throng_api::{AlertTestAnswer, NodeImpact, NodeProblem, SessionSummary, TokenSummary};
use throng_store::{SessionRow, TokenRow};

use throng_telemetry::{HealthProblem, Impact};

pub(super) fn problem(problem: HealthProblem) -> NodeProblem {
    NodeProblem {
        class: problem.class.name().to_owned(),
        key: problem.key,
        impact: match problem.impact {
            Impact::Degraded => NodeImpact::Degraded,
            Impact::NotReady => NodeImpact::NotReady,
        },
        detail: problem.detail,
        since: problem.since,
    }
}

/// The names of scopes, as in requests.
pub(super) fn scope_names(scopes: Scopes) -> Vec<String> {
    scopes.names().map(str::to_owned).collect()
}

/// Without the hash of the secret.
pub(super) fn token(row: TokenRow, valid: bool) -> TokenSummary {
    TokenSummary {
        name: row.name,
        scopes: scope_names(Scopes::parse_known(&row.scopes)),
        workspace: row.workspace,
        created_at: row.created_at,
        created_by: row.created_by,
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
        revoked_at: row.revoked_at,
        valid,
    }
}

/// Without the hash of the secret.
pub(super) fn session(row: &SessionRow, token: String) -> SessionSummary {
    SessionSummary {
        id: row.id,
        token,
        created_at: row.created_at,
        last_seen_at: row.last_seen_at,
        expires_at: row.expires_at,
    }
}

pub(super) fn test_answer(test: ReceiverTest) -> AlertTestAnswer {
    AlertTestAnswer {
        receiver: test.receiver,
        accepted: test.accepted,
        status: test.status,
        answer: test.answer,
        error: test.error,
    }
}
