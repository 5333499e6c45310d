//! Fuzz targets of this crate: each passes arbitrary bytes to a decoder and asserts the invariants of
//! whatever it accepts. `fuzz/` runs them under libFuzzer, the tests below over mutants of the seeds.

use crate::runtime::is_readable_message;

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

/// A message of the queues of tasks and checks.
pub fn task_message(bytes: &[u8]) {
    is_readable_message(bytes);
}

/// Messages of this version and of a later one.
pub fn task_message_seeds() -> Vec<Vec<u8>> {
    let text =
        r#"{"version":1,"task":7,"sync":"s","audience":"a","destination":"d","priority":-2}"#;
    vec![text.as_bytes().to_vec(), text.replace(":1,", ":2,").into_bytes()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_of_task_messages() {
        let seeds = task_message_seeds();
        let readable: Vec<bool> = seeds.iter().map(|seed| is_readable_message(seed)).collect();
        assert_eq!(readable, [true, false]);
        mutate::run(&seeds, 2_000, task_message);
    }
}
