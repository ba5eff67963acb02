//! Changes to bytes of which nothing is known.

use crate::{Chance, LARGEST};

/// Numbers at which programs often turn out to be wrong.
const EDGES: [u8; 9] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'"', b'{', 0x20];

/// Changes an input once; `words` are what such inputs are made of.
pub fn mutate(chance: &mut Chance, input: &mut Vec<u8>, words: &[&[u8]]) {
    let ways = if words.is_empty() { 8 } else { 11 };
    match chance.below(ways) {
        0 if !input.is_empty() => {
            let place = chance.below(input.len());
            input[place] ^= 1 << chance.below(8);
        }
        1 if !input.is_empty() => {
            let place = chance.below(input.len());
            input[place] = *chance.of(&EDGES);
        }
        2 if !input.is_empty() => {
            let place = chance.below(input.len());
            input[place] = chance.number() as u8;
        }
        3 => {
            let place = chance.below(input.len() + 1);
            let more: Vec<u8> = (0..=chance.length(32))
                .map(|_| chance.number() as u8)
                .collect();
            input.splice(place..place, more);
        }
        4 if !input.is_empty() => {
            let range = part(chance, input.len());
            input.drain(range);
        }
        5 if !input.is_empty() => {
            // Again and again: what nests, nests deeper.
            let range = part(chance, input.len());
            let times = 1 + chance.length(200);
            let room = LARGEST.saturating_sub(input.len()) / range.len().max(1);
            let more = input[range.clone()].repeat(times.min(room));
            input.splice(range.end..range.end, more);
        }
        6 if !input.is_empty() => {
            let range = part(chance, input.len());
            let moved: Vec<u8> = input.drain(range).collect();
            let place = chance.below(input.len() + 1);
            input.splice(place..place, moved);
        }
        7 => input.truncate(chance.below(input.len() + 1)),
        8.. => {
            let word = *chance.of(words);
            let place = chance.below(input.len() + 1);
            let end = if chance.below(2) == 0 {
                place
            } else {
                (place + chance.length(16)).min(input.len())
            };
            input.splice(place..end, word.iter().copied());
        }
        _ => {}
    }
}

fn part(chance: &mut Chance, length: usize) -> std::ops::Range<usize> {
    let from = chance.below(length);
    let most = (length - from).max(1);
    from..from + (1 + chance.length(most - 1)).min(length - from)
}
