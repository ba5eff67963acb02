//! Packs: many files at once. What is broken is named, the rest is taken.

use std::collections::HashMap;

use super::collect::{Collect, Table, Wanted};
use super::compile::Compiler;
use super::definition::{Definition, Kind};
use super::error::CompileError;
use super::load::{Loaded, load};
use super::problem::Problem;

/// Bytes of one file.
pub(super) const MOST_FILE: usize = 2 << 20;

/// A file of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackFile {
    /// The name that findings carry.
    pub name: String,
    /// Its bytes, or why they cannot be had.
    pub content: Result<Vec<u8>, String>,
}

/// An artifact of a pack.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Its file.
    pub file: String,
    /// The artifact, and what is odd about it.
    pub loaded: Loaded,
}

/// What is in a pack.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pack {
    /// The artifacts that are well-formed, in the order of the files.
    pub taken: Vec<Taken>,
    /// Everything that is wrong with the other files, in their order.
    pub refused: Vec<Problem>,
    /// How many files are refused.
    pub refused_files: usize,
}

impl Pack {
    /// Reads the files. Of two artifacts of one name the first is taken.
    #[must_use]
    pub fn read(files: impl IntoIterator<Item = PackFile>) -> Self {
        let mut pack = Self::default();
        let mut named: HashMap<String, String> = HashMap::new();
        for PackFile { name, content } in files {
            let loaded = match text(&name, content) {
                Ok(text) => load(&name, &text).map_err(|error| error.problems),
                Err(problem) => Err(vec![problem]),
            };
            let loaded = loaded.and_then(|loaded| {
                let artifact = &loaded.definition.name;
                match named.get(artifact) {
                    Some(earlier) => Err(vec![twin(&name, artifact, earlier)]),
                    None => Ok(loaded),
                }
            });
            match loaded {
                Ok(loaded) => {
                    named.insert(loaded.definition.name.clone(), name.clone());
                    pack.taken.push(Taken { file: name, loaded });
                }
                Err(problems) => {
                    pack.refused_files += 1;
                    pack.refused.extend(problems);
                }
            }
        }
        pack
    }
}

/// A file's bytes as text; what is in the way has a place.
fn text(name: &str, content: Result<Vec<u8>, String>) -> Result<String, Problem> {
    let whole = |message| finding(name, 1, 1, "", message);
    let content = content.map_err(whole)?;
    if content.len() > MOST_FILE {
        return Err(whole(too_large()));
    }
    String::from_utf8(content).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..good).unwrap_or_default();
        let before = String::from_utf8_lossy(before);
        let (line, column) = end_of(&before);
        let message = "this is no UTF-8: save the file in that encoding".to_owned();
        finding(name, line, column, "", message)
    })
}

/// What is said of a file that is too large.
pub(super) fn too_large() -> String {
    format!("it has more than {MOST_FILE} bytes, which no artifact has")
}

fn twin(file: &str, artifact: &str, earlier: &str) -> Problem {
    let message = format!("{earlier} is called {artifact} too: give one of them another name");
    finding(file, 1, 1, "name", message)
}

fn finding(file: &str, line: u32, column: u32, key: &str, message: String) -> Problem {
    Problem {
        file: file.to_owned(),
        line,
        column,
        key: key.to_owned(),
        message,
    }
}

/// The line and column behind a text.
fn end_of(text: &str) -> (u32, u32) {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let last = text.rsplit('\n').next().unwrap_or_default();
    (
        count(text.matches('\n').count() + 1),
        count(last.chars().count() + 1),
    )
}

