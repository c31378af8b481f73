use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const OPEN_CHANNEL: u32 = 1;
const CLOSE_CHANNEL: u32 = 2;
const OPEN_CALL: u32 = 3;
const CLOSE_CALL: u32 = 4;
const QUOTE: u32 = 5;
const TURN: u32 = 6;
const WORD: u32 = 9;

fn format() -> Gemma4Answers {
    Gemma4Answers {
        channel: Some([OPEN_CHANNEL, CLOSE_CHANNEL]),
        call: Some([OPEN_CALL, CLOSE_CALL]),
        quote: Some(QUOTE),
        turn: Some([TURN, TURN + 1]),
    }
}

/// The events of an answer in the spelling of templates, each word of at most `len` characters.
fn events(answer: &str, len: usize) -> Vec<(u32, String)> {
    let marks = [
        ("<|channel>", OPEN_CHANNEL),
        ("<channel|>", CLOSE_CHANNEL),
        ("<|tool_call>", OPEN_CALL),
        ("<tool_call|>", CLOSE_CALL),
        ("<|\"|>", QUOTE),
    ];
    let (mut events, mut rest) = (Vec::new(), answer);
    while !rest.is_empty() {
        if let Some((mark, id)) = marks.iter().find(|(mark, _)| rest.starts_with(mark)) {
            events.push((*id, String::new()));
            rest = &rest[mark.len()..];
            continue;
        }
        let next_mark = marks.iter().filter_map(|(mark, _)| rest.find(mark)).min().unwrap_or(rest.len());
        let end = rest.char_indices().nth(len).map_or(rest.len(), |(at, _)| at).min(next_mark);
        events.push((WORD, rest[..end].to_owned()));
        rest = &rest[end..];
    }
    events
}

/// What an answer is read as, pieces of one kind that follow each other put together.
fn pieces(prompt: &[u32], events: &[(u32, String)]) -> Vec<AnswerPiece> {
    let mut parser = format().parser(prompt);
    let mut pieces: Vec<AnswerPiece> = Vec::new();
    let mut tell = |piece: AnswerPiece| match (pieces.last_mut(), piece) {
        (Some(AnswerPiece::Text(last)), AnswerPiece::Text(more)) => last.push_str(&more),
        (Some(AnswerPiece::Reasoning(last)), AnswerPiece::Reasoning(more)) => last.push_str(&more),
        (Some(AnswerPiece::Arguments(last)), AnswerPiece::Arguments(more)) => last.push_str(&more),
        (_, piece) => pieces.push(piece),
    };
    for (token_id, text) in events {
        parser.push(*token_id, text.clone(), &mut tell);
    }
    parser.finish(&mut tell);
    pieces
}

#[track_caller]
fn check(answer: &str, expected: &[AnswerPiece]) {
    for len in [1, 2, 3, 1000] {
        assert_eq!(pieces(&[], &events(answer, len)), expected, "words of {len}");
    }
}

fn text(text: &str) -> AnswerPiece {
    AnswerPiece::Text(text.to_owned())
}

fn reasoning(text: &str) -> AnswerPiece {
    AnswerPiece::Reasoning(text.to_owned())
}

fn call(name: &str) -> AnswerPiece {
    AnswerPiece::Call(name.to_owned())
}

fn arguments(json: &str) -> AnswerPiece {
    AnswerPiece::Arguments(json.to_owned())
}

#[test]
fn reasoning_stands_in_its_channel() {
    check("Hello.", &[text("Hello.")]);
    check("<|channel>thought\nHm.\n\nSo.\n<channel|>Hello.\n", &[reasoning("Hm.\n\nSo."), text("Hello.\n")]);
    check("<|channel>thought\n<channel|>Hello.", &[text("Hello.")]);
    check("<|channel>thought<channel|>Hello.", &[text("Hello.")]);
    check("<|channel>thoughts\n<channel|>", &[reasoning("thoughts")]);
    check("<|channel>though<channel|>a<channel|>b", &[reasoning("though"), text("ab")]);
    check("<|channel>analysis\nHm.<channel|>", &[reasoning("analysis\nHm.")]);
    check("<|channel>thought\nHm.\n", &[reasoning("Hm.\n")]);
    check("a<|channel>thought\nb<|channel>c\n<channel|>", &[text("a"), reasoning("bc")]);
}

