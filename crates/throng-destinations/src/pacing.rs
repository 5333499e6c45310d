//! Paces the calls of one account against a quota per rolling hour. Pure: the time is passed in.
//!
//! The platform's meter is an integer percentage that only some responses have, the quota depends on things that are not
//! known here, and other programs may call the same account. So own calls are counted, and each meter is related to them:
//! a meter of `p` with `n` own calls in the hour means that the quota is more than `n / (p + 1) %`. The best such bound
//! is close to the quota if no one else calls the account; otherwise it is the part of the quota that is left here.

use std::collections::VecDeque;
use std::time::Duration;

use throng_activation::Usage;
use throng_model::Timestamp;

const HOUR_SECS: u32 = 3_600;
/// A call counts from its reservation until an hour after its end. The platform counts it from some moment in between,
/// so this is never less than what the platform has. One second more, because seconds are whole.
const WINDOW_SECS: u32 = HOUR_SECS + 1;
/// Uploads go below this percentage. The rest is for reads, and for what other programs do between two meters.
const UPLOAD_PERCENT: f64 = 98.0;
/// The same if the meter shows more than own calls: what others do until the next meter varies.
const UPLOAD_PERCENT_SHARED: f64 = 97.5;
/// Reads go below this percentage: they are few, and a check must not wait until all uploads are done.
const READ_PERCENT: f64 = 99.0;
/// A meter is read again after own calls of this percentage of the quota, if it is what stops uploads.
const READ_AFTER_PERCENT: f64 = 1.0;
/// The same if no one else calls the account and the quota is known well, because own calls are then all there are.
const READ_AFTER_PERCENT_ALONE: f64 = 10.0;
/// The same while uploads go, if the meter shows more than own calls.
const READ_AFTER_PERCENT_SHARED: f64 = 5.0;
/// A meter of this percentage shows the quota to about 1 %.
const WELL_KNOWN_PERCENT: f64 = 90.0;
/// A meter that shows calls of others is read again after this, and a call goes if only the meter is against it.
const METER_SECS: u32 = 60;
/// The same from [`READ_PERCENT`] on. Reads count too: at one per minute they alone would use up the rest within the
/// hour, if what fills the account was called before a restart.
const FULL_METER_SECS: u32 = 180;
/// From this percentage on, a meter that shows calls of others must be that new.
const FRESH_FROM_PERCENT: f64 = 85.0;
/// The account is ours alone if a meter shows no more calls of others than this percentage: it is rounded down by up to 1.
const ALONE_PERCENT: f64 = 1.5;
/// For each own call the meter is assumed to rise by at most so many calls until the next one: there are those of others,
/// and a platform may measure the time that calls take. What was before a restart does not rise.
const MAX_FACTOR: f64 = 4.0;
/// The same if it was seen to rise so fast.
const MAX_SEEN_FACTOR: f64 = 100.0;
/// The meter of the app, which has other accounts too, paces the account from this percentage on.
const APP_PERCENT: f64 = 99.0;
/// The time between two calls then.
const APP_PAUSE_SECS: u32 = 10;
/// Before the first meter, this share of the lowest quota goes. A process before this one may have used all but 1 %.
const UNKNOWN_SHARE: u64 = 500;
/// How long others wait for a read of the meter that is under way. A lost response must not stop the account.
const READ_TIMEOUT_SECS: u32 = 150;

/// Longer calls are rare.
const MAX_CALL_SECS: u32 = 30;

/// What a platform documents about the calls of an account per rolling hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// No account has less.
    pub lowest: u64,
    /// The quota if responses do not have a meter.
    pub assumed: u64,
}

/// The kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Delivers rows. There may be any number of them.
    Upload,
    /// Any other call. There are few.
    Read,
}

/// Whether a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallAdmission {
    /// It goes, and counts from now on: [`CallPacer::end`] must follow.
    Go(CallStart),
    /// It can be tried again after this, which is not zero.
    Wait(Duration),
    /// For uploads: how much of the quota is used is not known well enough. A read whose response has the meter goes
    /// first, and counts from now on as with [`CallAdmission::Go`]. One at a time.
    ReadMeter(CallStart),
}

/// A call that was reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallStart {
    kind: CallKind,
    at: u32,
    /// Calls that had ended before: its meter has counted all of them.
    ended: u64,
    has_meter: bool,
}

