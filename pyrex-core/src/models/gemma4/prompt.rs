//! A prompt as Gemma 4 reads it: the template, one run of placeholders per image, patches of 16 × 16 pixels.
//!
//! Sizes follow the reference in f64 to the last bit, or an image would get another number of soft tokens.
//! See [`prompt`](crate::prompt) for the parts that any family shares.

use crate::error::{Error, Result};
use super::answer::Gemma4Answers;
use crate::models::load::parse_json;
use crate::models::{AnswerFormat, ModelSource, Processor};
use crate::prompt::detokenizer::Detokenizer;
use crate::prompt::image::{ImageLimits, RgbImage, decode};
use crate::prompt::resize::resize;
use crate::prompt::template::ChatTemplate;
use crate::prompt::tokenizer::Tokenizer;
use crate::prompt::{Chat, EncodedImage, EncodedPrompt, Patches, Prompt};
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::Arc;

/// The budgets of soft tokens that the models were trained with.
pub const SOFT_TOKEN_BUDGETS: [usize; 5] = [70, 140, 280, 560, 1120];
const CHANNELS: usize = 3;
/// Pixels along a side of a soft token: 48 in every published model, and at this bound a small image grows to 53 MiB.
const MAX_SIDE: usize = 128;

/// How images become patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageGrid {
    /// Pixels along one side of a patch.
    pub patch_size: usize,
    /// Patches along one side of the square that becomes one soft token.
    pub pooling_kernel_size: usize,
    /// Soft tokens that one image may have, one of [`SOFT_TOKEN_BUDGETS`].
    pub max_soft_tokens: usize,
}

impl ImageGrid {
    /// The size in pixels, height first, to which an image of `height × width` is resized.
    ///
    /// # Errors
    /// `InvalidRequest` if the image is empty or no size fits the budget.
    ///
    /// Source: Transformers, `get_aspect_ratio_preserving_size`, operation by operation. Golden: `sizes.json`.
    pub fn target_size(&self, height: usize, width: usize) -> Result<(usize, usize)> {
        let side = self.patch_size * self.pooling_kernel_size;
        let area = self.max_soft_tokens * side * side;
        let refused =
            || Error::invalid_request(format_args!("image: {width}×{height} pixels fit no grid of {side}"));
        if height == 0 || width == 0 {
            return Err(refused());
        }
        let factor = (area as f64 / (height as f64 * width as f64)).sqrt();
        let whole = |length: usize| (factor * length as f64 / side as f64).floor() as usize * side;
        let strip = |long: usize, short: usize| {
            ((long as f64 / short as f64).floor() as usize).min(self.max_soft_tokens) * side
        };
        let size = match (whole(height), whole(width)) {
            (0, 0) => return Err(refused()),
            (0, _) => (side, strip(width, height)),
            (_, 0) => (strip(height, width), side),
            size => size,
        };
        if size.0 * size.1 > area { Err(refused()) } else { Ok(size) }
    }

    /// Resizes `image` and cuts it into patches, row by row; a patch's values are ordered (y, x, channel), channel fastest.
    ///
    /// # Errors
    /// As [`target_size`](Self::target_size).
    pub fn patches(&self, image: &RgbImage) -> Result<Patches> {
        let (height, width) = self.target_size(image.height(), image.width())?;
        let image = resize(image, width, height);
        let row_len = self.patch_size * CHANNELS;
        let (columns, rows) = (width / self.patch_size, height / self.patch_size);
        let mut pixels = Vec::with_capacity(image.pixels().len());
        for band in image.pixels().chunks_exact(self.patch_size * width * CHANNELS) {
            for column in 0..columns {
                for line in band.chunks_exact(width * CHANNELS) {
                    pixels.extend_from_slice(&line[column * row_len..][..row_len]);
                }
            }
        }
        Ok(Patches { columns, rows, pixels })
    }

    /// Soft tokens that an image of these patches becomes.
    pub fn num_soft_tokens(&self, patches: &Patches) -> usize {
        patches.columns * patches.rows / (self.pooling_kernel_size * self.pooling_kernel_size)
    }
}

/// The (x, y) of each patch in its image, in patches from the top left.
pub fn patch_positions(columns: usize, rows: usize) -> impl Iterator<Item = [u32; 2]> {
    (0..rows as u32).flat_map(move |y| (0..columns as u32).map(move |x| [x, y]))
}

/// The soft token that each patch is pooled into: squares of `kernel × kernel` patches, row by row, counted from `first`.
pub fn pool_slots(columns: usize, rows: usize, kernel: usize, first: usize) -> impl Iterator<Item = u32> {
    let slots_per_row = columns / kernel;
    patch_positions(columns, rows).map(move |[x, y]| {
        let (x, y) = (x as usize / kernel, y as usize / kernel);
        (first + y * slots_per_row + x) as u32
    })
}

