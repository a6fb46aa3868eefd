//! Rust sources as tokens: comments are gone, strings are opaque, macro bodies are seen.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// One token, with groups flattened into their brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Ident(String),
    /// A punctuation character, and whether the next one touches it.
    Punct(char, bool),
    Literal(String),
    Open(char),
    Close(char),
}

/// A source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    tokens: Vec<(Token, usize)>,
    /// Token ranges of `#[cfg(test)] mod name { .. }`, the attribute and the last brace included.
    tests: Vec<(usize, usize)>,
    lines: usize,
}

/// A path that a source names, in a `use` or anywhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    /// The name it gets, when a `use` brings it in.
    pub(crate) imported_as: Option<String>,
    /// Modules opened inside the file around this place.
    pub(crate) inside: Vec<String>,
    pub(crate) line: usize,
    pub(crate) in_test: bool,
}

/// A macro call: its name, the tokens between its brackets.
pub(crate) struct MacroCall<'a> {
    pub(crate) name: &'a str,
    pub(crate) body: &'a [(Token, usize)],
    pub(crate) line: usize,
}

impl Source {
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self, String> {
        let stream: TokenStream = text.parse().map_err(|error| format!("{path}: no Rust: {error}"))?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let tests = test_modules(&tokens);
        Ok(Self { path: path.to_owned(), tokens, tests, lines: text.lines().count() })
    }

    /// The whole file is tests: `foo/tests.rs`, or a file below a folder `tests`.
    pub(crate) fn is_test_file(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Lines of the file outside its test modules.
    pub(crate) fn lines_without_tests(&self) -> usize {
        let line = |index: usize| self.tokens[index].1;
        self.lines - self.tests.iter().map(|&(from, to)| line(to) - line(from) + 1).sum::<usize>()
    }

    /// Test modules: the line where each begins, and how many it has.
    pub(crate) fn test_modules(&self) -> impl Iterator<Item = (usize, usize)> {
        self.tests.iter().map(|&(from, to)| {
            let (first, last) = (self.tokens[from].1, self.tokens[to].1);
            (first, last - first + 1)
        })
    }

    /// Every path with `::` in it, and every leaf of every `use`.
    pub(crate) fn named(&self) -> Vec<Named> {
        let mut scan = Scan { source: self, at: 0, depth: 0, modules: Vec::new(), found: Vec::new() };
        scan.run();
        scan.found
    }

    /// Every `name!(..)`, also with other brackets.
    pub(crate) fn macro_calls(&self) -> impl Iterator<Item = MacroCall<'_>> {
        (2..self.tokens.len()).filter_map(|open| {
            let (Token::Ident(name), line) = &self.tokens[open - 2] else { return None };
            let (Token::Punct('!', _), Token::Open(_)) = (&self.tokens[open - 1].0, &self.tokens[open].0)
            else {
                return None;
            };
            let close = closing(&self.tokens, open);
            Some(MacroCall { name, body: &self.tokens[open + 1..close], line: *line })
        })
    }

    /// Names of functions with an attribute `test`, and of cases of the behaviour suite, which return `Case`.
    pub(crate) fn test_names(&self) -> Vec<&str> {
        let ident = |at: usize| match self.tokens.get(at) {
            Some((Token::Ident(name), _)) => Some(name.as_str()),
            _ => None,
        };
        let behind_attributes = (0..self.tokens.len()).filter_map(|at| {
            let open = attribute_at(&self.tokens, at)?;
            let close = closing(&self.tokens, open);
            let path =
                self.tokens[open + 1..close].iter().take_while(|(token, _)| !matches!(token, Token::Open(_)));
            let is_test = path.last().is_some_and(|(token, _)| *token == Token::Ident("test".to_owned()));
            let function = (close..close + 40).find(|&at| ident(at) == Some("fn"))?;
            is_test.then(|| ident(function + 1)).flatten()
        });
        let cases = (0..self.tokens.len()).filter_map(|at| {
            let case = ident(at) == Some("fn") && (at + 2..at + 7).any(|at| ident(at) == Some("Case"));
            case.then(|| ident(at + 1)).flatten()
        });
        behind_attributes.chain(cases).collect()
    }

    /// Names that stand alone in macro calls of tests: what such a macro makes tests of.
    pub(crate) fn mounted(&self) -> Vec<&str> {
        let calls = self.macro_calls().filter(|_| self.path.starts_with("tests/"));
        let mut names = Vec::new();
        for call in calls {
            let mut depth = 0;
            for (token, _) in call.body {
                match token {
                    Token::Open(_) => depth += 1,
                    Token::Close(_) => depth -= 1,
                    Token::Ident(name) if depth == 0 => names.push(name.as_str()),
                    Token::Ident(_) | Token::Punct(..) | Token::Literal(_) => {}
                }
            }
        }
        names
    }

