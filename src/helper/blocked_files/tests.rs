use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

const SOON: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_secs(60);

struct World {
    directory: tempfile::TempDir,
    files: BlockedFiles,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = BlockedFiles::new(directory.path().join("portsentry.blocked"));
        Self { directory, files, now: Instant::now() }
    }

    fn restart(&mut self) {
        self.files = BlockedFiles::new(self.directory.path().join("portsentry.blocked"));
    }

    fn path(&self, mode: Mode) -> PathBuf {
        self.directory.path().join(format!("portsentry.blocked.{}", mode.word()))
    }

    fn text(&self, mode: Mode) -> String {
        std::fs::read_to_string(self.path(mode)).unwrap()
    }

    fn later(&mut self, time: Duration) -> Vec<Told> {
        self.files.next_due(self.now);
        self.now += time;
        self.files.write(self.now)
    }
}

fn line(n: u32, name: &str, address: &str) -> String {
    format!("{} - 11/20/2026 15:26:40 Host: {name}/{address} Port: {n} TCP Blocked", 1_795_188_400 + n)
}

fn entry(mode: Mode, n: u32, subject: &str) -> Entry {
    let address = base(subject).unwrap().to_string();
    Entry { mode, subject: subject.into(), line: line(n, subject, &address) }
}

#[test]
fn a_line_stands_in_the_file_of_its_mode_while_the_block_lasts() {
    let mut world = World::new();
    world.files.use_modes(&[Mode::Atcp, Mode::Sudp]);
    assert_eq!(world.later(SOON), []);
    assert_eq!((world.text(Mode::Atcp), world.text(Mode::Sudp)), (String::new(), String::new()), "the files of the modes in use exist");
    assert!(!world.path(Mode::Tcp).exists());
    assert_eq!(std::fs::metadata(world.path(Mode::Atcp)).unwrap().mode() & 0o7777, 0o640);
    for (n, subject) in ["192.0.2.9", "2001:db8::/64", "192.0.2.1"].into_iter().enumerate() {
        world.files.add(entry(Mode::Atcp, n as u32, subject));
    }
    world.files.add(entry(Mode::Sudp, 5, "192.0.2.1"));
    assert_eq!(world.files.write(world.now), [], "changes are gathered");
    assert_eq!(world.text(Mode::Atcp), "");
    assert_eq!(world.later(SOON), []);
    let expected = [line(0, "192.0.2.9", "192.0.2.9"), line(1, "2001:db8::/64", "2001:db8::"), line(2, "192.0.2.1", "192.0.2.1")];
    assert_eq!(world.text(Mode::Atcp), format!("{}\n", expected.join("\n")), "in the order of blocking");
    world.files.remove("192.0.2.1");
    world.files.remove("192.0.2.9");
    world.files.remove("192.0.2.0/24");
    world.later(SOON);
    assert_eq!((world.text(Mode::Atcp), world.text(Mode::Sudp)), (format!("{}\n", expected[1]), String::new()));
}

#[test]
fn who_is_blocked_again_has_one_line_the_newest() {
    let mut world = World::new();
    for (n, subject) in [(1, "192.0.2.1"), (2, "192.0.2.2"), (3, "192.0.2.1")] {
        world.files.add(entry(Mode::Stcp, n, subject));
    }
    world.later(SOON);
    assert_eq!(world.text(Mode::Stcp), format!("{}\n{}\n", line(2, "192.0.2.2", "192.0.2.2"), line(3, "192.0.2.1", "192.0.2.1")));
}

#[test]
fn a_network_and_its_first_address_are_not_the_same() {
    let mut world = World::new();
    world.files.add(entry(Mode::Tcp, 1, "192.0.2.0"));
    world.files.remove("192.0.2.0/24");
    world.later(SOON);
    assert_eq!(world.text(Mode::Tcp).lines().count(), 1);
}