/// What the processor needs of `config.json`.
#[derive(Deserialize)]
struct RawConfig {
    image_token_id: Option<u32>,
    boi_token_id: Option<u32>,
    eoi_token_id: Option<u32>,
    audio_token_id: Option<u32>,
    video_token_id: Option<u32>,
    vision_config: Option<serde_json::Value>,
    text_config: Option<RawTextConfig>,
    bos_token_id: Option<u32>,
}

#[derive(Deserialize)]
struct RawTextConfig {
    bos_token_id: Option<u32>,
}

/// `processor_config.json`; older checkpoints have its inner part as `preprocessor_config.json`.
#[derive(Default, Deserialize)]
struct RawProcessorConfig {
    image_processor: Option<RawImageProcessor>,
}

#[derive(Default, Deserialize)]
struct RawImageProcessor {
    max_soft_tokens: Option<usize>,
    patch_size: Option<usize>,
    pooling_kernel_size: Option<usize>,
}

/// The ids that stand around and for an image.
#[derive(Clone, Copy)]
struct ImageTokens {
    begin: u32,
    placeholder: u32,
    end: u32,
}

/// Gemma 4's [`Processor`]. Cheap to clone.
#[derive(Clone)]
pub struct Gemma4Processor {
    tokenizer: Tokenizer,
    template: Arc<Option<ChatTemplate>>,
    answers: Arc<Gemma4Answers>,
    bos: u32,
    tokens: ImageTokens,
    unsupported: [u32; 2],
    reads_images: bool,
    grid: ImageGrid,
    limits: ImageLimits,
}

impl Gemma4Processor {
    /// Reads the tokenizer, the template and the processor's settings of a checkpoint.
    ///
    /// # Errors
    /// `InvalidModel` if a file is missing or wrong.
    pub fn new(source: &ModelSource) -> Result<Self> {
        let config: RawConfig = parse_json("config.json", &source.require("config.json")?)?;
        let tokenizer = Tokenizer::from_bytes(&source.require("tokenizer.json")?)?;
        let read = |name: &str| Ok(source.read(name)?.map(Cow::into_owned));
        let template = ChatTemplate::find(&read)?;
        let bos_name = template.as_ref().and_then(|template| template.special_token("bos_token"));
        let bos = tokenizer
            .token_to_id(bos_name.unwrap_or("<bos>"))
            .or(config.bos_token_id)
            .or(config.text_config.and_then(|text| text.bos_token_id))
            .unwrap_or(2);
        let tokens = ImageTokens {
            begin: config.boi_token_id.unwrap_or(255_999),
            placeholder: config.image_token_id.unwrap_or(258_880),
            end: config.eoi_token_id.unwrap_or(258_882),
        };
        let reads_images = config.vision_config.is_some();
        if reads_images {
            check_known(&tokenizer, template.as_ref(), &tokens)?;
        }
        let answers = Gemma4Answers::new(&|token| tokenizer.token_to_id(token));
        Ok(Self {
            tokenizer,
            answers: Arc::new(answers),
            template: Arc::new(template),
            bos,
            tokens,
            unsupported: [config.audio_token_id.unwrap_or(258_881), config.video_token_id.unwrap_or(258_884)],
            reads_images,
            grid: image_grid(source)?,
            limits: ImageLimits::default(),
        })
    }

    /// The id that stands where the soft tokens of an image go, if the checkpoint reads images.
    pub fn image_token_id(&self) -> Option<u32> {
        self.reads_images.then_some(self.tokens.placeholder)
    }

    /// The same processor with another budget of soft tokens per image.
    ///
    /// # Errors
    /// `InvalidRequest` if it is not one of [`SOFT_TOKEN_BUDGETS`].
    pub fn with_max_soft_tokens(&self, max_soft_tokens: usize) -> Result<Self> {
        if !SOFT_TOKEN_BUDGETS.contains(&max_soft_tokens) {
            return Err(Error::invalid_request(format_args!(
                "max_soft_tokens is {max_soft_tokens}, expected one of {SOFT_TOKEN_BUDGETS:?}"
            )));
        }
        Ok(Self { grid: ImageGrid { max_soft_tokens, ..self.grid }, ..self.clone() })
    }

    /// The same processor with other limits on image files.
    pub fn with_image_limits(&self, limits: ImageLimits) -> Self {
        Self { limits, ..self.clone() }
    }

    /// How images become patches.
    pub fn grid(&self) -> ImageGrid {
        self.grid
    }

    fn encode_chat(&self, chat: &Chat) -> Result<EncodedPrompt> {
        if !self.reads_images && chat.images().next().is_some() {
            return Err(Error::invalid_request(
                "this checkpoint reads no images: config.json has no vision_config",
            ));
        }
        let ids = self.tokenizer.encode(&self.render(chat)?)?;
        self.check_placeholders(&ids, chat.images().count())?;
        let images = chat.images().map(|bytes| self.grid.patches(&decode(bytes, &self.limits)?));
        Ok(self.expand(&ids, images.collect::<Result<_>>()?))
    }

