//! The driver's rules, each broken once: what a device would let pass by luck, or fail at without saying why.

use crate::capture::{CaptureStatus, Mode};
use crate::driver::{Driver, Handle};
use crate::host;
use crate::memory::Owner;
use crate::module::Function;
use crate::product::{Element, Matrix, Product, Rounding};
use crate::status::{Outcome, Status};
use crate::work::{Copy, Place, Work};
use pyrex_emulator::LaunchShape;

const AUTO_FREE: u64 = 1;

/// A device of 1 MiB with two streams that wait for nobody.
fn device() -> (Driver, Handle, Handle) {
    let mut driver = Driver::new(1 << 20);
    let (a, b) = (driver.create_stream(false), driver.create_stream(false));
    (driver, a, b)
}

fn address_of(memory: &mut [u8]) -> u64 {
    memory.as_mut_ptr().expose_provenance() as u64
}

fn upload(driver: &mut Driver, stream: Handle, to: u64, from: &mut [u8]) -> Outcome {
    let from = (address_of(from), from.len() as u64);
    driver.enqueue(stream, Work::Copy(Copy::new(Place::Device(to), Place::Host(from.0), from.1)))
}

fn download(driver: &mut Driver, stream: Handle, to: &mut [u8], from: u64) -> Outcome {
    let to = (address_of(to), to.len() as u64);
    driver.enqueue(stream, Work::Copy(Copy::new(Place::Host(to.0), Place::Device(from), to.1)))
}

fn set(address: u64, value: u8, count: u64) -> Work {
    Work::Set { address, pattern: vec![value], count }
}

/// Memory of the program that stays where it is, for the device to use.
fn pin(driver: &mut Driver, len: usize) -> &'static mut [u8] {
    let memory = vec![0; len].leak();
    // SAFETY: it is never given back.
    unsafe { driver.memory.map(address_of(memory), len as u64) }.unwrap();
    memory
}

/// As the program sees memory that copies may have changed.
fn seen(memory: &mut [u8]) -> Vec<u8> {
    // SAFETY: a slice is there to be read.
    unsafe { host::read(address_of(memory), memory.len()) }
}

fn read(driver: &mut Driver, stream: Handle, address: u64, len: usize) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; len];
    download(driver, stream, &mut bytes, address)?;
    Ok(seen(&mut bytes))
}

#[test]
fn memory_has_an_end_and_is_given_back_as_it_came() {
    let (mut driver, a, _) = device();
    let pooled = driver.allocate_async(1 << 19, a).unwrap();
    let direct = driver.memory.allocate(1 << 18, Owner::Device).unwrap();
    assert_eq!(driver.memory.info(), (1 << 18, 1 << 20));
    assert_eq!(driver.allocate_async(1 << 19, a), Err(Status::OUT_OF_MEMORY));
    assert_eq!(driver.free_async(direct, a), Err(Status::INVALID_VALUE), "it came from no pool");
    driver.free_async(pooled, a).unwrap();
    assert_eq!(driver.free_async(pooled, a), Err(Status::INVALID_VALUE), "it is freed");
    assert_eq!(driver.memory.info().0, 1 << 18, "the pool keeps it until it is waited for");
    driver.synchronize(a).unwrap();
    assert_eq!(driver.memory.info().0, 3 << 18);
    driver.memory.pool.threshold = u64::MAX;
    let pooled = driver.allocate_async(1 << 19, a).unwrap();
    driver.free_async(pooled, a).unwrap();
    driver.synchronize(a).unwrap();
    assert_eq!(driver.memory.info().0, 1 << 18, "the pool was told to keep it");
    driver.memory.allocate(3 << 18, Owner::Device).unwrap();
    assert_eq!(driver.memory.live(), (2, 1 << 20));
    assert_eq!((driver.allocate_async(0, a), driver.free_async(0, a)), (Ok(0), Ok(())));
}

