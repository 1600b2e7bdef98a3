//! Text into words, with the line that each stands on.

use crate::Refusal;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// Comments `(* … *)`, which nest, become spaces; lines stay.
///
/// # Errors
/// A comment that nothing ends.
pub fn without_comments(text: &str) -> Result<String, Refusal> {
    let mut out = String::with_capacity(text.len());
    let (mut depth, mut line, mut opened) = (0, 1, 1);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let step = if rest.starts_with("(*") && !rest.starts_with("(*)") {
            if depth == 0 {
                opened = line;
            }
            depth += 1;
            2
        } else if depth > 0 && rest.starts_with("*)") {
            depth -= 1;
            2
        } else {
            if c == '\n' {
                line += 1;
                out.push(c);
            } else if depth == 0 {
                out.push(c);
            }
            c.len_utf8()
        };
        if step == 2 {
            out.push(' ');
        }
        rest = &rest[step..];
    }
    if depth > 0 { Err(Refusal::new(opened, "a comment that nothing ends")) } else { Ok(out) }
}

/// Names and numbers, `/\`, `\/`, `<>`, and every other sign alone. `first` is the number of the first line.
#[must_use]
pub fn tokens(text: &str, first: usize) -> Vec<Token> {
    let mut found = Vec::new();
    let mut line = first;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let n = match c {
            '\n' => {
                line += 1;
                1
            }
            c if c.is_whitespace() => c.len_utf8(),
            c if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            _ if ["/\\", "\\/", "<>", "=>", "!="].iter().any(|sign| rest.starts_with(sign)) => 2,
            c => c.len_utf8(),
        };
        if !c.is_whitespace() {
            found.push(Token { text: rest[..n].to_owned(), line });
        }
        rest = &rest[n..];
    }
    found
}

/// A place in the words.
pub struct Cursor<'a> {
    tokens: &'a [Token],
    at: usize,
    last_line: usize,
}

impl<'a> Cursor<'a> {
    #[must_use]
    pub fn new(tokens: &'a [Token], line: usize) -> Self {
        Self { tokens, at: 0, last_line: tokens.last().map_or(line, |t| t.line) }
    }
    #[must_use]
    pub fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.at).map(|t| t.text.as_str())
    }
    #[must_use]
    pub fn peek_after(&self, n: usize) -> Option<&'a str> {
        self.tokens.get(self.at + n).map(|t| t.text.as_str())
    }
    #[must_use]
    pub fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(self.last_line, |t| t.line)
    }
    pub fn next(&mut self) -> Option<&'a str> {
        let text = self.peek();
        self.at += usize::from(text.is_some());
        text
    }
    pub fn accept(&mut self, what: &str) -> bool {
        let found = self.peek().is_some_and(|t| t.eq_ignore_ascii_case(what));
        self.at += usize::from(found);
        found
    }
    /// # Errors
    /// Something else stands there.
    pub fn expect(&mut self, what: &str) -> Result<(), Refusal> {
        if self.accept(what) { Ok(()) } else { Err(self.refuse(&format!("`{what}` is missing before"))) }
    }
    /// Cannot go on here.
    #[must_use]
    pub fn refuse(&self, why: &str) -> Refusal {
        let here = self.peek().map_or_else(|| "the end".to_owned(), |t| format!("`{t}`"));
        Refusal::new(self.line(), &format!("{why} {here}"))
    }
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.at >= self.tokens.len()
    }
}

/// A number, also in hex and negative (`-` is a word of its own).
pub fn number(cursor: &mut Cursor<'_>) -> Result<u64, Refusal> {
    let negative = cursor.accept("-");
    let text = cursor.peek().unwrap_or_default();
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse::<u64>().ok(),
    };
    let value = value.ok_or_else(|| cursor.refuse("a number was expected, not"))?;
    cursor.next();
    Ok(if negative { value.wrapping_neg() } else { value })
}
