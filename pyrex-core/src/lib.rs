//! Pyrex turns text and images into a stream of tokens inside your process.
//!
//! Open a model once, submit requests from anywhere, read their events:
//!
//! ```no_run
//! use pyrex_core::{Chat, Engine, EngineOptions, Message, Request, Result};
//!
//! fn main() -> Result<()> {
//!     let engine = Engine::open(EngineOptions::new("models/shapes"))?;
//!     let question = Chat::new(vec![Message::text("user", "Who are you?")]);
//!     println!("{}", engine.submit(Request::new(question))?.wait()?.text);
//!     Ok(())
//! }
//! ```
//!
//! To read how a token is made, follow [`engine`], [`schedule`], [`batch`], [`models`], [`nn`], [`ops`] in that order;
//! `ARCHITECTURE.md` draws the map.

#![deny(unsafe_code)]
// A module's first lines are a map for whoever works on it, and name its private files.
#![allow(rustdoc::private_intra_doc_links)]

pub mod batch;
pub mod diag;
pub mod engine;
pub mod error;
pub mod fault;
pub mod kv;
pub mod models;
pub mod nn;
pub mod ops;
pub mod prompt;
pub mod schedule;
pub mod trace;
pub mod weights;

pub use diag::{
    Bisection, Candidate, Ceilings, Compared, Comparison, DumpFile, DumpInput, DumpOptions, DumpSummary,
    Figures, Finger, GroupBy, LogitsDiff, Manifest, MemoryReader, Outcome, Position, Profile, ProfileOptions,
    ProfilePhase, ProfileRow, Share, Threshold, Trace, Verdict, WeightFinding, bisect, compare, diff_logits,
    dump, html, profile,
};
pub use engine::{
    ActivationDtype, Completion, Constraint, DeviceChoice, Engine, EngineConfig, EngineOptions, EngineStats,
    EngineWatch, Event, EventSink, FinishReason, Grammar, Input, KvCacheSize, ModelInput, Next, Notify,
    Reasoning, Request, RequestControl, RequestHandle, Sampled, SamplingParams, Session, StepTimes, Timings,
    TokenConstraint, TokenLogprobs, TokenMask, Usage,
};
pub use error::{Error, ErrorKind, Result};
pub use fault::Faults;
#[cfg(feature = "test-util")]
pub use models::scripted::{Gate, GateKeeper, Permit, Script};
pub use models::{
    AnswerFormat, AnswerParser, AnswerPiece, CallRules, ComponentDescription, LayerDescription, LoadFormat,
    LoadOptions, LoadedModel, ModelDescription, ModelSource, ModelSpec, Progress, ReasoningMarks, Tell,
    describe, load,
};
pub use ops::matrix::SharedBytes;
pub use prompt::detokenizer::TokenBytes;
pub use prompt::{Chat, Content, EncodedImage, EncodedPrompt, ImageBytes, Message, Part, Prompt};
pub use weights::TablePlace;