#[test]
fn lines_of_an_earlier_run_stay_until_it_is_known_what_is_blocked() {
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
    std::fs::write(world.path(Mode::Atcp), format!("{}\n\u{7}half a li", lines.join("\r\n"))).unwrap();
    std::fs::set_permissions(world.path(Mode::Atcp), std::fs::Permissions::from_mode(0o644)).unwrap();
    world.files.use_modes(&[Mode::Atcp]);
    world.files.add(entry(Mode::Atcp, 7, "192.0.2.7"));
    let told = world.later(SOON);
    assert!(matches!(&told[..], [Told::Warning(text)] if text.starts_with("2 lines of ")), "{told:?}");
    let left: Vec<String> = world.text(Mode::Atcp).lines().map(str::to_owned).collect();
    assert_eq!(left.len(), 7, "{left:#?}");
    world.restart();
    let still = ["192.0.2.2", "2001:db8::/64", "2001:db8:1::/64", "192.0.2.7"].map(str::to_owned);
    world.files.retain(&HashSet::from(still));
    assert_eq!(world.later(SOON), []);
    let expected = [&lines[2], &lines[3], &lines[4], &line(7, "192.0.2.7", "192.0.2.7")].map(|line| format!("{line}\n")).concat();
    assert_eq!(world.text(Mode::Atcp), expected);
    assert_eq!(std::fs::metadata(world.path(Mode::Atcp)).unwrap().mode() & 0o7777, 0o644, "whoever was given the file keeps it");
    world.files.remove("2001:db8:1::/64");
    world.later(SOON);
    assert_eq!(world.text(Mode::Atcp).lines().count(), 3);
}

#[test]
fn a_mode_that_is_not_in_use_any_more_keeps_what_is_blocked_and_ends_empty() {
    let mut world = World::new();
    world.files.use_modes(&[Mode::Stcp]);
    world.files.add(entry(Mode::Stcp, 1, "192.0.2.1"));
    world.later(SOON);
    world.files.use_modes(&[Mode::Atcp]);
    world.later(SOON);
    assert_eq!((world.text(Mode::Stcp).lines().count(), world.text(Mode::Atcp).as_str()), (1, ""));
    world.files.remove("192.0.2.1");
    world.later(SOON);
    assert_eq!(world.text(Mode::Stcp), "");
    world.files.add(entry(Mode::Atcp, 1, "192.0.2.1"));
    assert_eq!(world.files.take_out(world.now), []);
    assert_eq!(world.text(Mode::Atcp), "");
    assert!(world.files.is_idle());
}

#[test]
fn the_newest_lines_are_kept_and_it_is_told_once() {
    let mut world = World::new();
    for n in 0..LINES_MAX as u32 + 5 {
        world.files.add(entry(Mode::Atcp, n, &std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string()));
    }
    let told = world.later(SOON);
    assert!(matches!(&told[..], [Told::Warning(text)] if text.contains("newest 10000")), "{told:?}");
    let text = world.text(Mode::Atcp);
    assert_eq!(text.lines().count(), LINES_MAX);
    assert!(text.contains(": 10.0.0.5/") && !text.contains(": 10.0.0.4/"));
    world.restart();
    world.files.use_modes(&[Mode::Atcp]);
    assert_eq!(world.later(SOON), []);
    assert_eq!(world.text(Mode::Atcp), text);
}

#[test]
fn what_others_do_to_a_file_is_put_right() {
    let mut world = World::new();
    world.files.add(entry(Mode::Atcp, 1, "192.0.2.1"));
    world.later(SOON);
    std::fs::write(world.path(Mode::Atcp), "").unwrap();
    assert!(matches!(&world.later(MINUTE)[..], [Told::Warning(text)] if text.contains("changed by others")));
    assert_eq!(world.text(Mode::Atcp).lines().count(), 1);
    std::fs::remove_file(world.path(Mode::Atcp)).unwrap();
    assert_eq!(world.later(MINUTE).len(), 1);
    assert_eq!(world.text(Mode::Atcp).lines().count(), 1);
}

