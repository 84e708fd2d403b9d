//! Opens the store: checks owner and version, reads the content, and handles damage.

use std::fs::OpenOptions;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::types::FromSqlResult;
use rusqlite::{Connection, OpenFlags};

use super::error::Fault;
use super::{
    CACHE_KIB, Content, Database, Error, FILE, LOG_KEPT, Mark, Memory, VERSION, copy, memory, rows,
};
use crate::config;
use crate::sys::{files, sqlite};
use crate::time::MonoTime;

/// `PRAGMA application_id` of our databases, "PSen": identifies them for file(1) and for us.
pub(super) const APPLICATION: i32 = 0x5053_656e;

/// Damaged databases that are kept. With this many the disk is at fault, and one more would show
/// nothing new.
const ASIDE_MAX: usize = 8;

/// Only the owner may read it: it holds personal addresses.
pub(super) const MODE: u32 = 0o600;

/// What SQLite appends to the name of a database for its write-ahead log.
pub(super) const LOG: &str = "-wal";

/// Of a new state directory.
const DIRECTORY_MODE: u32 = 0o750;

/// One thread owns the connection; the file exists before SQLite opens it, and is not a link.
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE
    .union(OpenFlags::SQLITE_OPEN_NO_MUTEX)
    .union(OpenFlags::SQLITE_OPEN_NOFOLLOW)
    .union(OpenFlags::SQLITE_OPEN_EXRESCODE);

/// Exemptions from blocks; since version 2.
pub(super) const EXEMPTIONS: &str = "
CREATE TABLE exemptions (subject TEXT NOT NULL, exempt TEXT NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (subject, exempt)) STRICT, WITHOUT ROWID;";

const SCHEMA: &str = "
CREATE TABLE mark (one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT NOT NULL, wall INTEGER NOT NULL, clock INTEGER NOT NULL) STRICT;
CREATE TABLE blocks (subject TEXT PRIMARY KEY, prefix INTEGER NOT NULL, since INTEGER NOT NULL, expires INTEGER, port TEXT, reason TEXT NOT NULL,
    sum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE offenders (source TEXT PRIMARY KEY, prefix INTEGER NOT NULL, times INTEGER NOT NULL, last INTEGER NOT NULL, sum INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE TABLE evidence (source TEXT PRIMARY KEY, prefix INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, told INTEGER,
    probes INTEGER NOT NULL, ports BLOB NOT NULL, sum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// The result of opening the store.
#[derive(Debug)]
pub struct Opened {
    /// The writable database, or why it cannot be written.
    pub database: Result<Database, Error>,
    /// Its content, by the clock of its own mark; `None`: it could not be read. A new database has
    /// empty content.
    pub content: Option<Content>,
    /// Warnings for the administrator: what was damaged, and where it is kept.
    pub warnings: Vec<String>,
}

/// Opens or creates the store in `directory` and reads its content. `now` names databases that are
/// set aside.
///
/// A store that cannot be written is still read, if that is possible without writing.
pub fn open(directory: &Path, now: &Mark) -> Opened {
    let mut warnings = Vec::new();
    let (database, content) = match make_directory(directory) {
        Ok(directory) => open_or_recreate(&directory.join(FILE), now, &mut warnings),
        Err(error) => (Err(error), None),
    };
    Opened { database, content, warnings }
}

/// Makes the state directory unless it exists, and checks that no other user can write it. Returns
/// its path without links: SQLite then follows no link at all. Links on the way to the directory are
/// the administrator's.
///
/// # Errors
/// It cannot be made, or other users can write it.
pub fn make_directory(path: &Path) -> Result<PathBuf, Error> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
        .map_err(|source| Fault::NoDirectory(source).of(path))?;
    let facts = files::facts_at(path).map_err(|source| Error::file("look at", path, source))?;
    if let Some((why, remedy)) = config::distrust_directory(path, &facts).into_iter().next() {
        return Err(Fault::Distrusted(why, remedy).of(path));
    }
    std::fs::canonicalize(path).map_err(|source| Error::file("open", path, source))
}

fn open_or_recreate(
    path: &Path,
    now: &Mark,
    warnings: &mut Vec<String>,
) -> (Result<Database, Error>, Option<Content>) {
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        // The administrator has deleted the database, so what it held is not wanted.
        copy::remove(path);
    }
    match open_at(path) {
        Ok((database, content, true)) => (Ok(database), Some(content)),
        Ok((database, mut content, false)) => {
            drop(database);
            let whole = content.blocks.len();
            let copied = copy::read(path);
            let what = copy::describe(&copied);
            if let Ok(copied) = copied {
                content.complete(copied);
            }
            let database = recreate(path, now, &content).map(|(database, aside)| {
                warnings.push(format!(
                    "{} is damaged; {whole} blocks in it were whole, {what}; it lies in {} now",
                    path.display(),
                    aside.display()
                ));
                database
            });
            (database, Some(content))
        }
        Err(error) if error.is_damage() => {
            let copied = copy::read(path);
            let what = copy::describe(&copied);
            let is_copied = copied.is_ok();
            let content = copied.unwrap_or_default();
            let database = recreate(path, now, &content).map(|(database, aside)| {
                warnings.push(format!(
                    "{} cannot be read ({}), {what}; it lies in {} now",
                    path.display(),
                    cause_text(&error),
                    aside.display()
                ));
                database
            });
            let is_known = is_copied || database.is_ok();
            (database, is_known.then_some(content))
        }
        Err(error) => {
            let content = if error.is_others() { None } else { read_only(path).ok() };
            (Err(error), content)
        }
    }
}

fn cause_text(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Opens or creates the database; the flag says whether every row was valid.
fn open_at(path: &Path) -> Result<(Database, Content, bool), Error> {
    check_or_create(path)?;
    // Before SQLite can write to the file: it does so even when it closes a file that was only read.
    let version = read_version(path)?;
    let mut database = Database::at(path, connect(path)?)?;
    if version.is_none() {
        // Before there is a log, so that the file header has our id and version from the first byte
        // on.
        database.run("PRAGMA auto_vacuum = INCREMENTAL;")?;
        let make = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            transaction.execute_batch(&format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; {SCHEMA} {EXEMPTIONS}"))?;
            transaction.commit()
        };
        make(&mut database.connection).map_err(|source| Error::sqlite("write", path, source))?;
    }
    database.run(&format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = {LOG_KEPT};"))?;
    database.run(memory::SCHEMA)?;
    let (content, whole) = load(&database.connection, path, version.unwrap_or(VERSION))?;
    if version == Some(1) {
        database.upgrade(&content)?;
    }
    Ok((database, content, whole))
}

/// Creates the file if there is none; an error if it cannot be ours.
pub(super) fn check_or_create(path: &Path) -> Result<(), Error> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // O_EXCL follows no link (open(2)). SQLite gives its log the mode of the database.
            let created = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
            return created.map(drop).map_err(|source| Error::file("create", path, source));
        }
        Err(source) => return Err(Error::file("open", path, source)),
    };
    let not_ours = |what| Err(Fault::NotOurs(what).of(path));
    if !found.is_file() {
        return not_ours(if found.is_symlink() { "a symbolic link" } else { "no file" });
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return not_ours("another user's file");
    }
    if found.nlink() > 1 {
        return not_ours("a file with a second name");
    }
    if found.mode() & 0o777 & !MODE != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))
            .map_err(|source| Error::file("change the mode of", path, source))?;
    }
    Ok(())
}

