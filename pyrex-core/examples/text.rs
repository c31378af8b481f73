//! Text in, text out: `cargo run --release --example text -- models/shapes "Hello"`.

use pyrex_core::{Chat, Engine, EngineOptions, Event, Message, Request, Result};
use std::env::args;

fn main() -> Result<()> {
    let mut arguments = args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "models/shapes".to_owned());
    let prompt = arguments.next().unwrap_or_else(|| "Hello".to_owned());

    let engine = Engine::open(EngineOptions::new(model.as_str()))?;
    let chat = Chat::new(vec![Message::text("user", prompt)]);
    for event in engine.submit(Request::new(chat))? {
        match event {
            Event::Token { text, .. } => print!("{text}"),
            Event::Finished { usage, .. } => println!("\n({} tokens)", usage.completion_tokens),
            Event::Failed(error) => return Err(error),
            Event::Started { .. } => {}
        }
    }
    Ok(())
}
