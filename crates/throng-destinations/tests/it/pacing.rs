//! The pacer against a platform with a quota per rolling hour, in simulated time: the platform counts a call when it
//! arrives, shows the share that is used as an integer and only in some responses, and never has to refuse a call.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use throng_activation::Usage;
use throng_destinations::{CallAdmission, CallKind, CallLimits, CallPacer, CallStart};
use throng_model::{Entropy, SplitMix64, Timestamp};

const LIMITS: CallLimits = CallLimits { lowest: 5_000, assumed: 190_000 };
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const START: i64 = 1_000_000 * SECOND;
/// Between two reads of a size, as of a check.
const READ_INTERVAL: i64 = 300 * SECOND;

#[derive(Debug, Clone, Copy)]
struct Case {
    seed: u64,
    /// Calls of the account per rolling hour.
    quota: u64,
    tasks: usize,
    max_latency: Duration,
    /// Only every nth upload has the meter in its response; 0: none.
    meter_every: u64,
    /// Calls of another program, in percent of the quota.
    others_percent: u64,
    /// The pacer is lost at this time.
    restart: Option<Duration>,
    hours: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A task asks for a call. With the number of the process.
    Ask(usize, u32),
    /// A size has to be read.
    Read,
    /// Another program calls.
    Other,
    /// The call of this number arrives at the platform.
    Arrive(usize),
    /// Its response is here.
    End(usize),
    Restart,
}

struct Call {
    start: CallStart,
    is_upload: bool,
    task: Option<usize>,
    process: u32,
    percent: Option<f64>,
}

/// An independent meter: the calls of the last 3,600 whole seconds.
#[derive(Default)]
struct Platform {
    calls: VecDeque<i64>,
}

impl Platform {
    /// Counts a call. Returns the calls of the hour.
    fn count(&mut self, micros: i64) -> u64 {
        let second = micros / SECOND;
        while self.calls.front().is_some_and(|at| *at <= second - 3_600) {
            self.calls.pop_front();
        }
        self.calls.push_back(second);
        self.calls.len() as u64
    }
}

struct Simulation {
    case: Case,
    random: SplitMix64,
    pacer: CallPacer,
    process: u32,
    platform: Platform,
    events: BinaryHeap<Reverse<(i64, u64, Event)>>,
    number: u64,
    calls: Vec<Option<Call>>,
    free: Vec<usize>,
    uploads: u64,
    /// Own calls by hour.
    by_hour: Vec<u64>,
    refused: u64,
}

impl Simulation {
    fn new(case: Case) -> Self {
        let mut simulation = Self {
            case,
            random: SplitMix64::new(case.seed),
            pacer: CallPacer::new(LIMITS),
            process: 0,
            platform: Platform::default(),
            events: BinaryHeap::new(),
            number: 0,
            calls: Vec::new(),
            free: Vec::new(),
            uploads: 0,
            by_hour: vec![0; case.hours as usize],
            refused: 0,
        };
        for task in 0..case.tasks {
            let at = START + simulation.below(SECOND);
            simulation.at(at, Event::Ask(task, 0));
        }
        let at = START + simulation.below(READ_INTERVAL);
        simulation.at(at, Event::Read);
        if let Some(restart) = case.restart {
            simulation.at(START + restart.as_micros() as i64, Event::Restart);
        }
        if case.others_percent > 0 {
            // The other program has run for an hour.
            let gap = simulation.gap_of_others();
            (1..=HOUR / gap).rev().for_each(|n| {
                simulation.platform.count(START - n * gap);
            });
            simulation.at(START, Event::Other);
        }
        simulation
    }

    fn gap_of_others(&self) -> i64 {
        HOUR * 100 / (self.case.quota * self.case.others_percent) as i64
    }

    fn below(&mut self, bound: i64) -> i64 {
        self.random.below(bound.max(1) as u64) as i64
    }

    fn at(&mut self, micros: i64, event: Event) {
        self.number += 1;
        self.events.push(Reverse((micros, self.number, event)));
    }

