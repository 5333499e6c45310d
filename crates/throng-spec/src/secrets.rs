//! The secrets that a spec refers to, with the fields that name them.

use crate::{
    LedgerSettings, LogSettings, ObjectsSettings, Platform, SecretRef, ServiceSettings, Spec,
    StoreEngine, WarehouseSettings,
};

/// Secrets that this process cannot read, such as an environment variable that is not set: one line for each, with the
/// field and the reference, and without a value. Each secret is read when it is needed, and a spec may be checked
/// on another machine than that of its node, so this is not a problem of the spec. `env` looks up an environment
/// variable. Reads the files of secrets.
pub fn unreadable_secrets(spec: &Spec, env: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let all = of_node(spec).into_iter().chain(of_objects(spec));
    let unreadable = all.filter_map(|(field, reference)| {
        let error = reference.resolve(env).err()?;
        Some(format!("{field} is {reference}, which this process cannot read: {error}"))
    });
    unreadable.collect()
}

/// The secrets of the node settings.
fn of_node(spec: &Spec) -> Vec<(String, &SecretRef)> {
    let node = &spec.node;
    let mut found: Vec<(String, &SecretRef)> = Vec::new();
    let named = [("token", &node.token), ("identifiers_key", &node.identifiers_key)];
    for (field, secret) in named {
        found.extend(secret.iter().map(|secret| (format!("node.{field}"), secret)));
    }
    if let LedgerSettings::Postgres { url, .. } = &node.ledger {
        found.push(("node.ledger_url".to_owned(), url));
    }
    if let LogSettings::Kafka(kafka) = &node.log {
        let passwords = kafka.sasl.iter().map(|sasl| &sasl.password);
        found.extend(passwords.map(|secret| ("node.kafka.password".to_owned(), secret)));
    }
    if let ObjectsSettings::Bucket(bucket) = &node.objects {
        found.extend(of_service("node.bucket", &bucket.service));
    }
    let lake = node.lake_bucket.iter();
    found.extend(lake.flat_map(|bucket| of_service("node.lake", &bucket.service)));
    let alerts = node.alerts.iter();
    found.extend(alerts.map(|of| (format!("the secret of the webhook `{}`", of.name), &of.secret)));
    found
}

/// The secrets of sources, destinations and serving stores.
fn of_objects(spec: &Spec) -> Vec<(String, &SecretRef)> {
    let mut found: Vec<(String, &SecretRef)> = Vec::new();
    for source in &spec.sources {
        let of = format!("source `{}`", source.name);
        let bucket = source.bucket.iter();
        found.extend(bucket.flat_map(|bucket| of_service(&of, &bucket.service)));
    }
    for warehouse in &spec.warehouses {
        let field = match &warehouse.settings {
            WarehouseSettings::Bigquery(_) => "credentials",
            WarehouseSettings::Postgres(_) => "password",
        };
        let secret = warehouse.settings.secret().into_iter();
        found.extend(secret.map(|at| (format!("source `{}`: {field}", warehouse.name), at)));
    }
    for destination in &spec.destinations {
        let Platform::Meta(meta) = &destination.platform else { continue };
        let of = format!("destination `{}`", destination.name);
        found.push((format!("{of}: access_token"), &meta.access_token));
        let app_secret = meta.app_secret.iter();
        found.extend(app_secret.map(|secret| (format!("{of}: app_secret"), secret)));
    }
    for store in &spec.serving_stores {
        let field = match &store.engine {
            StoreEngine::Redis(_) => "password",
            StoreEngine::Bigtable(_) => "credentials",
        };
        let secret = store.engine.secret().into_iter();
        found.extend(secret.map(|at| (format!("serving store `{}`: {field}", store.name), at)));
    }
    found
}

fn of_service<'s>(of: &str, service: &'s ServiceSettings) -> Vec<(String, &'s SecretRef)> {
    match service {
        ServiceSettings::S3 { keys: Some((access, secret)), .. } => {
            vec![(format!("{of}: access_key"), access), (format!("{of}: secret_key"), secret)]
        }
        ServiceSettings::S3 { keys: None, .. } => Vec::new(),
        ServiceSettings::Gcs { service_account } => {
            let key = service_account.iter();
            key.map(|secret| (format!("{of}: service_account"), secret)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_cannot_be_read_are_named_with_their_fields() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("throng.yaml");
        let missing = dir.path().join("missing").display().to_string();
        let text = format!(
            "version: 1\nnode: {{ token: \"env:NODE_TOKEN\" }}\ndestinations:\n  - {{ name: us, platform: meta, account: \
             act_1, access_token: \"env:SET\" }}\n  - {{ name: eu, platform: meta, account: act_2, access_token: \
             \"env:UNSET\", app_secret: \"file:{missing}\" }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let spec = crate::load(&file).unwrap();
        let env = |name: &str| (name == "SET").then(|| "s3cret".to_owned());
        let lines = unreadable_secrets(&spec, &env);
        let expected = [
            "node.token is env:NODE_TOKEN, which this process cannot read: the environment variable NODE_TOKEN is not \
             set: set it, then start again"
                .to_owned(),
            "destination `eu`: access_token is env:UNSET, which this process cannot read: the environment variable UNSET \
             is not set: set it, then start again"
                .to_owned(),
            format!(
                "destination `eu`: app_secret is file:{missing}, which this process cannot read: the secret's file \
                 {missing} cannot be read: check that it exists and that this user may read it"
            ),
        ];
        assert_eq!(lines, expected);
        assert!(unreadable_secrets(&spec, &|_| Some("s3cret".to_owned())).len() == 1, "the file");
    }
}
