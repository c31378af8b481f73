//! Text that may come from anywhere, and numbers, as a page shows them.

use std::fmt::{self, Display, Formatter, Write};

/// Shows a value so that it stays text between tags and inside of a quoted attribute, whatever it is.
pub(super) struct Text<T>(pub(super) T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '&' => self.0.write_str("&amp;"),
            '<' => self.0.write_str("&lt;"),
            '>' => self.0.write_str("&gt;"),
            '"' => self.0.write_str("&quot;"),
            '\'' => self.0.write_str("&#39;"),
            c if c.is_control() && c != '\n' => self.0.write_char('\u{fffd}'),
            c => self.0.write_char(c),
        })
    }
}

/// A number with two digits that matter.
pub(super) fn short(x: f64) -> String {
    match x {
        _ if x == 0.0 => "0".to_string(),
        _ if x.is_nan() => "NaN".to_string(),
        _ if x.is_infinite() => "∞".to_string(),
        _ if (0.00995..0.0995).contains(&x) => format!("{x:.3}"),
        _ if (0.0995..0.995).contains(&x) => format!("{x:.2}"),
        _ if (0.995..9.95).contains(&x) => format!("{x:.1}"),
        _ if (9.95..9999.5).contains(&x) => format!("{x:.0}"),
        _ => format!("{x:.1e}"),
    }
}

/// A multiple.
pub(super) fn times(ratio: f64) -> String {
    match ratio {
        _ if !ratio.is_finite() => "∞×".to_string(),
        _ if ratio < 99.95 => format!("{ratio:.1}×"),
        _ if ratio < 9999.5 => format!("{ratio:.0}×"),
        _ => format!("{ratio:.0e}×"),
    }
}

/// A count, its thousands apart.
pub(super) fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// A count and what is counted: `1 tensor`, `2 tensors`.
pub(super) fn counted(n: usize, what: &str) -> String {
    format!("{} {what}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `315 × 2 × 16`.
pub(super) fn shape(dims: &[usize]) -> String {
    match dims {
        [] => "scalar".to_string(),
        dims => dims.iter().map(usize::to_string).collect::<Vec<_>>().join("×"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_comes_stays_text() {
        let shown = Text("<script>alert('\"&\u{0}\u{1b}')</script>").to_string();
        assert_eq!(shown, "&lt;script&gt;alert(&#39;&quot;&amp;\u{fffd}\u{fffd}&#39;)&lt;/script&gt;");
        assert_eq!(Text(format_args!("{}<", 1)).to_string(), "1&lt;");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 1.26e-7, f64::INFINITY, f64::NAN].map(short), ["0", "1.3e-7", "∞", "NaN"]);
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1\u{2009}000", "1\u{2009}234\u{2009}567"]
        );
        assert_eq!(
            [0.0094, 0.0123, 0.123, 0.996, 12.3, 1234.0, 12340.0].map(short),
            ["9.4e-3", "0.012", "0.12", "1.0", "12", "1234", "1.2e4"]
        );
        assert_eq!(
            (times(99.94), times(1.0), times(12345.0), times(f64::INFINITY)),
            ("99.9×".into(), "1.0×".into(), "1e4×".into(), "∞×".into())
        );
        assert_eq!((counted(1, "tensor"), counted(2, "tensor")), ("1 tensor".into(), "2 tensors".into()));
        assert_eq!((shape(&[]), shape(&[3, 2])), ("scalar".into(), "3×2".into()));
    }
}