    fn run(mut self) -> Self {
        let end = START + self.case.hours as i64 * HOUR;
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now >= end {
                break;
            }
            match event {
                Event::Ask(task, process) if process == self.process => self.ask(Some(task), now),
                Event::Ask(..) => {}
                Event::Read => {
                    self.ask(None, now);
                    self.at(now + READ_INTERVAL, Event::Read);
                }
                Event::Other => {
                    self.platform.count(now);
                    let gap = self.gap_of_others();
                    let next = now + self.below(2 * gap);
                    self.at(next, Event::Other);
                }
                Event::Arrive(number) => self.arrive(number, now),
                Event::End(number) => self.end(number, now),
                Event::Restart => {
                    self.pacer = CallPacer::new(LIMITS);
                    self.process += 1;
                    for task in 0..self.case.tasks {
                        self.at(now + SECOND, Event::Ask(task, self.process));
                    }
                }
            }
        }
        self
    }

    fn ask(&mut self, task: Option<usize>, now: i64) {
        let kind = if task.is_some() { CallKind::Upload } else { CallKind::Read };
        let (start, is_upload) = match self.pacer.reserve(kind, Timestamp(now)) {
            CallAdmission::Go(start) => (start, task.is_some()),
            CallAdmission::ReadMeter(start) => (start, false),
            CallAdmission::Wait(wait) => {
                assert!(!wait.is_zero());
                if let Some(task) = task {
                    let process = self.process;
                    self.at(now + wait.as_micros() as i64, Event::Ask(task, process));
                }
                return;
            }
        };
        let call = Call { start, is_upload, task, process: self.process, percent: None };
        let number = match self.free.pop() {
            Some(number) => {
                self.calls[number] = Some(call);
                number
            }
            None => {
                self.calls.push(Some(call));
                self.calls.len() - 1
            }
        };
        let latency = self.half_latency();
        self.at(now + latency, Event::Arrive(number));
    }

    fn half_latency(&mut self) -> i64 {
        self.below(self.case.max_latency.as_micros() as i64 / 2)
    }

    fn arrive(&mut self, number: usize, now: i64) {
        let used = self.platform.count(now);
        self.refused += u64::from(used > self.case.quota);
        self.by_hour[((now - START) / HOUR) as usize] += 1;
        let call = self.calls[number].as_mut().unwrap();
        let every = self.case.meter_every;
        self.uploads += u64::from(call.is_upload);
        let has_meter = !call.is_upload || (every > 0 && self.uploads.is_multiple_of(every));
        call.percent = has_meter.then_some((used * 100 / self.case.quota) as f64);
        let latency = self.half_latency();
        self.at(now + latency, Event::End(number));
    }

    fn end(&mut self, number: usize, now: i64) {
        let Call { mut start, task, process, percent, .. } = self.calls[number].take().unwrap();
        self.free.push(number);
        if process != self.process {
            return;
        }
        self.pacer.observe(&mut start, Usage { percent, ..Usage::default() }, Timestamp(now));
        self.pacer.end(start, Timestamp(now));
        if let Some(task) = task {
            self.at(now, Event::Ask(task, process));
        }
    }

    /// The smallest share of the quota that was used in an hour.
    fn lowest_share(&self) -> f64 {
        let lowest = self.by_hour.iter().copied().min().unwrap_or(0);
        lowest as f64 / self.case.quota as f64
    }
}

/// Whether the tasks could make half as many calls again as the quota allows.
fn quota_binds(case: Case) -> bool {
    // Half of the maximum on average; and a task that waits looks again within a second.
    let calls_per_hour = case.tasks as f64 * 3_600.0 / (case.max_latency.as_secs_f64() / 2.0);
    calls_per_hour >= 1.5 * case.quota as f64
}

fn assert_paced(case: Case) {
    let simulation = Simulation::new(case).run();
    assert_eq!(simulation.refused, 0, "{case:?}: {:?}", simulation.by_hour);
    if case.others_percent == 0 && case.restart.is_none() && quota_binds(case) {
        assert!(simulation.lowest_share() >= 0.95, "{case:?}: {:?}", simulation.by_hour);
    }
}

