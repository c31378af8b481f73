//! [`FeatureCache`]: the vision tower's output of the images seen last, so that each is encoded once.
//!
//! A memo and nothing more: what it forgets is computed again. So nobody has to give anything back.

use crate::schedule::Digest;
use candle_core::Tensor;
use std::collections::HashMap;

/// Image features by the digest of the image, the least recently used forgotten first.
pub(crate) struct FeatureCache {
    features: HashMap<Digest, Remembered>,
    max_tokens: usize,
    num_tokens: usize,
    clock: u64,
    pub(crate) counts: FeatureCounts,
}

struct Remembered {
    features: Tensor,
    num_tokens: usize,
    used: u64,
}

/// How often an image was known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FeatureCounts {
    pub(crate) lookups: u64,
    pub(crate) hits: u64,
}

impl FeatureCache {
    /// A cache of up to `max_tokens` soft tokens.
    pub(crate) fn new(max_tokens: usize) -> Self {
        let counts = FeatureCounts::default();
        Self { features: HashMap::new(), max_tokens, num_tokens: 0, clock: 0, counts }
    }

    /// The features of this image, `[S, C]`, if they are known.
    pub(crate) fn find(&mut self, digest: Digest) -> Option<Tensor> {
        self.clock += 1;
        self.counts.lookups += 1;
        let remembered = self.features.get_mut(&digest)?;
        remembered.used = self.clock;
        self.counts.hits += 1;
        Some(remembered.features.clone())
    }

    /// Remembers the features of an image, unless it alone is too large.
    pub(crate) fn insert(&mut self, digest: Digest, features: Tensor, num_tokens: usize) {
        if num_tokens > self.max_tokens || self.features.contains_key(&digest) {
            return;
        }
        while self.num_tokens + num_tokens > self.max_tokens {
            let oldest = self.features.iter().min_by_key(|(_, remembered)| remembered.used);
            let Some(oldest) = oldest.map(|(digest, _)| *digest) else { break };
            self.num_tokens -= self.features.remove(&oldest).map_or(0, |forgotten| forgotten.num_tokens);
        }
        self.clock += 1;
        self.num_tokens += num_tokens;
        self.features.insert(digest, Remembered { features, num_tokens, used: self.clock });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn what_was_used_longest_ago_is_forgotten_first() {
        let features = |num_tokens| Tensor::zeros((num_tokens, 2), DType::F32, &Device::Cpu).expect("zeros");
        let mut cache = FeatureCache::new(10);
        (1..=2).for_each(|digest| cache.insert(Digest(digest), features(4), 4));
        assert!(cache.find(Digest(1)).is_some());
        cache.insert(Digest(3), features(5), 5);
        assert!(cache.find(Digest(1)).is_some() && cache.find(Digest(3)).is_some());
        assert!(cache.find(Digest(2)).is_none());
        cache.insert(Digest(4), features(11), 11);
        assert!(cache.find(Digest(4)).is_none() && cache.find(Digest(3)).is_some(), "too large to stay");
        assert_eq!(cache.num_tokens, 9);
        assert_eq!((cache.counts.lookups, cache.counts.hits), (6, 4));
    }
}
