//! What a hostile file may do to the one who reads it: an error with a kind, and nothing else.

use pyrex_core::error::ErrorKind;
use pyrex_core::prompt::image::{ImageLimits, decode};
use pyrex_core::prompt::template::ChatTemplate;
use pyrex_core::prompt::tokenizer::Tokenizer;
use pyrex_core::prompt::{Chat, Message};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

fn formats() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/prompt/formats");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn refused(bytes: &[u8], what: &str) {
    let error = decode(bytes, &ImageLimits::default()).err().unwrap_or_else(|| panic!("{what} was read"));
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{what}: {error}");
}

/// A generator of numbers below `below`; the same at every run.
fn random(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 33) as usize) % below
}

#[test]
fn files_cut_short_are_invalid_requests() {
    for (name, bytes) in formats() {
        for len in 0..bytes.len() {
            match decode(&bytes[..len], &ImageLimits::default()) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{name} at {len}"),
                // What is missing may be a chunk after the picture, or the later frames of an animation.
                Ok(_) => assert!(!name.starts_with("jpeg") && len > bytes.len() / 4, "{name} at {len}"),
            }
        }
    }
}

#[test]
fn damaged_files_never_panic_and_never_grow() {
    let limits = ImageLimits { max_pixels: 1 << 16, ..ImageLimits::default() };
    let mut state = 9;
    for (name, bytes) in formats() {
        for _ in 0..150 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random(&mut state, 6) {
                let place = random(&mut state, damaged.len());
                damaged[place] = random(&mut state, 256) as u8;
            }
            match decode(&damaged, &limits) {
                Ok(image) => assert!(image.width() * image.height() <= 1 << 16, "{name}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{name}: {error}"),
            }
        }
    }
}

#[test]
fn garbage_is_an_invalid_request() {
    refused(b"", "nothing");
    refused(b"hello", "text");
    refused(&[0; 4096], "zeros");
    let magics: [&[u8]; 5] =
        [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\0\0\0\0WEBPVP8 ", b"GIF89a", b"BM"];
    let mut state = 3;
    for magic in magics {
        for len in [0, 10, 100, 10_000] {
            let mut bytes = magic.to_vec();
            bytes.extend((0..len).map(|_| random(&mut state, 256) as u8));
            refused(&bytes, "noise");
        }
    }
}

#[test]
fn headers_that_claim_too_much_are_refused_before_decoding() {
    let png = |width: u32, height: u32| {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        bytes.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
        bytes.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    };
    refused(&png(u32::MAX, u32::MAX), "a PNG of 2^64 pixels");
    refused(&png(65_535, 65_535), "a PNG of 4 gigapixels");
    refused(&png(0, 5), "an empty PNG");
    let jpeg = b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0";
    refused(jpeg, "a JPEG of 4 gigapixels");
    let mut gif = b"GIF89a\xff\xff\xff\xff\0\0\0".to_vec();
    gif.extend(b",\0\0\0\0\xff\xff\xff\xff\0\x02\0;");
    refused(&gif, "a GIF of 4 gigapixels");
    let mut bmp = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend([i32::MAX.to_le_bytes(), i32::MAX.to_le_bytes()].concat());
    bmp.extend([1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    refused(&bmp, "a BMP of 2^62 pixels");
    let (_, file) = formats().into_iter().find(|(name, _)| name == "png_rgb.png").unwrap();
    let error = decode(&file, &ImageLimits { max_bytes: 100, ..ImageLimits::default() }).unwrap_err();
    assert!(error.message().contains("100"), "{error}");
    let error = decode(&file, &ImageLimits { max_pixels: 100, ..ImageLimits::default() }).unwrap_err();
    assert!(error.message().contains("37×23"), "{error}");
}

/// A scan that changes nothing takes a hundred bytes of the file and a walk over the picture.
#[test]
fn a_jpeg_of_more_scans_than_encoders_write_is_refused() {
    let (_, file) = formats().into_iter().find(|(name, _)| name == "jpeg_grey_progressive.jpg").unwrap();
    let (start, end) = (file.windows(2).rposition(|two| two == [0xff, 0xda]).unwrap(), file.len() - 2);
    let repeated = |times| [&file[..start], &file[start..end].repeat(times), &file[end..]].concat();
    assert!(decode(&repeated(20), &ImageLimits::default()).is_ok());
    let error = decode(&repeated(40), &ImageLimits::default()).unwrap_err();
    assert_eq!(error.message(), "image: more than 32 scans");
}

#[test]
fn damaged_tokenizers_are_invalid_models() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/shapes/tokenizer.json");
    let bytes = std::fs::read(path).unwrap();
    for part in 0..40 {
        let error = Tokenizer::from_bytes(&bytes[..bytes.len() * part / 40]).err().expect("cut short");
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
    }
    let mut state = 5;
    for _ in 0..120 {
        let mut damaged = bytes.clone();
        for _ in 0..4 {
            let place = random(&mut state, damaged.len());
            damaged[place] = b"0129\"{}[],:ax <"[random(&mut state, 15)];
        }
        match Tokenizer::from_bytes(&damaged) {
            Ok(tokenizer) => drop(tokenizer.encode("Describe this image. <bos>\u{1f600}")),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::InvalidModel | ErrorKind::Unsupported), "{error}");
            }
        }
    }
}

