//! Quantiles of the beta distribution.

/// Coefficients of Lanczos' approximation with `g = 7`: an error below 1e-13.
const LANCZOS: [f64; 9] = [
    0.999_999_999_999_809_8,
    676.520_368_121_885_1,
    -1_259.139_216_722_402_8,
    771.323_428_777_653_1,
    -176.615_029_162_140_6,
    12.507_343_278_686_905,
    -0.138_571_095_265_720_12,
    9.984_369_578_019_572e-6,
    1.505_632_735_149_311_6e-7,
];
/// The continued fraction needs about the root of its larger parameter; more than this is for none.
const MOST_TERMS: u32 = 20_000;

/// The logarithm of the gamma function of a positive number (Lanczos, SIAM J. Numer. Anal. B 1, 1964).
fn ln_gamma(x: f64) -> f64 {
    let x = x - 1.0;
    let terms = (1u32..).zip(&LANCZOS[1..]);
    let sum = terms.fold(LANCZOS[0], |sum, (n, c)| sum + c / (x + f64::from(n)));
    let t = x + 7.5;
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    let nonzero = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for m in 1..MOST_TERMS {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for step in [even, odd] {
            d = 1.0 / nonzero(1.0 + step * d);
            c = nonzero(1.0 + step / c);
            change = d * c;
            value *= change;
        }
        if (change - 1.0).abs() < 1e-14 {
            break;
        }
    }
    value
}

/// The share of a beta distribution below `x`: the regularised incomplete beta function.
pub(crate) fn below(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let ln_front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p();
    // Where the fraction converges fast.
    let share = if x < (a + 1.0) / (a + b + 2.0) {
        ln_front.exp() * fraction(a, b, x) / a
    } else {
        1.0 - ln_front.exp() * fraction(b, a, 1.0 - x) / b
    };
    share.clamp(0.0, 1.0)
}

/// The value below which a share of a beta distribution is.
pub(crate) fn quantile(a: f64, b: f64, share: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if below(a, b, middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the trapezoid rule over the density, in place of the fraction.
    fn by_integration(a: f64, b: f64, x: f64) -> f64 {
        const STEPS: u32 = 100_000;
        let density = |t: f64| t.powf(a - 1.0) * (1.0 - t).powf(b - 1.0);
        let area = |to: f64| {
            let width = to / f64::from(STEPS);
            let inner: f64 = (1..STEPS).map(|n| density(f64::from(n) * width)).sum();
            width * (inner + (density(0.0) + density(to)) / 2.0)
        };
        area(x) / area(1.0)
    }

    #[test]
    fn it_is_the_area_under_the_density() {
        for (a, b) in [(1.0, 1.0), (2.0, 5.0), (5.5, 250.0), (40.0, 3.0), (120.0, 90.0)] {
            for x in [0.001, 0.02, 0.1, 0.5, 0.57, 0.93, 0.999] {
                let (ours, area) = (below(a, b, x), by_integration(a, b, x));
                assert!((ours - area).abs() < 1e-6, "{a} {b} {x}: {ours} and {area}");
            }
        }
    }

    #[test]
    fn quantiles_are_the_inverse() {
        for (a, b) in [(1.0, 1.0), (0.5, 3.0), (20.0, 980.0), (19_000.0, 1_000.0), (3e5, 1.5e7)] {
            for share in [0.025, 0.5, 0.975] {
                let x = quantile(a, b, share);
                assert!((below(a, b, x) - share).abs() < 1e-6, "{a} {b} {share}: {x}");
            }
        }
        // Of the uniform distribution.
        assert!((quantile(1.0, 1.0, 0.3) - 0.3).abs() < 1e-12);
    }
}
