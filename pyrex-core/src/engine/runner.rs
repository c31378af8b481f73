//! [`Runner`]: from a plan to a batch to logits. It owns the model and the cache's tensors.

use super::control::RequestControl;
use super::images::{FeatureCache, FeatureCounts};
use super::recorded::{DecodeRow, Decoded, RecordedSteps, put_drawn};
use super::sampler::draw_on_host;
use crate::batch::{Batch, Chunk, SoftTokens, Wanted};
use crate::error::{Error, Result};
use crate::kv::KvPool;
use crate::models::Model;
use crate::ops::recording::can_record;
use crate::ops::sampling::{Draw, DrawTable, IdReader, PendingIds, can_draw};
use crate::ops::timer::{Interval, Timer};
use crate::prompt::Patches;
use crate::schedule::{Digest, PlannedChunk, Sequence, SequenceId};
use crate::trace::{Origin, Tap};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::time::Instant;
use tracing::Span;

/// Soft tokens whose features are remembered.
const FEATURE_TOKENS: usize = 8192;

/// The model and its cache.
pub(crate) struct Runner {
    /// Dropped before the model and the cache, which it reads and writes and whose kernels it launches.
    recorded: RecordedSteps,
    model: Box<dyn Model>,
    pool: KvPool,
    features: FeatureCache,
    ids: IdReader,
    /// Whether a step's tokens may be drawn before anybody reads them, so that the next one can begin.
    runs_ahead: bool,
    /// What the last step drew, and for whom, until the host has read it.
    drawn: Option<(Tensor, HashMap<SequenceId, u32>)>,
}

/// One sequence's part of a step, with what is needed to run it.
pub(crate) struct Part<'a> {
    pub(crate) chunk: &'a PlannedChunk,
    pub(crate) sequence: &'a Sequence,
    /// The images of its prompt.
    pub(crate) images: &'a [Patches],
    pub(crate) control: &'a RequestControl,
    pub(crate) span: &'a Span,
    /// How its next token is drawn, if that can be said beforehand.
    pub(crate) draw: Option<Draw>,
}

/// The features of the images that a step reads.
#[derive(Default)]
pub(crate) struct Features {
    by_digest: HashMap<Digest, Tensor>,
    /// How they were made, if not all were known.
    pub(crate) encoding: Option<Encoding>,
}

/// A run of the vision tower.
pub(crate) struct Encoding {
    /// Whose images they were.
    pub(crate) sequences: Vec<SequenceId>,
    /// How long it takes.
    pub(crate) interval: Interval,
}

/// What a step is to leave for the sequences that it brings to their ends, in their order.
pub(crate) enum Launched {
    /// Their logits.
    Logits(Logits),
    /// Their next tokens: they are on their way.
    Drawn(PendingIds),
}

/// The logits of the rows that sample, one after another.
pub(crate) struct Logits {
    values: Vec<f32>,
    vocab_size: usize,
}

/// How much a runner must be ready for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunnerLimits {
    pub(crate) max_model_len: usize,
    pub(crate) max_batch_tokens: usize,
    pub(crate) max_sequences: usize,
    /// Whether steps are launched before the tokens of the last one are read; where it saves time if not given.
    pub(crate) runs_ahead: Option<bool>,
}

/// Ends a pass between two layers once most of its rows are wanted by nobody: then the others are sooner done alone.
struct WhileWanted<'a>(Vec<(&'a RequestControl, usize)>);

impl Tap for WhileWanted<'_> {
    fn watching(&self) -> bool {
        false
    }

    fn visit(&mut self, _name: &str, _tensor: &Tensor, _origin: Origin) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn proceed(&mut self) -> Result<()> {
        let now = Instant::now();
        let total: usize = self.0.iter().map(|(_, rows)| rows).sum();
        let unwanted = self.0.iter().filter(|(control, _)| control.check(now).is_err()).map(|(_, rows)| rows);
        match 2 * unwanted.sum::<usize>() >= total {
            true => Err(Error::cancelled("most of the step is wanted by nobody any more")),
            false => Ok(()),
        }
    }
}

impl Runner {
    /// # Errors
    /// `Device` or `OutOfMemory` if the device has no room for what a step needs.
    pub(crate) fn new(model: Box<dyn Model>, pool: KvPool, limits: &RunnerLimits) -> Result<Self> {
        let device = &model.spec().device;
        let can_draw = can_draw(device);
        let table_len = limits.max_model_len.div_ceil(pool.block_size());
        Ok(Self {
            features: FeatureCache::new(FEATURE_TOKENS),
            recorded: RecordedSteps::new(limits.max_sequences, table_len),
            ids: IdReader::new(limits.max_batch_tokens.max(limits.max_sequences), device)?,
            runs_ahead: limits.runs_ahead.unwrap_or(can_draw),
            drawn: None,
            pool,
            model,
        })
    }

