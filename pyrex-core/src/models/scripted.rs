//! A fake model that says what a test tells it, so that the engine is tested without weights.
//!
//! Token ids are bytes: the prompt `ab` is read as `[97, 98]`, an id is said as its byte. Every `(prompt, answer)` of a
//! [`Script`] makes the model answer that prompt with those ids, one after another, and with the stop id behind them.
//! The script is kept where a real model would keep keys and values, in the cache's slots: a token fed at a wrong position,
//! or into a wrong block, shows in the answer. A second layer sees only a window, and fails if it sees anything else there.

use super::answer::{AnswerFormat, PlainAnswers};
use super::gemma4::answer::Gemma4Answers;
use super::{LoadedModel, Model, ModelSpec, Processor, SamplingDefaults};
use crate::batch::{Batch, ImageBatch};
use crate::error::{Error, Result};
use crate::kv::{KvLayer, KvLayout, KvPool};
use crate::prompt::detokenizer::Detokenizer;
use crate::prompt::{Chat, Content, EncodedImage, EncodedPrompt, Part, Patches, Prompt};
use crate::trace::Tap;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Entries of the vocabulary: the 256 bytes and the ids below.
pub const VOCAB_SIZE: usize = 258;
/// Ends an answer.
pub const STOP_ID: u32 = 256;
/// Stands where an image is.
pub const IMAGE_ID: u32 = 257;
/// Soft tokens per image.
pub const IMAGE_TOKENS: usize = 5;
/// How many tokens back the second layer sees.
pub const WINDOW: usize = 24;
/// Width of a soft token.
const HIDDEN_SIZE: usize = 2;

/// What the model says to which prompt, and what else a test may ask of it.
#[derive(Clone, Debug)]
pub struct Script {
    /// The answers, by prompt; an unknown prompt is answered with the stop id at once.
    pub answers: BTreeMap<Vec<u32>, Vec<u32>>,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// Where the forward pass of a test stops and goes on: see [`Gate`].
    pub gate: Option<Gate>,
    /// Whether the bytes of [`MARKS`] are Gemma 4's marks, which say nothing. Prompts then begin with a `+` and the name of each
    /// tool, and with a `?` if `enable_thinking` is true.
    pub marks: bool,
}

/// `<|channel>`, `<channel|>`, `<|tool_call>`, `<tool_call|>` and `<|"|>` of a model that has them: see [`Script::marks`].
pub const MARKS: [u32; 5] = [1, 2, 3, 4, 5];

/// What one forward pass was fed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fed {
    /// `[T]`: the token ids.
    pub input_ids: Vec<u32>,
    /// `[T]`: their positions.
    pub positions: Vec<u32>,
    /// `[T]`: their cache slots.
    pub slot_mapping: Vec<u32>,
    /// The rows that carry image features, and the features.
    pub soft_tokens: Vec<(u32, Vec<f32>)>,
    /// How many rows' logits were wanted.
    pub num_logit_rows: usize,
}

/// Lets a test hold the model at every forward pass: no test has to sleep, or to hope.
///
/// The model's end sends what it was fed and waits for a permit; a gate whose other end is gone stays open.
#[derive(Clone, Debug)]
pub struct Gate {
    fed: Sender<Fed>,
    permits: Arc<Mutex<Receiver<Permit>>>,
}

/// What a forward pass does once it is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It answers.
    Answer,
    /// It fails.
    Fail,
    /// It panics.
    Panic,
}

/// The test's end of a [`Gate`].
#[derive(Debug)]
pub struct GateKeeper {
    /// What each forward pass was fed, when it has reached the gate.
    pub fed: Receiver<Fed>,
    /// Lets one forward pass through.
    pub permits: Sender<Permit>,
}

impl Gate {
    /// A gate and its keeper.
    pub fn new() -> (Self, GateKeeper) {
        let ((fed, seen), (permits, waiting)) = (channel(), channel());
        (Self { fed, permits: Arc::new(Mutex::new(waiting)) }, GateKeeper { fed: seen, permits })
    }

    fn pass(&self, fed: Fed) -> Permit {
        if self.fed.send(fed).is_err() {
            return Permit::Answer;
        }
        let permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        permits.recv().unwrap_or(Permit::Answer)
    }
}

impl GateKeeper {
    /// Waits until a forward pass has reached the gate, and returns what it was fed. `None` once the model is gone.
    pub fn wait(&self) -> Option<Fed> {
        self.fed.recv().ok()
    }

    /// Lets the forward pass that waits go on.
    pub fn let_pass(&self, permit: Permit) {
        // A model that is gone needs no permit.
        let _ = self.permits.send(permit);
    }
}

impl Script {
    /// Answers each of these texts with that one.
    pub fn of(answers: &[(&str, &str)]) -> Self {
        let ids = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
        let answers = answers.iter().map(|(prompt, answer)| (ids(prompt), ids(answer))).collect();
        Self { answers, max_position_embeddings: 256, gate: None, marks: false }
    }

