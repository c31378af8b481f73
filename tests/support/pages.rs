//! Pages of the report that the tests look at: healthy and broken models, and dumps that nobody should have made.

use crate::{golden_dir, load_options, model_dir};
use candle_core::DType;
use pyrex_core::fault::{Fault, Faults};
use pyrex_core::models::{LoadFormat, LoadOptions, ModelSource, load};
use pyrex_core::{DumpFile, Threshold, bisect, compare, html};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// A page, and what it has to show.
pub struct Page {
    /// What it is a page of.
    pub name: &'static str,
    /// The page.
    pub html: String,
    /// Where both modes of its bisection point; `None` if nowhere, or if it is a comparison.
    pub finger: Option<String>,
    /// Whether it has two modes to switch between.
    pub is_bisection: bool,
}

/// All of them.
pub static PAGES: LazyLock<Vec<Page>> = LazyLock::new(|| {
    vec![
        bisection("healthy_image", "image_f32", Faults::default()),
        bisection("healthy_text", "text_bf16", Faults::default()),
        bisection("broken_tower", "image_f32", Faults::planted(Fault::NormOffset)),
        bisection("broken_decoder", "image_f32", Faults::planted(Fault::KeysAsValues(2))),
        bisection("broken_head", "image_f32", Faults::planted(Fault::SoftCapTwice)),
        comparison("equal", &large(0.0), &large(0.0)),
        comparison("one_layer", &dump(&one_layer(1e-3)), &dump(&one_layer(0.0))),
        comparison("large", &large(1e-5), &large(0.0)),
        comparison("hostile", &dump(&hostile(1e-3)), &dump(&hostile(0.0))),
    ]
});

/// The page of a bisection of the tiny checkpoint.
fn bisection(name: &'static str, dump: &str, faults: Faults) -> Page {
    let dtype = if dump == "text_bf16" { DType::BF16 } else { DType::F32 };
    let source = ModelSource::Path(model_dir("e2b-like"));
    let options = load_options(source.clone(), dtype, LoadFormat::Safetensors);
    let loaded = load(&LoadOptions { faults, ..options }).expect("the checkpoint loads");
    let path = golden_dir().join("bisect").join(format!("{dump}.safetensors"));
    let reference = DumpFile::open(&path).expect("a dump");
    let found = bisect(&loaded, &source, &reference, None).expect("a bisection");
    let finger = found.isolated.finger.as_ref().map(|finger| found.isolated.parts[finger.part].place());
    let html = html::of_bisection(&found, &reference).expect("a page");
    Page { name, html, finger, is_bisection: true }
}

fn comparison(name: &'static str, ours: &DumpFile, theirs: &DumpFile) -> Page {
    let found = compare(ours, theirs, None).expect("a comparison");
    let html = html::of_comparison(&found, Threshold::default(), ours, theirs).expect("a page");
    Page { name, html, finger: None, is_bisection: false }
}

type Tensor = (String, Vec<usize>, Vec<f32>);

/// A dump of these tensors. The file has them in the order of their names.
fn dump(tensors: &[Tensor]) -> DumpFile {
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let bytes: Vec<_> = tensors.iter().map(|(_, _, values)| bytes(values)).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor"))
    });
    let manifest = HashMap::from([("producer".to_string(), "</td><script>alert(1)</script>".to_string())]);
    let file = serialize(views, Some(manifest)).expect("a safetensors file");
    DumpFile::from_safetensors(Arc::new(file)).expect("a dump")
}

/// Values that are off by `error`, more so in later rows.
fn values(shape: &[usize], error: f32) -> Vec<f32> {
    let len: usize = shape.iter().product();
    let off = |i: usize| 1.0 + error * (i * 31 % 17) as f32 * (i as f32 / len as f32);
    (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0 * off(i)).collect()
}

fn tensor(name: &str, shape: &[usize], error: f32) -> Tensor {
    (name.to_string(), shape.to_vec(), values(shape, error))
}

fn positions(columns: usize, rows: usize) -> Vec<f32> {
    (0..rows).flat_map(|y| (0..columns).flat_map(move |x| [x as f32, y as f32])).collect()
}

fn one_layer(error: f32) -> Vec<Tensor> {
    vec![tensor("model.layers.0", &[1, 8], error), tensor("model.layers.0.mlp", &[1, 8], error)]
}

/// As many tensors and patches as a published model has, though narrow ones.
fn large(error: f32) -> DumpFile {
    let positions = [positions(60, 42), positions(45, 33)].concat();
    let num_patches = positions.len() / 2;
    let mut tensors = vec![
        ("prep.position_ids".to_string(), vec![num_patches, 2], positions),
        ("prep.input_ids".to_string(), vec![700], (0..700).map(|id| id as f32).collect()),
    ];
    let operations =
        (0..33).map(|operation| format!(".self_attn.operation{operation}")).chain([String::new()]);
    for operation in operations {
        for layer in 0..16 {
            let name = format!("model.vision_tower.encoder.layers.{layer}{operation}");
            tensors.push(tensor(&name, &[num_patches, 1], error * layer as f32));
        }
        for layer in 0..100 {
            let name = format!("model.language_model.layers.{layer}{operation}");
            // Not all operations of so many layers are watched.
            if operation.len() < 23 && (operation.is_empty() || operation.ends_with(['1', '2', '3'])) {
                tensors.push(tensor(&name, &[700, 1], error * layer as f32));
            }
        }
    }
    tensors.push(tensor("model.vision_tower.pooler", &[num_patches / 9, 1], error));
    dump(&tensors)
}

/// What a page must not choke on.
fn hostile(error: f32) -> Vec<Tensor> {
    let ours = error > 0.0;
    let spoilt = |value: f32| if ours { vec![value, 1.0, 2.0] } else { vec![1.0, 1.0, 2.0] };
    let mut tensors = vec![
        tensor("<script>document.title='pwned'</script>", &[4], error),
        tensor("\"><img src=x onerror=alert(1)>.layers.3", &[4], error),
        tensor("'onmouseover='alert(1)'.layers.4.&amp;", &[4], error),
        tensor("</svg></style></title>\u{0}\u{202e}http://example.org/", &[4], error),
        tensor(&".".repeat(3000), &[4], error),
        tensor(&"wide".repeat(200), &[4], error),
        tensor("", &[4], error),
        tensor("step9999999999999999999999.x", &[4], error),
        tensor("model.layers.18446744073709551615", &[4], error),
        tensor("shape", if ours { &[4, 1] } else { &[1, 4] }, error),
        tensor(if ours { "ours" } else { "theirs" }, &[4], error),
        tensor("empty", &[0, 3], error),
        tensor("zero", &[2, 2], 0.0),
        ("nan".to_string(), vec![3], spoilt(f32::NAN)),
        ("model.vision.inf".to_string(), vec![3], spoilt(f32::INFINITY)),
        ("model.layers.2".to_string(), vec![3], spoilt(f32::NEG_INFINITY)),
        ("from_nothing".to_string(), vec![2], vec![if ours { 1.0 } else { 0.0 }, 0.0]),
        ("prep.position_ids".to_string(), vec![3, 2], vec![0.0, 0.0, 1.0, 0.0, 2.0, 0.0]),
        ("prep.input_ids".to_string(), vec![3], vec![1.0, f32::NAN, 3.0]),
    ];
    tensors.push(("tiny".to_string(), vec![2], vec![f32::MIN_POSITIVE * (1.0 + error), f32::MAX]));
    tensors
}
