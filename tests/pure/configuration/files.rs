//! Trust in files: the configuration and the ignore file beside it, and what happens to untrusted
//! ones.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use portsentry::config::{self, Config};

use crate::support::skip;

pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(&format!("{test}: not root: owners of files cannot be changed"));
    }
    root
}

/// A directory that only root can write, with a valid configuration.
fn file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("portsentry.yaml");
    std::fs::write(&file, "mode: observe\n").unwrap();
    mode(&file, 0o644);
    (directory, file)
}

pub fn mode(path: &Path, bits: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).unwrap();
}

pub fn refusal(path: &Path) -> String {
    match config::load(path) {
        Ok(_) => panic!("{} was taken", path.display()),
        Err(refused) => refused.to_string(),
    }
}

// P12
#[test]
fn a_file_that_others_can_write_is_refused_by_root() {
    if !is_root("a_file_that_others_can_write_is_refused_by_root") {
        return;
    }
    let (directory, file) = file();
    assert!(config::load(&file).is_ok());
    for (bits, who) in
        [(0o664, "its group"), (0o646, "everybody"), (0o666, "its group and everybody")]
    {
        mode(&file, bits);
        let text = refusal(&file);
        assert!(text.contains(&format!("writable by {who} (mode 0{bits:o})")), "{text}");
        assert!(text.contains(&format!("chmod go-w '{}'", file.display())), "{text}");
    }
    mode(&file, 0o600);
    for bits in [0o775, 0o757] {
        mode(directory.path(), bits);
        let text = refusal(&file);
        assert!(
            text.contains("the directory")
                && text.contains(&format!("chmod go-w '{}'", directory.path().display())),
            "{text}"
        );
    }
    mode(directory.path(), 0o1777);
    assert!(
        config::load(&file).is_ok(),
        "a file of root's in a sticky directory cannot be replaced"
    );
}

// P12
#[test]
fn a_file_of_another_user_is_refused_by_root() {
    if !is_root("a_file_of_another_user_is_refused_by_root") {
        return;
    }
    let (directory, file) = file();
    chown(&file, Some(65_534), None).unwrap();
    let text = refusal(&file);
    assert!(
        text.contains("belongs to user 65534")
            && text.contains(&format!("chown root: '{}'", file.display())),
        "{text}"
    );
    chown(&file, Some(0), None).unwrap();
    chown(directory.path(), Some(65_534), None).unwrap();
    let text = refusal(&file);
    assert!(
        text.contains("the directory")
            && text.contains(&format!("chown root: '{}'", directory.path().display())),
        "{text}"
    );
}

// P12
#[test]
fn a_link_is_checked_by_its_target_and_directory() {
    if !is_root("a_link_is_checked_by_its_target_and_directory") {
        return;
    }
    let (real_directory, real) = file();
    let (link_directory, _) = file();
    let link = link_directory.path().join("link.yaml");
    symlink(&real, &link).unwrap();
    assert!(config::load(&link).is_ok());
    mode(&real, 0o666);
    assert!(refusal(&link).contains("chmod go-w"));
    mode(&real, 0o644);
    mode(real_directory.path(), 0o777);
    assert!(refusal(&link).contains(&format!("chmod go-w '{}'", real_directory.path().display())));
    mode(real_directory.path(), 0o755);
    mode(link_directory.path(), 0o777);
    assert!(refusal(&link).contains(&format!("chmod go-w '{}'", link_directory.path().display())));
    mode(link_directory.path(), 0o1777);
    assert!(config::load(&link).is_ok());
    std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
    let text = refusal(&link);
    assert!(
        text.contains("the link") && text.contains(&format!("chown -h root: '{}'", link.display())),
        "{text}"
    );
}

// P12
#[test]
fn special_files_are_refused_at_once() {
    let (directory, _) = file();
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for path in [directory.path(), &pipe, Path::new("/dev/zero"), Path::new("/dev/null")] {
        assert!(refusal(path).contains("not a regular file"), "{}", path.display());
    }
}

