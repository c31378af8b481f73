//! [`PatchGrid`]: the images of a dump, told apart by the positions of their patches.

/// More patches along a side than any image has.
const MAX_SIDE: f32 = 65_536.0;

/// The grid of an image: where each of its patches is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PatchGrid {
    /// Patches per row.
    pub(super) columns: usize,
    /// Rows of patches.
    pub(super) rows: usize,
    /// The cell of each patch, counted row by row.
    pub(super) cells: Vec<usize>,
}

/// The grids that `positions` (x and y of each patch) describe; `None` if they are no grids. One begins anew at (0, 0).
pub(super) fn patch_grids(positions: &[f32]) -> Option<Vec<PatchGrid>> {
    let positions: Vec<(f32, f32)> = positions.chunks_exact(2).map(|xy| (xy[0], xy[1])).collect();
    let mut starts: Vec<usize> =
        (0..positions.len()).filter(|&patch| positions[patch] == (0.0, 0.0)).collect();
    starts.push(positions.len());
    let grid = |bounds: &[usize]| {
        let patches = &positions[bounds[0]..bounds[1]];
        let (x, y) = patches.iter().fold((0.0f32, 0.0f32), |most, xy| (most.0.max(xy.0), most.1.max(xy.1)));
        let inside = |(x, y): &(f32, f32)| [x, y].iter().all(|at| (0.0..MAX_SIDE).contains(*at));
        if !patches.iter().all(inside) {
            return None;
        }
        let (columns, rows) = (x as usize + 1, y as usize + 1);
        let cell = |(x, y): &(f32, f32)| *y as usize * columns + *x as usize;
        (columns * rows == patches.len()).then(|| PatchGrid {
            columns,
            rows,
            cells: patches.iter().map(cell).collect(),
        })
    };
    if starts[0] != 0 { None } else { starts.windows(2).map(grid).collect() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::diag) fn grid(columns: usize, rows: usize) -> Vec<f32> {
        (0..rows).flat_map(|y| (0..columns).flat_map(move |x| [x as f32, y as f32])).collect()
    }

    fn sizes(positions: &[f32]) -> Option<Vec<(usize, usize)>> {
        Some(patch_grids(positions)?.iter().map(|grid| (grid.columns, grid.rows)).collect())
    }

    #[test]
    fn a_grid_begins_anew_at_its_corner() {
        assert_eq!(sizes(&[grid(3, 2), grid(1, 1), grid(6, 6)].concat()), Some(vec![(3, 2), (1, 1), (6, 6)]));
        assert_eq!(sizes(&[]), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_grid_is_none() {
        for positions in
            [&[0.0, 0.0, 1e30, 1e30][..], &[1.0, 0.0], &[0.0, 0.0, f32::NAN, 1.0], &[0.0, 0.0, -1.0, 1.0]]
        {
            assert_eq!(sizes(positions), None, "{positions:?}");
        }
    }
}
