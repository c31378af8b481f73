//! The engine's tests once more, with steps that are launched before the tokens of the last one are read, as on a device.
//! [`pyrex_tests::options`] knows this binary by its name.

#[path = "engine.rs"]
mod engine;
#[path = "serving.rs"]
mod serving;
#[path = "serving_gemma4.rs"]
mod serving_gemma4;
