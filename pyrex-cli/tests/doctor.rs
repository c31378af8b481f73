//! `pyrex doctor` on a machine that is well, and where something would fail.

mod support;

use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use support::certificates::Authority;
use support::{fails, pyrex, scratch, scratch_name, stderr, stdout};

/// The exit code, and every check by its name.
fn doctor(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = pyrex(&[&["doctor", "--format", "json"], arguments].concat());
    assert_eq!(stderr(&output), "", "{arguments:?}");
    let found: Value = serde_json::from_str(stdout(&output)).expect("one object");
    assert_eq!(found["ok"], output.status.success());
    (output.status.code(), found["checks"].as_array().expect("a list").clone())
}

/// Asserts that one check of this name has this verdict and says so.
fn says(checks: &[Value], name: &str, verdict: &str, needle: &str) {
    let mut named = checks.iter().filter(|check| check["name"] == name);
    let fits = |check: &Value| {
        let text = format!("{} {}", check["found"], check["advice"]);
        check["verdict"] == verdict
            && text.contains(needle)
            && (verdict == "ok" || check["advice"].is_string())
    };
    assert!(named.any(fits), "{name} {verdict} {needle}: {checks:#?}");
}

#[test]
fn the_bundled_model_runs_here() {
    let (code, checks) = doctor(&["--self-test"]);
    assert_eq!(code, Some(0), "{checks:#?}");
    for name in ["device", "memory", "fit", "self-test"] {
        says(&checks, name, "ok", "");
    }
    says(&checks, "model", "ok", "Gemma4ForConditionalGeneration, 5.1 MiB of weights");
    says(&checks, "fit", "ok", "a sequence of 4096 tokens");
    assert!(checks.iter().all(|check| check["name"] != "port"), "who asks about a model wants no port");
    let output = pyrex(&["doctor"]);
    let page = stdout(&output);
    let is_check =
        |line: &str| ["ok    ", "warn  ", "fail  ", "      "].iter().any(|begin| line.starts_with(begin));
    assert!(page.lines().rev().skip(1).all(is_check) && page.ends_with(" 0 fail\n"), "{page}");
}

#[test]
fn a_model_that_would_not_run_is_a_failure_with_advice() {
    let empty = scratch("doctor-empty");
    fs::create_dir_all(&empty).expect("the scratch folder is writable");
    let (code, checks) = doctor(&["--model", empty.to_str().expect("UTF-8"), "--self-test"]);
    assert_eq!(code, Some(1));
    says(&checks, "model", "fail", "config.json");
    assert!(
        checks.iter().all(|check| check["name"] != "self-test"),
        "nothing is loaded that cannot be: {checks:#?}"
    );
    let (code, checks) = doctor(&["--model", "/no/such/folder"]);
    assert_eq!(code, Some(1));
    says(&checks, "model", "fail", "/no/such/folder");
    let (code, checks) = doctor(&["--max-model-len", "5000"]);
    assert_eq!(code, Some(1));
    says(&checks, "fit", "fail", "max_model_len is 5000, the model was made for up to 4096");
    let (code, checks) = doctor(&["--kv-cache", "8000000GiB"]);
    assert_eq!(code, Some(1));
    says(&checks, "fit", "fail", "smaller --kv-cache");
    let (code, checks) = doctor(&["--device", "cuda:63", "--num-threads", "4000"]);
    assert_eq!(code, Some(1));
    says(&checks, "device", "fail", "cuda");
    says(&checks, "threads", "warn", "4000 asked for");
}

#[test]
fn a_server_that_would_not_start_is_a_failure_with_advice() {
    let (ours, config) = (Authority::new("doctor"), scratch_name("doctor.toml"));
    let (good, old) = (ours.sign("good", (2020, 2120)), ours.sign("old", (2020, 2021)));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let write = |text: String| fs::write(&config, text).expect("the scratch folder is writable");
    write(format!(
        "port = {port}\n[tls]\ncert = {:?}\nkey = {:?}\nclient_ca = {:?}\n",
        good.cert,
        good.key,
        ours.file()
    ));
    let (code, checks) = doctor(&["--config", &config, "--port", "0"]);
    assert_eq!(code, Some(0), "{checks:#?}");
    for (name, needle) in
        [("port", "free"), ("tls", "clients must show"), ("certificate", "CN=good"), ("keys", "none")]
    {
        says(&checks, name, "ok", needle);
    }
    says(&checks, "client CA", "ok", "CN=doctor");
    let (code, checks) = doctor(&["--config", &config, "--tls-key", &old.key, "--keys", "/no/such.keys"]);
    assert_eq!(code, Some(1));
    says(&checks, "port", "fail", &port);
    says(&checks, "tls", "fail", "doctor.good.pem");
    says(&checks, "keys", "fail", "/no/such.keys");
    let (code, checks) =
        doctor(&["--config", &config, "--port", "0", "--tls-cert", &old.cert, "--tls-key", &old.key]);
    assert_eq!(code, Some(1));
    says(&checks, "certificate", "fail", "it has expired");
    write("port = \"many\"\n".to_owned());
    let (code, checks) = doctor(&["--config", &config]);
    assert_eq!(code, Some(1));
    says(&checks, "config", "fail", "line 1, `port = \\\"many\\\"`");
    says(&checks, "model", "ok", "bundled");
    let (_, checks) = doctor(&["--host", "0.0.0.0", "--port", "0", "--insecure"]);
    says(&checks, "keys", "warn", "whoever reaches it may ask");
    fails(&["doctor", "--format", "xml"], 2, "xml");
}
