//! [`Output`]: from token ids to text and the end of an answer.
//!
//! Text goes through two gates: the detokenizer holds back half a character, and the stop strings hold back whatever
//! may yet turn out to be the beginning of one of them, so that a stop string is found across token borders. Both open at a
//! token that says nothing: it may be a mark, as between reasoning and answer, and what was said before it stays before it.

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
    min_tokens: usize,
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
        let model: &[u32] = if params.ignore_eos { &[] } else { &spec.stop_ids };
        Self {
            detokenizer,
            stop: StopStrings::new(params.stop.clone()),
            stop_ids: model.iter().chain(&params.stop_token_ids).copied().collect(),
            min_tokens: params.min_tokens,
            max_tokens,
            num_tokens: 0,
        }
    }

    /// Takes the next token. A stop token ends the answer and adds no text; the sampler sees to it that none comes early.
    /// A stop string ends it if the first `min_tokens` tokens do not complete it.
    pub fn push(&mut self, token_id: u32) -> Delta {
        let finish = if self.stop_ids.contains(&token_id) { Some(FinishReason::Stop) } else { None };
        self.take(token_id, finish)
    }

    /// Takes a token that ends the answer because nothing may follow: its text counts, unless it is a stop token.
    pub fn push_last(&mut self, token_id: u32) -> Delta {
        self.take(token_id, Some(FinishReason::Stop))
    }

    fn take(&mut self, token_id: u32, finish: Option<FinishReason>) -> Delta {
        self.num_tokens += 1;
        let finish = finish.or((self.num_tokens >= self.max_tokens).then_some(FinishReason::Length));
        let is_stop = self.stop_ids.contains(&token_id);
        let mut text = if is_stop { String::new() } else { self.detokenizer.push(token_id) };
        // Only a token that adds no text can be one that says nothing.
        let opens = finish.is_some() || text.is_empty() && self.detokenizer.is_silent(token_id);
        if opens {
            text.push_str(&self.detokenizer.finish());
        }
        let (mut text, stopped) = match self.num_tokens > self.min_tokens {
            true => self.stop.push(&text),
            false => (self.stop.pass(&text), false),
        };
        if stopped {
            return Delta { text, finish: Some(FinishReason::Stop) };
        }
        if opens {
            text.push_str(&self.stop.finish());
        }
        Delta { text, finish }
    }

    /// Whether the next token is the last, whatever it is.
    pub(crate) fn ends_next(&self) -> bool {
        self.num_tokens + 1 >= self.max_tokens
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
        let before = self.held.len();
        self.held.push_str(piece);
        // The one that is complete first, so that the answer does not depend on where the pieces were cut.
        let found = self.stop.iter().filter_map(|stop| self.find(stop, before));
        if let Some((_, start)) = found.min() {
            let text = self.held[..start].to_owned();
            self.held.clear();
            return (text, true);
        }
        (self.release(), false)
    }

    /// As [`push`](Self::push), but a stop string that this piece completes does not count.
    fn pass(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        self.release()
    }

    /// The end and the start of the first `stop` that ends behind the first `before` bytes.
    fn find(&self, stop: &str, before: usize) -> Option<(usize, usize)> {
        let from = self.held.ceil_char_boundary((before + 1).saturating_sub(stop.len()));
        self.held[from..].find(stop).map(|start| (from + start + stop.len(), from + start))
    }

    /// Lets go of the text that no stop string to come can begin in.
    fn release(&mut self) -> String {
        let rest = self.held.split_off(self.first_doubt());
        std::mem::replace(&mut self.held, rest)
    }

    /// What was held back, when no more comes.
    fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the longest suffix begins that is the beginning of a stop string, but not all of it.
    fn first_doubt(&self) -> usize {
        let longest = self.stop.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        let in_doubt = |&start: &usize| {
            self.held.is_char_boundary(start)
                && self
                    .stop
                    .iter()
                    .any(|stop| stop.len() > self.held.len() - start && stop.starts_with(&self.held[start..]))
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

    fn spec() -> ModelSpec {
        crate::models::ModelSpec {
            family: "none",
            kv: crate::kv::KvLayout { layers: Vec::new() },
            vocab_size: 258,
            max_position_embeddings: 100,
            image_token_id: None,
            stop_ids: vec![256],
            sampling: Default::default(),
            dtype: candle_core::DType::F32,
            device: candle_core::Device::Cpu,
            stage_of: |_| "none",
        }
    }

    /// The text and how many of the tokens, bytes or the stop id 256, were taken.
    fn answer(params: &SamplingParams, ids: &[u32]) -> (String, usize) {
        let pieces = (0..=255u8).map(|byte| char::from(byte).to_string()).collect();
        let mut output = Output::new(params, &spec(), Detokenizer::from_pieces(pieces), 100);
        let mut text = String::new();
        for id in ids {
            let delta = output.push(*id);
            text.push_str(&delta.text);
            if delta.finish.is_some() {
                break;
            }
        }
        (text, output.num_tokens())
    }

    #[test]
    fn a_stop_string_within_the_first_tokens_does_not_count() {
        let ids: Vec<u32> = "abcabcabc".bytes().map(u32::from).chain([256]).collect();
        let said = |stop: &str, min_tokens| {
            let stop = vec![stop.to_string()];
            answer(&SamplingParams { stop, min_tokens, ..SamplingParams::default() }, &ids)
        };
        assert_eq!(said("bc", 0), ("a".to_string(), 3));
        assert_eq!(said("bc", 2), ("a".to_string(), 3));
        assert_eq!(said("bc", 3), ("abca".to_string(), 6));
        assert_eq!(said("bc", 8), ("abcabca".to_string(), 9));
        assert_eq!(said("bc", 9), ("abcabcabc".to_string(), 10));
        assert_eq!(said("cabc", 4), ("ab".to_string(), 6));
    }

    #[test]
    fn a_stop_string_that_was_passed_over_is_not_found_later() {
        let mut strings = StopStrings::new(vec!["b".into(), "abc".into()]);
        assert_eq!(strings.pass("ab"), "");
        assert_eq!(strings.push("x"), ("abx".to_string(), false));
        assert_eq!(strings.pass("ab"), "");
        assert_eq!(strings.push("c"), (String::new(), true));
    }

    #[test]
    fn stop_tokens_of_the_caller_end_an_answer_too() {
        let ids: Vec<u32> = "one two".bytes().map(u32::from).chain([256, 33]).collect();
        let space = u32::from(b' ');
        let params = SamplingParams { stop_token_ids: vec![space], ..SamplingParams::default() };
        assert_eq!(answer(&params, &ids), ("one".to_string(), 4));
        let past = SamplingParams { ignore_eos: true, ..params };
        assert_eq!(answer(&past, &ids), ("one".to_string(), 4));
        assert_eq!(answer(&SamplingParams::default(), &ids), ("one two".to_string(), 8));
    }

    #[test]
    fn text_that_is_held_back_stays_before_a_token_that_says_nothing() {
        let params = SamplingParams { stop: vec!["END".into()], ..SamplingParams::default() };
        let pieces = ["EN", "D", "<0xC3>", "<0xA9>", ""].map(String::from);
        let mut output = Output::new(&params, &spec(), Detokenizer::from_pieces(pieces.into()), 100);
        let texts = [0, 4, 1, 2, 4, 3, 2, 3, 4].map(|token_id| output.push(token_id).text);
        assert_eq!(texts, ["", "EN", "D", "", "\u{fffd}", "\u{fffd}", "\u{fffd}", "\u{fffd}", ""]);
        let mut output = Output::new(
            &params,
            &spec(),
            Detokenizer::from_pieces(["<0xC3>", "<0xA9>", ""].map(String::from).into()),
            100,
        );
        assert_eq!([0, 1, 2].map(|token_id| output.push(token_id).text), ["", "", "é"]);
    }

    #[test]
    fn a_last_token_keeps_its_text_and_lets_go_of_what_was_held() {
        let params = SamplingParams { stop: vec!["}!".into()], ..SamplingParams::default() };
        let pieces: std::sync::Arc<[String]> = ["{", "}"].map(String::from).into();
        let mut output = Output::new(&params, &spec(), Detokenizer::from_pieces(pieces), 100);
        assert_eq!(output.push(0), Delta { text: "{".into(), finish: None });
        assert_eq!(output.push_last(1), Delta { text: "}".into(), finish: Some(FinishReason::Stop) });
    }
}
