//! The artifacts' files behind the paths that people give: files, folders and zip archives.

use anyhow::{Context, Result, anyhow};
use nublar_core::artifact::{MOST_ARCHIVE, PackFile, is_archive, is_artifact_file, unpack};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What one path holds, in order: a YAML file, whatever it is called; the YAML files of a folder
/// and its folders; those of a zip archive; or, for `-`, standard input.
pub(super) fn files(path: &Path) -> Result<Vec<PackFile>> {
    let shown = path.display().to_string();
    if path == Path::new("-") {
        let bytes = bounded(std::io::stdin()).context("cannot read standard input")?;
        return of_bytes("standard input".to_owned(), bytes);
    }
    if path.is_dir() {
        let mut found = Vec::new();
        find(path, &mut found)?;
        found.sort();
        return found.iter().map(|file| one(file)).collect();
    }
    let bytes = File::open(path)
        .and_then(bounded)
        .with_context(|| format!("cannot read {shown}"))?;
    of_bytes(shown, bytes)
}

fn of_bytes(name: String, bytes: Vec<u8>) -> Result<Vec<PackFile>> {
    if !is_archive(&bytes) {
        let content = Ok(bytes);
        return Ok(vec![PackFile { name, content }]);
    }
    let mut files = unpack(&bytes).map_err(|error| anyhow!("{name}: {error}"))?;
    for file in &mut files {
        file.name = format!("{name}: {}", file.name);
    }
    Ok(files)
}

/// No file that is larger is an archive or an artifact.
fn bounded(file: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MOST_ARCHIVE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn one(path: &Path) -> Result<PackFile> {
    let name = path.display().to_string();
    let content = File::open(path).and_then(bounded);
    let content = Ok(content.with_context(|| format!("cannot read {name}"))?);
    Ok(PackFile { name, content })
}

/// Links to folders are not followed: they may go in circles.
fn find(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let (path, kind) = (entry.path(), entry.file_type().with_context(unreadable)?);
        let name = entry.file_name();
        if kind.is_dir() {
            if !name.to_string_lossy().starts_with('.') {
                find(&path, found)?;
            }
        } else if is_artifact_file(&name.to_string_lossy()) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}
