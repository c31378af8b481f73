//! [`LogAxis`]: powers of ten along a line.

/// Decades an axis has at the least.
const MIN_DECADES: i32 = 2;
/// Labels it has at the most.
const MAX_TICKS: i32 = 9;

/// From `10^low` to `10^high`, drawn from `start` to `end`.
pub(super) struct LogAxis {
    low: i32,
    high: i32,
    start: f64,
    end: f64,
}

impl LogAxis {
    /// Room for all of `values` that have a logarithm.
    pub(super) fn over(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let logs = values.filter(|x| x.is_finite() && *x > 0.0).map(f64::log10);
        let (low, high) = logs.fold((f64::MAX, f64::MIN), |(low, high), log| (low.min(log), high.max(log)));
        let (low, high) = if low > high { (-1.0, 0.0) } else { (low, high) };
        let (low, high) = (low.floor() as i32, high.ceil() as i32);
        Self { low: low.min(high - MIN_DECADES), high, start, end }
    }

    /// Where `x` is; what is beyond an end, or not a number, is at that end.
    pub(super) fn at(&self, x: f64) -> f64 {
        let share = match x {
            _ if x <= 0.0 => 0.0,
            _ if !x.is_finite() => 1.0,
            _ => ((x.log10() - f64::from(self.low)) / f64::from(self.high - self.low)).clamp(0.0, 1.0),
        };
        self.start + share * (self.end - self.start)
    }

    /// Where the labels stand, and the powers of ten they show.
    pub(super) fn ticks(&self) -> impl Iterator<Item = (f64, i32)> {
        let step = (self.high - self.low + MAX_TICKS - 1) / MAX_TICKS;
        let exponents = (self.low..=self.high).step_by(step.max(1) as usize);
        exponents.map(|exponent| (self.at(10f64.powi(exponent)), exponent))
    }
}

/// `10⁻⁷`.
pub(super) fn power_of_ten(exponent: i32) -> String {
    let superscript = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c => c.to_digit(10).and_then(|digit| char::from_u32(0x2070 + digit)).unwrap_or(c),
    };
    match exponent {
        0 => "1".to_string(),
        exponent => "10".chars().chain(exponent.to_string().chars().map(superscript)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_holds_its_values_and_survives_others() {
        let axis = LogAxis::over([3e-7, 2e-4, f64::NAN, f64::INFINITY, 0.0].into_iter(), 0.0, 100.0);
        let ticks: Vec<_> = axis.ticks().collect();
        assert_eq!(ticks.iter().map(|tick| tick.1).collect::<Vec<_>>(), [-7, -6, -5, -4, -3]);
        assert_eq!((ticks[0].0, ticks[4].0), (0.0, 100.0));
        assert_eq!(
            (axis.at(0.0), axis.at(1e-30), axis.at(f64::NAN), axis.at(f64::INFINITY)),
            (0.0, 0.0, 100.0, 100.0)
        );
        assert_eq!(LogAxis::over([].into_iter(), 0.0, 1.0).ticks().count(), 3);
        assert_eq!(LogAxis::over([1e-4].into_iter(), 0.0, 1.0).ticks().count(), 3);
        assert!(LogAxis::over([1e-300, 1e300].into_iter(), 0.0, 1.0).ticks().count() <= 10);
    }

    #[test]
    fn powers_are_raised() {
        assert_eq!([-12, 0, 1, 3].map(power_of_ten), ["10⁻¹²", "1", "10¹", "10³"]);
    }
}
