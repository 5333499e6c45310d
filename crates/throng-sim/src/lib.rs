//! Simulators of the outside world: ad platforms that keep their rules and make their faults
//! ([`meta`]), ad servers under traffic ([`fleet`]), damage to files ([`damage`]) and a disk that is
//! soon full ([`SmallDisk`]). Servers and clients are real ones over HTTP, so that what works against
//! them has gone through the wire. One simulator needs no wire: a day of ad traffic ([`day`]).

pub mod damage;
pub mod day;
pub mod fleet;
pub mod meta;
mod small_disk;

pub use small_disk::SmallDisk;

/// A time zone whose day neither began nor ends within the six hours around `now`: what is spent
/// today does not start anew while a run on the machine's clock lasts.
pub fn zone_far_from_midnight(now: throng_model::Timestamp) -> &'static str {
    const HOUR: i64 = 3_600_000_000;
    let hour = now.0.rem_euclid(24 * HOUR) / HOUR;
    // The sign is POSIX's: twelve hours behind UTC.
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
