//! Audiences: the list, and one audience.

use axum::extract::{Path, Query, State};
use throng_api::{BulkOperation, ListQuery};
use throng_operations::{audiences, bulk, history, lists};
use throng_page::audiences::AudienceView;
use throng_page::one_page;
use throng_store::SubjectKind;

use super::{Context, OperationsOf, Page, PageError, html};

/// The sizes of the chart.
const MAX_SIZES: u32 = 400;
/// The entries of the history.
const HISTORY_ROWS: u32 = 50;

pub(super) async fn list(
    State(ctx): Context,
    OperationsOf(node): OperationsOf,
    Query(query): Query<ListQuery>,
) -> Page {
    let list = lists::audiences(&node, &one_page(&query)).await?;
    let both = [BulkOperation::ApproveSnapshots, BulkOperation::RejectSnapshots];
    let offers = bulk::offers(&node, &both, &query).await?;
    let all = node.spec.audiences.iter();
    let descriptions = all.filter_map(|one| Some((&one.name, one.description.as_deref()?)));
    let (descriptions, now) = (descriptions.collect(), ctx.clock.now());
    html(throng_page::audiences::list(list, &descriptions, query, &offers, now))
}

pub(super) async fn one(OperationsOf(node): OperationsOf, Path(name): Path<String>) -> Page {
    let wanted = node.qualified(&name);
    let found = node.spec.audiences.iter().find(|audience| audience.name.as_str() == wanted);
    let declared = found.ok_or_else(|| {
        PageError::Missing(format!("There is no audience {name} in the applied spec."))
    })?;
    let subject = (SubjectKind::Audience, declared.name.as_str());
    let view = AudienceView {
        detail: audiences::detail(&node, declared.name.clone(), MAX_SIZES).await?,
        description: declared.description.clone(),
        sql: declared.sql.clone(),
        schedule: audiences::schedule(declared),
        history: history::newest(&node, Some(subject), HISTORY_ROWS).await?,
    };
    html(throng_page::audiences::one(view))
}
