//! Options of a C program, of any size and with any numbers in them: a status, and whatever is submitted ends once.
#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pyrex::engine::{pyrex_engine_free, pyrex_engine_open, pyrex_engine_t};
use pyrex::event::{PYREX_EVENT_FAILED, PYREX_EVENT_FINISHED};
use pyrex::options::pyrex_engine_options_t;
use pyrex::prompt::{pyrex_prompt_free, pyrex_prompt_from_text};
use pyrex::request::{pyrex_engine_submit, pyrex_request_free, pyrex_request_next};
use pyrex::sampling::{pyrex_logit_bias_t, pyrex_request_options_t};
use pyrex::status::{pyrex_last_error_message, pyrex_status_t};
use pyrex_core::models::scripted::Script;
use pyrex_core::{Engine, EngineOptions, ModelInput};
use pyrex_fuzz::check;
use std::ffi::{CStr, CString, c_char};
use std::sync::LazyLock;
use std::{mem, ptr};

/// Longer than any answer of the scripted model takes.
const TIMEOUT_MS: i64 = 8000;

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    // What runs out of bytes goes on with zeros.
    let run = |input: &mut Unstructured<'_>| match input.ratio(1, 64)? {
        true => open(input),
        false => submit(input),
    };
    check(|| {
        let _ = run(&mut input);
    });
});

/// Text that C may pass: nothing, a word that is known, or anything without a NUL.
fn text(input: &mut Unstructured<'_>, known: &[&str]) -> Result<Option<CString>> {
    Ok(match input.int_in_range(0..=3)? {
        0 | 1 => None,
        2 if !known.is_empty() => CString::new(*input.choose(known)?).ok(),
        _ => {
            let mut bytes = input.arbitrary::<Vec<u8>>()?;
            bytes.retain(|byte| *byte != 0);
            CString::new(bytes).ok()
        }
    })
}

fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}

/// A number as often near the ends of its range as anywhere.
fn count(input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match input.int_in_range(0..=4)? {
        0 => 0,
        1 => input.int_in_range(0..=64)?,
        2 => u64::MAX - input.int_in_range(0..=2)?,
        3 => 1 << input.int_in_range(0..=63)?,
        _ => input.arbitrary()?,
    })
}

fn number(input: &mut Unstructured<'_>) -> Result<f32> {
    let special = [0.0, 1.0, 0.5, -1.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE, 2.0];
    if input.arbitrary()? { Ok(*input.choose(&special)?) } else { input.arbitrary() }
}

/// `options` as a program of another version passes it: cut off, or with more behind it.
fn resized<T: Copy>(input: &mut Unstructured<'_>, options: &T) -> Result<Vec<u64>> {
    let mut size = size_of::<T>();
    if input.ratio(1, 4)? {
        size = input.int_in_range(0..=2 * size)?;
    }
    let mut words = vec![0u64; size.max(size_of::<usize>()).div_ceil(8)];
    let known = size.min(size_of::<T>());
    // SAFETY: `known` bytes are in both; the buffer has no less than `size` bytes.
    unsafe {
        ptr::copy_nonoverlapping((&raw const *options).cast::<u8>(), words.as_mut_ptr().cast::<u8>(), known)
    };
    words[0] = size as u64;
    // Behind what this version knows there are no pointers.
    if size > size_of::<T>() && input.arbitrary()? {
        *words.last_mut().expect("it has a word") = input.arbitrary()?;
    }
    Ok(words)
}

fn open(input: &mut Unstructured<'_>) -> Result<()> {
    let device = text(input, &["cpu", "cuda", "cuda:7"])?;
    let dtype = text(input, &["f32", "bf16"])?;
    let options = pyrex_engine_options_t {
        struct_size: 0,
        device: pointer(&device),
        dtype: pointer(&dtype),
        // Starting threads is not what is tested here.
        num_threads: input.int_in_range(0..=2)?,
        max_model_len: count(input)?,
        max_batch_tokens: count(input)?,
        max_sequences: count(input)?,
        max_waiting: count(input)?,
        max_events: count(input)?,
        // A cache that the machine has room for is made, and the heap of a target has less.
        kv_cache_bytes: *input.choose(&[1 << 20, 1, 1 << 50, u64::MAX])?,
        kv_cache_fraction: *input.choose(&[0.0, f64::NAN, -1.0, 2.0, 1e-9])?,
        no_prefix_cache: input.arbitrary()?,
        log_level: input.int_in_range(-1..=6)?,
        reader_timeout_ms: count(input)?,
        stuck_after_ms: count(input)?,
        progress: None,
        progress_data: ptr::null_mut(),
        log: None,
        log_data: ptr::null_mut(),
    };
    let options = resized(input, &options)?;
    let mut engine = ptr::null_mut();
    let model = CString::new(pyrex_tests::model_dir("text-only").to_str().expect("a path is text"))
        .expect("without a NUL");
    // SAFETY: pointers to what stands above, and a struct of the size that it says.
    let status = unsafe { pyrex_engine_open(model.as_ptr(), options.as_ptr().cast(), &mut engine) };
    told(status, engine.is_null());
    // SAFETY: a new handle or NULL.
    unsafe { pyrex_engine_free(engine) };
    Ok(())
}

