//! The web pages over HTTP: handlers collect what a page shows, and `throng_page` renders it.

mod access;
mod activation;
mod alerts;
mod audiences;
mod budgets;
mod decide;
mod overview;
mod sources;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use throng_access::Caller;
use throng_aggregator::BudgetsError;
use throng_operations::OperationError;
use throng_page::{RenderError, Rendered};
use throng_store::LedgerError;

use crate::NodeContext;
use crate::api::{ApiError, OperationsOf};

/// The routes of the pages.
pub(crate) fn routes() -> Router<Arc<NodeContext>> {
    Router::new()
        .route("/", get(overview::page))
        .route("/audiences", get(audiences::list))
        .route("/audiences/{name}", get(audiences::one))
        .route("/activation", get(activation::list))
        .route("/activation/syncs", get(activation::syncs))
        .route("/activation/runs", get(activation::runs))
        .route("/activation/tasks", get(activation::tasks))
        .route("/activation/tasks/{id}", get(activation::task))
        .route("/activation/syncs/{name}", get(activation::sync))
        .route("/alerts", get(alerts::page))
        .route("/budgets", get(budgets::list))
        .route("/budgets/report", get(budgets::report))
        .route("/budgets/{name}", get(budgets::one))
        .route("/decide", get(decide::page))
        .route("/sources", get(sources::page))
        .route("/access", get(access::page))
        .layer(from_fn(show_workspace))
}

/// Names the workspace of a caller that is limited to one in the header of a page, also of one that says what is wrong,
/// and removes what the workspace does not have from its menu.
async fn show_workspace(request: Request, next: Next) -> Response {
    let workspace = request.extensions().get::<Caller>().and_then(Caller::workspace).cloned();
    let response = match refused_query(request.uri()) {
        Some(response) => response,
        None => next.run(request).await,
    };
    let Some(workspace) = workspace else { return response };
    let (mut head, body) = response.into_parts();
    // It was rendered in memory.
    let Ok(html) = to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    head.headers.remove(header::CONTENT_LENGTH);
    let html = throng_page::in_workspace(&String::from_utf8_lossy(&html), &workspace);
    Response::from_parts(head, Body::from(html))
}

/// The answer to a query with a value of another kind. That of the framework is a line of text.
fn refused_query(uri: &Uri) -> Option<Response> {
    let Query(query) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    let why = throng_api::check_page_query(uri.path(), &query).err()?;
    Some(PageError::Failed(ApiError::bad_request(why.message).help(why.help)).into_response())
}

/// The style and the script of the pages. They contain no data, so they need no token.
pub(crate) fn assets() -> Router<Arc<NodeContext>> {
    Router::new().route("/assets/throng.css", get(style)).route("/assets/throng.js", get(script))
}

type Context = State<Arc<NodeContext>>;

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], throng_page::STYLE)
}

async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], throng_page::SCRIPT)
}

/// A page that could not be shown.
pub(crate) enum PageError {
    /// The object does not exist.
    Missing(String),
    /// The error, as the API reports it.
    Failed(ApiError),
    /// The page failed to render.
    Render(RenderError),
}

impl From<ApiError> for PageError {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl From<BudgetsError> for PageError {
    fn from(error: BudgetsError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<LedgerError> for PageError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::NotFound { what, name } => {
                Self::Missing(format!("There is no {what} {name}."))
            }
            other => Self::Failed(other.into()),
        }
    }
}

impl From<OperationError> for PageError {
    fn from(error: OperationError) -> Self {
        Self::Failed(error.into())
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, message, suggested_fix, retry_after) = match self {
            Self::Missing(message) => (StatusCode::NOT_FOUND, message, None, None),
            Self::Failed(error) => error.into_parts(),
            Self::Render(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to render a page"
                );
                let message = "The page could not be rendered.".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, message, None, None)
            }
        };
        let title = match status {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::SERVICE_UNAVAILABLE => "Unavailable",
            _ => "Error",
        };
        let page = throng_page::error::page(title, &message, suggested_fix.as_deref());
        let mut response = match page {
            Ok(html) => (status, Html(html)).into_response(),
            Err(_) => status.into_response(),
        };
        if let Some(after) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, after.into());
        }
        response
    }
}

type Page = Result<Html<String>, PageError>;

fn html(page: Rendered) -> Page {
    page.map(Html).map_err(PageError::Render)
}
