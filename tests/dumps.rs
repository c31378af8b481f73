//! Dumps on disk: what is written is what is read, and what two of them differ in is found.

use candle_core::{DType, Device, Tensor};
use pyrex_core::diag::writer::DumpWriter;
use pyrex_core::{
    Comparison, DumpFile, DumpInput, DumpOptions, ErrorKind, LoadFormat, Manifest, ModelSource, Outcome,
    Threshold, Verdict, compare, diff_logits, dump,
};
use pyrex_tests::{chat_prompt, golden_dir, load_model, model_dir};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::path::PathBuf;

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// Writes tensors to a dump and opens it.
fn written(name: &str, tensors: &[(&str, Tensor)]) -> DumpFile {
    let path = scratch(name);
    let mut writer = DumpWriter::create(&path).unwrap();
    for (name, tensor) in tensors {
        writer.put(name, tensor).unwrap();
    }
    let manifest = Manifest { model: "a test".into(), prompt_ids: vec![1, 2], ..Manifest::default() };
    let summary = writer.finish(&manifest).unwrap();
    assert_eq!(summary.num_tensors, tensors.len());
    let file = DumpFile::open(&path).unwrap();
    assert_eq!(file.manifest, manifest);
    file
}

fn outcome<'a>(found: &'a Comparison, name: &str) -> &'a Outcome {
    &found.tensors.iter().find(|compared| compared.name == name).unwrap().outcome
}

#[test]
fn what_is_written_is_what_is_read() {
    let half = tensor(&[0.5, -3.0, 1e-3], &[3]).to_dtype(DType::BF16).unwrap();
    let ids = Tensor::new(&[7u32, 262_143], &Device::Cpu).unwrap();
    let transposed = tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).t().unwrap();
    let tensors = [("z.first", half), ("ids", ids), ("a.transposed", transposed)];
    for name in ["small.safetensors", "small.bin"] {
        let file = written(name, &tensors);
        assert_eq!(
            file.names().collect::<Vec<_>>(),
            ["z.first", "ids", "a.transposed"],
            "in the order they came"
        );
        let values = |name: &str| file.tensor(name).unwrap().unwrap().elements.to_f32();
        assert_eq!(values("ids"), [7.0, 262_143.0]);
        assert_eq!(values("a.transposed"), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(file.tensor("a.transposed").unwrap().unwrap().shape, [3, 2]);
        assert_eq!(values("z.first")[..2], [0.5, -3.0]);
        assert!(!scratch(name).with_file_name(format!("{name}.partial")).exists());
    }
}

#[test]
fn a_dump_that_is_not_finished_leaves_nothing_behind() {
    let path = scratch("unfinished.safetensors");
    let mut writer = DumpWriter::create(&path).unwrap();
    writer.put("a", &tensor(&[1.0], &[1])).unwrap();
    assert_eq!(writer.put("a", &tensor(&[1.0], &[1])).unwrap_err().kind(), ErrorKind::Internal);
    drop(writer);
    assert!(!path.exists() && !path.with_file_name("unfinished.safetensors.partial").exists());
    let nowhere = DumpWriter::create(&scratch("no/such/folder/dump.safetensors"));
    assert_eq!(nowhere.err().unwrap().kind(), ErrorKind::Io);
    let folder = DumpWriter::create(&scratch("")).err().unwrap();
    assert!(folder.message().contains("expected a file"), "{folder}");
}

#[test]
fn what_one_dump_lacks_or_shapes_otherwise_is_a_finding() {
    let a = tensor(&[1.0, 2.0, 3.0, 4.0], &[2, 2]);
    let ours = written("ours.safetensors", &[("same", a.clone()), ("shape", a.clone()), ("ours", a.clone())]);
    let flat = a.reshape(4).unwrap();
    let theirs = written("theirs.safetensors", &[("same", a.clone()), ("shape", flat), ("theirs", a)]);
    let found = compare(&ours, &theirs, None).unwrap();
    assert_eq!(found.tensors.len(), 4);
    assert!(
        matches!(outcome(&found, "shape"), Outcome::Shapes { ours, theirs } if *ours == [2, 2] && *theirs == [4])
    );
    assert!(matches!(outcome(&found, "ours"), Outcome::OnlyOurs));
    assert!(matches!(outcome(&found, "theirs"), Outcome::OnlyTheirs));
    let failures: Vec<_> =
        found.failures(Threshold::default()).map(|compared| compared.name.as_str()).collect();
    assert_eq!(failures, ["shape", "theirs", "ours"]);
}

#[test]
fn a_third_dump_says_how_much_noise_is_fair() {
    let theirs = written("reference.safetensors", &[("x", tensor(&[1.0, 2.0, 2.0], &[3]))]);
    let noise = written("noise.safetensors", &[("x", tensor(&[1.0003, 2.0, 2.0], &[3]))]);
    let ours = |x: f32, name: &str| written(name, &[("x", tensor(&[x, 2.0, 2.0], &[3]))]);
    let check = |x: f32, name: &str, passes: bool| {
        let found = compare(&ours(x, name), &theirs, Some(&noise)).unwrap();
        let compared = &found.tensors[0];
        assert_eq!(compared.verdict(), Verdict::Match, "a cosine hides it");
        assert_eq!(compared.passes(Threshold::default()), passes, "{:?}", compared.ratio());
    };
    check(1.0006, "twice.safetensors", true);
    check(1.003, "ten_times.safetensors", false);
}