#[test]
fn a_fault_is_what_every_later_call_returns() {
    let (mut driver, a, _) = device();
    let memory = driver.allocate_async(16, a).unwrap();
    assert_eq!(read(&mut driver, a, memory, 16), Err(Status::ILLEGAL_ADDRESS), "nobody wrote it");
    assert_eq!(driver.sticky, Some(Status::ILLEGAL_ADDRESS));
    let (mut driver, a, _) = device();
    let memory = driver.allocate_async(16, a).unwrap();
    assert_eq!(driver.enqueue(a, set(memory, 1, 17)), Err(Status::ILLEGAL_ADDRESS), "it is longer");
}

#[test]
fn what_nobody_wrote_may_be_copied_but_not_read() {
    let (mut driver, a, _) = device();
    let (from, to) = (driver.allocate_async(8, a).unwrap(), driver.allocate_async(8, a).unwrap());
    driver.enqueue(a, set(from, 7, 4)).unwrap();
    driver.enqueue(a, set(to, 1, 8)).unwrap();
    driver.enqueue(a, Work::Copy(Copy::new(Place::Device(to), Place::Device(from), 8))).unwrap();
    assert_eq!(read(&mut driver, a, to, 4), Ok(vec![7; 4]));
    assert_eq!(read(&mut driver, a, to, 8), Err(Status::ILLEGAL_ADDRESS));
}

#[test]
fn two_streams_must_wait_for_each_other() {
    let (mut driver, a, b) = device();
    let memory = driver.allocate_async(4, a).unwrap();
    driver.enqueue(a, set(memory, 1, 4)).unwrap();
    let event = driver.create_event(false);
    driver.record_event(event, a).unwrap();
    driver.wait_event(b, event).unwrap();
    assert_eq!(read(&mut driver, b, memory, 4), Ok(vec![1; 4]));
    driver.synchronize(b).unwrap();
    driver.enqueue(a, set(memory, 2, 4)).unwrap();
    assert_eq!(
        read(&mut driver, b, memory, 4),
        Err(Status::ILLEGAL_ADDRESS),
        "b did not wait for the second"
    );

    let (mut driver, a, b) = device();
    let memory = driver.allocate_async(4, a).unwrap();
    driver.enqueue(a, set(memory, 1, 4)).unwrap();
    driver.synchronize(a).unwrap();
    driver.enqueue(b, set(memory, 2, 4)).unwrap();
    assert_eq!(driver.free_async(memory, a), Err(Status::ILLEGAL_ADDRESS), "b may still write it");
}

#[test]
fn the_legacy_stream_waits_for_those_that_do_not_say_otherwise() {
    let (mut driver, other, _) = device();
    let blocking = driver.create_stream(true);
    let memory = driver.allocate_async(4, blocking).unwrap();
    driver.enqueue(blocking, set(memory, 1, 4)).unwrap();
    driver.enqueue(0, set(memory, 2, 4)).unwrap();
    driver.enqueue(blocking, set(memory, 3, 4)).unwrap();
    assert_eq!(driver.enqueue(other, set(memory, 4, 4)), Err(Status::ILLEGAL_ADDRESS));
}

#[test]
fn pinned_memory_has_what_was_copied_once_that_was_waited_for() {
    let (mut driver, a, _) = device();
    let pinned = pin(&mut driver, 4);
    let memory = driver.allocate_async(4, a).unwrap();
    driver.enqueue(a, set(memory, 9, 4)).unwrap();
    download(&mut driver, a, pinned, memory).unwrap();
    assert_ne!(seen(pinned), [9; 4], "the program has not waited");
    let event = driver.create_event(false);
    driver.record_event(event, a).unwrap();
    assert_eq!(driver.query_event(event), Err(Status::NOT_READY));
    assert_ne!(seen(pinned), [9; 4]);
    assert_eq!(driver.query_event(event), Ok(()));
    assert_eq!(seen(pinned), [9; 4]);

    download(&mut driver, a, pinned, memory).unwrap();
    upload(&mut driver, a, memory, pinned).unwrap();
    assert_eq!(read(&mut driver, a, memory, 4), Ok(vec![9; 4]), "the device itself sees it in order");
}

