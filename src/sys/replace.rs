//! Files that are replaced as a whole, so that a reader or a crash finds the old one or the new one (rename(2)).
//!
//! A directory is locked while a file in it is replaced (flock(2)): the file itself becomes another with each replacement, so that a lock on it
//! would be one on what is gone, and a lock file would be litter among the administrator's files. Who does not ask for the lock is noticed by
//! the [`Stamp`].

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Mode, RenameFlags, Uid, XattrFlags};

use super::files;

/// What tells one state of a file from another (stat(2)): a new file has another inode, a file that was written to another time or size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }

    /// Of the file at `path`; symbolic links are followed. `None`: there is none.
    ///
    /// # Errors
    /// What stat(2) says.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::new(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A file as it was found, open.
#[derive(Debug)]
pub struct Found {
    file: File,
    metadata: Metadata,
}

impl Found {
    /// Opens the file at `path`; `None`: there is none.
    ///
    /// # Errors
    /// What open(2) and fstat(2) say.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match files::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        Ok(Some(Self { file, metadata }))
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.metadata.is_file()
    }

    /// Bytes it had when it was opened.
    pub fn size(&self) -> u64 {
        self.metadata.len()
    }

    /// Its state when it was opened, that is before it was read.
    pub fn stamp(&self) -> Stamp {
        Stamp::new(&self.metadata)
    }

    /// The content, but never more than `limit` bytes of it.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn read_up_to(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        files::read_up_to(&mut self.file, limit)
    }
}

/// A directory that no other process of this program replaces files in.
#[derive(Debug)]
pub struct Directory {
    file: File,
    path: PathBuf,
}

/// What became of a replacement.
#[derive(Debug)]
pub struct Replaced {
    /// The state of the new file.
    pub stamp: Stamp,
    /// Names of extended attributes (an SELinux label, an access control list) that the new file does not have, because the system refused.
    pub lost: Vec<String>,
}

/// Why a file was not replaced.
#[derive(Debug)]
pub enum Failed {
    /// It is another one than the one that was read.
    Changed,
    /// The system refused: what was tried, and its words.
    Io(&'static str, io::Error),
}

impl Directory {
    /// Locks the directory at `path` until the value is dropped; `None`: another has the lock. Does not wait.
    ///
    /// # Errors
    /// What open(2) and flock(2) say.
    pub fn lock(path: &Path) -> io::Result<Option<Self>> {
        let file = open_directory(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file, path: path.to_owned() })),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts `bytes` in the place of the file `name`: written beside it, with owner, group, mode and attributes of the one that was found, on the
    /// disk before it takes the name. A new file gets `mode`. What a crash left beside it is removed first.
    ///
    /// Between the last look at the old file and the renaming lie microseconds in which a change by another is lost: the kernel has no call that
    /// does both. A file that was not there is never replaced by one that appeared meanwhile (renameat2(2), RENAME_NOREPLACE).
    ///
    /// # Errors
    /// [`Failed::Changed`] when the file is not the one that was found, else what the system says; then all is as before.
    pub fn replace(&self, name: &OsStr, bytes: &[u8], found: Option<&Found>, mode: u32) -> Result<Replaced, Failed> {
        // One name, not a random one: a crash leaves one file at most, and the next attempt finds it. The lock says that nobody is writing it.
        let beside = self.path.join(beside(name, ""));
        put(&self.file, &self.path.join(name), &beside, bytes, found.map_or(Expected::Nothing, Expected::Found), mode)
    }
}

/// Puts `bytes` in the place of the file at `path`, whatever is there, as [`Directory::replace`] does, but without the lock: for a file that only
/// one process writes. The file has `mode` afterwards.
///
/// # Errors
/// What the system says; then all is as before.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    put_at(path, "", bytes, Expected::Anything, mode)
}

/// Creates the file at `path` as [`write`] does, unless there is one: several processes may try at once, and one of them succeeds.
///
/// # Errors
/// `AlreadyExists`, which a symbolic link to nothing is as well, or what the system says; then all is as before.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    put_at(path, &format!(".{}", std::process::id()), bytes, Expected::Nothing, mode)
}

fn put_at(path: &Path, writer: &str, bytes: &[u8], expected: Expected<'_>, mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let opened = open_directory(directory)?;
    match put(&opened, path, &directory.join(beside(name, writer)), bytes, expected, mode) {
        Ok(_) => Ok(()),
        Err(Failed::Changed) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(Failed::Io(_, error)) => Err(error),
    }
}

