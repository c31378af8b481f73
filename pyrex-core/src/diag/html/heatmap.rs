//! [`Grid`]: a figure for each cell of a grid, by colour on a logarithmic scale.
//!
//! Cells of one colour are one path, and what each cell holds is one letter, so that thousands of them stay small.

use super::text::{Text, short};
use std::fmt::{self, Write};

/// Colours of the scale.
const NUM_COLOURS: usize = 10;
/// Letters of the scale: what a cell says when it is pointed at.
const LETTERS: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The range of the scale ends this far below its top.
const MAX_RANGE: f64 = 1e4;
/// It is at least this wide, so that what is even looks even.
const MIN_RANGE: f64 = 10.0;

/// Cells row after row; `None` where there is none.
pub(super) struct Grid {
    pub(super) columns: usize,
    pub(super) cells: Vec<Option<f64>>,
    /// What a cell is: `patch`.
    pub(super) unit: &'static str,
}

/// From where to where the colours go.
#[derive(Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
}

impl Grid {
    /// Draws it under `label`, with its scale.
    pub(super) fn draw(&self, page: &mut String, label: &str) -> fmt::Result {
        let Some(scale) = self.scale() else {
            let all = if self.cells.iter().flatten().any(|x| *x != 0.0) { "not finite" } else { "exact" };
            return writeln!(page, "<p class=\"none\">Every {} is {all}.</p>", self.unit);
        };
        let (columns, rows) = (self.columns, self.num_rows());
        let largest = (336 / columns.max(1)).clamp(14, 42);
        let (least, width) = (columns * 5, columns * (900 / columns.max(1)).clamp(5, largest));
        writeln!(
            page,
            "<div class=\"box\"><svg class=\"heat\" viewBox=\"0 0 {columns} {rows}\" \
             style=\"width:{width}px;min-width:min({least}px,60rem)\" role=\"img\" aria-label=\"{}\" \
             data-unit=\"{}\" data-low=\"{:e}\" data-high=\"{:e}\" data-cells=\"{}\">",
            Text(label),
            self.unit,
            scale.low,
            scale.high,
            self.letters(scale)
        )?;
        for colour in 0..NUM_COLOURS {
            self.path(page, &format!("h{colour}"), |x| scale.step(x, NUM_COLOURS) == Some(colour))?;
        }
        self.path(page, "zero", |x| x == 0.0)?;
        self.path(page, "wild", |x| !x.is_finite())?;
        let worst = self.worst();
        let (x, y) = (worst % self.columns, worst / self.columns);
        writeln!(page, "<rect class=\"ring\" x=\"{x}\" y=\"{y}\" width=\"1\" height=\"1\"/></svg></div>")?;
        let figure = self.cells.get(worst).copied().flatten().unwrap_or(0.0);
        write!(page, "<div class=\"scale\"><span>{}</span>", short(scale.low))?;
        (0..NUM_COLOURS).try_for_each(|colour| write!(page, "<i class=\"h{colour}\"></i>"))?;
        writeln!(page, "<span>{}</span></div>", short(scale.high))?;
        let place = if rows > 1 && self.unit != "token" { format!("({x}, {y})") } else { worst.to_string() };
        writeln!(
            page,
            "<p class=\"say\" aria-live=\"polite\">Worst: {} {place}, relative L2 {}</p>",
            self.unit,
            short(figure)
        )
    }

    fn num_rows(&self) -> usize {
        self.cells.len().div_ceil(self.columns.max(1))
    }

    /// The cell that is most off.
    fn worst(&self) -> usize {
        let size = |cell: usize| match self.cells[cell] {
            Some(x) if x.is_nan() => f64::INFINITY,
            Some(x) => x,
            None => -1.0,
        };
        (0..self.cells.len()).rev().max_by(|a, b| size(*a).total_cmp(&size(*b))).unwrap_or(0)
    }

    /// `None` if no cell is off by a finite number.
    fn scale(&self) -> Option<Scale> {
        let finite = || self.cells.iter().flatten().copied().filter(|x| x.is_finite() && *x > 0.0);
        let high = finite().reduce(f64::max)?;
        let low = finite().fold(high, f64::min);
        Some(Scale { low: low.max(high / MAX_RANGE).min(high / MIN_RANGE), high })
    }

    fn letters(&self, scale: Scale) -> String {
        let letter = |cell: &Option<f64>| match *cell {
            None => '.',
            Some(0.0) => '0',
            Some(x) => scale.step(x, LETTERS.len()).map_or('!', |step| char::from(LETTERS[step])),
        };
        self.cells.iter().map(letter).collect()
    }

    /// One path over all cells that are `wanted`, run by run.
    fn path(&self, page: &mut String, class: &str, wanted: impl Fn(f64) -> bool) -> fmt::Result {
        let mut path = String::new();
        for (y, row) in self.cells.chunks(self.columns.max(1)).enumerate() {
            let mut x = 0;
            for run in row.chunk_by(|a, b| a.is_some_and(&wanted) == b.is_some_and(&wanted)) {
                if run[0].is_some_and(&wanted) {
                    write!(path, "M{x} {y}h{0}v1h-{0}z", run.len())?;
                }
                x += run.len();
            }
        }
        match path.is_empty() {
            true => Ok(()),
            false => writeln!(page, "<path class=\"{class}\" d=\"{path}\"/>"),
        }
    }
}

impl Scale {
    /// Which of `num_steps` steps `x` is on, if it is on the scale or below.
    fn step(self, x: f64, num_steps: usize) -> Option<usize> {
        if !x.is_finite() || x <= 0.0 {
            return None;
        }
        let share = (x / self.low).ln() / (self.high / self.low).ln();
        Some(((share.max(0.0) * num_steps as f64) as usize).min(num_steps - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(columns: usize, cells: &[Option<f64>]) -> String {
        let mut page = String::new();
        Grid { columns, cells: cells.to_vec(), unit: "patch" }.draw(&mut page, "\"<i>\"").unwrap();
        page
    }

    #[test]
    fn runs_are_one_path_and_the_worst_has_a_ring() {
        let page = drawn(3, &[Some(1e-6), Some(1e-6), None, Some(0.0), Some(1e-3), Some(1e-6)]);
        assert!(page.contains("<path class=\"h0\" d=\"M0 0h2v1h-2zM2 1h1v1h-1z\"/>"), "{page}");
        assert!(page.contains("<path class=\"zero\" d=\"M0 1h1v1h-1z\"/>"), "{page}");
        assert!(page.contains("<rect class=\"ring\" x=\"1\" y=\"1\""), "{page}");
        assert!(page.contains("data-cells=\"AA.0zA\"") && page.contains("Worst: patch (1, 1)"), "{page}");
        assert!(page.contains("&quot;&lt;i&gt;&quot;"), "{page}");
    }

    #[test]
    fn cells_that_are_no_numbers_are_told_apart() {
        let page = drawn(2, &[Some(f64::NAN), Some(f64::INFINITY), Some(1e-3), Some(1e-40)]);
        assert!(
            page.contains("<path class=\"wild\" d=\"M0 0h2v1h-2z\"/>") && page.contains("!!zA"),
            "{page}"
        );
        assert!(drawn(2, &[Some(0.0), None]).contains("Every patch is exact"));
        assert!(drawn(2, &[Some(f64::NAN), Some(f64::INFINITY)]).contains("Every patch is not finite"));
        assert!(drawn(0, &[]).contains("exact"));
    }
}
