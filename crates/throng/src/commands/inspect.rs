//! Commands that read from a node: `lookup`, `decide`, `why`.

use std::process::ExitCode;

use anyhow::Result;
use throng_api::{
    BudgetRate, BudgetRates, DecideRequest, DecisionMade, History, LookupRequest, LookupResult,
};
use throng_model::AudienceName;

use crate::args::{NodeArgs, WhyKind};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::out::{self, Output};

/// Refuses options after `--`: the parser takes them for keys, which is hardly ever intended.
fn refuse_options(users: &[String]) -> Result<(), Failure> {
    let options = "--url --dir --token-file --insecure --ca-file --json --log --log-json";
    let is_option = |user: &&String| {
        let name = user.split_once('=').map_or(user.as_str(), |(name, _)| name);
        options.split(' ').any(|option| option == name)
    };
    match users.iter().find(is_option) {
        None => Ok(()),
        Some(user) => Err(Failure::wrong_input(format!("`{user}` comes after `--`"))
            .help(format!("put options before `--`; a key of this name is --key={user}"))),
    }
}

fn joined(names: &[AudienceName]) -> String {
    names.iter().map(AudienceName::as_str).collect::<Vec<_>>().join(" ")
}

pub(crate) async fn lookup(
    mut users: Vec<String>,
    keys: Vec<String>,
    node: &NodeArgs,
    output: Output,
) -> Result<ExitCode> {
    refuse_options(&users)?;
    users.extend(keys);
    let answer = Client::new(node)?.post("/v1/lookups", &LookupRequest { keys: users }).await?;
    let Some(LookupResult { users }) = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    for user in users {
        let mut shown = match user.audiences.is_empty() {
            true => "in no audience".to_owned(),
            false => joined(&user.audiences),
        };
        if !user.unknown.is_empty() {
            // Their snapshots cannot be used. To print nothing would say that the user is not in them.
            shown.push_str(&format!("\tunknown: {}", joined(&user.unknown)));
        }
        out::line(format!("{}\t{shown}", out::printable(&user.key, &[])));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn decide(
    request: &DecideRequest,
    node: &NodeArgs,
    output: Output,
) -> Result<ExitCode> {
    let answer = Client::new(node)?.post("/v1/decide", request).await?;
    if output.is_json() {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    answer.read::<DecisionMade>()?.into_lines().into_iter().for_each(out::line);
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn why(
    kind: WhyKind,
    name: &str,
    node: &NodeArgs,
    output: Output,
) -> Result<ExitCode> {
    let path = format!("/v1/why/{}/{}", kind.as_str(), segment(name));
    let answer = Client::new(node)?.get(&path).await?;
    let Some(History { history, rates }) = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    if history.is_empty() {
        out::line(format!("{} {name} has no history yet", kind.as_str()));
    }
    for entry in history {
        let by = entry.actor.map_or_else(String::new, |name| format!(" (by {name})"));
        // One form of words, as on the page: some names of events have underscores.
        out::line(format!("{}  {}: {}{by}", entry.at, entry.what.replace('_', " "), entry.why));
    }
    rates.iter().for_each(print_rates);
    Ok(ExitCode::SUCCESS)
}

/// Prints the declared and the learned rates of an ad group.
pub(crate) fn print_rates(rates: &BudgetRates) {
    let print = |place: &str, impression: &BudgetRate, action: Option<&BudgetRate>| {
        out::line(format!("impression rate{place}: {impression}"));
        if let Some(action) = action {
            out::line(format!("action rate{place}: {action}"));
        }
    };
    print("", &rates.impression, rates.action.as_ref());
    for of in &rates.placements {
        print(&format!(" in {}", of.placement), &of.impression, of.action.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::refuse_options;

    #[test]
    fn options_after_the_hyphens_are_not_keys() {
        let keys = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(refuse_options(&keys(&["-7", "", "a b", "id=", "--", "-x", "--urls"])).is_ok());
        for option in ["--url", "--url=http://x", "--json"] {
            let refused = refuse_options(&keys(&["-7", option])).unwrap_err();
            assert!(refused.to_string().contains(option), "{refused}");
        }
    }
}
