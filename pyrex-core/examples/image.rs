//! An image in, its description out: `cargo run --release --example image -- picture.png models/shapes`.

use pyrex_core::{Chat, Engine, EngineOptions, Error, Message, Part, Request, Result};
use std::env::args;

fn main() -> Result<()> {
    let mut arguments = args().skip(1);
    let image = arguments.next().unwrap_or_else(|| "models/shapes/examples/red_circle.png".to_owned());
    let model = arguments.next().unwrap_or_else(|| "models/shapes".to_owned());

    let image = std::fs::read(&image).map_err(|e| Error::io(format_args!("{image}: {e}")))?;
    let parts = vec![Part::Image(image.into()), Part::Text("Describe this image.".to_owned())];
    let engine = Engine::open(EngineOptions::new(model.as_str()))?;
    let answer = engine.submit(Request::new(Chat::new(vec![Message::parts("user", parts)])))?.wait()?;
    println!("{}", answer.text);
    Ok(())
}
