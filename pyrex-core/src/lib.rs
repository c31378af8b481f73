//! Pyrex turns text and images into a stream of tokens inside your process.

#![deny(unsafe_code)]

pub mod batch;
pub mod diag;
pub mod engine;
pub mod error;
pub mod kv;
pub mod models;
pub mod nn;
pub mod ops;
pub mod prompt;
pub mod schedule;
pub mod trace;
pub mod weights;

pub use diag::{DumpOptions, DumpSummary, dump_prefill};
pub use engine::{
    ActivationDtype, Canceller, Completion, DeviceChoice, Engine, EngineConfig, EngineOptions, EngineStats,
    Event, EventSink, FinishReason, Input, ModelInput, Next, Request, RequestHandle, SamplingParams, Timings,
    Usage,
};
pub use error::{Error, ErrorKind, Result};
pub use models::{
    ComponentDescription, LayerDescription, LoadFormat, LoadOptions, LoadedModel, ModelDescription,
    ModelSource, ModelSpec, Progress, describe, load,
};
pub use prompt::{Chat, Content, EncodedImage, EncodedPrompt, Message, Part, Prompt};
