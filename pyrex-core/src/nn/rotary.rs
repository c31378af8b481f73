//! Inverse frequencies of rotary embeddings; [`RopeTable`](crate::ops::rope::RopeTable) turns them and positions into angles.

/// `1 / theta^(2i / dim)` for `i < dim / 2`: text, and one axis of patches with `dim` the width of its segment.
pub fn standard_inv_freq(dim: usize, theta: f64) -> Vec<f32> {
    (0..dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim as f64) as f32).collect()
}

/// As [`standard_inv_freq`] for the first `factor` of the pairs, and 0 for the rest, which stay as they are.
///
/// The exponent's denominator is the whole head, not its rotated part.
///
/// Source: Transformers, `_compute_proportional_rope_parameters`.
pub fn proportional_inv_freq(head_dim: usize, theta: f64, factor: f64) -> Vec<f32> {
    let rotated = (factor * head_dim as f64 / 2.0).floor() as usize;
    let mut inv_freq = standard_inv_freq(head_dim, theta);
    inv_freq.iter_mut().skip(rotated).for_each(|f| *f = 0.0);
    inv_freq
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_a_head_of_512_rotates_64_pairs() {
        let inv_freq = proportional_inv_freq(512, 1e6, 0.25);
        assert_eq!(inv_freq.len(), 256);
        assert_eq!(inv_freq.iter().filter(|f| **f != 0.0).count(), 64);
        assert_eq!(inv_freq[0], 1.0);
        assert_eq!(inv_freq[63], 1e6f64.powf(-126.0 / 512.0) as f32);
        assert_eq!(inv_freq[64], 0.0);
    }

    #[test]
    fn the_slowest_standard_pair_is_close_to_theta() {
        let inv_freq = standard_inv_freq(256, 10_000.0);
        assert_eq!(inv_freq.len(), 128);
        assert_eq!(inv_freq[127], 10_000f64.powf(-254.0 / 256.0) as f32);
    }
}