/// What must be under a name for it to be replaced.
#[derive(Debug, Clone, Copy)]
enum Expected<'f> {
    /// This file, unchanged.
    Found(&'f Found),
    /// No file.
    Nothing,
    /// Whatever is there.
    Anything,
}

fn open_directory(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC).open(path)
}

/// The name of the new file while it is written.
fn beside(name: &OsStr, writer: &str) -> OsString {
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(writer);
    beside.push(".portsentry");
    beside
}

/// Writes `bytes` to `beside` and gives it the name `path`: the one place where a file is replaced.
fn put(directory: &File, path: &Path, beside: &Path, bytes: &[u8], expected: Expected<'_>, mode: u32) -> Result<Replaced, Failed> {
    let result = write_and_rename(directory, path, beside, bytes, expected, mode);
    if result.is_err() {
        // It may not have come into being.
        let _ = std::fs::remove_file(beside);
    }
    result
}

fn write_and_rename(directory: &File, path: &Path, beside: &Path, bytes: &[u8], expected: Expected<'_>, mode: u32) -> Result<Replaced, Failed> {
    let tried = |what| move |error: io::Error| Failed::Io(what, error);
    let found = match expected {
        Expected::Found(found) => Some(found),
        Expected::Nothing | Expected::Anything => None,
    };
    // Where that fails, the next call says why.
    let _ = std::fs::remove_file(beside);
    // O_EXCL, so that nobody can have prepared it, and nobody else reads it before it has its owner and mode.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside).map_err(tried("write a file beside"))?;
    let lost = found.map_or_else(Vec::new, |found| copy_attributes(&found.file, &file));
    // After an access control list, whose mask is the mode's group; before the owner, since nobody but the owner may do it without CAP_FOWNER.
    let mode = found.map_or(mode, |found| found.metadata.mode() & 0o7777);
    let keep_mode = || rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(|error| Failed::Io("keep the mode of", error.into()));
    keep_mode()?;
    if let Some(found) = found {
        let (uid, gid) = (found.metadata.uid(), found.metadata.gid());
        let own = file.metadata().map_err(tried("look at the file beside"))?;
        if (own.uid(), own.gid()) != (uid, gid) {
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|error| Failed::Io("keep owner and group of", error.into()))?;
            // chown(2) takes these bits away.
            if mode & 0o6000 != 0 {
                keep_mode()?;
            }
        }
    }
    file.write_all(bytes).map_err(tried("write"))?;
    file.sync_all().map_err(tried("write"))?;
    let stamp = Stamp::new(&file.metadata().map_err(tried("look at the file beside"))?);
    let is_expected = match expected {
        Expected::Anything => true,
        Expected::Found(found) => Stamp::at(path).map_err(tried("look at"))? == Some(found.stamp()),
        Expected::Nothing => Stamp::at(path).map_err(tried("look at"))?.is_none(),
    };
    if !is_expected {
        return Err(Failed::Changed);
    }
    match expected {
        Expected::Anything | Expected::Found(_) => std::fs::rename(beside, path).map_err(tried("replace"))?,
        Expected::Nothing => rename_to_nothing(beside, path)?,
    }
    // The name is in the directory now, whatever becomes of the disk's cache.
    directory.sync_all().map_err(tried("write the directory of"))?;
    Ok(Replaced { stamp, lost })
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing alone is not the end of it: a process that another thread is just starting has a copy of the descriptor until it executes its program.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Renames to a name that must be free. On a file system without RENAME_NOREPLACE (some network ones) the file gets a second name instead and loses
/// its first one: link(2) does not replace either.
fn rename_to_nothing(from: &Path, to: &Path) -> Result<(), Failed> {
    use rustix::io::Errno;
    let renamed = match rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::hard_link(from, to).and_then(|()| std::fs::remove_file(from)),
        renamed => renamed.map_err(io::Error::from),
    };
    renamed.map_err(|error| if error.kind() == io::ErrorKind::AlreadyExists { Failed::Changed } else { Failed::Io("replace", error) })
}

/// Extended attributes are small (xattr(7): 64 KiB for names, 64 KiB for a value).
const ATTRIBUTE_MAX: usize = 64 << 10;

