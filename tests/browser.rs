//! The pages of the report in a browser without a screen: as wide as a phone and as a desk, with nothing to reach.

use pyrex_tests::pages::{PAGES, Page};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Width and height of what pages are looked at in.
const SIZES: [(u32, u32); 2] = [(390, 844), (1280, 900)];
/// What a browser may be called.
const BROWSERS: [&str; 4] = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];

fn browser() -> &'static str {
    let runs = |name: &&str| {
        let mut command = Command::new(name);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    BROWSERS.into_iter().find(runs).expect("a browser: see scripts/test-html.sh")
}

/// Writes the page as it is, and one in which it is looked at: in a frame of each size, as a window of a browser without a
/// screen may be wider than it was told.
fn write(folder: &Path, page: &Page) -> PathBuf {
    fs::write(folder.join(format!("{}.html", page.name)), &page.html).unwrap();
    let expected = json!({
        "finger": page.finger,
        "modes": page.is_bisection,
        "svgs": page.html.contains("<svg"),
    });
    let looks = include_str!("browser.js");
    let script = format!("<head>\n<script>window.EXPECTED = {expected};\n{looks}</script>");
    fs::write(folder.join(format!("{}.seen.html", page.name)), page.html.replacen("<head>", &script, 1))
        .unwrap();
    let frames = SIZES.map(|(width, height)| {
        format!(
            "<iframe src=\"{}.seen.html\" style=\"width:{width}px;height:{height}px;border:0\"></iframe>",
            page.name
        )
    });
    let listen = "const found = []; addEventListener('message', (event) => { found.push(event.data); \
                  document.getElementById('found').textContent = JSON.stringify(found); });";
    let around = format!(
        "<!doctype html><meta charset=\"utf-8\"><script>{listen}</script><pre id=\"found\"></pre>{}",
        frames.concat()
    );
    let path = folder.join(format!("{}.frames.html", page.name));
    fs::write(&path, around).unwrap();
    path
}

/// What the frames have to say once all has run.
fn found(path: &Path) -> Value {
    let url = format!("file://{}", path.display());
    let mut command = Command::new(browser());
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]);
    command.args([
        "--allow-file-access-from-files",
        "--window-size=1400,2000",
        "--virtual-time-budget=60000",
    ]);
    command.args(["--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9"]);
    let output = command.arg(&url).output().expect("the browser runs");
    let dom = String::from_utf8_lossy(&output.stdout);
    let text = dom.split_once("<pre id=\"found\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let text = text.unwrap_or_else(|| panic!("{url}: {}", String::from_utf8_lossy(&output.stderr))).0;
    let text =
        text.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}").replace("&amp;", "&");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{url}: {e}: {text:?}"))
}

#[test]
fn pages_are_whole_on_a_phone_and_on_a_desk() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("html");
    fs::create_dir_all(&folder).unwrap();
    let mut wrong = Vec::new();
    for page in PAGES.iter() {
        let found = found(&write(&folder, page));
        let frames = found.as_array().unwrap();
        let mut widths: Vec<u64> = frames.iter().map(|frame| frame["width"].as_u64().unwrap()).collect();
        widths.sort_unstable();
        assert_eq!(widths, SIZES.map(|(width, _)| u64::from(width)), "{}", page.name);
        for frame in frames {
            println!("{} at {} px: {} drawings", page.name, frame["width"], frame["svgs"]);
            for what in frame["wrong"].as_array().unwrap().iter().take(8) {
                wrong.push(format!("{} at {} px: {what}", page.name, frame["width"]));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\nThe pages are in {}.", wrong.join("\n"), folder.display());
}