/// A status and what it comes with agree.
fn told(status: pyrex_status_t, is_null: bool) {
    assert_eq!(status != pyrex_status_t::PYREX_OK, is_null, "{status:?}");
    // SAFETY: a C string.
    let message = unsafe { CStr::from_ptr(pyrex_last_error_message()) }.to_str().expect("messages are UTF-8");
    assert_ne!(status, pyrex_status_t::PYREX_PANIC, "{message}");
    assert_ne!(status, pyrex_status_t::PYREX_INTERNAL, "{message}");
    assert!(!is_null || !message.is_empty());
}

struct Shared(*mut pyrex_engine_t);
// SAFETY: engines may be used from any thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

static ENGINE: LazyLock<Shared> = LazyLock::new(|| {
    let model = ModelInput::Loaded(Script::of(&[("ask", "an answer"), ("", "nothing")]).load());
    let engine = Engine::open(EngineOptions { num_threads: Some(1), ..EngineOptions::new(model) });
    Shared(Box::into_raw(Box::new(pyrex_engine_t::new(engine.expect("the scripted model opens")))))
});

fn submit(input: &mut Unstructured<'_>) -> Result<()> {
    let stop = [text(input, &["swer"])?, text(input, &[" "])?];
    let stop: Vec<*const c_char> = stop.iter().flatten().map(|stop| stop.as_ptr()).collect();
    let stop_token_ids = input.arbitrary::<Vec<u32>>()?;
    let bias = input.arbitrary::<Vec<(u16, f32)>>()?;
    let bias: Vec<_> = bias
        .iter()
        .map(|(token_id, bias)| pyrex_logit_bias_t { token_id: u32::from(*token_id), bias: *bias })
        .collect();
    let json_schema = text(input, &[r#"{"type":"object"}"#])?;
    let (regex, lark, salt) =
        (text(input, &["an .*"])?, text(input, &[r#"start: "an""#])?, text(input, &[])?);
    let options = pyrex_request_options_t {
        struct_size: 0,
        temperature: number(input)?,
        top_p: number(input)?,
        min_p: number(input)?,
        repetition_penalty: number(input)?,
        presence_penalty: number(input)?,
        frequency_penalty: number(input)?,
        top_k: count(input)?,
        seed: input.arbitrary()?,
        has_seed: input.arbitrary()?,
        priority: input.arbitrary()?,
        min_tokens: count(input)?,
        max_tokens: count(input)?,
        num_completions: count(input)?,
        stop: stop.as_ptr(),
        num_stop: stop.len(),
        stop_token_ids: stop_token_ids.as_ptr(),
        num_stop_token_ids: stop_token_ids.len(),
        logit_bias: bias.as_ptr(),
        num_logit_bias: bias.len(),
        ignore_eos: input.arbitrary()?,
        logprobs: input.arbitrary()?,
        top_logprobs: count(input)?,
        json_schema: pointer(&json_schema),
        regex: pointer(&regex),
        lark: pointer(&lark),
        timeout_ms: count(input)?,
        cache_salt: pointer(&salt),
        user_data: ptr::null_mut(),
    };
    let options = resized(input, &options)?;
    let (mut prompt, mut request) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: pointers to what stands above, and a struct of the size that it says.
    unsafe {
        pyrex_prompt_from_text(c"ask".as_ptr(), 3, &mut prompt);
        told(pyrex_engine_submit(ENGINE.0, prompt, options.as_ptr().cast(), &mut request), request.is_null());
        pyrex_prompt_free(prompt);
    }
    if request.is_null() {
        return Ok(());
    }
    let mut num_finals = 0;
    let mut event = ptr::null();
    // SAFETY: a handle and pointers of this function, and an event that is looked at before the next is read.
    unsafe {
        while pyrex_request_next(request, TIMEOUT_MS, &mut event) == pyrex_status_t::PYREX_OK {
            assert_eq!(num_finals, 0, "something comes after the final event");
            assert_eq!(CStr::from_ptr((*event).text).to_bytes().len(), (*event).text_len);
            num_finals += usize::from([PYREX_EVENT_FINISHED, PYREX_EVENT_FAILED].contains(&(*event).kind));
        }
        pyrex_request_free(request);
    }
    assert_eq!(num_finals, 1);
    Ok(())
}

const _: () = assert!(mem::align_of::<pyrex_request_options_t>() == 8);
