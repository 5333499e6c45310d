//! The keys that delivered states and plans are encrypted with.

use throng_access::write_private;
use throng_activation::{DeliveredError, IdentifierKeys};
use throng_model::new_secret;

use crate::NodeContext;

/// The keys of a node. One that works alone creates its own key at the first use. If delivered state exists and the
/// key is missing, no new key is created: with a new key the old state could never be read, and the loss would not
/// be noticed.
pub(super) async fn identifier_keys(ctx: &NodeContext) -> Result<IdentifierKeys, DeliveredError> {
    let spec = ctx.spec.load_full();
    if let Some(reference) = &spec.node.identifiers_key {
        let secret = reference.resolve(&*ctx.env).map_err(|error| {
            DeliveredError::Key(format!("node.identifiers_key cannot be read: {error}"))
        })?;
        return Ok(IdentifierKeys::parse(secret.expose())?);
    }
    let Some(path) = &ctx.identifiers_key_file else {
        let message = "node.identifiers_key is not set: delivered state is encrypted, and all nodes need the \
                       same key. Set it to env:NAME or file:PATH of 64 hexadecimal \
                       digits, such as `openssl rand -hex 32` prints";
        return Err(DeliveredError::Key(message.to_owned()));
    };
    match std::fs::read_to_string(path) {
        Ok(text) => return Ok(IdentifierKeys::parse(&text)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(DeliveredError::Key(format!("cannot read {}: {error}", path.display())));
        }
    }
    let records = ctx.ledger.delivered_records().await?;
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
