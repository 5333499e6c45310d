//! Numbers of people as text.

/// A number of people between two bounds, as text, such as `940 to 1100 people`. `count` writes a number.
///
/// ```
/// # use throng_model::people_text;
/// let text = |lower, upper| people_text(lower, upper, |number| number.to_string());
/// assert_eq!(text(Some(5), Some(9)), "5 to 9 people");
/// assert_eq!(text(Some(5), Some(5)), "5 people");
/// assert_eq!(text(Some(5), None), "at least 5 people");
/// assert_eq!(text(None, Some(1_000)), "at most 1000 people");
/// assert_eq!(text(None, None), "no size");
/// ```
pub fn people_text(
    lower: Option<u64>,
    upper: Option<u64>,
    count: impl Fn(u64) -> String,
) -> String {
    match (lower, upper) {
        (Some(lower), Some(upper)) if lower == upper => format!("{} people", count(lower)),
        (Some(lower), Some(upper)) => format!("{} to {} people", count(lower), count(upper)),
        (Some(lower), None) => format!("at least {} people", count(lower)),
        (None, Some(upper)) => format!("at most {} people", count(upper)),
        (None, None) => "no size".to_owned(),
    }
}