#[test]
fn pinned_memory_stays_as_it_is_until_a_copy_from_it_was_waited_for() {
    let (mut driver, a, _) = device();
    let pinned = pin(&mut driver, 4);
    let memory = driver.allocate_async(4, a).unwrap();
    upload(&mut driver, a, memory, pinned).unwrap();
    driver.synchronize(a).unwrap();
    pinned[0] = 1;
    upload(&mut driver, a, memory, pinned).unwrap();
    pinned[0] = 2;
    assert_eq!(driver.synchronize(a), Err(Status::LAUNCH_FAILED));
}

#[test]
fn a_graph_does_what_was_captured_each_time_it_is_launched() {
    let (mut driver, a, _) = device();
    let pinned = pin(&mut driver, 4);
    let memory = driver.allocate_async(8, a).unwrap();
    driver.begin_capture(a, Mode::Global).unwrap();
    upload(&mut driver, a, memory, pinned).unwrap();
    driver.enqueue(a, set(memory + 4, 5, 4)).unwrap();
    assert_eq!(driver.capture_status(a), Ok(CaptureStatus::Active));
    let graph = driver.end_capture(a).unwrap();
    assert_eq!(driver.graphs[&graph].len(), 2);
    let graph = driver.instantiate(graph, 0).unwrap();
    assert!(driver.memory.device.read(memory, &mut [0]).is_err(), "nothing was done yet");
    for number in 1..4 {
        pinned.fill(number);
        driver.launch_graph(graph, a).unwrap();
        driver.synchronize(a).unwrap();
        assert_eq!(read(&mut driver, a, memory, 8).unwrap(), [[number; 4], [5; 4]].concat());
    }
    driver.free_async(memory, a).unwrap();
    assert_eq!(driver.launch_graph(graph, a), Err(Status::ILLEGAL_ADDRESS), "what it writes is freed");
}

#[test]
fn products_are_captured() {
    let (mut driver, a, b) = device();
    let memory = driver.allocate_async(12, a).unwrap();
    driver
        .enqueue(a, Work::Write { address: memory, bytes: [2f32, 3.0].map(f32::to_le_bytes).concat() })
        .unwrap();
    let at = |address| Matrix { address, element: Element::F32, leading: 1, stride: 0, transposed: false };
    let (c, rounding) = (at(memory + 8), Rounding::None);
    let (a_matrix, b_matrix) = (at(memory), at(memory + 4));
    driver.begin_capture(a, Mode::Global).unwrap();
    let product = Product {
        m: 1,
        n: 1,
        k: 1,
        batches: 1,
        alpha: 1.0,
        beta: 0.0,
        a: a_matrix,
        b: b_matrix,
        c,
        d: c,
        rounding,
    };
    driver.enqueue(a, Work::Product(product)).unwrap();
    let graph = driver.end_capture(a).unwrap();
    let graph = driver.instantiate(graph, 0).unwrap();
    driver.launch_graph(graph, a).unwrap();
    assert_eq!(read(&mut driver, a, memory + 8, 4).unwrap(), 6f32.to_le_bytes());
    assert_eq!((driver.counters().products, driver.counters().graph_launches), (1, 1));
    driver.launch_graph(graph, a).unwrap();
    assert_eq!(
        driver.enqueue(b, Work::Product(product)),
        Err(Status::ILLEGAL_ADDRESS),
        "b has not waited for a"
    );
}

