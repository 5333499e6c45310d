//! The accounts of the spec, opened by the registry of platforms.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_activation::{Destination, Destinations, Reasons, SendClass, SendError};
use throng_destinations::{
    Account, AccountCalls, FileAccount, MetaAccount, call_limits, preparation,
};
use throng_model::{Clock, DestinationName};
use throng_spec::{Environment, Platform, SecretRef};

use crate::hashing::reasons;

/// The tasks of an account that may run before the account was opened for the first time.
const DEFAULT_MAX_TASKS: u32 = 4;

/// The open accounts. An account is opened again when its settings or secrets change; otherwise its connections are
/// reused.
pub struct OpenDestinations {
    secrets: Environment,
    clock: Arc<dyn Clock>,
    open: Mutex<HashMap<DestinationName, OpenAccount>>,
    /// The calls of each account, which outlast its settings and secrets.
    calls: Mutex<HashMap<String, Arc<AccountCalls>>>,
}

type OpenAccount = (Account, Arc<dyn Destination>);

impl std::fmt::Debug for OpenDestinations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenDestinations").finish_non_exhaustive()
    }
}

impl OpenDestinations {
    /// No open account. `secrets` looks up secrets of the kind `env:NAME`; `clock` is that of the accounts' quotas.
    pub fn new(secrets: Environment, clock: Arc<dyn Clock>) -> Self {
        Self { secrets, clock, open: Mutex::default(), calls: Mutex::default() }
    }

    /// The calls of an account, which all its destinations share. `None` if the platform has no quota of calls.
    fn calls(&self, declared: &throng_spec::Destination) -> Option<Arc<AccountCalls>> {
        let limits = call_limits(declared.platform.name())?;
        let mut calls = self.calls.lock();
        let of_account = calls
            .entry(declared.account())
            .or_insert_with(|| AccountCalls::new(limits, Arc::clone(&self.clock)));
        Some(Arc::clone(of_account))
    }

    /// The settings of an account, with its secrets.
    fn account(&self, declared: &throng_spec::Destination) -> Result<Account, SendError> {
        let secret = |reference: &SecretRef| {
            reference.resolve(&*self.secrets).map_err(|error| refused(declared, &error.to_string()))
        };
        Ok(match &declared.platform {
            Platform::Meta(meta) => {
                // An older version stored specs without this check.
                let is_unencrypted =
                    meta.base_url.as_deref().is_some_and(throng_spec::is_plain_remote);
                if is_unencrypted && !meta.insecure {
                    let why = "its base_url is on another machine and not encrypted: write https://, or \
                               add insecure: true to the destination";
                    return Err(refused(declared, why));
                }
                Account::Meta(MetaAccount {
                    account: meta.account.clone(),
                    access_token: secret(&meta.access_token)?,
                    app_secret: meta.app_secret.as_ref().map(secret).transpose()?,
                    // The check of the spec allows secrets for this server only.
                    base_url: Some(meta.server_url().to_owned()),
                    api_version: meta.api_version.clone(),
                })
            }
            Platform::File(file) => Account::File(FileAccount {
                folder: file.folder.clone(),
                root: file.root.clone().unwrap_or_else(|| file.folder.clone()),
                format: file.format,
                gzip: file.gzip,
            }),
        })
    }
}

fn refused(declared: &throng_spec::Destination, why: &str) -> SendError {
    let message = format!("destination {}: {why}", declared.name);
    SendError::local(SendClass::StopAccount, message)
}

impl Destinations for OpenDestinations {
    fn open(&self, declared: &throng_spec::Destination) -> Result<Arc<dyn Destination>, SendError> {
        let account = self.account(declared)?;
        let mut open = self.open.lock();
        if let Some((_, destination)) = open.get(&declared.name).filter(|(a, _)| *a == account) {
            return Ok(Arc::clone(destination));
        }
        let destination = throng_destinations::open_paced(&account, self.calls(declared))
            .map_err(|error| refused(declared, &error.to_string()))?;
        open.insert(declared.name.clone(), (account, Arc::clone(&destination)));
        Ok(destination)
    }

    fn max_tasks(&self, name: &DestinationName) -> u32 {
        let open = self.open.lock();
        open.get(name).map_or(DEFAULT_MAX_TASKS, |(_, destination)| destination.limits().max_tasks)
    }

    fn reasons(&self, platform: &str) -> Option<Reasons> {
        reasons(platform)
    }

    fn strong_keys(&self, platform: &str) -> &'static [&'static str] {
        preparation(platform).map_or(&[][..], |preparation| preparation.strong_keys)
    }
}