    fn encode_text(&self, text: &str) -> Result<EncodedPrompt> {
        let mut input_ids = self.tokenizer.encode(text)?;
        self.check_placeholders(&input_ids, 0)?;
        if input_ids.first() != Some(&self.bos) {
            input_ids.insert(0, self.bos);
        }
        Ok(EncodedPrompt { input_ids, images: Vec::new() })
    }

    /// Somebody may have typed a placeholder, or the template may have dropped an image: then nothing fits together.
    fn check_placeholders(&self, ids: &[u32], num_images: usize) -> Result<()> {
        if !self.reads_images {
            return Ok(());
        }
        let num_placeholders = ids.iter().filter(|&&id| id == self.tokens.placeholder).count();
        if num_placeholders != num_images {
            return Err(Error::invalid_request(format_args!(
                "the prompt has {num_placeholders} image placeholders, expected {num_images}, one for each image"
            )));
        }
        match ids.iter().find(|id| self.unsupported.contains(id)) {
            Some(&id) => Err(Error::invalid_request(format_args!(
                "the prompt holds {}, which stands for audio or video that was not sent",
                self.tokenizer.id_to_token(id).unwrap_or_default()
            ))),
            None => Ok(()),
        }
    }

    /// Puts each image's begin mark, soft tokens and end mark where its one placeholder was.
    fn expand(&self, ids: &[u32], images: Vec<Patches>) -> EncodedPrompt {
        let mut encoded = EncodedPrompt::default();
        let mut images = images.into_iter();
        for &id in ids {
            let patches = if id == self.tokens.placeholder { images.next() } else { None };
            let Some(patches) = patches else {
                encoded.input_ids.push(id);
                continue;
            };
            encoded.input_ids.push(self.tokens.begin);
            let start = encoded.input_ids.len();
            let end = start + self.grid.num_soft_tokens(&patches);
            encoded.input_ids.resize(end, self.tokens.placeholder);
            encoded.input_ids.push(self.tokens.end);
            encoded.images.push(EncodedImage { tokens: start..end, patches });
        }
        encoded
    }
}

impl Processor for Gemma4Processor {
    fn encode(&self, prompt: &Prompt) -> Result<EncodedPrompt> {
        match prompt {
            Prompt::Chat(chat) => self.encode_chat(chat),
            Prompt::Text(text) => self.encode_text(text),
        }
    }

    fn render(&self, chat: &Chat) -> Result<String> {
        match &*self.template {
            Some(template) => template.render(chat),
            None => Err(Error::invalid_request("the checkpoint has no chat template: send plain text")),
        }
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode(text)
    }

    fn detokenizer(&self) -> Detokenizer {
        self.tokenizer.detokenizer()
    }

    fn answer_format(&self) -> Arc<dyn AnswerFormat> {
        self.answers.clone()
    }
}

fn check_known(tokenizer: &Tokenizer, template: Option<&ChatTemplate>, tokens: &ImageTokens) -> Result<()> {
    if [tokens.begin, tokens.end].contains(&tokens.placeholder) {
        return Err(Error::invalid_model(format_args!(
            "config.json: image_token_id is {}, expected another id than boi_token_id and eoi_token_id",
            tokens.placeholder
        )));
    }
    let named = [("boi_token", tokens.begin), ("image_token", tokens.placeholder), ("eoi_token", tokens.end)];
    for (name, id) in named {
        let known = tokenizer.id_to_token(id);
        let written = template.and_then(|template| template.special_token(name));
        if known.is_none() || written.is_some() && written != known.as_deref() {
            return Err(Error::invalid_model(format_args!(
                "config.json: {name}_id is {id}, which tokenizer.json calls {known:?}, expected {:?}",
                written.unwrap_or("a token")
            )));
        }
    }
    Ok(())
}

fn image_grid(source: &ModelSource) -> Result<ImageGrid> {
    let raw = match source.read("processor_config.json")? {
        Some(bytes) => {
            parse_json::<RawProcessorConfig>("processor_config.json", &bytes)?.image_processor.unwrap_or_default()
        }
        None => match source.read("preprocessor_config.json")? {
            Some(bytes) => parse_json("preprocessor_config.json", &bytes)?,
            None => RawImageProcessor::default(),
        },
    };
    let grid = ImageGrid {
        patch_size: raw.patch_size.unwrap_or(16),
        pooling_kernel_size: raw.pooling_kernel_size.unwrap_or(3),
        max_soft_tokens: raw.max_soft_tokens.unwrap_or(280),
    };
    let side = grid.patch_size.saturating_mul(grid.pooling_kernel_size);
    if !SOFT_TOKEN_BUDGETS.contains(&grid.max_soft_tokens) || !(1..=MAX_SIDE).contains(&side) {
        return Err(Error::invalid_model(format_args!(
            "processor_config.json: {grid:?}, expected soft tokens of 1 to {MAX_SIDE} pixels a side \
             and max_soft_tokens of {SOFT_TOKEN_BUDGETS:?}"
        )));
    }
    Ok(grid)
}