#[test]
fn memory_of_a_graph_is_new_at_each_launch() {
    for (flags, is_freed_within, again) in
        [(0, true, Ok(())), (0, false, Err(Status::INVALID_VALUE)), (AUTO_FREE, false, Ok(()))]
    {
        let (mut driver, a, _) = device();
        driver.begin_capture(a, Mode::ThreadLocal).unwrap();
        let memory = driver.allocate_async(4, a).unwrap();
        driver.enqueue(a, set(memory, 1, 3)).unwrap();
        if is_freed_within {
            driver.free_async(memory, a).unwrap();
            assert_eq!(driver.memory.live(), (0, 0), "a capture does nothing");
        }
        let graph = driver.end_capture(a).unwrap();
        let graph = driver.instantiate(graph, flags).unwrap();
        driver.launch_graph(graph, a).unwrap();
        assert_eq!(driver.memory.live().0, u64::from(!is_freed_within));
        if !is_freed_within {
            driver.enqueue(a, set(memory + 3, 1, 1)).unwrap();
            assert_eq!(read(&mut driver, a, memory, 4), Ok(vec![1; 4]));
        }
        assert_eq!(driver.launch_graph(graph, a), again);
        if again.is_ok() {
            let outcome = read(&mut driver, a, memory, 4);
            assert_eq!(
                outcome,
                Err(Status::ILLEGAL_ADDRESS),
                "freed, or nobody wrote the fourth byte of the new memory"
            );
        } else {
            driver.free_async(memory, a).unwrap();
            driver.launch_graph(graph, a).unwrap();
        }
    }
}

/// Something that must not be done during a capture of the first stream.
type Misuse = fn(&mut Driver, Handle, Handle) -> Outcome;

/// What it is, what the capture began with, and what the driver says of it.
const MISUSES: [(&str, Mode, Misuse, Status); 14] = [
    (
        "cuMemAlloc",
        Mode::ThreadLocal,
        |driver, _, _| driver.refuse_while_capturing("x"),
        Status::STREAM_CAPTURE_UNSUPPORTED,
    ),
    ("synchronize", Mode::Relaxed, |driver, a, _| driver.synchronize(a), Status::STREAM_CAPTURE_UNSUPPORTED),
    ("query", Mode::Relaxed, |driver, a, _| driver.query(a), Status::STREAM_CAPTURE_UNSUPPORTED),
    (
        "synchronize another",
        Mode::Global,
        |driver, _, b| driver.synchronize(b),
        Status::STREAM_CAPTURE_UNSUPPORTED,
    ),
    (
        "synchronize all",
        Mode::Relaxed,
        |driver, _, _| driver.synchronize_all(),
        Status::STREAM_CAPTURE_UNSUPPORTED,
    ),
    (
        "copy and wait",
        Mode::Global,
        |driver, _, _| driver.do_now(&set(0, 0, 0)),
        Status::STREAM_CAPTURE_IMPLICIT,
    ),
    (
        "load a module",
        Mode::ThreadLocal,
        |driver, _, _| driver.load_module("x").map(drop),
        Status::STREAM_CAPTURE_UNSUPPORTED,
    ),
    (
        "legacy stream",
        Mode::Relaxed,
        |driver, _, _| driver.enqueue(0, set(0, 0, 0)),
        Status::STREAM_CAPTURE_IMPLICIT,
    ),
    (
        "query a captured event",
        Mode::Relaxed,
        |driver, a, _| {
            let event = driver.create_event(false);
            driver.record_event(event, a)?;
            driver.query_event(event)
        },
        Status::CAPTURED_EVENT,
    ),
    (
        "wait for an event outside",
        Mode::Relaxed,
        |driver, a, b| {
            let event = driver.create_event(false);
            driver.record_event(event, b)?;
            driver.wait_event(a, event)
        },
        Status::STREAM_CAPTURE_ISOLATION,
    ),
    (
        "wait for an event of another capture",
        Mode::Relaxed,
        |driver, a, b| {
            driver.begin_capture(b, Mode::Relaxed)?;
            let event = driver.create_event(false);
            driver.record_event(event, b)?;
            driver.wait_event(a, event)
        },
        Status::STREAM_CAPTURE_MERGE,
    ),
    (
        "free what was there before",
        Mode::Relaxed,
        |driver, a, b| {
            let memory = driver.allocate_async(4, b)?;
            driver.free_async(memory, a)
        },
        Status::INVALID_VALUE,
    ),
    (
        "copy from pageable memory",
        Mode::Relaxed,
        |driver, a, b| {
            let memory = driver.allocate_async(4, b)?;
            upload(driver, a, memory, &mut [0; 4])
        },
        Status::STREAM_CAPTURE_UNSUPPORTED,
    ),
    (
        "copy to pageable memory",
        Mode::Relaxed,
        |driver, a, b| {
            let memory = driver.allocate_async(4, b)?;
            download(driver, a, &mut [0; 4], memory)
        },
        Status::STREAM_CAPTURE_UNSUPPORTED,
    ),
];

