//! [`Lines`]: what is typed, with editing and a history on a terminal, and plainly from a pipe.

use crate::fail::Failure;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::env;
use std::fs;
use std::io::{IsTerminal, stdin};
use std::path::{Path, PathBuf};

const PROMPT: &str = "> ";
/// The longest line of a pipe.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Where lines come from.
pub(super) enum Lines {
    /// A person at a terminal.
    Terminal { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    /// Anything else.
    Pipe,
}

/// The next thing that is typed.
pub(super) enum Line {
    Text(String),
    /// Nothing more will come.
    End,
}

impl Lines {
    /// Standard input. On a terminal what was typed before can be had again, from `history` or the usual place.
    ///
    /// # Errors
    /// If the terminal cannot be had, or the file that was named cannot be read.
    pub(super) fn open(history: Option<&Path>, no_history: bool) -> Result<Self, Failure> {
        if !stdin().is_terminal() {
            return Ok(Self::Pipe);
        }
        let failed = |error: ReadlineError| Failure::Other(format!("cannot use the terminal: {error}"));
        let mut editor = Box::new(DefaultEditor::new().map_err(failed)?);
        let kept = history.map(Path::to_owned).or_else(usual_history).filter(|_| !no_history);
        if let Some(path) = kept.as_deref().filter(|path| path.exists()) {
            let failed = |error| Failure::Other(format!("{}: {error}", path.display()));
            editor.load_history(path).map_err(failed)?;
        }
        Ok(Self::Terminal { editor, history: kept })
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// Waits for the next line.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn next(&mut self) -> Result<Line, Failure> {
        match self {
            Self::Terminal { editor, .. } => typed(editor),
            Self::Pipe => piped(),
        }
    }

    /// Keeps what was typed.
    pub(super) fn close(&mut self) {
        let Self::Terminal { editor, history: Some(path) } = self else { return };
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        let kept = made.map_err(|error| error.to_string());
        let kept = kept.and_then(|()| editor.save_history(path).map_err(|error| error.to_string()));
        if let Err(error) = kept {
            super::note(&format!("the history is not kept: {}: {error}", path.display()));
        }
    }
}

/// Ctrl-C throws away what is typed; a second one, with nothing typed between them, leaves.
fn typed(editor: &mut DefaultEditor) -> Result<Line, Failure> {
    let mut once = false;
    loop {
        match editor.readline(PROMPT) {
            Ok(line) => {
                // A history that is full or refuses a line twice is no reason to stop.
                let _ = editor.add_history_entry(&line);
                return Ok(Line::Text(line));
            }
            Err(ReadlineError::Interrupted) if !once => {
                once = true;
                super::note("Ctrl-C again or Ctrl-D leaves.");
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(Line::End),
            Err(error) => return Err(Failure::Other(format!("cannot read from the terminal: {error}"))),
        }
    }
}

fn piped() -> Result<Line, Failure> {
    use std::io::{BufRead, Read};

    let failed = |what: &dyn std::fmt::Display| Failure::Other(format!("cannot read standard input: {what}"));
    let mut line = String::new();
    let read = stdin().lock().take(MAX_LINE_BYTES).read_line(&mut line).map_err(|error| failed(&error))?;
    match read {
        0 => Ok(Line::End),
        _ if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with('\n') => {
            Err(failed(&format_args!("a line of more than {MAX_LINE_BYTES} bytes")))
        }
        _ => Ok(Line::Text(line)),
    }
}

/// The state folder of the XDG base directories.
fn usual_history() -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(absolute);
    let home = || env::var_os("HOME").map(PathBuf::from).filter(absolute);
    let state = state.or_else(|| home().map(|home| home.join(".local/state")))?;
    Some(state.join("pyrex/chat_history"))
}
