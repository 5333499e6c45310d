//! Encoding of requests. Pure.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use throng_activation::{Cell, PreparedRow, Schema, SendRequest, SessionStep};
use throng_model::{Secret, to_hex};

/// The proof that the caller knows the app's secret: HMAC-SHA256 of the token, in hexadecimal.
pub(super) fn app_secret_proof(app_secret: &Secret, token: &Secret) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(app_secret.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(token.expose().as_bytes());
    to_hex(&mac.finalize().into_bytes())
}

/// Marks the owner of an audience in its description.
fn owner_mark(owner: &str) -> String {
    format!("[throng {owner}]")
}

/// Whether this owner created the audience with this description.
pub(super) fn is_owned_by(description: &str, owner: &str) -> bool {
    description.contains(&owner_mark(owner))
}

pub(super) fn create_audience(name: &str, owner: &str) -> Value {
    json!({
        "name": name,
        "subtype": "CUSTOM",
        "description": format!("Kept by Throng. Changes made by hand are undone. {}", owner_mark(owner)),
        "customer_file_source": "USER_PROVIDED_ONLY",
    })
}

/// A row as it is sent. Its compact JSON is also the key by which the platform names the row in its samples of
/// invalid entries.
pub(super) fn wire_row(row: &PreparedRow) -> Vec<String> {
    row.iter()
        .map(|cell| match cell {
            Cell::Hashed(hash) => hash.to_hex(),
            Cell::Plain(text) => text.to_string(),
            Cell::Empty => String::new(),
        })
        .collect()
}

fn payload(schema: &Schema, rows: &[PreparedRow]) -> Value {
    // Always a list of keys, also for a single key: the first upload determines the audience's data source,
    // and a list and a single key are different sources.
    json!({ "schema": schema.keys, "data": rows.iter().map(wire_row).collect::<Vec<_>>() })
}

fn session(step: SessionStep) -> Value {
    json!({
        "session_id": step.id,
        "batch_seq": step.seq,
        "last_batch_flag": step.last,
        "estimated_num_total": step.estimated_total,
    })
}

pub(super) fn users(request: &SendRequest<'_>) -> Value {
    let payload = payload(request.schema, request.rows);
    match request.session {
        Some(step) => json!({ "session": session(step), "payload": payload }),
        None => json!({ "payload": payload }),
    }
}

#[cfg(test)]
mod tests {
    use throng_activation::BatchPart;
    use throng_model::{HashedIdentifier, SyncRunId};
    use throng_store::Operation;

    use super::*;

    #[test]
    fn a_replace_request_has_a_session_and_empty_cells() {
        let rows: Vec<PreparedRow> = vec![
            vec![Cell::Hashed(HashedIdentifier::of_normalised("test")), Cell::Empty].into(),
            vec![Cell::Empty, Cell::Plain("x-1".into())].into(),
        ];
        let schema = Schema { keys: vec!["EMAIL".into(), "MADID".into()], default_country: None };
        let step = SessionStep {
            id: 7,
            seq: 1,
            last: true,
            repeated: false,
            sent_before: 0,
            estimated_total: 2,
        };
        let body = users(&SendRequest {
            platform_id: "1",
            part: BatchPart { run: SyncRunId(1), batch: 0, first: 0 },
            operation: Operation::Replace,
            schema: &schema,
            rows: &rows,
            session: Some(step),
        });
        assert_eq!(
            body.to_string(),
            r#"{"session":{"session_id":7,"batch_seq":1,"last_batch_flag":true,"estimated_num_total":2},"payload":{"schema":["EMAIL","MADID"],"data":[["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",""],["","x-1"]]}}"#
        );
    }

    #[test]
    fn the_owner_of_an_audience_is_read_from_its_description() {
        let body = create_audience("a", "0123456789abcdef");
        let description = body["description"].as_str().unwrap();
        assert!(is_owned_by(description, "0123456789abcdef"), "{description}");
        assert!(
            !is_owned_by(description, "0123456789abcdee") && !is_owned_by("", "0123456789abcdef")
        );
    }

    #[test]
    fn the_proof_is_the_hmac_of_the_token() {
        // RFC 4231, test case 2.
        let proof =
            app_secret_proof(&Secret::new("Jefe"), &Secret::new("what do ya want for nothing?"));
        assert_eq!(proof, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
