use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

const GATHERED_BY: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_secs(60);

struct World {
    directory: tempfile::TempDir,
    files: BlockedFiles,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = BlockedFiles::new(directory.path().join("portsentry.blocked"), None);
        Self { directory, files, now: Instant::now() }
    }

    fn restart(&mut self) {
        self.files = BlockedFiles::new(self.directory.path().join("portsentry.blocked"), None);
    }

    fn path(&self, mode: ClassicMode) -> PathBuf {
        self.directory.path().join(format!("portsentry.blocked.{}", mode.word()))
    }

    fn text(&self, mode: ClassicMode) -> String {
        std::fs::read_to_string(self.path(mode)).unwrap()
    }

    fn later(&mut self, time: Duration) -> Vec<Message> {
        self.files.next_due(self.now);
        self.now += time;
        self.files.write(self.now)
    }
}

fn line(n: u32, name: &str, address: &str) -> String {
    format!(
        "{} - 11/20/2026 15:26:40 Host: {name}/{address} Port: {n} TCP Blocked",
        1_795_188_400 + n
    )
}

fn entry(mode: ClassicMode, n: u32, subject: &str) -> Entry {
    let address = base(subject).unwrap().to_string();
    Entry { mode, subject: subject.into(), line: line(n, subject, &address) }
}

#[test]
fn the_control_group_reads_the_files() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut world = World::new();
    let facts = |world: &World| {
        let facts = std::fs::metadata(world.path(ClassicMode::Atcp)).unwrap();
        (facts.gid(), facts.mode() & 0o7777)
    };
    world.files.use_modes(&[ClassicMode::Atcp]);
    assert_eq!(world.later(GATHERED_BY), []);
    assert_eq!(facts(&world), (0, 0o640));
    // Also one of an earlier run, and one that is replaced.
    world.files = BlockedFiles::new(world.directory.path().join("portsentry.blocked"), Some(4));
    world.files.use_modes(&[ClassicMode::Atcp]);
    assert_eq!(world.later(GATHERED_BY), []);
    assert_eq!(facts(&world), (4, 0o640));
    world.files.add(entry(ClassicMode::Atcp, 1, "192.0.2.9"));
    assert_eq!(world.later(GATHERED_BY), []);
    assert_eq!((facts(&world), world.text(ClassicMode::Atcp).lines().count()), ((4, 0o640), 1));
}

#[test]
fn a_listed_prefix_keeps_the_line_with_its_scanner() {
    let mut world = World::new();
    world.files.use_modes(&[ClassicMode::Atcp]);
    let subject = "2001:db8::/64".to_owned();
    let scanned = line(1, &subject, "2001:db8::7");
    world.files.add(Entry { mode: ClassicMode::Atcp, subject, line: scanned.clone() });
    world.files.add_listed(entry(ClassicMode::Atcp, 1, "2001:db8::/64"));
    world.files.add_listed(entry(ClassicMode::Atcp, 2, "192.0.2.9"));
    assert_eq!(world.later(GATHERED_BY), []);
    let text = world.text(ClassicMode::Atcp);
    assert!(text.contains(&scanned) && text.lines().count() == 2, "{text}");
    // Read again after a restart.
    world.restart();
    world.files.use_modes(&[ClassicMode::Atcp]);
    world.files.add_listed(entry(ClassicMode::Atcp, 1, "2001:db8::/64"));
    assert_eq!(world.later(GATHERED_BY), []);
    assert_eq!(world.text(ClassicMode::Atcp).matches(&scanned).count(), 1);
}

