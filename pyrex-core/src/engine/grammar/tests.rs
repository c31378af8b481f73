use super::*;
use crate::engine::sampler::Sampler;
use crate::engine::sampling::SamplingParams;
use crate::error::ErrorKind;
use crate::prompt::detokenizer::Detokenizer;
use serde_json::Value;

const STOP_ID: u32 = 256;
const SPECIAL_ID: u32 = 257;
const NUM_IDS: usize = 264;

/// Every byte, a stop id, a special token, and tokens of several bytes, two of them alike.
fn compiler() -> GrammarCompiler {
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let mut vocabulary = Detokenizer::from_pieces(bytes.collect()).vocabulary();
    vocabulary.extend([None, None]);
    vocabulary
        .extend(["{\"", "\": ", "true", "true", "cir", "é1"].map(|text| Some(Box::from(text.as_bytes()))));
    assert_eq!(vocabulary.len(), NUM_IDS);
    GrammarCompiler::new(&vocabulary, &[STOP_ID]).expect("the vocabulary is usable")
}

fn says(token_id: u32) -> Vec<u8> {
    match token_id {
        0..256 => vec![token_id as u8],
        258.. => ["{\"", "\": ", "true", "true", "cir", "é1"][token_id as usize - 258].into(),
        _ => Vec::new(),
    }
}

fn schema(text: &str) -> Grammar {
    Grammar::JsonSchema(text.to_owned())
}

fn allowed(constraint: &mut dyn TokenConstraint) -> Vec<u32> {
    let mut mask = TokenMask::new(NUM_IDS);
    constraint.allowed(&mut mask).expect("the grammar goes on");
    (0..NUM_IDS as u32).filter(|id| mask.allows(*id)).collect()
}

fn feed(constraint: &mut dyn TokenConstraint, text: &str) {
    text.bytes().for_each(|byte| constraint.accept(byte.into()).expect("the grammar allows it"));
}

/// An answer drawn from noise: only the grammar gives it any form. Most answers end with a token that ends the grammar.
fn babble(compiler: &GrammarCompiler, grammar: &Grammar, seed: u64) -> String {
    let params = SamplingParams { temperature: 5.0, seed: Some(seed), ..SamplingParams::default() };
    let constraint = compiler.compile(grammar).expect("the grammar is right");
    let mut sampler = Sampler::new(&params, &[STOP_ID], [].into(), 0, Some(constraint));
    let mut answer = Vec::new();
    for position in 0..4000 {
        let noise = |id: u64| (id * 7919 + position as u64 * 104_729 + seed * 1_299_709) % 1000;
        let logits: Vec<f32> = (0..NUM_IDS as u64).map(|id| noise(id) as f32 / 100.0).collect();
        let sampled = sampler.sample(&logits, position).expect("a token");
        answer.extend(says(sampled.token_id));
        if sampled.ends {
            return String::from_utf8(answer).expect("an answer is UTF-8");
        }
    }
    panic!("no end after {:?}", String::from_utf8_lossy(&answer));
}

#[test]
fn answers_to_a_schema_are_json_that_fits_it() {
    let compiler = compiler();
    let grammar = schema(
        r##"{"type": "object", "properties": {
            "name": {"type": "string", "maxLength": 12},
            "kind": {"enum": ["circle", "square"]},
            "count": {"type": "integer", "minimum": -5, "maximum": 999},
            "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
            "inner": {"anyOf": [{"$ref": "#/$defs/inner"}, {"type": "null"}]}
        }, "required": ["name", "kind", "count"], "additionalProperties": false,
        "$defs": {"inner": {"type": "object", "properties": {"x": {"type": "number", "minimum": -1, "maximum": 7}}, "required": ["x"],
                            "additionalProperties": false}}}"##,
    );
    let mut whole = 0;
    for seed in 0..150 {
        let text = babble(&compiler, &grammar, seed);
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let object = json.as_object().expect("an object");
        let known = ["name", "kind", "count", "tags", "inner"];
        assert!(object.keys().all(|key| known.contains(&key.as_str())), "{text}");
        assert!(json["name"].as_str().expect("a string").chars().count() <= 12, "{text}");
        assert!(["circle", "square"].contains(&json["kind"].as_str().expect("a string")), "{text}");
        assert!((-5..=999).contains(&json["count"].as_i64().expect("an integer")), "{text}");
        if let Some(tags) = object.get("tags") {
            let tags = tags.as_array().expect("an array");
            assert!(tags.len() <= 3 && tags.iter().all(Value::is_boolean), "{text}");
        }
        if let Some(inner) = object.get("inner") {
            assert!(inner.is_null() || inner["x"].is_number(), "{text}");
            whole += usize::from(inner.is_object());
        }
    }
    assert!(whole > 0, "no answer has the optional parts");
}

