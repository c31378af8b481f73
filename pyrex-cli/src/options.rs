//! The arguments that several commands share: which model, where it runs, and the prompt.

use crate::bundled;
use crate::fail::Failure;
use crate::progress;
use clap::{Args, ValueEnum};
use pyrex_core::{
    ActivationDtype, Chat, DeviceChoice, EngineOptions, LoadFormat, LoadOptions, LoadedModel, Message,
    ModelInput, ModelSource, Part, Prompt, TablePlace, load,
};
use std::fs;
use std::path::{Path, PathBuf};

/// The longest image file that is read, in bytes; the core has tighter limits on what is inside.
const MAX_IMAGE_BYTES: u64 = 256 << 20;

/// Which model.
#[derive(Args)]
pub(crate) struct ModelArguments {
    /// Folder of a checkpoint [default: the small bundled model]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
}

/// Where the weights come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Weights {
    /// The files of the checkpoint.
    #[default]
    Safetensors,
    /// Made-up numbers of the right shapes: a lone config.json will do as --model.
    Dummy,
}

impl Weights {
    /// As the core calls it.
    pub(crate) fn format(self) -> LoadFormat {
        match self {
            Self::Safetensors => LoadFormat::Safetensors,
            Self::Dummy => LoadFormat::Dummy,
        }
    }
}

/// Where it runs.
#[derive(Clone, Copy, Args)]
pub(crate) struct RunArguments {
    /// cpu, cuda or cuda:n
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceChoice,
    /// Dtype of the activations, f32 or bf16 [default: f32 on the CPU, bf16 on CUDA]
    #[arg(long)]
    pub(crate) dtype: Option<ActivationDtype>,
    /// Dtype of the vision tower, f32 or bf16
    #[arg(long, default_value_t = ActivationDtype::F32)]
    pub(crate) vision_dtype: ActivationDtype,
    /// Where large tables such as the per-layer embeddings lie, device or host
    #[arg(long, default_value_t)]
    pub(crate) tables: TablePlace,
}

/// How many threads it gets.
#[derive(Args)]
pub(crate) struct ThreadArguments {
    /// Threads that compute [default: one per core]
    #[arg(long, visible_alias = "threads", value_name = "N", value_parser = at_least_one)]
    pub(crate) num_threads: Option<usize>,
}

/// What is asked.
#[derive(Args)]
pub(crate) struct PromptArguments {
    /// An image file: PNG, JPEG, WebP, GIF or BMP; may be given several times
    #[arg(long, value_name = "F")]
    pub(crate) image: Vec<PathBuf>,
    /// A system turn in front
    #[arg(long, value_name = "S")]
    pub(crate) system: Option<String>,
    /// What to ask [default with an image: Describe this image.]
    #[arg(long, value_name = "P")]
    pub(crate) prompt: Option<String>,
}

impl ModelArguments {
    /// The checkpoint they mean.
    pub(crate) fn source(&self) -> Result<ModelSource, Failure> {
        self.model.as_deref().map_or_else(|| Ok(bundled::source()), folder)
    }

    /// What to call it.
    pub(crate) fn name(&self) -> String {
        self.model
            .as_deref()
            .map_or_else(|| "the bundled model".to_owned(), |path| path.display().to_string())
    }
}

impl Default for RunArguments {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Cpu,
            dtype: None,
            vision_dtype: ActivationDtype::F32,
            tables: TablePlace::default(),
        }
    }
}

impl RunArguments {
    /// The dtype of the activations.
    pub(crate) fn dtype(&self) -> ActivationDtype {
        self.dtype.unwrap_or(self.device.default_dtype())
    }

    /// How to open an engine of `model` here.
    pub(crate) fn engine(&self, model: impl Into<ModelInput>, threads: &ThreadArguments) -> EngineOptions {
        EngineOptions {
            device: self.device,
            dtype: self.dtype,
            vision_dtype: self.vision_dtype,
            tables: self.tables,
            num_threads: threads.num_threads,
            progress: progress::on_terminal(),
            ..EngineOptions::new(model)
        }
    }

    /// Loads the model of `source`, without an engine.
    pub(crate) fn load(&self, source: &ModelSource, weights: Weights) -> Result<LoadedModel, Failure> {
        Ok(load(&LoadOptions {
            vision_dtype: self.vision_dtype.dtype(),
            tables: self.tables,
            format: weights.format(),
            progress: progress::on_terminal(),
            ..LoadOptions::new(source.clone(), self.device.open()?, self.dtype().dtype())
        })?)
    }
}

/// A checkpoint on disk, once something is there.
pub(crate) fn folder(path: &Path) -> Result<ModelSource, Failure> {
    match fs::metadata(path) {
        Ok(_) => Ok(ModelSource::Path(path.to_owned())),
        Err(error) => Err(Failure::Other(format!("{}: {error}", path.display()))),
    }
}

impl PromptArguments {
    /// As [`prompt`](Self::prompt), if anything is asked.
    pub(crate) fn prompt_if_any(&self) -> Result<Option<Prompt>, Failure> {
        let nothing = self.image.is_empty() && self.system.is_none() && self.prompt.is_none();
        if nothing { Ok(None) } else { self.prompt().map(Some) }
    }

    /// One user turn, images before the text, after a system turn if there is one.
    pub(crate) fn prompt(&self) -> Result<Prompt, Failure> {
        let text = match (&self.prompt, self.image.is_empty()) {
            (Some(text), _) => text.clone(),
            (None, false) => "Describe this image.".to_owned(),
            (None, true) => return Err(Failure::Usage("give --prompt, --image or both".to_owned())),
        };
        let mut messages: Vec<Message> =
            self.system.iter().map(|system| Message::text("system", system)).collect();
        messages.push(match self.image.is_empty() {
            true => Message::text("user", text),
            false => {
                let images = self.image.iter().map(|path| read_image(path));
                Message::parts("user", images.chain([Ok(Part::Text(text))]).collect::<Result<_, _>>()?)
            }
        });
        Ok(Prompt::Chat(Chat::new(messages)))
    }
}

/// An image file as a part of a turn.
pub(crate) fn read_image(path: &Path) -> Result<Part, Failure> {
    let failure = |what: &dyn std::fmt::Display| Failure::Other(format!("{}: {what}", path.display()));
    let metadata = fs::metadata(path).map_err(|e| failure(&e))?;
    if metadata.len() > MAX_IMAGE_BYTES {
        return Err(failure(&format_args!("{} bytes, expected at most {MAX_IMAGE_BYTES}", metadata.len())));
    }
    Ok(Part::Image(fs::read(path).map_err(|e| failure(&e))?.into()))
}

/// A count that is not zero.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}")),
    }
}
