//! Where the error lies: over the patches of the images, over their soft tokens, and along the prompt.
//!
//! Images follow each other in the rows of a tensor, and a grid begins anew where a patch is at (0, 0). A soft token is a
//! tile of `k × k` patches. Without a model at hand, `k` is what makes as many tiles as a tensor has rows.

use super::heatmap::Grid;
use super::text::counted;
use super::view::{Entry, View};
use crate::diag::file::DumpFile;
use crate::diag::grid::{PatchGrid, patch_grids};
use crate::error::Result;
use std::fmt::{self, Write};

/// Tensors per kind.
const MAX_TENSORS: usize = 3;
/// Images of one tensor.
const MAX_IMAGES: usize = 4;
/// Tokens per line, and lines.
const STRIP_LEN: usize = 64;
const MAX_LINES: usize = 64;
/// What the names of the tensors of a vision tower have in common.
const VISION: [&str; 2] = ["vision", "visual"];

/// What the rows of tensors stand for.
pub(super) struct Places {
    images: Vec<PatchGrid>,
    num_tokens: usize,
}

impl Places {
    /// What `reference` says of its images and its prompt.
    ///
    /// # Errors
    /// `Unsupported` if a tensor is of a type that no dump has.
    pub(super) fn of(reference: &DumpFile) -> Result<Self> {
        let positions = reference.tensor("prep.position_ids")?.map(|tensor| tensor.elements.to_f32());
        let ids = reference.tensor("prep.input_ids")?.map(|tensor| tensor.elements.len());
        Ok(Self {
            images: positions.and_then(|positions| patch_grids(&positions)).unwrap_or_default(),
            num_tokens: ids.unwrap_or(reference.manifest.prompt_ids.len()),
        })
    }

    pub(super) fn has_images(&self) -> bool {
        !self.images.is_empty()
    }

    fn num_patches(&self) -> usize {
        self.images.iter().map(|image| image.cells.len()).sum()
    }

    /// The side of the tiles if each image is made of whole tiles, `num_rows` in all.
    fn tile_side(&self, num_rows: usize) -> Option<usize> {
        let num_tiles = |side: usize| {
            self.images.iter().map(|image| image.rows / side * (image.columns / side)).sum::<usize>()
        };
        let whole =
            |side: usize| self.images.iter().all(|image| image.rows % side + image.columns % side == 0);
        (2..=16).find(|&side| whole(side) && num_tiles(side) == num_rows)
    }

    fn is_vision(&self, entry: &Entry<'_>) -> bool {
        entry.step == 0 && VISION.iter().any(|word| entry.compared.name.contains(word))
    }

    fn is_patches(&self, entry: &Entry<'_>) -> bool {
        self.has_images() && self.is_vision(entry) && num_rows(entry) == self.num_patches()
    }

    fn is_soft_tokens(&self, entry: &Entry<'_>) -> bool {
        self.is_vision(entry) && !self.is_patches(entry) && self.tile_side(num_rows(entry)).is_some()
    }

    fn is_tokens(&self, entry: &Entry<'_>) -> bool {
        let elsewhere = self.is_vision(entry) || entry.step > 0 || entry.compared.name.starts_with("prep.");
        !elsewhere && num_rows(entry) > 1 && num_rows(entry) == self.num_tokens
    }
}

fn num_rows(entry: &Entry<'_>) -> usize {
    entry.compared.figures().map_or(0, |figures| figures.rows.len())
}

fn differs(entry: &Entry<'_>) -> bool {
    entry.compared.figures().is_some_and(|figures| figures.rows.iter().any(|row| *row != 0.0))
}

/// Draws the worst tensors of the vision tower, and what its last layer says, over the images.
pub(super) fn draw_images(page: &mut String, view: &View<'_>, places: &Places) -> fmt::Result {
    let mut patches = view.worst(MAX_TENSORS, |entry| places.is_patches(entry) && differs(entry));
    let outputs = view.entries.iter().filter(|entry| places.is_patches(entry) && entry.operation.is_empty());
    if let Some(last) = outputs.filter(|entry| entry.layer.is_some()).max_by_key(|entry| entry.layer)
        && patches.iter().all(|entry| !std::ptr::eq(*entry, last))
    {
        patches.push(last);
    }
    let soft = view.worst(MAX_TENSORS, |entry| places.is_soft_tokens(entry) && differs(entry));
    if patches.is_empty() && soft.is_empty() {
        return writeln!(page, "<p class=\"none\">No tensor of the vision tower differs.</p>");
    }
    writeln!(page, "<div class=\"cards\">")?;
    for entry in patches {
        let per_image = |image: &PatchGrid| image.cells.len();
        draw_tensor(page, entry, places, &per_image, &|image, rows| Grid {
            columns: image.columns,
            cells: place(image.cells.len(), image.cells.iter().copied().zip(rows)),
            unit: "patch",
        })?;
    }
    for entry in soft {
        let side = places.tile_side(num_rows(entry)).unwrap_or(1);
        let per_image = |image: &PatchGrid| image.rows / side * (image.columns / side);
        draw_tensor(page, entry, places, &per_image, &|image, rows| Grid {
            columns: image.columns / side,
            cells: rows.iter().map(|row| Some(f64::from(*row))).collect(),
            unit: "soft token",
        })?;
    }
    writeln!(page, "</div>")
}

