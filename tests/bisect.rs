//! `diag::bisect` against dumps of the reference: every planted fault is found where it was planted, and nowhere else.

use candle_core::{DType, Tensor};
use pyrex_core::batch::{Batch, ImageBatch};
use pyrex_core::diag::bisect::{Trace, WeightFinding};
use pyrex_core::fault::{Fault, Faults};
use pyrex_core::kv::KvPool;
use pyrex_core::models::{LoadedModel, Model};
use pyrex_core::prompt::Patches;
use pyrex_core::trace::Tap;
use pyrex_core::{
    Bisection, Chat, DumpFile, ErrorKind, LoadFormat, LoadOptions, Message, ModelSource, ModelSpec, Prompt,
    Result, bisect, load,
};
use pyrex_tests::{golden_dir, in_memory, load_model, load_options, model_dir, model_files, repository};
use safetensors::tensor::TensorView;

/// A picture and a question in f32.
const IMAGE_F32: &str = "image_f32";
/// A question in bf16.
const TEXT_BF16: &str = "text_bf16";

fn reference(dump: &str) -> DumpFile {
    DumpFile::open(&golden_dir().join("bisect").join(format!("{dump}.safetensors"))).unwrap()
}

fn bisected(dump: &str, faults: Faults) -> Bisection {
    let dtype = if dump == TEXT_BF16 { DType::BF16 } else { DType::F32 };
    let source = ModelSource::Path(model_dir("e2b-like"));
    let options = load_options(source.clone(), dtype, LoadFormat::Safetensors);
    let loaded = load(&LoadOptions { faults, ..options }).unwrap();
    bisect(&loaded, &source, &reference(dump), None).unwrap()
}

