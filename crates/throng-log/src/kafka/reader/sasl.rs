//! SASL authentication: PLAIN (RFC 4616) and SCRAM (RFC 5802, RFC 7677).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hmac::{KeyInit, Mac};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use sha2::digest::common::BlockSizeUser;
use sha2::{Digest, Sha256, Sha512};
use throng_model::{Entropy, SystemEntropy};

use super::super::client::Sasl;
use super::connection::Connection;
use super::error::ReadError;

/// Since version 1 the mechanism's messages are in SaslAuthenticate requests, whose responses have an error
/// text (KIP-152). With version 0 a wrong password would only close the connection.
const HANDSHAKE_VERSION: i16 = 1;
/// Version 1 reports the lifetime of the session (KIP-368), after which the broker closes the connection.
/// It is not renewed: the next fetch opens a new connection.
const AUTHENTICATE_VERSION: i16 = 1;
/// Fewer iterations do not protect the password (RFC 7677). More would only load the client: a server
/// could make it compute for minutes.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=1_000_000;

/// Authenticates a new connection: SaslHandshake, then the messages of the mechanism.
pub(super) async fn authenticate(
    connection: &mut Connection,
    sasl: &Sasl,
) -> Result<(), ReadError> {
    let mechanism = StrBytes::from_string(sasl.mechanism.clone());
    let request = SaslHandshakeRequest::default().with_mechanism(mechanism);
    let response = connection.send(HANDSHAKE_VERSION, &request).await?;
    if let Some(error) = ResponseError::try_from_code(response.error_code) {
        let supported: Vec<&str> = response.mechanisms.iter().map(|m| m.as_str()).collect();
        let why = format!("{error} It supports {}", supported.join(", "));
        return Err(ReadError::Authentication(why));
    }
    match sasl.mechanism.as_str() {
        "SCRAM-SHA-256" => scram::<Sha256>(connection, sasl).await,
        "SCRAM-SHA-512" => scram::<Sha512>(connection, sasl).await,
        // RFC 4616: authorization identity (empty: that of the user), NUL, user, NUL, password. Unencrypted:
        // the spec requires TLS for it, unless `insecure` is set.
        "PLAIN" => {
            let token = format!("\0{}\0{}", sasl.username, sasl.password.expose());
            send_token(connection, token).await.map(|_| ())
        }
        other => Err(ReadError::Authentication(format!("Throng does not support {other}"))),
    }
}

/// Sends one message of a mechanism and returns the answer of the broker.
async fn send_token(connection: &mut Connection, token: String) -> Result<String, ReadError> {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(token));
    let response = connection.send(AUTHENTICATE_VERSION, &request).await?;
    if let Some(error) = ResponseError::try_from_code(response.error_code) {
        let why = response.error_message.map(|why| why.to_string());
        return Err(ReadError::Authentication(why.unwrap_or_else(|| error.to_string())));
    }
    String::from_utf8(response.auth_bytes.into())
        .map_err(|_| ReadError::Authentication("its answer is not UTF-8".to_owned()))
}

async fn scram<H: Hash>(connection: &mut Connection, sasl: &Sasl) -> Result<(), ReadError> {
    // A new nonce for each exchange: with a repeated one, a recorded exchange could be replayed.
    let mut random = SystemEntropy;
    let nonce = format!("{:016x}{:016x}", random.next_u64(), random.next_u64());
    let first = ClientFirst::new(&sasl.username, &nonce);
    let server_first = send_token(connection, first.message()).await?;
    let (client_final, expected) =
        first.client_final::<H>(&server_first, sasl.password.expose())?;
    let server_final = send_token(connection, client_final).await?;
    // The client must verify it (RFC 5802, section 3): it proves that the server has the credentials of the
    // user. Without it a server that accepts everything could send invented records.
    if server_final.strip_prefix("v=") == Some(expected.as_str()) {
        return Ok(());
    }
    let why = "its server signature is wrong: it does not have the password of this user";
    Err(ReadError::Authentication(why.to_owned()))
}

/// A hash function for HMAC.
pub(super) trait Hash: Digest + BlockSizeUser + Clone {}
impl<H: Digest + BlockSizeUser + Clone> Hash for H {}