fn place<'a>(len: usize, rows: impl Iterator<Item = (usize, &'a f32)>) -> Vec<Option<f64>> {
    let mut cells = vec![None; len];
    for (cell, row) in rows {
        if let Some(cell) = cells.get_mut(cell) {
            *cell = Some(f64::from(*row));
        }
    }
    cells
}

/// One grid for each image; of many, those that are most off.
fn draw_tensor(
    page: &mut String,
    entry: &Entry<'_>,
    places: &Places,
    per_image: &dyn Fn(&PatchGrid) -> usize,
    grid: &dyn Fn(&PatchGrid, &[f32]) -> Grid,
) -> fmt::Result {
    let mut rows = entry.compared.figures().map_or(&[][..], |figures| &figures.rows);
    let mut images = Vec::new();
    for (idx, image) in places.images.iter().enumerate() {
        let (ours, rest) = rows.split_at(per_image(image).min(rows.len()));
        images.push((idx, image, ours));
        rows = rest;
    }
    let worst = |rows: &[f32]| rows.iter().copied().fold(0.0, f32::max);
    images.sort_by(|a, b| worst(b.2).total_cmp(&worst(a.2)));
    let num_more = images.len().saturating_sub(MAX_IMAGES);
    images.truncate(MAX_IMAGES);
    images.sort_by_key(|image| image.0);
    // A panorama needs all the width there is.
    let across = images.iter().any(|(_, image, _)| image.columns > 3 * image.rows);
    write!(page, "<figure{}><figcaption>", if across { " class=\"across\"" } else { "" })?;
    super::caption(page, entry)?;
    writeln!(page, "</figcaption>")?;
    for (idx, image, rows) in images {
        let grid = grid(image, rows);
        let (columns, lines) = (grid.columns, grid.cells.len() / grid.columns.max(1));
        writeln!(page, "<p class=\"dim\">image {}, {columns}×{lines} {}s</p>", idx + 1, plural(grid.unit))?;
        grid.draw(page, &format!("{} over image {}", entry.compared.name, idx + 1))?;
    }
    if num_more > 0 {
        writeln!(page, "<p class=\"dim\">and {} that are less off</p>", counted(num_more, "image"))?;
    }
    writeln!(page, "</figure>")
}

fn plural(unit: &str) -> &str {
    if unit == "patch" { "patche" } else { unit }
}

/// Draws the worst tensors of the decoder along the prompt.
pub(super) fn draw_tokens(page: &mut String, view: &View<'_>, places: &Places) -> fmt::Result {
    let worst = view.worst(MAX_TENSORS, |entry| places.is_tokens(entry) && differs(entry));
    if worst.is_empty() {
        return writeln!(page, "<p class=\"none\">No tensor along the prompt differs.</p>");
    }
    writeln!(page, "<div class=\"cards wide\">")?;
    for entry in worst {
        let rows = entry.compared.figures().map_or(&[][..], |figures| &figures.rows);
        let per_cell = rows.len().div_ceil(STRIP_LEN * MAX_LINES).max(1);
        let cell = |rows: &[f32]| Some(f64::from(rows.iter().copied().fold(0.0, worse)));
        let cells: Vec<_> = rows.chunks(per_cell).map(cell).collect();
        let columns = if cells.len() > STRIP_LEN * 3 / 2 { STRIP_LEN } else { cells.len() };
        write!(page, "<figure><figcaption>")?;
        super::caption(page, entry)?;
        write!(page, "<p class=\"dim\">{}", counted(rows.len(), "token"))?;
        if columns < cells.len() {
            write!(page, ", {columns} to a line")?;
        }
        if per_cell > 1 {
            write!(page, "; each cell is the worst of {per_cell}")?;
        }
        writeln!(page, "</p></figcaption>")?;
        Grid { columns, cells, unit: "token" }
            .draw(page, &format!("{} along the prompt", entry.compared.name))?;
        writeln!(page, "</figure>")?;
    }
    writeln!(page, "</div>")
}

/// The worse of two errors; no number is the worst.
fn worse(a: f32, b: f32) -> f32 {
    if a.is_nan() || b <= a { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::grid::tests::grid;

    #[test]
    fn tiles_are_as_many_as_rows() {
        let images = patch_grids(&[grid(45, 6), grid(3, 15)].concat()).unwrap();
        let places = Places { images, num_tokens: 0 };
        assert_eq!((places.num_patches(), places.tile_side(35), places.tile_side(36)), (315, Some(3), None));
    }

    #[test]
    fn no_number_is_worse_than_any() {
        assert!([1.0, f32::NAN, 2.0].into_iter().fold(0.0, worse).is_nan());
        assert_eq!([1.0, f32::INFINITY, 2.0].into_iter().fold(0.0, worse), f32::INFINITY);
    }
}
