//! Cuts PTX into words, texts and marks, and skips what stands between braces.

use crate::fault::Fault;

/// A word of PTX: names with all their dots, numbers, and single marks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    /// A name, a directive, an opcode with its modifiers, or a number.
    Word(&'a str),
    /// What stands between quotes.
    Text(&'a str),
    /// Anything else, one at a time.
    Mark(char),
}

/// Where in the text a reader is.
#[derive(Clone, Debug)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Lexer<'a> {
    /// Reads `text` from byte `at`, which stands in line `line`.
    pub(crate) fn new(text: &'a str, at: usize, line: u32) -> Self {
        Self { text, at, line }
    }

    /// The byte before which the reader is.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The line in which the reader is.
    pub(crate) fn line(&self) -> u32 {
        self.line
    }

    /// The next token; none at the end.
    pub(crate) fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blanks();
        let rest = &self.text[self.at..];
        let first = rest.chars().next()?;
        if is_word(first) {
            let len = word_len(rest);
            self.at += len;
            return Some(Token::Word(&rest[..len]));
        }
        if first == '"' {
            let len = rest[1..].find('"').unwrap_or(rest.len() - 1);
            self.at += (len + 2).min(rest.len());
            return Some(Token::Text(&rest[1..1 + len]));
        }
        self.at += first.len_utf8();
        Some(Token::Mark(first))
    }

    /// The next token, left where it is.
    pub(crate) fn peek(&self) -> Option<Token<'a>> {
        self.clone().next()
    }

    /// Takes the next token if it is `mark`.
    pub(crate) fn take(&mut self, mark: char) -> bool {
        let mut ahead = self.clone();
        let taken = ahead.next() == Some(Token::Mark(mark));
        if taken {
            *self = ahead;
        }
        taken
    }

    /// Takes `mark`, which must come next.
    pub(crate) fn expect(&mut self, mark: char) -> Result<(), Fault> {
        match self.take(mark) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("'{mark}'"))),
        }
    }

    /// Takes a word, which must come next.
    pub(crate) fn word(&mut self) -> Result<&'a str, Fault> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.next();
                Ok(word)
            }
            _ => Err(self.unexpected("a word")),
        }
    }

    /// Takes a number that counts something.
    pub(crate) fn count(&mut self) -> Result<u64, Fault> {
        let line = self.line;
        let word = self.word()?;
        integer(word).ok_or_else(|| Fault::at_line(line, format_args!("{word} is no number")))
    }

    /// That something else was expected here.
    pub(crate) fn unexpected(&self, wanted: &str) -> Fault {
        Fault::at_line(self.line, format_args!("found {:?}, expected {wanted}", self.peek()))
    }

    /// Goes on behind the brace that closes the one just taken.
    pub(crate) fn skip_block(&mut self) -> Result<(), Fault> {
        let mut depth = 1;
        while depth > 0 {
            self.skip_to_brace();
            match self.text.as_bytes().get(self.at) {
                Some(b'{') => depth += 1,
                Some(b'}') => depth -= 1,
                _ => return Err(Fault::at_line(self.line, "a brace is not closed")),
            }
            self.at += 1;
        }
        Ok(())
    }

    fn skip_to_brace(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'{' | b'}' => return,
                b'\n' => {
                    self.line += 1;
                    self.at += 1;
                }
                b'"' => {
                    self.next();
                }
                b'/' if matches!(bytes.get(self.at + 1), Some(b'/' | b'*')) => self.skip_blanks(),
                _ => self.at += 1,
            }
        }
    }

    fn skip_blanks(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            let rest = &bytes[self.at..];
            if byte.is_ascii_whitespace() {
                self.line += u32::from(*byte == b'\n');
                self.at += 1;
            } else if rest.starts_with(b"//") || rest.starts_with(b".loc\t") || rest.starts_with(b".loc ") {
                self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            } else if rest.starts_with(b"/*") {
                let len = rest.windows(2).position(|two| two == b"*/").map_or(rest.len(), |at| at + 2);
                self.line += rest[..len].iter().filter(|byte| **byte == b'\n').count() as u32;
                self.at += len;
            } else {
                return;
            }
        }
    }
}

/// How long a word is; `::` within it belongs to it, as in `.shared::cta`. Of directives each is a word: `.reg.b16` is two.
fn word_len(text: &str) -> usize {
    if let Some(rest) = text.strip_prefix('.') {
        return 1 + rest.find(|c| !is_word(c) || c == '.').unwrap_or(rest.len());
    }
    let mut len = 0;
    loop {
        len += text[len..].find(|c| !is_word(c)).unwrap_or(text.len() - len);
        match text[len..].strip_prefix("::") {
            Some(rest) if rest.starts_with(is_word) => len += 2,
            _ => return len,
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

/// A number as C writes it: decimal, `0x`, `0b` or octal, perhaps with a `U` behind it.
pub(crate) fn integer(word: &str) -> Option<u64> {
    let word = word.strip_suffix('U').unwrap_or(word);
    match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => u64::from_str_radix(&word[2..], 16).ok(),
        [b'0', b'b' | b'B', ..] => u64::from_str_radix(&word[2..], 2).ok(),
        [b'0', _, ..] => u64::from_str_radix(&word[1..], 8).ok(),
        _ => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_dots_and_lines_are_counted() {
        let mut lexer =
            Lexer::new("// first\n@!%p1 ld.global.v2.f32 {%f1, _}, [%rd1+-8]; /* \n */ 0x1fU", 0, 1);
        let mut found = Vec::new();
        while let Some(token) = lexer.next() {
            found.push(match token {
                Token::Word(word) | Token::Text(word) => word.to_owned(),
                Token::Mark(mark) => mark.to_string(),
            });
        }
        assert_eq!(found.join(" "), "@ ! %p1 ld.global.v2.f32 { %f1 , _ } , [ %rd1 + - 8 ] ; 0x1fU");
        assert_eq!(lexer.line(), 3);
        assert_eq!(integer("0x1fU"), Some(31));
        assert_eq!(integer("017"), Some(15));
    }

    #[test]
    fn directives_are_words_of_their_own() {
        let mut lexer = Lexer::new(".reg.b16 h,r;", 0, 1);
        assert_eq!((lexer.next(), lexer.next()), (Some(Token::Word(".reg")), Some(Token::Word(".b16"))));
    }

    #[test]
    fn a_block_ends_with_its_own_brace() {
        let mut lexer = Lexer::new("a { b \"}\" // }\n } c } d", 0, 1);
        lexer.skip_block().expect("it is closed");
        assert_eq!(lexer.next(), Some(Token::Word("d")));
        assert!(Lexer::new("{ }", 0, 1).skip_block().is_err());
    }
}