#[test]
fn a_file_of_somebody_else_is_never_overwritten_be_it_there_at_first_or_linked_to_later() {
    let users = "root:x:0:0:root:/root:/bin/bash\nbin:x:2:2:bin:/bin:/usr/sbin/nologin\n";
    let mut world = World::new();
    let other = world.directory.path().join("passwd");
    std::fs::write(&other, users).unwrap();
    std::fs::write(world.path(Mode::Stcp), users).unwrap();
    world.files.use_modes(&[Mode::Atcp, Mode::Stcp]);
    world.files.add(entry(Mode::Atcp, 1, "192.0.2.1"));
    world.files.add(entry(Mode::Stcp, 1, "192.0.2.9"));
    let told = world.later(SOON);
    assert!(matches!(&told[..], [Told::Error(text)] if text.contains("not one line of a blocked host")), "{told:?}");
    std::fs::remove_file(world.path(Mode::Atcp)).unwrap();
    std::os::unix::fs::symlink(&other, world.path(Mode::Atcp)).unwrap();
    world.files.add(entry(Mode::Atcp, 2, "192.0.2.2"));
    let told = world.later(SOON);
    assert!(told.iter().any(|told| matches!(told, Told::Error(text) if text.contains("not one line of a blocked host"))), "{told:?}");
    assert_eq!([std::fs::read_to_string(&other).unwrap(), world.text(Mode::Stcp)], [users, users]);
    // What was to be written there was kept.
    std::fs::remove_file(world.path(Mode::Atcp)).unwrap();
    std::fs::remove_file(world.path(Mode::Stcp)).unwrap();
    world.later(MINUTE);
    assert_eq!((world.text(Mode::Atcp).lines().count(), world.text(Mode::Stcp).lines().count()), (2, 1));
    // Where nothing is to be written it is no matter.
    std::fs::write(world.path(Mode::Stcp), users).unwrap();
    assert_eq!(world.files.take_out(world.now), []);
    assert_eq!((world.text(Mode::Stcp).as_str(), world.files.is_idle()), (users, true));
}

#[test]
fn a_directory_that_is_missing_is_told_once_and_nothing_is_lost() {
    let mut world = World::new();
    let base = world.directory.path().join("later/portsentry.blocked");
    world.files = BlockedFiles::new(base.clone());
    world.files.use_modes(&[Mode::Atcp]);
    world.files.add(entry(Mode::Atcp, 1, "192.0.2.1"));
    let told = world.later(SOON);
    assert!(matches!(&told[..], [Told::Error(text)] if text.contains("directory must exist")), "{told:?}");
    assert_eq!((world.later(MINUTE), world.later(MINUTE)), (vec![], vec![]));
    std::fs::create_dir(base.parent().unwrap()).unwrap();
    assert!(matches!(&world.later(MINUTE)[..], [Told::Warning(text)] if text.contains("as it should be again")));
    let text = std::fs::read_to_string(world.directory.path().join("later/portsentry.blocked.atcp")).unwrap();
    assert_eq!(text, format!("{}\n", line(1, "192.0.2.1", "192.0.2.1")));
}

#[test]
fn a_line_is_one_line_whatever_it_was_made_of() {
    let mut world = World::new();
    let mut bad = entry(Mode::Tcp, 1, "192.0.2.1");
    bad.line = bad.line.replace("Host: 192", "Host: a\nb\u{1b}[2J192");
    world.files.add(bad);
    world.later(SOON);
    assert_eq!(world.text(Mode::Tcp).matches(|c: char| c.is_control()).count(), 1);
}

proptest::proptest! {
    #[test]
    fn no_bytes_in_a_file_panic_and_ours_come_out(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let mut world = World::new();
        let bytes = [&bytes[..], b"\n", line(9, "192.0.2.9", "192.0.2.9").as_bytes()].concat();
        std::fs::write(world.path(Mode::Audp), &bytes).unwrap();
        world.files.add(entry(Mode::Audp, 1, "192.0.2.1"));
        world.later(SOON);
        let text = world.text(Mode::Audp);
        proptest::prop_assert_eq!(text.lines().last().unwrap(), line(1, "192.0.2.1", "192.0.2.1"));
    }
}
