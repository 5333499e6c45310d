//! Prometheus' text format, for metrics that are read at each scrape.

use std::fmt::Write as _;

use crate::metrics::find;

/// Metric families as text, each with HELP and TYPE from the table of metrics.
#[derive(Debug, Default)]
pub struct Families(String);

impl Families {
    /// Adds a family, unless it has no samples. A sample is its labels and its value.
    pub fn add<'a, L>(&mut self, name: &str, samples: impl IntoIterator<Item = (L, f64)>)
    where
        L: AsRef<[(&'a str, String)]>,
    {
        let Some(metric) = find(name) else {
            // A metric without a description is a bug, which the test of all metrics finds.
            return debug_assert!(false, "{name} is not in the table of metrics");
        };
        let mut has_header = false;
        for (labels, value) in samples {
            if !std::mem::replace(&mut has_header, true) {
                let (help, kind) = (metric.help, metric.kind.name());
                // Writing to a string cannot fail.
                let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
            let labels = labels.as_ref();
            debug_assert!(
                labels.iter().map(|(label, _)| *label).eq(metric.label_names()),
                "{name} has other labels than the table says"
            );
            let pairs: Vec<String> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let _ = match pairs.is_empty() {
                true => writeln!(self.0, "{name} {value}"),
                false => writeln!(self.0, "{name}{{{}}} {value}", pairs.join(",")),
            };
        }
    }

    /// Adds a family of one sample without labels.
    pub fn one(&mut self, name: &str, value: f64) {
        self.add(name, [([], value)]);
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// The value of a label, escaped for the text format.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use crate::metrics::{ALERTS_OPEN, DISK_FREE_BYTES, TASKS};

    use super::*;

    #[test]
    fn families_have_help_type_and_escaped_labels() {
        let mut families = Families::default();
        families.one(DISK_FREE_BYTES, 5.0);
        families.add(ALERTS_OPEN, [([("kind", "a\"b\\c\nd".to_owned())], 1.5)]);
        families.add(TASKS, std::iter::empty::<([(&str, String); 0], f64)>());
        let text = families.into_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines[0].starts_with("# HELP throng_disk_free_bytes Free space"));
        assert_eq!(
            lines[1..3],
            ["# TYPE throng_disk_free_bytes gauge", "throng_disk_free_bytes 5"]
        );
        assert_eq!(lines[5], r#"throng_alerts_open{kind="a\"b\\c\nd"} 1.5"#);
    }
}
