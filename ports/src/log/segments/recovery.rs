//! Opens the segments of a topic as a crash has left them.
//!
//! What was not acknowledged may be cut off the end: a frame that is not whole and after which
//! nothing whole follows. Everything else that is damaged is refused by file and byte.

use super::super::LogError;
use super::super::local::TopicInfo;
use super::disk::{Disk, failed};
use super::format::{self, Frame, Header, Item};
use super::items::{Broken, Items};
use super::segment::{self, Segment};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const CHUNK: usize = 1 << 20;

/// Up to where a segment was known to be durable: its number and bytes.
pub(super) type Durable = (u64, u64);

/// The segments of a topic, oldest first; the last one is to be written on.
pub(super) fn open(
    dir: &Path,
    info: &TopicInfo,
    durable: Durable,
    disk: &Disk,
) -> Result<Vec<Segment>, LogError> {
    let mut headers = headers(dir, info, disk)?;
    drop_covered(&mut headers, disk)?;
    drop_unused(&mut headers, durable, disk)?;
    for pair in headers.windows(2) {
        let (before, after) = (&pair[0].1, &pair[1].1);
        if before.id + 1 != after.id {
            let path = segment::path(dir, before.id + 1, 0);
            return Err(LogError::Refused(format!(
                "segment {} is missing: restore it from a backup",
                path.display()
            )));
        }
    }
    let mut segments = Vec::with_capacity(headers.len());
    for (index, (path, header)) in headers.iter().enumerate() {
        let after = headers.get(index + 1).map(|(_, after)| after);
        segments.push(match after {
            Some(after) => sealed(path, header, after)?,
            None => last(path, header, disk)?,
        });
    }
    check_durable(&segments, dir, durable)?;
    Ok(segments)
}

/// Reads the headers by number; a last file that never got a whole one is removed.
fn headers(dir: &Path, info: &TopicInfo, disk: &Disk) -> Result<Vec<(PathBuf, Header)>, LogError> {
    let listed = fs::read_dir(dir).map_err(|error| failed("list", dir, &error))?;
    let mut files = Vec::new();
    for entry in listed {
        let path = entry.map_err(|error| failed("list", dir, &error))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some((id, version)) = segment::parse_name(name) {
            files.push((id, version, path));
        } else if name.ends_with(".new") {
            disk.remove(&path)
                .map_err(|error| failed("remove", &path, &error))?;
        }
    }
    files.sort();
    let count = files.len();
    let mut headers = Vec::with_capacity(count);
    for (index, (id, version, path)) in files.into_iter().enumerate() {
        let (header, whole) = header(&path, version, info.partitions)?;
        match header {
            Some(header) if header.id == id && fits(&header, info) => headers.push((path, header)),
            // Its records are only written once its header is durable.
            None if index + 1 == count && !whole => {
                disk.remove(&path)
                    .map_err(|error| failed("remove", &path, &error))?;
            }
            _ => {
                return Err(damaged(
                    &path,
                    0,
                    "its header is damaged or of another topic",
                ));
            }
        }
    }
    Ok(headers)
}

fn fits(header: &Header, info: &TopicInfo) -> bool {
    header.generation == info.generation && header.base.offsets.len() == info.partitions as usize
}

