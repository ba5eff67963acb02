//! Cuts a source into tokens. Never fails: what is no word becomes a broken token and a diagnostic.

use crate::problem::{Diagnostic, Problem};
use crate::span::{Position, Span};
use crate::token::{Keyword, Symbol, Token, TokenKind};

/// The tokens of a source, comments included, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lexed {
    /// Tokens; what lies between them is blank.
    pub tokens: Vec<Token>,
    /// One for each broken token.
    pub diagnostics: Vec<Diagnostic>,
}

/// Cuts a source into tokens.
///
/// ```
/// let source = "SELECT `a b` -- why\nFROM info()";
/// let lexed = nublar_vql::lex(source);
/// let words: Vec<&str> = lexed.tokens.iter().map(|token| token.text(source)).collect();
/// assert_eq!(words, ["SELECT", "`a b`", "-- why", "FROM", "info", "(", ")"]);
/// assert_eq!((lexed.tokens[3].at.line, lexed.tokens[3].at.column), (2, 1));
/// ```
#[must_use]
pub fn lex(source: &str) -> Lexed {
    let mut lexed = Lexed {
        tokens: Vec::with_capacity(source.len() / 5),
        diagnostics: Vec::new(),
    };
    let bytes = source.as_bytes();
    let mut offset = 0;
    let mut at = Position::START;
    let mut counted = 0;
    loop {
        while bytes.get(offset).copied().is_some_and(is_blank) {
            offset += 1;
        }
        at = at.after(Span::new(counted, offset).text(source));
        counted = offset;
        if offset >= bytes.len() {
            return lexed;
        }
        let (kind, length, problem) = word(source, bytes.get(offset..).unwrap_or_default(), offset);
        let span = Span::new(offset, offset + length.max(1));
        lexed.tokens.push(Token { kind, span, at });
        if let Some(problem) = problem {
            lexed.diagnostics.push(Diagnostic { span, at, problem });
        }
        offset = span.end;
    }
}

type Word = (TokenKind, usize, Option<Problem>);

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0C)
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_name_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn count(bytes: &[u8], accept: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| accept(**byte)).count()
}

