//! Simulators of the environment: ad platforms with their rules and faults ([`meta`]), ad servers with traffic
//! ([`fleet`]), damage to files ([`damage`]), a small disk ([`SmallDisk`]), a
//! clock that several processes share ([`clock_file`]), a day of ad traffic ([`day`]), and an ad network with many
//! gates ([`network`]).
//! Platforms and ad servers use real HTTP, so that tests cover the network code as well.

pub mod clock_file;
pub mod damage;
pub mod day;
pub mod fleet;
pub mod meta;
pub mod network;
mod small_disk;

pub use small_disk::SmallDisk;

/// A time zone in which no day starts or ends within six hours of `now`: the spend of the day is not reset
/// during a run on the machine's clock.
pub fn zone_far_from_midnight(now: throng_model::Timestamp) -> &'static str {
    const HOUR: i64 = 3_600_000_000;
    let hour = now.0.rem_euclid(24 * HOUR) / HOUR;
    // POSIX inverts the sign: this is twelve hours behind UTC.
    if (6..18).contains(&hour) { "UTC" } else { "Etc/GMT+12" }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use throng_model::{BudgetDay, TimeZoneName, Timestamp};

    #[test]
    fn the_day_of_the_zone_is_in_its_middle_at_any_hour() {
        let start: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        for minutes in (0..48 * 60).step_by(7) {
            let now = start.plus(Duration::from_secs(minutes * 60));
            let zone: TimeZoneName = super::zone_far_from_midnight(now).parse().unwrap();
            let day = BudgetDay::of(now, &zone.rules());
            let six_hours = Duration::from_secs(6 * 3_600);
            assert!(now.since(day.start(&zone.rules())) >= six_hours, "{now}");
            assert!(day.end(&zone.rules()).since(now) >= six_hours, "{now}");
        }
    }
}
