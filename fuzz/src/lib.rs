//! Fuzzing on stable Rust: seeds are mutated, and what behaves in a new way is mutated further.
//!
//! Nothing measures coverage here. A target tells how an input behaved, as a number: the kind of
//! error, what was found in it. An input with a number that was not seen before joins the corpus.
//! All of it follows from the seed of a run, which is printed: the same seed tries the same inputs.
//!
//! | variable | what |
//! |---|---|
//! | `NUBLAR_FUZZ_SECONDS` | how long each target runs; 2 if it is not set |
//! | `NUBLAR_SEED` | the seed; 1 if it is not set |
//! | `NUBLAR_FUZZ_TRACE` | a file that gets each input before it is tried, for those that end the process |

mod chance;
mod mutate;
mod protobuf;

pub use chance::Chance;
pub use mutate::mutate;
pub use protobuf::mutate_message;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// No input grows beyond this, bytes.
pub const LARGEST: usize = 64 << 10;
/// No more inputs than this are kept beside the seeds.
const CORPUS: usize = 4_000;
/// An input that takes longer is a finding. Generous: machines are busy.
const SLOW: Duration = Duration::from_secs(10);

/// What is tried.
pub struct Target<'a> {
    /// Its name, in what is printed and in the names of files.
    pub name: &'static str,
    /// What it begins with; at least one.
    pub seeds: Vec<Vec<u8>>,
    /// Changes an input, knowing how such inputs are made.
    pub change: &'a dyn Fn(&mut Chance, &mut Vec<u8>),
    /// Tries an input: panics when something is wrong, else says how the input behaved.
    pub check: &'a dyn Fn(&[u8]) -> u64,
}

impl std::fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({}, {} seeds)", self.name, self.seeds.len())
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// Inputs that were tried.
    pub inputs: u64,
    /// Ways to behave that were seen.
    pub behaviours: usize,
}

fn number(name: &str, usual: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// How an input behaved, out of anything that tells: digits are left out of texts, so that places
/// and lengths make no difference.
pub fn behaviour(of: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for text in of {
        let text: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        text.hash(&mut hasher);
    }
    hasher.finish()
}

/// Runs a target for its time. The first finding ends it: the input is written to a file, which is
/// named with the seed, and the panic goes on.
pub fn fuzz(target: &Target<'_>) -> Ran {
    let seconds = number("NUBLAR_FUZZ_SECONDS", 2);
    let seed = number("NUBLAR_SEED", 1);
    let trace = std::env::var_os("NUBLAR_FUZZ_TRACE").map(PathBuf::from);
    println!("{}: seed {seed}, {seconds} s", target.name);
    let mut chance = Chance::new(seed);
    let mut corpus = target.seeds.clone();
    let mut seen = HashSet::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut inputs = 0u64;
    for input in &target.seeds {
        seen.insert(attempt(target, input, seed, trace.as_ref()));
        inputs += 1;
    }
    while Instant::now() < end {
        let mut input = chance.of(&corpus).clone();
        for _ in 0..=chance.below(4) {
            if chance.below(16) == 0 {
                splice(&mut chance, &mut input, &corpus);
            }
            (target.change)(&mut chance, &mut input);
        }
        input.truncate(LARGEST);
        inputs += 1;
        if seen.insert(attempt(target, &input, seed, trace.as_ref())) {
            if corpus.len() < target.seeds.len() + CORPUS {
                corpus.push(input);
            } else {
                let place = target.seeds.len() + chance.below(CORPUS);
                corpus[place] = input;
            }
        }
    }
    let ran = Ran {
        inputs,
        behaviours: seen.len(),
    };
    println!(
        "{}: {} inputs, {} behaviours, no finding",
        target.name, ran.inputs, ran.behaviours
    );
    ran
}

/// The beginning of one and the end of another.
fn splice(chance: &mut Chance, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let other = chance.of(corpus);
    let from = chance.below(other.len() + 1);
    let to = chance.below(input.len() + 1);
    input.truncate(to);
    input.extend_from_slice(&other[from..]);
}

fn attempt(target: &Target<'_>, input: &[u8], seed: u64, trace: Option<&PathBuf>) -> u64 {
    if let Some(path) = trace {
        keep(path, input);
    }
    let begun = Instant::now();
    let tried = catch_unwind(AssertUnwindSafe(|| (target.check)(input)));
    let took = begun.elapsed();
    let panic = match tried {
        Ok(behaved) if took < SLOW => return behaved,
        Ok(_) => None,
        Err(panic) => Some(panic),
    };
    let hash = behaviour(&[&format!("{input:?}")]);
    let path = std::env::temp_dir().join(format!("{}-{hash:016x}.fuzz", target.name));
    keep(&path, input);
    println!(
        "{}: a finding with seed {seed}, {} bytes, after {took:?}: see {}",
        target.name,
        input.len(),
        path.display()
    );
    match panic {
        Some(panic) => resume_unwind(panic),
        None => panic!("{}: an input took {took:?}", target.name),
    }
}

fn keep(path: &PathBuf, input: &[u8]) {
    if let Err(error) = std::fs::write(path, input) {
        println!("{}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_fault_is_found() {
        let check = |input: &[u8]| {
            assert!(!input.starts_with(b"ab\xff"), "planted");
            input.len() as u64
        };
        let target = Target {
            name: "planted",
            seeds: vec![b"abc".to_vec()],
            change: &|chance, input| mutate(chance, input, &[]),
            check: &check,
        };
        let found = catch_unwind(AssertUnwindSafe(|| fuzz(&target)));
        assert!(found.is_err());
    }
}
