//! Secrets from a file, the standard input or the environment. Never from an argument: every user of
//! the machine can read the arguments of a process.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use throng_model::Secret;

/// The longest secret, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Reads a secret from a file (`-` is the standard input), or else from an environment variable.
///
/// # Errors
/// If the file cannot be read, is empty or longer than 64 KiB.
pub(crate) fn read(file: Option<&Path>, variable: &str) -> Result<Option<Secret>> {
    let Some(path) = file else {
        let value = std::env::var(variable).ok().filter(|value| !value.trim().is_empty());
        return Ok(value.map(|value| Secret::new(value.trim())));
    };
    let mut text = String::new();
    let from: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(
            std::fs::File::open(path)
                .with_context(|| format!("cannot open the token file {}", path.display()))?,
        ),
    };
    from.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read the token from {}", path.display()))?;
    ensure!(text.len() as u64 <= MAX_BYTES, "{} is longer than 64 KiB", path.display());
    let text = text.trim();
    ensure!(!text.is_empty(), "there is no token in {}", path.display());
    // It could not be sent.
    let is_one = !text.contains(char::is_whitespace);
    ensure!(is_one, "{} has more than one word or line: put one token in it", path.display());
    Ok(Some(Secret::new(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_holds_one_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "  abc\n").unwrap();
        assert_eq!(read(Some(&path), "THRONG_NO_SUCH").unwrap().unwrap().expose(), "abc");
        std::fs::write(&path, "abc\ndef\n").unwrap();
        let refused = read(Some(&path), "THRONG_NO_SUCH").unwrap_err().to_string();
        assert!(refused.ends_with("put one token in it"), "{refused}");
        std::fs::write(&path, " \n").unwrap();
        assert!(read(Some(&path), "THRONG_NO_SUCH").is_err());
        assert!(read(Some(&dir.path().join("none")), "THRONG_NO_SUCH").is_err());
        assert_eq!(read(None, "THRONG_NO_SUCH").unwrap(), None);
    }
}
