//! Numbers of people as text.

/// A number of people between two bounds, as text, such as `940 to 1100 people`.
///
/// ```
/// # use throng_model::people_text;
/// assert_eq!(people_text(Some(5), Some(9)), "5 to 9 people");
/// assert_eq!(people_text(None, Some(1_000)), "at most 1000 people");
/// assert_eq!(people_text(None, None), "no size");
/// ```
pub fn people_text(lower: Option<u64>, upper: Option<u64>) -> String {
    match (lower, upper) {
        (Some(lower), Some(upper)) if lower == upper => format!("{lower} people"),
        (Some(lower), Some(upper)) => format!("{lower} to {upper} people"),
        (Some(lower), None) => format!("at least {lower} people"),
        (None, Some(upper)) => format!("at most {upper} people"),
        (None, None) => "no size".to_owned(),
    }
}