/// The last meter of the account, and the counts then.
#[derive(Debug, Clone, Copy)]
struct Meter {
    percent: f64,
    at: u32,
    /// Calls that it has counted for sure.
    ended: u64,
    /// Calls that had left the hour, with those that the platform may have dropped before it counted: this meter
    /// does not have them any longer, and they must not be taken from it again when they leave the hour here.
    left: u64,
    started: u64,
    is_alone: bool,
    /// By how many calls it rises for each own call.
    factor: f64,
}

/// How much of the quota is used.
#[derive(Debug, Clone, Copy)]
struct Estimate {
    percent: f64,
    /// The part of it that own calls explain.
    own_percent: f64,
    /// The quota, or less.
    limit: f64,
}

/// The calls of one account. At most 40 KB.
#[derive(Debug)]
pub struct CallPacer {
    limits: CallLimits,
    /// Calls that have ended, by second of their end.
    window: VecDeque<(u32, u32)>,
    /// Counts since the start: reserved, ended, and ended more than an hour ago.
    started: u64,
    ended: u64,
    left: u64,
    /// Reserved calls when the last meter was lost for its age; 0 before the first one.
    started_without_meter: u64,
    meter: Option<Meter>,
    /// The highest bound of the quota, and when it was found.
    bound: Option<(f64, u32)>,
    app: Option<(f64, u32)>,
    /// When a read of the meter was asked for that has not ended.
    reading: Option<u32>,
    /// When a read last ended without a meter.
    unanswered: Option<u32>,
    last_start: Option<u32>,
    /// The longest call in seconds, up to [`MAX_CALL_SECS`].
    longest_call: u32,
    /// The time in seconds, which never goes back, and what is added to the clock's for that.
    second: u32,
    offset: u32,
}

impl CallPacer {
    /// No calls yet. What was called before a restart is learned from the first meter.
    pub fn new(limits: CallLimits) -> Self {
        Self {
            limits,
            window: VecDeque::new(),
            started: 0,
            ended: 0,
            left: 0,
            started_without_meter: 0,
            meter: None,
            bound: None,
            app: None,
            reading: None,
            unanswered: None,
            last_start: None,
            longest_call: 0,
            second: 0,
            offset: 0,
        }
    }

    /// Reserves a call if it may go now.
    pub fn reserve(&mut self, kind: CallKind, now: Timestamp) -> CallAdmission {
        self.advance(now);
        let turn = match kind {
            CallKind::Upload => self.upload(),
            CallKind::Read => self.read(),
        };
        let turn = match (turn, self.app_wait()) {
            (CallAdmission::Go(_) | CallAdmission::ReadMeter(_), Some(wait)) => {
                CallAdmission::Wait(wait)
            }
            (turn, _) => turn,
        };
        if let CallAdmission::Go(_) | CallAdmission::ReadMeter(_) = turn {
            self.started += 1;
            self.last_start = Some(self.second);
        }
        if let CallAdmission::ReadMeter(_) = turn {
            self.reading = Some(self.second);
        }
        turn
    }

    /// Notes the meters of a call's response.
    pub fn observe(&mut self, call: &mut CallStart, usage: Usage, now: Timestamp) {
        self.advance(now);
        if let Some(percent) = usage.app_percent.filter(|percent| percent.is_finite()) {
            self.app = Some((percent, self.second));
        }
        let Some(percent) = usage.percent.filter(|percent| percent.is_finite()) else { return };
        let percent = percent.clamp(0.0, 1_000.0);
        call.has_meter = true;
        // Before the previous meter's call: it says less than that one.
        if self.meter.is_some_and(|meter| meter.ended > call.ended) && percent < UPLOAD_PERCENT {
            return;
        }
        // At least these own calls are in the meter, and at most those.
        let counted = (call.ended + 1).saturating_sub(self.left + self.leaving()) as f64;
        let own = self.own() as f64;
        let bound = counted * 100.0 / (percent + 1.0);
        let is_higher = |(before, at): (f64, u32)| bound >= before || self.second - at >= HOUR_SECS;
        if self.bound.is_none_or(is_higher) {
            self.bound = Some((bound, self.second));
        }
        let used = (percent + 1.0) / 100.0 * self.limit();
        // Calls that the platform has dropped already explain nothing of its meter.
        let leaving = self.leaving();
        let is_alone = used - (own - leaving as f64) <= self.limit() * ALONE_PERCENT / 100.0;
        let factor = if is_alone { 1.0 } else { self.factor(percent, used / own.max(1.0)) };
        self.meter = Some(Meter {
            percent,
            at: self.second,
            ended: call.ended,
            left: self.left + leaving,
            started: self.started,
            is_alone,
            factor,
        });
        self.reading = None;
    }

