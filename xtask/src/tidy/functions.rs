//! Functions that are too long. Pure.

use super::source::{after_closing, line_of, tokens};

/// The limit of a function.
const MAX_FUNCTION_LINES: usize = 80;

/// A function that is too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LongFunction {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) lines: usize,
}

/// The functions of a file over 80 lines, from `fn` to the closing bracket. `code`: without comments and
/// literals, with the same lines.
pub(super) fn long_functions(code: &str) -> Vec<LongFunction> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let name = tokens.get(index + 1).filter(|name| name.is_word());
        let Some(name) = name.filter(|_| token.text == "fn") else { continue };
        let mut body = index + 2;
        while let Some(token) = tokens.get(body).filter(|token| !matches!(token.text, "{" | ";")) {
            body = match token.text {
                "(" | "[" => after_closing(&tokens, body),
                _ => body + 1,
            };
        }
        if tokens.get(body).is_none_or(|token| token.text == ";") {
            continue;
        }
        let last = tokens.get(after_closing(&tokens, body) - 1).map_or(code.len(), |last| last.at);
        let line = line_of(code, token.at);
        let lines = line_of(code, last) + 1 - line;
        if lines > MAX_FUNCTION_LINES {
            found.push(LongFunction { line, name: name.text.to_owned(), lines });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}(a: [u8; 4])\nwhere A: B,\n{{\n{}}}\n", "    x;\n".repeat(lines - 4))
    }

    #[test]
    fn only_long_functions_are_found() {
        let text = format!("{}trait T {{ fn t(); }}\n{}", function("a", 80), function("b", 81));
        let found = long_functions(&text);
        assert_eq!(found, [LongFunction { line: 82, name: "b".to_owned(), lines: 81 }]);
    }

    #[test]
    fn a_nested_function_is_reported_separately() {
        let text = format!("fn outer() {{\n{}}}\n", function("inner", 90));
        let names: Vec<String> = long_functions(&text).into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["outer", "inner"]);
    }

    #[test]
    fn function_pointers_are_not_functions() {
        assert!(long_functions("type F = fn(u8) -> u8;").is_empty());
    }
}