#[test]
fn answers_to_a_regular_expression_match_it() {
    let compiler = compiler();
    let grammar = Grammar::Regex(r"(?:[a-f]{2}-){1,3}\d{2,4}é?".to_owned());
    for seed in 0..100 {
        let text = babble(&compiler, &grammar, seed);
        let parts: Vec<&str> = text.strip_suffix('é').unwrap_or(&text).split('-').collect();
        let (last, rest) = parts.split_last().expect("a part");
        assert!((1..=3).contains(&rest.len()), "{text}");
        assert!(rest.iter().all(|part| part.len() == 2 && part.bytes().all(|b| (b'a'..=b'f').contains(&b))));
        assert!(last.len() >= 2 && last.chars().count() <= 4, "{text}");
        assert!(last.chars().all(char::is_numeric), "{text}");
    }
}

#[test]
fn answers_to_a_lark_grammar_match_it() {
    let compiler = compiler();
    let grammar = Grammar::Lark("start: \"(\" start? \")\" | /[xyz]+/".to_owned());
    for seed in 0..100 {
        let text = babble(&compiler, &grammar, seed);
        let depths = text.bytes().scan(0i32, |depth, byte| {
            *depth += i32::from(byte == b'(') - i32::from(byte == b')');
            Some(*depth)
        });
        let depths: Vec<i32> = depths.collect();
        assert!(depths.iter().all(|depth| *depth >= 0) && depths.last() == Some(&0), "{text}");
        assert!(text.bytes().all(|byte| b"()xyz".contains(&byte)), "{text}");
    }
}

#[test]
fn a_grammar_that_may_end_allows_the_stop_id_and_a_complete_one_nothing_else() {
    let compiler = compiler();
    let mut constraint = compiler.compile(&Grammar::Regex("ab?".to_owned())).expect("a grammar");
    assert_eq!(allowed(&mut *constraint), [u32::from(b'a')]);
    feed(&mut *constraint, "a");
    assert!(!constraint.is_complete());
    assert_eq!(allowed(&mut *constraint), [u32::from(b'b'), STOP_ID]);
    feed(&mut *constraint, "b");
    assert!(constraint.is_complete());
    assert_eq!(allowed(&mut *constraint), [STOP_ID]);
    let mut nothing = compiler.compile(&Grammar::Regex(String::new())).expect("a grammar");
    assert_eq!(allowed(&mut *nothing), [STOP_ID]);
}

#[test]
fn tokens_that_say_the_same_are_allowed_alike() {
    let compiler = compiler();
    let mut constraint = compiler.compile(&Grammar::Regex("tru[ex]".to_owned())).expect("a grammar");
    assert_eq!(allowed(&mut *constraint), [u32::from(b't'), 260, 261]);
    let mut fork = constraint.fork();
    constraint.accept(260).expect("allowed");
    fork.accept(261).expect("allowed");
    assert!(constraint.is_complete() && fork.is_complete());
}

#[test]
fn a_character_is_never_cut_off() {
    let compiler = compiler();
    let mut constraint = compiler.compile(&Grammar::Regex("é?".to_owned())).expect("a grammar");
    assert_eq!(allowed(&mut *constraint), [0xc3, STOP_ID]);
    constraint.accept(0xc3).expect("allowed");
    assert_eq!(allowed(&mut *constraint), [0xa9]);
}