#[test]
fn a_block_has_a_line_in_its_modes_file() {
    let mut world = World::new();
    world.files.use_modes(&[ClassicMode::Atcp, ClassicMode::Sudp]);
    assert_eq!(world.later(GATHERED_BY), []);
    assert_eq!(
        (world.text(ClassicMode::Atcp), world.text(ClassicMode::Sudp)),
        (String::new(), String::new()),
        "the files of the modes in use exist"
    );
    assert!(!world.path(ClassicMode::Tcp).exists());
    assert_eq!(std::fs::metadata(world.path(ClassicMode::Atcp)).unwrap().mode() & 0o7777, 0o640);
    for (n, subject) in ["192.0.2.9", "2001:db8::/64", "192.0.2.1"].into_iter().enumerate() {
        world.files.add(entry(ClassicMode::Atcp, n as u32, subject));
    }
    world.files.add(entry(ClassicMode::Sudp, 5, "192.0.2.1"));
    assert_eq!(world.files.write(world.now), [], "changes are gathered");
    assert_eq!(world.text(ClassicMode::Atcp), "");
    assert_eq!(world.later(GATHERED_BY), []);
    let expected = [
        line(0, "192.0.2.9", "192.0.2.9"),
        line(1, "2001:db8::/64", "2001:db8::"),
        line(2, "192.0.2.1", "192.0.2.1"),
    ];
    assert_eq!(
        world.text(ClassicMode::Atcp),
        format!("{}\n", expected.join("\n")),
        "in the order of blocking"
    );
    world.files.remove("192.0.2.1");
    world.files.remove("192.0.2.9");
    world.files.remove("192.0.2.0/24");
    world.later(GATHERED_BY);
    assert_eq!(
        (world.text(ClassicMode::Atcp), world.text(ClassicMode::Sudp)),
        (format!("{}\n", expected[1]), String::new())
    );
}

#[test]
fn a_host_blocked_twice_has_only_the_newest_line() {
    let mut world = World::new();
    for (n, subject) in [(1, "192.0.2.1"), (2, "192.0.2.2"), (3, "192.0.2.1")] {
        world.files.add(entry(ClassicMode::Stcp, n, subject));
    }
    world.later(GATHERED_BY);
    assert_eq!(
        world.text(ClassicMode::Stcp),
        format!("{}\n{}\n", line(2, "192.0.2.2", "192.0.2.2"), line(3, "192.0.2.1", "192.0.2.1"))
    );
}

#[test]
fn a_network_and_its_first_address_are_distinct() {
    let mut world = World::new();
    world.files.add(entry(ClassicMode::Tcp, 1, "192.0.2.0"));
    world.files.remove("192.0.2.0/24");
    world.later(GATHERED_BY);
    assert_eq!(world.text(ClassicMode::Tcp).lines().count(), 1);
}

#[test]
fn lines_of_an_earlier_run_stay_until_the_list_of_blocks() {
    let mut world = World::new();
    let lines = [
        line(1, "192.0.2.1", "192.0.2.1"),
        "not a line".to_owned(),
        line(2, "scanner.example", "192.0.2.2"),
        line(3, "2001:db8::/64", "2001:db8::"),
        line(4, "scanner6.example", "2001:db8:1::"),
        line(5, "gone.example", "192.0.2.5"),
        line(6, "192.0.2.6", "192.0.2.6"),
    ];
    std::fs::write(
        world.path(ClassicMode::Atcp),
        format!("{}\n\u{7}half a li", lines.join("\r\n")),
    )
    .unwrap();
    std::fs::set_permissions(world.path(ClassicMode::Atcp), std::fs::Permissions::from_mode(0o644))
        .unwrap();
    world.files.use_modes(&[ClassicMode::Atcp]);
    world.files.add(entry(ClassicMode::Atcp, 7, "192.0.2.7"));
    let messages = world.later(GATHERED_BY);
    assert!(
        matches!(&messages[..], [Message::Warning(text)] if text.starts_with("2 lines of ")),
        "{messages:?}"
    );
    let left: Vec<String> = world.text(ClassicMode::Atcp).lines().map(str::to_owned).collect();
    assert_eq!(left.len(), 7, "{left:#?}");
    world.restart();
    let still = ["192.0.2.2", "2001:db8::/64", "2001:db8:1::/64", "192.0.2.7"].map(str::to_owned);
    world.files.retain(&HashSet::from(still));
    assert_eq!(world.later(GATHERED_BY), []);
    let expected = [&lines[2], &lines[3], &lines[4], &line(7, "192.0.2.7", "192.0.2.7")]
        .map(|line| format!("{line}\n"))
        .concat();
    assert_eq!(world.text(ClassicMode::Atcp), expected);
    assert_eq!(
        std::fs::metadata(world.path(ClassicMode::Atcp)).unwrap().mode() & 0o7777,
        0o644,
        "whoever was given the file keeps it"
    );
    world.files.remove("2001:db8:1::/64");
    world.later(GATHERED_BY);
    assert_eq!(world.text(ClassicMode::Atcp).lines().count(), 3);
}

