//! Token ids to measure with, and prompts of them.

use pyrex_core::{EncodedPrompt, ModelSpec};

/// A prompt of so many [`made_up_ids`].
pub(crate) fn made_up_prompt(spec: &ModelSpec, seed: usize, len: usize) -> EncodedPrompt {
    EncodedPrompt { input_ids: made_up_ids(spec, seed, len), ..EncodedPrompt::default() }
}

/// Ordinary ids; those of another `seed` differ from the first one on.
pub(crate) fn made_up_ids(spec: &ModelSpec, seed: usize, len: usize) -> Vec<u32> {
    // Special tokens stand at the ends of a vocabulary; the lower half past its beginning is ordinary.
    let half = (spec.vocab_size / 2).max(1);
    (0..len).map(|i| ((i * 31 + seed * 7 + 97) % half) as u32).collect()
}
