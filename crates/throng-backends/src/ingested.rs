//! The bucket of ingested rows, if `node.lake` is one.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use throng_ingest::{BucketLake, CheckedSources, IngestError};
use throng_objects::{BucketObjects, BucketOptions};
use throng_source_copies::service_of;
use throng_spec::{Environment, NodeSettings, Role, SecretRef, SourceBucket, Spec};
use tokio::runtime::Handle;

use crate::error::BackendError;
use crate::source_copies::{BucketCopies, user_cache};

/// Opens the bucket of ingested rows for a node; `None` if they are in a folder, or the node ingests nothing, or has none
/// of the roles that write tables: it needs no right to do that. A process without a role may run any part. Files are
/// uploaded from the data directory, whose lock this process has: what an earlier one has left there is removed. After
/// each batch the copy of its workspace is compared with the bucket at its next use. Needs a Tokio runtime; sends no
/// request.
///
/// # Errors
/// [`BackendError::Secret`], [`BackendError::Objects`], [`BackendError::Io`].
pub fn open_lake(
    data_dir: &Path,
    settings: &NodeSettings,
    roles: &[Role],
    env: &Environment,
    copies: &Arc<BucketCopies>,
) -> Result<Option<Arc<BucketLake>>, BackendError> {
    let Some(bucket) = &settings.lake_bucket else { return Ok(None) };
    let is_writer = |role: &Role| matches!(role, Role::Api | Role::Build | Role::Schedule);
    if !roles.is_empty() && !roles.iter().any(is_writer) {
        return Ok(None);
    }
    // Beside the rows in quarantine, which only this user may read.
    let folder = data_dir.join("ingest/lake");
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(BackendError::io("remove", folder.display())(error));
        }
        _ => {}
    }
    let (copies, followed) = (Arc::clone(copies), bucket.clone());
    let committed = move |workspace: &str| copies.expire(&followed.in_folder(workspace));
    let lake = open(bucket, folder, env)?.with_commit_hook(Box::new(committed));
    Ok(Some(Arc::new(lake)))
}

/// As [`throng_ingest::sources_for_check`], for commands of this user. A bucket whose secrets this user does not have is
/// one that cannot be read. Needs a Tokio runtime.
///
/// # Errors
/// As [`open_lake`]; inside, those of the check.
pub async fn sources_for_check(
    spec: &Spec,
    env: &Environment,
) -> Result<Result<CheckedSources, IngestError>, BackendError> {
    let Some(bucket) = &spec.node.lake_bucket else {
        return Ok(throng_ingest::sources_for_check(spec, None));
    };
    let lake = match open(bucket, user_cache(&**env).join("ingest"), env) {
        Err(error @ BackendError::Secret { .. }) => {
            return Ok(throng_ingest::sources_without_lake(spec, &error));
        }
        opened => opened?,
    };
    let spec = spec.clone();
    // Requests to a bucket block.
    let check = move || throng_ingest::sources_for_check(&spec, Some(&lake));
    let checked = tokio::task::spawn_blocking(check).await;
    Ok(checked.unwrap_or_else(|error| Err(IngestError::of_task(&error))))
}

fn open(
    bucket: &SourceBucket,
    folder: PathBuf,
    env: &Environment,
) -> Result<BucketLake, BackendError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    created.map_err(BackendError::io("create the folder", folder.display()))?;
    let objects = Arc::new(BucketObjects::open(folder, &lake_options(bucket, env)?)?);
    Ok(BucketLake::new(objects, bucket.url().to_string(), Handle::current()))
}

/// The options of the bucket of ingested rows: its settings, with the resolved secrets.
pub(crate) fn lake_options(
    bucket: &SourceBucket,
    env: &Environment,
) -> Result<BucketOptions, BackendError> {
    let service = service_of(&bucket.service, |field, reference: &SecretRef| {
        let field = match field {
            "bucket.access_key" => "lake.s3.access_key",
            "bucket.secret_key" => "lake.s3.secret_key",
            _ => "lake.gcs.service_account",
        };
        reference.resolve(&**env).map_err(|source| BackendError::Secret { field, source })
    })?;
    let (name, prefix) = (bucket.name.clone(), bucket.prefix.clone());
    Ok(BucketOptions { service, bucket: name, prefix, cache_bytes: 0 })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use throng_model::{ManualClock, Timestamp};
    use throng_spec::ServiceSettings;

    use super::*;

    #[tokio::test]
    async fn files_are_uploaded_from_a_folder_of_this_user() {
        let dir = tempfile::tempdir().unwrap();
        let service = |secret: &str| ServiceSettings::S3 {
            endpoint: Some("http://127.0.0.1:9".to_owned()),
            region: "us-east-1".to_owned(),
            keys: Some((SecretRef::Env("KEY".to_owned()), SecretRef::Env(secret.to_owned()))),
            ca_file: None,
            insecure: false,
        };
        let env: Environment = Arc::new(|name: &str| (name == "KEY").then(|| "k".to_owned()));
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let copies = Arc::new(BucketCopies::of_node(dir.path(), Arc::clone(&env), clock));
        let opened = |service: Option<ServiceSettings>, roles: &[Role]| {
            let bucket = |service| SourceBucket {
                name: "lake".to_owned(),
                prefix: "in".to_owned(),
                max_bytes: 1,
                service,
            };
            let settings =
                NodeSettings { lake_bucket: service.map(bucket), ..NodeSettings::default() };
            open_lake(dir.path(), &settings, roles, &env, &copies)
        };
        assert!(opened(None, &Role::ALL).unwrap().is_none());
        // These nodes may lack the secret.
        let others = [Role::Activate, Role::Aggregate, Role::Relay, Role::Lookup];
        assert!(opened(Some(service("MISSING")), &others).unwrap().is_none());
        assert!(!dir.path().join("ingest").exists());
        let left = dir.path().join("ingest/lake/default/t/day=1");
        for roles in [&[Role::Api][..], &[Role::Lookup, Role::Build], &[Role::Schedule], &[]] {
            let error = opened(Some(service("MISSING")), roles).unwrap_err();
            assert_eq!(error.to_string(), "cannot read the secret node.lake.s3.secret_key");
            assert!(!left.exists());
            let mode = std::fs::metadata(dir.path().join("ingest")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
            std::fs::create_dir_all(&left).unwrap();
        }
    }

    #[tokio::test]
    async fn a_check_without_the_keys_of_the_bucket_warns() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("throng.yaml");
        let text = "version: 1\nnode:\n  lake: { path: 's3://b', s3: { access_key: env:KEY, secret_key: env:ABSENT } }\n\
                    schemas:\n  - { name: s, key: id, fields: [{ name: id, type: text, required: true }] }\n";
        std::fs::write(&file, text).unwrap();
        let spec = throng_spec::load(&file).unwrap();
        let cache = dir.path().to_str().unwrap().to_owned();
        let env: Environment = Arc::new(move |name: &str| match name {
            "KEY" => Some("k".to_owned()),
            "XDG_CACHE_HOME" => Some(cache.clone()),
            _ => None,
        });
        let checked = sources_for_check(&spec, &env).await.unwrap().unwrap();
        let warning = checked.warning.unwrap();
        assert!(warning.starts_with("cannot read the secret node.lake.s3.secret_key"), "{warning}");
        assert!(warning.contains("ABSENT") && warning.contains("`lake`"), "{warning}");
        assert!(checked.sources[0].path.join("s/_batches/columns.json").is_file());
    }
}