    /// The model and its processor.
    pub fn load(self) -> LoadedModel {
        let layer = |window| KvLayer::Owns { num_key_value_heads: 1, head_dim: 1, window };
        let spec = ModelSpec {
            family: "scripted",
            kv: KvLayout { layers: [None, Some(WINDOW)].map(layer).to_vec() },
            vocab_size: VOCAB_SIZE,
            max_position_embeddings: self.max_position_embeddings,
            image_token_id: Some(IMAGE_ID),
            stop_ids: vec![STOP_ID],
            sampling: SamplingDefaults { temperature: Some(1.0), top_k: Some(64), top_p: Some(0.95) },
            dtype: DType::F32,
            device: Device::Cpu,
            stage_of: |_| "scripted",
        };
        let answers = self.marks.then(|| {
            let [open_channel, close_channel, open_call, close_call, quote] = MARKS;
            Gemma4Answers {
                channel: Some([open_channel, close_channel]),
                call: Some([open_call, close_call]),
                quote: Some(quote),
                turn: None,
            }
        });
        let processor = Arc::new(ByteProcessor { answers });
        LoadedModel { model: Box::new(Scripted { script: self, spec }), processor }
    }
}

struct Scripted {
    script: Script,
    spec: ModelSpec,
}

impl Model for Scripted {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn image_batch(&self, images: &[&Patches]) -> Result<ImageBatch> {
        let pixels: Vec<u8> = images.iter().flat_map(|image| &image.pixels).copied().collect();
        let num_patches = pixels.len();
        let mut starts = vec![0];
        starts.extend(images.iter().scan(0, |end, image| {
            *end += image.pixels.len() as u32;
            Some(*end)
        }));
        Ok(ImageBatch {
            pixels: Tensor::from_vec(pixels, (num_patches, 1), &Device::Cpu)?,
            positions: Tensor::zeros((num_patches, 2), DType::U32, &Device::Cpu)?,
            segment_start: Tensor::from_vec(starts, images.len() + 1, &Device::Cpu)?,
            pool_slots: Tensor::zeros(num_patches, DType::U32, &Device::Cpu)?,
            num_soft_tokens: num_patches,
        })
    }

    /// Every pixel becomes a soft token: its value, and its index in its image.
    fn encode_images(&self, images: &ImageBatch, tap: &mut dyn Tap) -> Result<Tensor> {
        tap.proceed()?;
        let pixels = images.pixels.flatten_all()?.to_vec1::<u8>()?;
        let starts = images.segment_start.to_vec1::<u32>()?;
        let segments = starts.windows(2).flat_map(|pair| 0..pair[1] - pair[0]);
        let features = segments.zip(&pixels).flat_map(|(idx, pixel)| [f32::from(*pixel), idx as f32]);
        Ok(Tensor::from_vec(features.collect::<Vec<_>>(), (pixels.len(), HIDDEN_SIZE), &Device::Cpu)?)
    }

    fn forward(&self, batch: &Batch, kv: &mut KvPool, tap: &mut dyn Tap) -> Result<Tensor> {
        let fed = Fed::of(batch)?;
        let permit = self.script.gate.as_ref().map_or(Permit::Answer, |gate| gate.pass(fed.clone()));
        match permit {
            Permit::Answer => {}
            Permit::Fail => return Err(Error::device("the script says that this step fails")),
            Permit::Panic => panic!("the script says that this step panics"),
        }
        tap.proceed()?;
        for (layer_idx, tables) in batch.tables.iter().enumerate() {
            let keys = &kv.layer(layer_idx)?.keys;
            for (slot, token_id) in tables.slot_mapping.to_vec1::<u32>()?.iter().zip(&fed.input_ids) {
                let token_id = Tensor::full(*token_id as f32, (1, 1, 1), &Device::Cpu)?;
                keys.slice_set(&token_id, 0, *slot as usize)?;
            }
        }
        let layers = [Cached::read(batch, kv, 0)?, Cached::read(batch, kv, 1)?];
        let starts = batch.queries.query_start.to_vec1::<u32>()?;
        let sequence = |row: u32| starts.iter().filter(|start| **start <= row).count() - 1;
        for (row, position) in (0..).zip(&fed.positions) {
            let seen = (*position as usize + 1).saturating_sub(WINDOW)..*position as usize + 1;
            let [all, window] = layers.each_ref().map(|layer| layer.tokens(sequence(row), seen.clone()));
            if all != window {
                return Err(Error::internal(format_args!(
                    "the window at {seen:?} holds {window:?}, expected {all:?}"
                )));
            }
        }
        let mut logits = Vec::new();
        for row in batch.logit_rows.to_vec1::<u32>()? {
            let seen = 0..fed.positions[row as usize] as usize + 1;
            logits.extend(self.script.logits(&layers[0].tokens(sequence(row), seen)));
        }
        let logits = Tensor::from_vec(logits, (fed.num_logit_rows, VOCAB_SIZE), &Device::Cpu)?;
        tap.see(|| "logits".to_owned(), logits)
    }
}

/// What one layer's cache holds.
struct Cached {
    slots: Vec<f32>,
    tables: Vec<Vec<u32>>,
    block_size: usize,
}

