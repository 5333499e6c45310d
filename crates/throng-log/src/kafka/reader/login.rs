//! SASL: who this client is. PLAIN (RFC 4616) and SCRAM (RFC 5802, RFC 7677).

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
use super::trouble::Trouble;

const HANDSHAKE_VERSION: i16 = 1;
const AUTHENTICATE_VERSION: i16 = 1;
/// Fewer rounds protect no password (RFC 7677); more than this only cost the client.
const ROUNDS: std::ops::RangeInclusive<u32> = 4_096..=1_000_000;

/// Logs in.
pub(super) async fn log_in(connection: &mut Connection, sasl: &Sasl) -> Result<(), Trouble> {
    let mechanism = StrBytes::from_string(sasl.mechanism.clone());
    let hello = SaslHandshakeRequest::default().with_mechanism(mechanism);
    let answer = connection.send(HANDSHAKE_VERSION, &hello).await?;
    if let Some(error) = ResponseError::try_from_code(answer.error_code) {
        let known: Vec<&str> = answer.mechanisms.iter().map(|m| m.as_str()).collect();
        return Err(Trouble::Login(format!("{error} It knows {}", known.join(", "))));
    }
    match sasl.mechanism.as_str() {
        "SCRAM-SHA-256" => scram::<Sha256>(connection, sasl).await,
        "SCRAM-SHA-512" => scram::<Sha512>(connection, sasl).await,
        "PLAIN" => {
            let said = format!("\0{}\0{}", sasl.username, sasl.password.expose());
            say(connection, said).await.map(|_| ())
        }
        other => Err(Trouble::Login(format!("Throng does not know {other}"))),
    }
}

async fn say(connection: &mut Connection, said: String) -> Result<String, Trouble> {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(said));
    let answer = connection.send(AUTHENTICATE_VERSION, &request).await?;
    if let Some(error) = ResponseError::try_from_code(answer.error_code) {
        let why = answer.error_message.map(|why| why.to_string());
        return Err(Trouble::Login(why.unwrap_or_else(|| error.to_string())));
    }
    String::from_utf8(answer.auth_bytes.into())
        .map_err(|_| Trouble::Login("its answer is no text".to_owned()))
}

async fn scram<H: Hash>(connection: &mut Connection, sasl: &Sasl) -> Result<(), Trouble> {
    let mut random = SystemEntropy;
    let nonce = format!("{:016x}{:016x}", random.next_u64(), random.next_u64());
    let first = First::new(&sasl.username, &nonce);
    let challenge = say(connection, first.message()).await?;
    let (proof, expected) = first.answer::<H>(&challenge, sasl.password.expose())?;
    let last = say(connection, proof).await?;
    if last.strip_prefix("v=") == Some(expected.as_str()) {
        return Ok(());
    }
    Err(Trouble::Login("it does not know the password itself: it is somebody else".to_owned()))
}

/// A hash function that can be keyed.
pub(super) trait Hash: Digest + BlockSizeUser + Clone {}
impl<H: Digest + BlockSizeUser + Clone> Hash for H {}

/// The client's first message, without the part about channels, which Kafka has none of.
struct First {
    bare: String,
    nonce: String,
}

impl First {
    fn new(username: &str, nonce: &str) -> Self {
        let username = username.replace('=', "=3D").replace(',', "=2C");
        Self { bare: format!("n={username},r={nonce}"), nonce: nonce.to_owned() }
    }

    fn message(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The client's last message, and what the server proves itself by.
    fn answer<H: Hash>(
        &self,
        challenge: &str,
        password: &str,
    ) -> Result<(String, String), Trouble> {
        let field = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name));
        let nonsense = || Trouble::Login("its challenge makes no sense".to_owned());
        let nonce = field("r=").filter(|nonce| nonce.starts_with(&self.nonce));
        let salt = field("s=").and_then(|salt| BASE64.decode(salt).ok());
        let rounds = field("i=").and_then(|rounds| rounds.parse().ok());
        let rounds = rounds.filter(|rounds| ROUNDS.contains(rounds));
        let (Some(nonce), Some(salt), Some(rounds)) = (nonce, salt, rounds) else {
            return Err(nonsense());
        };
        let salted = salted::<H>(password.as_bytes(), &salt, rounds)?;
        let client = keyed::<H>(&salted, &[b"Client Key"])?;
        let last = format!("c=biws,r={nonce}");
        let all = format!("{},{challenge},{last}", self.bare);
        let signature = keyed::<H>(&H::digest(&client), &[all.as_bytes()])?;
        let proof: Vec<u8> = client.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let server = keyed::<H>(&keyed::<H>(&salted, &[b"Server Key"])?, &[all.as_bytes()])?;
        Ok((format!("{last},p={}", BASE64.encode(proof)), BASE64.encode(server)))
    }
}

fn keyed<H: Hash>(key: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, Trouble> {
    let mac = hmac::SimpleHmac::<H>::new_from_slice(key);
    let mut mac = mac.map_err(|error| Trouble::Login(error.to_string()))?;
    parts.iter().for_each(|part| mac.update(part));
    Ok(mac.finalize().into_bytes().to_vec())
}

/// `Hi` of RFC 5802.
fn salted<H: Hash>(password: &[u8], salt: &[u8], rounds: u32) -> Result<Vec<u8>, Trouble> {
    let mut last = keyed::<H>(password, &[salt, &1u32.to_be_bytes()])?;
    let mut all = last.clone();
    for _ in 1..rounds {
        last = keyed::<H>(password, &[&last])?;
        all.iter_mut().zip(&last).for_each(|(all, last)| *all ^= last);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The conversation of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_standard() {
        let first = First::new("user", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(first.message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (last, server) = first.answer::<Sha256>(challenge, "pencil").unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(server, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_challenge_that_weakens_the_password_is_refused() {
        let first = First::new("a,b=c", "mine");
        assert_eq!(first.message(), "n,,n=a=2Cb=3Dc,r=mine");
        for challenge in ["", "r=other,s=AAAA,i=4096", "r=mine1,s=AAAA,i=1", "r=mine1,s=!,i=4096"] {
            assert!(first.answer::<Sha512>(challenge, "p").is_err(), "{challenge}");
        }
    }
}
