//! Inflating what stands in stored messages.

use libdeflater::{DecompressionError, Decompressor};

/// The largest block that is inflated; an agent's own limit is far below.
const MOST_INFLATED: usize = 256 << 20;

/// Why a zlib stream gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// It gives more bytes than anything of its kind may have.
    #[error("a stored zlib stream is too large")]
    TooLarge,
    /// It is no zlib stream, or a part of one.
    #[error("a stored zlib stream is damaged")]
    Damaged,
}

/// Inflates a zlib stream whose inflated size is said to be `size`; what it says may be wrong.
pub fn inflate(zlib: &[u8], size: usize) -> Result<Vec<u8>, InflateError> {
    inflate_at_most(zlib, size, MOST_INFLATED)
}

/// The same, for what has at most so many bytes.
pub(super) fn inflate_at_most(
    zlib: &[u8],
    size: usize,
    most: usize,
) -> Result<Vec<u8>, InflateError> {
    let mut room = size.clamp(1, most);
    loop {
        let mut inflated = vec![0; room];
        match Decompressor::new().zlib_decompress(zlib, &mut inflated) {
            Ok(length) => {
                inflated.truncate(length);
                return Ok(inflated);
            }
            Err(DecompressionError::InsufficientSpace) if room < most => {
                room = (room * 4).min(most);
            }
            Err(DecompressionError::InsufficientSpace) => return Err(InflateError::TooLarge),
            Err(DecompressionError::BadData) => return Err(InflateError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libdeflater::{CompressionLvl, Compressor};

    #[test]
    fn what_a_stream_says_of_its_size_may_be_wrong() {
        let data = vec![7; 100_000];
        let mut zlib = vec![0; 1_000];
        let length = Compressor::new(CompressionLvl::default()).zlib_compress(&data, &mut zlib);
        zlib.truncate(length.unwrap_or_default());
        for size in [0, 1, 99_999, 100_000, 1_000_000] {
            assert_eq!(inflate(&zlib, size), Ok(data.clone()), "{size}");
        }
        assert_eq!(inflate_at_most(&zlib, 1, 100_000), Ok(data));
        assert_eq!(
            inflate_at_most(&zlib, 100_000, 99_999),
            Err(InflateError::TooLarge)
        );
        assert_eq!(inflate(&zlib[..10], 100_000), Err(InflateError::Damaged));
        assert_eq!(inflate(b"no zlib", 10), Err(InflateError::Damaged));
    }
}
