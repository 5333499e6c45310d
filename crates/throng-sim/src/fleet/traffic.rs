//! Traffic from an impression log: the rows in the order of the log, with compressed times.

use std::time::Duration;

use throng_model::{AdGroupName, Entropy, NameError, SplitMix64, Timestamp, UserKey};

use super::AdRequest;

/// A row of an impression log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedImpression {
    /// The time of the impression.
    pub at: Timestamp,
    /// The advertised item.
    pub item: u32,
    /// Whether it was clicked.
    pub clicked: bool,
}

/// An error of reading a log.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// A row is invalid.
    #[error("line {line} of the impression log: {why}")]
    Row {
        /// 1-based.
        line: usize,
        /// The error.
        why: String,
    },
    /// An item does not form a valid name.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// The delays of users.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    /// The median time from insertion to impression: an ad waits below the fold or in an app's cache until the
    /// user reaches it.
    pub seen_median: Duration,
    /// The median time from impression to click.
    pub click_median: Duration,
    /// The spread of both: standard deviation of the logarithm.
    pub sigma: f64,
    /// The share of insertions that are seen.
    pub seen_share: f64,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            seen_median: Duration::from_secs(60),
            click_median: Duration::from_secs(20),
            sigma: 0.6,
            seen_share: 0.95,
        }
    }
}

/// Reads a log with the columns `timestamp,item_id,position,click,…` of the Open Bandit Dataset.
///
/// # Errors
/// [`TrafficError::Row`] with the line.
pub fn read_impression_log(text: &str) -> Result<Vec<LoggedImpression>, TrafficError> {
    let mut rows = Vec::new();
    for (at, line) in text.lines().enumerate().skip(1) {
        let bad = |why: &str| TrafficError::Row { line: at + 1, why: why.to_owned() };
        let mut cells = line.split(',');
        let mut cell = |name: &str| cells.next().ok_or_else(|| bad(&format!("no {name}")));
        let time = cell("timestamp")?.replacen(' ', "T", 1);
        let item = cell("item_id")?;
        cell("position")?;
        let click = cell("click")?;
        rows.push(LoggedImpression {
            at: time.parse().map_err(|e| bad(&format!("{e}")))?,
            item: item.parse().map_err(|_| bad("item_id is not a number"))?,
            clicked: click == "1",
        });
    }
    Ok(rows)
}

/// One request for each row of the logs, in the order of their times, with times scaled so that the traffic
/// lasts `length`. `logs` pairs the prefix of ad group names (`all` makes `all-item-07`)
/// with rows. The users are drawn from `users`, because the log has none; they and the delays
/// depend on `seed` alone.
///
/// # Errors
/// [`TrafficError::Name`] if a prefix does not form a valid name.
pub fn traffic_from_log(
    logs: &[(&str, Vec<LoggedImpression>)],
    users: &[String],
    length: Duration,
    delays: Delays,
    seed: u64,
) -> Result<Vec<AdRequest>, TrafficError> {
    let mut rows: Vec<(&str, &LoggedImpression)> =
        logs.iter().flat_map(|(prefix, rows)| rows.iter().map(|row| (*prefix, row))).collect();
    rows.sort_by_key(|(_, row)| row.at);
    let (Some(first), Some(last)) = (rows.first().map(|r| r.1.at), rows.last().map(|r| r.1.at))
    else {
        return Ok(Vec::new());
    };
    let span = last.since(first).as_secs_f64().max(1e-6);
    let mut random = SplitMix64::new(seed);
    rows.into_iter()
        .enumerate()
        .map(|(number, (prefix, row))| {
            let seen = random.next_f64() < delays.seen_share;
            let seen_after = log_normal(&mut random, delays.seen_median, delays.sigma);
            let then_clicked = log_normal(&mut random, delays.click_median, delays.sigma);
            let user = match users.len() {
                0 => number.to_string(),
                many => users[random.below(many as u64) as usize].clone(),
            };
            Ok(AdRequest {
                number: number as u64,
                after: length.mul_f64(row.at.since(first).as_secs_f64() / span),
                user: UserKey::text(user),
                candidates: vec![AdGroupName::new(format!("{prefix}-item-{:02}", row.item))?],
                seen_after: seen.then_some(seen_after),
                clicked_after: (seen && row.clicked).then_some(seen_after + then_clicked),
            })
        })
        .collect()
}

/// A log-normal time with this median (Box and Muller 1958 for the normal).
fn log_normal(random: &mut SplitMix64, median: Duration, sigma: f64) -> Duration {
    let radius = (-2.0 * (1.0 - random.next_f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * random.next_f64()).cos();
    median.mul_f64((sigma * normal).exp().min(1_000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "timestamp,item_id,position,click,user_feature_0\n\
        2019-11-24 00:00:00.000000+00:00,14,3,0,x\n\
        2019-11-24 12:00:00.000000+00:00,7,1,1,x\n\
        2019-11-25 00:00:00.000000+00:00,14,3,0,x\n";

    #[test]
    fn a_log_becomes_compressed_traffic() {
        let rows = read_impression_log(LOG).unwrap();
        let length = Duration::from_secs(100);
        let delays = Delays { seen_share: 1.0, ..Delays::default() };
        let traffic =
            traffic_from_log(&[("all", rows)], &["u".to_owned()], length, delays, 1).unwrap();
        let after: Vec<u64> = traffic.iter().map(|r| r.after.as_secs()).collect();
        assert_eq!(after, [0, 50, 100]);
        assert_eq!(traffic[1].candidates[0].as_str(), "all-item-07");
        assert!(traffic[1].clicked_after > traffic[1].seen_after);
        assert!(traffic[0].clicked_after.is_none());
    }

    #[test]
    fn an_invalid_row_is_reported_with_its_line() {
        let wrong = LOG.replace("12:00:00.000000+00:00,7", "noon,7");
        let error = read_impression_log(&wrong).unwrap_err().to_string();
        assert!(error.starts_with("line 3 of the impression log"), "{error}");
    }

    #[test]
    fn delays_have_the_requested_median() {
        let mut random = SplitMix64::new(3);
        let mut all: Vec<_> = (0..10_001)
            .map(|_| log_normal(&mut random, Duration::from_secs(60), 0.6).as_secs_f64())
            .collect();
        all.sort_by(f64::total_cmp);
        assert!((55.0..65.0).contains(&all[5_000]), "{}", all[5_000]);
    }
}
