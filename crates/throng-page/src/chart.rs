//! Charts as SVG text. Pure.

use std::fmt::Write as _;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 240.0;
/// The least space for the labels of the y axis.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;

/// A line: points (x, y) with ascending x, and the CSS class of its color (`a` to `d`).
pub(crate) struct Line<'a> {
    pub(crate) class: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines over the time in UTC, which is said left of the labels. `x_label` and `y_label` turn values into text. `title`:
/// what screen readers say.
pub(crate) fn lines(
    title: &str,
    lines: &[Line<'_>],
    x_label: &dyn Fn(f64) -> String,
    y_label: &dyn Fn(f64) -> String,
) -> String {
    let all = || lines.iter().flat_map(|l| &l.points);
    let (Some(low), Some(high)) =
        (all().map(|p| p.0).reduce(f64::min), all().map(|p| p.0).reduce(f64::max))
    else {
        return empty();
    };
    let top = nice_ceiling(all().map(|p| p.1).fold(0.0, f64::max));
    let left = left_margin(top, y_label);
    let x = |value: f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.5 };
        left + share * (WIDTH - left - RIGHT)
    };
    let mut svg = open(title);
    y_axis(&mut svg, left, top, y_label);
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">UTC</text>",
        left - 8.0,
        HEIGHT - 8.0
    );
    let mut last = None;
    for step in 0..=4 {
        let value = low + (high - low) * f64::from(step) / 4.0;
        let text = x_label(value);
        // Once: a short time has the same minute at several steps.
        if last.as_ref() == Some(&text) {
            continue;
        }
        let anchor = ["start", "middle", "middle", "middle", "end"][step as usize];
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>",
            x(value),
            HEIGHT - 8.0
        );
        last = Some(text);
        if high <= low {
            break;
        }
    }
    for line in lines {
        let points: Vec<String> =
            line.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1, top))).collect();
        if points.len() == 1 {
            let (cx, cy) = (x(line.points[0].0), y(line.points[0].1, top));
            let _ = write!(
                svg,
                "<circle class=\"{}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\"/>",
                line.class
            );
        } else {
            let _ =
                write!(svg, "<polyline class=\"{}\" points=\"{}\"/>", line.class, points.join(" "));
        }
    }
    svg.push_str("</svg></div>");
    svg
}

/// Pairs of bars, each pair with a label below. `title`: what screen readers say.
pub(crate) fn bar_pairs(
    title: &str,
    pairs: &[(String, f64, f64)],
    classes: (&str, &str),
    y_label: &dyn Fn(f64) -> String,
) -> String {
    if pairs.is_empty() {
        return empty();
    }
    let top = nice_ceiling(pairs.iter().fold(0.0, |m, p| m.max(p.1).max(p.2)));
    let margin = left_margin(top, y_label);
    let mut svg = open(title);
    y_axis(&mut svg, margin, top, y_label);
    let pair_width = (WIDTH - margin - RIGHT) / pairs.len() as f64;
    let bar_width = (pair_width * 0.4).min(40.0);
    let label_step = pairs.len().div_ceil(8);
    for (at, (label, first, second)) in pairs.iter().enumerate() {
        let middle = margin + pair_width * (at as f64 + 0.5);
        for (class, value, left) in
            [(classes.0, *first, middle - bar_width), (classes.1, *second, middle)]
        {
            let height = HEIGHT - BOTTOM - y(value, top);
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{bar_width:.1}\" height=\"{height:.1}\"/>",
                y(value, top)
            );
        }
        if at % label_step == 0 {
            let _ = write!(
                svg,
                "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                HEIGHT - 8.0
            );
        }
    }
    svg.push_str("</svg></div>");
    svg
}

/// A horizontal meter: shares of the whole, each with a CSS class; the rest is grey. Screen readers do not say it: the
/// numbers are beside it. SVG, because the content security policy does not allow `style` attributes.
pub(crate) fn meter(parts: &[(&str, f64)]) -> String {
    let mut svg = String::from(
        "<svg class=\"meter\" viewBox=\"0 0 100 1\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
    );
    let mut used = 0.0_f64;
    for (class, share) in parts {
        let share = if share.is_finite() { (share * 100.0).clamp(0.0, 100.0 - used) } else { 0.0 };
        if share > 0.0 {
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{used:.2}\" width=\"{share:.2}\" height=\"1\"/>"
            );
        }
        used += share;
    }
    svg.push_str("</svg>");
    svg
}

/// The start of a chart, in a box that scrolls where the page is too narrow for its labels.
fn open(title: &str) -> String {
    format!(
        "<div class=\"scroll\"><svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
    )
}

fn empty() -> String {
    "<p class=\"empty\">No data yet.</p>".to_owned()
}

fn y(value: f64, top: f64) -> f64 {
    TOP + (1.0 - (value / top).clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM)
}

