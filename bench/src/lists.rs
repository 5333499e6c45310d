//! Lists of users on a simulated Meta that syncs fill: they are counted, and compared with those that are expected.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use throng_api::SyncList;
use throng_model::HashedIdentifier;
use throng_sim::meta::{MetaSim, SimulatedAudience, digest_of};

use crate::node::{Node, get};

/// The environment variable of the access token, and the token.
pub(crate) const TOKEN: (&str, &str) = ("THRONG_META_TOKEN", "bench");

/// The e-mail address of a user, as it is normalised.
pub(crate) fn email(user: u64) -> String {
    format!("person-{user}@example.com")
}

/// The number of syncs that have delivered their audience.
pub(crate) async fn delivered(http: &reqwest::Client, node: &Node) -> Result<u64> {
    let SyncList { syncs, .. } = get(http, &format!("{}/v1/syncs", node.url)).await?;
    Ok(syncs.iter().filter(|sync| sync.delivered_version.is_some()).count() as u64)
}

/// Compares all lists on the platform with those that are expected: a name, and the users, who have an e-mail address
/// each. A list that is missing, or has other users, is an error.
pub(crate) fn compare(sim: &MetaSim, expected: &[(String, Range<u64>)]) -> Result<()> {
    let lists = sim.audiences();
    ensure!(lists.len() == expected.len(), "{} lists instead of {}", lists.len(), expected.len());
    let by_name: BTreeMap<&str, &SimulatedAudience> =
        lists.iter().map(|list| (list.name.as_str(), list)).collect();
    for (name, users) in expected {
        let list = by_name.get(name.as_str()).with_context(|| format!("{name} is missing"))?;
        let mut hashes: Vec<String> = users
            .clone()
            .map(|user| HashedIdentifier::of_normalised(&email(user)).to_hex())
            .collect();
        hashes.sort_unstable();
        let is_equal = sim.digest(&list.id) == Some(digest_of(&hashes));
        ensure!(is_equal, "{name} has {} members that are not those of its audience", list.members);
    }
    Ok(())
}
