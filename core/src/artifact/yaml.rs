//! YAML as a tree whose nodes know where they stand in the file.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Span, options};

use super::repair::{Repaired, repair};

/// Levels of nesting beyond which a file is refused.
const DEEPEST: usize = 64;

/// A place in the original file; both count from 1, columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Content {
    /// A text, or anything that YAML writes as one word.
    Scalar(Scalar),
    /// A list.
    List(Vec<Rc<Node>>),
    /// Keys with their values, in order.
    Map(Vec<Pair>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Rc<Node>,
}

/// A value written as text.
#[derive(Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Written without quotes and not as a block.
    pub(super) plain: bool,
    /// Written in single quotes, where `''` is one character.
    single_quoted: bool,
    /// The byte of the repaired text at which its content begins.
    start: usize,
}

impl Scalar {
    /// Whether YAML says that there is no value.
    pub(super) fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// A file's first document.
#[derive(Debug)]
pub(super) struct Document {
    /// The value at the top; none in an empty file.
    pub(super) root: Option<Rc<Node>>,
    /// Where a second document begins, if there is one.
    pub(super) second: Option<Place>,
    repaired: Repaired,
}

/// A file that is no YAML.
#[derive(Debug)]
pub(super) struct Malformed {
    pub(super) place: Place,
    pub(super) message: String,
}

impl Document {
    /// Reads a file.
    pub(super) fn read(file: &str) -> Result<Self, Malformed> {
        let repaired = repair(file);
        let (root, second) = Builder::new(&repaired).build()?;
        Ok(Self {
            root,
            second,
            repaired,
        })
    }

    /// Where a byte of a scalar's text stands in the file. The end of the text is the place
    /// after its last character that is no blank.
    pub(super) fn locate(&self, scalar: &Scalar, offset: usize) -> Place {
        // Folding and indentation change nothing but blanks, so that the characters between
        // them tell which is which. Only escapes in double quotes lead it astray.
        let solid = |character: &char| !character.is_whitespace();
        let head = scalar.text.get(..offset).unwrap_or(&scalar.text);
        let past = !scalar
            .text
            .get(offset..)
            .unwrap_or_default()
            .contains(|c| solid(&c));
        let mut wanted = head.chars().filter(solid).count();
        if past {
            wanted = wanted.saturating_sub(1);
        }
        let raw = self.repaired.text.get(scalar.start..).unwrap_or_default();
        let mut second_quote = true;
        let mut found = raw.char_indices().filter(|(_, character)| {
            if scalar.single_quoted && *character == '\'' {
                second_quote = !second_quote;
                return !second_quote;
            }
            solid(character)
        });
        let (byte, character) = found.nth(wanted).unwrap_or((0, ' '));
        let mut place = self.place_of(scalar.start + byte);
        if past && !character.is_whitespace() {
            place.column += 1;
        }
        place
    }

    fn place_of(&self, byte: usize) -> Place {
        let before = self.repaired.text.get(..byte).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let column = before.get(start..).unwrap_or_default().chars().count() + 1;
        Place {
            line: self.repaired.original(line),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }
}

/// A list or map whose end has not come yet.
enum Open {
    List(Vec<Rc<Node>>),
    Map {
        pairs: Vec<Pair>,
        key: Option<(String, Place)>,
    },
}

struct Builder<'t> {
    repaired: &'t Repaired,
    open: Vec<(Open, Place, usize)>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
}

impl<'t> Builder<'t> {
    fn new(repaired: &'t Repaired) -> Self {
        Self {
            repaired,
            open: Vec::new(),
            anchors: HashMap::new(),
            root: None,
        }
    }

    fn build(mut self) -> Result<(Option<Rc<Node>>, Option<Place>), Malformed> {
        let options = options! { bom_inside_document_as_content: true };
        let mut documents = 0;
        for event in Parser::new_from_str_with_options(&self.repaired.text, options) {
            let (event, span) = event.map_err(|error| Malformed {
                place: self.place(error.marker().line(), error.marker().col()),
                message: format!("this is no valid YAML: {}", error.info()),
            })?;
            let place = self.place(span.start.line(), span.start.col());
            if matches!(event, Event::DocumentStart(..)) {
                documents += 1;
                if documents > 1 {
                    return Ok((self.root, Some(place)));
                }
            }
            self.take(event, span, place)?;
        }
        Ok((self.root, None))
    }

    fn take(&mut self, event: Event<'_>, span: Span, place: Place) -> Result<(), Malformed> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let scalar = Scalar {
                    start: self.content_start(span.start.byte_offset().unwrap_or(0), style),
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                    single_quoted: style == ScalarStyle::SingleQuoted,
                };
                self.add(Content::Scalar(scalar), place, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.push(Open::List(Vec::new()), place, anchor),
            Event::MappingStart(_, anchor, _) => {
                let open = Open::Map {
                    pairs: Vec::new(),
                    key: None,
                };
                self.push(open, place, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some((open, place, anchor)) = self.open.pop() else {
                    return Ok(());
                };
                let content = match open {
                    Open::List(items) => Content::List(items),
                    Open::Map { pairs, .. } => Content::Map(pairs),
                };
                self.add(content, place, anchor)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| Malformed {
                    place,
                    message: "this alias stands inside of what it refers to".to_owned(),
                })?;
                self.attach(node, place)
            }
            _ => Ok(()),
        }
    }