/// An id is a number of 32 bits, and one more than the largest of them is none.
#[test]
fn the_largest_id_a_tokenizer_can_claim_lists_no_more_tokens_than_models_have() {
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "added_tokens": [], "decoder": {"type": "ByteFallback"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 7, "c": u32::MAX}, "merges": []},
    });
    let tokenizer = Tokenizer::from_bytes(tokenizer.to_string().as_bytes()).unwrap();
    assert_eq!(tokenizer.detokenizer().vocabulary().len(), 8);
    assert_eq!(tokenizer.detokenizer().push(u32::MAX), "c");
}

fn render(source: &str, message: &str) -> Result<String, pyrex_core::Error> {
    let tokens: Map<String, Value> = Map::from_iter([("bos_token".to_owned(), json!("<bos>"))]);
    ChatTemplate::new(source, tokens)?.render(&Chat::new(vec![Message::text("user", message)]))
}

#[test]
fn templates_that_loop_end_with_an_error() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
    let error = render(endless, "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.message().contains("steps"), "{error}");
    let recursive = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}";
    assert_eq!(render(recursive, "").unwrap_err().kind(), ErrorKind::InvalidRequest);
    let huge = "{{ 'x' * 100000000000 }}";
    assert_eq!(render(huge, "").unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[test]
fn a_template_that_writes_without_end_is_stopped_at_16_mib() {
    let endless = "{% set x = 'x' * 1000000 %}{% for a in range(99999) %}{{ x }}{% endfor %}";
    let error = render(endless, "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.message().contains("more than 16777216 bytes"), "{error}");
}

#[test]
fn templates_that_do_not_parse_are_invalid_models() {
    for source in ["{% if %}", "{{", "{% for %}", "{% endfor %}"] {
        assert_eq!(render(source, "").unwrap_err().kind(), ErrorKind::InvalidModel, "{source}");
    }
}

#[test]
fn templates_refuse_in_their_own_words() {
    let error = render("{{ raise_exception('roles must alternate') }}", "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.message().contains("roles must alternate"), "{error}");
}

#[test]
fn values_print_as_python_prints_them() {
    let cases = [
        ("{{ true }} {{ none }} {{ 1.0 }} {{ 1e22 }} {{ 1e-7 }} {{ 0.1 }}", "True None 1.0 1e+22 1e-07 0.1"),
        ("{{ [1, 'a', none, {'k': false}] }}", "[1, 'a', None, {'k': False}]"),
        ("{{ {'a': [1, 2.5], 'é': '<\"&>'} | tojson }}", "{\"a\": [1, 2.5], \"é\": \"<\\\"&>\"}"),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", "{\"a\":2,\"b\":1}"),
        ("{{ [1, []] | tojson(indent=2) }}", "[\n  1,\n  []\n]"),
        ("{{ messages[0].content.upper().strip() }}|{{ messages[0].get('x', 'no') }}", "HI|no"),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{{ [true] | trim }}|{{ ' \\x1c a ' | trim }}|{{ 'xax' | trim('x') }}", "[True]|a|a"),
        ("{{ bos_token }}{{ missing }}\n", "<bos>"),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source, " hi ").unwrap(), expected, "{source}");
    }
}