/// The token at the start of `rest`, which is not empty and does not start with a blank.
fn word(source: &str, rest: &[u8], offset: usize) -> Word {
    let first = rest.first().copied().unwrap_or_default();
    let second = rest.get(1).copied().unwrap_or_default();
    match (first, second) {
        (b'/', b'*') => match find(rest.get(2..).unwrap_or_default(), b"*/") {
            Some(inner) => (TokenKind::Comment, inner + 4, None),
            None => (TokenKind::Broken, rest.len(), Some(Problem::OpenComment)),
        },
        (b'-', b'-') | (b'/', b'/') => {
            (TokenKind::Comment, count(rest, |byte| byte != b'\n'), None)
        }
        (b'-', next) if is_name_start(next) => (
            TokenKind::SignedName,
            1 + count(rest.get(1..).unwrap_or_default(), is_name_part),
            None,
        ),
        (b'-', b'`') => {
            let (kind, length, problem) = quoted_name(rest.get(1..).unwrap_or_default());
            let signed = kind == TokenKind::QuotedName;
            (
                if signed { TokenKind::SignedName } else { kind },
                length + 1,
                problem,
            )
        }
        (b'\'' | b'"', _) => text(rest, first),
        (b'`', _) => quoted_name(rest),
        _ if is_name_start(first) => name(rest, source, offset),
        _ => {
            if let Some(length) = number(rest) {
                return (TokenKind::Number, length, None);
            }
            if let Some((symbol, length)) = symbol(rest, first, second) {
                return (TokenKind::Symbol(symbol), length, None);
            }
            let character = source
                .get(offset..)
                .and_then(|text| text.chars().next())
                .unwrap_or(' ');
            let problem = if character == ';' {
                Problem::Semicolon
            } else {
                Problem::Character(character)
            };
            (TokenKind::Broken, character.len_utf8(), Some(problem))
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn text(rest: &[u8], quote: u8) -> Word {
    if rest.starts_with(b"'''") {
        return match find(rest.get(3..).unwrap_or_default(), b"'''") {
            Some(inner) => (TokenKind::Text, inner + 6, None),
            None => (
                TokenKind::Broken,
                rest.len(),
                Some(Problem::OpenText("'''")),
            ),
        };
    }
    let mut length = 1;
    while let Some(byte) = rest.get(length).copied() {
        match byte {
            b'\\' => length += 2,
            _ if byte == quote => return (TokenKind::Text, length + 1, None),
            _ => length += 1,
        }
    }
    let quote = if quote == b'"' { "\"" } else { "'" };
    (
        TokenKind::Broken,
        rest.len(),
        Some(Problem::OpenText(quote)),
    )
}

fn quoted_name(rest: &[u8]) -> Word {
    match rest.iter().skip(1).position(|byte| *byte == b'`') {
        None => (TokenKind::Broken, rest.len(), Some(Problem::OpenName)),
        Some(0) => (TokenKind::Broken, 2, Some(Problem::EmptyName)),
        Some(inner) => (TokenKind::QuotedName, inner + 2, None),
    }
}

fn name(rest: &[u8], source: &str, offset: usize) -> Word {
    let length = count(rest, is_name_part);
    let word = Span::new(offset, offset + length).text(source);
    for (first, keyword) in [("GROUP", Keyword::GroupBy), ("ORDER", Keyword::OrderBy)] {
        if word.eq_ignore_ascii_case(first)
            && let Some(more) = by(rest.get(length..).unwrap_or_default())
        {
            return (TokenKind::Keyword(keyword), length + more, None);
        }
    }
    match Keyword::of(word) {
        Some(keyword) => (TokenKind::Keyword(keyword), length, None),
        None => (TokenKind::Name, length, None),
    }
}

/// The length of blanks and the word BY, if these follow.
fn by(rest: &[u8]) -> Option<usize> {
    let blank = count(rest, is_blank);
    let rest = rest.get(blank..)?;
    let word = rest.get(..count(rest, is_name_part))?;
    (blank > 0 && word.eq_ignore_ascii_case(b"BY")).then_some(blank + 2)
}

/// The length of a number: a sign, then `0x` and hex digits, or digits with a point that digits
/// follow and an exponent.
fn number(rest: &[u8]) -> Option<usize> {
    let sign = usize::from(rest.first() == Some(&b'-'));
    let digits = |from: usize| count(rest.get(from..).unwrap_or_default(), |b| b.is_ascii_digit());
    if rest.get(sign..)?.starts_with(b"0x") {
        let hex = count(rest.get(sign + 2..)?, |byte| byte.is_ascii_hexdigit());
        if hex > 0 {
            return Some(sign + 2 + hex);
        }
    }
    let mut length = sign + digits(sign);
    if rest.get(length) == Some(&b'.') && digits(length + 1) > 0 {
        length += 1 + digits(length + 1);
    } else if length == sign {
        return None;
    }
    if matches!(rest.get(length), Some(b'e' | b'E')) {
        let signed = usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + signed);
        if exponent > 0 {
            length += 1 + signed + exponent;
        }
    }
    Some(length)
}

fn symbol(rest: &[u8], first: u8, second: u8) -> Option<(Symbol, usize)> {
    let symbol = match (first, second) {
        (b'<', b'>') => (Symbol::AngleNotEqual, 2),
        (b'!', b'=') => (Symbol::NotEqual, 2),
        (b'<', b'=') => (Symbol::LessEqual, 2),
        (b'>', b'=') => (Symbol::GreaterEqual, 2),
        (b'=', b'>') => (Symbol::Arrow, 2),
        (b'=', b'~') => (Symbol::Match, 2),
        (b'&', b'&') => (Symbol::AndThen, 2),
        (b'|', _) => match count(rest, |byte| byte == b'|') {
            2 => (Symbol::OrElse, 2),
            bars => (Symbol::Bar, bars),
        },
        (b'-', _) => (Symbol::Minus, 1),
        (b'+', _) => (Symbol::Plus, 1),
        (b':', _) => (Symbol::Colon, 1),
        (b'*', _) => (Symbol::Star, 1),
        (b'/', _) => (Symbol::Slash, 1),
        (b'%', _) => (Symbol::Percent, 1),
        (b',', _) => (Symbol::Comma, 1),
        (b'.', _) => (Symbol::Dot, 1),
        (b'(', _) => (Symbol::OpenParen, 1),
        (b')', _) => (Symbol::CloseParen, 1),
        (b'=', _) => (Symbol::Equal, 1),
        (b'<', _) => (Symbol::Less, 1),
        (b'>', _) => (Symbol::Greater, 1),
        (b'{', _) => (Symbol::OpenBrace, 1),
        (b'}', _) => (Symbol::CloseBrace, 1),
        (b'[', _) => (Symbol::OpenBracket, 1),
        (b']', _) => (Symbol::CloseBracket, 1),
        _ => return None,
    };
    Some(symbol)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn words(source: &str) -> Vec<(&str, TokenKind)> {
        lex(source)
            .tokens
            .iter()
            .map(|token| (token.text(source), token.kind))
            .collect()
    }

    fn texts(source: &str) -> Vec<&str> {
        words(source).into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn strings_keep_quotes_and_escapes() {
        let source = r#"'a\'b' "c\"'d" '''e\'f' "g" ''' '' """#;
        let expected = [r"'a\'b'", r#""c\"'d""#, r#"'''e\'f' "g" '''"#, "''", "\"\""];
        assert_eq!(words(source), expected.map(|text| (text, TokenKind::Text)));
        assert!(lex(source).diagnostics.is_empty());
    }

    #[test]
    fn comments_hide_quotes_and_end_where_they_should() {
        let source = "a -- it's\nb // \"x\nc /* ' -- \n */ d";
        assert_eq!(
            texts(source),
            ["a", "-- it's", "b", "// \"x", "c", "/* ' -- \n */", "d"]
        );
    }

    #[test]
    fn quotes_hide_comments() {
        assert_eq!(
            texts("'-- a' `//b` '''/*'''"),
            ["'-- a'", "`//b`", "'''/*'''"]
        );
    }

    #[test]
    fn a_sign_belongs_to_the_word_it_touches() {
        assert_eq!(
            texts("a-1 a - 1 -x -`y z` -(1)"),
            ["a", "-1", "a", "-", "1", "-x", "-`y z`", "-", "(", "1", ")"]
        );
        assert_eq!(words("-in"), [("-in", TokenKind::SignedName)]);
    }

    #[test]
    fn numbers_end_where_they_should() {
        assert_eq!(
            texts("0x1fG 0x 1.5.2 1. .5 -.5e-3 1e 070 a.5 x[1:-2]"),
            [
                "0x1f", "G", "0", "x", "1.5", ".2", "1", ".", ".5", "-.5e-3", "1", "e", "070", "a",
                ".5", "x", "[", "1", ":", "-2", "]"
            ]
        );
    }

    #[test]
    fn keywords_in_any_case_and_of_two_words() {
        let kinds: Vec<_> = words("sElect group  \n By order bye selected")
            .into_iter()
            .map(|w| w.1)
            .collect();
        assert_eq!(
            kinds,
            [
                TokenKind::Keyword(Keyword::Select),
                TokenKind::Keyword(Keyword::GroupBy),
                TokenKind::Name,
                TokenKind::Name,
                TokenKind::Name,
            ]
        );
    }

    #[test]
    fn the_longest_operator_wins() {
        assert_eq!(
            texts("<=<>=>=~||| ||&&!="),
            ["<=", "<>", "=>", "=~", "|||", "||", "&&", "!="]
        );
    }

    #[test]
    fn broken_words_are_diagnosed_in_place() {
        let cases = [
            ("a\n  'b", Problem::OpenText("'"), 2, 3),
            ("é \"b\\\"", Problem::Character('é'), 1, 1),
            ("'é' '''b''", Problem::OpenText("'''"), 1, 5),
            ("a /* b", Problem::OpenComment, 1, 3),
            ("a `b", Problem::OpenName, 1, 3),
            ("``", Problem::EmptyName, 1, 1),
            ("-``", Problem::EmptyName, 1, 1),
            ("a;", Problem::Semicolon, 1, 2),
            ("a\u{a0}b", Problem::Character('\u{a0}'), 1, 2),
        ];
        for (source, problem, line, column) in cases {
            let first = lex(source).diagnostics.into_iter().next().unwrap();
            assert_eq!(
                (first.problem, first.at),
                (problem, Position { line, column }),
                "{source}"
            );
        }
    }

    proptest! {
        #[test]
        fn tokens_and_blanks_make_up_the_source(source in "[ -~\n\té'\"`*/-]{0,80}") {
            let lexed = lex(&source);
            let mut end = 0;
            for token in &lexed.tokens {
                let gap = source.get(end..token.span.start).expect("tokens in order");
                prop_assert!(gap.bytes().all(is_blank));
                prop_assert!(!token.text(&source).is_empty());
                prop_assert_eq!(token.at, Position::of(&source, token.span.start));
                end = token.span.end;
            }
            prop_assert!(source.get(end..).expect("a boundary").bytes().all(is_blank));
            let broken = lexed.tokens.iter().filter(|t| t.kind == TokenKind::Broken).count();
            prop_assert_eq!(broken, lexed.diagnostics.len());
        }

        #[test]
        fn any_text_can_be_cut(source in any::<String>()) {
            let lexed = lex(&source);
            prop_assert!(lexed.tokens.iter().all(|token| !token.text(&source).is_empty()));
        }
    }
}