    fn device(&self) -> &Device {
        &self.model.spec().device
    }

    pub(crate) fn feature_counts(&self) -> FeatureCounts {
        self.features.counts
    }

    /// The features of all images that reach into the parts: those that are not known run through the vision tower together.
    pub(crate) fn encode_images(&mut self, parts: &[Part<'_>]) -> Result<Features> {
        let mut features = Features::default();
        let mut missing: Vec<(Digest, &Patches, usize)> = Vec::new();
        let (mut rows, mut spans, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            for (image, patches) in part.images_inside() {
                let digest = image.digest;
                if features.by_digest.contains_key(&digest)
                    || missing.iter().any(|(other, ..)| *other == digest)
                {
                    continue;
                }
                match self.features.find(digest) {
                    Some(known) => drop(features.by_digest.insert(digest, known)),
                    None => {
                        missing.push((digest, patches, image.tokens.len()));
                        rows.push((part.control, image.tokens.len()));
                        sequences.push(part.sequence.id);
                        spans.push(tracing::debug_span!(parent: part.span, "encode", num_tokens = image.tokens.len()));
                    }
                }
            }
        }
        if missing.is_empty() {
            return Ok(features);
        }
        let patches: Vec<&Patches> = missing.iter().map(|(_, patches, _)| *patches).collect();
        let timer = Timer::start(self.device())?;
        let batch = self.model.image_batch(&patches)?;
        let all = self.model.encode_images(&batch, &mut WhileWanted(rows))?;
        let (found, expected) = (all.dim(0)?, missing.iter().map(|(.., len)| len).sum::<usize>());
        if found != expected {
            return Err(Error::internal(format_args!(
                "the images have {found} soft tokens, expected {expected} as in the prompts"
            )));
        }
        let mut start = 0;
        for (digest, _, len) in missing {
            // A copy of its own: a view would keep the features of the whole run alive.
            let of_image = all.narrow(0, start, len)?.copy()?;
            self.features.insert(digest, of_image.clone(), len);
            features.by_digest.insert(digest, of_image);
            start += len;
        }
        features.encoding = Some(Encoding { sequences, interval: timer.stop()? });
        Ok(features)
    }

    /// Launches the parts as one batch.
    pub(crate) fn launch(&mut self, parts: &[Part<'_>], features: &Features) -> Result<Launched> {
        for copy in parts.iter().flat_map(|part| &part.chunk.copies) {
            self.pool.copy_block(copy.group, copy.from, copy.to)?;
        }
        let sampling: Vec<&Part<'_>> = parts.iter().filter(|part| part.chunk.samples).collect();
        let draws: Option<Vec<Draw>> = sampling.iter().map(|part| part.draw).collect();
        let draws = draws.filter(|_| self.runs_ahead);
        let (logits, ids) = match self.replay(parts)? {
            Some(decoded) => (decoded.logits, Some(decoded.ids)),
            None => (self.forward(parts, features)?, None),
        };
        let expected = (sampling.len(), self.model.spec().vocab_size);
        if logits.dims2()? != expected {
            let found = logits.shape();
            return Err(Error::internal(format_args!("logits are {found:?}, expected {expected:?}")));
        }
        match draws {
            Some(draws) if draws.is_empty() => {
                self.drawn = None;
                Ok(Launched::Drawn(PendingIds::none()))
            }
            Some(draws) => {
                let ids = ids.map_or_else(|| self.draw(&logits, &draws), Ok)?;
                let rows = sampling.iter().zip(0..).map(|(part, row)| (part.sequence.id, row)).collect();
                let pending = self.ids.begin(&ids)?;
                self.drawn = Some((ids, rows));
                Ok(Launched::Drawn(pending))
            }
            None => {
                self.drawn = None;
                Logits::read(&logits).map(Launched::Logits)
            }
        }
    }

    /// Runs the parts as a step that was recorded, if they are one and can be.
    fn replay(&mut self, parts: &[Part<'_>]) -> Result<Option<Decoded>> {
        let is_decode = parts.iter().all(|part| part.chunk.samples && part.chunk.positions.len() == 1);
        if !is_decode || !can_record(self.device()) {
            return Ok(None);
        }
        let rows: Vec<DecodeRow<'_>> = parts
            .iter()
            .map(|part| DecodeRow {
                token_id: part.sequence.token_ids[part.chunk.positions.start],
                drawn: self.drawn_row(part),
                position: part.chunk.positions.start,
                block_tables: part.sequence.block_tables(),
                draw: part.draw.unwrap_or(Draw::GREEDY),
            })
            .collect();
        let drawn = self.drawn.as_ref().map(|(ids, _)| ids);
        self.recorded.run(&*self.model, &mut self.pool, &rows, drawn)
    }

    /// The row of what the last step drew that is the part's last token, if the host has not read it yet.
    fn drawn_row(&self, part: &Part<'_>) -> Option<u32> {
        let last = part.chunk.positions.end == part.sequence.token_ids.len();
        let (_, rows) = self.drawn.as_ref().filter(|_| last && part.sequence.awaits_token())?;
        rows.get(&part.sequence.id).copied()
    }

    /// The logits of the parts that sample, `[R, V]` f32.
    fn forward(&mut self, parts: &[Part<'_>], features: &Features) -> Result<Tensor> {
        let chunks: Vec<Chunk<'_>> = parts.iter().map(Part::as_chunk).collect();
        let mut batch = Batch::new(&chunks, self.pool.block_size(), self.device())?;
        batch.soft_tokens = soft_tokens(parts, features, self.device())?;
        let mut next_row = 0;
        let mut pairs = Vec::new();
        for part in parts {
            next_row += part.chunk.positions.len() as u32;
            pairs.extend(self.drawn_row(part).map(|from| (from, next_row - 1)));
        }
        put_drawn(&batch.input_ids, &pairs, self.drawn.as_ref().map(|(ids, _)| ids))?;
        let mut tap =
            WhileWanted(parts.iter().map(|part| (part.control, part.chunk.positions.len())).collect());
        self.model.forward(&batch, &mut self.pool, &mut tap)
    }

    fn draw(&self, logits: &Tensor, draws: &[Draw]) -> Result<Tensor> {
        let device = self.device();
        if !can_draw(device) {
            let logits = Logits::read(logits)?;
            let ids: Vec<u32> = logits.rows().zip(draws).map(|(row, draw)| draw_on_host(row, draw)).collect();
            return Ok(Tensor::from_vec(ids, draws.len(), device)?);
        }
        let table = DrawTable::new(draws.len(), device)?;
        table.write(draws)?;
        table.draw(logits)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // What was launched may still read and write memory of the host. If the device has failed, there is nobody to tell.
        let _ = self.device().synchronize();
    }
}

impl Logits {
    fn read(logits: &Tensor) -> Result<Self> {
        let (rows, vocab_size) = logits.dims2()?;
        let values =
            if rows == 0 { Vec::new() } else { logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()? };
        Ok(Self { values, vocab_size })
    }

    /// Row by row, `[V]` each.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.vocab_size)
    }
}

impl<'a> Part<'a> {
    fn as_chunk(&self) -> Chunk<'a> {
        let positions = self.chunk.positions.clone();
        Chunk {
            first_position: positions.start,
            input_ids: &self.sequence.token_ids[positions],
            block_tables: self.sequence.block_tables(),
            wanted: if self.chunk.samples { Wanted::Last } else { Wanted::Nothing },
        }
    }

    /// The images whose placeholders reach into the chunk. A chunk may begin or end inside an image.
    fn images_inside(&self) -> impl Iterator<Item = (&'a crate::schedule::ImageSpan, &'a Patches)> {
        let positions = self.chunk.positions.clone();
        let images = self.sequence.images.iter().zip(self.images);
        images.filter(move |(image, _)| {
            image.tokens.start < positions.end && image.tokens.end > positions.start
        })
    }
}

/// Puts image features on the rows of their placeholders.
fn soft_tokens(parts: &[Part<'_>], features: &Features, device: &Device) -> Result<Option<SoftTokens>> {
    let (mut rows, mut embeds): (Vec<u32>, Vec<Tensor>) = (Vec::new(), Vec::new());
    let mut first_row = 0;
    for part in parts {
        let positions = &part.chunk.positions;
        for (image, _) in part.images_inside() {
            let (start, end) = (image.tokens.start.max(positions.start), image.tokens.end.min(positions.end));
            let not_encoded = || Error::internal("an image was not encoded before its rows");
            let features = features.by_digest.get(&image.digest).ok_or_else(not_encoded)?;
            rows.extend((start..end).map(|position| (first_row + position - positions.start) as u32));
            embeds.push(features.narrow(0, start - image.tokens.start, end - start)?);
        }
        first_row += positions.len();
    }
    if rows.is_empty() {
        return Ok(None);
    }
    let num_rows = rows.len();
    let embeds = Tensor::cat(&embeds, 0)?.contiguous()?;
    Ok(Some(SoftTokens { rows: Tensor::from_vec(rows, num_rows, device)?, embeds }))
}