#[test]
fn what_a_capture_forbids_spoils_it() {
    for (what, mode, misuse, status) in MISUSES {
        let mut driver = Driver::new(1 << 20);
        // The legacy stream waits for this one.
        let (a, b) = (driver.create_stream(true), driver.create_stream(false));
        driver.begin_capture(a, mode).unwrap();
        assert_eq!(misuse(&mut driver, a, b), Err(status), "{what}");
        assert_eq!(driver.capture_status(a), Ok(CaptureStatus::Invalidated), "{what}");
        assert_eq!(driver.enqueue(a, set(0, 0, 0)), Err(Status::STREAM_CAPTURE_INVALIDATED), "{what}");
        assert_eq!(driver.end_capture(a), Err(Status::STREAM_CAPTURE_INVALIDATED), "{what}");
        assert_eq!(driver.capture_status(a), Ok(CaptureStatus::None), "{what}");
        assert_eq!(driver.sticky, None, "{what}: only the capture is lost");
        if what != "wait for an event of another capture" {
            driver.synchronize(a).unwrap();
        }
    }
}

#[test]
fn other_threads_may_go_on_unless_a_capture_is_global() {
    for (mode, other) in [
        (Mode::Global, Err(Status::STREAM_CAPTURE_UNSUPPORTED)),
        (Mode::ThreadLocal, Ok(())),
        (Mode::Relaxed, Ok(())),
    ] {
        let (mut driver, a, b) = device();
        driver.begin_capture(a, mode).unwrap();
        driver.caller = 1;
        assert_eq!(driver.synchronize(b), other, "{mode:?}");
        let ended = driver.end_capture(a);
        match mode {
            Mode::Relaxed => assert!(ended.is_ok()),
            _ => assert_eq!(ended, Err(Status::STREAM_CAPTURE_WRONG_THREAD)),
        }
    }
}

#[test]
fn a_wait_for_the_context_spoils_captures_of_every_mode_and_thread() {
    for mode in [Mode::Global, Mode::ThreadLocal, Mode::Relaxed] {
        let (mut driver, a, _) = device();
        driver.begin_capture(a, mode).unwrap();
        driver.caller = 1;
        assert_eq!(driver.synchronize_all(), Err(Status::STREAM_CAPTURE_UNSUPPORTED), "{mode:?}");
        driver.caller = 0;
        assert_eq!(driver.end_capture(a), Err(Status::STREAM_CAPTURE_INVALIDATED), "{mode:?}");
        driver.synchronize_all().expect("nothing is captured");
    }
}

#[test]
fn a_capture_begins_once_and_ends_where_it_began() {
    let (mut driver, a, b) = device();
    assert_eq!(driver.begin_capture(0, Mode::Relaxed), Err(Status::STREAM_CAPTURE_UNSUPPORTED));
    assert_eq!(driver.end_capture(a), Err(Status::ILLEGAL_STATE));
    driver.begin_capture(a, Mode::Relaxed).unwrap();
    assert_eq!(driver.begin_capture(a, Mode::Relaxed), Err(Status::ILLEGAL_STATE));
    let event = driver.create_event(false);
    driver.wait_event(a, event).expect("it was never recorded, so there is nothing to wait for");
    driver.record_event(event, a).unwrap();
    driver.wait_event(b, event).unwrap();
    assert_eq!(driver.end_capture(b), Err(Status::STREAM_CAPTURE_UNMATCHED));
    driver.end_capture(a).expect("b did nothing");
    assert_eq!(driver.wait_event(b, event), Err(Status::CAPTURED_EVENT), "the capture has ended");
    assert_eq!(driver.query_event(event), Err(Status::CAPTURED_EVENT));
}

