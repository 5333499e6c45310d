//! A service account, which signs requests for access tokens (RFC 7523). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;
use throng_model::{Secret, Timestamp};

/// How long a signed request is valid; the longest time that is accepted.
const VALID_SECS: i64 = 3_600;

/// A service account with its key.
pub(crate) struct ServiceAccount {
    email: String,
    key_id: Option<String>,
    key: RsaKeyPair,
}

/// The key file of a service account. Its `token_uri` is not used: a token request goes to the server
/// that the spec allows.
#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
}

impl ServiceAccount {
    /// Reads a key file.
    ///
    /// # Errors
    /// What the file is not. Never contains a part of it.
    pub(crate) fn read(file: &Secret) -> Result<Self, &'static str> {
        // The parser's message may contain a part of the file.
        let file: KeyFile = serde_json::from_str(file.expose())
            .map_err(|_| "this is not the JSON key of a service account")?;
        let der = pem(&file.private_key).ok_or("the private key is not PEM")?;
        let key = RsaKeyPair::from_pkcs8(&der).map_err(|_| "this is not an RSA key")?;
        Ok(Self { email: file.client_email, key_id: file.private_key_id, key })
    }

    /// A signed request for an access token. `None` if it cannot be signed.
    pub(crate) fn assertion(&self, scope: &str, audience: &str, now: Timestamp) -> Option<String> {
        let issued = now.0.div_euclid(1_000_000);
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.key_id {
            header["kid"] = id.as_str().into();
        }
        let claims = json!({
            "iss": self.email,
            "scope": scope,
            "aud": audience,
            "iat": issued,
            "exp": issued + VALID_SECS,
        });
        let [header, claims] =
            [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let mut signature = vec![0; self.key.public().modulus_len()];
        let random = SystemRandom::new();
        self.key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The bytes of the first private key in a PEM text.
fn pem(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusable_key_file_is_refused_without_its_content() {
        let pem = "-----BEGIN PRIVATE KEY-----\\nczNjcmV0\\n-----END PRIVATE KEY-----";
        for file in [
            "s3cret".to_owned(),
            r#"{"client_email":"s3cret"}"#.to_owned(),
            r#"{"client_email":"s3cret","private_key":"s3cret"}"#.to_owned(),
            format!(r#"{{"client_email":"s3cret","private_key":"{pem}"}}"#),
        ] {
            let Err(error) = ServiceAccount::read(&Secret::new(file)) else { panic!() };
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
