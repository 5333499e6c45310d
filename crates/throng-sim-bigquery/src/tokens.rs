//! Access tokens: issued for the signed request of a service account, or by the metadata server.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::Value;
use throng_model::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::ApiError;

/// The longest time between issue and expiry of a signed request.
const MAX_VALID_SECS: i64 = 3_600;
/// How far the clocks may differ.
const MAX_SKEW_SECS: u64 = 600;

/// The service account that gets access tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedAccount {
    email: String,
    /// The public key.
    public_key: Vec<u8>,
}

impl AcceptedAccount {
    /// The account of a key file, as `credentials` of a source names it. `None` if it is not one.
    pub fn of_key_file(text: &str) -> Option<Self> {
        let file: Value = serde_json::from_str(text).ok()?;
        let pem = file["private_key"].as_str()?;
        let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
        let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
        let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
        let key = RsaKeyPair::from_pkcs8(&STANDARD.decode(body).ok()?).ok()?;
        let public_key = key.public().as_ref().to_vec();
        Some(Self { email: file["client_email"].as_str()?.to_owned(), public_key })
    }

    /// Checks a signed request for an access token.
    pub(crate) fn verify(&self, assertion: &str, now: Timestamp) -> Result<(), ApiError> {
        let refused = |why: &str| Err(ApiError::new(400, "invalid_grant", why));
        let Some((signed, signature)) = assertion.rsplit_once('.') else {
            return refused("not a JWT");
        };
        let Some((header, claims)) = signed.split_once('.') else { return refused("not a JWT") };
        let json = |part: &str| -> Option<Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        let (Some(header), Some(claims)) = (json(header), json(claims)) else {
            return refused("not a JWT");
        };
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key);
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        if header["alg"] != "RS256" || key.verify(signed.as_bytes(), &signature).is_err() {
            return refused("Invalid JWT Signature.");
        }
        let now = now.0.div_euclid(1_000_000);
        let (issued, expires) = (claims["iat"].as_i64(), claims["exp"].as_i64());
        let (Some(issued), Some(expires)) = (issued, expires) else { return refused("no times") };
        let valid = issued.abs_diff(now) <= MAX_SKEW_SECS
            && expires > now
            && expires.saturating_sub(issued) <= MAX_VALID_SECS;
        let ends_with =
            |name: &str, end: &str| claims[name].as_str().is_some_and(|s| s.ends_with(end));
        if claims["iss"] != self.email.as_str() || !ends_with("aud", "/token") {
            return refused("Invalid issuer or audience");
        }
        if !valid || !ends_with("scope", "/auth/bigquery") {
            return refused("Invalid JWT: check iat, exp and scope");
        }
        Ok(())
    }
}

/// The access tokens that are valid.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    issued: u64,
    valid: BTreeMap<String, Timestamp>,
}

impl Tokens {
    /// A new access token.
    pub(crate) fn issue(&mut self, now: Timestamp, valid: Duration) -> String {
        self.issued += 1;
        let seed = format!("{}-{}", self.issued, now.0);
        let token = format!("ya29.{:016x}", xxh3_64(seed.as_bytes()));
        self.valid.insert(token.clone(), now.plus(valid));
        token
    }

    /// Checks the value of an `Authorization` header.
    pub(crate) fn check(&self, header: Option<&str>, now: Timestamp) -> Result<(), ApiError> {
        let token = header.and_then(|header| header.strip_prefix("Bearer "));
        let until = token.and_then(|token| self.valid.get(token));
        match until {
            Some(until) if now < *until => Ok(()),
            _ => Err(ApiError::new(401, "authError", "Invalid Credentials")),
        }
    }

    /// Makes every token invalid.
    pub(crate) fn expire(&mut self) {
        self.valid.clear();
    }
}