#[test]
fn forks_go_their_own_ways() {
    let compiler = compiler();
    let mut first = compiler.compile(&Grammar::Regex("x(ab|cd)+".to_owned())).expect("a grammar");
    feed(&mut *first, "x");
    let mut second = first.fork();
    feed(&mut *first, "a");
    feed(&mut *second, "cdc");
    let third = second.fork();
    assert_eq!(allowed(&mut *first), [u32::from(b'b')]);
    assert_eq!(allowed(&mut *second), [u32::from(b'd')]);
    // What breaks one leaves the others whole.
    assert!(second.accept(u32::from(b'x')).is_err());
    assert!(second.allowed(&mut TokenMask::new(NUM_IDS)).is_err());
    drop(second);
    assert_eq!(allowed(&mut *{ third }), [u32::from(b'd')]);
    feed(&mut *first, "b");
    assert_eq!(allowed(&mut *first), [u32::from(b'a'), u32::from(b'c'), STOP_ID]);
}

#[test]
fn no_grammar_produces_a_special_token() {
    let compiler = compiler();
    for named in ["start: \"a\" | <[257]>", "start: \"a\" | <[0-300]>"] {
        let Ok(mut constraint) = compiler.compile(&Grammar::Lark(named.to_owned())) else { continue };
        assert!(!allowed(&mut *constraint).contains(&SPECIAL_ID), "{named}");
    }
}

