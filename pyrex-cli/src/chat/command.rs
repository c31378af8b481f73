//! [`Command`]: what a typed line means.

use crate::fail::Failure;

/// What `/help` says.
pub(super) const HELP: &str = "\
/image PATH   a picture for your next message; several are shown in their order
/system TEXT  what the model is told in front of everything; without a text, nothing
/reset        forget the conversation
/save PATH    write the conversation as the body of a request for /v1/chat/completions
/help         this
/quit         leave; so do Ctrl-D, and Ctrl-C twice
Ctrl-C ends an answer that is being written. A line that begins with // is said with one of them.";

/// What a line means.
#[derive(Debug, PartialEq)]
pub(super) enum Command<'a> {
    /// An empty line.
    Nothing,
    /// The user's turn.
    Say(&'a str),
    Image(&'a str),
    System(&'a str),
    Reset,
    Save(&'a str),
    Help,
    Quit,
}

impl<'a> Command<'a> {
    /// # Errors
    /// A usage error for a command that is not there, or without its path.
    pub(super) fn read(line: &'a str) -> Result<Self, Failure> {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return Ok(if line.is_empty() { Self::Nothing } else { Self::Say(line) });
        };
        if command.starts_with('/') {
            return Ok(Self::Say(command));
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match (name, rest) {
            ("image" | "save", "") => Err(Failure::Usage(format!("/{name} needs a path"))),
            ("image", path) => Ok(Self::Image(unquoted(path))),
            ("save", path) => Ok(Self::Save(unquoted(path))),
            ("system", text) => Ok(Self::System(text)),
            ("reset", "") => Ok(Self::Reset),
            ("help", "") => Ok(Self::Help),
            ("quit" | "exit", "") => Ok(Self::Quit),
            ("reset" | "help" | "quit" | "exit", rest) => {
                Err(Failure::Usage(format!("/{name} takes nothing, found {rest:?}")))
            }
            _ => Err(Failure::Usage(format!("there is no /{name}, see /help"))),
        }
    }
}

/// A path as a terminal writes it when a file is dropped on it.
fn unquoted(path: &str) -> &str {
    let inside = |quote| path.strip_prefix(quote).and_then(|path| path.strip_suffix(quote));
    inside('\'').or_else(|| inside('"')).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_or_a_command() {
        for (line, expected) in [
            ("  ", Command::Nothing),
            ("hello /there", Command::Say("hello /there")),
            ("//etc", Command::Say("/etc")),
            ("/image  a b.png ", Command::Image("a b.png")),
            ("/image 'a b.png'", Command::Image("a b.png")),
            ("/system Be brief.", Command::System("Be brief.")),
            ("/system", Command::System("")),
            ("/reset", Command::Reset),
            ("/save \"x.json\"", Command::Save("x.json")),
            ("/help", Command::Help),
            ("/quit", Command::Quit),
        ] {
            assert_eq!(Command::read(line).unwrap(), expected, "{line}");
        }
        for line in ["/image", "/save ", "/nothing", "/reset now", "/"] {
            assert!(matches!(Command::read(line), Err(Failure::Usage(_))), "{line}");
        }
    }
}
