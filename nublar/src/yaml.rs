//! A configuration in YAML, asked by dotted keys; what is wrong is said with file, line and key.

use anyhow::{Context, Result, anyhow};
use granit_parser::{Event, Parser, ScanError, Span};
use std::path::Path;

/// Levels of nesting beyond which a file is refused.
const DEEPEST: usize = 64;

/// A file that was read.
pub(crate) struct Yaml {
    file: String,
    root: Node,
}

struct Node {
    /// From 1.
    line: usize,
    content: Content,
}

enum Content {
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    /// It stands for something elsewhere in the file; that is not followed.
    Alias,
}

impl Yaml {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a text; `file` is for messages.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self> {
        let mut events = Events {
            file,
            parser: Box::new(Parser::new_from_str(text)),
        };
        let root = loop {
            match events.next()? {
                Some((Event::StreamStart | Event::DocumentStart(..), _)) => {}
                Some((event, line)) => break events.node(event, line, 0)?,
                None => return Err(anyhow!("{file}: the file is empty")),
            }
        };
        if !matches!(root.content, Content::Map(_)) {
            return Err(anyhow!(
                "{file}: no configuration: expected keys at its top"
            ));
        }
        Ok(Self {
            file: file.to_owned(),
            root,
        })
    }

    /// The file's name.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The text of a key; none if it is missing, empty or null.
    ///
    /// Errors: it is a list or has keys of its own.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.find(key).map(|node| &node.content) {
            None => Ok(None),
            Some(Content::Text(text)) => Ok(given(text)),
            Some(_) => Err(self.wrong(key, "expected a text, written here")),
        }
    }

    /// The whole number of a key.
    ///
    /// Errors: it is something else.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let number = text.parse();
        number
            .map(Some)
            .map_err(|_| self.wrong(key, "expected a whole number"))
    }

    /// Whether a key says true.
    ///
    /// Errors: it says neither true nor false.
    pub(crate) fn flag(&self, key: &str) -> Result<bool> {
        match self.text(key)? {
            None | Some("false" | "False" | "FALSE") => Ok(false),
            Some("true" | "True" | "TRUE") => Ok(true),
            Some(_) => Err(self.wrong(key, "expected true or false")),
        }
    }

    /// The texts of a list; none of a missing one.
    ///
    /// Errors: it is no list of texts.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&str>> {
        let nodes = match self.find(key).map(|node| &node.content) {
            None => return Ok(Vec::new()),
            Some(Content::Text(text)) if given(text).is_none() => return Ok(Vec::new()),
            Some(Content::List(nodes)) => nodes,
            Some(_) => return Err(self.wrong(key, "expected a list")),
        };
        let texts = nodes.iter().map(|node| match &node.content {
            Content::Text(text) => Ok(text.as_str()),
            _ => Err(self.wrong(key, "expected a list of texts")),
        });
        texts.collect()
    }

    /// What the entries of a list have under `name`, where they have it.
    pub(crate) fn column(&self, key: &str, name: &str) -> Vec<&str> {
        let Some(Content::List(nodes)) = self.find(key).map(|node| &node.content) else {
            return Vec::new();
        };
        let cells = nodes
            .iter()
            .filter_map(|node| match &child(node, name)?.content {
                Content::Text(text) => given(text),
                _ => None,
            });
        cells.collect()
    }

    /// Whether a key holds anything.
    pub(crate) fn has(&self, key: &str) -> bool {
        match self.find(key).map(|node| &node.content) {
            None => false,
            Some(Content::Text(text)) => given(text).is_some(),
            Some(Content::List(nodes)) => !nodes.is_empty(),
            Some(Content::Map(pairs)) => !pairs.is_empty(),
            Some(Content::Alias) => true,
        }
    }

    /// Says that a key's value cannot be used: file, line, key, message.
    pub(crate) fn wrong(&self, key: &str, message: &str) -> anyhow::Error {
        match self.find(key) {
            Some(node) => anyhow!("{}, line {}: {key}: {message}", self.file, node.line),
            None => anyhow!("{}: {key}: {message}", self.file),
        }
    }

    fn find(&self, key: &str) -> Option<&Node> {
        key.split('.').try_fold(&self.root, child)
    }
}

