//! Mistakes that can be planted in a model, to see whether [`diag::bisect`](crate::diag::bisect()) finds them.
//!
//! Each is one that an engine made. Without the feature `planted-faults` none can be planted, [`Faults`] has no size, and
//! [`Faults::has`] is `false` to the compiler. Nothing else of Pyrex is known here.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Norms multiply by `1 + weight`.
    NormOffset,
    /// Softmax, and what norms are multiplied by, are rounded to bf16.
    Bf16Rounding,
    /// The context part of the per-layer embeddings is projected before images are put into place.
    ContextBeforeImages,
    /// Partly rotated heads rotate the pairs that should stay, and leave those that should turn.
    RopeHalf,
    /// A sliding window sees one token too many.
    WindowOffByOne,
    /// This layer reads its keys as values.
    KeysAsValues(usize),
    /// Logits are capped twice.
    SoftCapTwice,
    /// This layer, which shares keys and values, reads those of the layer before the right one.
    WrongDonor(usize),
    /// Columns and rows of an image's patches change places.
    AxesSwapped,
    /// Clipped linears do not clip.
    ClipIgnored,
    /// Embeddings are scaled by a factor in f32, whatever the dtype of the activations.
    UnroundedEmbeddingScale,
    /// This layer does not scale its output.
    LayerScalarDropped(usize),
}

/// The mistake that is planted, if one is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    #[cfg(feature = "planted-faults")]
    planted: Option<Fault>,
}

#[cfg(not(feature = "planted-faults"))]
const _: () = assert!(size_of::<Faults>() == 0);

impl Faults {
    /// Plants one.
    #[cfg(feature = "planted-faults")]
    pub fn planted(fault: Fault) -> Self {
        Self { planted: Some(fault) }
    }

    /// Whether it is this one.
    #[cfg(feature = "planted-faults")]
    pub(crate) fn has(self, fault: Fault) -> bool {
        self.planted == Some(fault)
    }

    /// Whether it is this one: never, in this build.
    #[cfg(not(feature = "planted-faults"))]
    pub(crate) fn has(self, _fault: Fault) -> bool {
        false
    }

    /// Whether it is this one in the layer that `path` lies in.
    pub(crate) fn has_in(self, fault: fn(usize) -> Fault, path: &str) -> bool {
        path.split('.').filter_map(|part| part.parse().ok()).any(|layer_idx| self.has(fault(layer_idx)))
    }
}