    /// The factor of a meter that shows so many times the own calls.
    fn factor(&self, percent: f64, times: f64) -> f64 {
        let factor = times.clamp(1.0, MAX_FACTOR);
        let Some(before) = self.meter.filter(|before| self.started > before.started) else {
            return factor;
        };
        let rise = (percent - before.percent - 1.0) / 100.0 * self.limit();
        factor.max((rise / (self.started - before.started) as f64).min(MAX_SEEN_FACTOR))
    }

    /// The call has ended, with or without a response.
    pub fn end(&mut self, call: CallStart, now: Timestamp) {
        self.advance(now);
        self.ended += 1;
        self.longest_call = self.longest_call.max((self.second - call.at).min(MAX_CALL_SECS));
        match self.window.back_mut() {
            Some((second, calls)) if *second == self.second => *calls += 1,
            _ => self.window.push_back((self.second, 1)),
        }
        if call.kind == CallKind::Read {
            self.reading = None;
            self.unanswered = (!call.has_meter).then_some(self.second);
        }
    }

    /// Own calls of the last hour, with those that have not ended.
    pub fn own(&self) -> u64 {
        self.started - self.left
    }

    fn advance(&mut self, now: Timestamp) {
        let clock = now.0.div_euclid(1_000_000);
        let mut second = u32::try_from(clock).unwrap_or(0).saturating_add(self.offset);
        // A clock that is set back must not keep calls for longer than an hour.
        if self.second.saturating_sub(second) > METER_SECS {
            self.offset = self.offset.saturating_add(self.second - second);
            second = self.second;
        }
        self.second = self.second.max(second);
        while let Some((at, calls)) = self.window.front().copied() {
            if self.second - at < WINDOW_SECS {
                break;
            }
            self.left += u64::from(calls);
            self.window.pop_front();
        }
        if self.meter.is_some_and(|meter| self.second - meter.at >= HOUR_SECS) {
            self.meter = None;
            self.started_without_meter = self.started;
        }
    }

    /// Ended calls that the platform may have dropped already: it counts a call from some moment before its end.
    fn leaving(&self) -> u64 {
        let is_leaving =
            |(at, _): &&(u32, u32)| at + HOUR_SECS <= self.second + self.longest_call + 1;
        self.window.iter().take_while(is_leaving).map(|(_, calls)| u64::from(*calls)).sum()
    }

    /// The highest number of calls that the account is known to have.
    fn limit(&self) -> f64 {
        let lowest = self.limits.lowest as f64;
        self.bound.map_or(lowest, |(bound, _)| bound.max(lowest))
    }

    /// The age at which a meter that stops calls is read again.
    fn meter_secs(&self) -> u32 {
        let is_full = self.meter.is_some_and(|meter| meter.percent >= READ_PERCENT);
        if is_full { FULL_METER_SECS } else { METER_SECS }
    }

    fn was_unanswered(&self) -> bool {
        self.unanswered.is_some_and(|at| self.second - at < METER_SECS)
    }

    fn estimate(&self) -> Estimate {
        let own = self.own() as f64;
        let Some(meter) = self.meter else {
            // Calls before a restart are not known: a few go, then the meter is read.
            let limit = self.limits.assumed as f64;
            let own_percent = own * 100.0 / limit;
            let few = (self.limits.lowest / UNKNOWN_SHARE).max(1);
            let is_known = self.started - self.started_without_meter < few || self.was_unanswered();
            let percent = if is_known { own_percent } else { own_percent.max(100.0) };
            return Estimate { percent, own_percent, limit };
        };
        let limit = self.limit();
        let started = self.started as f64 - (meter.ended + 1) as f64;
        let since = started - self.left.saturating_sub(meter.left) as f64;
        let own_percent = own * 100.0 / limit;
        // What others did may have been a minute before the meter: only own calls leave the hour for sure.
        let since = if since > 0.0 { since * meter.factor } else { since };
        let rounded = if meter.is_alone { meter.percent } else { meter.percent + 1.0 };
        let percent = own_percent.max(rounded + since * 100.0 / limit);
        Estimate { percent, own_percent, limit }
    }