/// The values that the y axis names.
fn y_steps(top: f64) -> impl Iterator<Item = f64> {
    (0..=4).map(move |step| top * f64::from(step) / 4.0)
}

/// The space for the labels of the y axis: an amount with its currency may need more than `LEFT`. A digit of the
/// style sheet's font takes up to 8 units.
fn left_margin(top: f64, label: &dyn Fn(f64) -> String) -> f64 {
    let longest = y_steps(top).map(|value| label(value).chars().count()).max().unwrap_or(0);
    (longest as f64 * 8.0 + 12.0).max(LEFT)
}

/// Each label once: where nothing was spent all of them are of the same amount, and a count has no quarters.
fn y_axis(svg: &mut String, left: f64, top: f64, label: &dyn Fn(f64) -> String) {
    let mut last = None;
    for value in y_steps(top) {
        let (at, text) = (y(value, top), label(value));
        if last.as_ref() == Some(&text) {
            continue;
        }
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            left - 8.0,
            at + 4.0,
            text
        );
        last = Some(text);
    }
}

/// The smallest of 1, 2, 4, 5, 8 times a power of ten that is not below `value`; 1 if there is no value.
fn nice_ceiling(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|candidate| *candidate >= value * 0.999_999)
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, top) in [(0.0, 1.0), (0.3, 0.4), (1.0, 1.0), (37.0, 40.0), (81.0, 100.0)] {
            assert!((nice_ceiling(value) - top).abs() < 1e-9, "{value}: {}", nice_ceiling(value));
        }
    }

    #[test]
    fn a_meter_never_overflows() {
        assert_eq!(
            meter(&[("a", 0.75), ("b", 0.75), ("c", f64::NAN)]),
            "<svg class=\"meter\" viewBox=\"0 0 100 1\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
             <rect class=\"a\" x=\"0.00\" width=\"75.00\" height=\"1\"/>\
             <rect class=\"b\" x=\"75.00\" width=\"25.00\" height=\"1\"/></svg>"
        );
    }

    #[test]
    fn a_chart_without_data_says_so() {
        assert!(lines("Size", &[], &|_| String::new(), &|_| String::new()).contains("No data yet"));
    }

    #[test]
    fn long_labels_of_the_y_axis_have_room() {
        let label = |value: f64| format!("{value:.2} USD");
        let svg = bar_pairs("Spend", &[("11-27".into(), 1_118.92, 631.27)], ("a", "b"), &label);
        // The longest label has eleven characters; it ends 8 units before the axis.
        assert!(svg.contains("x1=\"100.0\""), "{svg}");
        assert!(
            svg.contains("<text x=\"92.0\" y=\"16.0\" text-anchor=\"end\">2000.00 USD</text>"),
            "{svg}"
        );
    }

    #[test]
    fn an_axis_names_a_value_once() {
        let money = |micros: f64| format!("{:.2} USD", micros / 1e6);
        let svg = bar_pairs("Spend", &[("11-27".into(), 0.0, 0.0)], ("a", "b"), &money);
        // At the bottom.
        assert!(svg.contains("y=\"218.0\" text-anchor=\"end\">0.00 USD</text>"), "{svg}");
        assert_eq!(svg.matches("USD</text>").count(), 1, "{svg}");
        assert_eq!(svg.matches("class=\"grid\"").count(), 1, "{svg}");
        let count = |value: f64| (value as u64).to_string();
        let line = Line { class: "a", points: vec![(0.0, 0.0), (1.0, 2.0)] };
        let svg = lines("Size", &[line], &|_| String::new(), &count);
        for (value, times) in [(0, 1), (1, 1), (2, 1)] {
            assert_eq!(svg.matches(&format!(">{value}</text>")).count(), times, "{svg}");
        }
    }

    #[test]
    fn the_time_axis_names_each_minute_once_and_its_zone() {
        let line = Line { class: "a", points: vec![(0.0, 0.0), (90.0, 2.0)] };
        let minute = |seconds: f64| format!("01:5{}", (seconds / 60.0) as u64);
        let svg = lines("Size", &[line], &minute, &|_| String::new());
        assert_eq!(svg.matches(">UTC</text>").count(), 1, "{svg}");
        for label in [">01:50</text>", ">01:51</text>"] {
            assert_eq!(svg.matches(label).count(), 1, "{svg}");
        }
    }

    #[test]
    fn highest_value_is_drawn_at_the_top() {
        let line = Line { class: "a", points: vec![(0.0, 0.0), (1.0, 100.0)] };
        let svg = lines("Size", &[line], &|x| x.to_string(), &|y| y.to_string());
        assert!(svg.contains("role=\"img\" aria-label=\"Size\">"), "{svg}");
        assert!(svg.contains("points=\"70.0,214.0 988.0,12.0\""), "{svg}");
    }
}