    fn push(&mut self, open: Open, place: Place, anchor: usize) -> Result<(), Malformed> {
        if self.open.len() >= DEEPEST {
            return Err(Malformed {
                place,
                message: format!("nested deeper than {DEEPEST} levels"),
            });
        }
        self.open.push((open, place, anchor));
        Ok(())
    }

    fn add(&mut self, content: Content, place: Place, anchor: usize) -> Result<(), Malformed> {
        let node = Rc::new(Node { place, content });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node, place)
    }

    fn attach(&mut self, node: Rc<Node>, place: Place) -> Result<(), Malformed> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((Open::List(items), ..)) => items.push(node),
            Some((Open::Map { pairs, key }, ..)) => match key.take() {
                None => {
                    let Content::Scalar(scalar) = &node.content else {
                        let message = "a key has to be a word".to_owned();
                        return Err(Malformed { place, message });
                    };
                    *key = Some((scalar.text.clone(), place));
                }
                Some((key, place)) if key == "<<" => merge(pairs, &node, place)?,
                Some((key, place)) => pairs.push(Pair {
                    key,
                    place,
                    value: node,
                }),
            },
        }
        Ok(())
    }

    fn place(&self, line: usize, column: usize) -> Place {
        Place {
            line: self.repaired.original(line),
            column: u32::try_from(column + 1).unwrap_or(u32::MAX),
        }
    }

    /// The byte at which a scalar's content begins: after its quote, or below its `|`.
    fn content_start(&self, start: usize, style: ScalarStyle) -> usize {
        match style {
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => start + 1,
            ScalarStyle::Literal | ScalarStyle::Folded => {
                let raw = self.repaired.text.get(start..).unwrap_or_default();
                if raw.starts_with(['|', '>']) {
                    raw.find('\n').map_or(start, |end| start + end + 1)
                } else {
                    start
                }
            }
            ScalarStyle::Plain => start,
        }
    }
}

/// `<<: *map` adds the pairs of another map.
fn merge(pairs: &mut Vec<Pair>, node: &Node, place: Place) -> Result<(), Malformed> {
    let Content::Map(others) = &node.content else {
        let message = "`<<` takes a map".to_owned();
        return Err(Malformed { place, message });
    };
    for other in others {
        if !pairs.iter().any(|pair| pair.key == other.key) {
            pairs.push(other.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn value<'d>(document: &'d Document, key: &str) -> &'d Node {
        let Content::Map(pairs) = &document.root.as_ref().unwrap().content else {
            panic!("no map");
        };
        &pairs.iter().find(|pair| pair.key == key).unwrap().value
    }

    fn scalar<'d>(document: &'d Document, key: &str) -> &'d Scalar {
        let Content::Scalar(scalar) = &value(document, key).content else {
            panic!("no scalar");
        };
        scalar
    }

    fn found(document: &Document, key: &str, word: &str) -> (u32, u32) {
        let scalar = scalar(document, key);
        let offset = scalar.text.find(word).unwrap();
        let place = document.locate(scalar, offset);
        (place.line, place.column)
    }

    #[test]
    fn words_are_found_in_every_style() {
        let file = "a: |\n\n  é one\n    two\nb: >-\n   three\n   four\nc: five\n  six\n\
                    d: 'seven ''  eight'\ne: \"nine\n  ten\"\nquery:\n  eleven";
        let document = Document::read(file).unwrap();
        assert_eq!(found(&document, "a", "one"), (3, 5));
        assert_eq!(found(&document, "a", "two"), (4, 5));
        assert_eq!(found(&document, "b", "four"), (7, 4));
        assert_eq!(found(&document, "c", "five"), (8, 4));
        assert_eq!(found(&document, "c", "six"), (9, 3));
        assert_eq!(found(&document, "d", "eight"), (10, 15));
        assert_eq!(found(&document, "e", "ten"), (12, 3));
        assert_eq!(found(&document, "query", "eleven"), (14, 3));
    }

    #[test]
    fn the_end_of_a_text_is_after_its_last_word() {
        let document = Document::read("a: |\n  x y\n\nb: 1\n").unwrap();
        let text = scalar(&document, "a");
        let place = document.locate(text, text.text.len());
        assert_eq!((place.line, place.column), (2, 6));
    }

    #[test]
    fn anchors_and_merges_are_followed() {
        let document = Document::read("a: &x {b: 1, c: 2}\nd:\n  c: 3\n  <<: *x\ne: *x\n").unwrap();
        let Content::Map(pairs) = &value(&document, "d").content else {
            panic!("no map");
        };
        let keys: Vec<&str> = pairs.iter().map(|pair| pair.key.as_str()).collect();
        assert_eq!(keys, ["c", "b"]);
        assert!(matches!(value(&document, "e").content, Content::Map(_)));
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_place() {
        let malformed = Document::read("a: 1\nb: c: 2\n").unwrap_err();
        assert_eq!(malformed.place.line, 2);
        let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
        assert!(Document::read(&deep).unwrap_err().message.contains("64"));
        assert!(Document::read("a: &x\n  b: *x\n").is_err());
        assert!(Document::read("").unwrap().root.is_none());
    }

    #[test]
    fn a_second_document_is_noticed() {
        let document = Document::read("a: 1\n---\nb: 2\n").unwrap();
        assert_eq!(document.second.map(|place| place.line), Some(2));
    }
}
