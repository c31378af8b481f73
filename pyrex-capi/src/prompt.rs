//! `pyrex_prompt_t`: what is asked, put together piece by piece.

use crate::abi::{Out, array, c_text, object, read_text, take_back};
use crate::guard::{Result, guard};
use crate::status::{Failure, pyrex_status_t};
use pyrex_core::{Chat, Content, EncodedPrompt, Error, Input, Message, Part, Prompt, SamplingParams};
use serde_json::Value;
use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is asked: a conversation of texts and images, plain text, or token ids. Belongs to no engine, and may be used with several.
pub struct pyrex_prompt_t {
    input: Mutex<Input>,
}

impl pyrex_prompt_t {
    fn new(input: impl Into<Input>) -> Self {
        Self { input: Mutex::new(input.into()) }
    }

    fn lock(&self) -> MutexGuard<'_, Input> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is asked, as it stands.
    pub(crate) fn input(&self) -> Input {
        self.lock().clone()
    }
}

/// Changes the conversation behind a handle.
///
/// # Safety
/// As [`object`].
unsafe fn with_chat(
    prompt: *const pyrex_prompt_t,
    change: impl FnOnce(&mut Chat) -> Result<()>,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        // SAFETY: the caller's promise.
        match &mut *object("prompt", prompt)?.lock() {
            Input::Prompt(Prompt::Chat(chat)) => change(chat),
            Input::Prompt(Prompt::Text(_)) => {
                Err(Failure::invalid("the prompt is plain text, expected a conversation"))
            }
            Input::Encoded(_) => Err(Failure::invalid("the prompt is token ids, expected a conversation")),
        }
    })
}

/// Changes the last turn of the conversation behind a handle.
///
/// # Safety
/// As [`object`].
unsafe fn with_turn(
    prompt: *const pyrex_prompt_t,
    change: impl FnOnce(&mut Message) -> Result<()>,
) -> pyrex_status_t {
    let none =
        || Failure::invalid("the conversation has no turn yet, expected pyrex_prompt_add_turn() first");
    // SAFETY: the caller's promise.
    unsafe { with_chat(prompt, |chat| change(chat.messages.last_mut().ok_or_else(none)?)) }
}

/// A single text stays plain text, as templates treat it otherwise than a list of one.
fn add_part(turn: &mut Message, part: Part) {
    turn.content = match (std::mem::replace(&mut turn.content, Content::Nothing), part) {
        (Content::Nothing, Part::Text(text)) => Content::Text(text),
        (Content::Nothing, part) => Content::Parts(vec![part]),
        (Content::Text(text), part) => Content::Parts(vec![Part::Text(text), part]),
        (Content::Parts(mut parts), part) => {
            parts.push(part);
            Content::Parts(parts)
        }
    };
}

/// An empty conversation. `*prompt` is to be freed with pyrex_prompt_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_prompt_new(prompt: *mut *mut pyrex_prompt_t) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        Out::object("prompt", prompt)?.give(pyrex_prompt_t::new(Chat::default()));
        Ok(())
    })
}

/// Plain text to go on from, without a template; the beginning-of-sequence token is put in front once. `*prompt` is to be freed
/// with pyrex_prompt_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_prompt_from_text(
    text: *const c_char,
    text_len: usize,
    prompt: *mut *mut pyrex_prompt_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let out = Out::object("prompt", prompt)?;
        let text = read_text("text", text, text_len)?;
        out.give(pyrex_prompt_t::new(Prompt::Text(text.to_owned())));
        Ok(())
    })
}

/// Token ids, taken as they are. `*prompt` is to be freed with pyrex_prompt_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_prompt_from_ids(
    token_ids: *const u32,
    num_tokens: usize,
    prompt: *mut *mut pyrex_prompt_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let out = Out::object("prompt", prompt)?;
        let input_ids = array("token_ids", token_ids, num_tokens)?.to_vec();
        out.give(pyrex_prompt_t::new(EncodedPrompt { input_ids, images: Vec::new() }));
        Ok(())
    })
}

/// The prompt of one JSON object in OpenAI's shape, as pyrex_engine_submit_json() reads it; what it says about the answer is
/// checked and left out. `*prompt` is to be freed with pyrex_prompt_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_prompt_from_json(
    json: *const c_char,
    json_len: usize,
    prompt: *mut *mut pyrex_prompt_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let out = Out::object("prompt", prompt)?;
        let body = read_text("json", json, json_len)?;
        let asked = pyrex_openai::read(body.as_bytes(), &SamplingParams::default())?;
        out.give(pyrex_prompt_t::new(asked.request.input));
        Ok(())
    })
}