fn case() -> impl Strategy<Value = Case> {
    (
        any::<u64>(),
        prop::sample::select(vec![5_000, 5_400, 7_000, 25_000]),
        1_usize..=16,
        prop::sample::select(vec![100, 500, 2_000, 10_000]),
        prop::sample::select(vec![0, 1, 2, 7, 50, 500]),
        prop::sample::select(vec![0, 0, 10, 30, 50]),
        prop::option::of(60_u64..7_200),
    )
        .prop_map(|(seed, quota, tasks, latency, meter_every, others_percent, restart)| Case {
            seed,
            quota,
            tasks,
            max_latency: Duration::from_millis(latency),
            meter_every,
            others_percent,
            restart: restart.map(Duration::from_secs),
            hours: 4,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_call_is_refused_and_a_quota_of_our_own_is_used(case in case()) {
        assert_paced(case);
    }
}

/// Cases that were refused: a restart when the quota was used up, so that only reads of the meter went; and bursts of
/// calls that leave the hour at the platform seconds before they leave it here.
#[test]
fn full_accounts_after_a_restart_and_bursts_are_not_refused() {
    let millis = Duration::from_millis;
    let secs = |secs| Some(Duration::from_secs(secs));
    let fast = Case { max_latency: millis(100), ..ALONE };
    for case in [
        Case {
            seed: 4_348_709_917_397_622_839,
            quota: 5_000,
            tasks: 14,
            restart: secs(155),
            ..fast
        },
        Case {
            seed: 3_522_700_167_841_505_168,
            quota: 5_000,
            tasks: 9,
            max_latency: millis(500),
            meter_every: 500,
            others_percent: 30,
            restart: secs(501),
            ..ALONE
        },
        Case { seed: 2_372_373_810_897_765_519, tasks: 10, others_percent: 30, ..fast },
        Case {
            seed: 10_737_990_333_254_532_721,
            quota: 5_400,
            tasks: 14,
            meter_every: 500,
            others_percent: 10,
            restart: secs(5_841),
            ..fast
        },
        Case {
            seed: 10_754_270,
            quota: 5_400,
            tasks: 15,
            others_percent: 10,
            restart: secs(269),
            ..fast
        },
    ] {
        assert_paced(case);
    }
}

const ALONE: Case = Case {
    seed: 1,
    quota: 7_000,
    tasks: 8,
    max_latency: Duration::from_secs(1),
    meter_every: 0,
    others_percent: 0,
    restart: None,
    hours: 4,
};

#[test]
fn every_quota_is_used_without_a_meter_in_the_responses_to_uploads() {
    for quota in [5_000, 7_000, 25_000] {
        let case = Case { quota, ..ALONE };
        assert!(quota_binds(case));
        assert_paced(case);
    }
    let case = Case { quota: 190_000, tasks: 16, max_latency: Duration::from_millis(200), ..ALONE };
    assert!(quota_binds(case));
    assert_paced(Case { hours: 2, ..case });
}

#[test]
fn a_quota_that_another_program_uses_too_is_shared_and_not_exceeded() {
    for meter_every in [0, 10] {
        let case = Case { others_percent: 30, meter_every, ..ALONE };
        let simulation = Simulation::new(case).run();
        assert_eq!(simulation.refused, 0, "{:?}", simulation.by_hour);
        assert!(simulation.lowest_share() >= 0.6, "{:?}", simulation.by_hour);
    }
}

#[test]
fn calls_before_a_restart_count() {
    for minutes in [3, 30, 90] {
        let restart = Some(Duration::from_secs(minutes * 60));
        let simulation = Simulation::new(Case { restart, ..ALONE }).run();
        assert_eq!(simulation.refused, 0, "{minutes}: {:?}", simulation.by_hour);
        assert!(simulation.lowest_share() >= 0.9, "{minutes}: {:?}", simulation.by_hour);
    }
}
