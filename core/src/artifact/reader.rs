//! Takes values of the right shape out of a YAML tree, and notes what does not fit.

use std::rc::Rc;

use super::definition::Query;
use super::names::suggestion;
use super::problem::Problem;
use super::query::{Shape, read};
use super::yaml::{Content, Document, Node, Pair, Place, Scalar};

/// Reads one document.
pub(super) struct Reader<'d> {
    file: &'d str,
    document: &'d Document,
    /// What makes the file unusable.
    pub(super) errors: Vec<Problem>,
    /// What people should know.
    pub(super) warnings: Vec<Problem>,
}

/// A map, with the path that leads to it.
pub(super) struct Fields<'d> {
    path: String,
    /// Where it begins.
    pub(super) place: Place,
    pairs: &'d [Pair],
}

impl<'d> Fields<'d> {
    /// The path of one of its keys.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            return key.to_owned();
        }
        format!("{}.{key}", self.path)
    }

    /// The value of a key, unless there is none.
    pub(super) fn get(&self, key: &str) -> Option<&'d Pair> {
        self.pairs.iter().find(|pair| {
            let null = matches!(&pair.value.content, Content::Scalar(scalar) if scalar.is_null());
            pair.key == key && !null
        })
    }
}

impl<'d> Reader<'d> {
    pub(super) fn new(file: &'d str, document: &'d Document) -> Self {
        Self {
            file,
            document,
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn error(&mut self, place: Place, key: &str, message: impl Into<String>) {
        self.errors.push(problem(self.file, place, key, message));
    }

    pub(super) fn warn(&mut self, place: Place, key: &str, message: impl Into<String>) {
        self.warnings.push(problem(self.file, place, key, message));
    }

    /// A map of known keys.
    pub(super) fn fields(
        &mut self,
        node: &'d Node,
        path: &str,
        known: &[&str],
    ) -> Option<Fields<'d>> {
        let Content::Map(pairs) = &node.content else {
            self.error(
                node.place,
                path,
                format!("expected keys, found {}", name(node)),
            );
            return None;
        };
        let fields = Fields {
            path: path.to_owned(),
            place: node.place,
            pairs,
        };
        for (index, pair) in pairs.iter().enumerate() {
            let key = fields.path(&pair.key);
            let earlier = pairs.get(..index).unwrap_or_default();
            if earlier.iter().any(|other| other.key == pair.key) {
                self.error(pair.place, &key, "this key appears twice: keep one of them");
            } else if !known.contains(&pair.key.as_str()) {
                let hint = suggestion(&pair.key, known.iter().copied());
                self.warn(pair.place, &key, format!("unknown key is ignored{hint}"));
            }
        }
        Some(fields)
    }

    /// A text and where it stands; numbers and other words are texts too.
    pub(super) fn scalar(&mut self, fields: &Fields<'d>, key: &str) -> Option<(&'d Scalar, Place)> {
        let pair = fields.get(key)?;
        match &pair.value.content {
            Content::Scalar(scalar) => Some((scalar, pair.value.place)),
            _ => {
                let found = name(&pair.value);
                let message = format!("expected a text, found {found}");
                self.error(pair.value.place, &fields.path(key), message);
                None
            }
        }
    }

    /// A text, empty if there is none.
    pub(super) fn text(&mut self, fields: &Fields<'d>, key: &str) -> String {
        let scalar = self.scalar(fields, key);
        scalar
            .map(|(scalar, _)| scalar.text.clone())
            .unwrap_or_default()
    }

    /// A number from 0, 0 if there is none.
    pub(super) fn number(&mut self, fields: &Fields<'d>, key: &str) -> u64 {
        self.parsed(fields, key, "a whole number from 0", whole_number)
    }

    /// A number from 0, 0 if there is none.
    pub(super) fn float(&mut self, fields: &Fields<'d>, key: &str) -> f32 {
        self.parsed(fields, key, "a number from 0", |text| {
            let number = text.replace('_', "").parse::<f32>().ok()?;
            (number.is_finite() && number >= 0.0).then_some(number)
        })
    }

    /// Yes or no; no if there is none.
    pub(super) fn flag(&mut self, fields: &Fields<'d>, key: &str) -> bool {
        self.parsed(fields, key, "true or false", |text| {
            match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "y" | "1" => Some(true),
                "false" | "no" | "off" | "n" | "0" => Some(false),
                _ => None,
            }
        })
    }