    fn go(&self, kind: CallKind) -> CallAdmission {
        let (at, ended) = (self.second, self.ended);
        CallAdmission::Go(CallStart { kind, at, ended, has_meter: false })
    }

    /// Whether an upload starts. Its response does not show how much of the quota is used, so the meter is read before
    /// it by another call, if uploads need a newer one.
    fn upload(&self) -> CallAdmission {
        let used = self.estimate();
        let is_alone = self.meter.is_some_and(|meter| meter.is_alone);
        let is_shared = self.meter.is_some_and(|meter| !meter.is_alone);
        let most = if is_shared { UPLOAD_PERCENT_SHARED } else { UPLOAD_PERCENT };
        let is_blocked = used.percent >= most;
        let age = self.meter.map_or(HOUR_SECS, |meter| self.second - meter.at);
        let is_old = !is_alone && age >= self.meter_secs();
        let since = self.meter.map_or(f64::INFINITY, |meter| {
            (self.started - meter.started) as f64 * meter.factor * 100.0 / used.limit
        });
        let must_read = self.meter.is_some()
            && ((is_old && used.percent >= FRESH_FROM_PERCENT)
                || (!is_alone && since >= READ_AFTER_PERCENT_SHARED));
        // For a minute after a read without a meter, the count of own calls is all there is.
        if !is_blocked && (!must_read || self.was_unanswered()) {
            return self.go(CallKind::Upload);
        }
        if self.reading.is_some_and(|at| self.second - at < READ_TIMEOUT_SECS) {
            return CallAdmission::Wait(Duration::from_secs(1));
        }
        let is_well_known = is_alone && self.meter.is_some_and(|m| m.percent >= WELL_KNOWN_PERCENT);
        let read_after = if is_well_known { READ_AFTER_PERCENT_ALONE } else { READ_AFTER_PERCENT };
        if !self.was_unanswered() && (is_old || must_read || since >= read_after) {
            return match self.read() {
                CallAdmission::Go(call) => CallAdmission::ReadMeter(call),
                other => other,
            };
        }
        let exact = self.wait_for(used, most);
        CallAdmission::Wait(if is_alone || used.own_percent >= most {
            exact
        } else {
            exact.min(Duration::from_secs(u64::from(self.meter_secs())))
        })
    }

    /// Whether a read starts. If only the meter is against it, one goes from time to time: otherwise nothing would show
    /// that the meter has fallen.
    fn read(&self) -> CallAdmission {
        let used = self.estimate();
        // Without a meter, this call may be the one that shows it.
        let percent = if self.meter.is_some() { used.percent } else { used.own_percent };
        if percent < READ_PERCENT {
            return self.go(CallKind::Read);
        }
        let pause = self.meter_secs();
        let most = self.last_start.map_or(0, |at| pause.saturating_sub(self.second - at));
        if used.own_percent < READ_PERCENT && most == 0 {
            return self.go(CallKind::Read);
        }
        let exact = self.wait_for(used, READ_PERCENT);
        if used.own_percent >= READ_PERCENT {
            return CallAdmission::Wait(exact);
        }
        CallAdmission::Wait(exact.min(Duration::from_secs(u64::from(most.max(1)))))
    }

    /// The time until so many own calls have left the hour that less than `percent` is used. A minute if there are not
    /// so many that have ended.
    fn wait_for(&self, used: Estimate, percent: f64) -> Duration {
        let mut calls = (used.percent - percent).max(0.0) / 100.0 * used.limit;
        for (at, ended) in &self.window {
            calls -= f64::from(*ended);
            if calls < 0.0 {
                let secs = (at + WINDOW_SECS).saturating_sub(self.second).max(1);
                return Duration::from_secs(u64::from(secs));
            }
        }
        Duration::from_secs(u64::from(METER_SECS))
    }

