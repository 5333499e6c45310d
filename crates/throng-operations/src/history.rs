//! The history of objects.

use throng_api::HistoryItem;
use throng_store::{LedgerError, SubjectKind};

use crate::Operations;
use crate::error::{OperationError, Result};
use crate::mapping::audiences::history_item;

/// The entries of one answer about an object.
const MAX_ENTRIES: u32 = 200;
/// The kinds of objects whose history is answered.
const KINDS: [&str; 3] = ["audience", "sync", "ad_group"];

/// The newest entries of an object by its qualified name, or of all objects that the caller may know of; newest first.
///
/// # Errors
/// [`LedgerError`].
pub async fn newest(
    operations: &Operations,
    subject: Option<(SubjectKind, &str)>,
    limit: u32,
) -> Result<Vec<HistoryItem>, LedgerError> {
    let ledger = &operations.ledger;
    let entries = match (&subject, &operations.workspace) {
        (Some((_, name)), _) if !operations.can_access_name(name) => Vec::new(),
        (Some((kind, name)), _) => ledger.history(Some((kind, *name)), limit).await?,
        (None, Some(workspace)) => ledger.workspace_history(workspace, limit).await?,
        (None, None) => ledger.history(None, limit).await?,
    };
    Ok(entries.into_iter().map(history_item).collect())
}

/// The history of an audience, a sync or an ad group, also of one that the spec no longer has.
///
/// # Errors
/// [`OperationError`].
pub async fn of_object(
    operations: &Operations,
    kind: &str,
    name: &str,
) -> Result<Vec<HistoryItem>> {
    if !KINDS.contains(&kind) {
        return Err(OperationError::invalid(format!("`{kind}` is not a kind of object"))
            .help("use audience, sync or ad_group"));
    }
    let qualified = operations.qualified(name);
    let subject = (SubjectKind::from(kind.to_owned()), &*qualified);
    let history = newest(operations, Some(subject), MAX_ENTRIES).await?;
    if history.is_empty() && !is_declared(operations, kind, &qualified) {
        let what = kind.replace('_', " ");
        let message = format!("no {what} `{name}` in the applied spec, and no history of it");
        return Err(OperationError::not_found(message).help(names_help(kind)));
    }
    Ok(history)
}

/// Which command shows the names.
fn names_help(kind: &str) -> &'static str {
    match kind {
        "audience" => "`throng audience list` shows the names",
        "sync" => "`throng sync list` shows the names",
        _ => "`throng budget` shows the names",
    }
}

fn is_declared(operations: &Operations, kind: &str, name: &str) -> bool {
    let spec = &operations.spec;
    match kind {
        "audience" => spec.audiences.iter().any(|audience| audience.name.as_str() == name),
        "sync" => spec.syncs.iter().any(|sync| sync.name.as_str() == name),
        _ => spec.ad_groups.iter().any(|ad_group| ad_group.name.as_str() == name),
    }
}
