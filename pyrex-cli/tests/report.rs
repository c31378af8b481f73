//! `compare` and `bisect` in every format, as a shell sees them: what is found is in each of them, and in the exit code.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

fn golden(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path);
    path.to_str().expect("the path is UTF-8").to_owned()
}

/// What is printed, and the exit code; stderr stays empty.
fn pyrex(arguments: &[&str], format: &str) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyrex"));
    let output = command.args(arguments).args(["--format", format]).stdin(Stdio::null()).output();
    let output = output.expect("the binary runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    (String::from_utf8(output.stdout).expect("stdout is UTF-8"), output.status.code())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("one object")
}

#[test]
fn a_comparison_fails_in_every_format() {
    let (ours, theirs) = (golden("bisect/text_bf16.safetensors"), golden("bisect/image_f32.safetensors"));
    let arguments = ["compare", &ours, &theirs];
    let [text, object, page] = ["text", "json", "html"].map(|format| pyrex(&arguments, format));
    assert_eq!((text.1, object.1, page.1), (Some(1), Some(1), Some(1)));
    assert_eq!(json(&object.0)["tensors"].as_array().map(Vec::len), Some(607));
    assert!(text.0.ends_with("do not pass\n"), "{}", text.0);
    assert!(page.0.starts_with("<!doctype html>") && page.0.ends_with("</html>\n"));
    assert!(page.0.contains("transformers 5.23.0 in bf16 against transformers 5.23.0 in f32"));
    assert_eq!(pyrex(&["compare", &ours, &ours], "html").1, Some(0));
}

#[test]
fn a_bisection_is_one_object_with_all_it_found() {
    let (model, reference) = (golden("e2b-like/model"), golden("bisect/text_bf16.safetensors"));
    let (text, code) = pyrex(&["bisect", "--model", &model, "--reference", &reference], "json");
    let found = json(&text);
    assert_eq!(
        (code, &found["clean"], &found["noise_known"]),
        (Some(0), &Value::Bool(true), &Value::Bool(true))
    );
    assert_eq!(
        (&found["num_weights"], found["weights"].as_array().map(Vec::len)),
        (&Value::from(330), Some(0))
    );
    assert_eq!(found["unwatched"]["passes"], true);
    for mode in ["cumulative", "isolated"] {
        let trace = &found[mode];
        assert!(trace["finger"].is_null() && trace["unseen"].as_array().is_some_and(Vec::is_empty), "{mode}");
        assert_eq!(trace["parts"].as_array().map(Vec::len), Some(528), "{mode}");
        let part = &trace["parts"][1];
        assert_eq!((&part["stage"], &part["diverges"]), (&"embeddings".into(), &false.into()), "{part}");
        assert!(part["origin"]["line"].is_u64() && part["cosine"].is_f64(), "{part}");
    }
}

#[test]
fn another_model_than_the_dumps_is_told_in_every_format() {
    let (model, reference) = (golden("e4b-like/model"), golden("bisect/text_bf16.safetensors"));
    let arguments = ["bisect", "--model", &model, "--reference", &reference];
    let [text, object, page] = ["text", "json", "html"].map(|format| pyrex(&arguments, format));
    assert_eq!((text.1, object.1, page.1), (Some(1), Some(1), Some(1)));
    let found = json(&object.0);
    let finger = &found["isolated"]["finger"];
    let place = finger["place"].as_str().expect("a place");
    assert!(text.0.contains(&format!("isolated: {place}\n")), "{}", text.0);
    assert!(page.0.contains(&format!("<h1>It first goes wrong in {place}.</h1>")));
    assert!(finger["functions"][0]["num_wrong"].as_u64() > Some(0), "{finger}");
    let weight = &found["weights"][0];
    let name = weight["name"].as_str().expect("a name");
    assert!(text.0.contains(name) && page.0.contains(name), "{weight}");
}