#[test]
fn a_file_larger_than_a_megabyte_is_refused() {
    let (_directory, file) = file();
    std::fs::write(&file, "#".repeat(1 << 20)).unwrap();
    assert!(config::load(&file).is_ok());
    std::fs::write(&file, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(refusal(&file).contains("the file has 1048577 bytes"));
    assert!(config::parse(&"#".repeat((1 << 20) + 1), "x").is_err());
}

#[test]
fn a_missing_file_is_an_error_when_named_and_the_defaults_when_not() {
    let (directory, _) = file();
    let missing = directory.path().join("missing.yaml");
    assert!(refusal(&missing).contains("cannot read the configuration"));
    let loaded = config::load_if_present(&missing).unwrap();
    assert_eq!((loaded.config, loaded.from), (Config::default(), None));
    symlink(directory.path().join("nowhere"), &missing).unwrap();
    assert!(
        config::load_if_present(&missing).is_err(),
        "a link to nowhere was meant to lead somewhere"
    );
}

// D12
#[test]
fn the_ignore_file_is_read_with_the_configuration_and_need_not_exist() {
    let (directory, file) = file();
    let ignore = directory.path().join("portsentry.ignore");
    std::fs::write(&file, format!("resolve: false\nignore_file: {}\n", ignore.display())).unwrap();
    let loaded = config::load(&file).unwrap();
    // A configured path may be mistyped.
    assert_eq!((loaded.ignored, loaded.warnings.len()), (vec![], 1));
    assert!(loaded.warnings[0].message.contains("exempts nobody"), "{}", loaded.warnings[0]);
    let networks = |bytes: &[u8]| {
        std::fs::write(&ignore, bytes).unwrap();
        mode(&ignore, 0o644);
        let loaded = config::load(&file).unwrap_or_else(|refused| panic!("{refused}"));
        (loaded.ignored.iter().map(ToString::to_string).collect::<Vec<_>>(), loaded.warnings)
    };
    // The form that 1.2 ships, foreign line ends, and a last line without its line end.
    assert_eq!(
        networks(b"# mine\n127.0.0.1/32\n0.0.0.0\n"),
        (vec!["127.0.0.1/32".to_owned(), "0.0.0.0/32".to_owned()], vec![])
    );
    assert_eq!(
        networks(b"192.0.2.1 # office\r\n2001:db8::/32").0,
        ["192.0.2.1/32", "2001:db8::/32"]
    );
    let (masked, warnings) = networks(b"\n10.0.0.5/24\n");
    assert_eq!((masked, warnings.len()), (vec!["10.0.0.0/24".to_owned()], 1));
    assert_eq!((&warnings[0].file, warnings[0].line, warnings[0].column), (&ignore, 2, 1));
    for everything in ["0.0.0.0/0", "::/0"] {
        let (_, warnings) = networks(everything.as_bytes());
        assert!(
            warnings[0].message.contains("every address: nothing can be blocked"),
            "{:?}",
            warnings
        );
    }
    // The built-in defaults have no configuration to read, and no ignore file either where this
    // runs.
    assert_eq!(
        config::parse(&format!("ignore_file: {}", ignore.display()), "x").unwrap().ignored,
        []
    );
}

#[test]
fn a_bad_ignore_file_is_refused_with_its_lines_beside_the_configurations_own() {
    let (directory, file) = file();
    let ignore = directory.path().join("portsentry.ignore");
    std::fs::write(&file, format!("scan_trigger: many\nignore_file: {}\n", ignore.display()))
        .unwrap();
    std::fs::write(&ignore, "127.0.0.1\nlocalhost\n192.0.2.0/33\n").unwrap();
    mode(&ignore, 0o644);
    let told = refusal(&file);
    for place in [
        "portsentry.yaml:1:15: error:",
        "portsentry.ignore:2:1: error:",
        "portsentry.ignore:3:1: error:",
    ] {
        assert!(told.contains(place), "{place}: {told}");
    }
    assert!(told.contains("not looked up"), "{told}");
    // A damaged key names no file.
    std::fs::write(&file, "ignore_file: [1]\n").unwrap();
    assert!(!refusal(&file).contains("portsentry.ignore:"));
}

// P12
#[test]
fn an_ignore_file_that_cannot_be_read_or_trusted_is_refused() {
    let (directory, file) = file();
    let ignore = directory.path().join("portsentry.ignore");
    std::fs::write(&file, format!("ignore_file: {}\n", ignore.display())).unwrap();
    symlink(directory.path().join("nowhere"), &ignore).unwrap();
    assert!(
        refusal(&file).contains("cannot read the ignore file"),
        "a link to nowhere was meant to lead somewhere"
    );
    std::fs::remove_file(&ignore).unwrap();
    std::fs::create_dir(&ignore).unwrap();
    assert!(refusal(&file).contains("the ignore file is not a regular file"));
    std::fs::remove_dir(&ignore).unwrap();
    std::fs::write(&ignore, "#".repeat((1 << 20) + 1)).unwrap();
    mode(&ignore, 0o644);
    assert!(refusal(&file).contains("the ignore file has at most 1048576"));
    if rustix::process::geteuid().is_root() {
        std::fs::write(&ignore, "192.0.2.1\n").unwrap();
        mode(&ignore, 0o664);
        let told = refusal(&file);
        assert!(
            told.contains("portsentry.ignore: error:")
                && told.contains("is writable by its group")
                && told.contains("chmod go-w"),
            "{told}"
        );
    }
}
