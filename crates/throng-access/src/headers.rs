//! Headers of requests as text.

use http::header::AsHeaderName;
use http::request::Parts;

/// The first header of this name; `None` if there is none, or it is not text.
pub(crate) fn text(parts: &Parts, name: impl AsHeaderName) -> Option<&str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}
