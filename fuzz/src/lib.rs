//! What the fuzz targets share: a heap with an end, the panics that nobody caught, and what must hold of any answer.

use pyrex_core::{EncodedPrompt, Error, ErrorKind};
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, Once};

/// What a target may hold at once: `ImageLimits` promises that no picture takes a GiB, and the rest is the target's own.
const HEAP_BYTES: usize = (1 << 30) + (64 << 20);

#[global_allocator]
static HEAP: SmallHeap = SmallHeap;
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static IS_TOLD: AtomicBool = AtomicBool::new(false);
static LAST_PANIC: Mutex<Option<(String, Backtrace)>> = Mutex::new(None);

/// The system's heap, which ends at [`HEAP_BYTES`]: a file that asks for more fails at once and the same everywhere.
struct SmallHeap;

impl SmallHeap {
    /// Counts `num_bytes` as live; false if there is no room for them.
    fn take(num_bytes: usize) -> bool {
        let live = LIVE_BYTES.fetch_add(num_bytes, Ordering::Relaxed);
        if live.saturating_add(num_bytes) <= HEAP_BYTES {
            return true;
        }
        LIVE_BYTES.fetch_sub(num_bytes, Ordering::Relaxed);
        if !IS_TOLD.swap(true, Ordering::Relaxed) {
            let trace = Backtrace::force_capture();
            eprintln!("{num_bytes} more bytes asked for, of {HEAP_BYTES} {live} are taken\n{trace}");
        }
        false
    }
}

// SAFETY: every call goes to the system's allocator as it came; a refusal is the null that the contract allows.
unsafe impl GlobalAlloc for SmallHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        if Self::take(layout.size()) { unsafe { System.alloc(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        if Self::take(layout.size()) { unsafe { System.alloc_zeroed(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let more = new_size.saturating_sub(layout.size());
        if !Self::take(more) {
            return std::ptr::null_mut();
        }
        LIVE_BYTES.fetch_sub(layout.size().saturating_sub(new_size), Ordering::Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(place, layout, new_size) }
    }
}

/// Runs `body`; a panic that leaves it ends the process and is told with its place.
///
/// libFuzzer's own hook ends the process at every panic, also at those the core catches around the decoders of others.
pub fn check(body: impl FnOnce()) {
    static HOOK: Once = Once::new();
    let keep = |info: &panic::PanicHookInfo<'_>| {
        let told = (info.to_string(), Backtrace::force_capture());
        *LAST_PANIC.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(told);
    };
    HOOK.call_once(|| panic::set_hook(Box::new(keep)));
    if panic::catch_unwind(AssertUnwindSafe(body)).is_err() {
        let told = LAST_PANIC.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some((message, trace)) = told {
            eprintln!("{message}\n{trace}");
        }
        std::process::abort();
    }
}

/// An error is of an expected kind and reads as one line.
#[track_caller]
pub fn assert_refusal(error: &Error, kinds: &[ErrorKind]) {
    let message = error.message();
    assert!(kinds.contains(&error.kind()), "{:?}, expected one of {kinds:?}: {message}", error.kind());
    assert!(!message.trim().is_empty(), "an error without a message");
    assert!(!message.contains(char::is_control), "not one line: {message:?}");
}

/// Every image has a run of placeholders of its own, in order, and as many patches as its soft tokens are made of.
#[track_caller]
pub fn assert_encoded(encoded: &EncodedPrompt, tile_len: usize, patch_size: usize) {
    let (ids, mut end) = (&encoded.input_ids, 0);
    for image in &encoded.images {
        let (span, patches) = (image.tokens.clone(), &image.patches);
        assert!(end < span.start && span.start < span.end && span.end < ids.len(), "{span:?} after {end}");
        let placeholder = ids[span.start];
        assert!(ids[span.clone()].iter().all(|id| *id == placeholder), "{span:?} is not all {placeholder}");
        assert!(ids[span.start - 1] != placeholder && ids[span.end] != placeholder, "{span:?} has no marks");
        assert_eq!(span.len() * tile_len, patches.columns * patches.rows, "soft tokens of {span:?}");
        let num_values = 3 * patch_size * patch_size * patches.columns * patches.rows;
        assert_eq!(patches.pixels.len(), num_values, "pixels of {span:?}");
        end = span.end;
    }
    if let Some(first) = encoded.images.first() {
        let num_placeholders = ids.iter().filter(|id| **id == ids[first.tokens.start]).count();
        let num_soft_tokens: usize = encoded.images.iter().map(|image| image.tokens.len()).sum();
        assert_eq!(num_placeholders, num_soft_tokens, "placeholders and soft tokens");
    }
}
