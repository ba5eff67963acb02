//! Zip archives of artifacts, as people exchange them.
//!
//! An archive is a stranger's: its sizes, its number of entries and what they inflate to are
//! bounded, and the names in it are values that findings carry, nothing more.

use std::io::{Cursor, Read};

use zip::ZipArchive;
use zip::read::ZipFile;

use super::pack::{MOST_FILE, PackFile, too_large};

/// Bytes of an archive that is read.
pub const MOST_ARCHIVE: usize = 16 << 20;
/// Entries of an archive that is read, whatever they are.
pub(super) const MOST_ENTRIES: usize = 4_096;
/// Bytes of all files of a pack.
pub const MOST_PACK: usize = 32 << 20;

/// What each entry begins with in the list of an archive's entries.
const ENTRY: &[u8] = b"PK\x01\x02";

/// Why an archive is not read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Too large.
    #[error("the archive has {0} bytes, at most {MOST_ARCHIVE} are read: cut it into several")]
    TooLarge(usize),
    /// Too many entries.
    #[error(
        "the archive has more than {MOST_ENTRIES} entries, no more are read: cut it into several"
    )]
    TooMany,
    /// Its files inflate to too much.
    #[error(
        "the files of the archive inflate to more than {MOST_PACK} bytes, no more are read: cut it into several"
    )]
    Inflates,
    /// No archive.
    #[error("this is no zip archive that can be read: {0}")]
    Malformed(String),
}

/// Whether bytes begin as a zip archive does.
#[must_use]
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

/// Whether a name is that of an artifact's file: `.yaml` or `.yml`, and nothing hidden.
#[must_use]
pub fn is_artifact_file(name: &str) -> bool {
    let mut parts = name.split(['/', '\\']);
    let hidden = parts.any(|part| {
        part == "__MACOSX" || (part.starts_with('.') && !part.trim_matches('.').is_empty())
    });
    let lower = name.to_ascii_lowercase();
    !hidden && (lower.ends_with(".yaml") || lower.ends_with(".yml"))
}

/// The artifacts' files of an archive, in its order; other files are passed over. A file that
/// cannot be read says why in its place.
///
/// # Errors
/// When nothing of the archive is to be believed.
pub fn unpack(bytes: &[u8]) -> Result<Vec<PackFile>, ArchiveError> {
    if bytes.len() > MOST_ARCHIVE {
        return Err(ArchiveError::TooLarge(bytes.len()));
    }
    // Before the archive's own word is taken for how many there are.
    let entries = bytes.windows(ENTRY.len()).filter(|at| *at == ENTRY);
    if entries.take(MOST_ENTRIES + 1).count() > MOST_ENTRIES {
        return Err(ArchiveError::TooMany);
    }
    let malformed = |error: zip::result::ZipError| ArchiveError::Malformed(error.to_string());
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(malformed)?;
    let mut left = MOST_PACK;
    let mut files = Vec::new();
    for index in 0..archive.len() {
        let unreadable = |error| format!("it cannot be read from the archive: {error}");
        let name = match archive.name_for_index(index) {
            Some(Ok(name)) if is_artifact_file(&name) => name.into_owned(),
            Some(Ok(_)) | None => continue,
            Some(Err(error)) => {
                let (name, content) = (format!("entry {index}"), Err(unreadable(error)));
                files.push(PackFile { name, content });
                continue;
            }
        };
        let content = match archive.by_index(index) {
            Ok(file) => inflate(file, &mut left)?,
            Err(error) => Err(unreadable(error)),
        };
        files.push(PackFile { name, content });
    }
    Ok(files)
}

fn inflate(
    mut file: ZipFile<'_, Cursor<&[u8]>>,
    left: &mut usize,
) -> Result<Result<Vec<u8>, String>, ArchiveError> {
    let mut content = Vec::new();
    let most = MOST_FILE.min(*left) as u64 + 1;
    let read = file.by_ref().take(most).read_to_end(&mut content);
    if content.len() > *left {
        return Err(ArchiveError::Inflates);
    }
    *left -= content.len();
    if content.len() > MOST_FILE {
        return Ok(Err(too_large()));
    }
    Ok(read
        .map(|_| content)
        .map_err(|error| format!("it cannot be inflated: {error}")))
}
