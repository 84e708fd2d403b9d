//! Replaces files atomically: a reader, also after a crash, finds the old file or the new one
//! (rename(2)).
//!
//! The directory is locked meanwhile (flock(2)): a lock on the file would not survive its
//! replacement, and a lock file would remain among the administrator's files. The [`Stamp`] detects
//! programs that ignore the lock.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Mode, RenameFlags, Uid, XattrFlags};

use super::files;

/// Identifies a state of a file (stat(2)): a new file has another inode, a modified one another
/// time or size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// The stamp of the file at `path`, following symbolic links; `None` if there is no file.
    ///
    /// # Errors
    /// The error of stat(2).
    pub(crate) fn at(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::new(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// An open file and its stamp when it was opened.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    file: File,
    metadata: Metadata,
}

impl OpenedFile {
    /// Opens the file at `path`; `None` if there is no file.
    ///
    /// # Errors
    /// The error of open(2) or fstat(2).
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match files::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        Ok(Some(Self { file, metadata }))
    }

    /// Whether it is a regular file.
    pub(crate) fn is_regular(&self) -> bool {
        self.metadata.is_file()
    }

    /// Its stamp when it was opened, before it was read.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::new(&self.metadata)
    }

    /// The first `limit` bytes of the content.
    ///
    /// # Errors
    /// The error of read(2).
    pub(crate) fn read_up_to(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        files::read_up_to(&mut self.file, limit)
    }
}

/// A locked directory: no other process of this program replaces files in it.
#[derive(Debug)]
pub(crate) struct Directory {
    file: File,
    path: PathBuf,
}

/// The result of a replacement.
#[derive(Debug)]
pub(crate) struct Replaced {
    /// The stamp of the new file.
    pub stamp: Stamp,
    /// Extended attributes (an SELinux label, an access control list) that the system refused to
    /// copy.
    pub lost: Vec<String>,
}

/// Why a replacement failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The file changed since it was read.
    Changed,
    /// A system call failed.
    Io(&'static str, io::Error),
}

impl Directory {
    /// Locks the directory at `path` until the value is dropped, without waiting; `None` if another
    /// process has the lock.
    ///
    /// # Errors
    /// The error of open(2) or flock(2).
    pub(crate) fn lock(path: &Path) -> io::Result<Option<Self>> {
        let file = open_directory(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file, path: path.to_owned() })),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the file `name` with `bytes`: writes a temporary file with owner, group, mode and
    /// attributes of `found`, syncs it, and renames it. A new file gets `mode`. Removes the
    /// temporary file of an earlier crash first.
    ///
    /// A change by another program in the microseconds between the last check and the renaming is
    /// lost: the kernel has no call for both. If there was no file, one that appears meanwhile is
    /// never overwritten (renameat2(2), RENAME_NOREPLACE).
    ///
    /// # Errors
    /// [`Failed::Changed`] if the file is not `found` any more, or the system's error; nothing has
    /// changed then.
    pub(crate) fn replace(
        &self,
        name: &OsStr,
        bytes: &[u8],
        found: Option<&OpenedFile>,
        mode: u32,
    ) -> Result<Replaced, Failed> {
        // A fixed name: a crash leaves at most one file, which the next attempt finds. The lock
        // ensures that no other process writes it.
        let expected = found.map_or(Expected::Nothing, Expected::OpenedFile);
        put(&self.file, &self.path.join(name), "", bytes, expected, mode)
    }
}

/// Replaces any file at `path` with `bytes` and `mode`, as [`Directory::replace`] does but without
/// the lock: for a file that only one process writes.
///
/// # Errors
/// The system's error; nothing has changed then.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    put_at(path, "", bytes, Expected::Anything, mode)
}

/// Creates the file at `path` as [`write()`] does, unless it exists: if several processes try at
/// once, one succeeds.
///
/// # Errors
/// `AlreadyExists` (also for a dangling symbolic link), or the system's error; nothing has changed
/// then.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    put_at(path, &format!(".{}", std::process::id()), bytes, Expected::Nothing, mode)
}

fn put_at(
    path: &Path,
    writer: &str,
    bytes: &[u8],
    expected: Expected<'_>,
    mode: u32,
) -> io::Result<()> {
    if path.file_name().is_none() {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let opened = open_directory(directory)?;
    match put(&opened, path, writer, bytes, expected, mode) {
        Ok(_) => Ok(()),
        Err(Failed::Changed) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(Failed::Io(_, error)) => Err(error),
    }
}

/// The condition for replacing a name.
#[derive(Debug, Clone, Copy)]
enum Expected<'f> {
    /// This file must be unchanged.
    OpenedFile(&'f OpenedFile),
    /// There must be no file.
    Nothing,
    /// Anything may be there.
    Anything,
}

fn open_directory(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC).open(path)
}