fn child<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let Content::Map(pairs) = &node.content else {
        return None;
    };
    let found = pairs.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value)
}

/// A text that says something.
fn given(text: &str) -> Option<&str> {
    (!matches!(text.trim(), "" | "~" | "null" | "Null" | "NULL")).then_some(text)
}

struct Events<'a> {
    file: &'a str,
    parser: Box<dyn Iterator<Item = Result<(Event<'a>, Span), ScanError>> + 'a>,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, usize)>> {
        match self.parser.next() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, span.start.line()))),
            Some(Err(error)) => {
                let line = error.marker().line();
                Err(anyhow!("{}, line {line}: {}", self.file, error.info()))
            }
        }
    }

    fn more(&mut self) -> Result<(Event<'a>, usize)> {
        self.next()?
            .with_context(|| format!("{}: the file ends too early", self.file))
    }

    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Node> {
        if depth > DEEPEST {
            return Err(anyhow!("{}, line {line}: nested too deep", self.file));
        }
        let content = match event {
            Event::Scalar(text, ..) => Content::Text(text.into_owned()),
            Event::SequenceStart(..) => {
                let mut nodes = Vec::new();
                loop {
                    match self.more()? {
                        (Event::SequenceEnd, _) => break Content::List(nodes),
                        (event, line) => nodes.push(self.node(event, line, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut pairs = Vec::new();
                loop {
                    let key = match self.more()? {
                        (Event::MappingEnd, _) => break Content::Map(pairs),
                        (event, line) => self.node(event, line, depth + 1)?,
                    };
                    let Content::Text(name) = key.content else {
                        return Err(anyhow!("{}, line {line}: a key is no text", self.file));
                    };
                    let (event, _) = self.more()?;
                    let mut value = self.node(event, key.line, depth + 1)?;
                    value.line = key.line;
                    pairs.push((name, value));
                }
            }
            Event::Alias(..) => Content::Alias,
            _ => return Err(anyhow!("{}, line {line}: expected a value", self.file)),
        };
        Ok(Node { line, content })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = "# ours
Client:
  nonce: 'a nonce'
  max_poll: 60
  server_urls:
  - https://a/
  - https://b/
  empty:
Users: [{name: eve}, {name: bob}]
deep: |
  one
  two
";

    #[test]
    fn keys_are_found_below_each_other() {
        let yaml = Yaml::parse("x.yaml", TEXT).unwrap();
        assert_eq!(yaml.text("Client.nonce").unwrap(), Some("a nonce"));
        assert_eq!(yaml.number("Client.max_poll").unwrap(), Some(60));
        let urls = yaml.texts("Client.server_urls").unwrap();
        assert_eq!(urls, ["https://a/", "https://b/"]);
        assert_eq!(yaml.text("Client.empty").unwrap(), None);
        assert_eq!(yaml.column("Users", "name"), ["eve", "bob"]);
        assert_eq!(yaml.text("deep").unwrap(), Some("one\ntwo\n"));
        assert!(!yaml.has("Client.empty") && yaml.has("Client") && !yaml.has("Frontend.x"));
    }

    #[test]
    fn what_is_wrong_is_said_with_line_and_key() {
        let yaml = Yaml::parse("x.yaml", TEXT).unwrap();
        let error = yaml.number("Client.nonce").unwrap_err().to_string();
        assert_eq!(
            error,
            "x.yaml, line 3: Client.nonce: expected a whole number"
        );
        let error = yaml.text("Client.server_urls").unwrap_err().to_string();
        assert_eq!(
            error,
            "x.yaml, line 5: Client.server_urls: expected a text, written here"
        );
        let error = Yaml::parse("x.yaml", "a: [1\nb: 2\n").err().unwrap();
        assert!(error.to_string().starts_with("x.yaml, line "), "{error}");
        assert!(Yaml::parse("x.yaml", "just words").is_err());
        assert!(Yaml::parse("x.yaml", "").is_err());
    }
}
