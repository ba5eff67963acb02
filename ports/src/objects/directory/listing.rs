//! Listing files in the order of keys: a folder `a` stands where the text `a/` stands.

use crate::objects::ObjectEntry;
use std::io::{ErrorKind, Result};
use std::path::Path;

/// Objects below `root` as [`Objects::list`](crate::Objects::list) wants them.
pub(super) fn list(
    root: &Path,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<ObjectEntry>> {
    let mut listing = Listing {
        prefix,
        after: after.unwrap_or_default(),
        limit,
        found: Vec::new(),
    };
    listing.walk(root, "")?;
    Ok(listing.found)
}

struct Listing<'a> {
    prefix: &'a str,
    /// Keys are not empty, so the empty text comes before all of them.
    after: &'a str,
    limit: usize,
    found: Vec<ObjectEntry>,
}

impl Listing<'_> {
    fn walk(&mut self, folder: &Path, key: &str) -> Result<()> {
        let mut names = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            names => names?
                .map(|entry| {
                    let entry = entry?;
                    let name = entry.file_name().to_string_lossy().into_owned();
                    Ok(if entry.file_type()?.is_dir() {
                        Some(format!("{name}/"))
                    } else {
                        name.strip_suffix('=').map(str::to_owned)
                    })
                })
                .filter_map(Result::transpose)
                .collect::<Result<Vec<_>>>()?,
        };
        names.sort_unstable();
        for name in names {
            if self.found.len() >= self.limit {
                return Ok(());
            }
            let key = format!("{key}{name}");
            if let Some(below) = name.strip_suffix('/') {
                if self.reaches(&key) {
                    self.walk(&folder.join(below), &key)?;
                }
            } else if key.starts_with(self.prefix) && key.as_str() > self.after {
                self.add(&folder.join(format!("{name}=")), key)?;
            }
        }
        Ok(())
    }

    /// Whether a folder (its key ends with `/`) may hold a key that is wanted.
    fn reaches(&self, folder: &str) -> bool {
        (folder.starts_with(self.prefix) || self.prefix.starts_with(folder))
            && (folder > self.after || self.after.starts_with(folder))
    }

    fn add(&mut self, path: &Path, key: String) -> Result<()> {
        match std::fs::metadata(path) {
            // Deleted meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            metadata => {
                let size = metadata?.len();
                self.found.push(ObjectEntry { key, size });
                Ok(())
            }
        }
    }
}