/// Begins a turn of "system", "user", "assistant", "tool" or whatever else the model's template knows. What it says is added
/// behind it, text and images in their order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_prompt_add_turn(
    prompt: *mut pyrex_prompt_t,
    role: *const c_char,
) -> pyrex_status_t {
    let add = |chat: &mut Chat| {
        // SAFETY: what the header asks of every caller.
        let role = unsafe { c_text("role", role)? }.to_owned();
        chat.messages.push(Message { role, content: Content::Nothing, fields: Default::default() });
        Ok(())
    };
    // SAFETY: as above.
    unsafe { with_chat(prompt, add) }
}

/// Adds text to the last turn.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_prompt_add_text(
    prompt: *mut pyrex_prompt_t,
    text: *const c_char,
    text_len: usize,
) -> pyrex_status_t {
    let add = |turn: &mut Message| {
        // SAFETY: what the header asks of every caller.
        add_part(turn, Part::Text(unsafe { read_text("text", text, text_len)? }.to_owned()));
        Ok(())
    };
    // SAFETY: as above.
    unsafe { with_turn(prompt, add) }
}

/// Adds an image to the last turn: the bytes of a PNG, JPEG, WebP, GIF or BMP file, which are copied. They are looked at when the
/// prompt is used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_prompt_add_image(
    prompt: *mut pyrex_prompt_t,
    bytes: *const u8,
    num_bytes: usize,
) -> pyrex_status_t {
    let add = |turn: &mut Message| {
        // SAFETY: what the header asks of every caller.
        add_part(turn, Part::Image(unsafe { array("bytes", bytes, num_bytes)? }.to_vec().into()));
        Ok(())
    };
    // SAFETY: as above.
    unsafe { with_turn(prompt, add) }
}

/// Adds an image to the last turn, from the file at `path` (UTF-8), which is read now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_prompt_add_image_file(
    prompt: *mut pyrex_prompt_t,
    path: *const c_char,
) -> pyrex_status_t {
    let add = |turn: &mut Message| {
        // SAFETY: what the header asks of every caller.
        let path = unsafe { c_text("path", path)? };
        let bytes = std::fs::read(path).map_err(|e| Error::io(format_args!("{path}: {e}")))?;
        add_part(turn, Part::Image(bytes.into()));
        Ok(())
    };
    // SAFETY: as above.
    unsafe { with_turn(prompt, add) }
}

/// Sets what else the template reads of the last turn, as JSON: "tool_calls", "tool_call_id", "name", "reasoning_content".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_prompt_set_field(
    prompt: *mut pyrex_prompt_t,
    name: *const c_char,
    json: *const c_char,
) -> pyrex_status_t {
    let set = |turn: &mut Message| {
        // SAFETY: what the header asks of every caller.
        let (name, value) = unsafe { (c_text("name", name)?, parsed("json", json)?) };
        turn.fields.insert(name.to_owned(), value);
        Ok(())
    };
    // SAFETY: as above.
    unsafe { with_turn(prompt, set) }
}

/// Sets the tools that the model may call: a JSON list of declarations in the shape that its template expects.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_prompt_set_tools(
    prompt: *mut pyrex_prompt_t,
    json: *const c_char,
) -> pyrex_status_t {
    let set = |chat: &mut Chat| {
        // SAFETY: what the header asks of every caller.
        match unsafe { parsed("json", json)? } {
            Value::Array(tools) => chat.tools = tools,
            _ => return Err(Failure::invalid("the tools are no JSON list, expected a list of declarations")),
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { with_chat(prompt, set) }
}

/// Sets a variable of the template, as JSON: "enable_thinking", "add_generation_prompt".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_prompt_set_variable(
    prompt: *mut pyrex_prompt_t,
    name: *const c_char,
    json: *const c_char,
) -> pyrex_status_t {
    let set = |chat: &mut Chat| {
        // SAFETY: what the header asks of every caller.
        let (name, value) = unsafe { (c_text("name", name)?, parsed("json", json)?) };
        chat.variables.insert(name.to_owned(), value);
        Ok(())
    };
    // SAFETY: as above.
    unsafe { with_chat(prompt, set) }
}

/// # Safety
/// As [`c_text`].
unsafe fn parsed(name: &str, json: *const c_char) -> Result<Value> {
    // SAFETY: the caller's promise.
    let text = unsafe { c_text(name, json)? };
    serde_json::from_str(text).map_err(|e| Failure::invalid(format!("{name}: {e}")))
}

/// Frees a prompt; NULL is fine. Requests that were made of it go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_prompt_free(prompt: *mut pyrex_prompt_t) {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        drop(take_back(prompt));
        Ok(())
    });
}
