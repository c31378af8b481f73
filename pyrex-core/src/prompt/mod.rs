//! From what a caller says to what a model reads: chat messages and image bytes in, token ids and patches out.
//!
//! Plain data and integers: no tensor library here. The pieces are generic ([`template`], [`tokenizer`],
//! [`image`], [`resize`]); a family joins them in its own `prompt.rs`.

pub mod detokenizer;
pub mod image;
mod jpeg;
mod python;
mod python_json;
pub mod resize;
mod strftime;
pub mod template;
pub mod tokenizer;

use serde_json::{Map, Value};
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// What a caller asks: a conversation, or raw text to go on from.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// A conversation, rendered by the checkpoint's own chat template.
    Chat(Chat),
    /// Raw text; the beginning-of-sequence token is put in front once.
    Text(String),
}

/// A conversation and how to render it.
#[derive(Clone, Debug, Default)]
pub struct Chat {
    /// The turns in order.
    pub messages: Vec<Message>,
    /// Tool declarations in the JSON shape that the template expects.
    pub tools: Vec<Value>,
    /// Further variables of the template, such as `enable_thinking`; `add_generation_prompt` is true unless given here.
    pub variables: Map<String, Value>,
}

/// One turn.
#[derive(Clone, Debug)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, as the template knows them.
    pub role: String,
    /// What is said.
    pub content: Content,
    /// Whatever else the template reads: `tool_calls`, `tool_call_id`, `name`, `reasoning_content`.
    pub fields: Map<String, Value>,
}

/// What a turn says. Templates treat a plain string and a list of one text part differently.
#[derive(Clone, Debug)]
pub enum Content {
    /// Nothing, as in an assistant turn that only calls tools.
    Nothing,
    /// One text.
    Text(String),
    /// Texts and images in their order.
    Parts(Vec<Part>),
}

/// A piece of a turn.
#[derive(Clone, Debug)]
pub enum Part {
    /// Text.
    Text(String),
    /// An encoded image file: PNG, JPEG, WebP, GIF or BMP.
    Image(ImageBytes),
}

/// The bytes of an image file, shared and not copied, whoever owns them: `bytes.into()` takes a vector, an array, a slice
/// that lives for ever, or whatever else holds bytes.
#[derive(Clone)]
pub struct ImageBytes(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl<T: AsRef<[u8]> + Send + Sync + 'static> From<T> for ImageBytes {
    fn from(bytes: T) -> Self {
        Self(Arc::new(bytes))
    }
}

impl Deref for ImageBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl fmt::Debug for ImageBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageBytes({} bytes)", self.len())
    }
}

impl Message {
    /// A turn of plain text.
    pub fn text(role: impl Into<String>, text: impl Into<String>) -> Self {
        Self { role: role.into(), content: Content::Text(text.into()), fields: Map::new() }
    }

    /// A turn of texts and images.
    pub fn parts(role: impl Into<String>, parts: Vec<Part>) -> Self {
        Self { role: role.into(), content: Content::Parts(parts), fields: Map::new() }
    }
}

impl Chat {
    /// A conversation of these turns, without tools or variables.
    pub fn new(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }

    /// The images of all turns, in document order.
    pub fn images(&self) -> impl Iterator<Item = &ImageBytes> {
        let parts = self.messages.iter().flat_map(|message| match &message.content {
            Content::Parts(parts) => parts.as_slice(),
            Content::Nothing | Content::Text(_) => &[],
        });
        parts.filter_map(|part| match part {
            Part::Image(bytes) => Some(bytes),
            Part::Text(_) => None,
        })
    }
}

/// What the model reads.
#[derive(Clone, Debug, Default)]
pub struct EncodedPrompt {
    /// Token ids, the image placeholder's repeated where an image is.
    pub input_ids: Vec<u32>,
    /// The images in document order.
    pub images: Vec<EncodedImage>,
}

/// One image, resized and cut into patches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedImage {
    /// Where its placeholders lie in `input_ids`.
    pub tokens: Range<usize>,
    /// Its patches.
    pub patches: Patches,
}

/// A grid of patches of u8 pixel values, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patches {
    /// Patches per row.
    pub columns: usize,
    /// Rows of patches.
    pub rows: usize,
    /// Pixel values, `rows · columns` patches one after another; the family decides the order inside a patch.
    pub pixels: Vec<u8>,
}
