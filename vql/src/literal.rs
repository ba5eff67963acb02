//! What quoted names, strings and numbers stand for, and how to quote a name.

use std::borrow::Cow;

use crate::token::Keyword;
use crate::tree::Name;

/// A number's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Whole numbers: decimal, hexadecimal with `0x`, octal with a leading `0`.
    Integer(i64),
    /// All others.
    Float(f64),
}

/// The value of a number as written, `None` when agents have none for it.
///
/// ```
/// use nublar_vql::{Number, number_value};
/// assert_eq!(number_value("-0x10"), Some(Number::Integer(-16)));
/// assert_eq!(number_value("070"), Some(Number::Integer(56)));
/// assert_eq!(number_value("1.5"), Some(Number::Float(1.5)));
/// ```
#[must_use]
pub fn number_value(text: &str) -> Option<Number> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let (radix, significant) = match digits.strip_prefix("0x") {
        Some(hex) => (16, hex),
        None => match digits.strip_prefix('0') {
            Some(octal) if !octal.is_empty() => (8, octal),
            _ => (10, digits),
        },
    };
    if let Ok(integer) = i64::from_str_radix(&format!("{sign}{significant}"), radix) {
        return Some(Number::Integer(integer));
    }
    if radix == 16 {
        return None;
    }
    text.parse()
        .ok()
        .filter(|float: &f64| float.is_finite())
        .map(Number::Float)
}

/// The bytes of a string as written, without its quotes and escapes. Strings in `'''` have no
/// escapes; in others `\n`, `\r`, `\t` and `\xHH` stand for a byte, and any other escaped
/// character for itself. These are bytes, not always UTF-8.
///
/// ```
/// assert_eq!(nublar_vql::text_value(r"'a\x00\'\n'"), b"a\0'\n");
/// assert_eq!(nublar_vql::text_value(r"'''a\n'''"), br"a\n");
/// ```
#[must_use]
pub fn text_value(text: &str) -> Vec<u8> {
    let raw = text
        .strip_prefix("'''")
        .and_then(|rest| rest.strip_suffix("'''"));
    if let Some(raw) = raw {
        return raw.as_bytes().to_vec();
    }
    let quoted = ['\'', '"'].into_iter().find_map(|quote| {
        text.strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
    });
    let Some(quoted) = quoted else {
        return text.as_bytes().to_vec();
    };
    let mut bytes = quoted.as_bytes().iter();
    let mut value = Vec::with_capacity(quoted.len());
    while let Some(byte) = bytes.next().copied() {
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        match bytes.next().copied() {
            None => break,
            Some(b'n') => value.push(b'\n'),
            Some(b'r') => value.push(b'\r'),
            Some(b't') => value.push(b'\t'),
            Some(mark @ (b'x' | b'X')) => {
                let rest = bytes.as_slice();
                match rest.get(..2).and_then(hex_byte) {
                    Some(decoded) => {
                        value.push(decoded);
                        bytes.nth(1);
                    }
                    None if rest.len() < 2 => break,
                    None => value.extend([b'\\', mark]),
                }
            }
            Some(other) => value.push(other),
        }
    }
    value
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let value = digit(digits.first()?)? * 16 + digit(digits.get(1)?)?;
    u8::try_from(value).ok()
}

/// A name without its backticks. Nothing inside is an escape.
#[must_use]
pub fn name_value(text: &str) -> Cow<'_, str> {
    let quoted = text
        .strip_prefix('`')
        .and_then(|rest| rest.strip_suffix('`'));
    Cow::Borrowed(quoted.unwrap_or(text))
}

impl Name {
    /// The name without its backticks.
    #[must_use]
    pub fn value(&self) -> Cow<'_, str> {
        name_value(&self.text)
    }
}

/// A name that VQL has no way to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name {0:?} cannot be written in VQL: it is empty, or holds a backtick or a backslash")]
pub struct UnquotableName(pub String);

/// A name as it is written in VQL: in backticks unless it is a plain word and no keyword.
///
/// # Errors
/// An empty name, or one with a backtick or a backslash: agents read a backslash in one way in
/// paths and in another in definitions.
///
/// ```
/// use nublar_vql::quote_name;
/// assert_eq!(quote_name("Pid")?, "Pid");
/// assert_eq!(quote_name("Host name")?, "`Host name`");
/// assert_eq!(quote_name("limit")?, "`limit`");
/// # Ok::<(), nublar_vql::UnquotableName>(())
/// ```
pub fn quote_name(name: &str) -> Result<Cow<'_, str>, UnquotableName> {
    if name.is_empty() || name.contains(['`', '\\']) {
        return Err(UnquotableName(name.to_owned()));
    }
    let word = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let digit_first = name.starts_with(|first: char| first.is_ascii_digit());
    if word && !digit_first && Keyword::of(name).is_none() {
        return Ok(Cow::Borrowed(name));
    }
    Ok(Cow::Owned(format!("`{name}`")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::lexer::lex;
    use crate::token::TokenKind;
    use proptest::prelude::*;

    #[test]
    fn numbers() {
        let cases = [
            ("0", Some(Number::Integer(0))),
            ("-12", Some(Number::Integer(-12))),
            ("0xfF", Some(Number::Integer(255))),
            ("0777", Some(Number::Integer(511))),
            ("089", Some(Number::Float(89.0))),
            ("-.5", Some(Number::Float(-0.5))),
            ("1e3", Some(Number::Float(1000.0))),
            ("-9223372036854775808", Some(Number::Integer(i64::MIN))),
            (
                "9223372036854775808",
                Some(Number::Float(9_223_372_036_854_775_808.0)),
            ),
            ("0xffffffffffffffff", None),
            ("1e999", None),
        ];
        for (text, value) in cases {
            assert_eq!(number_value(text), value, "{text}");
        }
    }

    #[test]
    fn strings() {
        let cases: [(&str, &[u8]); 8] = [
            (r#""a'b""#, b"a'b"),
            (r"'\\\'\q'", br"\'q"),
            (r"'\xf0\XfF'", b"\xf0\xff"),
            (r"'\xzz1'", br"\xzz1"),
            (r"'a\x1'", b"a"),
            ("'é\n'", "é\n".as_bytes()),
            ("'''it's'''", b"it's"),
            ("''", b""),
        ];
        for (text, value) in cases {
            assert_eq!(text_value(text), value, "{text}");
        }
    }

    #[test]
    fn names_that_cannot_be_written() {
        for name in ["", "a`b", "a\\b"] {
            assert_eq!(quote_name(name), Err(UnquotableName(name.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn a_quoted_name_is_one_word_that_reads_back(name in "[a-zA-Z0-9_ .'\"é-]{1,12}|LET|in") {
            let quoted = quote_name(&name).unwrap();
            let tokens = lex(&quoted).tokens;
            prop_assert_eq!(tokens.len(), 1);
            prop_assert!(matches!(tokens[0].kind, TokenKind::Name | TokenKind::QuotedName));
            prop_assert_eq!(name_value(&quoted), name.as_str());
        }
    }
}
