//! Whether outcomes settle their own insertions. Pure.

/// How many outcomes have settled their own insertion, and how many could not; each is halved when the sum
/// reaches [`Links::MAX`], so that older ones count less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Links {
    /// Those that have settled their own insertion.
    pub settled: u32,
    /// The others.
    pub other: u32,
}

impl Links {
    /// The sum at which both counts are halved.
    pub const MAX: u32 = 1_024;

    /// Counts an outcome.
    pub fn add(&mut self, settles: bool) {
        let count = if settles { &mut self.settled } else { &mut self.other };
        *count = count.saturating_add(1);
        if self.settled.saturating_add(self.other) >= Self::MAX {
            (self.settled, self.other) = (self.settled / 2, self.other / 2);
        }
    }

    /// The share of outcomes that settle their own insertion; 0 before the first outcome.
    pub fn share(self) -> f64 {
        let all = f64::from(self.settled) + f64::from(self.other);
        if all > 0.0 { f64::from(self.settled) / all } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_outcomes_count_more() {
        let mut links = Links::default();
        assert!(links.share() <= 0.0);
        (0..Links::MAX).for_each(|_| links.add(false));
        (0..Links::MAX).for_each(|_| links.add(true));
        assert!(links.share() > 0.5 && links.settled + links.other < Links::MAX, "{links:?}");
    }
}
