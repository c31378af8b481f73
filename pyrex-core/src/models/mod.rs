//! The model families, and the two traits through which the engine sees them.
//!
//! A family is one folder and one line in `families!`. It must not know about scheduling, requests,
//! or which device it runs on.

pub mod answer;
pub mod description;
pub mod load;
#[cfg(feature = "test-util")]
pub mod scripted;

use crate::batch::{Batch, ImageBatch};
use crate::error::Result;
use crate::kv::{KvLayout, KvPool};
use crate::prompt::detokenizer::{Detokenizer, TokenBytes};
use crate::prompt::{Chat, EncodedPrompt, Patches, Prompt};
use crate::trace::Tap;
use crate::weights::UsedWeight;
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

pub use answer::{AnswerFormat, AnswerParser, AnswerPiece, CallRules, PlainAnswers, ReasoningMarks, Tell};
pub use description::{ComponentDescription, LayerDescription, ModelDescription, describe};
pub use load::{LoadFormat, LoadOptions, ModelSource, Progress, load};

/// A decoder, with a vision tower if the checkpoint has one.
pub trait Model: Send {
    /// What the engine must know to feed it.
    fn spec(&self) -> &ModelSpec;

    /// Lays preprocessed images out for [`encode_images`](Self::encode_images), on the model's device.
    ///
    /// # Errors
    /// `Unsupported` if the checkpoint has no vision tower.
    fn image_batch(&self, images: &[&Patches]) -> Result<ImageBatch>;

    /// The soft tokens of `images`, `[S, C]`, in the space of the decoder's embeddings.
    ///
    /// # Errors
    /// `Unsupported` if the checkpoint has no vision tower.
    fn encode_images(&self, images: &ImageBatch, tap: &mut dyn Tap) -> Result<Tensor>;

    /// Runs the new tokens of `batch`, writes their keys and values to `kv`, and returns the logits of the wanted rows, `[R, V]` f32.
    ///
    /// # Errors
    /// `Internal` if the batch does not fit the cache; whatever the tap says.
    fn forward(&self, batch: &Batch, kv: &mut KvPool, tap: &mut dyn Tap) -> Result<Tensor>;

    /// The weight that went into what `tap` shows, by the tap's name; `None` if there is none, or the family does not say.
    fn weight_of(&self, tap: &str) -> Option<UsedWeight<'_>> {
        let _ = tap;
        None
    }
}

/// Turns prompts into ids and patches, and ids back into text. Shared by the threads that prepare and deliver.
pub trait Processor: Send + Sync {
    /// Renders, tokenizes, decodes and resizes.
    ///
    /// # Errors
    /// `InvalidRequest` if the prompt cannot be rendered or an image cannot be read.
    fn encode(&self, prompt: &Prompt) -> Result<EncodedPrompt>;

    /// A conversation as the model's template writes it, one placeholder for each image.
    ///
    /// # Errors
    /// `InvalidRequest` if there is no template, or it refuses the conversation.
    fn render(&self, chat: &Chat) -> Result<String>;

    /// The ids of `text`, with nothing added before or after.
    ///
    /// # Errors
    /// `InvalidRequest` if the vocabulary has no way to write it.
    fn tokenize(&self, text: &str) -> Result<Vec<u32>>;

    /// A fresh stream from ids to text.
    fn detokenizer(&self) -> Detokenizer;

    /// How answers are read; unless the family says otherwise, they are text and nothing else.
    fn answer_format(&self) -> Arc<dyn AnswerFormat> {
        Arc::new(PlainAnswers)
    }

    /// What every id says, by id; special tokens say nothing. Takes a while: for whoever keeps it, as grammars do.
    fn vocabulary(&self) -> Vec<TokenBytes> {
        self.detokenizer().vocabulary()
    }
}

/// What the engine must know about a model.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// The family's name.
    pub family: &'static str,
    /// Which layers own keys and values.
    pub kv: KvLayout,
    /// Entries of the vocabulary, `V`.
    pub vocab_size: usize,
    /// The longest sequence the model was made for.
    pub max_position_embeddings: usize,
    /// The id that stands where the soft tokens of an image go.
    pub image_token_id: Option<u32>,
    /// Ids that end a generation.
    pub stop_ids: Vec<u32>,
    /// How the checkpoint wants to be sampled.
    pub sampling: SamplingDefaults,
    /// The dtype of the activations.
    pub dtype: DType,
    /// Where the model runs.
    pub device: Device,
    /// The stage of the forward pass that a tap belongs to, by its name.
    pub stage_of: fn(&str) -> &'static str,
}

/// A checkpoint's own sampling parameters, from `generation_config.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingDefaults {
    /// Temperature; `None` if the checkpoint wants greedy decoding.
    pub temperature: Option<f32>,
    /// Keep the `k` likeliest tokens.
    pub top_k: Option<usize>,
    /// Keep the likeliest tokens up to this mass.
    pub top_p: Option<f32>,
}

/// A model and its processor, ready to run.
pub struct LoadedModel {
    /// Runs on one thread.
    pub model: Box<dyn Model>,
    /// Runs on any.
    pub processor: Arc<dyn Processor>,
}

/// A family of models: which checkpoints it reads, and how.
pub struct Family {
    /// Its name, that of its folder.
    pub name: &'static str,
    /// The architectures of `config.json` it answers to.
    pub architectures: &'static [&'static str],
    /// Loads a checkpoint.
    pub load: fn(&LoadOptions) -> Result<LoadedModel>,
    /// Describes a checkpoint without loading it; what this build cannot run is described too, not refused.
    pub describe: fn(&ModelSource) -> Result<ModelDescription>,
}

/// Declares the family modules and the one table of them.
macro_rules! families {
    ($($family:ident),+ $(,)?) => {
        $(pub mod $family;)+

        /// Every family this build knows.
        pub static FAMILIES: &[Family] = &[$($family::FAMILY),+];
    };
}

families! {
    gemma4,
}
