//! Gemma 4: E2B and E4B, text and images. `README.md` beside this file draws the whole of it.

pub mod answer;
pub mod config;
pub mod decoder;
mod describe;
mod dummy;
pub mod ple;
pub mod pooler;
pub mod prompt;
pub mod vision;
pub mod weights;

use super::load::generation_defaults;
use super::{Family, LoadFormat, LoadOptions, LoadedModel, Model, ModelSpec};
use crate::batch::{Batch, ImageBatch};
use crate::error::{Error, Result};
use crate::fault::{Fault, Faults};
use crate::kv::KvPool;
use crate::ops::gather::mask_ids;
use crate::prompt::Patches;
use crate::trace::Tap;
use crate::weights::{Asked, Store, UsedWeight};
use candle_core::{DType, Tensor};
use config::Config;
use decoder::Decoder;
use pooler::MultimodalEmbedder;
use prompt::{Gemma4Processor, ImageGrid};
use std::collections::BTreeMap;
use std::sync::Arc;
use vision::VisionTower;

/// Gemma 4, E2B and E4B.
pub const FAMILY: Family = Family {
    name: "gemma4",
    architectures: &["Gemma4ForConditionalGeneration", "Gemma4ForCausalLM"],
    load,
    describe: describe::describe,
};

/// A Gemma 4 checkpoint, ready to run.
pub struct Gemma4 {
    decoder: Decoder,
    vision: Option<Vision>,
    config: Config,
    spec: ModelSpec,
    /// The tensors it is made of, by name.
    tensors: BTreeMap<String, Asked>,
    faults: Faults,
}

struct Vision {
    tower: VisionTower,
    embed_vision: MultimodalEmbedder,
}

fn load(options: &LoadOptions) -> Result<LoadedModel> {
    let mut config = Config::read(&options.source)?;
    plant_wrong_donor(&mut config, options.faults);
    let source = match options.format {
        LoadFormat::Safetensors => options.source.clone(),
        LoadFormat::Dummy => dummy::complete(&options.source, &config)?,
    };
    let processor = Gemma4Processor::new(&source)?;
    if let Some(vision) = &config.vision {
        check_grid(processor.grid(), vision)?;
    }
    let generation = generation_defaults(&source, &config.eos_token_ids)?;
    let spec = ModelSpec {
        family: FAMILY.name,
        kv: config.kv_layout(),
        vocab_size: config.text.vocab_size,
        max_position_embeddings: config.text.max_position_embeddings,
        image_token_id: processor.image_token_id(),
        stop_ids: generation.stop_ids,
        sampling: generation.sampling,
        dtype: options.dtype,
        device: options.device.clone(),
        stage_of,
    };
    let progress = options.progress.as_deref().map(|progress| progress as &dyn Fn(u64, u64) -> Result<()>);
    let store = match options.format {
        LoadFormat::Safetensors => Store::from_files(options.source.weight_files()?, &options.device)?,
        LoadFormat::Dummy => Store::dummy(&options.device),
    };
    let store = store.with_progress(progress).with_faults(options.faults).with_tables(options.tables);
    let model = Gemma4::load(&store, config, spec, options.vision_dtype)?;
    Ok(LoadedModel { model: Box::new(model), processor: Arc::new(processor) })
}

/// The stage that a tap belongs to.
fn stage_of(tap: &str) -> &'static str {
    match tap {
        _ if tap.starts_with("prep.") => "prompt",
        _ if tap.starts_with("model.vision_tower") => "vision tower",
        _ if tap.starts_with("model.embed_vision") => "vision embedder",
        _ if tap.contains(".layers.") => "decoder",
        "lm_head" | "logits" => "head",
        _ if tap.ends_with(".norm") => "head",
        _ => "embeddings",
    }
}

/// Lets a layer read the keys and values of the layer before the right one.
fn plant_wrong_donor(config: &mut Config, faults: Faults) {
    for (layer_idx, plan) in config.text.layers.iter_mut().enumerate() {
        if faults.has(Fault::WrongDonor(layer_idx)) {
            plan.reads_kv_of = plan.reads_kv_of.and_then(|donor| donor.checked_sub(1));
        }
    }
}

/// Images must be cut as the tower reads them.
fn check_grid(grid: ImageGrid, vision: &config::VisionConfig) -> Result<()> {
    let (cut, read) =
        ([grid.patch_size, grid.pooling_kernel_size], [vision.patch_size, vision.pooling_kernel_size]);
    if cut == read {
        return Ok(());
    }
    Err(Error::invalid_model(format_args!(
        "processor_config.json has patch_size and pooling_kernel_size {cut:?}, vision_config {read:?}"
    )))
}

fn load_parts(store: &Store<'_>, config: &Config, dtype: DType, vision_dtype: DType) -> Result<(Decoder, Option<Vision>)> {
    let root = store.root();
    let decoder = Decoder::load(&root, &root.at(config.text_prefix), &config.text, dtype)?;
    let load_vision = |vision: &config::VisionConfig| -> Result<Vision> {
        let (tower, embed) = (root.at("model.vision_tower"), root.at("model.embed_vision"));
        Ok(Vision {
            tower: VisionTower::load(&tower, vision, vision_dtype)?,
            embed_vision: MultimodalEmbedder::load(&embed, vision, config.text.hidden_size, dtype)?,
        })
    };
    let vision = config.vision.as_ref().map(load_vision).transpose()?;
    Ok((decoder, vision))
}

impl Gemma4 {
    fn load(store: &Store<'_>, config: Config, spec: ModelSpec, vision_dtype: DType) -> Result<Self> {
        let (decoder, vision) = load_parts(store, &config, spec.dtype, vision_dtype)?;
        store.finish(|name| weights::is_inert(&config, name))?;
        let tensors = store.asked().into_iter().map(|asked| (asked.name.clone(), asked)).collect();
        Ok(Self { decoder, vision, config, spec, tensors, faults: store.root().faults() })
    }

    fn vision(&self) -> Result<(&Vision, &config::VisionConfig)> {
        match (&self.vision, &self.config.vision) {
            (Some(vision), Some(config)) => Ok((vision, config)),
            _ => Err(Error::unsupported("this checkpoint has no vision tower: its config.json has no vision_config")),
        }
    }
}

impl Model for Gemma4 {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn image_batch(&self, images: &[&Patches]) -> Result<ImageBatch> {
        let (_, config) = self.vision()?;
        vision::image_batch(images, config, &self.spec.device, self.faults)
    }

    fn encode_images(&self, images: &ImageBatch, tap: &mut dyn Tap) -> Result<Tensor> {
        let (vision, _) = self.vision()?;
        let soft_tokens = vision.tower.forward(tap, images)?;
        vision.embed_vision.forward(tap, &soft_tokens)
    }

    fn forward(&self, batch: &Batch, kv: &mut KvPool, tap: &mut dyn Tap) -> Result<Tensor> {
        let input_ids = tap.see(|| "prep.input_ids".to_string(), batch.input_ids.clone())?;
        let input_ids = mask_ids(&input_ids, &self.config.placeholder_ids, self.config.text.pad_token_id)?;
        self.decoder.forward(tap, &input_ids, batch, kv)
    }

    fn weight_of(&self, tap: &str) -> Option<UsedWeight<'_>> {
        weights::weight_of(&self.config, &self.tensors, tap)
    }
}