/// Where a finger points: stage, layer, operation, function.
type Place = (&'static str, Option<usize>, &'static str, &'static str);

fn pointed_at(trace: &Trace) -> Option<(&str, Option<usize>, &str, String)> {
    let part = &trace.parts[trace.finger.as_ref()?.part];
    assert_eq!(part.step, 0);
    Some((part.stage, part.layer, part.operation.as_str(), part.origin.short_function()))
}

/// Plants `fault` and expects both modes to point at `place`.
fn check(dump: &str, fault: Fault, place: Place) {
    let found = bisected(dump, Faults::planted(fault));
    println!("{fault:?}\n{found}");
    assert!(!found.is_clean() && found.weights.is_empty(), "{fault:?}");
    for trace in [&found.cumulative, &found.isolated] {
        let (stage, layer, operation, function) = place;
        let place = (stage, layer, operation, function.to_string());
        assert_eq!(pointed_at(trace), Some(place), "{fault:?}, {:?}", trace.mode);
    }
}

#[test]
fn faults_are_planted_by_the_tests_alone() {
    let mut manifests = Vec::new();
    for folder in ["", "pyrex-core", "pyrex-cli", "tests", "fuzz"] {
        let text = std::fs::read_to_string(repository().join(folder).join("Cargo.toml")).unwrap();
        let uses = text.lines().filter(|line| !line.starts_with('#') && line.contains("planted-faults"));
        manifests.extend(uses.map(|line| (folder, line.to_string())));
    }
    let dependency =
        r#"pyrex-core = { workspace = true, features = ["test-util", "async", "planted-faults"] }"#;
    let expected = [("pyrex-core", "planted-faults = []"), ("tests", dependency)];
    assert_eq!(manifests, expected.map(|(folder, line)| (folder, line.to_string())));
}

#[test]
fn a_healthy_model_does_not_diverge() {
    for dump in [IMAGE_F32, TEXT_BF16] {
        let found = bisected(dump, Faults::default());
        println!("{found}");
        assert!(found.is_clean(), "{dump}:\n{found}");
        for trace in [&found.cumulative, &found.isolated] {
            assert_eq!(
                trace.parts.len(),
                reference(dump).names().count(),
                "{dump}: every tensor is compared"
            );
            let ratios = trace.parts.iter().filter_map(|part| Some((part.compared.ratio()?, part)));
            let (ratio, part) = ratios.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
            println!("{dump}, {:?}: at most {ratio:.2} times the noise, {}", trace.mode, part.compared.name);
        }
    }
}

#[test]
fn a_norm_offset_is_found() {
    check(IMAGE_F32, Fault::NormOffset, ("vision tower", Some(0), "input_layernorm", "RmsNorm::forward"));
}

#[test]
fn rounding_to_bf16_is_found() {
    check(IMAGE_F32, Fault::Bf16Rounding, ("vision tower", Some(0), "input_layernorm", "RmsNorm::forward"));
}

#[test]
fn a_context_projected_before_the_image_is_found() {
    let place =
        ("embeddings", None, "language_model.per_layer_model_projection", "PerLayerEmbeddings::by_context");
    check(IMAGE_F32, Fault::ContextBeforeImages, place);
}

#[test]
fn a_rotation_of_the_wrong_half_is_found() {
    // Layer 4 is the first full one: only those rotate a part of their heads.
    check(IMAGE_F32, Fault::RopeHalf, ("decoder", Some(4), "self_attn.k_rope", "Attention::write"));
}

#[test]
fn a_window_off_by_one_is_found() {
    check(
        IMAGE_F32,
        Fault::WindowOffByOne,
        ("decoder", Some(0), "self_attn.o_proj.input", "Attention::attend"),
    );
}

#[test]
fn keys_used_as_values_are_found() {
    for layer in [0, 2, 4] {
        let place = ("decoder", Some(layer), "self_attn.o_proj.input", "Attention::attend");
        check(IMAGE_F32, Fault::KeysAsValues(layer), place);
    }
}

#[test]
fn a_soft_cap_that_comes_twice_is_found() {
    check(IMAGE_F32, Fault::SoftCapTwice, ("head", None, "logits", "Decoder::logits"));
}

#[test]
fn a_layer_that_reads_the_wrong_donor_is_found() {
    for layer in [5, 7] {
        let place = ("decoder", Some(layer), "self_attn.o_proj.input", "Attention::attend");
        check(IMAGE_F32, Fault::WrongDonor(layer), place);
    }
}

#[test]
fn swapped_axes_of_an_image_are_found() {
    check(IMAGE_F32, Fault::AxesSwapped, ("prompt", None, "prep.position_ids", "VisionTower::forward"));
}

#[test]
fn bounds_that_do_not_clip_are_found() {
    let place = ("vision tower", Some(0), "self_attn.q_proj.input_clamped", "Linear::forward_in_steps");
    check(IMAGE_F32, Fault::ClipIgnored, place);
}

#[test]
fn an_embedding_scale_that_is_not_rounded_is_found() {
    let place = ("embeddings", None, "language_model.embed_tokens", "Decoder::embed");
    check(TEXT_BF16, Fault::UnroundedEmbeddingScale, place);
}

#[test]
fn a_dropped_layer_scalar_is_found() {
    for layer in [0, 3, 9] {
        check(
            IMAGE_F32,
            Fault::LayerScalarDropped(layer),
            ("decoder", Some(layer), "", "DecoderLayer::forward"),
        );
    }
}

/// One value of one tensor is off: the tensor is named, and so is the operation that reads it.
#[test]
fn a_damaged_weight_is_named() {
    let name = "model.language_model.layers.3.mlp.up_proj.weight";
    let mut files = model_files("e2b-like");
    let bytes = files.get_mut("model.safetensors").unwrap();
    let (header_len, header) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
    let start = 8 + header_len + header.info(name).unwrap().data_offsets.0;
    // The sign of its first value, a bf16.
    bytes[start + 1] ^= 0x80;
    let source = in_memory(files);
    let loaded = load(&load_options(source.clone(), DType::F32, LoadFormat::Safetensors)).unwrap();
    let found = bisect(&loaded, &source, &reference(IMAGE_F32), None).unwrap();
    println!("{found}");
    assert_eq!(found.weights, [WeightFinding::Differs(name.to_string())]);
    for trace in [&found.cumulative, &found.isolated] {
        assert_eq!(
            pointed_at(trace),
            Some(("decoder", Some(3), "mlp.up_proj", "Linear::forward".to_string()))
        );
    }
    assert!(found.to_string().contains(&format!("weights: {name} is not the tensor")));
}

#[test]
fn a_prompt_that_is_prepared_otherwise_is_found() {
    let source = ModelSource::Path(model_dir("e2b-like"));
    let loaded = load_model("e2b-like", DType::F32);
    let prompt = Prompt::Chat(Chat::new(vec![Message::text("user", "Something else.")]));
    let found = bisect(&loaded, &source, &reference(IMAGE_F32), Some(&prompt)).unwrap();
    assert!(!found.is_clean() && found.cumulative.finger.is_none());
    assert!(
        found.to_string().contains("prompt: prep.input_ids is not the reference's, its shape is"),
        "{found}"
    );
}

#[test]
fn a_dump_without_a_prompt_or_of_another_model_is_refused() {
    let empty = safetensors::serialize::<&str, TensorView<'_>, _>([], None).unwrap();
    let empty = DumpFile::from_safetensors(std::sync::Arc::new(empty)).unwrap();
    let source = ModelSource::Path(model_dir("text-only"));
    let loaded = load_model("text-only", DType::F32);
    let error = bisect(&loaded, &source, &empty, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.message().contains("neither prep.input_ids nor prompt_ids"), "{error}");
    let error = bisect(&loaded, &source, &reference(IMAGE_F32), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

#[test]
fn a_dump_with_absurd_positions_is_refused() {
    fn tensor<'a>(shape: &[usize], bytes: &'a [u8]) -> TensorView<'a> {
        TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap()
    }
    let floats = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (ids, pixels) = (floats(&[2.0, 2043.0]), floats(&[0.5; 768]));
    let source = ModelSource::Path(model_dir("e2b-like"));
    let loaded = load_model("e2b-like", DType::F32);
    for positions in [&[1e30, 1.0][..], &[f32::NAN, 0.0], &[-1.0, 0.0], &[1.0, 0.0], &[0.0], &[]] {
        let bytes = floats(positions);
        let tensors = [
            ("prep.input_ids", tensor(&[2], &ids)),
            ("prep.pixel_values", tensor(&[1, 768], &pixels)),
            ("prep.position_ids", tensor(&[positions.len()], &bytes)),
        ];
        let dump = std::sync::Arc::new(safetensors::serialize(tensors, None).unwrap());
        let error = bisect(&loaded, &source, &DumpFile::from_safetensors(dump).unwrap(), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{positions:?}: {error}");
    }
}

/// A model that errs only in `wrong` passes.
struct Shy {
    model: Box<dyn Model>,
    wrong: fn(&Batch, &dyn Tap) -> bool,
}

impl Model for Shy {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn image_batch(&self, images: &[&Patches]) -> Result<ImageBatch> {
        self.model.image_batch(images)
    }

    fn encode_images(&self, images: &ImageBatch, tap: &mut dyn Tap) -> Result<Tensor> {
        self.model.encode_images(images, tap)
    }

    fn forward(&self, batch: &Batch, kv: &mut KvPool, tap: &mut dyn Tap) -> Result<Tensor> {
        let mut batch = batch.clone();
        let wrong = (self.wrong)(&batch, tap);
        if wrong && tap.watching() {
            batch.input_ids = (batch.input_ids + 1.0)?;
        }
        let logits = self.model.forward(&batch, kv, tap)?;
        if wrong { Ok((logits * 1.001)?) } else { Ok(logits) }
    }
}

fn shy(wrong: fn(&Batch, &dyn Tap) -> bool) -> Bisection {
    let source = ModelSource::Path(model_dir("e2b-like"));
    let loaded = load_model("e2b-like", DType::F32);
    let model = Box::new(Shy { model: loaded.model, wrong });
    bisect(&LoadedModel { model, ..loaded }, &source, &reference(IMAGE_F32), None).unwrap()
}

#[test]
fn a_fault_that_hides_while_somebody_watches_is_found() {
    let found = shy(|_, tap| !tap.watching());
    assert!(found.cumulative.finger.is_none() && found.isolated.finger.is_none());
    assert!(!found.is_clean());
    assert!(found.to_string().contains("with nobody watching: the last logits diverge"), "{found}");
}

#[test]
fn a_fault_of_decoding_alone_is_found() {
    let found = shy(|batch, _| batch.input_ids.dim(0).is_ok_and(|rows| rows == 1));
    for trace in [&found.cumulative, &found.isolated] {
        let part = &trace.parts[trace.finger.as_ref().unwrap().part];
        assert_eq!(part.place(), "decode step 1, stage prompt, operation prep.input_ids");
    }
}
