//! Finds the artifacts a source calls.

use crate::lexer::lex;
use crate::literal::name_value;
use crate::token::{Symbol, TokenKind};

/// The names of the artifacts a source calls, without the leading `Artifact.`, each once, in the
/// order of their first call. Strings and comments do not count, nor does a name that is not
/// called. Works on sources with errors, too.
///
/// ```
/// let source = "SELECT * FROM Artifact.Linux.Sys.Users(a=Artifact.My.Own()) -- Artifact.No()";
/// assert_eq!(nublar_vql::called_artifacts(source), ["Linux.Sys.Users", "My.Own"]);
/// ```
#[must_use]
pub fn called_artifacts(source: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut after_dot = false;
    let mut path: Option<String> = None;
    for token in lex(source).tokens {
        match token.kind {
            TokenKind::Comment => {}
            TokenKind::Name | TokenKind::QuotedName => {
                let name = name_value(token.text(source));
                match &mut path {
                    Some(path) if after_dot => {
                        if !path.is_empty() {
                            path.push('.');
                        }
                        path.push_str(&name);
                    }
                    _ => path = (!after_dot && name == "Artifact").then(String::new),
                }
                after_dot = false;
            }
            TokenKind::Symbol(Symbol::Dot) => after_dot = true,
            _ => {
                let called = path.take().filter(|path| !path.is_empty() && !after_dot);
                if let Some(called) = called.filter(|_| token.is(Symbol::OpenParen))
                    && !found.contains(&called)
                {
                    found.push(called);
                }
                after_dot = false;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_count() {
        let cases: [(&str, &[&str]); 9] = [
            ("SELECT * FROM Artifact.A.B()", &["A.B"]),
            ("SELECT * FROM Artifact.A.B", &[]),
            ("SELECT * FROM Artifact . A /* x */ . `B` (c=1)", &["A.B"]),
            (
                "SELECT 'Artifact.A()', '''Artifact.B()''' FROM x -- Artifact.C()",
                &[],
            ),
            ("SELECT * FROM b.Artifact.A()", &[]),
            (
                "SELECT * FROM Artifact.B() SELECT * FROM Artifact.A() SELECT f(x=Artifact.B())",
                &["B", "A"],
            ),
            ("SELECT * FROM Artifact()", &[]),
            ("SELECT a Artifact.B(, Artifact.C.(", &["B"]),
            ("SELECT Artifact.A + (1) FROM artifact.B()", &[]),
        ];
        for (source, expected) in cases {
            assert_eq!(called_artifacts(source), expected, "{source}");
        }
    }
}