#[test]
fn the_file_of_an_unused_mode_keeps_its_blocks_and_ends_empty() {
    let mut world = World::new();
    world.files.use_modes(&[ClassicMode::Stcp]);
    world.files.add(entry(ClassicMode::Stcp, 1, "192.0.2.1"));
    world.later(GATHERED_BY);
    world.files.use_modes(&[ClassicMode::Atcp]);
    world.later(GATHERED_BY);
    assert_eq!(
        (world.text(ClassicMode::Stcp).lines().count(), world.text(ClassicMode::Atcp).as_str()),
        (1, "")
    );
    world.files.remove("192.0.2.1");
    world.later(GATHERED_BY);
    assert_eq!(world.text(ClassicMode::Stcp), "");
    world.files.add(entry(ClassicMode::Atcp, 1, "192.0.2.1"));
    assert_eq!(world.files.remove_all(world.now), []);
    assert_eq!(world.text(ClassicMode::Atcp), "");
    assert!(world.files.is_idle());
}

#[test]
fn only_the_newest_lines_are_kept_with_one_warning() {
    let mut world = World::new();
    for n in 0..LINES_MAX as u32 + 5 {
        world.files.add(entry(
            ClassicMode::Atcp,
            n,
            &std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string(),
        ));
    }
    let messages = world.later(GATHERED_BY);
    assert!(
        matches!(&messages[..], [Message::Warning(text)] if text.contains("newest 10000")),
        "{messages:?}"
    );
    let text = world.text(ClassicMode::Atcp);
    assert_eq!(text.lines().count(), LINES_MAX);
    assert!(text.contains(": 10.0.0.5/") && !text.contains(": 10.0.0.4/"));
    world.restart();
    world.files.use_modes(&[ClassicMode::Atcp]);
    assert_eq!(world.later(GATHERED_BY), []);
    assert_eq!(world.text(ClassicMode::Atcp), text);
}

#[test]
fn foreign_changes_to_a_file_are_repaired() {
    let mut world = World::new();
    world.files.add(entry(ClassicMode::Atcp, 1, "192.0.2.1"));
    world.later(GATHERED_BY);
    std::fs::write(world.path(ClassicMode::Atcp), "").unwrap();
    assert!(
        matches!(&world.later(MINUTE)[..], [Message::Warning(text)] if text.contains("changed by others"))
    );
    assert_eq!(world.text(ClassicMode::Atcp).lines().count(), 1);
    std::fs::remove_file(world.path(ClassicMode::Atcp)).unwrap();
    assert_eq!(world.later(MINUTE).len(), 1);
    assert_eq!(world.text(ClassicMode::Atcp).lines().count(), 1);
}

