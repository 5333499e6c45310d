//! Files as the engine's scans name them.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use datafusion::common::Result;
use datafusion::datasource::listing::{ListingTableUrl, PartitionedFile};
use throng_files::FileStamp;

/// A file with its size and its time of change.
///
/// # Errors
/// If its path is not a location.
pub(super) fn scanned_file(stamp: &FileStamp) -> Result<PartitionedFile> {
    let url = ListingTableUrl::parse(file_url(&stamp.path))?;
    let mut file = PartitionedFile::new(String::new(), stamp.bytes);
    file.object_meta.location = url.prefix().clone();
    file.object_meta.last_modified = (UNIX_EPOCH + Duration::from_nanos(stamp.modified)).into();
    Ok(file)
}

/// A path as a URL: brackets, question marks and percent signs are encoded.
fn file_url(path: &Path) -> String {
    let mut url = "file://".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                url.push(char::from(*byte));
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_urls() {
        assert_eq!(file_url(Path::new("/a [1]/b%?#.csv")), "file:///a%20%5B1%5D/b%25%3F%23.csv");
    }
}
