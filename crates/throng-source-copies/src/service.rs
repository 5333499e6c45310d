//! From the settings of a bucket to the options of its client.

use throng_model::Secret;
use throng_objects::Service;
use throng_spec::{SecretRef, ServiceSettings};

/// The service of a bucket: its settings, with the secrets that `resolve` returns for the field of each.
///
/// # Errors
/// Those of `resolve`.
pub fn service_of<E>(
    settings: &ServiceSettings,
    resolve: impl Fn(&'static str, &SecretRef) -> Result<Secret, E>,
) -> Result<Service, E> {
    Ok(match settings {
        ServiceSettings::S3 { endpoint, region, keys, ca_file, .. } => Service::S3 {
            endpoint: endpoint.clone(),
            ca_file: ca_file.clone(),
            region: region.clone(),
            keys: match keys {
                Some((access, secret_key)) => Some((
                    resolve("bucket.access_key", access)?,
                    resolve("bucket.secret_key", secret_key)?,
                )),
                None => None,
            },
        },
        ServiceSettings::Gcs { service_account } => Service::Gcs {
            service_account: match service_account {
                Some(key) => Some(resolve("bucket.service_account", key)?),
                None => None,
            },
        },
    })
}
