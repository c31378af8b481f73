//! `pyrex chat` over a pipe and on a terminal.

mod support;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use support::{Lines, PATIENCE, Running, command, fails, scratch, scratch_name, shapes, signal};

/// A conversation that goes on as long as the test lets it.
fn start(arguments: &[&str]) -> (Running, ChildStdin) {
    let mut child = command(&[&["chat"], arguments].concat());
    let mut child = child.stdin(Stdio::piped()).spawn().expect("the binary runs");
    let stdin = child.stdin.take().expect("a pipe");
    (Running(child), stdin)
}

/// What is said to these lines: the exit code, stdout and stderr.
fn says(arguments: &[&str], lines: &str) -> (Option<i32>, String, String) {
    let (mut running, mut stdin) = start(arguments);
    let stdout = Lines::of(running.0.stdout.take().expect("a pipe"));
    let stderr = Lines::of(running.0.stderr.take().expect("a pipe"));
    stdin.write_all(lines.as_bytes()).expect("the chat reads");
    drop(stdin);
    (running.ended().code(), stdout.rest(), stderr.rest())
}

fn messages(path: &str) -> Vec<Value> {
    let saved = fs::read_to_string(path).expect("the conversation was saved");
    let saved: Value = serde_json::from_str(&saved).expect("one object");
    saved["messages"].as_array().expect("a list").clone()
}

#[test]
fn every_line_of_a_pipe_is_a_turn() {
    let (image, saved) = (shapes("examples/red_circle.png"), scratch_name("every-line.json"));
    let lines =
        format!("/image {image}\nDescribe this image.\n\n/save '{saved}'\n/reset\nHello!\n/quit\nHello!\n");
    let (code, answers, notes) = says(&["--speed"], &lines);
    let expected = "This is a simple image of a solid red circle on a white background.\nHello! How can I help you today?\n";
    assert_eq!((code, answers.as_str()), (Some(0), expected), "{notes}");
    assert!(notes.contains("goes with your next message (1 in all)"), "{notes}");
    assert_eq!(notes.matches(" tokens/s; the first after ").count(), 2, "{notes}");
    let messages = messages(&saved);
    let url = messages[0]["content"][0]["image_url"]["url"].as_str().expect("a picture");
    assert!(url.starts_with("data:image/png;base64,"), "{url}");
    assert_eq!(messages[0]["content"][1]["text"], "Describe this image.");
    assert_eq!(messages[1]["content"], expected.lines().next().expect("a line"));
    assert_eq!(messages.len(), 2);
}

#[test]
fn a_wrong_line_costs_only_itself_and_the_exit_code() {
    let saved = scratch_name("wrong-lines.json");
    let lines = format!("/image /no/such/picture.png\n/sing\n/system Be brief.\nHello!\n/save {saved}\n");
    let (code, answers, notes) = says(&["--system", "Be long."], &lines);
    assert_eq!(code, Some(1), "{notes}");
    assert_eq!(answers.lines().count(), 1, "{answers}");
    assert!(
        notes.contains("error: /no/such/picture.png: ") && notes.contains("error: there is no /sing"),
        "{notes}"
    );
    let messages = messages(&saved);
    assert_eq!((messages.len(), &messages[0]["content"]), (3, &Value::from("Be brief.")), "{messages:?}");
    fails(&["chat", "--model", "/no/such/folder"], 1, "/no/such/folder");
    fails(&["chat", "--history", "h", "--no-history"], 2, "--no-history");
}

/// With this seed the model talks nonsense for more than 800 tokens, which takes a debug build minutes.
const FOREVER: [&str; 6] = ["--temperature", "1000", "--seed", "2", "--max-tokens", "3000"];

