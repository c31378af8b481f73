//! Between text and token ids, without asking the model.

use crate::abi::{Out, array, give_text, object, read_text};
use crate::engine::{pyrex_engine_t, with_engine, with_engine_giving};
use crate::guard::Result;
use crate::prompt::pyrex_prompt_t;
use crate::status::{Failure, pyrex_status_t};
use pyrex_core::{EncodedPrompt, Engine, Input, Prompt};
use std::ffi::c_char;

/// The token ids of a text, with nothing added before or after. As many as fit into `capacity` go to `token_ids`, which may be
/// NULL if that is 0; how many there are goes to `*num_tokens` in any case. Computes on the calling thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_tokenize(
    engine: *const pyrex_engine_t,
    text: *const c_char,
    text_len: usize,
    token_ids: *mut u32,
    capacity: usize,
    num_tokens: *mut usize,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    unsafe {
        with_engine(engine, |engine| {
            let out = Ids::new(token_ids, capacity, num_tokens)?;
            out.set(&engine.tokenize(read_text("text", text, text_len)?)?);
            Ok(())
        })
    }
}

/// The text of token ids, special tokens left out; ids that the vocabulary does not have say nothing. `*text` is to be freed
/// with pyrex_string_free(); it is NUL-terminated, and has `*text_len` bytes before that, which may be NULs too. `text_len` may be
/// NULL. Computes on the calling thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_detokenize(
    engine: *const pyrex_engine_t,
    token_ids: *const u32,
    num_tokens: usize,
    text: *mut *mut c_char,
    text_len: *mut usize,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    unsafe {
        with_engine_giving(engine, ("text", text), |engine, out| {
            give(&engine.detokenize(array("token_ids", token_ids, num_tokens)?), &out, text_len)
        })
    }
}

/// A prompt as the model reads it, image placeholders included; where the ids go is as in pyrex_engine_tokenize(). With `capacity` 0
/// this counts the tokens of a prompt with its images. How many of them are an image's goes to `*num_image_tokens`, which may
/// be NULL. Renders, and decodes images, on the calling thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_encode(
    engine: *const pyrex_engine_t,
    prompt: *const pyrex_prompt_t,
    token_ids: *mut u32,
    capacity: usize,
    num_tokens: *mut usize,
    num_image_tokens: *mut usize,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    unsafe {
        with_engine(engine, |engine| {
            let out = Ids::new(token_ids, capacity, num_tokens)?;
            let encoded = encode(engine, object("prompt", prompt)?)?;
            out.set(&encoded.input_ids);
            if let Ok(out) = Out::new("num_image_tokens", num_image_tokens) {
                out.set(encoded.images.iter().map(|image| image.tokens.len()).sum());
            }
            Ok(())
        })
    }
}

/// A conversation as the model's template writes it, one placeholder for each image. `*text` and `text_len` are as in
/// pyrex_engine_detokenize(). Computes on the calling thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_apply_template(
    engine: *const pyrex_engine_t,
    prompt: *const pyrex_prompt_t,
    text: *mut *mut c_char,
    text_len: *mut usize,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    unsafe {
        with_engine_giving(engine, ("text", text), |engine, out| match object("prompt", prompt)?.input() {
            Input::Prompt(Prompt::Chat(chat)) => give(&engine.render(&chat)?, &out, text_len),
            _ => {
                Err(Failure::invalid("the prompt is no conversation, expected one to apply the template to"))
            }
        })
    }
}

fn encode(engine: &Engine, prompt: &pyrex_prompt_t) -> Result<EncodedPrompt> {
    match prompt.input() {
        Input::Prompt(prompt) => Ok(engine.encode(&prompt)?),
        Input::Encoded(encoded) => Ok(encoded),
    }
}

/// # Safety
/// `text_len` is NULL or may be written.
unsafe fn give(text: &str, out: &Out<*mut c_char>, text_len: *mut usize) -> Result<()> {
    out.set(give_text(text)?);
    // SAFETY: the caller's promise.
    if let Ok(out) = unsafe { Out::new("text_len", text_len) } {
        out.set(text.len());
    }
    Ok(())
}

/// Where token ids go.
struct Ids {
    token_ids: *mut u32,
    capacity: usize,
    num_tokens: Out<usize>,
}

impl Ids {
    /// # Safety
    /// `token_ids` has room for `capacity` ids, and `num_tokens` may be written.
    unsafe fn new(token_ids: *mut u32, capacity: usize, num_tokens: *mut usize) -> Result<Self> {
        if token_ids.is_null() && capacity > 0 {
            return Err(Failure::null("token_ids"));
        }
        // SAFETY: the caller's promise.
        Ok(Self { token_ids, capacity, num_tokens: unsafe { Out::new("num_tokens", num_tokens)? } })
    }

    fn set(&self, ids: &[u32]) {
        self.num_tokens.set(ids.len());
        if !self.token_ids.is_null() {
            // SAFETY: `new` was promised that there is room for so many.
            unsafe { ids.as_ptr().copy_to_nonoverlapping(self.token_ids, ids.len().min(self.capacity)) }
        }
    }
}
