//! What drives a device: on one, or with `scripts/emulate.sh` in place of one.
#![cfg(feature = "cuda")]

mod support;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use pyrex_kernels::Element::{self, Bf16, F16, F32, U8};
use pyrex_kernels::cuda::{
    Blas, Pinned, Stream, Upload, between_captures, free_bytes, set_release_threshold,
};
use pyrex_kernels::products::{Clip, Product, few_rows, many_rows};
use pyrex_kernels::{Buffer, Error, Queue, elementwise};
use std::cell::RefCell;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use support::{close, from_bytes, noise, product, rounded, to_bytes};

/// Tests take turns: while one captures, no other may wait for the context.
static TURN: Mutex<()> = Mutex::new(());

/// A device with memory that is freed when it is dropped.
struct Device {
    queue: Stream,
    memory: RefCell<Vec<CudaSlice<u8>>>,
    _turn: MutexGuard<'static, ()>,
}

impl Device {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let context = CudaContext::new(0).expect("a device, or scripts/emulate.sh");
        let stream = context.new_stream().expect("a stream");
        Self { queue: Stream::new(stream).expect("a queue"), memory: RefCell::default(), _turn: turn }
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.queue.stream()
    }

    fn keep(&self, memory: CudaSlice<u8>, element: Element) -> Buffer<'_> {
        let (address, len) = (memory.device_ptr(self.stream()).0, memory.len() / element.size());
        self.memory.borrow_mut().push(memory);
        // SAFETY: it is freed when this is dropped, behind all that was put on its stream.
        unsafe { Buffer::new(address, len, element) }
    }

    fn upload(&self, element: Element, values: &[f32]) -> Buffer<'_> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| to_bytes(element, *value)).collect();
        self.keep(self.stream().clone_htod(&bytes).expect("room"), element)
    }

    fn unwritten(&self, element: Element, len: usize) -> Buffer<'_> {
        // SAFETY: a test that reads what nobody wrote fails in the emulator.
        self.keep(unsafe { self.stream().alloc(len * element.size()) }.expect("room"), element)
    }

    fn download(&self, buffer: Buffer<'_>) -> Vec<f32> {
        let memory = self.memory.borrow();
        let is_it = |memory: &&CudaSlice<u8>| memory.device_ptr(self.stream()).0 == buffer.address();
        let bytes = self.stream().clone_dtoh(memory.iter().find(is_it).expect("of here")).expect("a copy");
        self.queue.synchronize().expect("all ran");
        let size = buffer.element().size();
        bytes.chunks_exact(size).map(|bytes| from_bytes(buffer.element(), bytes)).collect()
    }
}

#[test]
fn a_stream_runs_kernels_with_more_shared_memory_than_the_default() {
    let device = Device::new();
    assert!(device.queue.multiprocessors() > 0);
    let (rows, cols, out_cols) = (9, 40, 5);
    for (element, bound) in [(F32, 1e-6), (Bf16, 3e-4)] {
        let (x, weight) = (noise(element, rows * cols, 1), noise(Bf16, out_cols * cols, 2));
        let out = device.unwritten(element, rows * out_cols);
        let (x_buffer, weight_buffer) = (device.upload(element, &x), device.upload(Bf16, &weight));
        let fits = Product { x: x_buffer, weight: weight_buffer, out, rows, cols, out_cols, clip: None };
        many_rows(&device.queue, &fits).expect("it fits");
        let wanted = rounded(element, &product(&x, &weight, (rows, cols, out_cols), &Clip::NONE));
        close(&format!("{element:?}"), &device.download(out), &wanted, bound);
    }
}

#[test]
fn streams_of_a_context_share_kernels() {
    let device = Device::new();
    let other = device.stream().context().new_stream().expect("another stream");
    let other = device.queue.beside(other).expect("the same context");
    let x = device.upload(F32, &[1.0, 2.0]);
    device.queue.synchronize().expect("it is there");
    let out = device.unwritten(F32, 2);
    device.queue.synchronize().expect("it is there");
    elementwise::scale(&other, x, 3.0, out).expect("it fits");
    other.synchronize().expect("it ran");
    assert_eq!(device.download(out), [3.0, 6.0]);
}

