//! The parameters of a call, from query, form or JSON body.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::GraphError;

/// Parameters by name. Parameters of the body override those of the query.
#[derive(Debug, Default)]
pub(super) struct Params(BTreeMap<String, Value>);

impl Params {
    /// Reads query and body.
    ///
    /// # Errors
    /// 100 if the content type is JSON and the body is not a JSON object.
    pub(super) fn read(query: &str, content_type: &str, body: &[u8]) -> Result<Self, GraphError> {
        let mut params = Self(form(query.as_bytes()).collect());
        if content_type.starts_with("application/json") && !body.is_empty() {
            match serde_json::from_slice(body) {
                Ok(Value::Object(members)) => params.0.extend(members),
                _ => return Err(GraphError::parameter("body", "The body is not a JSON object")),
            }
        } else {
            params.0.extend(form(body));
        }
        Ok(params)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A string. Numbers and booleans are converted; JSON-encoded strings are decoded.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::String(text) if text.starts_with('"') => {
                Some(serde_json::from_str(text).unwrap_or_else(|_| text.clone()))
            }
            Value::String(text) => Some(text.clone()),
            value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
            _ => None,
        }
    }

    /// A boolean: `true`, `1` and their strings are true.
    pub(super) fn boolean(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| matches!(text.as_str(), "true" | "1"))
    }

    /// Removes and returns a JSON value, also if it is encoded as a string.
    pub(super) fn take_json(&mut self, name: &str) -> Option<Value> {
        match self.0.remove(name)? {
            Value::String(text) => Some(serde_json::from_str(&text).unwrap_or(Value::String(text))),
            value => Some(value),
        }
    }
}

/// The pairs of a query or a form. Invalid escapes are kept unchanged, as browsers do.
fn form(encoded: &[u8]) -> impl Iterator<Item = (String, Value)> {
    encoded.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let value = pair.get(at + 1..).unwrap_or_default();
        (decode(&pair[..at]), Value::String(decode(value)))
    })
}

fn decode(encoded: &[u8]) -> String {
    let digit = |at: usize| encoded.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut at = 0;
    while at < encoded.len() {
        match (encoded[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => decoded.push(b' '),
            (byte, ..) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn forms_are_decoded() {
        let query = "name=(test)+Group%201&payload=%7B%22a%22%3A1%7D&flag=1&odd=100%&q=%22x%22";
        let mut params = Params::read(query, "", b"").unwrap();
        assert_eq!(params.text("name").as_deref(), Some("(test) Group 1"));
        assert_eq!(params.text("odd").as_deref(), Some("100%"));
        assert_eq!(params.text("q").as_deref(), Some("x"));
        assert!(params.boolean("flag"));
        assert_eq!(params.take_json("payload"), Some(json!({"a": 1})));
    }

    #[test]
    fn the_body_overrides_the_query() {
        let params = Params::read("a=1&b=2", "application/json", br#"{"a": 3}"#).unwrap();
        assert_eq!((params.text("a"), params.text("b")), (Some("3".into()), Some("2".into())));
        assert!(Params::read("", "application/json", b"[]").is_err());
    }
}
