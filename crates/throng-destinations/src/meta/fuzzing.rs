//! Fuzz targets of Meta's responses: each passes arbitrary bytes to a decoder and asserts the invariants of
//! whatever it accepts. `fuzz/` runs them under libFuzzer, the tests below over mutants of the seeds.

use throng_activation::{BatchPart, Cell, PreparedRow, Schema, SendRequest};
use throng_model::{HashedIdentifier, SyncRunId};
use throng_store::Operation;

use super::response::{RawResponse, is_not_found, json_of, response_of, size_of, usage_of};

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

const STATUS: [u16; 4] = [200, 400, 429, 503];

/// A response: the first byte chooses the status, the others are the body. The counts of an accepted
/// response do not exceed the request's rows.
pub fn response(bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first() else { return };
    let status = STATUS[usize::from(*first) % STATUS.len()];
    let raw = RawResponse { status, body: body.to_vec(), usage: None };
    let _ = is_not_found(&raw);
    if let Ok(value) = json_of(&raw, "reading an audience") {
        let _ = size_of(&value);
    }
    if let Ok(text) = std::str::from_utf8(body) {
        let _ = usage_of(Some(text), Some(text), "12");
    }
    let row = |text: &str| -> PreparedRow {
        vec![Cell::Hashed(HashedIdentifier::of_normalised(text))].into()
    };
    let rows = [row("a"), row("b"), row("c")];
    let schema = Schema { keys: vec!["EMAIL".to_owned()], default_country: None };
    let request = SendRequest {
        platform_id: "1",
        part: BatchPart { run: SyncRunId(1), batch: 0, first: 0 },
        operation: Operation::Add,
        schema: &schema,
        rows: &rows,
        session: None,
    };
    if let Ok(response) = response_of(&raw, &request, "adding users") {
        assert!(response.received <= 3 && response.invalid <= 3);
        assert!(response.invalid_rows.iter().all(|(row, _)| *row < rows.len()));
    }
}

/// Responses to uploads, sizes, usage headers and errors.
pub fn response_seeds() -> Vec<Vec<u8>> {
    [
        r#"0{"audience_id":"1","session_id":"8","num_received":3,"num_invalid_entries":1,"invalid_entry_samples":{"[\"x\"]":"bad row of ann@example.com"}}"#,
        r#"0{"id":"1","approximate_count_lower_bound":-1,"approximate_count_upper_bound":"1000","operation_status":{"code":441,"description":"populating"}}"#,
        r#"0{"12":[{"type":"custom_audience","call_count":32,"total_cputime":3.5,"total_time":95,"estimated_time_to_regain_access":2}]}"#,
        r#"1{"error":{"message":"Permissions error","code":200,"error_subcode":1870047,"is_transient":false,"error_user_title":"t","error_user_msg":"m"}}"#,
        "3<html>Service Unavailable</html>",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

#[cfg(test)]
mod tests {
    #[test]
    fn mutants_of_responses() {
        super::mutate::run(&super::response_seeds(), 4_000, super::response);
    }
}