pub(super) fn connect(path: &Path) -> Result<Connection, Error> {
    let open = || {
        let connection = Connection::open_with_flags(path, FLAGS)?;
        sqlite::without_lookaside(&connection);
        connection.execute_batch(&format!(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -{CACHE_KIB}; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;
             PRAGMA cell_size_check = ON; PRAGMA busy_timeout = 0;"
        ))?;
        Ok(connection)
    };
    open().map_err(|source| Error::sqlite("open", path, source))
}

/// Reads the version of the tables from the file header (sqlite.org/fileformat.html, 1.3), without
/// SQLite; `None`: the file is empty.
pub(super) fn read_version(path: &Path) -> Result<Option<i32>, Error> {
    read_version_up_to(path, VERSION)
}

/// The same for a database whose newest version is `newest`.
pub(super) fn read_version_up_to(path: &Path, newest: i32) -> Result<Option<i32>, Error> {
    let mut file = files::open_itself(path).map_err(|source| Error::file("open", path, source))?;
    let head =
        files::read_up_to(&mut file, 100).map_err(|source| Error::file("read", path, source))?;
    let number = |at: usize| {
        head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes)
    };
    match (number(68), number(60)) {
        _ if head.is_empty() => Ok(None),
        _ if !head.starts_with(b"SQLite format 3\0") || head.len() < 100 => {
            Err(Fault::Damaged.of(path))
        }
        (Some(APPLICATION), Some(version)) if (1..=newest).contains(&version) => Ok(Some(version)),
        (Some(APPLICATION), Some(version)) if version > newest => {
            Err(Fault::Newer(version).of(path))
        }
        (Some(APPLICATION), _) => Err(Fault::Damaged.of(path)),
        _ => Err(Fault::NotOurs("another program's database").of(path)),
    }
}

