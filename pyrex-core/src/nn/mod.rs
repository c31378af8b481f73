//! The parts models are made of. A part knows the path of its weights, shows its tensors to a tap under that path,
//! and knows no model's name.

pub mod attention;
pub mod embedding;
pub mod linear;
pub mod mlp;
pub mod norm;
pub mod rotary;

pub use attention::{Attention, AttentionRows, AttentionShape};
pub use embedding::Embedding;
pub use linear::Linear;
pub use mlp::GatedMlp;
pub use norm::RmsNorm;
