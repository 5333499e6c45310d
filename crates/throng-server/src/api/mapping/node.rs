//! Problems and nodes, tokens and sessions.

use throng_access::Scopes;
use throng_api::{NodeImpact, NodeProblem, NodeSummary, SessionSummary, TokenSummary};
use throng_store::{SessionRow, TokenRow};

use crate::health::{HealthProblem, Impact};
use crate::roles::cluster::Member;

pub(in crate::api) fn problem(problem: HealthProblem) -> NodeProblem {
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

pub(in crate::api) fn node(node: Member) -> NodeSummary {
    NodeSummary {
        name: node.name,
        roles: node.roles,
        url: node.url,
        started_at: node.started_at,
        seen_at: node.seen_at,
        partitions: node.partitions,
        stands_by: node.stands_by,
        gates: node.gates as u64,
    }
}

/// The names of scopes, as in requests.
pub(in crate::api) fn scope_names(scopes: Scopes) -> Vec<String> {
    scopes.names().map(str::to_owned).collect()
}

/// Without the hash of the secret.
pub(in crate::api) fn token(row: TokenRow, valid: bool) -> TokenSummary {
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
pub(in crate::api) fn session(row: &SessionRow, token: String) -> SessionSummary {
    SessionSummary {
        id: row.id,
        token,
        created_at: row.created_at,
        last_seen_at: row.last_seen_at,
        expires_at: row.expires_at,
    }
}
