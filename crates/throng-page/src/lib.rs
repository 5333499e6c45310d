//! The web pages as HTML. Each function takes types of the API, or a struct of its module where the API has
//! none, and returns the text of a page. No framework and no build step; `assets/throng.js` reloads the content
//! of a page when the stream of changes says that it changed. Pure.

pub mod access;
pub mod activation;
pub mod alerts;
pub mod audiences;
pub mod budget_report;
pub mod budgets;
mod chart;
pub mod decide;
pub mod error;
mod lists;
pub mod overview;
mod show;
pub mod sign_in;
pub mod sources;
pub mod syncs;
pub mod work;
mod workspace;

/// Why a page cannot be rendered.
pub use askama::Error as RenderError;

pub use lists::one_page;
pub use workspace::in_workspace;

/// The HTML of a page.
pub type Rendered = Result<String, RenderError>;

/// The pages of the menu: path and name.
pub const MENU: &[(&str, &str)] = &[
    ("/", "Overview"),
    ("/sources", "Sources"),
    ("/audiences", "Audiences"),
    ("/activation", "Activation"),
    ("/budgets", "Budgets"),
    ("/alerts", "Alerts"),
    ("/decide", "Try a decision"),
    ("/access", "Access"),
];

/// The style of the pages, at `/assets/throng.css`.
pub const STYLE: &str = include_str!("../assets/throng.css");

/// The script of the pages, at `/assets/throng.js`.
pub const SCRIPT: &str = include_str!("../assets/throng.js");