#[test]
fn branches_of_a_capture_lead_back() {
    for is_joined in [true, false] {
        let (mut driver, a, b) = device();
        let memory = driver.allocate_async(4, a).unwrap();
        let (fork, join) = (driver.create_event(false), driver.create_event(false));
        driver.begin_capture(a, Mode::Global).unwrap();
        driver.enqueue(a, set(memory, 1, 4)).unwrap();
        driver.record_event(fork, a).unwrap();
        driver.wait_event(b, fork).unwrap();
        driver.enqueue(b, set(memory, 2, 2)).unwrap();
        if !is_joined {
            assert_eq!(driver.end_capture(a), Err(Status::STREAM_CAPTURE_UNJOINED));
            continue;
        }
        driver.record_event(join, b).unwrap();
        driver.wait_event(a, join).unwrap();
        let graph = driver.end_capture(a).unwrap();
        let graph = driver.instantiate(graph, 0).unwrap();
        for _ in 0..2 {
            driver.launch_graph(graph, a).unwrap();
            assert_eq!(read(&mut driver, a, memory, 4), Ok(vec![2, 2, 1, 1]));
        }
    }
}

#[test]
fn branches_that_do_not_wait_for_each_other_are_found() {
    let (mut driver, a, b) = device();
    let memory = driver.allocate_async(4, a).unwrap();
    let (fork, join) = (driver.create_event(false), driver.create_event(false));
    driver.begin_capture(a, Mode::Global).unwrap();
    driver.record_event(fork, a).unwrap();
    driver.wait_event(b, fork).unwrap();
    driver.enqueue(a, set(memory, 1, 4)).unwrap();
    driver.enqueue(b, set(memory, 2, 2)).unwrap();
    driver.record_event(join, b).unwrap();
    driver.wait_event(a, join).unwrap();
    let graph = driver.end_capture(a).unwrap();
    let graph = driver.instantiate(graph, 0).unwrap();
    assert_eq!(driver.launch_graph(graph, a), Err(Status::ILLEGAL_ADDRESS));
}

#[test]
fn events_have_a_time_once_they_were_waited_for() {
    let (mut driver, a, _) = device();
    let (from, to, timeless) =
        (driver.create_event(true), driver.create_event(true), driver.create_event(false));
    for event in [from, timeless, to] {
        driver.record_event(event, a).unwrap();
    }
    assert_eq!(driver.elapsed(from, to), Err(Status::NOT_READY));
    driver.synchronize_event(to).unwrap();
    assert!(driver.elapsed(from, to).unwrap() >= 0.0);
    assert_eq!(driver.elapsed(from, timeless), Err(Status::INVALID_HANDLE));
    driver.record_event(from, a).unwrap();
    assert_eq!(driver.query(a), Err(Status::NOT_READY), "there is more than what was waited for");
    assert_eq!(driver.query(a), Ok(()));
    assert_eq!(driver.query(a), Ok(()));
}

/// A kernel, loaded.
fn multiply(driver: &mut Driver) -> (Handle, Handle) {
    let module = driver.load_module(include_str!("tests/multiply.ptx")).unwrap();
    (module, driver.function(module, "multiply").unwrap())
}

fn arguments(a: u64, b: u64, out: u64, len: u32) -> Vec<Vec<u8>> {
    [a, b, out]
        .iter()
        .map(|address| address.to_le_bytes().to_vec())
        .chain([len.to_le_bytes().to_vec()])
        .collect()
}

const SHAPE: LaunchShape = LaunchShape { grid: [1, 1, 1], block: [256, 1, 1], shared_bytes: 0 };

