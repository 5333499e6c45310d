//! The web pages. The node renders them; `assets/throng.js` reloads the content of a page when the stream of
//! changes says that it changed. No framework and no build step.

mod access;
mod activation;
mod alerts;
mod audiences;
mod budgets;
mod chart;
mod decide;
mod overview;
mod show;
mod sources;
mod syncs;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::NodeContext;
use crate::api::ApiError;

/// The pages of the menu: path and name.
pub(crate) const MENU: &[(&str, &str)] = &[
    ("/", "Overview"),
    ("/sources", "Sources"),
    ("/audiences", "Audiences"),
    ("/activation", "Activation"),
    ("/budgets", "Budgets"),
    ("/alerts", "Alerts"),
    ("/decide", "Try a decision"),
    ("/access", "Access"),
];

/// The routes of the pages.
pub(crate) fn routes() -> Router<Arc<NodeContext>> {
    Router::new()
        .route("/", get(overview::page))
        .route("/audiences", get(audiences::list))
        .route("/audiences/{name}", get(audiences::one))
        .route("/activation", get(activation::list))
        .route("/activation/tasks/{id}", get(activation::task))
        .route("/activation/syncs/{name}", get(syncs::one))
        .route("/alerts", get(alerts::page))
        .route("/budgets", get(budgets::list))
        .route("/budgets/{name}", get(budgets::one))
        .route("/decide", get(decide::page))
        .route("/sources", get(sources::page))
        .route("/access", get(access::page))
}

/// The style and the script of the pages. They contain no data, so they need no token.
pub(crate) fn assets() -> Router<Arc<NodeContext>> {
    Router::new().route("/assets/throng.css", get(style)).route("/assets/throng.js", get(script))
}

type Context = State<Arc<NodeContext>>;

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../../assets/throng.css"))
}

async fn script() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")],
        include_str!("../../assets/throng.js"),
    )
}

/// A page that could not be shown.
pub(crate) enum PageError {
    /// The object does not exist.
    Missing(String),
    /// The error, as the API reports it.
    Failed(ApiError),
    /// The template failed to render.
    Template(askama::Error),
}

impl From<throng_aggregator::BudgetsError> for PageError {
    fn from(error: throng_aggregator::BudgetsError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<throng_store::LedgerError> for PageError {
    fn from(error: throng_store::LedgerError) -> Self {
        match error {
            throng_store::LedgerError::NotFound { what, name } => {
                Self::Missing(format!("There is no {what} {name}."))
            }
            other => Self::Failed(other.into()),
        }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    title: &'static str,
    message: String,
    suggested_fix: Option<String>,
}

impl ErrorPage {
    fn menu_path(&self) -> &'static str {
        ""
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, message, suggested_fix, retry_after) = match self {
            Self::Missing(message) => (StatusCode::NOT_FOUND, message, None, None),
            Self::Failed(error) => error.into_parts(),
            Self::Template(error) => {
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
        let mut response = match (ErrorPage { title, message, suggested_fix }).render() {
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

fn render(template: &impl Template) -> Page {
    template.render().map(Html).map_err(PageError::Template)
}
