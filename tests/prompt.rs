//! Prompts against the reference: sizes, resized pixels, decoded files, token ids, rendered chats, whole prompts.
//!
//! The goldens are made by `reference/preprocess.py`. What a hostile file may do is in `tests/prompt_hostile.rs`.

use pyrex_core::error::ErrorKind;
use pyrex_core::models::gemma4::prompt::{Gemma4Processor, ImageGrid, patch_positions, pool_slots};
use pyrex_core::models::{ModelSource, Processor};
use pyrex_core::prompt::image::{ImageLimits, RgbImage, decode};
use pyrex_core::prompt::resize::resize;
use pyrex_core::prompt::tokenizer::Tokenizer;
use pyrex_core::prompt::{Chat, Content, Message, Part, Prompt};
use pyrex_tests::ids;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn golden(name: &str) -> Vec<u8> {
    let path = root().join("tests/golden/prompt").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn rows(name: &str) -> Vec<Value> {
    serde_json::from_slice(&golden(name)).unwrap()
}

fn usizes(row: &Value) -> Vec<usize> {
    row.as_array().unwrap().iter().filter_map(|n| n.as_u64().map(|n| n as usize)).collect()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shapes() -> Gemma4Processor {
    Gemma4Processor::new(&ModelSource::Path(root().join("models/shapes"))).unwrap()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(&std::fs::read(root().join("models/shapes/tokenizer.json")).unwrap()).unwrap()
}

fn grid(max_soft_tokens: usize) -> ImageGrid {
    ImageGrid { patch_size: 16, pooling_kernel_size: 3, max_soft_tokens }
}

/// The pixels of `pixels` in `reference/preprocess_data.py`.
fn pixels(height: usize, width: usize, pattern: usize) -> RgbImage {
    let value = |x: u64, y: u64, c: u64| {
        if pattern == 0 {
            let mixed = (x * 2_654_435_761 + y * 2_246_822_519 + c * 3_266_489_917) % (1 << 32);
            let mixed = (mixed ^ (mixed >> 15)) * 2_246_822_519 % (1 << 32);
            return (mixed >> 13) as u8;
        }
        let smooth = (x * 3 + y * 2 + c * 80) % 512;
        let smooth = if smooth < 256 { smooth } else { 511 - smooth };
        let is_edge = (x / 37 + y / 23).is_multiple_of(3) && c != 1;
        (if is_edge { 255 - smooth / 3 } else { smooth }) as u8
    };
    let mut values = Vec::with_capacity(height * width * 3);
    for y in 0..height as u64 {
        for x in 0..width as u64 {
            values.extend((0..3).map(|c| value(x, y, c)));
        }
    }
    RgbImage::new(width, height, values)
}

#[test]
fn known_bug_02_soft_tokens_of_every_size_are_the_references() {
    let rows = rows("sizes.json");
    assert!(rows.len() >= 3000);
    for row in rows {
        let [h, w, budget, th, tw, n] = usizes(&row)[..] else { panic!("{row}") };
        let grid = grid(budget);
        assert_eq!(grid.target_size(h, w).unwrap(), (th, tw), "{h}×{w} at {budget}");
        assert_eq!(th * tw / (48 * 48), n);
        assert!((1..=budget).contains(&n));
    }
}

#[test]
fn known_bug_02_strips_never_leave_the_budget() {
    for budget in [70, 140, 280, 560, 1120] {
        for long in (1..200_000).step_by(97) {
            for (h, w) in [(1, long), (long, 1), (3, long), (16, long)] {
                let (th, tw) = grid(budget).target_size(h, w).unwrap();
                assert!(th % 48 == 0 && tw % 48 == 0 && (1..=budget).contains(&(th * tw / 2304)));
            }
        }
    }
    assert_eq!(grid(280).target_size(0, 5).unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[test]
fn known_bug_03_small_images_fill_every_budget() {
    for budget in [70, 140, 280, 560, 1120] {
        for side in [1, 16, 47, 96] {
            let (th, tw) = grid(budget).target_size(side, side).unwrap();
            assert!(th == tw && (th + 48).pow(2) > budget * 2304, "{side} at {budget}: {th}");
        }
        assert_eq!(shapes().with_max_soft_tokens(budget).unwrap().grid().max_soft_tokens, budget);
    }
    assert_eq!(shapes().with_max_soft_tokens(256).err().unwrap().kind(), ErrorKind::InvalidRequest);
}

#[test]
fn resized_pixels_are_the_references_bit_for_bit() {
    let rows = rows("resize.json");
    assert!(rows.len() >= 40);
    for row in rows {
        let [h, w, pattern, th, tw] = usizes(&row)[..] else { panic!("{row}") };
        let resized = resize(&pixels(h, w, pattern), tw, th);
        assert_eq!(hex(resized.pixels()), row[5].as_str().unwrap(), "{h}×{w} to {th}×{tw}");
    }
}

/// Decoders of the same format differ in rounding; these are the largest steps of 255 that we measured against the
/// reference's, all others decode to the very same values.
const MAX_STEPS: [(&str, u8); 0] = [];

#[test]
fn image_files_decode_to_the_references_pixels() {
    let bytes = golden("formats.safetensors");
    let expected = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert!(expected.len() >= 70);
    let mut failures = Vec::new();
    for (name, tensor) in expected.tensors() {
        let image = match decode(&golden(&format!("formats/{name}")), &ImageLimits::default()) {
            Ok(image) => image,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        if tensor.shape() != [image.height(), image.width(), 3] {
            failures.push(format!(
                "{name}: {}×{} against {:?}",
                image.height(),
                image.width(),
                tensor.shape()
            ));
            continue;
        }
        let steps = image.pixels().iter().zip(tensor.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let allowed =
            MAX_STEPS.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(0, |&(_, steps)| steps);
        if steps > allowed {
            failures.push(format!("{name}: {steps} steps"));
        }
    }
    assert!(failures.is_empty(), "{}\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn known_bug_13_token_ids_are_the_references_over_the_corpus() {
    let (tokenizer, rows) = (tokenizer(), rows("tokens.json"));
    assert!(rows.len() >= 2000);
    for row in rows {
        let (text, expected) = (row[0].as_str().unwrap(), ids(&row[1]));
        assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text:?}");
        let decoded = row.get(2).map_or(text, |decoded| decoded.as_str().unwrap());
        assert_eq!(streamed(&tokenizer, &expected), decoded, "{text:?}");
        assert_eq!(tokenizer.decode(&expected).unwrap(), decoded, "{text:?}");
    }
}

#[test]
fn streamed_text_is_the_references_decoding_of_any_ids() {
    let tokenizer = tokenizer();
    for row in rows("decodes.json") {
        assert_eq!(streamed(&tokenizer, &ids(&row[0])), row[1].as_str().unwrap(), "{row}");
    }
}

#[test]
fn streamed_text_is_the_tokenizers_decoding_of_random_ids() {
    let tokenizer = tokenizer();
    let byte = |byte: u64| tokenizer.token_to_id(&format!("<0x{byte:02X}>")).unwrap();
    let mut state = 1u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..5000 {
        let len = random(40);
        let ids: Vec<u32> = (0..len)
            .map(|_| match random(3) {
                0 => random(2200) as u32,
                1 => byte(random(256)),
                _ => byte([0xf0, 0x9f, 0x98, 0x80, 0xc3, 0xa9, 0x41][random(7) as usize]),
            })
            .collect();
        assert_eq!(streamed(&tokenizer, &ids), tokenizer.decode(&ids).unwrap(), "{ids:?}");
    }
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.detokenizer();
    let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
    text.push_str(&stream.finish());
    text
}

/// A conversation of `chats.json`; image parts get the files of `images/` in turn.
fn chat(row: &Value) -> Chat {
    let mut num_images = 0;
    let mut part = |part: &Value| match part["type"].as_str() {
        Some("image") => {
            num_images += 1;
            Part::Image(golden(&format!("images/{}.png", num_images - 1)).into())
        }
        _ => Part::Text(part["text"].as_str().unwrap().to_owned()),
    };
    let mut message = |message: &Value| {
        let mut fields = message.as_object().unwrap().clone();
        let role = fields.remove("role").unwrap().as_str().unwrap().to_owned();
        let content = match fields.remove("content") {
            Some(Value::String(text)) => Content::Text(text),
            Some(Value::Array(parts)) => Content::Parts(parts.iter().map(&mut part).collect()),
            _ => Content::Nothing,
        };
        Message { role, content, fields }
    };
    Chat {
        messages: row["messages"].as_array().unwrap().iter().map(&mut message).collect(),
        tools: row["tools"].as_array().cloned().unwrap_or_default(),
        variables: row["variables"].as_object().cloned().unwrap_or_default(),
    }
}

#[test]
fn known_bug_14_chats_render_as_the_reference_renders_them() {
    let (processor, rows) = (shapes(), rows("chats.json"));
    assert!(rows.len() >= 30);
    for row in rows {
        let rendered = processor.render(&chat(&row));
        match row["shapes"].as_str() {
            Some(expected) => assert_eq!(rendered.unwrap(), expected, "{}", row["name"]),
            None => assert_eq!(rendered.unwrap_err().kind(), ErrorKind::InvalidRequest, "{}", row["name"]),
        }
    }
}

#[test]
fn prompts_with_images_have_the_references_ids_and_patches() {
    let (processor, chats) = (shapes(), rows("chats.json"));
    for row in rows("prompt_ids.json") {
        let chat = chat(chats.iter().find(|chat| chat["name"] == row["name"]).unwrap());
        let budget = row["max_soft_tokens"].as_u64().unwrap() as usize;
        let encoded = processor.with_max_soft_tokens(budget).unwrap().encode(&Prompt::Chat(chat)).unwrap();
        let runs = row["runs"].as_array().unwrap().iter().map(usizes);
        let expected: Vec<u32> = runs.flat_map(|run| vec![run[0] as u32; run[1]]).collect();
        assert_eq!(encoded.input_ids, expected, "{}", row["name"]);
        let images = row["images"].as_array().unwrap();
        assert_eq!(encoded.images.len(), images.len());
        for (image, expected) in encoded.images.iter().zip(images) {
            let patches = &image.patches;
            assert_eq!([patches.columns, patches.rows][..], usizes(expected)[..], "{}", row["name"]);
            assert_eq!(hex(&patches.pixels), expected[2].as_str().unwrap(), "{}", row["name"]);
            assert_eq!(image.tokens.len(), patches.columns * patches.rows / 9);
            assert!(image.tokens.clone().all(|i| encoded.input_ids[i] == 2043));
            assert_eq!(encoded.input_ids[image.tokens.start - 1], 2041);
            assert_eq!(encoded.input_ids[image.tokens.end], 2045);
        }
    }
}

#[test]
fn raw_text_starts_with_one_bos() {
    let processor = shapes();
    let encode = |text: &str| processor.encode(&Prompt::Text(text.into())).unwrap().input_ids;
    assert_eq!(encode("Hello")[0], 2);
    assert_eq!(encode("Hello")[1..], tokenizer().encode("Hello").unwrap());
    assert_eq!(encode("<bos>Hello"), encode("Hello"));
    assert_eq!(encode(""), [2]);
}

#[test]
fn a_typed_placeholder_is_an_invalid_request() {
    let processor = shapes();
    let image: Arc<[u8]> = golden("images/0.png").into();
    let chats = [
        Chat::new(vec![Message::text("user", "a <|image|> b")]),
        Chat::new(vec![Message::parts(
            "user",
            vec![Part::Image(image.into()), Part::Text("<|image|>".into())],
        )]),
        Chat::new(vec![Message::text("user", "<|audio|>")]),
        Chat::new(vec![Message::text("user", "<|video|>")]),
    ];
    let prompts = chats.into_iter().map(Prompt::Chat).chain([Prompt::Text("an <|image|>".into())]);
    for prompt in prompts {
        assert_eq!(processor.encode(&prompt).unwrap_err().kind(), ErrorKind::InvalidRequest);
    }
}

/// The bundled checkpoint with another `config.json`.
fn shapes_with(change: impl Fn(&mut Map<String, Value>)) -> ModelSource {
    let mut files = std::collections::BTreeMap::new();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        let mut bytes = std::fs::read(root().join("models/shapes").join(name)).unwrap();
        if name == "config.json" {
            let mut config: Map<String, Value> = serde_json::from_slice(&bytes).unwrap();
            change(&mut config);
            bytes = serde_json::to_vec(&config).unwrap();
        }
        files.insert(name.to_owned(), Arc::new(bytes) as _);
    }
    ModelSource::Memory(files)
}

#[test]
fn image_tokens_that_the_files_disagree_about_are_an_invalid_model() {
    for id in [2042, 99_999] {
        let source = shapes_with(|config| drop(config.insert("image_token_id".into(), id.into())));
        let error = Gemma4Processor::new(&source).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
        assert!(error.message().contains("image_token_id"), "{error}");
    }
    // Without a processor_config.json the reference's defaults hold.
    assert_eq!(Gemma4Processor::new(&shapes_with(|_| {})).unwrap().grid(), grid(280));
}

#[test]
fn a_text_only_checkpoint_refuses_images_and_says_why() {
    let source = shapes_with(|config| drop(config.remove("vision_config")));
    let processor = Gemma4Processor::new(&source).unwrap();
    let hello = Chat::new(vec![Message::text("user", "Hello")]);
    assert!(processor.encode(&Prompt::Chat(hello)).is_ok());
    let image = Part::Image(golden("images/0.png").into());
    let look = Chat::new(vec![Message::parts("user", vec![image, Part::Text("Look".into())])]);
    let error = processor.encode(&Prompt::Chat(look)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.message().contains("vision_config"), "{error}");
}

#[test]
fn patches_are_numbered_row_by_row_and_pooled_in_squares() {
    assert_eq!(patch_positions(3, 2).collect::<Vec<_>>(), [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]);
    let slots: Vec<u32> = pool_slots(4, 4, 2, 10).collect();
    assert_eq!(slots, [10, 10, 11, 11, 10, 10, 11, 11, 12, 12, 13, 13, 12, 12, 13, 13]);
    let slots: Vec<u32> = pool_slots(6, 3, 3, 0).collect();
    assert_eq!(slots, [[0, 0, 0, 1, 1, 1]; 3].concat());
}
