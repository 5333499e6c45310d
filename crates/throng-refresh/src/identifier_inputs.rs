//! The files that the identifiers of an audience's syncs are read from. They are inputs of its refreshes, as the files
//! of its model are: syncs are planned for a new version only, so without one an e-mail address that has changed would
//! stay on the platform.

use std::collections::{BTreeSet, HashMap, HashSet};

use throng_lake::{InputQuery, InputState, Inputs};
use throng_model::AudienceName;
use throng_spec::{Audience, Spec};

use crate::RefreshContext;

/// Identifiers whose files cannot be inspected, or do not say whether the identifiers have changed.
const UNKNOWN: &str = "unknown";

/// The distinct SQL of the identifiers of each of some audiences that has syncs, in order.
pub(super) struct IdentifierQueries(HashMap<AudienceName, BTreeSet<String>>);

impl IdentifierQueries {
    /// Of these audiences of a spec. Those of a warehouse have none: its state is not known, so their refreshes are
    /// never unchanged.
    pub(super) fn of<'a>(spec: &Spec, audiences: impl Iterator<Item = &'a Audience>) -> Self {
        let of_files = audiences.filter(|audience| audience.source.is_none());
        let names: HashSet<&AudienceName> = of_files.map(|audience| &audience.name).collect();
        let mut queries: HashMap<AudienceName, BTreeSet<String>> = HashMap::new();
        for sync in spec.syncs.iter().filter(|sync| names.contains(&sync.audience)) {
            let of_audience = queries.entry(sync.audience.clone()).or_default();
            of_audience.insert(sync.identifiers.sql.clone());
        }
        Self(queries)
    }

    /// All of them, each once. A template's audiences mostly have the same ones.
    pub(super) fn distinct(&self) -> Vec<InputQuery> {
        let sql: BTreeSet<&str> = self.0.values().flatten().map(String::as_str).collect();
        let query =
            |sql: &str| InputQuery { sql: sql.to_owned(), refuses_time: true, success_file: None };
        sql.into_iter().map(query).collect()
    }

    /// The fingerprint of an audience's inputs: that of its model's files, and those of its identifiers. `states`: of
    /// the queries of [`Self::distinct`], by their SQL.
    pub(super) fn fingerprint(
        &self,
        audience: &AudienceName,
        model: &str,
        states: &HashMap<String, InputState>,
    ) -> Fingerprint {
        let mut found = Fingerprint { text: model.to_owned(), is_known: true };
        for sql in self.0.get(audience).into_iter().flatten() {
            let state = match states.get(sql) {
                Some(InputState::Ready(fingerprint)) => fingerprint,
                Some(InputState::Incomplete(_) | InputState::Refused(_)) | None => {
                    found.is_known = false;
                    UNKNOWN
                }
            };
            found.text.push('+');
            found.text.push_str(state);
        }
        found
    }
}

/// The fingerprint of an audience's inputs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// See [`Inputs::fingerprint`].
    pub(super) text: String,
    /// Whether inputs with the same text are the same.
    pub(super) is_known: bool,
}

/// The files of the identifiers as they were before audiences were refreshed. Syncs are planned after it, so they read
/// these files or newer ones: recorded with the snapshot, an older state costs at most one refresh too many.
pub(super) struct IdentifierInputs {
    queries: IdentifierQueries,
    states: HashMap<String, InputState>,
}

