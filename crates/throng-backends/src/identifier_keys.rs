//! The keys that delivered states and plans are encrypted with.

use std::path::PathBuf;
use std::sync::Arc;

use throng_access::write_private;
use throng_activation::{DeliveredError, IdentifierKeys};
use throng_model::new_secret;
use throng_spec::{Environment, NodeSettings};
use throng_store::Ledger;

/// Where a node has its keys.
pub struct IdentifierKeySource {
    /// The file of the key, which is created at the first use if the spec names no key. `None` if other
    /// processes need the same key.
    pub key_file: Option<PathBuf>,
    /// Where secrets of the kind `env:NAME` come from.
    pub env: Environment,
    /// Says whether delivered state exists.
    pub ledger: Arc<dyn Ledger>,
}

impl IdentifierKeySource {
    /// The keys of a node. One that works alone creates its own key at the first use. If delivered state exists
    /// and the key is missing, no new key is created: with a new key the old state could never be read, and the
    /// loss would not be noticed.
    ///
    /// # Errors
    /// [`DeliveredError`] if the key is missing, cannot be read or created, or is none, or if the ledger does not respond.
    pub async fn keys(&self, settings: &NodeSettings) -> Result<IdentifierKeys, DeliveredError> {
        if let Some(reference) = &settings.identifiers_key {
            let secret = reference.resolve(&*self.env).map_err(|error| {
                DeliveredError::Key(format!("node.identifiers_key cannot be read: {error}"))
            })?;
            return Ok(IdentifierKeys::parse(secret.expose())?);
        }
        let Some(path) = &self.key_file else {
            let message = "node.identifiers_key is not set: delivered state is encrypted, and all nodes need the \
                           same key. Set it to env:NAME or file:PATH of 64 hexadecimal \
                           digits, such as `openssl rand -hex 32` prints";
            return Err(DeliveredError::Key(message.to_owned()));
        };
        match throng_fs::read_to_string(path) {
            Ok(text) => return Ok(IdentifierKeys::parse(&text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(DeliveredError::Key(format!(
                    "cannot read {}: {error}",
                    path.display()
                )));
            }
        }
        let records = self.ledger.delivered_records().await?;
        if records.iter().any(|record| record.state.is_some()) {
            let message = format!(
                "{} is missing: delivered state cannot be read without it. Restore it, or run `throng sync \
                 run NAME --forget-delivered` for each sync, which replaces the platform's list",
                path.display()
            );
            return Err(DeliveredError::Key(message));
        }
        let key = new_secret("")
            .map_err(|_| DeliveredError::Key("cannot generate random bytes".to_owned()))?;
        write_private(path, key.expose())
            .map_err(|error| DeliveredError::Key(throng_model::with_causes(&error)))?;
        Ok(IdentifierKeys::parse(key.expose())?)
    }
}
