//! The example `examples/cdnow`, embedded in the binary.

use std::io;
use std::path::Path;

/// The access token that the simulator accepts.
pub const TOKEN: &str = "demo-token";

macro_rules! example_file {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../../examples/cdnow/", $name)).as_slice())
    };
}

const FILES: &[(&str, &[u8])] = &[
    example_file!("node.yaml"),
    example_file!("audiences.yaml"),
    example_file!("activation.yaml"),
    example_file!("ad_groups.yaml"),
    example_file!("data/README.md"),
    example_file!("data/cdnow_purchases.csv"),
    example_file!("data/obd_impressions_all.csv"),
    example_file!("data/obd_impressions_men.csv"),
];

/// Writes the example's files below `folder`, which is created if it does not exist.
///
/// # Errors
/// A folder or a file cannot be written.
pub fn unpack(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder.join("data"))?;
    FILES.iter().try_for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes))
}

/// The impression logs, each with the prefix of its ad groups' names.
pub fn impression_logs() -> [(&'static str, &'static str); 2] {
    let text = |name: &str| {
        FILES
            .iter()
            .find(|(file, _)| *file == name)
            .and_then(|(_, bytes)| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    };
    [("all", text("data/obd_impressions_all.csv")), ("men", text("data/obd_impressions_men.csv"))]
}

/// The customers of the purchases, each once.
pub fn customers() -> Vec<String> {
    let purchases = FILES
        .iter()
        .find(|(file, _)| *file == "data/cdnow_purchases.csv")
        .and_then(|(_, bytes)| std::str::from_utf8(bytes).ok())
        .unwrap_or_default();
    let mut all: Vec<String> = purchases
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').next())
        .map(str::to_owned)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_are_23_570_customers() {
        assert_eq!(super::customers().len(), 23_570);
    }
}