    /// Every attribute, with the line where it begins: the tokens between its brackets. Doc comments are
    /// attributes too.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (usize, &[(Token, usize)])> {
        (0..self.tokens.len()).filter_map(|at| {
            let open = attribute_at(&self.tokens, at)?;
            Some((self.tokens[at].1, &self.tokens[open + 1..closing(&self.tokens, open)]))
        })
    }

    fn is_test(&self, index: usize) -> bool {
        self.is_test_file() || self.tests.iter().any(|&(from, to)| (from..=to).contains(&index))
    }
}

/// Where `name(` stands in these tokens: what is between the brackets.
pub(crate) fn calls_of<'a>(tokens: &'a [(Token, usize)], name: &str) -> Vec<&'a [(Token, usize)]> {
    (1..tokens.len())
        .filter(|&open| {
            tokens[open].0 == Token::Open('(')
                && matches!(&tokens[open - 1].0, Token::Ident(ident) if ident == name)
        })
        .map(|open| &tokens[open + 1..closing(tokens, open)])
        .collect()
}

/// Whether these tokens have the identifier `name`.
pub(crate) fn has_ident(tokens: &[(Token, usize)], name: &str) -> bool {
    tokens.iter().any(|(token, _)| matches!(token, Token::Ident(ident) if ident == name))
}

fn flatten(stream: TokenStream, out: &mut Vec<(Token, usize)>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Ident(ident) => {
                out.push((Token::Ident(ident.to_string().trim_start_matches("r#").to_owned()), line));
            }
            TokenTree::Punct(punct) => {
                out.push((Token::Punct(punct.as_char(), punct.spacing() == Spacing::Joint), line));
            }
            TokenTree::Literal(literal) => out.push((Token::Literal(literal.to_string()), line)),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ('(', ')'),
                    Delimiter::Brace => ('{', '}'),
                    Delimiter::Bracket => ('[', ']'),
                    Delimiter::None => (' ', ' '),
                };
                out.push((Token::Open(open), line));
                flatten(group.stream(), out);
                out.push((Token::Close(close), group.span_close().start().line));
            }
        }
    }
}

/// The bracket that closes the one at `open`.
fn closing(tokens: &[(Token, usize)], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, (token, _)) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Open(_) => depth += 1,
            Token::Close(_) if depth == 1 => return index,
            Token::Close(_) => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The opening bracket of the attribute that begins at `at`, `#[` or `#![`.
fn attribute_at(tokens: &[(Token, usize)], at: usize) -> Option<usize> {
    let token = |index: usize| tokens.get(index).map(|(token, _)| token);
    let Some(Token::Punct('#', _)) = token(at) else { return None };
    let open = if matches!(token(at + 1), Some(Token::Punct('!', _))) { at + 2 } else { at + 1 };
    (token(open) == Some(&Token::Open('['))).then_some(open)
}

fn is_cfg_test(attribute: &[(Token, usize)]) -> bool {
    matches!(attribute.first(), Some((Token::Ident(name), _)) if name == "cfg")
        && has_ident(attribute, "test")
        && !has_ident(attribute, "not")
        && !has_ident(attribute, "any")
}

fn test_modules(tokens: &[(Token, usize)]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let begin = at;
        let mut is_test = false;
        while let Some(open) = attribute_at(tokens, at) {
            let close = closing(tokens, open);
            is_test |= is_cfg_test(&tokens[open + 1..close]);
            at = close + 1;
        }
        let module = matches!(
            tokens.get(at..at + 3),
            Some([(Token::Ident(keyword), _), (Token::Ident(_), _), (Token::Open('{'), _)]) if keyword == "mod"
        );
        if is_test && module {
            let close = closing(tokens, at + 2);
            found.push((begin, close));
            at = close;
        }
        at = at.max(begin) + 1;
    }
    found
}

/// Keywords that may stand right before a path; `crate`, `self`, `super` and `Self` begin one.
fn is_keyword(ident: &str) -> bool {
    const BEFORE_A_PATH: [&str; 18] = [
        "as", "await", "break", "const", "dyn", "else", "for", "if", "impl", "in", "let", "match", "move",
        "mut", "ref", "return", "where", "while",
    ];
    BEFORE_A_PATH.contains(&ident)
}

struct Scan<'a> {
    source: &'a Source,
    at: usize,
    depth: usize,
    /// Modules that are open here, with the depth outside of each.
    modules: Vec<(String, usize)>,
    found: Vec<Named>,
}