#[test]
fn a_graph_does_again_what_was_captured() {
    let device = Device::new();
    let x = device.upload(F32, &[1.0, -2.0]);
    let double = || elementwise::scale(&device.queue, x, 2.0, x);
    double().expect("it fits");
    let graph = device.queue.capture(double).expect("it can be captured");
    assert_eq!(device.download(x), [2.0, -4.0], "nothing runs while it is captured");
    graph.launch().expect("once");
    graph.launch().expect("twice");
    assert_eq!(device.download(x), [8.0, -16.0]);
}

#[test]
fn a_capture_that_fails_leaves_the_stream_usable() {
    let device = Device::new();
    let x = device.upload(F32, &[1.0]);
    let double = || elementwise::scale(&device.queue, x, 2.0, x);
    let refused = device.queue.capture(|| {
        double()?;
        Err(Error::Arguments("given up".to_owned()))
    });
    assert_eq!(refused.expect_err("the work failed"), Error::Arguments("given up".to_owned()));
    let waited = device.queue.capture(|| device.queue.synchronize());
    assert!(matches!(waited.expect_err("a stream that captures cannot be waited for"), Error::Driver(_)));
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = device.queue.capture::<Error>(|| panic!("in a capture"));
    }));
    assert!(unwound.is_err());
    double().expect("the stream is usable");
    assert_eq!(device.download(x), [2.0], "what was captured in vain did not run");
    device.queue.capture(double).expect("and can capture").launch().expect("it runs");
    assert_eq!(device.download(x), [4.0]);
}

/// Opening, unloading kernels and closing cuBLASLt wait for the context, which would spoil the capture and fail.
#[test]
fn a_capture_outlasts_what_others_open_and_close() {
    let device = Device::new();
    let x = device.upload(F32, &[1.0]);
    let same = || elementwise::scale(&device.queue, x, 1.0, x);
    same().expect("it fits");
    let (begin, begun) = channel();
    let others = thread::spawn(move || {
        for () in begun {
            let stream = between_captures(|| CudaContext::new(0).and_then(|context| context.new_stream()));
            let queue = Stream::new(stream.expect("a stream")).expect("a queue");
            let memory = queue.stream().clone_htod(&[0; 4]).expect("room");
            // SAFETY: it is freed on the stream.
            let y = unsafe { Buffer::new(memory.device_ptr(queue.stream()).0, 1, F32) };
            elementwise::scale(&queue, y, 1.0, y).expect("it fits");
            drop(Blas::new(&queue).expect("cuBLASLt"));
        }
    });
    for _ in 0..10 {
        let captured = device.queue.capture::<Error>(|| {
            begin.send(()).expect("somebody listens");
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(20) {
                same()?;
            }
            Ok(())
        });
        captured.expect("nobody disturbs it").launch().expect("it runs");
    }
    drop(begin);
    others.join().expect("nobody is refused");
    assert_eq!(device.download(x), [1.0]);
}

#[test]
fn an_upload_is_longer_than_its_buffers() {
    let device = Device::new();
    let mut upload = Upload::new(Arc::clone(device.stream()), 1000).expect("room");
    for len in [0, 1, 999, 1000, 1001, 4500] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        let target = device.unwritten(U8, len.max(1));
        if len == 0 {
            upload.copy(&bytes, device.unwritten(U8, 1)).expect_err("a byte is missing");
            continue;
        }
        upload.copy(&bytes, target).expect("it fits");
        let wanted: Vec<f32> = bytes.into_iter().map(f32::from).collect();
        assert_eq!(device.download(target), wanted, "{len} bytes");
    }
    Upload::new(Arc::clone(device.stream()), 0).expect_err("no buffers");
}

#[test]
fn kernels_read_pinned_memory() {
    let device = Device::new();
    let mut pinned = Pinned::new(device.stream().context(), 8).expect("room");
    assert_eq!(*pinned, [0; 8]);
    pinned[..4].copy_from_slice(&1.5_f32.to_le_bytes());
    pinned[4..].copy_from_slice(&(-2.0_f32).to_le_bytes());
    // SAFETY: it is freed after `device` was waited for.
    let x = unsafe { Buffer::new(pinned.device_address(), 2, F32) };
    let out = device.unwritten(F32, 2);
    elementwise::scale(&device.queue, x, 2.0, out).expect("it fits");
    assert_eq!(device.download(out), [3.0, -4.0]);
    let error = Pinned::new(device.stream().context(), 1 << 60).expect_err("no host has as much");
    assert!(matches!(error, Error::OutOfMemory(_)), "{error}");
}

