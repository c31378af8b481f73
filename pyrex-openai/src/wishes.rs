//! [`Wishes`]: what a body asks of the model beside its text, and [`settle`]: whether this model can do it.
//!
//! A body is read without a model. What only a model can say is kept until one is there: whether its template shows tools,
//! whether it reasons, and how its calls are spelled.

use crate::Asked;
use crate::object::{Misfit, Read};
use pyrex_core::{CallRules, Chat, Constraint, Engine, Grammar, Input, Message, Prompt, Reasoning};
use serde_json::Value;

/// What a body asks of the model beside its text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// The names of the tools that the model is shown.
    pub(crate) tools: Vec<String>,
    pub(crate) choice: Choice,
    /// Whether there may be one call at most.
    pub(crate) one_call: bool,
    /// The field that says how hard to think, if there is one and it wants any of it.
    pub(crate) effort: Option<&'static str>,
    /// `thinking_token_budget`
    pub(crate) budget: Option<usize>,
    /// The field that the answer's grammar comes from.
    pub(crate) format: Option<&'static str>,
}

/// Which tools the model calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Those it wants to.
    #[default]
    Auto,
    /// None: it is shown none.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

impl Wishes {
    /// The first field that only [`settle`] can serve.
    pub(crate) fn unsettled(&self) -> Option<&'static str> {
        match self {
            Self { choice: Choice::Required | Choice::Named(_), .. } => Some("tool_choice"),
            Self { one_call: true, tools, .. } if !tools.is_empty() => Some("parallel_tool_calls"),
            Self { budget: Some(_), .. } => Some("thinking_token_budget"),
            Self { effort, .. } => *effort,
        }
    }
}

/// Makes the request such that this model serves what was wished for.
///
/// # Errors
/// `Unsupported` by the name of the field that this model cannot serve, alone or beside another.
pub(crate) fn settle(asked: &mut Asked, engine: &Engine) -> Read<()> {
    let Asked { request, wishes, .. } = asked;
    let Input::Prompt(Prompt::Chat(chat)) = &request.input else { return Ok(()) };
    if !chat.tools.is_empty() && !shows(engine, |plain| plain.tools.clone_from(&chat.tools))? {
        return Err(
            Misfit::unsupported("are not supported: this model's template shows none").within("tools")
        );
    }
    if let Some(grammar) = calls(wishes, engine)? {
        request.constraint = Some(Constraint::Grammar(grammar));
    }
    let thinks = chat.variables.get("enable_thinking") == Some(&Value::Bool(true));
    let has_marks = engine.answer_format().reasoning().is_some();
    if let (Some(field), true) = (wishes.effort, thinks)
        && !(has_marks
            && shows(engine, |plain| {
                drop(plain.variables.insert("enable_thinking".to_owned(), true.into()))
            })?)
    {
        return Err(Misfit::unsupported("is not supported: this model does not reason").within(field));
    }
    if wishes.budget.is_some() && !has_marks {
        let refused = Misfit::unsupported("is not supported: this model does not reason");
        return Err(refused.within("thinking_token_budget"));
    }
    if has_marks && (wishes.budget.is_some() || thinks && request.constraint.is_some()) {
        request.reasoning = Some(Reasoning { max_tokens: wishes.budget });
    }
    Ok(())
}

/// The grammar that a choice of tools needs.
fn calls(wishes: &Wishes, engine: &Engine) -> Read<Option<Grammar>> {
    let Wishes { tools, choice, one_call, format, .. } = wishes;
    if tools.is_empty() {
        return Ok(None);
    }
    if let Some(format) = format {
        let what = "is not supported beside tools, expected a tool_choice of none";
        return Err(Misfit::unsupported(what).within(format));
    }
    let all = tools.iter().map(String::as_str).collect();
    let (field, rules) = match choice {
        Choice::Auto if *one_call => {
            ("parallel_tool_calls", CallRules { names: all, text: true, several: false })
        }
        Choice::Auto | Choice::None => return Ok(None),
        Choice::Required => ("tool_choice", CallRules { names: all, text: false, several: !one_call }),
        Choice::Named(name) => {
            ("tool_choice", CallRules { names: vec![name.as_str()], text: false, several: false })
        }
    };
    let unknown =
        || Misfit::unsupported("is not supported: nobody knows how this model spells a call").within(field);
    engine.answer_format().call_grammar(&rules).map(Grammar::Lark).map(Some).ok_or_else(unknown)
}

/// Whether the template shows a change of a conversation.
fn shows(engine: &Engine, change: impl FnOnce(&mut Chat)) -> Read<bool> {
    let plain = Chat::new(vec![Message::text("user", "Hello.")]);
    let mut changed = plain.clone();
    change(&mut changed);
    Ok(engine.render(&plain)? != engine.render(&changed)?)
}
