//! A conversation as the body of a request to `/v1/chat/completions`, its pictures as data URLs.

use crate::data_url::data_url;
use pyrex_core::{Chat, Content, Message, Part};
use serde_json::{Value, json};

/// The body: what was said, for a server to go on from.
pub(super) fn body(chat: &Chat) -> String {
    let messages: Vec<Value> = chat.messages.iter().map(message).collect();
    let body = json!({ "messages": messages });
    format!("{body:#}\n")
}

fn message(message: &Message) -> Value {
    let content = match &message.content {
        Content::Nothing => Value::Null,
        Content::Text(text) => json!(text),
        Content::Parts(parts) => parts.iter().map(part).collect(),
    };
    json!({ "role": message.role, "content": content })
}

fn part(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({ "type": "text", "text": text }),
        Part::Image(bytes) => json!({ "type": "image_url", "image_url": { "url": data_url(bytes) } }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_a_request() {
        let turns = vec![
            Message::text("system", "Be brief."),
            Message::parts("user", vec![Part::Image(b"\x89PNG".into()), Part::Text("And this?".to_owned())]),
            Message::text("assistant", "A \"red\" circle.\n"),
        ];
        let body = body(&Chat::new(turns));
        let asked = pyrex_openai::read(body.as_bytes(), &pyrex_core::SamplingParams::default()).unwrap();
        let pyrex_core::Input::Prompt(pyrex_core::Prompt::Chat(read)) = asked.request.input else {
            panic!("no chat")
        };
        assert_eq!(read.images().map(|image| image.to_vec()).collect::<Vec<_>>(), [b"\x89PNG"]);
        let said: Vec<String> =
            read.messages.iter().map(|message| format!("{:?}", message.content)).collect();
        assert!(
            said[0].contains("Be brief.") && said[1].contains("And this?") && said[2].contains("circle"),
            "{said:?}"
        );
    }
}
