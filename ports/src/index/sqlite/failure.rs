//! What an error of SQLite means to a caller.

use crate::index::IndexError;
use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

/// Sorts an error into try again, refused and full.
pub(super) fn index_error(error: rusqlite::Error) -> IndexError {
    let text = error.to_string();
    let rusqlite::Error::SqliteFailure(failure, _) = &error else {
        return IndexError::Refused(text);
    };
    match failure.code {
        ErrorCode::DiskFull => IndexError::Full(text),
        // Growing the shared memory beside the file is where a full disk shows first.
        ErrorCode::SystemIoFailure if failure.extended_code == SQLITE_IOERR_SHMSIZE => {
            IndexError::Full(text)
        }
        ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::OperationInterrupted
        | ErrorCode::OutOfMemory
        | ErrorCode::SchemaChanged => IndexError::Unavailable(text),
        _ => IndexError::Refused(text),
    }
}