    /// The wait if the app's meter is against a call.
    fn app_wait(&self) -> Option<Duration> {
        let (percent, at) = self.app?;
        let passed = self.second - self.last_start?;
        let is_paced =
            percent >= APP_PERCENT && self.second - at < METER_SECS && passed < APP_PAUSE_SECS;
        is_paced.then(|| Duration::from_secs(u64::from(APP_PAUSE_SECS - passed)))
    }
}

#[cfg(test)]
mod tests {
    use super::CallAdmission::{Go, ReadMeter, Wait};
    use super::*;

    const LIMITS: CallLimits = CallLimits { lowest: 5_000, assumed: 190_000 };

    fn at(secs: i64) -> Timestamp {
        Timestamp((1_000_000 + secs) * 1_000_000)
    }

    fn used(percent: f64) -> Usage {
        Usage { percent: Some(percent), ..Usage::default() }
    }

    /// Reserves a call that must go, and ends it with this meter.
    fn call(pacer: &mut CallPacer, kind: CallKind, usage: Usage, secs: i64) {
        let (Go(mut call) | ReadMeter(mut call)) = pacer.reserve(kind, at(secs)) else {
            panic!("it has to wait at {secs}");
        };
        pacer.observe(&mut call, usage, at(secs));
        pacer.end(call, at(secs));
    }

    #[test]
    fn own_calls_reach_the_quota_and_wait_until_the_first_has_left_the_hour() {
        let mut pacer = CallPacer::new(LIMITS);
        let mut uploads = 0;
        let wait = loop {
            // The meter is rounded down, and is that of an account with 5,000 calls.
            let secs = uploads / 10;
            match pacer.reserve(CallKind::Upload, at(secs)) {
                Wait(wait) => break wait,
                Go(mut call) | ReadMeter(mut call) => {
                    uploads += 1;
                    pacer.observe(&mut call, used((uploads / 50) as f64), at(secs));
                    pacer.end(call, at(secs));
                }
            }
        };
        assert!((4_850..=4_900).contains(&uploads), "{uploads}");
        let end = uploads / 10 + wait.as_secs() as i64;
        assert!((3_600..3_610).contains(&end), "{end}");
        assert_eq!(pacer.reserve(CallKind::Upload, at(3_600)), Wait(Duration::from_secs(1)));
        call(&mut pacer, CallKind::Upload, used(97.0), end);
        let Go(_) = pacer.reserve(CallKind::Read, at(end)) else { panic!("reads have a reserve") };
    }

    #[test]
    fn a_call_that_has_not_ended_counts() {
        let mut pacer = CallPacer::new(CallLimits { lowest: 200, assumed: 200 });
        call(&mut pacer, CallKind::Read, used(0.0), 0);
        let calls: Vec<CallStart> =
            std::iter::from_fn(|| match pacer.reserve(CallKind::Upload, at(1)) {
                Go(call) => Some(call),
                ReadMeter(_) | Wait(_) => None,
            })
            .take(300)
            .collect();
        assert_eq!(calls.len(), 195, "and the first read is 98 % of 200");
        assert_eq!(pacer.own(), 197, "with the read of the meter");
        let turn = pacer.reserve(CallKind::Upload, at(4_000));
        assert!(!matches!(turn, Go(_)), "none has ended: {turn:?}");
    }

    #[test]
    fn without_a_meter_a_few_uploads_go_and_then_a_read() {
        let mut pacer = CallPacer::new(LIMITS);
        for _ in 0..10 {
            call(&mut pacer, CallKind::Upload, Usage::default(), 0);
        }
        let ReadMeter(read) = pacer.reserve(CallKind::Upload, at(0)) else { panic!() };
        assert_eq!(pacer.reserve(CallKind::Upload, at(0)), Wait(Duration::from_secs(1)));
        // No response has a meter: the documented quota counts, and a minute later the next read goes.
        pacer.end(read, at(0));
        for _ in 0..100 {
            let Go(call) = pacer.reserve(CallKind::Upload, at(1)) else { panic!() };
            pacer.end(call, at(1));
        }
        let ReadMeter(_) = pacer.reserve(CallKind::Upload, at(61)) else { panic!() };
    }

