//! What a client wants to get, by its header `Accept`.

use axum::http::{HeaderMap, header};

/// Ranges of media types that include HTML, the most specific one first.
const HTML: [&str; 3] = ["text/html", "text/*", "*/*"];
const JSON: [&str; 3] = ["application/json", "application/*", "*/*"];

/// Whether a client prefers HTML to JSON, as a browser does that opens a page. One that takes both alike, as with `*/*`,
/// does not.
pub fn prefers_html(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<(String, f32)> =
        values.flat_map(|text| text.split(',')).filter_map(range).collect();
    // The most specific range decides.
    let quality = |names: [&str; 3]| {
        let of = |name: &str| ranges.iter().find(|(range, _)| range == name);
        names.into_iter().find_map(of).map_or(0.0, |(_, quality)| *quality)
    };
    quality(HTML) > quality(JSON)
}

/// A range of media types in lower case, with its quality from 0 to 1. `None` if the quality is not such a number.
fn range(text: &str) -> Option<(String, f32)> {
    let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
    let range = parts.next()?;
    let quality = parts.find_map(|part| part.strip_prefix("q=").map(str::to_owned));
    let quality = quality.map_or(Ok(1.0), |quality| quality.parse());
    quality.ok().filter(|quality| (0.0..=1.0).contains(quality)).map(|quality| (range, quality))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_browser_prefers_html_and_a_program_does_not() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, expected) in [
            (firefox, true),
            ("text/html", true),
            ("TEXT/HTML ; Q=0.4, application/json;q=0.3", true),
            ("*/*", false),
            ("", false),
            ("application/json", false),
            ("text/html, application/json", false),
            ("application/json, text/html;q=0.9", false),
            ("text/html;q=0, */*;q=0.1", false),
            ("text/html;q=much", false),
            ("text/html;q=NaN", false),
            ("text/html;q=inf", false),
            ("text/html;q=1.5, application/json;q=0.1", false),
            ("application/json;q=-1, text/html;q=0.1", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(prefers_html(&headers), expected, "{accept}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }
}