#[test]
fn foreign_files_are_never_overwritten() {
    let users = "root:x:0:0:root:/root:/bin/bash\nbin:x:2:2:bin:/bin:/usr/sbin/nologin\n";
    let mut world = World::new();
    let other = world.directory.path().join("passwd");
    std::fs::write(&other, users).unwrap();
    std::fs::write(world.path(ClassicMode::Stcp), users).unwrap();
    world.files.use_modes(&[ClassicMode::Atcp, ClassicMode::Stcp]);
    world.files.add(entry(ClassicMode::Atcp, 1, "192.0.2.1"));
    world.files.add(entry(ClassicMode::Stcp, 1, "192.0.2.9"));
    let messages = world.later(GATHERED_BY);
    assert!(
        matches!(&messages[..], [Message::Error(text)] if text.contains("not one line of a blocked host")),
        "{messages:?}"
    );
    std::fs::remove_file(world.path(ClassicMode::Atcp)).unwrap();
    std::os::unix::fs::symlink(&other, world.path(ClassicMode::Atcp)).unwrap();
    world.files.add(entry(ClassicMode::Atcp, 2, "192.0.2.2"));
    let messages = world.later(GATHERED_BY);
    assert!(
        messages.iter().any(|message| matches!(message, Message::Error(text) if text.contains("not one line of a blocked host"))),
        "{messages:?}"
    );
    assert_eq!(
        [std::fs::read_to_string(&other).unwrap(), world.text(ClassicMode::Stcp)],
        [users, users]
    );
    // The lines that could not be written were kept.
    std::fs::remove_file(world.path(ClassicMode::Atcp)).unwrap();
    std::fs::remove_file(world.path(ClassicMode::Stcp)).unwrap();
    world.later(MINUTE);
    assert_eq!(
        (
            world.text(ClassicMode::Atcp).lines().count(),
            world.text(ClassicMode::Stcp).lines().count()
        ),
        (2, 1)
    );
    // If there is nothing to write, another program's file does not matter.
    std::fs::write(world.path(ClassicMode::Stcp), users).unwrap();
    assert_eq!(world.files.remove_all(world.now), []);
    assert_eq!((world.text(ClassicMode::Stcp).as_str(), world.files.is_idle()), (users, true));
}

#[test]
fn a_missing_directory_is_reported_once_and_loses_nothing() {
    let mut world = World::new();
    let base = world.directory.path().join("later/portsentry.blocked");
    world.files = BlockedFiles::new(base.clone(), None);
    world.files.use_modes(&[ClassicMode::Atcp]);
    world.files.add(entry(ClassicMode::Atcp, 1, "192.0.2.1"));
    let messages = world.later(GATHERED_BY);
    assert!(
        matches!(&messages[..], [Message::Error(text)] if text.contains("directory must exist")),
        "{messages:?}"
    );
    assert_eq!((world.later(MINUTE), world.later(MINUTE)), (vec![], vec![]));
    std::fs::create_dir(base.parent().unwrap()).unwrap();
    assert!(
        matches!(&world.later(MINUTE)[..], [Message::Warning(text)] if text.contains("as it should be again"))
    );
    let text =
        std::fs::read_to_string(world.directory.path().join("later/portsentry.blocked.atcp"))
            .unwrap();
    assert_eq!(text, format!("{}\n", line(1, "192.0.2.1", "192.0.2.1")));
}

#[test]
fn line_ends_within_a_line_are_removed() {
    let mut world = World::new();
    let mut bad = entry(ClassicMode::Tcp, 1, "192.0.2.1");
    bad.line = bad.line.replace("Host: 192", "Host: a\nb\u{1b}[2J192");
    world.files.add(bad);
    world.later(GATHERED_BY);
    assert_eq!(world.text(ClassicMode::Tcp).matches(|c: char| c.is_control()).count(), 1);
}

proptest::proptest! {
    #[test]
    fn no_bytes_in_a_file_panic_and_our_lines_survive(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let mut world = World::new();
        let bytes = [&bytes[..], b"\n", line(9, "192.0.2.9", "192.0.2.9").as_bytes()].concat();
        std::fs::write(world.path(ClassicMode::Audp), &bytes).unwrap();
        world.files.add(entry(ClassicMode::Audp, 1, "192.0.2.1"));
        world.later(GATHERED_BY);
        let text = world.text(ClassicMode::Audp);
        proptest::prop_assert_eq!(text.lines().last().unwrap(), line(1, "192.0.2.1", "192.0.2.1"));
    }
}