#[test]
fn what_the_pool_keeps_is_free() {
    let device = Device::new();
    let context = device.stream().context();
    set_release_threshold(context).expect("a pool");
    let (before, total) = free_bytes(context).expect("it says");
    assert!(0 < before && before <= total);
    let bytes = 64 << 20;
    let memory = device.stream().alloc_zeros::<u8>(bytes).expect("room");
    device.queue.synchronize().expect("it is there");
    let (during, _) = free_bytes(context).expect("it says");
    assert!(during <= before - bytes as u64, "{during} of {before} while {bytes} are taken");
    drop(memory);
    device.queue.synchronize().expect("it is given back");
    let (after, _) = free_bytes(context).expect("it says");
    assert!(after >= during + bytes as u64, "{after} after {during}");
}

#[test]
fn blas_is_the_product() {
    let device = Device::new();
    let blas = Blas::new(&device.queue).expect("cuBLASLt");
    let exact = Clip { input: (-1.0, 0.5), output: (-3.0, 3.0) };
    let inexact = Clip { input: (-1.1, 0.1), output: (f32::NEG_INFINITY, 3.3) };
    for x_element in [F32, Bf16] {
        for weight_element in [F32, Bf16, F16] {
            for (shape, clip) in [
                ((3, 40, 6), None),
                ((9, 40, 24), None),
                ((33, 24, 17), Some(exact)),
                ((9, 40, 24), Some(inexact)),
                ((9, 33, 7), None),
            ] {
                let (rows, cols, out_cols) = shape;
                let (x, weight) =
                    (noise(x_element, rows * cols, 1), noise(weight_element, out_cols * cols, 2));
                let out = device.unwritten(x_element, rows * out_cols);
                let fits = Product {
                    x: device.upload(x_element, &x),
                    weight: device.upload(weight_element, &weight),
                    out,
                    rows,
                    cols,
                    out_cols,
                    clip,
                };
                blas.product(&fits).expect("it fits");
                let sums = product(&x, &weight, shape, &clip.unwrap_or(Clip::NONE));
                let bound = if x_element == F32 { 1e-6 } else { 3e-4 };
                let what = format!("{x_element:?} {weight_element:?} {shape:?} {clip:?}");
                close(&what, &device.download(out), &rounded(x_element, &sums), bound);
            }
        }
    }
}

#[test]
fn products_can_be_captured() {
    let device = Device::new();
    let blas = Blas::new(&device.queue).expect("cuBLASLt");
    let (rows, cols, out_cols) = (9, 40, 24);
    let (x, weight) = (noise(F32, rows * cols, 1), noise(Bf16, out_cols * cols, 2));
    let out = device.unwritten(F32, rows * out_cols);
    let (x_buffer, weight_buffer) = (device.upload(F32, &x), device.upload(Bf16, &weight));
    let many = Product { x: x_buffer, weight: weight_buffer, out, rows, cols, out_cols, clip: None };
    let first = device.unwritten(F32, out_cols);
    let few = Product { x: device.upload(F32, &x[..cols]), out: first, rows: 1, ..many };
    let work = || {
        blas.product(&many)?;
        few_rows(&device.queue, &few)
    };
    work().expect("it fits");
    let eager = (device.download(out), device.download(first));
    let graph = device.queue.capture(work).expect("it can be captured");
    let zeros = vec![0.0; rows * out_cols];
    for _ in 0..2 {
        elementwise::scale(&device.queue, out, 0.0, out).expect("it fits");
        elementwise::scale(&device.queue, first, 0.0, first).expect("it fits");
        assert_eq!(device.download(out), zeros);
        graph.launch().expect("it runs");
        assert_eq!((device.download(out), device.download(first)), eager);
    }
}
