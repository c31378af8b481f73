use super::*;
use crate::error::ErrorKind;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::sync::Arc;

fn file(tensors: &[(&str, Dtype, &[usize])]) -> SharedBytes {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, dtype, shape)| {
            (0..shape.iter().product::<usize>() * dtype.bitsize() / 8).map(|i| i as u8 % 60).collect()
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, dtype, shape), bytes)| {
        (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
    });
    Arc::new(safetensors::serialize(views, None).unwrap())
}

fn store(tensors: &[(&str, Dtype, &[usize])]) -> Store<'static> {
    Store::from_files(vec![("model.safetensors".into(), file(tensors))], &Device::Cpu).unwrap()
}

#[test]
fn one_error_names_every_tensor_that_does_not_fit() {
    let store = store(&[
        ("layer.shape.weight", Dtype::F32, &[2, 3]),
        ("layer.dtype.weight", Dtype::I64, &[2]),
        ("layer.extra.weight", Dtype::F32, &[2]),
        ("layer.inert.weight", Dtype::F32, &[2]),
    ]);
    let layer = store.root().at("layer");
    layer.at("missing").matrix("weight", &[4, 4]).unwrap();
    layer.at("shape").matrix("weight", &[3, 2]).unwrap();
    layer.at("dtype").vector("weight", 2).unwrap();
    let error = store.finish(|name| name.contains("inert")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    assert_eq!(
        error.message(),
        "4 tensors do not fit: layer.missing.weight: missing, expected [4, 4]; \
         layer.shape.weight: is [2, 3], expected [3, 2]; \
         layer.dtype.weight: is I64, expected F32, BF16 or F16; \
         layer.extra.weight: not a tensor of this model"
    );
}

#[test]
fn every_dtype_reads_as_the_file_has_it() {
    let store = store(&[
        ("a", Dtype::F32, &[2, 2]),
        ("b", Dtype::BF16, &[3]),
        ("c", Dtype::F16, &[]),
        ("d", Dtype::F32, &[1]),
    ]);
    let root = store.root();
    assert_eq!(root.matrix("a", &[2, 2]).unwrap().dtype(), DType::F32);
    let b = half::bf16::from_le_bytes([2, 3]).to_f32();
    assert_eq!(root.vector("b", 3).unwrap().to_vec1::<f32>().unwrap()[1], b);
    assert_eq!(root.scalar("c", &[], 7.0).unwrap(), half::f16::from_le_bytes([0, 1]).to_f32());
    assert_eq!(root.scalar("d", &[1], 7.0).unwrap(), f32::from_le_bytes([0, 1, 2, 3]));
    store.finish(|_| false).unwrap();
}

#[test]
fn a_damaged_file_is_an_error_at_any_cut_and_any_flipped_header_byte() {
    let whole = file(&[("a", Dtype::F32, &[4, 4]), ("b", Dtype::BF16, &[8])]);
    let whole = (*whole).as_ref();
    let open =
        |bytes: Vec<u8>| Store::from_files(vec![("f".into(), Arc::new(bytes) as SharedBytes)], &Device::Cpu);
    assert!(open(whole.to_vec()).is_ok());
    for len in 0..whole.len() {
        let error = open(whole[..len].to_vec()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
    }
    for position in 0..whole.len().min(200) {
        for flip in [0x01, 0x10, 0x80, 0xff] {
            let mut bytes = whole.to_vec();
            bytes[position] ^= flip;
            // Either it still is a safetensors file, or it is refused; both without a crash.
            if let Ok(store) = open(bytes) {
                store.root().matrix("a", &[4, 4]).unwrap();
                store.root().vector("b", 8).unwrap();
                let _ = store.finish(|_| false);
            }
        }
    }
}

#[test]
fn the_same_tensor_in_two_files_is_refused() {
    let part = || file(&[("a", Dtype::F32, &[1])]);
    let error =
        Store::from_files(vec![("1".into(), part()), ("2".into(), part())], &Device::Cpu).err().unwrap();
    assert_eq!(error.message(), "2: a is in another file as well");
}

#[test]
fn dummy_weights_repeat_and_keep_their_spread() {
    let store = Store::dummy(&Device::Cpu);
    let values = |name: &str| -> Vec<f32> {
        let tensor = store.root().matrix(name, &[64, 1024]).unwrap().to_tensor(&Device::Cpu).unwrap();
        tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let a = values("a");
    assert_eq!(a, values("a"));
    assert_ne!(a, values("b"));
    let mean_square = a.iter().map(|x| x * x).sum::<f32>() / a.len() as f32;
    assert!((0.5..2.0).contains(&(mean_square * 1024.0)), "mean square {mean_square}");
}
