//! The copy of the database: what is restored when the database is damaged. One bad page may be the
//! one that leads to all others.
//!
//! It is as old as a minute, or more if the database is large. One that cannot be renewed is removed:
//! it would restore blocks that have ended since.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::open::{MODE, connect, load, read_version};
use super::{COPY, Content, Database, Error};

/// Name of the copy that is being written, beside it.
const NEW: &str = "portsentry-copy.new";

/// Least time between two copies.
const EVERY: Duration = Duration::from_secs(60);

/// Bytes that copies write in a second on average, for databases that are too large for one a
/// minute: less than two gigabytes a day.
const RATE: u64 = 20_000;

impl Database {
    /// Copies the whole content. Returns the time until the next copy.
    ///
    /// SQLite reads every row for it, so a database with a damaged structure does not replace a good
    /// copy.
    ///
    /// # Errors
    /// SQLite or the system failed. There is no copy any more, unless the database is damaged.
    pub fn copy(&self) -> Result<Duration, Error> {
        let result = self.write_copy();
        if let Err(error) = &result {
            let _ = std::fs::remove_file(self.path().with_file_name(NEW));
            if !error.is_damage() {
                remove(self.path());
            }
        }
        let size = result?;
        Ok(EVERY.max(Duration::from_secs(size / RATE)))
    }

    fn write_copy(&self) -> Result<u64, Error> {
        let (new, copy) = (self.path().with_file_name(NEW), path_of(self.path()));
        let failed = |verb, path: &Path| {
            let path = path.to_owned();
            move |source| Error::file(verb, &path, source)
        };
        // It may be left from a crash.
        let _ = std::fs::remove_file(&new);
        // SQLite accepts an empty file, and would make one that others can read.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&new)
            .map_err(failed("create", &new))?;
        let name = new.to_str().ok_or_else(|| io::ErrorKind::InvalidFilename.into());
        let name = name.map_err(failed("name", &new))?;
        self.connection
            .execute("VACUUM INTO ?", [name])
            .map_err(|source| Error::sqlite("copy", self.path(), source))?;
        file.sync_all().map_err(failed("write", &new))?;
        std::fs::rename(&new, &copy).map_err(failed("replace", &copy))?;
        let directory = copy.parent().unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("write", directory))?;
        Ok(file.metadata().map_err(failed("look at", &copy))?.len())
    }
}

fn path_of(database: &Path) -> PathBuf {
    database.with_file_name(COPY)
}

/// Removes the copy of a database.
pub(super) fn remove(database: &Path) {
    match std::fs::remove_file(path_of(database)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("cannot remove {}: {error}", path_of(database).display());
        }
        _ => {}
    }
}

/// The valid rows of the copy of a database.
///
/// # Errors
/// There is none, or it cannot be read.
pub(super) fn read(database: &Path) -> Result<Content, Error> {
    let path = path_of(database);
    let Some(version) = read_version(&path)? else { return Ok(Content::default()) };
    load(&connect(&path)?, &path, version).map(|(content, _)| content)
}

/// What a warning says of the copy.
pub(super) fn describe(copied: &Result<Content, Error>) -> String {
    match copied {
        Ok(content) => {
            let at = i64::try_from(content.mark.wall)
                .ok()
                .and_then(|wall| Timestamp::from_millisecond(wall).ok());
            let at = at.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ");
            format!("the copy of {at} has {} blocks", content.blocks.len())
        }
        Err(error) => format!("and {error}"),
    }
}
