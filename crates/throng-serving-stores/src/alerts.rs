//! Alerts about audiences in stores, and which of them stay when another spec is applied.

use std::collections::HashSet;

use throng_model::{AudienceName, ServingStoreName};
use throng_spec::Spec;
use throng_store::{Alert, AlertKind, LedgerError, StoreWrite, StoreWriteState};

use crate::StoresDeps;

/// What the subjects of these alerts begin with.
const SUBJECT: &str = "serving store ";
/// Alerts that are read at a time.
const PAGE: u32 = 1_000;

/// The subject of alerts about an audience in a store.
pub fn alert_subject(store: &ServingStoreName, audience: &AudienceName) -> String {
    format!("{SUBJECT}{store}: {audience}")
}

/// Resolves the alerts about stores that the spec no longer has, and about audiences that it no longer has in a
/// store: nothing more is written or checked there that would resolve them.
pub(crate) async fn reconcile(deps: &StoresDeps, spec: &Spec) -> Result<(), LedgerError> {
    let open = open_alerts(deps).await?;
    if open.is_empty() {
        return Ok(());
    }
    let declared = declared_subjects(spec);
    let removals = removal_subjects(spec, &deps.ledger.newest_store_writes().await?);
    for Alert { kind, subject, .. } in open {
        let is_kept = declared.contains(&subject)
            || (kind == AlertKind::TaskFailed && removals.contains(&subject));
        if !is_kept {
            deps.ledger.resolve_alert(kind, &subject, deps.clock.now()).await?;
        }
    }
    Ok(())
}

/// The open alerts about audiences in stores.
async fn open_alerts(deps: &StoresDeps) -> Result<Vec<Alert>, LedgerError> {
    let (mut found, mut offset) = (Vec::new(), 0);
    loop {
        let page = deps.ledger.alerts_page(PAGE, offset).await?;
        let is_last = page.last().is_none_or(|alert| alert.resolved_at.is_some());
        let of_stores = page.into_iter().filter(|alert| {
            alert.resolved_at.is_none()
                && alert.subject.starts_with(SUBJECT)
                && matches!(alert.kind, AlertKind::TaskFailed | AlertKind::CheckFailed)
        });
        found.extend(of_stores);
        if is_last {
            return Ok(found);
        }
        offset += PAGE;
    }
}

/// The subjects of what is written by this spec.
fn declared_subjects(spec: &Spec) -> HashSet<String> {
    let mut subjects = HashSet::new();
    for store in &spec.serving_stores {
        let names = spec.audiences.iter().map(|audience| &audience.name);
        let written = names.filter(|name| store.has(name));
        subjects.extend(written.map(|name| alert_subject(&store.name, name)));
    }
    subjects
}

/// The subjects of removals that are being written: they do not need the audience in the spec.
fn removal_subjects(spec: &Spec, rows: &[StoreWrite]) -> HashSet<String> {
    let is_open = |row: &&StoreWrite| {
        let store = spec.serving_stores.iter().find(|store| store.name == row.write.store);
        row.state == StoreWriteState::Open
            && row.write.to_version.is_none()
            && store.is_some_and(|store| store.place() == row.write.place)
    };
    let open = rows.iter().filter(is_open);
    open.map(|row| alert_subject(&row.write.store, &row.write.audience)).collect()
}