/// Reads all valid rows; the flag says whether every row was valid. An unreadable page ends its
/// table.
#[doc(hidden)]
pub fn load(connection: &Connection, path: &Path, version: i32) -> Result<(Content, bool), Error> {
    let mark = connection.query_row("SELECT boot, wall, clock FROM mark", [], |row| {
        // Both times are milliseconds, never negative.
        Ok(Mark {
            boot: row.get(0)?,
            wall: row.get::<_, MonoTime>(1)?.millis(),
            clock: row.get(2)?,
        })
    });
    let mark = match mark {
        Ok(mark) => mark,
        // The database was created and never written.
        Err(rusqlite::Error::QueryReturnedNoRows) => return Ok((Content::default(), true)),
        Err(source) => return Err(damage(path, source)),
    };
    let mut whole = true;
    let mut blocks = table(connection, path, rows::ALL_BLOCKS, &mut whole, rows::block)?;
    if version > 1 {
        let exemptions =
            table(connection, path, rows::ALL_EXEMPTIONS, &mut whole, rows::exemption)?;
        rows::give_exemptions(&mut blocks, &mut rows::by_block(exemptions));
    }
    let offenders = table(connection, path, rows::ALL_OFFENDERS, &mut whole, rows::offender)?;
    let evidence = table(connection, path, rows::ALL_EVIDENCE, &mut whole, rows::evidence)?;
    let admin = |row: &rows::Columns<'_>| memory::admin(row, &mark);
    let admins = table(connection, path, memory::ALL_ADMINS, &mut whole, admin)?;
    let service = |row: &rows::Columns<'_>| memory::service(row, &mark);
    let services = table(connection, path, memory::ALL_SERVICES, &mut whole, service)?;
    let memory = Memory::stored(admins, services);
    Ok((Content { mark, blocks, offenders, evidence, memory }, whole))
}

/// An error due to the content of the file, not to the disk.
fn damage(path: &Path, source: rusqlite::Error) -> Error {
    match source {
        rusqlite::Error::SqliteFailure(..) | rusqlite::Error::SqlInputError { .. } => {
            Error::sqlite("read", path, source)
        }
        _ => Fault::Damaged.of(path),
    }
}

fn table<T>(
    connection: &Connection,
    path: &Path,
    question: &str,
    whole: &mut bool,
    read: impl Fn(&rows::Columns<'_>) -> FromSqlResult<T>,
) -> Result<Vec<T>, Error> {
    let mut all = Vec::new();
    match rows::read_into(&mut all, connection, question, read) {
        Ok(is_whole) => *whole &= is_whole,
        Err(source) => match damage(path, source) {
            error if error.is_damage() => *whole = false,
            error => return Err(error),
        },
    }
    Ok(all)
}

/// Reads the store when the disk cannot be written. SQLite needs to write beside the file to read
/// its log, so it reads a copy in a private directory.
pub(super) fn read_only(path: &Path) -> Result<Content, Error> {
    let Some(version) = read_version(path)? else { return Ok(Content::default()) };
    // The name must be unpredictable; mkdir(2) fails if it is taken anyway.
    let random = std::hash::RandomState::new().build_hasher().finish();
    let copy = std::env::temp_dir().join(format!("portsentry-{random:016x}"));
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&copy)
        .map_err(|source| Error::file("create", &copy, source))?;
    let read = || {
        let there = copy.join(FILE);
        for suffix in ["", LOG] {
            match std::fs::copy(with_suffix(path, suffix), with_suffix(&there, suffix)) {
                Err(error) if suffix.is_empty() || error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::file("copy", path, error));
                }
                _ => {}
            }
        }
        let connection = connect(&there)?;
        connection
            .execute_batch(memory::SCHEMA)
            .map_err(|source| Error::sqlite("change", &there, source))?;
        load(&connection, path, version).map(|(content, _)| content)
    };
    let content = read();
    if let Err(error) = std::fs::remove_dir_all(&copy) {
        log::warn!("cannot remove {}: {error}", copy.display());
    }
    content
}

/// Sets the database aside and creates a new one with the valid rows.
fn recreate(path: &Path, now: &Mark, content: &Content) -> Result<(Database, PathBuf), Error> {
    let aside = set_aside(path, now)?;
    let (mut database, ..) = open_at(path)?;
    if *content != Content::default() {
        database.replace(content)?;
    }
    Ok((database, aside))
}

/// Renames the database and its log, and keeps them for inspection.
///
/// # Errors
/// It cannot be renamed, or there are so many already that the disk must be at fault.
pub fn set_aside(path: &Path, now: &Mark) -> Result<PathBuf, Error> {
    let seconds = now.wall / 1000;
    let aside = (0..ASIDE_MAX as u64)
        .map(|more| with_suffix(path, &format!(".damaged-{}", seconds.saturating_add(more))))
        .find(|aside| aside.symlink_metadata().is_err())
        .filter(|_| count_aside(path) < ASIDE_MAX)
        .ok_or_else(|| Fault::Damaged.of(path))?;
    let rename = |from: &Path, to: &Path| match std::fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("set aside", from, error))
        }
        _ => Ok(()),
    };
    // The log first: without its database it is harmless, but beside a new database it would be
    // replayed into it.
    rename(&with_suffix(path, LOG), &with_suffix(&aside, LOG))?;
    rename(path, &aside)?;
    Ok(aside)
}

fn count_aside(path: &Path) -> usize {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let start = format!("{name}.damaged-");
    let is_aside = |name: &std::ffi::OsStr| {
        name.to_str().is_some_and(|name| name.starts_with(&start) && !name.ends_with(LOG))
    };
    path.parent()
        .and_then(|directory| std::fs::read_dir(directory).ok())
        .map_or(0, |entries| entries.flatten().filter(|entry| is_aside(&entry.file_name())).count())
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
