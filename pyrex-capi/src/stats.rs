//! How an engine stands, as a struct and as JSON.

use crate::abi::{Growing, give_text, write_growing};
use crate::engine::{pyrex_engine_t, with_engine, with_engine_giving};
use crate::status::pyrex_status_t;
use pyrex_core::EngineStats;
use serde_json::{Value, json};
use std::ffi::c_char;

/// How an engine stands after its last step. Sums count from its opening. Written by pyrex_engine_stats(); set
/// `struct_size` before.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pyrex_stats_t {
    /// sizeof(pyrex_stats_t).
    pub struct_size: usize,
    /// Requests that wait for their turn.
    pub num_waiting: u64,
    /// Requests that have begun and not ended.
    pub num_running: u64,
    /// How many of these are paused because nobody reads their events.
    pub num_paused: u64,
    /// Sequences that hold blocks of the cache.
    pub num_leases: u64,
    /// Blocks of the cache in all.
    pub num_blocks: u64,
    /// Blocks that nobody holds, those with a remembered prefix included.
    pub num_free_blocks: u64,
    /// Blocks whose content a new prompt could find.
    pub num_cached_blocks: u64,
    /// Tokens of sequences that began, what a preempted one computes again included.
    pub prefix_tokens: u64,
    /// How many of them the cache still held.
    pub prefix_hit_tokens: u64,
    /// Images that steps asked for.
    pub image_lookups: u64,
    /// How many of them were encoded before.
    pub image_hits: u64,
    /// Sequences that gave their blocks to others.
    pub preemptions: u64,
    /// Tokens computed: of prompts, and one for each token chosen.
    pub computed_tokens: u64,
    /// Tokens chosen.
    pub generated_tokens: u64,
    /// Steps that ended well.
    pub num_steps: u64,
    /// Steps that failed, or that were given up because their requests were cancelled.
    pub num_failed_steps: u64,
    /// Tokens chosen per second, over the last ten seconds or so.
    pub tokens_per_second: f64,
    /// How long the last step took.
    pub last_step_ms: f64,
    /// How long the step that runs now has been running; 0 between steps.
    pub running_step_ms: f64,
    /// Where the time of all steps went: choosing what runs.
    pub plan_ms: f64,
    /// The vision tower.
    pub encode_images_ms: f64,
    /// The decoder.
    pub forward_ms: f64,
    /// Choosing tokens.
    pub sample_ms: f64,
    /// Turning them into text and telling it.
    pub deliver_ms: f64,
}

// SAFETY: numbers of 8 bytes.
unsafe impl Growing for pyrex_stats_t {
    const NAME: &str = "pyrex_stats_t";
}

impl From<EngineStats> for pyrex_stats_t {
    fn from(stats: EngineStats) -> Self {
        let times = stats.step_times;
        Self {
            struct_size: size_of::<Self>(),
            num_waiting: stats.num_waiting as u64,
            num_running: stats.num_running as u64,
            num_paused: stats.num_paused as u64,
            num_leases: stats.num_leases as u64,
            num_blocks: stats.num_blocks as u64,
            num_free_blocks: stats.num_free_blocks as u64,
            num_cached_blocks: stats.num_cached_blocks as u64,
            prefix_tokens: stats.prefix_tokens,
            prefix_hit_tokens: stats.prefix_hit_tokens,
            image_lookups: stats.image_lookups,
            image_hits: stats.image_hits,
            preemptions: stats.preemptions,
            computed_tokens: stats.computed_tokens,
            generated_tokens: stats.generated_tokens,
            num_steps: stats.num_steps,
            num_failed_steps: stats.num_failed_steps,
            tokens_per_second: stats.tokens_per_second,
            last_step_ms: stats.last_step_ms,
            running_step_ms: stats.running_step_ms.unwrap_or(0.0),
            plan_ms: times.plan_ms,
            encode_images_ms: times.encode_images_ms,
            forward_ms: times.forward_ms,
            sample_ms: times.sample_ms,
            deliver_ms: times.deliver_ms,
        }
    }
}

fn as_json(stats: &pyrex_stats_t) -> Value {
    json!({
        "num_waiting": stats.num_waiting,
        "num_running": stats.num_running,
        "num_paused": stats.num_paused,
        "num_leases": stats.num_leases,
        "num_blocks": stats.num_blocks,
        "num_free_blocks": stats.num_free_blocks,
        "num_cached_blocks": stats.num_cached_blocks,
        "prefix_tokens": stats.prefix_tokens,
        "prefix_hit_tokens": stats.prefix_hit_tokens,
        "image_lookups": stats.image_lookups,
        "image_hits": stats.image_hits,
        "preemptions": stats.preemptions,
        "computed_tokens": stats.computed_tokens,
        "generated_tokens": stats.generated_tokens,
        "num_steps": stats.num_steps,
        "num_failed_steps": stats.num_failed_steps,
        "tokens_per_second": stats.tokens_per_second,
        "last_step_ms": stats.last_step_ms,
        "running_step_ms": stats.running_step_ms,
        "plan_ms": stats.plan_ms,
        "encode_images_ms": stats.encode_images_ms,
        "forward_ms": stats.forward_ms,
        "sample_ms": stats.sample_ms,
        "deliver_ms": stats.deliver_ms,
    })
}

/// Tells how an engine stands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_stats(
    engine: *const pyrex_engine_t,
    stats: *mut pyrex_stats_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    let tell = |engine: &pyrex_core::Engine| unsafe {
        write_growing("stats", stats, &pyrex_stats_t::from(engine.stats()))
    };
    // SAFETY: as above.
    unsafe { with_engine(engine, tell) }
}

/// Tells how an engine stands as a JSON object, whose keys are the fields of pyrex_stats_t. `*json` is to be freed with
/// pyrex_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_stats_json(
    engine: *const pyrex_engine_t,
    json: *mut *mut c_char,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    unsafe {
        with_engine_giving(engine, ("json", json), |engine, out| {
            out.set(give_text(&as_json(&engine.stats().into()).to_string())?);
            Ok(())
        })
    }
}