/// Why a well-formed artifact could not be collected with its defaults as things stand: something
/// that it needs is not there. Artifacts of the server are not tried. The finding has a place
/// where the artifact's text names what is missing.
#[must_use]
pub fn shortcoming(
    compiler: &Compiler<'_>,
    file: &str,
    definition: &Definition,
) -> Option<Problem> {
    let artifacts = vec![Wanted::new(&definition.name)];
    let error = match definition.kind {
        Kind::Client => {
            let collect = Collect {
                artifacts,
                ..Collect::default()
            };
            compiler.compile(&collect).err()
        }
        Kind::ClientEvent => compiler.compile_table(&Table { artifacts }).err(),
        Kind::Server | Kind::ServerEvent | Kind::Notebook | Kind::Internal => None,
    }?;
    let missing = match &error {
        CompileError::MissingDependency { dependency, .. } => dependency.as_str(),
        CompileError::ToolNotReady { tool, .. } => tool.as_str(),
        _ => "",
    };
    let named = definition.raw.find(missing).filter(|_| !missing.is_empty());
    let (line, column) = match named {
        Some(byte) => end_of(definition.raw.get(..byte).unwrap_or_default()),
        None => (1, 1),
    };
    let message = format!("it cannot be collected with its defaults yet: {error}");
    Some(finding(file, line, column, "", message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::collections::BTreeMap;
    use std::io::Write;

    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;
    use crate::artifact::archive::{ArchiveError, MOST_ENTRIES, unpack};
    use crate::artifact::{Repository, Tools};

    fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        for (name, content) in files {
            zip.start_file(*name, options).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn artifact(name: &str) -> String {
        format!("name: {name}\nsources:\n  - query: SELECT 1 FROM scope()\n")
    }

    fn file(name: &str, content: impl Into<Vec<u8>>) -> PackFile {
        PackFile {
            name: name.to_owned(),
            content: Ok(content.into()),
        }
    }

    #[test]
    fn a_pack_names_everything_that_is_broken_and_the_rest_is_taken() {
        let (first, second) = (artifact("Custom.A"), artifact("Custom.B"));
        let broken = artifact("Custom.C").replace("scope()", "scope(");
        let no_yaml = b"name: [\n".as_slice();
        let latin = b"name: Custom.D\ndescription: caf\xe9\n".as_slice();
        let bytes = zipped(&[
            ("README.md", b"not an artifact"),
            ("pack/A.yaml", first.as_bytes()),
            ("pack/C.yaml", broken.as_bytes()),
            ("pack/../../D.yml", latin),
            ("__MACOSX/pack/A.yaml", b"\x00\x05"),
            ("pack/E.YAML", no_yaml),
            ("pack/B.yaml", second.as_bytes()),
            ("pack/A again.yaml", first.as_bytes()),
        ]);
        let pack = Pack::read(unpack(&bytes).unwrap());
        let taken: Vec<&str> = pack.taken.iter().map(|taken| taken.file.as_str()).collect();
        assert_eq!(taken, ["pack/A.yaml", "pack/B.yaml"]);
        assert_eq!(pack.refused_files, 4);
        let places: Vec<(&str, u32, u32)> = pack
            .refused
            .iter()
            .map(|problem| (problem.file.as_str(), problem.line, problem.column))
            .collect();
        assert_eq!(
            places,
            [
                ("pack/C.yaml", 3, 32),
                ("pack/../../D.yml", 2, 17),
                ("pack/E.YAML", 1, 7),
                ("pack/A again.yaml", 1, 1),
            ],
            "{:#?}",
            pack.refused
        );
        assert!(
            pack.refused
                .iter()
                .all(|problem| !problem.message.is_empty())
        );
    }

    #[test]
    fn an_archive_that_inflates_without_end_is_refused() {
        // Each file is within its bound; all together are not, at a thousandth of the size.
        let large = vec![b'#'; MOST_FILE];
        let names: Vec<String> = (0..20).map(|number| format!("{number}.yaml")).collect();
        let files: Vec<(&str, &[u8])> = names
            .iter()
            .map(|name| (name.as_str(), large.as_slice()))
            .collect();
        let bytes = zipped(&files);
        assert!(bytes.len() < 100_000, "{}", bytes.len());
        assert_eq!(unpack(&bytes), Err(ArchiveError::Inflates));

        let too_large = vec![b'#'; MOST_FILE + 1];
        let good = artifact("Custom.A");
        let bytes = zipped(&[("big.yaml", &too_large), ("A.yaml", good.as_bytes())]);
        let pack = Pack::read(unpack(&bytes).unwrap());
        assert_eq!((pack.taken.len(), pack.refused.len()), (1, 1));
        assert_eq!(pack.refused[0].file, "big.yaml");
    }

    #[test]
    fn an_archive_of_too_many_entries_or_of_none_is_refused() {
        let names: Vec<String> = (0..=MOST_ENTRIES)
            .map(|number| number.to_string())
            .collect();
        let files: Vec<(&str, &[u8])> = names
            .iter()
            .map(|name| (name.as_str(), b"".as_slice()))
            .collect();
        assert_eq!(unpack(&zipped(&files)), Err(ArchiveError::TooMany));
        let malformed = unpack(b"PK\x03\x04 no more");
        assert!(matches!(malformed, Err(ArchiveError::Malformed(_))));
    }

    #[test]
    fn no_damage_to_an_archive_makes_it_panic() {
        let good = artifact("Custom.A");
        let whole = zipped(&[("A.yaml", good.as_bytes()), ("B.yaml", good.as_bytes())]);
        for place in 0..whole.len() {
            for bit in [0x01, 0x80] {
                let mut damaged = whole.clone();
                damaged[place] ^= bit;
                let _ = unpack(&damaged).map(Pack::read);
            }
            let _ = unpack(&whole[..place]).map(Pack::read);
        }
    }

    #[test]
    fn what_is_missing_is_found_in_the_text_unless_the_pack_has_it() {
        let needy = artifact("Custom.Needy").replace("scope()", "Artifact.Custom.A()");
        let pack = Pack::read([
            file("needy.yaml", needy),
            file("a.yaml", artifact("Custom.A")),
        ]);
        let tools = Tools::default();
        let metadata = BTreeMap::new();
        let of = |repository: &Repository| {
            let compiler = Compiler {
                repository,
                tools: &tools,
                server_metadata: &metadata,
            };
            shortcoming(&compiler, "needy.yaml", &pack.taken[0].loaded.definition)
        };
        let mut repository = Repository::builtin();
        repository.insert(pack.taken[0].loaded.definition.clone());
        let problem = of(&repository).unwrap();
        assert_eq!((problem.line, problem.column), (3, 35), "{problem}");
        assert!(problem.message.contains("Custom.A"), "{problem}");
        repository.insert(pack.taken[1].loaded.definition.clone());
        assert_eq!(of(&repository), None);
    }

    #[test]
    fn an_error_in_a_long_artifact_is_said_at_its_line_and_column() {
        use std::fmt::Write as _;
        let mut text = "name: Custom.Long\nsources:\n  - query: |\n".to_owned();
        for number in 0..296 {
            if number == 271 {
                // Line 275: the parenthesis after `FROM` opens nothing.
                text.push_str("      LET Step271 = SELECT * FROM )\n");
            } else {
                writeln!(
                    text,
                    "      LET Step{number} = SELECT {number} AS N FROM scope()"
                )
                .unwrap();
            }
        }
        text.push_str("      SELECT * FROM Step0\n");
        assert_eq!(text.lines().count(), 300);
        let pack = Pack::read([file("long.yaml", text)]);
        let found = &pack.refused[0];
        assert_eq!((found.line, found.column), (275, 35), "{found}");
        assert_eq!(found.key, "sources[0].query");
    }
}