    fn parsed<T: Default>(
        &mut self,
        fields: &Fields<'d>,
        key: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let Some((scalar, place)) = self.scalar(fields, key) else {
            return T::default();
        };
        let text = scalar.text.trim();
        parse(text).unwrap_or_else(|| {
            self.error(
                place,
                &fields.path(key),
                format!("expected {wanted}, found {text:?}"),
            );
            T::default()
        })
    }

    /// The items of a list with their paths. One item alone is taken as a list of one.
    pub(super) fn list(&mut self, fields: &Fields<'d>, key: &str) -> Vec<(&'d Node, String)> {
        let Some(pair) = fields.get(key) else {
            return Vec::new();
        };
        let path = fields.path(key);
        if let Content::List(items) = &pair.value.content {
            let numbered = items.iter().enumerate();
            return numbered
                .map(|(index, item)| (Rc::as_ref(item), format!("{path}[{index}]")))
                .collect();
        }
        self.warn(
            pair.value.place,
            &path,
            "this should be a list: put a dash in front of each item",
        );
        vec![(&pair.value, path)]
    }

    /// A list of texts.
    pub(super) fn scalars(&mut self, fields: &Fields<'d>, key: &str) -> Vec<&'d Scalar> {
        let mut scalars = Vec::new();
        for (node, path) in self.list(fields, key) {
            match &node.content {
                Content::Scalar(scalar) if scalar.is_null() => {}
                Content::Scalar(scalar) => scalars.push(scalar),
                _ => {
                    let message = format!("expected a text, found {}", name(node));
                    self.error(node.place, &path, message);
                }
            }
        }
        scalars
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, fields: &Fields<'d>, key: &str) -> Vec<String> {
        let scalars = self.scalars(fields, key);
        scalars
            .into_iter()
            .map(|scalar| scalar.text.clone())
            .collect()
    }

    /// VQL, in one text or in several that follow one another.
    pub(super) fn query(&mut self, key: &str, texts: &[&'d Scalar], shape: Shape) -> Query {
        let mut source = String::new();
        let mut starts = Vec::new();
        for scalar in texts {
            starts.push(source.len());
            source.push_str(&scalar.text);
            source.push('\n');
        }
        let (query, faults) = read(&source, shape);
        let document = self.document;
        let place = |offset: usize| {
            let mut within = starts.iter().zip(texts).rev();
            let found = within.find(|(start, _)| **start <= offset);
            found.map_or(Place { line: 1, column: 1 }, |(start, scalar)| {
                document.locate(scalar, (offset - start).min(scalar.text.len()))
            })
        };
        for fault in faults {
            let message = fault.message(&source, |offset| {
                let place = place(offset);
                (place.line, place.column)
            });
            if fault.error {
                self.error(place(fault.offset), key, message);
            } else {
                self.warn(place(fault.offset), key, message);
            }
        }
        query
    }
}

fn problem(file: &str, place: Place, key: &str, message: impl Into<String>) -> Problem {
    Problem {
        file: file.to_owned(),
        line: place.line,
        column: place.column,
        key: key.to_owned(),
        message: message.into(),
    }
}

fn name(node: &Node) -> &'static str {
    match &node.content {
        Content::Scalar(scalar) if scalar.is_null() => "nothing",
        Content::Scalar(_) => "a text",
        Content::List(_) => "a list",
        Content::Map(_) => "keys",
    }
}

fn whole_number(text: &str) -> Option<u64> {
    let text = text.replace('_', "");
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    text.parse().ok().or_else(|| {
        let number = text.parse::<f64>().ok()?;
        let fits = number >= 0.0 && number.fract() == 0.0 && number <= 9.0e15;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        fits.then_some(number as u64)
    })
}