#[test]
fn a_prompt_may_have_begun_the_reasoning() {
    let answer = events("Hm.\n<channel|>Hello.", 2);
    let prompt = [TURN, WORD, OPEN_CHANNEL, WORD];
    assert_eq!(pieces(&prompt, &answer), [reasoning("Hm."), text("Hello.")]);
    let said = [text("Hm.\nHello.")];
    assert_eq!(pieces(&[OPEN_CHANNEL, WORD, CLOSE_CHANNEL, WORD], &answer), said);
    assert_eq!(pieces(&[OPEN_CHANNEL, WORD, TURN, WORD], &answer), said);
    assert!(format().parser(&prompt).is_reasoning() && !format().parser(&[]).is_reasoning());
}

#[test]
fn a_call_becomes_a_name_and_json() {
    let expected = r#"{"city":"Os\"lo\n","days":2,"deep":{"a-b":[1.5,true,null,[],{}]},"ok":false}"#;
    let answer = "<|tool_call>call:get_weather{city:<|\"|>Os\"lo\n<|\"|>,days:2,\
        deep:{a-b:[1.5,true,null,[],{}]},ok:false}<tool_call|>";
    check(answer, &[call("get_weather"), arguments(expected)]);
    check("<|tool_call>call:now{}<tool_call|>", &[call("now"), arguments("{}")]);
    let two = "Let me see.<|tool_call>call:a{x:<|\"|><|\"|>}<tool_call|><|tool_call>call:b{}<tool_call|>";
    let pieces = [text("Let me see."), call("a"), arguments(r#"{"x":""}"#), call("b"), arguments("{}")];
    check(two, &pieces);
    let thought = "<|channel>thought\nHm.\n<|tool_call>call:a{}<tool_call|>";
    check(thought, &[reasoning("Hm."), call("a"), arguments("{}")]);
}

#[test]
fn arguments_stay_json_whatever_the_model_says() {
    let called = |said: &str, json: &str| {
        check(&format!("<|tool_call>call:a{{{said}<tool_call|>"), &[call("a"), arguments(json)]);
    };
    called("x:1", r#"{"x":1}"#);
    called("x:[1,{y:<|\"|>b", r#"{"x":[1,{"y":"b"}]}"#);
    called(" x : 1 , y : [ 2 , ] , }", r#"{"x":1,"y":[2]}"#);
    called("x:Oslo,y:1e999,z:-0.5e3}", r#"{"x":"Oslo","y":"1e999","z":-0.5e3}"#);
    called("x,y:,z}", r#"{"x":null,"y":null,"z":null}"#);
    called("x:[1}]", r#"{"x":[1]}"#);
    called("<|\"|>a b<|\"|>:<|\"|>c<|\"|>}", r#"{"a b":"c"}"#);
    called("x:[<|\"|>a<|\"|><|\"|>b<|\"|>]}", r#"{"x":["a","b"]}"#);
    called(":1}", r#"{"":1}"#);
    called("x:\"a\"}", r#"{"x":"\"a\""}"#);
    called(",,x:1,,}", r#"{"x":1}"#);
}

#[test]
fn what_is_no_call_is_text() {
    check("<|tool_call>I call.<tool_call|>", &[text("I call.")]);
    check("<|tool_call>call:<tool_call|>", &[text("call:")]);
    check("<|tool_call>call:a b{}<tool_call|>", &[text("call:a b{}")]);
    check("<|tool_call>call:{x:1}<tool_call|>", &[text("call:{x:1}")]);
    check("<|tool_call>call:a", &[text("call:a")]);
    check("<|tool_call>call:a{} and so<tool_call|>", &[call("a"), arguments("{}"), text("and so")]);
    check("a<tool_call|><channel|><|\"|>b", &[text("ab")]);
    let long = format!("call:{}", "a".repeat(300));
    check(&format!("<|tool_call>{long}"), &[text(&long)]);
}

#[test]
fn a_call_that_is_cut_off_has_what_was_said() {
    let cut = |said: &str, json: &str| {
        check(&format!("<|tool_call>call:a{{{said}"), &[call("a"), arguments(json)]);
    };
    cut("", "{");
    cut("x", r#"{"x"#);
    cut("x:<|\"|>Os", r#"{"x":"Os"#);
    cut("x:[1,12", r#"{"x":[1,12"#);
}

/// Arguments in the spelling of the template: rule 9 of the specification.
fn render(value: &Value) -> String {
    match value {
        Value::String(text) => format!("<|\"|>{text}<|\"|>"),
        Value::Array(items) => format!("[{}]", items.iter().map(render).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| format!("{key}:{}", render(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e6..1e6).prop_map(|number: f64| json!(number)),
        "[^<>]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec(("[A-Za-z_][A-Za-z0-9_.-]{0,8}", inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn words() -> impl Strategy<Value = (u32, String)> {
    let words = ["call:", "a", "{", "}", "[", "]", ",", ":", "1", "tr", "ue", " ", "\n", "\"", "\\", "é", "thought", "x:1"];
    prop_oneof![
        (1u32..10).prop_map(|id| (id, String::new())),
        prop::sample::select(words.to_vec()).prop_map(|word| (WORD, word.to_owned())),
        (1u32..10, "[a-z{}:,]{0,3}"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_template_writes_is_read_back(
        fields in prop::collection::vec(("[A-Za-z_][A-Za-z0-9_.-]{0,8}", values()), 0..5),
        len in 1usize..9,
    ) {
        let given = Value::Object(fields.into_iter().collect());
        let answer = format!("<|tool_call>call:f{}<tool_call|>", render(&given));
        // A float that is spelled and read may change its last bit.
        let given: Value = serde_json::from_str(&given.to_string()).unwrap();
        let read = pieces(&[], &events(&answer, len));
        let [AnswerPiece::Call(name), AnswerPiece::Arguments(json)] = read.as_slice() else {
            panic!("{read:?}");
        };
        prop_assert_eq!(name, "f");
        prop_assert_eq!(serde_json::from_str::<Value>(json).unwrap(), given);
    }

    #[test]
    fn any_tokens_are_read(events in prop::collection::vec(words(), 0..60)) {
        let read = pieces(&[], &events);
        let said: usize = events.iter().map(|(_, text)| text.chars().filter(|c| c.is_alphanumeric()).count()).sum();
        let told = |piece: &AnswerPiece| match piece {
            AnswerPiece::Text(text) | AnswerPiece::Reasoning(text) | AnswerPiece::Arguments(text) => text.clone(),
            AnswerPiece::Call(name) => format!("call{name}"),
        };
        let told: usize = read.iter().map(|piece| told(piece).chars().filter(|c| c.is_alphanumeric()).count()).sum();
        // Headers of channels are not told, and what was left out may become a null.
        let headers = 7 * events.iter().filter(|(id, _)| *id == OPEN_CHANNEL).count();
        prop_assert!(told + headers >= said, "{:?}", read);
    }

    #[test]
    fn a_call_with_its_end_mark_has_json(events in prop::collection::vec(words(), 0..40)) {
        let mut answer = vec![(OPEN_CALL, String::new()), (WORD, "call:a{".to_owned())];
        answer.extend(events.into_iter().filter(|(id, _)| *id != OPEN_CHANNEL && *id != OPEN_CALL));
        answer.push((CLOSE_CALL, String::new()));
        let read = pieces(&[], &answer);
        let json: String = read.iter().filter_map(|piece| match piece {
            AnswerPiece::Arguments(json) => Some(json.as_str()),
            _ => None,
        }).collect();
        prop_assert!(serde_json::from_str::<Value>(&json).is_ok_and(|value| value.is_object()), "{:?}", read);
    }
}
