//! Any bytes as a file of weights: refused, or every tensor in it reads as its header says and no other does. As a dump the same
//! file is equal to itself.
#![no_main]

use candle_core::Device;
use libfuzzer_sys::fuzz_target;
use pyrex_core::weights::Store;
use pyrex_core::weights::files::Files;
use pyrex_core::{DumpFile, Error, ErrorKind, Threshold, compare, diff_logits, html};
use pyrex_fuzz::{assert_refusal, check};
use std::sync::Arc;

fuzz_target!(|data: &[u8]| check(|| read(data)));

/// The first byte says whether the rest is the file, or a header and data of which the length in front is still to be made.
fn read(data: &[u8]) {
    let file = match data {
        [0, file @ ..] => file.to_vec(),
        [cut, rest @ ..] => {
            let header_len = rest.len() * usize::from(*cut) / 255;
            [&(header_len as u64).to_le_bytes(), rest].concat()
        }
        [] => return,
    };
    // In a second file of the same tensors each of them is one too many.
    let twice =
        vec![("a".to_string(), Arc::new(file.clone()) as _), ("b".to_string(), Arc::new(file.clone()) as _)];
    compare_with_itself(&file);
    let files = match Files::open(twice[..1].to_vec()) {
        Ok(files) => files,
        Err(error) => return assert_refusal(&error, &[ErrorKind::InvalidModel]),
    };
    assert!(files.total_bytes() <= file.len() as u64);
    let names: Vec<String> = files.names().map(str::to_string).collect();
    assert_eq!(Files::open(twice.clone()).is_ok(), names.is_empty());
    let Ok(store) = Store::from_files(twice[..1].to_vec(), &Device::Cpu) else {
        panic!("opened once, not twice")
    };
    for name in &names {
        take(&store, &files, name);
    }
    if let Err(error) = store.finish(|_| false) {
        assert_refusal(&error, &[ErrorKind::InvalidModel]);
    }
    assert!(store.finish(|_| false).is_ok() || !names.is_empty());
}

/// As a dump: refused, or equal to itself, and a page can be made of that.
fn compare_with_itself(file: &[u8]) {
    let refused = |error: &Error| assert_refusal(error, &[ErrorKind::InvalidRequest, ErrorKind::Unsupported]);
    let dump = match DumpFile::from_safetensors(Arc::new(file.to_vec())) {
        Ok(dump) => dump,
        Err(error) => return refused(&error),
    };
    match compare(&dump, &dump, None) {
        Ok(found) => {
            let threshold = Threshold::default();
            assert_eq!(found.failures(threshold).count(), 0);
            html::of_comparison(&found, threshold, &dump, &dump).expect("all its tensors were read");
        }
        Err(error) => refused(&error),
    }
    if let Err(error) = diff_logits(&dump, &dump, 5) {
        refused(&error);
    }
}

/// Asks for one tensor by its own shape, as a model would whose config has such sizes, and by a wrong one.
fn take(store: &Store<'_>, files: &Files, name: &str) {
    let entry = files.entry(name).expect("a name of the file");
    if entry.shape.len() > 3 || entry.shape.iter().any(|size| !(1..=1 << 20).contains(size)) {
        return;
    }
    let (root, num_elements) = (store.root(), entry.shape.iter().product::<usize>());
    let matrix = root.matrix(name, &entry.shape).expect("what does not fit is noted");
    let tensor = matrix.to_tensor(&Device::Cpu).expect("a tensor on the CPU");
    match entry.dtype {
        Some(dtype) => assert_eq!((tensor.elem_count(), tensor.dtype()), (num_elements, dtype), "{name}"),
        None => assert_eq!(tensor.elem_count(), 0, "{name} is no weight"),
    }
    if entry.shape.len() == 1 && entry.dtype.is_some() {
        assert_eq!(root.vector(name, num_elements).expect("a vector").elem_count(), num_elements);
    }
    root.scalar(name, &[], 1.0).expect("a number or a note");
    root.matrix(name, &[7, 5, 3]).expect("a note");
}