/// The header if it is intact, and whether the file is longer than one.
fn header(path: &Path, version: u32, partitions: u32) -> Result<(Option<Header>, bool), LogError> {
    let len = Header::len(partitions);
    let mut bytes = Vec::with_capacity(len + 1);
    File::open(path)
        .and_then(|file| file.take(len as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| failed("read", path, &error))?;
    Ok((Header::decode(&bytes, version), bytes.len() > len))
}

/// Removes segments whose records a compacted one has taken over.
fn drop_covered(headers: &mut Vec<(PathBuf, Header)>, disk: &Disk) -> Result<(), LogError> {
    let covers: Vec<(u64, u64, u32)> = headers
        .iter()
        .map(|(_, h)| (h.covers_from, h.id, h.version))
        .collect();
    let covered = |header: &Header| {
        covers.iter().any(|(from, to, version)| {
            (*from..=*to).contains(&header.id) && *version > header.version
        })
    };
    let gone: Vec<PathBuf> = headers
        .iter()
        .filter(|(_, h)| covered(h))
        .map(|(path, _)| path.clone())
        .collect();
    headers.retain(|(_, header)| !covered(header));
    for path in gone {
        for path in [path.with_extension("idx"), path] {
            disk.remove(&path)
                .map_err(|error| failed("remove", &path, &error))?;
        }
    }
    Ok(())
}

/// Removes a last segment that was begun but never came into use, while the one before it was
/// written on.
fn drop_unused(
    headers: &mut Vec<(PathBuf, Header)>,
    durable: Durable,
    disk: &Disk,
) -> Result<(), LogError> {
    let [.., (before, _), (path, header)] = headers.as_slice() else {
        return Ok(());
    };
    let len = |path: &Path| {
        fs::metadata(path)
            .map(|meta| meta.len())
            .map_err(|error| failed("read", path, &error))
    };
    if header.id == durable.0 || header.version > 0 || len(before)? <= header.before_len {
        return Ok(());
    }
    let mut segment = Segment::empty(path.clone(), header.clone());
    let file = File::open(path).map_err(|error| failed("open", path, &error))?;
    scan(&mut segment, &file, len(path)?)?;
    if segment.is_empty() {
        disk.remove(path)
            .map_err(|error| failed("remove", path, &error))?;
        headers.pop();
    }
    Ok(())
}

/// A segment that is not the last: it ends where the next one says, and is whole.
fn sealed(path: &Path, header: &Header, after: &Header) -> Result<Segment, LogError> {
    let mut segment = Segment::empty(path.to_owned(), header.clone());
    let on_disk = fs::metadata(path)
        .map_err(|error| failed("read", path, &error))?
        .len();
    let len = if header.version == 0 {
        after.before_len
    } else {
        on_disk
    };
    if on_disk < len {
        return Err(damaged(path, on_disk, "it is shorter than it was"));
    }
    if !(segment.read_summary() && segment.len == len) {
        segment = Segment::empty(path.to_owned(), header.clone());
        let file = File::open(path).map_err(|error| failed("open", path, &error))?;
        scan(&mut segment, &file, len)?.map_or(Ok(()), |pos| {
            Err(damaged(path, pos, "acknowledged records are not readable"))
        })?;
    }
    segment.end = after.base.clone();
    Ok(segment)
}

/// The last segment: what is torn at its end is cut off.
fn last(path: &Path, header: &Header, disk: &Disk) -> Result<Segment, LogError> {
    let mut segment = Segment::empty(path.to_owned(), header.clone());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| failed("open", path, &error))?;
    let len = file
        .metadata()
        .map_err(|error| failed("read", path, &error))?
        .len();
    let Some(torn) = scan(&mut segment, &file, len)? else {
        return Ok(segment);
    };
    let mut rest = vec![0; usize::try_from(len - torn).unwrap_or(0)];
    file.read_exact_at(&mut rest, torn)
        .map_err(|error| failed("read", path, &error))?;
    let begun = rest.get(1..).unwrap_or_default();
    if format::find_frame(begun, segment.commit + 2, header.salt).is_some() {
        return Err(damaged(path, torn, "acknowledged records are not readable"));
    }
    tracing::warn!(
        path = %path.display(), byte = torn, bytes = len - torn,
        "cut off a write that was not finished and never acknowledged"
    );
    disk.cut(path, &file, torn)
        .and_then(|()| disk.sync(path, &file))
        .map_err(|error| failed("cut", path, &error))?;
    Ok(segment)
}

/// Counts every whole group commit. Gives the byte after the last one unless that is `len`.
fn scan(segment: &mut Segment, file: &File, len: u64) -> Result<Option<u64>, LogError> {
    let mut items = Items::new(file, segment.header.salt, segment.len, len, CHUNK);
    while items.pos() < len {
        match commit(segment, &mut items) {
            Ok(true) => segment.len = items.pos(),
            Ok(false) | Err(Broken::Damaged(_)) => return Ok(Some(segment.len)),
            Err(Broken::Io(error)) => return Err(failed("read", &segment.path, &error)),
        }
    }
    Ok(None)
}

/// Counts one group commit if it is whole.
fn commit(segment: &mut Segment, items: &mut Items<'_>) -> Result<bool, Broken> {
    let Some(Item::Frame(Frame {
        commit,
        bytes,
        records,
    })) = items.next()?
    else {
        return Ok(false);
    };
    if commit <= segment.commit {
        return Ok(false);
    }
    let start = items.pos();
    let mut metas = Vec::new();
    let (mut seq, mut offsets) = (segment.end.seq, segment.end.offsets.clone());
    for _ in 0..records {
        let pos = items.pos();
        let Some(Item::Record(record)) = items.next()? else {
            return Ok(false);
        };
        let meta = record.meta;
        let Some(offset) = offsets.get_mut(meta.partition as usize) else {
            return Ok(false);
        };
        if !record.intact(segment.header.salt) || meta.seq < seq || meta.offset < *offset {
            return Ok(false);
        }
        (seq, *offset) = (meta.seq + 1, meta.offset + 1);
        metas.push((pos, meta));
    }
    if items.pos() - start != bytes {
        return Ok(false);
    }
    for (pos, meta) in metas {
        segment.note(pos, &meta);
    }
    segment.commit = commit;
    Ok(true)
}

/// Refuses to open when less is there than was once durable.
fn check_durable(segments: &[Segment], dir: &Path, durable: Durable) -> Result<(), LogError> {
    let (id, len) = durable;
    match segments.last() {
        Some(last) if last.header.id == id && last.len < len => Err(damaged(
            &last.path,
            last.len,
            "acknowledged records are not readable",
        )),
        Some(last) if last.header.id >= id => Ok(()),
        _ => Err(LogError::Refused(format!(
            "segment {} is missing: restore it from a backup",
            segment::path(dir, id, 0).display()
        ))),
    }
}

/// The refusal of a damaged file.
pub(super) fn damaged(path: &Path, pos: u64, why: &str) -> LogError {
    LogError::Refused(format!(
        "segment {} is damaged at byte {pos}: {why}; restore the file from a backup",
        path.display()
    ))
}
