//! Reads lists from a node: one page, or all of them.

use anyhow::Result;
use throng_api::{ListQuery, MAX_LIST_ROWS};

use crate::args::{FilterArgs, NodeArgs};
use crate::client::{Answer, Client};
use crate::out;

/// A list of the API.
pub(super) struct List {
    path: &'static str,
    /// The field of the answer that has the rows.
    rows: &'static str,
    /// The order in which all pages are read if the command line sets none.
    order: &'static str,
}

pub(super) const AUDIENCES: List = List { path: "/v1/audiences", rows: "audiences", order: "name" };
pub(super) const SYNCS: List = List { path: "/v1/syncs", rows: "syncs", order: "name" };
pub(super) const RUNS: List = List { path: "/v1/runs", rows: "runs", order: "-id" };
pub(super) const TASKS: List = List { path: "/v1/tasks", rows: "tasks", order: "-id" };
pub(super) const ALERTS: List = List { path: "/v1/alerts", rows: "alerts", order: "-id" };

/// The answer of the node. With `--all` it has the rows of all pages.
pub(super) async fn read(
    list: &List,
    args: FilterArgs,
    limit: Option<u32>,
    node: &NodeArgs,
) -> Result<Answer> {
    let client = Client::new(node)?;
    let FilterArgs { search, state, sort, cursor, workspace, all } = args;
    let mut query = ListQuery { search, state, sort, limit, cursor, workspace };
    if !all {
        return client.get(&format!("{}{}", list.path, query.to_url())).await;
    }
    query.sort.get_or_insert_with(|| list.order.to_owned());
    query.limit = Some(MAX_LIST_ROWS);
    let mut answer = client.get(&format!("{}{}", list.path, query.to_url())).await?;
    while let Some(cursor) = answer.next_cursor() {
        query.cursor = Some(cursor);
        let next = client.get(&format!("{}{}", list.path, query.to_url())).await?;
        answer.append(next, list.rows);
    }
    Ok(answer)
}

/// Prints how to list the next page, if there is one.
pub(super) fn print_next(cursor: Option<&str>) {
    if let Some(cursor) = cursor {
        out::message(format!("more rows follow: repeat with --cursor {cursor}, or use --all"));
    }
}
