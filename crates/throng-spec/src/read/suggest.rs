//! "Did you mean …": the nearest known word by edit distance.

use throng_model::edit_distance;

/// The known word that is nearest to `word`, if it is near enough to be a misspelling. The first of
/// several. Costs one distance per known word.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(word);
    let limit = (folded.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (edit_distance(&folded, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?", or the whole list if it is short.
pub(super) fn help(word: &str, known: &[&str]) -> Option<String> {
    if let Some(near) = nearest(word, known.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    match known {
        [] => None,
        [only] => Some(format!("write `{only}`")),
        _ if known.len() <= 40 => Some(format!("write one of {}", known.join(", "))),
        _ => None,
    }
}

fn fold(word: &str) -> String {
    word.chars().take(128).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["sources", "syncs", "audiences", "daily_budget"];
        assert_eq!(nearest("source", known), Some("sources"));
        assert_eq!(nearest("audiecnes", known), Some("audiences"));
        assert_eq!(nearest("daily-budget", known), Some("daily_budget"));
        assert_eq!(nearest("query", known), None);
        assert_eq!(nearest("", known), None);
    }
}
