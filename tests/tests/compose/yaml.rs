//! YAML as JSON: enough of it for compose files, with anchors and `<<`.

use granit_parser::{Event, Parser};
use serde_json::{Map, Value};
use std::collections::HashMap;

enum Open {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<String>),
}

/// Reads a document. All scalars become texts.
pub(crate) fn read(text: &str) -> Value {
    let mut open: Vec<(Open, usize)> = Vec::new();
    let mut anchors: HashMap<usize, Value> = HashMap::new();
    let mut root = Value::Null;
    for event in Parser::new_from_str(text) {
        let (event, _) = event.unwrap();
        let (value, anchor) = match event {
            Event::Scalar(text, _, anchor, _) => (Value::String(text.into_owned()), anchor),
            Event::Alias(anchor) => (anchors[&anchor].clone(), 0),
            Event::SequenceStart(_, anchor, _) => {
                open.push((Open::List(Vec::new()), anchor));
                continue;
            }
            Event::MappingStart(_, anchor, _) => {
                open.push((Open::Map(Map::new(), None), anchor));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop().unwrap() {
                (Open::List(items), anchor) => (Value::Array(items), anchor),
                (Open::Map(pairs, _), anchor) => (Value::Object(pairs), anchor),
            },
            _ => continue,
        };
        if anchor != 0 {
            anchors.insert(anchor, value.clone());
        }
        match open.last_mut() {
            None => root = value,
            Some((Open::List(items), _)) => items.push(value),
            Some((Open::Map(pairs, key), _)) => match (key.take(), value) {
                (None, key_text) => *key = Some(key_text.as_str().unwrap().to_owned()),
                (Some(merge), Value::Object(others)) if merge == "<<" => {
                    for (key, value) in others {
                        pairs.entry(key).or_insert(value);
                    }
                }
                (Some(key), value) => {
                    assert!(key != "<<", "`<<` takes a map");
                    pairs.insert(key, value);
                }
            },
        }
    }
    root
}

#[test]
fn anchors_and_merges_are_followed() {
    let read = read("a: &a {x: 1, y: [2, 3]}\nb:\n  <<: *a\n  x: 4\n");
    assert_eq!(read["b"].to_string(), r#"{"x":"4","y":["2","3"]}"#);
    assert_eq!(read["a"]["x"], "1");
}