#[test]
fn an_interrupt_ends_the_answer_and_not_the_program() {
    let saved = scratch_name("interrupted.json");
    let (mut running, mut stdin) = start(&FOREVER);
    let notes = Lines::of(running.0.stderr.take().expect("a pipe"));
    let mut answer = running.0.stdout.take().expect("a pipe");
    stdin.write_all(b"Who are you?\n").expect("the chat reads");
    let mut begun = [0; 1];
    answer.read_exact(&mut begun).expect("an answer");
    signal(&running.0, "INT");
    stdin.write_all(format!("/save {saved}\n/quit\n").as_bytes()).expect("the chat reads");
    notes.find("(cancelled)");
    notes.find("saved to ");
    assert_eq!(running.ended().code(), Some(0));
    let messages = messages(&saved);
    assert_eq!(messages[0]["content"], "Who are you?");
    assert!(messages[1]["content"].as_str().is_some_and(|text| !text.is_empty()), "what was said is kept");
    let mut rest = String::new();
    answer.read_to_string(&mut rest).expect("UTF-8");
    let obeyed: Vec<char> = rest.chars().filter(|c| c.is_control() && !"\n\t".contains(*c)).collect();
    assert_eq!(obeyed, [], "what moves a terminal's cursor is not written");
}

#[test]
fn an_interrupt_between_answers_ends_what_reads_from_a_pipe() {
    let (mut running, mut stdin) = start(&[]);
    let notes = Lines::of(running.0.stderr.take().expect("a pipe"));
    stdin.write_all(b"/help\n").expect("the chat reads");
    notes.find("/quit");
    signal(&running.0, "INT");
    assert_eq!(running.ended().code(), Some(130));
}

/// A terminal: our end of it, and the other for a program.
fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("a terminal");
    let name = ptsname(&ours, Vec::new()).expect("a name");
    let theirs =
        OpenOptions::new().read(true).write(true).open(name.to_str().expect("UTF-8")).expect("its other end");
    (File::from(ours), theirs)
}

/// What a terminal was told to show, read on a thread so that nobody waits for ever.
struct Screen {
    pieces: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl Screen {
    fn of(mut terminal: File) -> Self {
        let (sender, pieces) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            // Once the other end is closed there is an error and no end.
            while let Ok(len @ 1..) = terminal.read(&mut bytes) {
                if sender.send(bytes[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { pieces, shown: Vec::new() }
    }

    /// Waits until this is shown, after whatever was waited for before.
    fn wait(&mut self, needle: &str) {
        loop {
            let found = self.shown.windows(needle.len()).position(|shown| shown == needle.as_bytes());
            if let Some(at) = found {
                self.shown.drain(..at + needle.len());
                return;
            }
            match self.pieces.recv_timeout(PATIENCE) {
                Ok(piece) => self.shown.extend(piece),
                Err(error) => panic!("no {needle:?} in {:?}: {error}", String::from_utf8_lossy(&self.shown)),
            }
        }
    }
}

/// The editor has the terminal, and waits.
const PROMPT: &str = "> ";

#[test]
fn on_a_terminal_lines_are_edited_and_kept_and_two_interrupts_leave() {
    let state = scratch("chat-state");
    let _ = fs::remove_dir_all(&state);
    let (mut ours, theirs) = terminal();
    let other = || Stdio::from(theirs.try_clone().expect("a descriptor"));
    let mut chat = command(&["chat"]);
    chat.env("XDG_STATE_HOME", &state).env("TERM", "xterm");
    let chat = chat.stdin(other()).stdout(other()).stderr(other()).spawn().expect("the binary runs");
    let mut running = Running(chat);
    drop(theirs);
    let mut screen = Screen::of(ours.try_clone().expect("a descriptor"));
    screen.wait("/help says what else can be typed.");
    screen.wait(PROMPT);
    // A slip of the finger, and backspace.
    ours.write_all(b"Hello?\x7f!\r").expect("it reads");
    screen.wait("How can I help you today?");
    screen.wait(PROMPT);
    ours.write_all(b"\x03").expect("it reads");
    screen.wait("Ctrl-C again or Ctrl-D leaves.");
    screen.wait(PROMPT);
    ours.write_all(b"\x03").expect("it reads");
    assert_eq!(running.ended().code(), Some(0));
    let history = fs::read_to_string(state.join("pyrex/chat_history")).expect("what was typed is kept");
    assert!(history.lines().any(|line| line == "Hello!"), "{history}");
}
