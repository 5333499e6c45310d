//! `throng store`: serving stores and their writes.

use std::process::ExitCode;

use anyhow::Result;
use throng_api::{
    RewriteStore, StoreAudience, StoreHashSeed, StoreList, StoreRewrite, StoreWriteList,
    StoreWriteReceipt, StoreWriteState,
};

use crate::args::{NodeArgs, StoreCommand};
use crate::client::{Client, segment};
use crate::out::{self, Output};

pub(crate) async fn run(command: StoreCommand, output: Output) -> Result<ExitCode> {
    match command {
        StoreCommand::List { node } => list(&node, output).await,
        StoreCommand::Writes { name, node } => writes(&name, &node, output).await,
        StoreCommand::HashSeed { node } => {
            let answer = Client::new(&node)?.get("/v1/stores/hash-seed").await?;
            if let Some(StoreHashSeed { hash_seed }) = answer.for_people(output)? {
                out::line(hash_seed);
            }
            Ok(ExitCode::SUCCESS)
        }
        StoreCommand::Rewrite { name, audience, node } => {
            let path = format!("/v1/stores/{}/rewrite", segment(&name));
            let answer = Client::new(&node)?.post(&path, &RewriteStore { audience }).await?;
            if let Some(StoreRewrite { store, writes }) = answer.for_people(output)? {
                let writes = out::counted(writes, "audience");
                out::line(format!("{writes} to write again to {store}; see `throng store list`"));
            }
            Ok(ExitCode::SUCCESS)
        }
        StoreCommand::Remove { name, audience, node } => {
            let (store, of) = (segment(&name), segment(&audience));
            let path = format!("/v1/stores/{store}/audiences/{of}/remove");
            let answer = Client::new(&node)?.post_empty(&path).await?;
            answer.print_or(
                format!("{audience} is being removed from {name}; see `throng store list`"),
                output,
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/stores").await?;
    let Some(StoreList { stores }) = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut rows = Vec::new();
    for store in stores {
        for audience in store.audiences {
            rows.push(vec![
                store.name.to_string(),
                audience.audience.to_string(),
                version(audience.served_version),
                version(audience.store_version),
                state(&audience),
                audience.write.as_ref().map_or_else(String::new, check),
            ]);
        }
    }
    out::table(&["STORE", "AUDIENCE", "SERVED", "IN STORE", "STATE", "LAST CHECK"], rows);
    Ok(ExitCode::SUCCESS)
}

async fn writes(name: &str, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let path = format!("/v1/stores/{}/writes", segment(name));
    let answer = Client::new(node)?.get(&path).await?;
    let Some(StoreWriteList { writes }) = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let rows = writes.into_iter().map(|write| {
        vec![
            write.id.to_string(),
            write.audience.to_string(),
            versions(&write),
            write.state.to_string(),
            write.users.map_or_else(String::new, out::count),
            out::count(write.batches),
            out::count(write.added),
            out::count(write.removed),
            write.started_at.to_string(),
            write.updated_at.to_string(),
            write.error.unwrap_or_default(),
        ]
    });
    let header = [
        "WRITE", "AUDIENCE", "VERSIONS", "STATE", "USERS", "BATCHES", "ADDED", "REMOVED",
        "STARTED", "UPDATED", "ERROR",
    ];
    out::table(&header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

/// A version that may be absent. Other commands take it as it is shown here.
fn version(version: Option<u64>) -> String {
    version.map_or_else(String::new, |version| version.to_string())
}

/// From which version to which; `none` where there are no members.
fn versions(write: &StoreWriteReceipt) -> String {
    let version = |version: Option<u64>| version.map_or("none".to_owned(), |v| v.to_string());
    let from = if write.rewrite { "all".to_owned() } else { version(write.from_version) };
    format!("{from} → {}", version(write.to_version))
}

/// What happens to an audience in a store.
fn state(audience: &StoreAudience) -> String {
    let Some(write) = &audience.write else { return "not written yet".to_owned() };
    if write.state == StoreWriteState::Open {
        let done = out::count(write.added + write.removed);
        let users = write.users.map_or_else(|| "?".to_owned(), out::count);
        let error = write.error.as_ref().map(|error| format!("; {error}"));
        return format!("writing, {done} of {users} users{}", error.unwrap_or_default());
    }
    if audience.declared {
        "written".to_owned()
    } else {
        "not in the spec, kept until `throng store remove`".to_owned()
    }
}

/// The newest check of a write.
fn check(write: &StoreWriteReceipt) -> String {
    let Some(check) = write.check else { return String::new() };
    let (sampled, missing, unexpected) =
        (out::count(check.sampled), out::count(check.missing), out::count(check.unexpected));
    match check.missing + check.unexpected {
        0 => format!("{}: {} compared, all agree", check.at, out::counted(check.sampled, "user")),
        _ => format!("{}: of {sampled} users {missing} missing, {unexpected} unexpected", check.at),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_numbers_without_separators() {
        let write = json!({
            "id": 1, "store": "cache", "audience": "buyers", "from_version": 12_344,
            "to_version": 12_345, "rewrite": false, "state": "open", "users": 9_000, "batches": 1,
            "added": 1_200, "removed": 0, "tries": 0, "retry_at": null, "error": null,
            "started_at": 0, "updated_at": 0, "check": null,
        });
        let write: StoreWriteReceipt = serde_json::from_value(write).unwrap();
        assert_eq!(versions(&write), "12344 → 12345");
        let first = StoreWriteReceipt { from_version: None, ..write.clone() };
        assert_eq!(versions(&first), "none → 12345");
        assert_eq!(versions(&StoreWriteReceipt { rewrite: true, ..write }), "all → 12345");
        assert_eq!(version(Some(12_345)), "12345");
        assert_eq!(version(None), "");
    }
}
