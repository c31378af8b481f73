//! The binary as a shell sees it: what it prints, where, and how it exits.

mod support;

use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{fails, pyrex, scratch, shapes, stderr, stdout};

/// Runs what must work, and returns what it prints.
fn succeeds(arguments: &[&str]) -> String {
    let output = pyrex(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    assert_eq!(stderr(&output), "", "{arguments:?}");
    stdout(&output).to_owned()
}

#[test]
fn help_names_every_command_and_flag() {
    let help = succeeds(&["--help"]);
    let commands = "generate chat serve doctor canary dump compare diff-logits bisect profile bench inspect";
    for command in commands.split(' ') {
        assert!(help.contains(command), "{help}");
    }
    let flags = [
        (
            "generate",
            "--model --image --system --prompt --max-tokens --temperature --top-p --top-k --min-p --seed",
        ),
        ("generate", "--stop --dtype --device --format --num-threads"),
        (
            "chat",
            "--model --system --temperature --max-tokens --seed --device --speed --history --no-history",
        ),
        (
            "serve",
            "--model --host --port --config --print-config --tls-cert --tls-key --client-ca --keys --insecure",
        ),
        ("serve", "--log --log-level --device --dtype --threads --max-model-len --max-sequences --kv-cache"),
        ("doctor", "--model --config --self-test --format --port --keys"),
        (
            "canary",
            "--url --watch --every --window --max-latency-ms --breaches --run --key-file --ca --cert --key",
        ),
        ("dump", "--model --image --prompt --out --taps --steps --prompt-tokens --load-format"),
        ("compare", "--noise --threshold --max-ratio --failures --format"),
        ("diff-logits", "--top --failures --model --format"),
        ("bisect", "--model --reference --image --prompt --dtype"),
        (
            "profile",
            "--model --load-format --image --prompt --prompt-tokens --steps --repetitions --by --format",
        ),
        ("profile", "--device --dtype --threads"),
        ("bench", "--model --load-format --prompt-tokens --max-tokens --image --json --threads"),
        ("bench", "--requests --max-sequences --shared-prefix"),
    ];
    for (command, flags) in flags {
        let help = succeeds(&[command, "--help"]);
        flags.split(' ').for_each(|flag| assert!(help.contains(flag), "{command} {flag}: {help}"));
    }
    assert!(succeeds(&["--version"]).starts_with("pyrex "));
}

#[test]
fn bad_usage_exits_with_2() {
    for arguments in [
        &["generate", "--no-such-flag"][..],
        &["no-such-command"],
        &[],
        &["generate", "--prompt", "p", "--max-tokens", "0"],
        &["generate", "--prompt", "p", "--max-tokens", "many"],
        &["generate", "--prompt", "p", "--dtype", "f8"],
        &["generate", "--prompt", "p", "--device", "gpu"],
        &["generate", "--prompt", "p", "--format", "xml"],
        &["generate", "--prompt", "p", "--top-k", "4"],
        &["dump", "--prompt", "p"],
        &["profile", "--by", "function"],
        &["profile", "--repetitions", "0"],
        &["profile", "--prompt", "p", "--prompt-tokens", "3"],
        &["bench", "--image", "640"],
        &["bench", "--requests", "0"],
        &["bench", "--max-sequences", "2"],
        &["bench", "--requests", "2", "--shared-prefix", "32"],
    ] {
        fails(arguments, 2, "");
    }
    fails(&["dump", "--prompt", "p"], 2, "--out");
    fails(&["generate"], 2, "--prompt");
    fails(&["generate", "--prompt", "p", "--temperature", "-1"], 2, "temperature is -1");
    fails(&["generate", "--prompt", "p", "--temperature", "NaN"], 2, "temperature");
    fails(&["generate", "--prompt", "p", "--temperature", "1", "--top-p", "1.5"], 2, "top_p is 1.5");
    fails(&["generate", "--prompt", "p", "--stop", ""], 2, "stop string");
}

#[test]
fn whatever_else_goes_wrong_exits_with_1_and_one_line() {
    fails(&["generate", "--model", "/no/such/folder", "--prompt", "p"], 1, "/no/such/folder");
    fails(&["generate", "--image", "/no/such/image.png"], 1, "/no/such/image.png");
    fails(&["generate", "--image", &shapes("config.json")], 1, "image");
    fails(&["inspect", "/no/such/folder"], 1, "/no/such/folder");
    fails(&["dump", "--prompt", "p", "--out", "/no/such/folder/x"], 1, "/no/such/folder/x");
    fails(&["dump", "--prompt", "p", "--out", "/dev/null", "--taps", "[a"], 1, "glob");
    fails(&["dump", "--prompt", "p", "--out", "/dev/null"], 1, "/dev/null: expected a file");
    fails(&["compare", "/no/such/a", "/no/such/b"], 1, "/no/such/a");
    fails(
        &["compare", &shapes("config.json"), &shapes("config.json")],
        1,
        "config.json: not a readable safetensors",
    );
    fails(&["bisect", "--reference", "/no/such/dump"], 1, "/no/such/dump");
    fails(&["bisect", "--reference", &shapes("model.safetensors")], 1, "prompt_ids");
    fails(&["generate", "--prompt", &"word ".repeat(9000)], 1, "max_model_len");
    let empty = scratch("an-empty-folder");
    fs::create_dir_all(&empty).expect("the scratch folder is writable");
    fails(&["generate", "--prompt", "p", "--model", empty.to_str().expect("UTF-8")], 1, "config.json");
}

#[test]
fn cuda_without_a_gpu_is_an_error_and_not_a_crash() {
    let output = pyrex(&["generate", "--prompt", "p", "--device", "cuda:7"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}

#[test]
fn the_bundled_model_describes_the_red_circle() {
    let answer = succeeds(&["generate", "--image", &shapes("examples/red_circle.png")]);
    assert_eq!(answer, "This is a simple image of a solid red circle on a white background.\n");
}

#[test]
fn the_bundled_model_and_its_folder_answer_alike() {
    let (image, folder) = (shapes("examples/red_circle.png"), shapes(""));
    let arguments = ["generate", "--image", &image, "--prompt", "What color is the shape?"];
    assert_eq!(succeeds(&[&arguments[..], &["--model", &folder]].concat()), succeeds(&arguments));
}

#[test]
fn json_is_one_object_with_exactly_the_named_fields() {
    let arguments =
        ["generate", "--image", &shapes("examples/red_circle.png"), "--format", "json", "--max-tokens", "3"];
    let object: Value = serde_json::from_str(&succeeds(&arguments)).expect("the output is JSON");
    let keys = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>().join(" "));
    let expected = "text token_ids prompt_token_ids finish_reason usage timings";
    assert_eq!(keys(&object).as_deref(), Some(expected));
    assert_eq!(keys(&object["usage"]).as_deref(), Some("prompt_tokens image_tokens completion_tokens"));
    let expected = "load_ms preprocess_ms encode_images_ms prefill_ms decode_ms ttft_ms";
    assert_eq!(keys(&object["timings"]).as_deref(), Some(expected));
    assert_eq!(object["finish_reason"], "length");
    assert_eq!(object["usage"]["completion_tokens"], 3);
    assert_eq!(object["usage"]["image_tokens"], 64);
    let len = |field: &str| object[field].as_array().map(Vec::len);
    assert_eq!((len("token_ids"), len("prompt_token_ids")), (Some(3), Some(79)));
    assert!(
        object["timings"]
            .as_object()
            .is_some_and(|timings| timings.values().all(|ms| ms.as_f64() >= Some(0.0)))
    );
}

#[test]
fn a_seed_repeats_an_answer_and_a_stop_string_ends_it() {
    let image = shapes("examples/red_circle.png");
    let sampled = |seed| {
        succeeds(&["generate", "--image", &image, "--temperature", "3", "--seed", seed, "--max-tokens", "12"])
    };
    assert_eq!(sampled("7"), sampled("7"));
    assert_ne!(sampled("7"), sampled("8"));
    assert_eq!(succeeds(&["generate", "--image", &image, "--stop", " of a"]), "This is a simple image\n");
}

#[test]
fn threads_change_no_answer() {
    let image = shapes("examples/red_circle.png");
    let with = |threads| succeeds(&["generate", "--image", &image, "--num-threads", threads]);
    assert_eq!(with("1"), with("3"));
}

#[test]
fn dump_writes_what_went_in_and_what_came_out() {
    let (image, out) = (shapes("examples/red_circle.png"), scratch("trace.safetensors"));
    let out_name = out.to_str().expect("UTF-8");
    succeeds(&["dump", "--image", &image, "--prompt", "Describe this image.", "--out", out_name]);
    let header = safetensors_header(&out);
    for name in ["prep.input_ids", "prep.pixel_values", "prep.position_ids", "logits"] {
        assert!(header.get(name).is_some(), "{name}");
    }
    assert_eq!(header["prep.input_ids"]["shape"], serde_json::json!([79]));
    assert_eq!(header["prep.pixel_values"]["shape"], serde_json::json!([576, 768]));
    assert_eq!(header["logits"]["shape"], serde_json::json!([79, 2048]));
    assert_eq!(header["logits"]["dtype"], "F32");
    assert_eq!(header["__metadata__"]["dtype"], "f32");
    succeeds(&["dump", "--prompt", "Hello", "--taps", "*layers.0*", "--out", out_name]);
    let header = safetensors_header(&out);
    let tensors = header.as_object().expect("an object").keys().filter(|name| *name != "__metadata__");
    assert!(tensors.clone().count() > 5 && tensors.clone().all(|name| name.contains("layers.0")), "{header}");
}

fn safetensors_header(path: &Path) -> Value {
    let mut file = fs::File::open(path).expect("the file was written");
    let mut len = [0; 8];
    file.read_exact(&mut len).expect("the file has a length");
    let mut header = vec![0; u64::from_le_bytes(len) as usize];
    file.read_exact(&mut header).expect("the file has a header");
    serde_json::from_slice(&header).expect("the header is JSON")
}

#[test]
fn inspect_says_what_a_checkpoint_is() {
    let page = succeeds(&["inspect", &shapes("")]);
    for needle in
        ["Gemma4ForConditionalGeneration", "hidden_size", "sliding 64", "2 674 152", "1280 bytes per token"]
    {
        assert!(page.contains(needle), "{needle}: {page}");
    }
    assert_eq!(page, succeeds(&["inspect"]));
}

/// What `profile` measures on the bundled model, once, as one JSON object.
fn profile(arguments: &str) -> Value {
    let image = shapes("examples/red_circle.png");
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let rest = ["--image", &image, "--threads", "1", "--repetitions", "1", "--format", "json"];
    let printed = succeeds(&[&["profile"], &arguments[..], &rest].concat());
    serde_json::from_str(&printed).expect("the output is JSON")
}

#[test]
fn profile_says_what_every_operation_takes() {
    let object = profile("--steps 2");
    assert_eq!((&object["prompt_tokens"], &object["image_tokens"]), (&79.into(), &64.into()));
    assert!(["flops_per_s", "bytes_per_s"].iter().all(|rate| object["ceilings"][rate].as_f64() > Some(0.0)));
    for phase in ["prompt", "decode"] {
        let rows = object[phase]["rows"].as_array().expect("rows");
        let sum = |field: &str| rows.iter().filter_map(|row| row[field].as_f64()).sum::<f64>();
        let total = &object[phase]["total"];
        for field in ["calls", "time_ms", "flops", "bytes", "weight_bytes"] {
            let (sum, total) = (sum(field), total[field].as_f64().expect("a number"));
            assert!((sum - total).abs() <= 1e-6 * total, "{phase} {field}: {sum}, {total}");
        }
        let product =
            rows.iter().find(|row| row["operation"] == "mlp.gate_proj" && row["stage"] == "decoder");
        let product = product.unwrap_or_else(|| panic!("{object}"));
        assert_eq!(product["calls"], 8);
        assert_eq!(product["function"], "nn::linear::Linear::forward");
        assert!(product["share_of_ceiling"].as_f64() > Some(0.0), "{product}");
    }
    assert!(
        object["prompt"]["rows"]
            .as_array()
            .is_some_and(|rows| rows.iter().any(|row| row["stage"] == "vision tower"))
    );
    let object = profile("--steps 0 --by stage");
    assert_eq!((&object["decode"], &object["by"]), (&Value::Null, &"stage".into()));
    assert!(object["prompt"]["rows"].as_array().is_some_and(|rows| (4..9).contains(&rows.len())), "{object}");
}

#[test]
fn profile_prints_tables() {
    let model = shapes("");
    let arguments = ["profile", "--model", &model, "--load-format", "dummy", "--prompt-tokens", "20"];
    let rest = ["--steps", "1", "--repetitions", "1", "--threads", "2"];
    let page = succeeds(&[&arguments[..], &rest].concat());
    for line in ["ceilings ", "watching ", "prompt: 20 tokens", "decode: a step at position 20"] {
        assert!(page.lines().any(|found| found.starts_with(line)), "{line}: {page}");
    }
    for needle in
        ["explain", "decoder, mlp.down_proj ", "Linear::forward (pyrex-core/src/nn/linear.rs:", "total"]
    {
        assert!(page.contains(needle), "{needle}: {page}");
    }
    let page = succeeds(&[&arguments[..], &rest, &["--by", "layer"]].concat());
    assert!(page.contains("decoder, layer 7"), "{page}");
}

#[test]
fn bench_measures_made_up_weights() {
    let arguments = ["bench", "--model", &shapes(""), "--load-format", "dummy", "--prompt-tokens", "20"];
    let rest = ["--max-tokens", "3", "--json", "--threads", "1"];
    let object: Value =
        serde_json::from_str(&succeeds(&[&arguments[..], &rest].concat())).expect("the output is JSON");
    assert_eq!((&object["prompt_tokens"], &object["completion_tokens"]), (&20.into(), &3.into()));
    for rate in ["load_ms", "prefill_tokens_per_s", "decode_tokens_per_s", "peak_rss_bytes"] {
        assert!(object[rate].as_f64() > Some(0.0), "{rate}: {object}");
    }
    let page = succeeds(&["bench", "--image", "64x48", "--prompt-tokens", "20", "--max-tokens", "2"]);
    for line in ["load", "vision", "prefill", "decode", "peak memory"] {
        assert!(page.lines().any(|found| found.starts_with(line)), "{line}: {page}");
    }
}

#[test]
fn bench_measures_the_vision_tower_and_not_what_was_remembered_of_it() {
    let object = bench("--image 64x48 --prompt-tokens 20 --max-tokens 2");
    let ms = |name: &str| object[name].as_f64().expect("a number");
    assert!(ms("encode_images_ms") > 0.0 && ms("preprocess_ms") > 0.0, "{object}");
    // Each is a median of its own; what is more in every run is so in the middle.
    assert!(ms("ttft_ms") > ms("encode_images_ms"), "{object}");
}

/// What `bench` measures on the bundled model, as one JSON object.
fn bench(arguments: &str) -> Value {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let printed = succeeds(&[&["bench", "--json", "--threads", "1"], &arguments[..]].concat());
    serde_json::from_str(&printed).expect("the output is JSON")
}

#[test]
fn bench_measures_requests_that_run_together() {
    // Long enough that none has ended before the last begins, however busy the machine is.
    let object = bench("--requests 3 --prompt-tokens 20 --max-tokens 256");
    // The first token comes with the prompt, and the phase ends before the last: 254 steps are left if all begin at once.
    let num_steps = object["decode"]["num_steps"].as_u64().expect("all decode together");
    assert!((1..=254).contains(&num_steps), "{object}");
    for figure in ["tokens_per_s", "step_ms", "overhead", "wall_overhead", "alone_tokens_per_s", "ratio"] {
        assert!(object["decode"][figure].as_f64() > Some(0.0), "{figure}: {object}");
    }
    for figure in ["wall_s", "generated_tokens_per_s", "mean_ttft_ms", "max_ttft_ms"] {
        assert!(object[figure].as_f64() > Some(0.0), "{figure}: {object}");
    }
    // Two in a step never are all three.
    let object = bench("--requests 3 --max-sequences 2 --prompt-tokens 20 --max-tokens 3");
    assert_eq!((&object["decode"], &object["max_sequences"]), (&Value::Null, &2.into()));
    let page = succeeds(&["bench", "--requests", "2", "--prompt-tokens", "20", "--max-tokens", "256"]);
    for line in ["requests", "decode", "  overhead", "  one alone", "  ratio", "all", "first token"] {
        assert!(page.lines().any(|found| found.starts_with(line)), "{line}: {page}");
    }
}

#[test]
fn bench_measures_a_prefix_that_the_cache_holds() {
    let object = bench("--shared-prefix 40");
    assert_eq!((&object["prefix_tokens"], &object["cached_tokens"]), (&40.into(), &32.into()));
    for figure in ["cold_ttft_ms", "cached_ttft_ms", "ratio"] {
        assert!(object[figure].as_f64() > Some(0.0), "{figure}: {object}");
    }
    let page = succeeds(&["bench", "--shared-prefix", "40"]);
    for line in ["prefix", "first token", "  shared", "  sooner"] {
        assert!(page.lines().any(|found| found.starts_with(line)), "{line}: {page}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pyrex"))
        .args(["generate", "--image", &shapes("examples/red_circle.png")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the binary ends");
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}

/// Runs what must find something: exit code 1, everything on stdout.
fn finds(arguments: &[&str]) -> String {
    let output = pyrex(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
    assert_eq!(stderr(&output), "", "{arguments:?}");
    stdout(&output).to_owned()
}

/// Dumps an answer of the bundled model to a file of this name.
fn dumped(name: &str, arguments: &[&str]) -> String {
    let out = scratch(name).to_str().expect("UTF-8").to_owned();
    succeeds(&[&["dump", "--out", &out, "--steps", "2"], arguments].concat());
    out
}

#[test]
fn two_dumps_are_compared_and_the_exit_code_says_how_it_went() {
    let f32 = dumped("f32.safetensors", &["--prompt", "Hello!"]);
    let raw = dumped("f32.bin", &["--prompt", "Hello!"]);
    let bf16 = dumped("bf16.safetensors", &["--prompt", "Hello!", "--dtype", "bf16"]);
    let same = succeeds(&["compare", &f32, &raw]);
    assert!(
        same.ends_with(", 0 do not pass\n") && same.contains("match         1.000000     0.0e0"),
        "{same}"
    );
    succeeds(&["compare", &bf16, &f32, "--noise", &bf16]);
    succeeds(&["compare", &bf16, &f32, "--threshold", "catastrophic"]);
    let found = finds(&["compare", &bf16, &f32, "--noise", &f32, "--failures", "--format", "json"]);
    let found: Value = serde_json::from_str(&found).expect("one object");
    let tensors = found["tensors"].as_array().expect("a list");
    assert!(tensors.len() > 100 && tensors.iter().all(|tensor| tensor["passes"] == false));
    let longer = dumped("longer.safetensors", &["--prompt", "Hello! Who are you?"]);
    assert!(finds(&["compare", &longer, &f32]).contains("shape         ["));
}

#[test]
fn choices_of_two_dumps_are_compared() {
    let f32 = dumped("choices.safetensors", &["--prompt", "Hello!"]);
    let model = shapes("");
    let text = succeeds(&["diff-logits", &f32, &f32, "--model", &model]);
    assert!(text.contains("  step 2  A  agree") && text.contains('"'), "{text}");
    let json: Value =
        serde_json::from_str(&succeeds(&["diff-logits", &f32, &f32, "--top", "2", "--format", "json"]))
            .expect("JSON");
    assert_eq!(json["num_agreeing"], json["num_positions"]);
    assert_eq!(json["positions"][0]["ours"].as_array().map(Vec::len), Some(2));
    let longer = dumped("longer_choices.safetensors", &["--prompt", "Hello! Who are you?"]);
    fails(&["diff-logits", &longer, &f32], 1, "expected the same two sizes");
}

#[test]
fn bisect_is_quiet_about_itself_and_finds_another_dtype() {
    let dump = dumped("reference.safetensors", &["--image", &shapes("examples/red_circle.png")]);
    let clean = succeeds(&["bisect", "--reference", &dump, "--image", &shapes("examples/red_circle.png")]);
    for line in [
        "cumulative: no divergence",
        "isolated: no divergence",
        "prompt: prep.pixel_values is the reference's",
    ] {
        assert!(clean.contains(line), "{clean}");
    }
    assert!(clean.contains("the dump does not say how much noise"), "{clean}");
    let other = finds(&["bisect", "--reference", &dump, "--model", &shapes(""), "--prompt", "Hello!"]);
    assert!(other.contains("prompt: prep.input_ids is not the reference's"), "{other}");
}
