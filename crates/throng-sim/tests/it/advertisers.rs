//! The two advertisers of the article by Pinterest, a hundred days each, and the page about them:
//! `docs/predictive-budgeting.md` is generated here and checked to be current.

use std::fmt::Write as _;
use std::path::Path;

use throng_budget::Interval;
use throng_sim::day::{Outcome, Scenario, advertiser_x, advertiser_y, run};

const SEEDS: u64 = 100;
const DAY_BEGINS: throng_model::Timestamp = throng_model::Timestamp(1_767_225_600_000_000);

#[derive(Debug, Clone, Copy)]
struct Shares {
    over: f64,
    worst_over: f64,
    under: f64,
    worst_under: f64,
}

/// The days of all seeds, in their order. No day depends on another one, so each core simulates a part of them.
fn days(scenario: &Scenario) -> Vec<Outcome> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let part = SEEDS.div_ceil(cores);
    let simulate = |first: u64| -> Vec<Outcome> {
        let seeds = first..SEEDS.min(first + part);
        seeds.map(|seed| run(scenario, seed).expect("a day")).collect()
    };
    std::thread::scope(|scope| {
        let firsts = (0..SEEDS).step_by(part as usize);
        let parts: Vec<_> = firsts.map(|first| scope.spawn(move || simulate(first))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("simulated")).collect()
    })
}

fn shares(scenario: &Scenario) -> Shares {
    let days = days(scenario);
    let share = |of: &dyn Fn(&Outcome) -> i64| -> Vec<f64> {
        days.iter().map(|day| of(day) as f64 / day.budget.0 as f64).collect()
    };
    let over = share(&|day| day.overdelivery.0);
    let under = share(&|day| day.underdelivery.0);
    let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
    let worst = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
    Shares {
        over: mean(&over),
        worst_over: worst(&over),
        under: mean(&under),
        worst_under: worst(&under),
    }
}

#[test]
fn prediction_keeps_both_advertisers_inside_their_budgets() {
    let x = [shares(&advertiser_x(false)), shares(&advertiser_x(true))];
    let y = [shares(&advertiser_y(false)), shares(&advertiser_y(true))];
    println!("x {x:?}\ny {y:?}");
    // As in the article: about a tenth and a fifth.
    assert!((0.08..0.12).contains(&x[0].over), "x without: {}", x[0].over);
    assert!((0.17..0.24).contains(&y[0].over), "y without: {}", y[0].over);
    assert!(x[1].over <= 0.002, "x with: {}", x[1].over);
    assert!(y[1].over <= 0.015, "y with: {}", y[1].over);
    for day in [x[1], y[1]] {
        assert!(day.worst_under <= 0.02, "ends the day under budget: {day:?}");
    }
    let page = page(x, y);
    assert_current("docs/predictive-budgeting.md", &page);
}

#[test]
fn the_picture_is_current() {
    let x = run(&advertiser_x(true), 1).expect("a day");
    let y = run(&advertiser_y(true), 1).expect("a day");
    assert_current(
        "docs/pictures/predicted-x.svg",
        &picture("X: $0.10 an impression", &x.intervals),
    );
    assert_current("docs/pictures/predicted-y.svg", &picture("Y: $2 a click", &y.intervals));
}

/// Compares a generated file with the checked-in one; writes it if `THRONG_BLESS` is set.
fn assert_current(path: &str, wanted: &str) {
    let file = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("../..")
        .join(path);
    if std::env::var_os("THRONG_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(&file, wanted).expect("written");
    }
    let existing = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(existing == wanted, "{path} is not current: run `cargo xtask gen`");
}

fn page(x: [Shares; 2], y: [Shares; 2]) -> String {
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let mut rows = String::new();
    for (name, days) in [("X, $0.10 an impression", x), ("Y, $2 a click", y)] {
        for (how, day) in [("without", days[0]), ("with", days[1])] {
            let _ = writeln!(
                rows,
                "| {name} | {how} | {} | {} | {} | {} |",
                percent(day.over),
                percent(day.worst_over),
                percent(day.under),
                percent(day.worst_under)
            );
        }
    }
    include_str!("predictive-budgeting.template.md").replace("{{rows}}\n", &rows)
}

/// Predicted and actual spend of the ads inserted in every three minutes, as bars.
fn picture(title: &str, intervals: &[Interval]) -> String {
    const WIDTH: f64 = 900.0;
    const HEIGHT: f64 = 260.0;
    // The part of the day with traffic. The intervals of the previous day precede a long gap.
    let today: Vec<&Interval> = intervals.iter().skip_while(|i| i.start < DAY_BEGINS).collect();
    let shown: Vec<&Interval> = today.into_iter().take(24).collect();
    let most = shown.iter().map(|i| i.predicted.0.max(i.actual.0)).max().unwrap_or(1).max(1) as f64;
    let room = (WIDTH - 70.0) / shown.len().max(1) as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"60\" y=\"18\" font-size=\"14\">{title}: dollars per 3 minutes of insertions</text>\n\
         <text x=\"560\" y=\"18\" fill=\"#1f5fbf\">predicted</text><text x=\"640\" y=\"18\" fill=\"#1a7f4b\">actual</text>\n"
    );
    for step in 0..=4 {
        let y = 230.0 - 190.0 * f64::from(step) / 4.0;
        let value = most * f64::from(step) / 4.0 / 1e6;
        let _ = writeln!(
            svg,
            "<line x1=\"60\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e1e4e8\"/><text x=\"54\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#5d6673\">{value:.2}</text>",
            y + 4.0
        );
    }
    for (at, interval) in shown.iter().enumerate() {
        let left = 64.0 + room * at as f64;
        for (offset, micros, colour) in
            [(0.0, interval.predicted.0, "#1f5fbf"), (0.42, interval.actual.0, "#1a7f4b")]
        {
            let height = 190.0 * micros as f64 / most;
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>",
                left + room * offset,
                230.0 - height,
                room * 0.4
            );
        }
        if at % 4 == 0 {
            let _ = writeln!(
                svg,
                "<text x=\"{left:.1}\" y=\"248\" fill=\"#5d6673\">{} min</text>",
                at * 3
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