    #[test]
    fn after_a_restart_a_full_meter_is_read_every_minute_until_it_falls() {
        let mut pacer = CallPacer::new(LIMITS);
        call(&mut pacer, CallKind::Read, used(98.0), 0);
        assert_eq!(pacer.reserve(CallKind::Upload, at(0)), Wait(Duration::from_secs(60)));
        for minute in 1..5 {
            let ReadMeter(mut read) = pacer.reserve(CallKind::Upload, at(minute * 60)) else {
                panic!("{minute}");
            };
            pacer.observe(&mut read, used(98.0), at(minute * 60));
            pacer.end(read, at(minute * 60));
        }
        let ReadMeter(mut read) = pacer.reserve(CallKind::Upload, at(300)) else { panic!() };
        pacer.observe(&mut read, used(40.0), at(300));
        pacer.end(read, at(300));
        call(&mut pacer, CallKind::Upload, Usage::default(), 300);
    }

    #[test]
    fn reads_of_a_full_meter_do_not_use_up_the_rest_of_the_quota() {
        let mut pacer = CallPacer::new(LIMITS);
        call(&mut pacer, CallKind::Read, used(99.0), 0);
        let mut calls = 0;
        for secs in 1..3_600 {
            for kind in [CallKind::Upload, CallKind::Read] {
                let (Go(mut call) | ReadMeter(mut call)) = pacer.reserve(kind, at(secs)) else {
                    continue;
                };
                calls += 1;
                pacer.observe(&mut call, used(99.0), at(secs));
                pacer.end(call, at(secs));
            }
        }
        assert!((15..=20).contains(&calls), "{calls}");
    }

    #[test]
    fn a_call_that_leaves_the_hour_is_taken_from_a_meter_once() {
        let mut pacer = CallPacer::new(LIMITS);
        for _ in 0..4_000 {
            call(&mut pacer, CallKind::Upload, used(80.0), 0);
        }
        // The platform has dropped them a second before they leave the hour here. Others fill what they leave.
        call(&mut pacer, CallKind::Read, used(97.0), 3_600);
        let turn = pacer.reserve(CallKind::Upload, at(3_602));
        assert!(!matches!(turn, Go(_)), "97 % are used, and none of them is ours: {turn:?}");
    }

    #[test]
    fn a_read_that_failed_does_not_stop_uploads() {
        let mut pacer = CallPacer::new(LIMITS);
        call(&mut pacer, CallKind::Read, used(50.0), 0);
        // Others are assumed to make three calls for each upload, so that 5 % are soon used.
        let mut uploads = 0;
        let read = loop {
            match pacer.reserve(CallKind::Upload, at(1)) {
                Go(call) => pacer.end(call, at(1)),
                ReadMeter(read) => break read,
                Wait(wait) => panic!("{wait:?}"),
            }
            uploads += 1;
        };
        assert!((60..70).contains(&uploads), "{uploads}");
        pacer.end(read, at(2));
        call(&mut pacer, CallKind::Upload, Usage::default(), 2);
        let ReadMeter(_) = pacer.reserve(CallKind::Upload, at(62)) else { panic!() };
    }

    #[test]
    fn the_meter_of_the_app_paces_only_near_its_end() {
        let mut pacer = CallPacer::new(LIMITS);
        let app = |percent| Usage { app_percent: Some(percent), ..used(1.0) };
        call(&mut pacer, CallKind::Upload, app(98.0), 0);
        call(&mut pacer, CallKind::Upload, app(99.0), 0);
        assert_eq!(pacer.reserve(CallKind::Upload, at(0)), Wait(Duration::from_secs(10)));
        assert_eq!(pacer.reserve(CallKind::Read, at(4)), Wait(Duration::from_secs(6)));
        call(&mut pacer, CallKind::Upload, app(50.0), 10);
        call(&mut pacer, CallKind::Upload, app(50.0), 10);
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_no_call_for_longer_than_an_hour() {
        let mut pacer = CallPacer::new(LIMITS);
        for _ in 0..10 {
            call(&mut pacer, CallKind::Upload, used(0.0), 86_400);
        }
        call(&mut pacer, CallKind::Upload, used(0.0), 0);
        assert_eq!(pacer.own(), 11);
        call(&mut pacer, CallKind::Upload, used(0.0), 3_602);
        assert_eq!(pacer.own(), 1);
    }
}