/// Writes `bytes` beside `path` and renames the file to it: all replacements end here.
fn put(
    directory: &File,
    path: &Path,
    writer: &str,
    bytes: &[u8],
    expected: Expected<'_>,
    mode: u32,
) -> Result<Replaced, Failed> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(writer);
    name.push(".portsentry");
    let beside = &path.with_file_name(name);
    let result = write_and_rename(directory, path, beside, bytes, expected, mode);
    if result.is_err() {
        // It may not exist.
        let _ = std::fs::remove_file(beside);
    }
    result
}

fn write_and_rename(
    directory: &File,
    path: &Path,
    beside: &Path,
    bytes: &[u8],
    expected: Expected<'_>,
    mode: u32,
) -> Result<Replaced, Failed> {
    let tried = |what| move |error: io::Error| Failed::Io(what, error);
    let found = match expected {
        Expected::OpenedFile(found) => Some(found),
        Expected::Nothing | Expected::Anything => None,
    };
    // If this fails, the next call reports why.
    let _ = std::fs::remove_file(beside);
    // O_EXCL and a private mode: no other user can have prepared the file, or read it before it has
    // its owner and mode.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(beside)
        .map_err(tried("write a file beside"))?;
    let lost = found.map_or_else(Vec::new, |found| copy_attributes(&found.file, &file));
    // After the access control list, whose mask is the mode's group bits; before the owner, because
    // only the owner may do this without CAP_FOWNER.
    let mode = found.map_or(mode, |found| found.metadata.mode() & 0o7777);
    let keep_mode = || {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
            .map_err(|error| Failed::Io("keep the mode of", error.into()))
    };
    keep_mode()?;
    if let Some(found) = found {
        let (uid, gid) = (found.metadata.uid(), found.metadata.gid());
        let own = file.metadata().map_err(tried("look at the file beside"))?;
        if (own.uid(), own.gid()) != (uid, gid) {
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|error| Failed::Io("keep owner and group of", error.into()))?;
            // chown(2) clears these bits.
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
        Expected::OpenedFile(found) => {
            Stamp::at(path).map_err(tried("look at"))? == Some(found.stamp())
        }
        Expected::Nothing => Stamp::at(path).map_err(tried("look at"))?.is_none(),
    };
    if !is_expected {
        return Err(Failed::Changed);
    }
    match expected {
        Expected::Anything | Expected::OpenedFile(_) => {
            std::fs::rename(beside, path).map_err(tried("replace"))?
        }
        Expected::Nothing => rename_to_nothing(beside, path)?,
    }
    // The rename has succeeded even if the sync fails.
    directory.sync_all().map_err(tried("write the directory of"))?;
    Ok(Replaced { stamp, lost })
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is starting has a copy of the
        // descriptor until exec.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Renames to a name that must be free. On file systems without RENAME_NOREPLACE (some network
/// ones) it uses link(2) and unlink(2): link(2) does not replace either.
fn rename_to_nothing(from: &Path, to: &Path) -> Result<(), Failed> {
    use rustix::io::Errno;
    let renamed = match rustix::fs::renameat_with(
        rustix::fs::CWD,
        from,
        rustix::fs::CWD,
        to,
        RenameFlags::NOREPLACE,
    ) {
        Err(Errno::INVAL | Errno::NOSYS) => {
            std::fs::hard_link(from, to).and_then(|()| std::fs::remove_file(from))
        }
        renamed => renamed.map_err(io::Error::from),
    };
    renamed.map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            Failed::Changed
        } else {
            Failed::Io("replace", error)
        }
    })
}

/// Extended attributes are small (xattr(7): 64 KiB for names, 64 KiB for a value).
const ATTRIBUTE_MAX: usize = 64 << 10;

