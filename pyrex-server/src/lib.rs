//! OpenAI's protocol over HTTP, for a shell and for a supervision tree.
#![forbid(unsafe_code)]