impl IdentifierInputs {
    /// Inspects the files for audiences of one workspace. Costs a listing of their sources, and nothing for audiences
    /// without syncs, or of a warehouse.
    pub(super) async fn read(ctx: &RefreshContext, audiences: &[&Audience]) -> Self {
        let queries = IdentifierQueries::of(&ctx.spec.load(), audiences.iter().copied());
        let asked = queries.distinct();
        let states = match audiences.first() {
            Some(first) if !asked.is_empty() => {
                ctx.lake_of(&first.name).states_before_scan(&asked).await
            }
            _ => Ok(Vec::new()),
        };
        let states = states.unwrap_or_else(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot inspect the files of identifiers"
            );
            Vec::new()
        });
        let states = asked.into_iter().map(|query| query.sql).zip(states).collect();
        Self { queries, states }
    }

    /// [`IdentifierQueries::fingerprint`].
    pub(super) fn fingerprint(&self, audience: &AudienceName, model: &str) -> Fingerprint {
        self.queries.fingerprint(audience, model, &self.states)
    }

    /// What is recorded with a snapshot whose model has these inputs.
    pub(super) fn add_to(&self, audience: &AudienceName, model: Inputs) -> Inputs {
        let fingerprint = self.fingerprint(audience, &model.fingerprint).text;
        Inputs { fingerprint, ..model }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use throng_spec::{SpecFile, SpecFiles, SpecOrigin};

    use super::*;

    fn queries() -> IdentifierQueries {
        let name = |text: &str| text.parse::<AudienceName>().unwrap();
        let sql = |all: &[&str]| all.iter().map(|sql| (*sql).to_owned()).collect();
        IdentifierQueries(HashMap::from([
            (name("buyers"), sql(&["b", "a"])),
            (name("visitors"), sql(&["a"])),
        ]))
    }

    #[test]
    fn a_query_of_several_audiences_is_asked_once() {
        let asked = queries().distinct();
        let sql: Vec<&str> = asked.iter().map(|query| query.sql.as_str()).collect();
        assert_eq!(sql, ["a", "b"]);
        assert!(asked.iter().all(|query| query.refuses_time));
    }

    #[test]
    fn only_the_identifiers_of_audiences_of_files_that_are_refreshed_are_asked() {
        let text = r#"version: 1
sources:
  - { name: shop, path: . }
  - { name: db, type: postgres, host: localhost, database: d, username: u }
audiences:
  - { name: buyers, sql: SELECT id FROM shop.orders }
  - { name: leads, source: db, sql: SELECT 1 }
  - { name: others, sql: SELECT id FROM shop.others }
destinations:
  - { name: meta, platform: meta, account: act_1, access_token: "env:TOKEN" }
syncs:
"#
        .to_owned();
        let syncs = ["buyers", "leads", "others"].map(|audience| {
            format!(
                "  - {{ name: {audience}, audience: {audience}, destination: meta, identifiers: {{ key: id, \
                 sql: SELECT id AS {audience} FROM shop.users, columns: {{ email: EMAIL }} }} }}\n"
            )
        });
        let base = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let file = SpecFile { path: base.join("throng.yaml"), text: text + &syncs.concat() };
        let files = SpecFiles { base, files: vec![file] };
        let spec = throng_spec::check(files, SpecOrigin::Operator).unwrap();
        let refreshed = spec.audiences.iter().filter(|audience| audience.name.as_str() != "others");
        let asked = IdentifierQueries::of(&spec, refreshed).distinct();
        let sql: Vec<&str> = asked.iter().map(|query| query.sql.as_str()).collect();
        assert_eq!(sql, ["SELECT id AS buyers FROM shop.users"]);
    }

    #[test]
    fn inputs_are_known_if_the_files_of_all_identifiers_are() {
        let ready = |text: &str| InputState::Ready(text.to_owned());
        let refused = || InputState::Refused("no such file".to_owned());
        let of = |name: &str, states: &[(&str, InputState)]| {
            let states = states.iter().map(|(sql, state)| ((*sql).to_owned(), state.clone()));
            queries().fingerprint(&name.parse().unwrap(), "m", &states.collect())
        };
        let both = [("a", ready("1")), ("b", ready("2"))];
        let is = |text: &str, is_known| Fingerprint { text: text.to_owned(), is_known };
        assert_eq!(of("buyers", &both), is("m+1+2", true));
        assert_eq!(of("visitors", &both), is("m+1", true));
        assert_eq!(of("others", &both), is("m", true));
        assert_eq!(of("buyers", &[("a", ready("1")), ("b", refused())]), is("m+1+unknown", false));
        assert_eq!(of("visitors", &[]), is("m+unknown", false));
    }
}
