//! The choice of a token from each row of logits: greedy, or drawn after temperature, top-k, top-p and min-p.
//!
//! It is the choice that the CPU's sampler makes, token for token: the same order among equals, the same weights in f64, the same
//! race with the same random numbers. Three things may round another way: `exp` and `ln` in f64, by an ulp; and sums. Where
//! top-k leaves at most [`MAX_SORTED`] tokens, or top-p at most 256 of all, their weights are added likeliest first, as the CPU
//! adds them; the mass that `top_p` is a share of is added in an order of its own, which moves it by at most `V · 2⁻⁵³` of itself,
//! and so are the weights where more tokens are left. So a choice can differ only where two times of the race, or a sum and the
//! share that it is to reach, agree to that many digits. A row's choice does not depend on the other rows.

use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::{Argument, Launch, Module, Queue, count};

const MODULE: Module = Module { name: "sampling", ptx: include_str!("sampling.ptx") };

/// Words of one row's parameters, see [`record`].
pub const RECORD_WORDS: usize = 10;

/// So many tokens are sorted at most; if more than that are left, only the border between kept and left is searched for.
pub const MAX_SORTED: usize = 1024;

const GROUP_LEN: usize = 32;
const CHUNK_LEN: usize = 2048;
const CHUNK_THREADS: u32 = 256;
const ROW_THREADS: u32 = 1024;
/// Blocks that a multiprocessor gets of a launch with many rows: more would only wait.
const BLOCKS_PER_MULTIPROCESSOR: usize = 8;
/// A key and an id must fit 63 bits.
const MAX_VOCAB: usize = 1 << 30;

/// What is asked of one row. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Divides the logits; 0 takes the greatest, and the rest does not matter.
    pub temperature: f32,
    /// Keep so many; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest up to this mass, in (0, 1].
    pub top_p: f64,
    /// Keep what is at least this likely, relative to the likeliest, in [0, 1].
    pub min_p: f64,
    /// The generator's key.
    pub seed: u64,
    /// Which completion of several: part of the generator's counter, as the position and the token are.
    pub index: u32,
}

impl Default for Choice {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, index: 0 }
    }
}

/// `choice` as a row of [`Sampling::parameters`].
pub fn record(choice: &Choice) -> [u32; RECORD_WORDS] {
    let words = |bits: u64| [bits as u32, (bits >> 32) as u32];
    let [top_p, min_p, seed] = [choice.top_p.to_bits(), choice.min_p.to_bits(), choice.seed].map(words);
    [
        choice.temperature.to_bits(),
        choice.top_k,
        top_p[0],
        top_p[1],
        min_p[0],
        min_p[1],
        seed[0],
        seed[1],
        choice.index,
        0,
    ]
}

/// The arguments of [`sample`]. `R` rows of `V` logits.
#[derive(Clone, Copy, Debug)]
pub struct Sampling<'a> {
    /// `[R, V]` f32 or bf16; only read.
    pub logits: Buffer<'a>,
    /// `cap · tanh(logit / cap)` before anything else, each of the three rounded to the dtype of `logits`.
    pub soft_cap: Option<f32>,
    /// `[R, RECORD_WORDS]` u32, at a multiple of 8: each row as [`record`] writes it.
    pub parameters: Buffer<'a>,
    /// `[R]` u32: the position that is drawn.
    pub positions: Buffer<'a>,
    /// `[scratch_len(V, R)]` u32, at a multiple of 8; what is in it does not matter.
    pub scratch: Buffer<'a>,
    /// `[R]` u32, written: the token, or `u32::MAX` if no logit is above minus infinity.
    pub ids: Buffer<'a>,
    /// `V`.
    pub vocab_size: usize,
    /// `R`.
    pub rows: usize,
}

/// How many u32 the scratch of [`sample`] needs.
pub const fn scratch_len(vocab_size: usize, rows: usize) -> usize {
    const FIELD: usize = 5;
    2 * rows * (FIELD + 3 * vocab_size.div_ceil(CHUNK_LEN) + vocab_size.div_ceil(GROUP_LEN).div_ceil(2))
}

/// Chooses a token for each row. What is launched depends on `V` and `R` alone, so that a captured graph serves any parameters.
///
/// # Errors
/// `Arguments` if the buffers do not fit; what the queue says.
pub fn sample(queue: &dyn Queue, sampling: &Sampling<'_>) -> Result<()> {
    let element = sampling.check()?;
    if sampling.rows == 0 {
        return Ok(());
    }
    let (rows, vocab_size) = (count("rows", sampling.rows)?, count("vocab_size", sampling.vocab_size)?);
    let blocks = sampling.blocks_per_row(queue.multiprocessors());
    let soft_cap = sampling.soft_cap.unwrap_or(0.0);
    let Sampling { logits, parameters, positions, scratch, ids, .. } = *sampling;
    let survey: Vec<Argument> =
        vec![logits.into(), parameters.into(), scratch.into(), vocab_size.into(), soft_cap.into()];
    let choose: Vec<Argument> = vec![
        logits.into(),
        parameters.into(),
        positions.into(),
        scratch.into(),
        ids.into(),
        vocab_size.into(),
        soft_cap.into(),
    ];
    let launches = [
        ("survey", [blocks, rows, 1], CHUNK_THREADS, survey),
        ("choose", [rows, 1, 1], ROW_THREADS, choose.clone()),
        ("race", [blocks, rows, 1], CHUNK_THREADS, choose),
    ];
    launches.into_iter().try_for_each(|(kernel, grid, threads, arguments)| {
        queue.launch(&Launch {
            module: &MODULE,
            kernel: format!("{kernel}_{}", element.suffix()),
            grid,
            block: [threads, 1, 1],
            shared_bytes: 0,
            arguments,
        })
    })
}

impl Sampling<'_> {
    /// Holds all to what the kernels were written for; the dtype of the logits.
    fn check(&self) -> Result<Element> {
        let (rows, vocab_size, element) = (self.rows, self.vocab_size, self.logits.element());
        if !matches!(element, Element::F32 | Element::Bf16) {
            return Err(Error::arguments(format_args!("logits has {element:?}, expected F32 or Bf16")));
        }
        if rows > usize::from(u16::MAX) || !(1..=MAX_VOCAB).contains(&vocab_size) {
            return Err(Error::arguments(format_args!(
                "{rows} rows of {vocab_size} logits, expected at most {} of 1 to {MAX_VOCAB}",
                u16::MAX
            )));
        }
        if let Some(cap) = self.soft_cap.filter(|cap| !(cap.is_finite() && *cap > 0.0)) {
            return Err(Error::arguments(format_args!("soft_cap is {cap}, expected a number above 0")));
        }
        self.logits.expect("logits", element, rows * vocab_size, element.size() as u64)?;
        self.parameters.expect("parameters", Element::U32, rows * RECORD_WORDS, 8)?;
        self.positions.expect("positions", Element::U32, rows, 4)?;
        self.scratch.expect("scratch", Element::U32, scratch_len(vocab_size, rows), 8)?;
        self.ids.expect("ids", Element::U32, rows, 4)?;
        Ok(element)
    }

    /// Enough to fill the device; each takes several chunks of a row where there are many rows.
    fn blocks_per_row(&self, multiprocessors: u32) -> u32 {
        let wanted = (multiprocessors as usize * BLOCKS_PER_MULTIPROCESSOR).div_ceil(self.rows);
        wanted.min(self.vocab_size.div_ceil(CHUNK_LEN)).max(1) as u32
    }
}
