//! The prompt of a dump, as ids and patches; and a prompt of our own against it.

use crate::diag::compare::{Compared, outcome};
use crate::diag::file::{DumpFile, DumpTensor};
use crate::error::{Error, Result};
use crate::models::ModelSpec;
use crate::prompt::{EncodedImage, EncodedPrompt, Patches};

/// More patches along a side than any image has.
const MAX_POSITION: f32 = 65_535.0;

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

/// Takes `[P, patch values]` apart where a grid begins anew.
fn images(pixels: &DumpTensor<'_>, positions: &DumpTensor<'_>) -> Result<Vec<Patches>> {
    let positions_shape = positions.shape;
    let (values, positions) = (pixels.elements.to_f32(), positions.elements.to_f32());
    let num_patches = positions.len() / 2;
    let inside = |position: &f32| (0.0..=MAX_POSITION).contains(position);
    let fits = positions.len() == 2 * num_patches
        && positions.iter().all(inside)
        && positions.starts_with(&[0.0, 0.0]);
    if !fits || !values.len().is_multiple_of(num_patches) {
        return Err(Error::invalid_request(format_args!(
            "prep.pixel_values is {:?} and prep.position_ids {:?} in the dump, expected [P, values of a patch], and \
             [P, 2] with positions that begin at (0, 0) and end before {MAX_POSITION}",
            pixels.shape, positions_shape
        )));
    }
    let patch_len = values.len() / num_patches;
    let starts = (0..num_patches).filter(|patch| positions[2 * patch..2 * patch + 2] == [0.0, 0.0]);
    let starts: Vec<usize> = starts.chain([num_patches]).collect();
    let image = |bounds: &[usize]| {
        let last = &positions[2 * bounds[1] - 2..2 * bounds[1]];
        let byte = |value: &f32| (value * 255.0).round() as u8;
        let pixels = values[bounds[0] * patch_len..bounds[1] * patch_len].iter().map(byte).collect();
        Patches { columns: last[0] as usize + 1, rows: last[1] as usize + 1, pixels }
    };
    Ok(starts.windows(2).map(image).collect())
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
