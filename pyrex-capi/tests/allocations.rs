//! Reading an event takes nothing from the heap: what an event needs of it is the token's text, which the engine makes.

mod scripted;

use pyrex::engine::pyrex_engine_free;
use pyrex::event::PYREX_EVENT_FINISHED;
use pyrex::request::pyrex_request_free;
use pyrex_core::models::scripted::Script;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static NUM_ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: hands everything on to the system's allocator; counting takes nothing from the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        NUM_ALLOCATIONS.set(NUM_ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        NUM_ALLOCATIONS.set(NUM_ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn reading_events_takes_nothing_from_the_heap() {
    let engine = scripted::engine(Script::of(&[("ask", &"answer ".repeat(20))]));
    let options =
        pyrex::sampling::pyrex_request_options_t { logprobs: 1, top_logprobs: 5, ..scripted::options() };
    let request = scripted::submit(engine, "ask", &options);
    // Room for texts and log-probabilities is made with the first events, and used again.
    for _ in 0..8 {
        scripted::next(request);
    }
    let before = NUM_ALLOCATIONS.get();
    let mut num_events = 0;
    while scripted::next(request).kind != PYREX_EVENT_FINISHED {
        num_events += 1;
    }
    assert_eq!((num_events, NUM_ALLOCATIONS.get() - before), (134, 0));
    // SAFETY: handles of this test, used no more.
    unsafe {
        pyrex_request_free(request);
        pyrex_engine_free(engine);
    }
}
