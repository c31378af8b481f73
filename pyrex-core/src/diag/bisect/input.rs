//! The prompt of a dump, as ids and patches; and a prompt of our own against it.

use crate::diag::compare::{Compared, outcome};
use crate::diag::file::{DumpFile, DumpTensor};
use crate::diag::grid::{PatchGrid, patch_grids};
use crate::error::{Error, Result};
use crate::models::ModelSpec;
use crate::prompt::{EncodedImage, EncodedPrompt, Patches};

/// The prompt that `reference` was made with.
///
/// # Errors
/// `InvalidRequest` if the dump has no ids, or its images do not fit them.
pub(super) fn of(reference: &DumpFile, spec: &ModelSpec) -> Result<EncodedPrompt> {
    let input_ids = match reference.tensor("prep.input_ids")? {
        Some(ids) => ids.elements.to_f32().into_iter().map(|id| id as u32).collect(),
        None => reference.manifest.prompt_ids.clone(),
    };
    if input_ids.is_empty() {
        return Err(Error::invalid_request(
            "the dump has neither prep.input_ids nor prompt_ids in its manifest",
        ));
    }
    let images = match (reference.tensor("prep.pixel_values")?, reference.tensor("prep.position_ids")?) {
        (Some(pixels), Some(positions)) => images(&pixels, &positions)?,
        _ => Vec::new(),
    };
    place(input_ids, images, spec)
}

/// Gives each image its share of the rows that hold the image id.
fn place(input_ids: Vec<u32>, images: Vec<Patches>, spec: &ModelSpec) -> Result<EncodedPrompt> {
    let rows: Vec<usize> =
        (0..input_ids.len()).filter(|&row| Some(input_ids[row]) == spec.image_token_id).collect();
    // The rows of one image stand together; images of one prompt stand apart.
    let runs: Vec<_> = rows.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..run[0] + run.len()).collect();
    if runs.len() != images.len() {
        return Err(Error::invalid_request(format_args!(
            "the dump has {} images in its ids and {} in prep.pixel_values: dump it with prep.* included",
            runs.len(),
            images.len()
        )));
    }
    let images =
        runs.into_iter().zip(images).map(|(tokens, patches)| EncodedImage { tokens, patches }).collect();
    Ok(EncodedPrompt { input_ids, images })
}

/// Takes `[P, patch values]` apart into the images that the positions describe.
fn images(pixels: &DumpTensor<'_>, positions: &DumpTensor<'_>) -> Result<Vec<Patches>> {
    let (values, num_patches) = (pixels.elements.to_f32(), positions.elements.len() / 2);
    let whole = num_patches > 0
        && positions.elements.len() == 2 * num_patches
        && values.len().is_multiple_of(num_patches);
    let grids = patch_grids(&positions.elements.to_f32()).filter(|_| whole).ok_or_else(|| {
        Error::invalid_request(format_args!(
            "prep.pixel_values is {:?} and prep.position_ids {:?} in the dump, expected [P, values of a patch], and \
             [P, 2] with the positions of whole grids, each beginning at (0, 0)",
            pixels.shape, positions.shape
        ))
    })?;
    let patch_len = values.len() / num_patches;
    let mut rest = values.as_slice();
    let image = |PatchGrid { columns, rows, cells }: PatchGrid| {
        let (own, others) = rest.split_at(cells.len() * patch_len);
        rest = others;
        let byte = |value: &f32| (value * 255.0).round() as u8;
        Patches { columns, rows, pixels: own.iter().map(byte).collect() }
    };
    Ok(grids.into_iter().map(image).collect())
}

/// What is prepared here against what the dump has: ids and pixels are exact.
pub(super) fn compare(ours: &EncodedPrompt, theirs: &EncodedPrompt) -> Vec<Compared> {
    let ids = |prompt: &EncodedPrompt| prompt.input_ids.iter().map(|id| *id as f32).collect::<Vec<f32>>();
    let pixels = |prompt: &EncodedPrompt| -> Vec<f32> {
        let bytes = prompt.images.iter().flat_map(|image| &image.patches.pixels);
        bytes.map(|byte| f32::from(*byte) / 255.0).collect()
    };
    let one = |name: &str, ours: Vec<f32>, theirs: Vec<f32>| {
        let (ours_shape, theirs_shape) = ([ours.len()], [theirs.len()]);
        let ours = DumpTensor { shape: &ours_shape, elements: ours.as_slice().into() };
        let theirs = DumpTensor { shape: &theirs_shape, elements: theirs.as_slice().into() };
        Compared { name: name.to_string(), outcome: outcome(&ours, &theirs, Some(0.0)) }
    };
    let mut compared = vec![one("prep.input_ids", ids(ours), ids(theirs))];
    if !ours.images.is_empty() || !theirs.images.is_empty() {
        compared.push(one("prep.pixel_values", pixels(ours), pixels(theirs)));
    }
    compared
}