/// Copies SELinux's label, access control lists and whatever else; gives the names of what could not be copied.
fn copy_attributes(from: &File, to: &File) -> Vec<String> {
    let mut names = vec![0; ATTRIBUTE_MAX];
    // A file system without any has nothing to lose.
    let Ok(length) = rustix::fs::flistxattr(from, &mut *names) else { return Vec::new() };
    let mut value = vec![0; ATTRIBUTE_MAX];
    let names = names.get(..length).unwrap_or_default().split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let mut copy = |name: &[u8]| -> rustix::io::Result<()> {
        let length = rustix::fs::fgetxattr(from, name, &mut *value)?;
        rustix::fs::fsetxattr(to, name, value.get(..length).unwrap_or_default(), XattrFlags::empty())
    };
    names.filter(|name| copy(name).is_err()).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn left(directory: &Path) -> Vec<OsString> {
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn mode_owner_and_attributes_stay_and_nothing_is_left_beside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4751)).unwrap();
        let root = files::is_root();
        if root {
            std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4751)).unwrap();
        }
        let labelled = rustix::fs::setxattr(&path, "user.portsentry", b"kept", XattrFlags::empty()).is_ok();
        // A crash left this.
        std::fs::write(directory.path().join(".f.portsentry"), "half").unwrap();
        let mut found = Found::open(&path).unwrap().unwrap();
        assert_eq!(found.read_up_to(9).unwrap(), b"old");
        let locked = Directory::lock(directory.path()).unwrap().unwrap();
        assert!(Directory::lock(directory.path()).unwrap().is_none(), "a second one must see the lock");
        let replaced = locked.replace(OsStr::new("f"), b"new", Some(&found), 0o600).unwrap();
        let now = std::fs::metadata(&path).unwrap();
        assert_eq!((now.mode() & 0o7777, replaced.lost), (0o4751, vec![]));
        assert!(!root || (now.uid(), now.gid()) == (12, 34));
        assert_eq!(Stamp::at(&path).unwrap(), Some(replaced.stamp));
        if labelled {
            let mut value = [0; 16];
            assert_eq!(rustix::fs::getxattr(&path, "user.portsentry", &mut value), Ok(4));
        }
        assert_eq!((std::fs::read(&path).unwrap(), left(directory.path())), (b"new".to_vec(), vec!["f".into()]));
    }

    #[test]
    fn a_lock_ends_with_its_value_whoever_has_a_copy_of_the_descriptor() {
        let directory = tempfile::tempdir().unwrap();
        let locked = Directory::lock(directory.path()).unwrap().unwrap();
        let copy = locked.file.try_clone().unwrap();
        drop(locked);
        assert!(Directory::lock(directory.path()).unwrap().is_some());
        drop(copy);
    }

    // P21
    #[test]
    fn what_another_wrote_since_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let locked = Directory::lock(directory.path()).unwrap().unwrap();
        std::fs::write(&path, "theirs").unwrap();
        assert!(matches!(locked.replace(OsStr::new("f"), b"ours", None, 0o600), Err(Failed::Changed)), "it was not there");
        let found = Found::open(&path).unwrap().unwrap();
        std::fs::write(directory.path().join("g"), "editor").unwrap();
        std::fs::rename(directory.path().join("g"), &path).unwrap();
        assert!(matches!(locked.replace(OsStr::new("f"), b"ours", Some(&found), 0o600), Err(Failed::Changed)));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(locked.replace(OsStr::new("f"), b"ours", Some(&found), 0o600), Err(Failed::Changed)), "it is gone");
        assert!(left(directory.path()).is_empty());
        assert!(locked.replace(OsStr::new("f"), b"ours", None, 0o640).is_ok());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn a_file_of_one_writer_is_replaced_whatever_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for text in ["one", "two"] {
            // A crash left this.
            std::fs::write(directory.path().join(".f.portsentry"), "half").unwrap();
            write(&path, text.as_bytes(), 0o600).unwrap();
            assert_eq!((std::fs::read_to_string(&path).unwrap(), left(directory.path())), (text.to_owned(), vec!["f".into()]));
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        }
        let kind = |path: &Path| write(path, b"", 0o600).unwrap_err().kind();
        assert_eq!(kind(&directory.path().join("missing/f")), io::ErrorKind::NotFound);
        assert_eq!(kind(&path.join("f")), io::ErrorKind::NotADirectory);
        assert_eq!(kind(Path::new("/")), io::ErrorKind::InvalidFilename);
        std::fs::create_dir(directory.path().join("d")).unwrap();
        assert!(write(&directory.path().join("d"), b"", 0o600).is_err());
        assert!(!left(directory.path()).contains(&".d.portsentry".into()), "nothing is left beside");
    }

    #[test]
    fn only_one_of_many_creates_a_file_and_its_content_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        create(&path, b"first", 0o640).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(create(&path, b"second", 0o640).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert_eq!(create(&link, b"third", 0o640).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        let mut left = left(directory.path());
        left.sort();
        assert_eq!(left, ["f", "link"]);
    }
}
