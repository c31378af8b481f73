//! Pyrex on the BEAM. What each function means is said once, in `elixir/lib/pyrex/native.ex`.
//!
//! A scheduler of the BEAM serves every process of a node, so nothing here computes, waits or copies a picture: a function
//! decodes terms, sends a command and returns. Prompts, grammars and models are worked on by threads of Rust, which tell
//! processes by messages: [`engine`] what becomes of an engine, [`request`] of events that were asked for, and of no others, so
//! that no mailbox grows.

mod arrival;
mod atoms;
mod bytes;
mod engine;
mod error;
mod event;
mod mailbox;
mod prompt;
mod question;
mod reception;
mod reply;
mod request;
mod sampling;
mod server;
mod terms;
#[cfg(feature = "test-util")]
mod testing;

rustler::init!("Elixir.Pyrex.Native");