#[test]
fn kernels_run_at_once_and_in_graphs() {
    let (mut driver, a, b) = device();
    let (module, function) = multiply(&mut driver);
    let memory = driver.allocate_async(12, a).unwrap();
    let bytes = [3f32, 2.0].map(f32::to_le_bytes).concat();
    driver.enqueue(a, Work::Write { address: memory, bytes }).unwrap();
    let arguments = arguments(memory, memory + 4, memory + 8, 1);
    driver.launch_kernel(a, function, SHAPE, arguments.clone()).unwrap();
    let eager = read(&mut driver, a, memory + 8, 4).unwrap();
    assert_eq!(eager, 6f32.to_le_bytes());
    driver.begin_capture(a, Mode::Global).unwrap();
    driver.enqueue(a, set(memory + 8, 0, 4)).unwrap();
    driver.launch_kernel(a, function, SHAPE, arguments.clone()).unwrap();
    let graph = driver.end_capture(a).unwrap();
    let graph = driver.instantiate(graph, 0).unwrap();
    driver.launch_graph(graph, a).unwrap();
    assert_eq!(read(&mut driver, a, memory + 8, 4), Ok(eager));
    assert_eq!(driver.counters().launches, 2);
    assert_eq!(driver.unload_module(module), Err(Status::ILLEGAL_STATE), "the graph has a kernel of it");
    assert_eq!(
        driver.launch_kernel(b, function, SHAPE, arguments),
        Ok(()),
        "the host has waited for the copy"
    );
    assert_eq!(read(&mut driver, a, memory + 8, 4), Err(Status::ILLEGAL_ADDRESS), "a has not waited for b");
}

#[test]
fn kernels_use_the_programs_pages() {
    let (mut driver, a, _) = device();
    let (_, function) = multiply(&mut driver);
    let pinned = pin(&mut driver, 12);
    pinned[..8].copy_from_slice(&[3f32, 2.0].map(f32::to_le_bytes).concat());
    let start = address_of(pinned);
    driver.launch_kernel(a, function, SHAPE, arguments(start, start + 4, start + 8, 1)).unwrap();
    driver.synchronize(a).unwrap();
    assert_eq!(seen(pinned)[8..], 6f32.to_le_bytes());
}

#[test]
fn a_kernel_that_fails_says_so_from_then_on() {
    let (mut driver, a, _) = device();
    let (_, function) = multiply(&mut driver);
    let memory = driver.allocate_async(12, a).unwrap();
    let arguments = arguments(memory, memory + 4, memory + 8, 1);
    assert_eq!(
        driver.launch_kernel(a, function, SHAPE, arguments),
        Err(Status::LAUNCH_FAILED),
        "nobody wrote its input"
    );
    assert_eq!(driver.sticky, Some(Status::LAUNCH_FAILED));
}

#[test]
fn launches_have_limits() {
    let (mut driver, a, _) = device();
    let (module, function) = multiply(&mut driver);
    assert_eq!(driver.function(module, "multiply"), Ok(function), "it is the same each time");
    assert_eq!(driver.function(module, "multiplies"), Err(Status::NOT_FOUND));
    let shapes = [
        LaunchShape { grid: [0, 1, 1], ..SHAPE },
        LaunchShape { grid: [1, 65_536, 1], ..SHAPE },
        LaunchShape { block: [1025, 1, 1], ..SHAPE },
        LaunchShape { block: [512, 4, 1], ..SHAPE },
        LaunchShape { block: [1, 1, 65], ..SHAPE },
        LaunchShape { shared_bytes: (48 << 10) + 1, ..SHAPE },
    ];
    for shape in shapes {
        let outcome = driver.launch_kernel(a, function, shape, arguments(0, 0, 0, 0));
        assert_eq!(outcome, Err(Status::INVALID_VALUE), "{shape:?}");
    }
    assert_eq!(driver.allow_shared(function, (227 << 10) + 1), Err(Status::INVALID_VALUE));
    driver.allow_shared(function, 227 << 10).unwrap();
    let shape = LaunchShape { shared_bytes: 227 << 10, ..SHAPE };
    driver.launch_kernel(a, function, shape, arguments(0, 0, 0, 0)).unwrap();
    let blocks = |function: &Function, bytes| function.blocks_per_multiprocessor(256, bytes);
    assert_eq!(
        (blocks(&driver.functions[&function], 0), blocks(&driver.functions[&function], 100 << 10)),
        (8, 2)
    );
    driver.unload_module(module).unwrap();
    let outcome = driver.launch_kernel(a, function, SHAPE, arguments(0, 0, 0, 0));
    assert_eq!(outcome, Err(Status::INVALID_HANDLE));
}