#[test]
fn white_space_in_json_comes_to_an_end() {
    let compiler = compiler();
    let mut constraint =
        compiler.compile(&schema(r#"{"type": "array", "items": {"type": "null"}}"#)).unwrap();
    feed(&mut *constraint, "[");
    feed(&mut *constraint, &" ".repeat(32));
    assert_eq!(allowed(&mut *constraint), [u32::from(b']'), u32::from(b'n')]);
    // Whoever sets llguidance's options sets this one too.
    let open = r#"{"type": "array", "items": {"type": "null"}, "x-guidance": {"whitespace_flexible": true}}"#;
    let mut constraint = compiler.compile(&schema(open)).unwrap();
    feed(&mut *constraint, "[");
    feed(&mut *constraint, &" ".repeat(200));
}

fn refused_with(grammar: Grammar, needle: &str) {
    let error = compiler().compile(&grammar).err().unwrap_or_else(|| panic!("{needle} was not refused"));
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    assert!(error.message().contains(needle) && !error.message().contains('\n'), "{error}");
}

#[test]
fn wrong_grammars_are_refused_with_the_reason() {
    refused_with(schema("{"), "json_schema: EOF while parsing");
    refused_with(schema(r#"{"type": "strin"}"#), "json_schema: Invalid type: strin");
    refused_with(schema("false"), "json_schema: Unsatisfiable schema");
    refused_with(schema(r##"{"$ref": "#"}"##), "json_schema: the grammar allows no token here");
    refused_with(Grammar::Regex("[a-z".to_owned()), "regex: ");
    refused_with(Grammar::Regex("(?=a)b".to_owned()), "regex: ");
    refused_with(Grammar::Lark(String::new()), "lark: no start rule found");
    refused_with(Grammar::Lark("start: foo".to_owned()), "unknown name: \"foo\"");
    refused_with(Grammar::Lark("start: a\na: b\nb: a".to_owned()), "the grammar allows no token here");
}

#[test]
fn hostile_grammars_are_refused_in_time() {
    let any_of =
        |i| format!(r#"{{"anyOf": [{{"required": ["a{i}"]}}, {{"properties": {{"b{i}": {{}}}}}}]}}"#);
    let product: Vec<String> = (0..30).map(any_of).collect();
    refused_with(schema(&format!(r#"{{"allOf": [{}]}}"#, product.join(","))), "schema too large");
    refused_with(schema(&r#"{"items":"#.repeat(10_000)), "recursion limit exceeded");
    refused_with(schema(&" ".repeat(MAX_GRAMMAR_BYTES + 1)), "it has 131073 bytes");
    let pattern = "a?".repeat(5000);
    refused_with(schema(&format!(r#"{{"pattern": "{pattern}"}}"#)), "a string in it has 10000 bytes");
    refused_with(Grammar::Regex(pattern.clone()), "it has 10000 bytes");
    refused_with(Grammar::Lark(format!("start: /{pattern}/")), "a line of it has 10009 bytes");
    refused_with(Grammar::Regex("(".repeat(4000)), "regex: ");
    refused_with(Grammar::Lark(format!("start: {}", "(".repeat(8000))), "too deeply nested");
    let double = |i| format!("T{i}: T{0} T{0}\n", i + 1);
    let doubled: String = (0..40).map(double).collect();
    refused_with(Grammar::Lark(format!("start: T0\n{doubled}T40: \"x\"\n")), "too big");
}

#[test]
fn long_chains_of_references_fit_on_the_stack() {
    let compiler = compiler();
    let link = |i| format!(r##""{i:x}":{{"$ref":"#/$defs/{:x}"}}"##, i + 1);
    let links: Vec<String> = (0..4400).map(link).collect();
    let text = format!(r##"{{"$ref":"#/$defs/0","$defs":{{{},"1130":{{"const":1}}}}}}"##, links.join(","));
    let mut constraint = compiler.compile(&schema(&text)).expect("a long schema");
    feed(&mut *constraint, "1");
    let links: String = (0..10_500).map(|i| format!("r{i:x}: r{:x}\n", i + 1)).collect();
    let text = format!("start: r0\n{links}r2904: \"x\"\n");
    assert!(text.len() > MAX_GRAMMAR_BYTES - 4096, "{}", text.len());
    let mut constraint = compiler.compile(&Grammar::Lark(text)).expect("a long grammar");
    feed(&mut *constraint, "x");
}

/// Whether an answer of `a` alone runs into a limit before it ends.
fn runs_into_a_limit(regex: &str) -> bool {
    let mut constraint = compiler().compile(&Grammar::Regex(regex.to_owned())).expect("a grammar");
    for _ in 0..2000 {
        let error = match constraint.allowed(&mut TokenMask::new(NUM_IDS)) {
            Ok(()) => constraint.accept(u32::from(b'a')).err(),
            error => error.err(),
        };
        if let Some(error) = error {
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
            assert!(constraint.accept(u32::from(b'a')).is_err(), "an error is there to stay");
            return true;
        }
    }
    false
}

#[test]
fn a_grammar_that_grows_too_complex_fails_its_request() {
    assert!(runs_into_a_limit("(((a{1,100}){1,100}){1,100}){1,100}"));
    assert!(!runs_into_a_limit("a*"));
}

#[test]
fn a_panic_while_compiling_is_an_error() {
    let error = apart::<()>(|| panic!("a bug")).expect_err("a panic");
    assert_eq!((error.kind(), error.message()), (ErrorKind::Internal, "a panic in a constraint: a bug"));
}

#[test]
fn a_vocabulary_may_be_odd() {
    let long: TokenBytes = Some(vec![b'x'; 5000].into());
    for (vocabulary, stop_ids) in [
        (vec![], vec![]),
        (vec![], vec![3, 900]),
        (vec![long, Some([b'x'].into()), None, Some([].into())], vec![]),
    ] {
        let compiler = GrammarCompiler::new(&vocabulary, &stop_ids).expect("a compiler");
        let Ok(mut constraint) = compiler.compile(&Grammar::Regex("x*".to_owned())) else {
            assert!(vocabulary.is_empty() && stop_ids.is_empty());
            continue;
        };
        let mut mask = TokenMask::new(4);
        constraint.allowed(&mut mask).expect("something is allowed");
        assert_eq!(mask.allows(1), vocabulary.len() > 1);
        assert_eq!(mask.allows(3), stop_ids.contains(&3));
        assert!(!mask.allows(0) && !mask.allows(2));
    }
}
