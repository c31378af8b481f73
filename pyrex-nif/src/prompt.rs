//! A prompt: `{:chat, messages, tools, variables}`, `{:text, text}` or `{:ids, ids}`.

use crate::bytes::KeptBinary;
use crate::terms::{Json, bad_value, object};
use pyrex_core::{Chat, Content, EncodedPrompt, Input, Message, Part, Prompt};
use rustler::{Binary, Decoder, NifResult, Term};

/// What is asked, decoded.
pub(crate) struct Asked(pub(crate) Input);

impl<'a> Decoder<'a> for Asked {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if let Ok((_, messages, tools, variables)) =
            term.decode::<(Term<'a>, Vec<Term<'a>>, Vec<Json>, Term<'a>)>()
        {
            let messages = messages.into_iter().map(message).collect::<NifResult<_>>()?;
            let tools = tools.into_iter().map(|Json(tool)| tool).collect();
            return Ok(Self(Chat { messages, tools, variables: object(variables)? }.into()));
        }
        let (kind, said) = term.decode::<(Term<'a>, Term<'a>)>()?;
        match kind.atom_to_string()?.as_str() {
            "text" => Ok(Self(Prompt::Text(said.decode()?).into())),
            "ids" => Ok(Self(EncodedPrompt { input_ids: said.decode()?, images: Vec::new() }.into())),
            _ => Err(bad_value("prompt")),
        }
    }
}

fn message(term: Term<'_>) -> NifResult<Message> {
    let (role, said, fields) = term.decode::<(String, Term<'_>, Term<'_>)>()?;
    Ok(Message { role, content: content(said)?, fields: object(fields)? })
}

fn content(term: Term<'_>) -> NifResult<Content> {
    if term.is_atom() {
        Ok(Content::Nothing)
    } else if term.is_binary() {
        term.decode().map(Content::Text)
    } else {
        term.decode::<Vec<Term<'_>>>()?.into_iter().map(part).collect::<NifResult<_>>().map(Content::Parts)
    }
}

fn part(term: Term<'_>) -> NifResult<Part> {
    let (kind, said) = term.decode::<(Term<'_>, Term<'_>)>()?;
    match kind.atom_to_string()?.as_str() {
        "text" => said.decode().map(Part::Text),
        "image" => Ok(Part::Image(KeptBinary::new(term.get_env(), said.decode::<Binary<'_>>()?).into())),
        _ => Err(bad_value("part")),
    }
}
