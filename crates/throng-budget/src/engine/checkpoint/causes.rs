//! Causes of overdelivery in the checkpoint of another replica.

use super::{InvalidCheckpoint, decode_of};
use crate::engine::Engine;
use crate::engine::causes::Causes;

impl Engine {
    /// Takes over what the replica that wrote a checkpoint of this partition has attributed: it has published frames that
    /// this one knows nothing of. Call it when all is applied that is in that checkpoint.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`].
    pub fn merge_causes(&mut self, bytes: &[u8]) -> Result<(), InvalidCheckpoint> {
        for mut saved in decode_of(bytes, self.partition)?.ad_groups {
            let Some(key) = self.account_keys.get(saved.name.as_bytes()).copied() else { continue };
            let account = &mut self.accounts[key.account];
            // Days of another time zone are other days. Earlier versions stored none.
            let zones = ["", account.config.zone.as_str()];
            saved.over_days.retain(|_| zones.contains(&saved.zone.as_str()));
            let of_other = Causes::load(saved.over_days);
            let of_other = of_other.ok_or(InvalidCheckpoint::Damaged("an ad group is invalid"))?;
            account.causes.merge(&of_other);
        }
        Ok(())
    }
}