/// Copies the extended attributes (SELinux label, access control lists and others); returns the
/// names of those refused.
fn copy_attributes(from: &File, to: &File) -> Vec<String> {
    let mut names = vec![0; ATTRIBUTE_MAX];
    // The file system has no extended attributes.
    let Ok(length) = rustix::fs::flistxattr(from, &mut *names) else { return Vec::new() };
    let mut value = vec![0; ATTRIBUTE_MAX];
    let names = names
        .get(..length)
        .unwrap_or_default()
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    let mut copy = |name: &[u8]| -> rustix::io::Result<()> {
        let length = rustix::fs::fgetxattr(from, name, &mut *value)?;
        rustix::fs::fsetxattr(
            to,
            name,
            value.get(..length).unwrap_or_default(),
            XattrFlags::empty(),
        )
    };
    names
        .filter(|name| copy(name).is_err())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn left(directory: &Path) -> Vec<OsString> {
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn mode_owner_and_attributes_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4751)).unwrap();
        let root = files::is_root();
        if root {
            std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4751)).unwrap();
        }
        let labelled =
            rustix::fs::setxattr(&path, "user.portsentry", b"kept", XattrFlags::empty()).is_ok();
        // The leftover of a crash.
        std::fs::write(directory.path().join(".f.portsentry"), "half").unwrap();
        let mut found = OpenedFile::open(&path).unwrap().unwrap();
        assert_eq!(found.read_up_to(9).unwrap(), b"old");
        let locked = Directory::lock(directory.path()).unwrap().unwrap();
        assert!(
            Directory::lock(directory.path()).unwrap().is_none(),
            "a second one must see the lock"
        );
        let replaced = locked.replace(OsStr::new("f"), b"new", Some(&found), 0o600).unwrap();
        let now = std::fs::metadata(&path).unwrap();
        assert_eq!((now.mode() & 0o7777, replaced.lost), (0o4751, vec![]));
        assert!(!root || (now.uid(), now.gid()) == (12, 34));
        assert_eq!(Stamp::at(&path).unwrap(), Some(replaced.stamp));
        if labelled {
            let mut value = [0; 16];
            assert_eq!(rustix::fs::getxattr(&path, "user.portsentry", &mut value), Ok(4));
        }
        assert_eq!(
            (std::fs::read(&path).unwrap(), left(directory.path())),
            (b"new".to_vec(), vec!["f".into()])
        );
    }

    #[test]
    fn lock_ends_with_its_value_despite_descriptor_copies() {
        let directory = tempfile::tempdir().unwrap();
        let locked = Directory::lock(directory.path()).unwrap().unwrap();
        let copy = locked.file.try_clone().unwrap();
        drop(locked);
        assert!(Directory::lock(directory.path()).unwrap().is_some());
        drop(copy);
    }

    // P21
    #[test]
    fn changes_of_other_programs_are_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let locked = Directory::lock(directory.path()).unwrap().unwrap();
        std::fs::write(&path, "theirs").unwrap();
        assert!(
            matches!(locked.replace(OsStr::new("f"), b"ours", None, 0o600), Err(Failed::Changed)),
            "it was not there"
        );
        let found = OpenedFile::open(&path).unwrap().unwrap();
        std::fs::write(directory.path().join("g"), "editor").unwrap();
        std::fs::rename(directory.path().join("g"), &path).unwrap();
        assert!(matches!(
            locked.replace(OsStr::new("f"), b"ours", Some(&found), 0o600),
            Err(Failed::Changed)
        ));
        std::fs::remove_file(&path).unwrap();
        assert!(
            matches!(
                locked.replace(OsStr::new("f"), b"ours", Some(&found), 0o600),
                Err(Failed::Changed)
            ),
            "it is gone"
        );
        assert!(left(directory.path()).is_empty());
        assert!(locked.replace(OsStr::new("f"), b"ours", None, 0o640).is_ok());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn write_replaces_anything_at_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for text in ["one", "two"] {
            // The leftover of a crash.
            std::fs::write(directory.path().join(".f.portsentry"), "half").unwrap();
            write(&path, text.as_bytes(), 0o600).unwrap();
            assert_eq!(
                (std::fs::read_to_string(&path).unwrap(), left(directory.path())),
                (text.to_owned(), vec!["f".into()])
            );
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        }
        let kind = |path: &Path| write(path, b"", 0o600).unwrap_err().kind();
        assert_eq!(kind(&directory.path().join("missing/f")), io::ErrorKind::NotFound);
        assert_eq!(kind(&path.join("f")), io::ErrorKind::NotADirectory);
        assert_eq!(kind(Path::new("/")), io::ErrorKind::InvalidFilename);
        std::fs::create_dir(directory.path().join("d")).unwrap();
        assert!(write(&directory.path().join("d"), b"", 0o600).is_err());
        assert!(
            !left(directory.path()).contains(&".d.portsentry".into()),
            "nothing is left beside"
        );
    }

    #[test]
    fn one_of_many_writers_creates_the_whole_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        create(&path, b"first", 0o640).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(
            create(&path, b"second", 0o640).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert_eq!(
            create(&link, b"third", 0o640).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        let mut left = left(directory.path());
        left.sort();
        assert_eq!(left, ["f", "link"]);
    }
}