#[test]
fn a_damaged_dump_is_refused() {
    let good = std::fs::read(golden_dir().join("bisect/text_bf16.safetensors")).unwrap();
    let check = |name: &str, bytes: &[u8]| {
        let path = scratch(name);
        std::fs::write(&path, bytes).unwrap();
        let error = DumpFile::open(&path).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.message().contains(name), "{error}");
    };
    check("short.safetensors", &good[..good.len() - 1]);
    check("header.safetensors", &[b"xxxxxxxx", &good[8..]].concat());
    check("empty.safetensors", &[]);
    std::fs::write(
        scratch("raw.json"),
        r#"{"metadata": {}, "tensors": [{"name": "x", "shape": [3], "dtype": "f32", "offset": 8}]}"#,
    )
    .unwrap();
    check("raw.bin", &[0; 16]);
    assert_eq!(DumpFile::open(&scratch("no.safetensors")).err().unwrap().kind(), ErrorKind::Io);
}

/// A dump of our own, made from the prompt of a golden one, has its names, its shapes and its manifest.
#[test]
fn our_dump_is_the_twin_of_the_references() {
    let theirs = DumpFile::open(&golden_dir().join("bisect/image_f32.safetensors")).unwrap();
    let messages = std::fs::read(golden_dir().join("bisect/image_f32.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&messages).unwrap();
    let messages = serde_json::from_str(&header.metadata().as_ref().unwrap()["messages"]).unwrap();
    let source = ModelSource::Path(model_dir("e2b-like"));
    let out = scratch("twin.safetensors");
    let options = DumpOptions { steps: 1, format: LoadFormat::Safetensors, ..DumpOptions::default() };
    let loaded = load_model("e2b-like", DType::F32);
    dump(&loaded, &source, DumpInput::Prompt(&chat_prompt(&messages)), &options, &out).unwrap();
    let ours = DumpFile::open(&out).unwrap();
    let sorted = |file: &DumpFile| {
        let mut names: Vec<String> = file.names().map(str::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(sorted(&ours), sorted(&theirs));
    for (a, b) in [
        (&ours.manifest.format, &theirs.manifest.format),
        (&ours.manifest.family, &theirs.manifest.family),
        (&ours.manifest.config_sha256, &theirs.manifest.config_sha256),
        (&ours.manifest.dtype, &theirs.manifest.dtype),
        (&ours.manifest.device, &theirs.manifest.device),
    ] {
        assert_eq!(a, b);
    }
    assert_eq!(ours.manifest.weights, theirs.manifest.weights);
    assert_eq!(ours.manifest.prompt_ids, theirs.manifest.prompt_ids);
    assert_eq!(ours.manifest.images, theirs.manifest.images);
    assert_eq!(ours.manifest.steps, theirs.manifest.steps);
    let found = compare(&ours, &theirs, None).unwrap();
    let failures: Vec<_> = found.failures(Threshold::default()).map(|compared| &compared.name).collect();
    assert!(failures.is_empty(), "{failures:?}");
    let choices = diff_logits(&ours, &theirs, 5).unwrap();
    assert_eq!(choices.positions.len(), theirs.manifest.prompt_ids.len() + 1);
    assert_eq!(choices.to_string(), format!("{0} of {0} positions agree", choices.positions.len()));
}

#[test]
fn a_glob_keeps_what_it_names() {
    let source = ModelSource::Path(model_dir("text-only"));
    let loaded = load_model("text-only", DType::F32);
    let prompt = pyrex_core::Prompt::Text("Hello!".into());
    let run = |taps: &[&str], name: &str| {
        let out = scratch(name);
        let options = DumpOptions {
            taps: taps.iter().map(|glob| glob.to_string()).collect(),
            ..DumpOptions::default()
        };
        dump(&loaded, &source, DumpInput::Prompt(&prompt), &options, &out)
            .map(|_| DumpFile::open(&out).unwrap())
    };
    let file = run(&["*layers.0.self_attn", "logits"], "globs.safetensors").unwrap();
    let names: Vec<_> = file.names().collect();
    assert!(
        names.len() == 2 && names[0].ends_with("layers.0.self_attn") && names[1] == "logits",
        "{names:?}"
    );
    assert_eq!(run(&["[a"], "bad.safetensors").err().unwrap().kind(), ErrorKind::InvalidRequest);
    assert!(!scratch("bad.safetensors").exists());
}

/// A shape may promise any number of rows as long as there is nothing in them.
#[test]
fn a_tensor_of_nothing_costs_nothing() {
    let rows = usize::MAX >> 8;
    let tensors =
        ["logits", "x"].map(|name| (name, TensorView::new(Dtype::F32, vec![rows, 0], &[]).unwrap()));
    let file = safetensors::serialize(tensors, None).unwrap();
    let dump = DumpFile::from_safetensors(std::sync::Arc::new(file)).unwrap();
    let found = compare(&dump, &dump, None).unwrap();
    assert_eq!(found.failures(Threshold::default()).count(), 0);
    assert_eq!(diff_logits(&dump, &dump, 5).unwrap_err().kind(), ErrorKind::InvalidRequest);
}
