//! Errors of the engine that say neither what is meant nor how to write it, in the words of who writes the SQL. Pure.

/// What is wrong, and how to write it, if the text of the engine is one of these errors.
pub(crate) fn engine_help(text: &str) -> Option<(&'static str, &'static str)> {
    let has = |part: &str| text.contains(part);
    let is_of_types =
        has("Cannot infer common argument type") || has("compatible types to compare");
    if is_of_types && has("FixedSizeBinary(16)") {
        return Some((
            "a UUID is compared with a value of another type",
            "compare the digits: encode(uuid, 'hex') = replace(lower(text), '-', '')",
        ));
    }
    let is_of_boolean = (is_of_types && has("Boolean"))
        || has("requires a boolean expression")
        || has("non-boolean predicate");
    if is_of_boolean {
        return Some((
            "a value that is not a boolean is used as one",
            "only `true` and `false` in lower case are booleans in files: compare others as they are written, as in \
             opted = 'False', opted = 'no' or opted = 0, or declare `columns: { opted: boolean }` in the source, which \
             takes true and false in any case",
        ));
    }
    if has("null_aware anti join") {
        return Some((
            "NOT IN has a subquery that depends on the row around it, which the engine cannot run",
            "write NOT EXISTS (SELECT 1 FROM … WHERE … = …)",
        ));
    }
    if has("escape_char other than the backslash") || has("Invalid escape character in LIKE") {
        return Some((
            "LIKE has another ESCAPE than the backslash",
            "write the pattern without ESCAPE, with a backslash before a % or _ that stands for itself: LIKE 'a\\_%'",
        ));
    }
    if has("subquery should only return one column") {
        return Some((
            "IN has a subquery with several columns",
            "write EXISTS (SELECT 1 FROM … WHERE … = … AND … = …)",
        ));
    }
    if text.ends_with("not implemented: TOP") || has("FETCH clause is not supported") {
        return Some((
            "the engine does not know TOP and FETCH FIRST",
            "write LIMIT at the end, as in ORDER BY total DESC NULLS LAST LIMIT 100",
        ));
    }
    let subqueries = ["InSubquery", "ScalarSubquery", "Exists"];
    if has("Physical plan does not support logical expression") && subqueries.into_iter().any(has) {
        return Some((
            "a subquery depends on the row around it in a way that the engine cannot run, such as with LIMIT",
            "write it as a join with a query that has one row for each user: \
             row_number() OVER (PARTITION BY … ORDER BY …) = 1 instead of LIMIT 1",
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_engine_have_a_hint() {
        for (text, hint) in [
            (
                "Cannot infer common argument type for comparison operation Utf8View = Boolean",
                "'no'",
            ),
            (
                "Cannot infer common argument type for logical boolean operation Boolean AND Int64",
                "= 0",
            ),
            ("Unary operator 'NOT' requires a boolean expression, got Utf8View", "columns:"),
            (
                "Cannot create filter with non-boolean predicate 's.d.opted' returning Utf8View",
                "'no'",
            ),
            ("Can not find compatible types to compare Utf8View with [Boolean]", "columns:"),
            (
                "Cannot infer common argument type for comparison operation FixedSizeBinary(16) = Utf8View",
                "encode(",
            ),
            (
                "Error during planning: null_aware anti join only supports single column join key, got 2 columns",
                "NOT EXISTS",
            ),
            ("LIKE does not support escape_char other than the backslash (\\)", "without ESCAPE"),
            (
                "Too many columns! The subquery should only return one column: s.b.a, s.b.b",
                "EXISTS",
            ),
            ("This feature is not implemented: TOP", "LIMIT 100"),
            (
                "This feature is not implemented: FETCH clause is not supported yet",
                "NULLS LAST LIMIT",
            ),
            (
                "Physical plan does not support logical expression ScalarSubquery(<subquery>)",
                "join",
            ),
        ] {
            assert!(engine_help(text).unwrap().1.contains(hint), "{text}");
        }
        for text in [
            "Cannot infer common argument type for comparison operation Date32 = Int64",
            "Invalid function 'nosuch'",
        ] {
            assert_eq!(engine_help(text), None, "{text}");
        }
    }
}
