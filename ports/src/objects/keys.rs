//! Which keys are allowed, so that every store allows the same.

use super::ObjectsError;

/// The longest key, in bytes.
pub const MAX_KEY: usize = 512;
/// The longest part of a key between two slashes, in bytes (file systems allow no more than 255).
pub const MAX_PART: usize = 200;

/// Refuses a key that is not `[a-z0-9/_.-]+` of at most [`MAX_KEY`] bytes, has an empty part, a
/// part over [`MAX_PART`] bytes, or a part that is `.` or holds `..`.
pub fn check_key(key: &str) -> Result<(), ObjectsError> {
    let refuse = |why: &str| {
        Err(ObjectsError::Refused(format!(
            "key {:?} {why}",
            key.chars().take(80).collect::<String>()
        )))
    };
    if key.is_empty() || key.len() > MAX_KEY {
        return refuse("is empty or too long");
    }
    if !key.bytes().all(allowed) {
        return refuse("has a character that is not allowed");
    }
    if key
        .split('/')
        .any(|part| part.is_empty() || part.len() > MAX_PART || part == "." || part.contains(".."))
    {
        return refuse("has a part that is not allowed");
    }
    Ok(())
}

/// Refuses a prefix that no key can have. Any beginning of a key is allowed, also none.
pub fn check_prefix(prefix: &str) -> Result<(), ObjectsError> {
    if prefix.len() <= MAX_KEY && prefix.bytes().all(allowed) && !prefix.contains("..") {
        return Ok(());
    }
    Err(ObjectsError::Refused(format!(
        "prefix {:?} is of no key",
        prefix.chars().take(80).collect::<String>()
    )))
}

fn allowed(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'/' | b'_' | b'.' | b'-')
}
