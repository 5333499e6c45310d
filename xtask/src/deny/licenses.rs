//! SPDX expressions of licenses.

/// Whether allowed licenses satisfy an expression; `None` if it is not an SPDX expression.
pub(super) fn allows(text: &str, allowed: &[String]) -> Option<bool> {
    // `/` is the former notation of OR.
    let text = text.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    let is_satisfied = parser.any()?;
    parser.words.is_empty().then_some(is_satisfied)
}

struct Parser<'t> {
    words: &'t [&'t str],
    allowed: &'t [String],
}

impl<'t> Parser<'t> {
    fn next(&mut self) -> Option<&'t str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn skip(&mut self, word: &str) -> bool {
        let is_next = self.words.first() == Some(&word);
        if is_next {
            self.words = &self.words[1..];
        }
        is_next
    }

    fn any(&mut self) -> Option<bool> {
        let mut satisfied = self.all()?;
        while self.skip("OR") {
            satisfied |= self.all()?;
        }
        Some(satisfied)
    }

    fn all(&mut self) -> Option<bool> {
        let mut satisfied = self.one()?;
        while self.skip("AND") {
            satisfied &= self.one()?;
        }
        Some(satisfied)
    }

    fn one(&mut self) -> Option<bool> {
        if self.skip("(") {
            let satisfied = self.any()?;
            return self.skip(")").then_some(satisfied);
        }
        let name = self.next().filter(|word| !["OR", "AND", "WITH", ")"].contains(word))?;
        let name = match self.skip("WITH") {
            true => format!("{name} WITH {}", self.next()?),
            false => name.to_owned(),
        };
        Some(self.allowed.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn expressions_are_read() {
        let allowed = ["MIT", "ISC", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
        let allowed = allowed.map(str::to_owned);
        let allows = |text| super::allows(text, &allowed);
        for text in [
            "MIT",
            "MIT/GPL-3.0",
            "GPL-3.0 OR (MIT AND ISC)",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
            "(MIT OR Apache-2.0) AND ISC",
        ] {
            assert_eq!(allows(text), Some(true), "{text}");
        }
        for text in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR MIT) AND GPL-2.0"] {
            assert_eq!(allows(text), Some(false), "{text}");
        }
        for text in ["", "MIT OR", "(MIT", "MIT ISC", "AND MIT", "MIT WITH"] {
            assert_eq!(allows(text), None, "{text}");
        }
    }
}
