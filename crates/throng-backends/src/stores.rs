//! Serving stores of a spec, each tried without a write.

use std::sync::Arc;
use std::time::Duration;

use throng_model::{SystemClock, with_causes};
use throng_serving_stores::{StoreConnector, try_store};
use throng_spec::{Environment, ServingStore, StoreEngine};

use crate::finding::Finding;

const NAME: &str = "store";
/// A store that has not answered by then does not work.
const TIMEOUT: Duration = Duration::from_secs(30);
const HELP: &str = "correct it in `serving_stores`, or start the store; docs/serving-stores.md has what each needs";

/// Tries each store by a question, all at the same time. A store that refuses writes only, such as a replica, is not
/// found.
pub(crate) async fn check_stores(stores: &[ServingStore], env: &Environment) -> Vec<Finding> {
    let connector = StoreConnector::new(Arc::clone(env), Arc::new(SystemClock));
    futures::future::join_all(stores.iter().map(|store| check(&connector, store))).await
}

async fn check(connector: &StoreConnector, store: &ServingStore) -> Finding {
    let place = match &store.engine {
        StoreEngine::Redis(redis) => redis.url.clone(),
        StoreEngine::Bigtable(table) => format!("{} at {}", table.table_name(), table.api_url()),
    };
    let place = format!("{} ({place})", store.name);
    let failed = |message: String| {
        let message = format!("{place}: {message}");
        Finding { backend: NAME, ok: false, message, help: Some(HELP.to_owned()) }
    };
    match tokio::time::timeout(TIMEOUT, try_store(connector, store)).await {
        Ok(Ok(())) => Finding::ok_with(NAME, format!("{place} can be read")),
        Ok(Err(error)) => failed(with_causes(&error)),
        Err(_) => failed(format!("no answer within {} seconds", TIMEOUT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use throng_spec::Spec;

    use super::*;
    use crate::check_spec_backends;

    /// A spec with these stores.
    fn spec(stores: &str) -> Spec {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("throng.yaml");
        let text = format!(
            "version: 1\nsources: [{{ name: shop, path: . }}]\naudiences: [{{ name: a, sql: SELECT id FROM shop.a }}]\n\
             serving_stores:\n{stores}"
        );
        std::fs::write(&path, text).unwrap();
        throng_spec::load(&path).unwrap()
    }

    #[tokio::test]
    async fn a_store_on_a_closed_port_is_found_by_its_name_and_address() {
        let spec = spec(
            "  - { name: cache, type: redis, url: \"redis://127.0.0.1:1/0\" }\n  \
             - { name: users, type: bigtable, project: p, instance: i, table: t, endpoint: \"http://127.0.0.1:1\" }\n",
        );
        let env: Environment = Arc::new(|_: &str| None::<String>);
        let found = check_spec_backends(&spec, &env).await;
        let found: Vec<&Finding> = found.iter().filter(|one| one.backend == NAME).collect();
        assert_eq!(found.len(), 2);
        for (found, place) in found.into_iter().zip([
            "cache (redis://127.0.0.1:1/0): ",
            "users (projects/p/instances/i/tables/t at http://127.0.0.1:1): ",
        ]) {
            assert!(!found.ok && found.message.starts_with(place), "{found:?}");
            assert!(found.message.contains("cannot be reached"), "{found:?}");
            let help = found.help.as_ref().unwrap();
            assert!(help.contains("serving_stores"), "{help}");
        }
    }

    #[tokio::test]
    async fn a_password_that_is_not_set_is_found() {
        let spec = spec(
            "  - { name: cache, type: redis, url: \"redis://127.0.0.1:1/0\", password: env:ABSENT }\n",
        );
        let env: Environment = Arc::new(|_: &str| None::<String>);
        let found = check_stores(&spec.serving_stores, &env).await;
        assert!(!found[0].ok && found[0].message.contains("secret"), "{found:?}");
    }
}
