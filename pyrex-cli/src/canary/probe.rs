//! [`Probe`]: a question with a known answer. One shows the red circle of the bundled model's examples, the other shows nothing.

use crate::data_url::data_url;
use clap::Args;
use serde_json::{Value, json};

/// The picture that is shown.
const RED_CIRCLE: &[u8] = include_bytes!("../../../models/shapes/examples/red_circle.png");
/// Long enough for a model that likes to talk to come to the words.
const MAX_TOKENS: usize = 64;

/// What is asked.
#[derive(Args)]
pub(crate) struct ProbeArguments {
    /// What the model is called; servers of one model need no name
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// What is asked about the picture of a red circle
    #[arg(long, value_name = "P", default_value = "Describe this image.")]
    image_prompt: String,
    /// What the answer must say, in upper or lower case; may be given several times
    #[arg(long, value_name = "WORDS", default_value = "red circle")]
    image_expect: Vec<String>,
    /// Show no picture
    #[arg(long, conflicts_with_all = ["image_prompt", "image_expect"])]
    text_only: bool,
    /// What is asked without a picture
    #[arg(long, value_name = "P", default_value = "What is the capital of France?")]
    text_prompt: String,
    /// What the answer must say, in upper or lower case; may be given several times
    #[arg(long, value_name = "WORDS", default_value = "Paris")]
    text_expect: Vec<String>,
}

/// A question with a known answer.
pub(super) struct Probe {
    pub(super) name: &'static str,
    /// The body of the request.
    pub(super) body: String,
    /// What the answer must say.
    pub(super) expected: Vec<String>,
}

impl ProbeArguments {
    /// What each round asks.
    pub(super) fn probes(&self) -> Vec<Probe> {
        let text = Probe {
            name: "text",
            body: self.body(&json!(self.text_prompt)),
            expected: self.text_expect.clone(),
        };
        if self.text_only {
            return vec![text];
        }
        let content = json!([
            { "type": "image_url", "image_url": { "url": data_url(RED_CIRCLE) } },
            { "type": "text", "text": self.image_prompt },
        ]);
        vec![Probe { name: "image", body: self.body(&content), expected: self.image_expect.clone() }, text]
    }

    fn body(&self, content: &Value) -> String {
        let mut body = json!({
            "messages": [{ "role": "user", "content": content }],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        });
        if let Some(name) = &self.model_name {
            body["model"] = json!(name);
        }
        body.to_string()
    }
}

impl Probe {
    /// What is wrong with an answer.
    pub(super) fn judge(&self, answer: &str) -> Option<String> {
        let said = answer.to_lowercase();
        let missing = self.expected.iter().find(|words| !said.contains(&words.to_lowercase()))?;
        Some(format!("the answer does not say {missing:?}"))
    }
}
