//! [`Output`]: from token ids to text and the end of an answer.
//!
//! Text goes through two gates: the detokenizer holds back half a character, and the stop strings hold back whatever
//! may yet turn out to be the beginning of one of them, so that a stop string is found across token borders.

use super::event::FinishReason;
use super::sampling::SamplingParams;
use crate::models::ModelSpec;
use crate::prompt::detokenizer::Detokenizer;

/// The answer of one request as it grows.
#[derive(Debug)]
pub struct Output {
    detokenizer: Detokenizer,
    stop: StopStrings,
    stop_ids: Vec<u32>,
    max_tokens: usize,
    num_tokens: usize,
}

/// What one token added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The text that is now certain.
    pub text: String,
    /// Why the answer ends here, if it does.
    pub finish: Option<FinishReason>,
}

impl Output {
    /// An empty answer that may have up to `max_tokens` tokens.
    pub fn new(
        params: &SamplingParams,
        spec: &ModelSpec,
        detokenizer: Detokenizer,
        max_tokens: usize,
    ) -> Self {
        let stop_ids = if params.ignore_eos { Vec::new() } else { spec.stop_ids.clone() };
        Self { detokenizer, stop: StopStrings::new(params.stop.clone()), stop_ids, max_tokens, num_tokens: 0 }
    }

    /// Takes the next token. A stop token ends the answer and adds no text.
    pub fn push(&mut self, token_id: u32) -> Delta {
        self.num_tokens += 1;
        let is_stop = self.stop_ids.contains(&token_id);
        let mut text = if is_stop { String::new() } else { self.detokenizer.push(token_id) };
        let finish = match (is_stop, self.num_tokens >= self.max_tokens) {
            (true, _) => Some(FinishReason::Stop),
            (false, true) => Some(FinishReason::Length),
            (false, false) => None,
        };
        if finish.is_some() {
            text.push_str(&self.detokenizer.finish());
        }
        let (mut text, stopped) = self.stop.push(&text);
        if stopped {
            return Delta { text, finish: Some(FinishReason::Stop) };
        }
        if finish.is_some() {
            text.push_str(&self.stop.finish());
        }
        Delta { text, finish }
    }

    /// How many tokens were taken.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }
}

/// Finds the first of several strings in a text that comes in pieces.
#[derive(Debug)]
struct StopStrings {
    stop: Vec<String>,
    held: String,
}

impl StopStrings {
    fn new(stop: Vec<String>) -> Self {
        Self { stop, held: String::new() }
    }

    /// Takes the next piece; returns the text that cannot belong to a stop string, and whether one was found behind it.
    fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        // The one that is complete first, so that the answer does not depend on where the pieces were cut.
        let found =
            self.stop.iter().filter_map(|stop| self.held.find(stop).map(|start| (start + stop.len(), start)));
        if let Some((_, start)) = found.min() {
            let text = self.held[..start].to_owned();
            self.held.clear();
            return (text, true);
        }
        let rest = self.held.split_off(self.first_doubt());
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, when no more comes.
    fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the longest suffix begins that is the beginning of a stop string.
    fn first_doubt(&self) -> usize {
        let longest = self.stop.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        let in_doubt = |&start: &usize| {
            self.held.is_char_boundary(start)
                && self.stop.iter().any(|stop| stop.starts_with(&self.held[start..]))
        };
        (from..self.held.len()).find(in_doubt).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stop: &[&str], pieces: &[&str], expected: &[&str], stopped: bool) {
        let mut strings = StopStrings::new(stop.iter().map(|s| s.to_string()).collect());
        let mut found = Vec::new();
        for piece in pieces {
            let (text, hit) = strings.push(piece);
            found.push(text);
            if hit {
                assert!(stopped, "{pieces:?}");
                assert_eq!(found, expected, "{pieces:?}");
                return;
            }
        }
        found.push(strings.finish());
        assert!(!stopped, "{pieces:?}");
        assert_eq!(found, expected, "{pieces:?}");
    }

    #[test]
    fn text_that_may_begin_a_stop_string_is_held_back() {
        check(&["END"], &["a", "bE", "N", "D!"], &["a", "b", "", ""], true);
        check(&["END"], &["a", "bE", "N", "d"], &["a", "b", "", "ENd", ""], false);
        check(&["END"], &["xEN"], &["x", "EN"], false);
        check(&["aab"], &["a", "a", "a", "b"], &["", "", "a", ""], true);
        check(&["\n\n"], &["one\n", "two\n", "\nthree"], &["one", "\ntwo", ""], true);
        check(&[], &["a", "b"], &["a", "b", ""], false);
    }

    #[test]
    fn an_answer_does_not_depend_on_where_its_pieces_were_cut() {
        let text = "aabxabcabab\ncab";
        for stop in [["abc", "b\n"], ["bab", "xabca"], ["aabx", "q"], ["cab", "ab\nca"], ["zz", "b"]] {
            let ends = |cut: usize| {
                let mut strings = StopStrings::new(stop.map(String::from).to_vec());
                let mut answer = String::new();
                for piece in
                    text.as_bytes().chunks(cut).map(|piece| std::str::from_utf8(piece).expect("ASCII"))
                {
                    let (text, hit) = strings.push(piece);
                    answer.push_str(&text);
                    if hit {
                        return (answer, true);
                    }
                }
                answer.push_str(&strings.finish());
                (answer, false)
            };
            (2..=text.len()).for_each(|cut| assert_eq!(ends(cut), ends(1), "{stop:?} in pieces of {cut}"));
        }
    }

    #[test]
    fn the_first_stop_string_to_be_complete_wins() {
        check(&["late", "ea"], &["early and late"], &[""], true);
        check(&["abc", "b"], &["xabc"], &["xa"], true);
        check(&["b", "abc"], &["xabc"], &["xa"], true);
        check(&["é!", "ß"], &["caf", "é", "?", "ß"], &["caf", "", "é?", ""], true);
    }
}
