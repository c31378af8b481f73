//! `pyrex chat`: a conversation on a terminal, or over a pipe with one line for each turn.
//!
//! [`command`] says what a line means, [`lines`] where lines come from, [`turn`] answers one, [`interrupt`] is Ctrl-C, and
//! [`save`] writes the conversation as a request that a server takes.

mod command;
mod interrupt;
mod lines;
mod save;
mod turn;

use crate::fail::Failure;
use crate::options::{ModelArguments, RunArguments, ThreadArguments, read_image};
use crate::sampling::SamplingArguments;
use clap::Args;
use command::Command;
use interrupt::Interrupt;
use lines::{Line, Lines};
use pyrex_core::{Engine, Message, Part, Session};
use std::fs;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};

/// Arguments of `chat`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A system turn in front
    #[arg(long, value_name = "S")]
    system: Option<String>,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    run: RunArguments,
    #[command(flatten)]
    threads: ThreadArguments,
    /// Say after each answer how fast it came
    #[arg(long)]
    speed: bool,
    /// Where what you typed is kept [default: pyrex/chat_history in the folder XDG_STATE_HOME]
    #[arg(long, value_name = "F", conflicts_with = "no_history")]
    history: Option<PathBuf>,
    /// Keep nothing of what you type
    #[arg(long)]
    no_history: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let sampling = arguments.sampling.params()?;
    let engine = Engine::open(arguments.run.engine(arguments.model.source()?, &arguments.threads))?;
    let mut lines = Lines::open(arguments.history.as_deref(), arguments.no_history)?;
    let mut session = engine.session();
    session.sampling = sampling;
    set_system(&mut session, arguments.system.as_deref().unwrap_or_default());
    let interrupt = Interrupt::listen(lines.is_terminal())?;
    if lines.is_terminal() {
        note(&format!("Talking to {}. /help says what else can be typed.", arguments.model.name()));
    }
    let speed = arguments.speed;
    let mut chat = Chat { engine, session, images: Vec::new(), interrupt, speed, is_well: true };
    while let Line::Text(line) = lines.next()? {
        match chat.say(&line) {
            Ok(Then::GoOn) => {}
            Ok(Then::Quit) => break,
            Err(failure) => chat.complain(failure)?,
        }
    }
    lines.close();
    // Whoever pipes lines in reads no screen: the exit code tells them.
    if chat.is_well || lines.is_terminal() { Ok(()) } else { Err(Failure::Findings) }
}

/// A conversation and what goes with its next turn.
struct Chat {
    engine: Engine,
    session: Session,
    images: Vec<Part>,
    interrupt: Interrupt,
    speed: bool,
    is_well: bool,
}

/// Whether the conversation goes on.
enum Then {
    GoOn,
    Quit,
}

impl Chat {
    fn say(&mut self, line: &str) -> Result<Then, Failure> {
        match Command::read(line)? {
            Command::Nothing => {}
            Command::Say(text) => self.ask(text)?,
            Command::Image(path) => self.attach(Path::new(path))?,
            Command::System(text) => set_system(&mut self.session, text),
            Command::Reset => self.reset(),
            Command::Save(path) => self.save(Path::new(path))?,
            Command::Help => note(command::HELP),
            Command::Quit => return Ok(Then::Quit),
        }
        Ok(Then::GoOn)
    }

    fn ask(&mut self, text: &str) -> Result<(), Failure> {
        let message = match self.images.is_empty() {
            true => Message::text("user", text),
            false => {
                let images = self.images.iter().cloned();
                Message::parts("user", images.chain([Part::Text(text.to_owned())]).collect())
            }
        };
        let told = turn::answer(&self.engine, &mut self.session, message, &self.interrupt)?;
        self.images.clear();
        if told.is_cancelled {
            note("(cancelled)");
        }
        if self.speed {
            note(&told.speed());
        }
        Ok(())
    }

    fn attach(&mut self, path: &Path) -> Result<(), Failure> {
        self.images.push(read_image(path)?);
        let count = self.images.len();
        note(&format!("{} goes with your next message ({count} in all)", path.display()));
        Ok(())
    }

    /// Forgets all turns but the system's.
    fn reset(&mut self) {
        self.session.chat.messages.retain(|message| message.role == "system");
        self.images.clear();
    }

    fn save(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error| Failure::Other(format!("{}: {error}", path.display()));
        fs::write(path, save::body(&self.session.chat)).map_err(failed)?;
        note(&format!("saved to {}", path.display()));
        Ok(())
    }

    /// Says what went wrong with one line; the conversation goes on unless nobody reads it any more.
    fn complain(&mut self, failure: Failure) -> Result<(), Failure> {
        self.is_well = false;
        match failure {
            Failure::Usage(message) | Failure::Other(message) => {
                note(&format!("error: {message}"));
                Ok(())
            }
            Failure::BrokenPipe | Failure::Findings => Err(failure),
        }
    }
}

/// The system's turn stands in front of all others; an empty one is none.
fn set_system(session: &mut Session, text: &str) {
    let messages = &mut session.chat.messages;
    messages.retain(|message| message.role != "system");
    if !text.is_empty() {
        messages.insert(0, Message::text("system", text));
    }
}

/// What is not the answer goes to stderr; if nobody is there to read it, nobody misses it.
fn note(text: &str) {
    drop(writeln!(stderr(), "{text}"));
}