impl Scan<'_> {
    fn run(&mut self) {
        while let Some(token) = self.token(0) {
            match token.clone() {
                Token::Open(_) => {
                    self.depth += 1;
                    self.at += 1;
                }
                Token::Close(_) => {
                    self.depth -= 1;
                    self.modules.retain(|(_, outside)| *outside < self.depth);
                    self.at += 1;
                }
                Token::Ident(ident) => self.ident(&ident),
                Token::Punct(..) if self.colons(0) && !self.continues_a_path() => {
                    self.at += 2;
                    self.plain_path();
                }
                Token::Punct(..) | Token::Literal(_) => self.at += 1,
            }
        }
    }

    fn ident(&mut self, ident: &str) {
        match (ident, self.token(1).cloned(), self.token(2).cloned()) {
            ("use", Some(next), _) if next != Token::Punct('<', false) && next != Token::Punct('<', true) => {
                self.at += 1;
                self.use_tree(&[]);
            }
            ("extern", Some(Token::Ident(keyword)), Some(Token::Ident(name))) if keyword == "crate" => {
                self.at += 2;
                self.push(vec![name.clone()], Some(name));
                self.at += 1;
            }
            ("mod", Some(Token::Ident(name)), Some(Token::Open('{'))) => {
                self.modules.push((name, self.depth));
                self.at += 2;
            }
            _ if is_keyword(ident) => self.at += 1,
            _ => self.plain_path(),
        }
    }

    /// A path outside of `use`; names without `::` are of no interest.
    fn plain_path(&mut self) {
        let mut segments = Vec::new();
        let after_dot = self.at > 0
            && matches!(self.source.tokens[self.at - 1].0, Token::Punct('.', _))
            && !matches!(
                self.at.checked_sub(2).map(|i| &self.source.tokens[i].0),
                Some(Token::Punct('.', _))
            );
        let begin = self.at;
        while let Some(Token::Ident(segment)) = self.token(0).cloned() {
            segments.push(segment);
            self.at += 1;
            if self.colons(0) && matches!(self.token(2), Some(Token::Ident(_))) {
                self.at += 2;
            } else {
                break;
            }
        }
        // `quinn::<T>` and `a::{` do not go on, but they are paths.
        let is_path = segments.len() > 1 || self.colons(0);
        if is_path && !after_dot && !segments.is_empty() {
            let end = std::mem::replace(&mut self.at, begin);
            self.push(segments, None);
            self.at = end;
        }
        if self.colons(0) {
            self.at += 2;
        }
        if self.at == begin {
            self.at += 1;
        }
    }

    fn use_tree(&mut self, prefix: &[String]) {
        let mut segments = prefix.to_vec();
        loop {
            match self.token(0).cloned() {
                Some(Token::Ident(segment)) => {
                    segments.push(segment);
                    self.at += 1;
                }
                Some(Token::Punct('*', _)) => {
                    segments.push("*".to_owned());
                    self.at += 1;
                }
                Some(Token::Open('{')) => {
                    self.at += 1;
                    while !matches!(self.token(0), None | Some(Token::Close(_))) {
                        self.use_tree(&segments);
                        if matches!(self.token(0), Some(Token::Punct(',', _))) {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                _ if self.colons(0) => self.at += 2,
                _ => break,
            }
            if matches!(self.token(0), Some(Token::Ident(keyword)) if keyword == "as") {
                break;
            }
        }
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        let mut name = segments.last().cloned();
        if matches!(self.token(0), Some(Token::Ident(keyword)) if keyword == "as") {
            name = match self.token(1) {
                Some(Token::Ident(alias)) => Some(alias.clone()),
                _ => None,
            };
            self.push(segments, name);
            self.at += 2;
        } else {
            self.at -= 1;
            self.push(segments, name);
            self.at += 1;
        }
    }

    fn push(&mut self, segments: Vec<String>, imported_as: Option<String>) {
        self.found.push(Named {
            segments,
            imported_as,
            inside: self.modules.iter().map(|(name, _)| name.clone()).collect(),
            line: self.source.tokens[self.at].1,
            in_test: self.source.is_test(self.at),
        });
    }

    /// `::` here goes on after `>`, as in `<T as Trait>::Item`, or after a name.
    fn continues_a_path(&self) -> bool {
        let before = |back: usize| self.at.checked_sub(back).map(|index| &self.source.tokens[index].0);
        match before(1) {
            Some(Token::Ident(name)) => !is_keyword(name),
            Some(Token::Close(_)) => true,
            Some(Token::Punct('>', _)) => !matches!(before(2), Some(Token::Punct('-' | '=', true))),
            _ => false,
        }
    }

    fn token(&self, ahead: usize) -> Option<&Token> {
        self.source.tokens.get(self.at + ahead).map(|(token, _)| token)
    }

    fn colons(&self, ahead: usize) -> bool {
        self.token(ahead) == Some(&Token::Punct(':', true))
            && matches!(self.token(ahead + 1), Some(Token::Punct(':', _)))
    }
}