impl Cached {
    fn read(batch: &Batch, kv: &KvPool, layer_idx: usize) -> Result<Self> {
        Ok(Self {
            slots: kv.layer(layer_idx)?.keys.flatten_all()?.to_vec1()?,
            tables: batch.group(layer_idx)?.block_tables.to_vec2()?,
            block_size: batch.block_size,
        })
    }

    fn tokens(&self, sequence: usize, positions: Range<usize>) -> Vec<u32> {
        let slot = |position: usize| {
            self.tables[sequence][position / self.block_size] as usize * self.block_size
                + position % self.block_size
        };
        positions.map(|position| self.slots[slot(position)] as u32).collect()
    }
}

impl Script {
    /// High for what comes next; a little of everything else, so that there is something to sample.
    fn logits(&self, token_ids: &[u32]) -> Vec<f32> {
        let rest = |(prompt, answer): (&Vec<u32>, &Vec<u32>)| {
            let said = token_ids.strip_prefix(prompt.as_slice())?;
            answer.strip_prefix(said).map(|rest| rest.first().copied().unwrap_or(STOP_ID))
        };
        let next = self.answers.iter().find_map(rest).unwrap_or(STOP_ID);
        let mut logits = vec![0.0; VOCAB_SIZE];
        logits[next as usize] = 4.0;
        logits
    }
}

impl Fed {
    fn of(batch: &Batch) -> Result<Self> {
        let soft_tokens = match &batch.soft_tokens {
            None => Vec::new(),
            Some(soft) => {
                soft.rows.to_vec1::<u32>()?.into_iter().zip(soft.embeds.to_vec2::<f32>()?).collect()
            }
        };
        Ok(Self {
            input_ids: batch.input_ids.to_vec1()?,
            positions: batch.queries.positions.to_vec1()?,
            slot_mapping: batch.group(0)?.slot_mapping.to_vec1()?,
            soft_tokens,
            num_logit_rows: batch.logit_rows.dims1()?,
        })
    }
}

/// Bytes are ids; an image file is five pixels of its first byte. A text with a NUL cannot be encoded.
struct ByteProcessor {
    answers: Option<Gemma4Answers>,
}

impl Processor for ByteProcessor {
    fn encode(&self, prompt: &Prompt) -> Result<EncodedPrompt> {
        let mut encoded = EncodedPrompt::default();
        match prompt {
            Prompt::Text(text) => push_text(&mut encoded, text)?,
            Prompt::Chat(chat) => {
                if self.answers.is_some() {
                    push_text(&mut encoded, &shown(chat))?;
                }
                for message in &chat.messages {
                    match &message.content {
                        Content::Nothing => {}
                        Content::Text(text) => push_text(&mut encoded, text)?,
                        Content::Parts(parts) => {
                            parts.iter().try_for_each(|part| push_part(&mut encoded, part))?
                        }
                    }
                }
            }
        }
        Ok(encoded)
    }

    fn render(&self, chat: &Chat) -> Result<String> {
        let ids = self.encode(&Prompt::Chat(chat.clone()))?.input_ids;
        Ok(ids.into_iter().filter_map(char::from_u32).collect())
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        let mut encoded = EncodedPrompt::default();
        push_text(&mut encoded, text)?;
        Ok(encoded.input_ids)
    }

    fn detokenizer(&self) -> Detokenizer {
        // Ids past the list, such as the stop id, say nothing.
        let byte = |id: u32| match char::from_u32(id).filter(char::is_ascii) {
            _ if self.answers.is_some() && MARKS.contains(&id) => String::new(),
            Some(character) => character.into(),
            None => format!("<0x{id:02X}>"),
        };
        Detokenizer::from_pieces((0..256).map(byte).collect())
    }

    fn answer_format(&self) -> Arc<dyn AnswerFormat> {
        match &self.answers {
            Some(answers) => Arc::new(answers.clone()),
            None => Arc::new(PlainAnswers),
        }
    }
}

/// What a conversation shows beside its messages.
fn shown(chat: &Chat) -> String {
    let tool =
        |tool: &serde_json::Value| format!("+{}", tool["function"]["name"].as_str().unwrap_or_default());
    let tools: String = chat.tools.iter().map(tool).collect();
    let thinks = chat.variables.get("enable_thinking").is_some_and(|value| *value == true);
    tools + if thinks { "?" } else { "" }
}

fn push_part(encoded: &mut EncodedPrompt, part: &Part) -> Result<()> {
    match part {
        Part::Text(text) => push_text(encoded, text),
        Part::Image(bytes) => {
            let start = encoded.input_ids.len();
            let pixel = *bytes.first().ok_or_else(|| Error::invalid_request("an image of no bytes"))?;
            encoded.input_ids.extend([IMAGE_ID; IMAGE_TOKENS]);
            let patches = Patches { columns: IMAGE_TOKENS, rows: 1, pixels: vec![pixel; IMAGE_TOKENS] };
            encoded.images.push(EncodedImage { tokens: start..start + IMAGE_TOKENS, patches });
            Ok(())
        }
    }
}

fn push_text(encoded: &mut EncodedPrompt, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::invalid_request("the text has a NUL"));
    }
    encoded.input_ids.extend(text.bytes().map(u32::from));
    Ok(())
}