/// `client-first-message-bare` of RFC 5802: the first message without the header for channel binding,
/// which Kafka does not support.
struct ClientFirst {
    bare: String,
    nonce: String,
}

impl ClientFirst {
    fn new(username: &str, nonce: &str) -> Self {
        // `,` separates attributes and `=` introduces an escape (RFC 5802, section 5.1, `saslname`). In this
        // order: the other one would escape the escapes of the comma.
        let username = username.replace('=', "=3D").replace(',', "=2C");
        Self { bare: format!("n={username},r={nonce}"), nonce: nonce.to_owned() }
    }

    fn message(&self) -> String {
        // `n`: no channel binding; the authorization identity between the commas is empty.
        format!("n,,{}", self.bare)
    }

    /// `client-final-message`, and the server signature that the broker must answer with.
    fn client_final<H: Hash>(
        &self,
        server_first: &str,
        password: &str,
    ) -> Result<(String, String), ReadError> {
        let field = |name: &str| server_first.split(',').find_map(|part| part.strip_prefix(name));
        // Must begin with the client's nonce (RFC 5802, section 5.1): otherwise it may be the answer to
        // another client's exchange.
        let nonce = field("r=").filter(|nonce| nonce.starts_with(&self.nonce));
        let salt = field("s=").and_then(|salt| BASE64.decode(salt).ok());
        let iterations = field("i=").and_then(|iterations| iterations.parse().ok());
        let iterations = iterations.filter(|iterations| ITERATIONS.contains(iterations));
        let (Some(nonce), Some(salt), Some(iterations)) = (nonce, salt, iterations) else {
            return Err(ReadError::Authentication("its challenge is invalid".to_owned()));
        };
        let salted = salted_password::<H>(password.as_bytes(), &salt, iterations)?;
        let client_key = hmac_of::<H>(&salted, &[b"Client Key"])?;
        // `biws` is the header `n,,` in Base64: the server compares it with the first message, so that nobody
        // on the way can remove a channel binding.
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("{},{server_first},{without_proof}", self.bare);
        let signature = hmac_of::<H>(&H::digest(&client_key), &[auth_message.as_bytes()])?;
        // XOR, so that the server gets the client key from the proof and compares its hash with the stored
        // one: neither the password nor the key is on the wire or on the server.
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let server_key = hmac_of::<H>(&salted, &[b"Server Key"])?;
        let server_signature = hmac_of::<H>(&server_key, &[auth_message.as_bytes()])?;
        let client_final = format!("{without_proof},p={}", BASE64.encode(proof));
        Ok((client_final, BASE64.encode(server_signature)))
    }
}

fn hmac_of<H: Hash>(key: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, ReadError> {
    let mac = hmac::SimpleHmac::<H>::new_from_slice(key);
    let mut mac = mac.map_err(|error| ReadError::Authentication(error.to_string()))?;
    parts.iter().for_each(|part| mac.update(part));
    Ok(mac.finalize().into_bytes().to_vec())
}

/// `SaltedPassword` of RFC 5802, by its function `Hi`.
fn salted_password<H: Hash>(
    password: &[u8],
    salt: &[u8],
    iterations: u32,
) -> Result<Vec<u8>, ReadError> {
    let mut last = hmac_of::<H>(password, &[salt, &1u32.to_be_bytes()])?;
    let mut all = last.clone();
    for _ in 1..iterations {
        last = hmac_of::<H>(password, &[&last])?;
        all.iter_mut().zip(&last).for_each(|(all, last)| *all ^= last);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_rfc() {
        let first = ClientFirst::new("user", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(first.message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server_first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (client_final, server) = first.client_final::<Sha256>(server_first, "pencil").unwrap();
        assert_eq!(
            client_final,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(server, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_challenge_that_weakens_the_password_is_refused() {
        let first = ClientFirst::new("a,b=c", "mine");
        assert_eq!(first.message(), "n,,n=a=2Cb=3Dc,r=mine");
        for challenge in ["", "r=other,s=AAAA,i=4096", "r=mine1,s=AAAA,i=1", "r=mine1,s=!,i=4096"] {
            assert!(first.client_final::<Sha512>(challenge, "p").is_err(), "{challenge}");
        }
    }
}
