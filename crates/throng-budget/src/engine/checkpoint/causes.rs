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
            // Days of another time zone are other days; earlier versions stored none. Of another currency are what was set
            // aside, and an ad group that was added again since; one whose currency was changed continues.
            let zones = ["", account.config.zone.as_str()];
            let is_former =
                account.currencies.all().iter().any(|it| it.1.as_str() == saved.currency);
            let is_aside = !saved.is_continued_in(account.config.currency)
                && (saved.removed_since.is_some() || !is_former);
            saved.over_days.retain(|_| !is_aside && zones.contains(&saved.zone.as_str()));
            let damaged = InvalidCheckpoint::Damaged("an ad group is invalid");
            account.causes.merge(&Causes::load(saved.over_days).ok_or(damaged)?);
        }
        Ok(())
    }
}
