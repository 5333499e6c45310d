//! Tries a store by a question.

use throng_model::{AudienceName, UserHash};
use throng_spec::ServingStore;

use crate::{Connector, StoreError};

/// The audience that is asked about. It need not exist.
const AUDIENCE: &str = "throng-check";
/// Any user.
const USER: UserHash = UserHash(0);

/// Connects to a store and reads whether a user is in an audience, with the rights that checks of the store need. Changes
/// nothing, so it does not find that a store refuses writes. Takes up to half a minute if the store does not respond.
///
/// # Errors
/// [`StoreError`]: the store cannot be reached or refuses the question, or there is no such table.
pub async fn try_store(connector: &dyn Connector, store: &ServingStore) -> Result<(), StoreError> {
    let audience = AudienceName::new(AUDIENCE);
    let audience = audience.map_err(|_| StoreError::Other("it cannot be asked".to_owned()))?;
    let mut connection = connector.connect(store).await?;
    connection.contains(&audience, &[USER]).await.map(drop)
}
