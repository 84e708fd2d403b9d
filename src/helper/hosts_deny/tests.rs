use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::*;

const LINE: &str = "ALL: {target}";
const GATHERED_BY: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A file in its own directory, and a simulated clock.
struct World {
    directory: tempfile::TempDir,
    deny: HostsDeny,
    now: Instant,
}

impl World {
    fn with(content: Option<&[u8]>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts.deny");
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let mut world =
            Self { deny: HostsDeny::new(path, LINE.into()), directory, now: Instant::now() };
        world.deny.replace(std::iter::empty());
        assert_eq!(world.later(GATHERED_BY), []);
        world
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("hosts.deny")
    }

    fn later(&mut self, time: Duration) -> Vec<Message> {
        self.deny.next_due(self.now);
        self.now += time;
        self.deny.write(self.now)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path()).unwrap()).into_owned()
    }

    /// Lines between our marks.
    fn ours(&self) -> Vec<String> {
        let bytes = std::fs::read(self.path()).unwrap_or_default();
        Parts::of(&bytes)
            .unwrap()
            .own()
            .filter(|line| !line.is_empty())
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect()
    }
}

fn denied(target: &str, line: &str) -> Message {
    Message::Response(Response::Denied { target: target.into(), line: line.into() })
}

fn error_of(messages: &[Message]) -> &str {
    match messages {
        [Message::Error(text)] => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn targets_are_written_as_hosts_access_takes_them() {
    for (target, expected) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("192.0.2.77/24", "192.0.2.0/255.255.255.0"),
        ("192.0.2.128/25", "192.0.2.128/255.255.255.128"),
        ("0.0.0.0/0", "0.0.0.0/0.0.0.0"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("2001:db8::/128", "[2001:db8::]"),
        ("2001:db8:0:1::/64", "[2001:db8:0:1::]/64"),
    ] {
        assert_eq!(pattern(target).as_deref(), Some(expected), "{target}");
    }
    for wrong in ["", "localhost", "192.0.2.1 : spawn /bin/x", "192.0.2.0/33", "ALL"] {
        assert_eq!(pattern(wrong), None, "{wrong}");
    }
}

#[test]
fn a_trial_is_written_though_a_list_comes_before_that_and_goes_with_a_later_one() {
    let mut world = World::with(None);
    world.deny.add(TEST_TARGET);
    world.deny.replace(["198.51.100.7".to_owned()].into_iter());
    let both = [denied(TEST_TARGET, "ALL: 192.0.2.1"), denied("198.51.100.7", "ALL: 198.51.100.7")];
    assert_eq!(world.later(GATHERED_BY), both);
    // That it has ended was lost on the way.
    world.deny.replace(["198.51.100.7".to_owned()].into_iter());
    world.later(GATHERED_BY);
    assert_eq!(world.ours(), ["ALL: 198.51.100.7"]);
}

#[test]
fn a_line_is_reported_when_on_disk_and_goes_with_the_block() {
    let mut world = World::with(Some(b"sshd: 198.51.100.1\n"));
    world.deny.add("192.0.2.1");
    world.deny.add("2001:db8::/64");
    assert!(world.deny.next_due(world.now).unwrap() <= GATHER_TIME);
    assert_eq!(world.deny.write(world.now), [], "changes are gathered");
    assert_eq!(world.text(), "sshd: 198.51.100.1\n");
    let messages = world.later(GATHERED_BY);
    assert_eq!(
        messages,
        [denied("192.0.2.1", "ALL: 192.0.2.1"), denied("2001:db8::/64", "ALL: [2001:db8::]/64")]
    );
    assert_eq!(world.ours(), ["ALL: 192.0.2.1", "ALL: [2001:db8::]/64"]);
    assert!(world.deny.is_idle());
    world.deny.remove("192.0.2.1");
    world.deny.add("2001:db8::/64");
    assert_eq!(
        world.later(GATHERED_BY),
        [Message::Response(Response::NoLongerDenied { target: "192.0.2.1".into() })]
    );
    assert_eq!(world.ours(), ["ALL: [2001:db8::]/64"]);
    assert_eq!(
        world.deny.remove_all(world.now),
        [Message::Response(Response::NoLongerDenied { target: "2001:db8::/64".into() })]
    );
    assert!(world.deny.is_idle());
    assert_eq!(world.text(), "sshd: 198.51.100.1\n", "no part of ours is left");
}

#[test]
fn a_missing_file_is_created_readable_by_all() {
    let mut world = World::with(None);
    assert!(!world.path().exists(), "nothing to write is no reason for a file");
    world.deny.add("192.0.2.1");
    assert_eq!(world.later(GATHERED_BY).len(), 1);
    assert_eq!(std::fs::metadata(world.path()).unwrap().mode() & 0o7777, 0o644);
}

#[test]
fn a_foreign_line_is_not_repeated_and_stays() {
    let mut world = World::with(Some(b"ALL:192.0.2.1\r\nALL : 192.0.2.2 # mine"));
    world.deny.add("192.0.2.1");
    world.deny.add("192.0.2.2");
    assert_eq!(world.later(GATHERED_BY).len(), 2, "both are denied");
    assert_eq!(
        world.ours(),
        ["ALL: 192.0.2.2"],
        "what stands behind their address is part of their rule"
    );
    world.deny.remove("192.0.2.1");
    assert!(
        matches!(&world.later(GATHERED_BY)[..], [Message::Warning(text)] if text.contains("192.0.2.1")),
        "it is denied still"
    );
    assert!(world.text().starts_with("ALL:192.0.2.1\r\nALL : 192.0.2.2 # mine\n# portsentry"));
}

#[test]
fn lines_of_an_earlier_run_stay_until_the_list_of_blocks() {
    let mut world = World::with(None);
    for target in ["192.0.2.1", "192.0.2.0/25", "2001:db8::/64", "2001:db8::1"] {
        world.deny.add(target);
    }
    world.later(GATHERED_BY);
    let before = world.text();
    world.deny = HostsDeny::new(world.path(), LINE.into());
    world.deny.add("192.0.2.1");
    assert_eq!(world.deny.next_due(world.now), None);
    assert_eq!((world.later(MINUTE), world.text()), (vec![], before));
    world.deny.replace(["192.0.2.1".to_owned(), "192.0.2.9".to_owned()].into_iter());
    let mut messages = world.later(GATHERED_BY);
    let gone = |target: &str| Message::Response(Response::NoLongerDenied { target: target.into() });
    assert_eq!(
        messages.pop(),
        Some(denied("192.0.2.9", "ALL: 192.0.2.9")),
        "the other one was denied before"
    );
    assert_eq!(messages, [gone("192.0.2.0/25"), gone("2001:db8::/64"), gone("2001:db8::1")]);
    assert_eq!(world.ours(), ["ALL: 192.0.2.1", "ALL: 192.0.2.9"]);
}

#[test]
fn changes_by_an_editor_are_repaired_within_a_minute() {
    let mut world = World::with(Some(b"# mine\n"));
    world.deny.add("192.0.2.1");
    world.later(GATHERED_BY);
    std::fs::write(world.path(), "# mine, edited\n").unwrap();
    assert_eq!(world.later(GATHERED_BY), []);
    assert!(world.deny.next_due(world.now).unwrap() <= MINUTE);
    assert!(
        matches!(&world.later(MINUTE)[..], [Message::Warning(text)] if text.contains("changed by others"))
    );
    assert!(
        world.text().starts_with("# mine, edited\n# portsentry: begin")
            && world.ours() == ["ALL: 192.0.2.1"]
    );
    // Adding other lines does not affect ours, and is not reported.
    std::fs::write(world.path(), format!("{}ALL: 198.51.100.1\n", world.text())).unwrap();
    assert_eq!(world.later(MINUTE), []);
    assert!(world.text().ends_with("ALL: 198.51.100.1\n"));
    let stamp = std::fs::metadata(world.path()).unwrap().ino();
    assert_eq!(world.later(MINUTE), []);
    assert_eq!(
        std::fs::metadata(world.path()).unwrap().ino(),
        stamp,
        "nothing is written without need"
    );
}

#[test]
fn a_link_stays_and_its_file_is_rewritten() {
    let mut world = World::with(None);
    let real = world.directory.path().join("real");
    std::fs::write(&real, "# real\n").unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink("real", world.path()).unwrap();
    world.deny.add("192.0.2.1");
    let messages = world.later(GATHERED_BY);
    assert!(
        matches!(&messages[..], [Message::Warning(text), Message::Response(Response::Denied { .. })] if text.contains("is a link")),
        "{messages:?}"
    );
    assert!(std::fs::symlink_metadata(world.path()).unwrap().is_symlink());
    assert!(std::fs::read_to_string(&real).unwrap().contains("ALL: 192.0.2.1"));
    assert_eq!(std::fs::metadata(&real).unwrap().mode() & 0o7777, 0o600);
    world.deny.add("192.0.2.2");
    assert_eq!(world.later(GATHERED_BY), [denied("192.0.2.2", "ALL: 192.0.2.2")], "reported once");
    std::fs::remove_file(&real).unwrap();
    world.deny.add("192.0.2.3");
    assert!(error_of(&world.later(GATHERED_BY)).contains("leads nowhere"));
    assert!(!real.exists());
}

// P21
#[test]
fn a_link_that_others_can_change_is_not_followed() {
    if !crate::sys::files::is_root() {
        return;
    }
    let mut world = World::with(None);
    let elsewhere = world.directory.path().join("theirs");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("f"), "theirs\n").unwrap();
    std::os::unix::fs::chown(&elsewhere, Some(65_534), None).unwrap();
    symlink("theirs/f", world.path()).unwrap();
    world.deny.add("192.0.2.1");
    assert!(error_of(&world.later(GATHERED_BY)).contains("is not followed"));
    assert_eq!(std::fs::read_to_string(elsewhere.join("f")).unwrap(), "theirs\n");
}

/// Each failure: how it begins, what is reported, how it ends.
// P21
#[test]
fn every_failure_is_reported_once_and_loses_nothing() {
    type Step = fn(&Path);
    let cases: [(&str, Step, Step); 4] = [
        (
            "its directory must exist",
            |_| (),
            |path| std::fs::create_dir(path.parent().unwrap()).unwrap(),
        ),
        (
            "is not a regular file",
            |path| std::fs::create_dir_all(path).unwrap(),
            |path| std::fs::remove_dir(path).unwrap(),
        ),
        (
            ":2: the mark that begins our lines comes without the one that ends them",
            |path| put(path, b"a\n# portsentry: begin\nALL: 192.0.2.9\n"),
            |path| put(path, b"a\n"),
        ),
        (
            "more than 1048576 bytes of others",
            |path| put(path, &vec![b'#'; (1 << 20) + 1]),
            |path| put(path, b"a\n"),
        ),
    ];
    for (words, begin, end) in cases {
        let mut world = World::with(None);
        let path = world.directory.path().join("etc/hosts.deny");
        world.deny = HostsDeny::new(path.clone(), LINE.into());
        begin(&path);
        world.deny.replace(std::iter::once("192.0.2.1".to_owned()));
        let messages = world.later(GATHERED_BY);
        assert!(error_of(&messages).contains(words), "{messages:?}");
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = world.deny.next_due(world.now).unwrap();
            waits.push(wait);
            assert_eq!(world.later(wait), [], "reported once: {words}");
        }
        assert!(
            waits.windows(2).all(|pair| pair[0] <= pair[1])
                && waits[0] < GATHERED_BY
                && waits[11] == MINUTE,
            "{waits:?}"
        );
        world.deny.add("192.0.2.2");
        end(&path);
        let messages = world.later(MINUTE);
        let messages: Vec<_> = messages
            .iter()
            .map(|message| matches!(message, Message::Response(Response::Denied { .. })))
            .collect();
        assert_eq!(messages, [true, true, false], "both lines, and that it is well again: {words}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("ALL: 192.0.2.1\nALL: 192.0.2.2\n"), "{text}");
        let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "nothing is left beside it");
    }
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn an_immutable_file_is_reported_and_left_alone() {
    use rustix::fs::IFlags;
    let mut world = World::with(Some(b"theirs\n"));
    let file = std::fs::File::open(world.path()).unwrap();
    let flags = rustix::fs::ioctl_getflags(&file);
    let Ok(flags) = flags.and_then(|flags| {
        rustix::fs::ioctl_setflags(&file, flags | IFlags::IMMUTABLE).map(|()| flags)
    }) else {
        // This file system has no immutable files, or this user may not make one.
        return;
    };
    world.deny.add("192.0.2.1");
    let messages = world.later(GATHERED_BY);
    rustix::fs::ioctl_setflags(&file, flags).unwrap();
    assert!(error_of(&messages).contains("immutable"), "{messages:?}");
    assert_eq!(world.text(), "theirs\n");
    assert_eq!(world.later(GATHERED_BY).len(), 2);
    assert_eq!(world.ours(), ["ALL: 192.0.2.1"]);
}

#[test]
fn a_short_lock_is_not_reported() {
    let mut world = World::with(None);
    let lock = crate::sys::replace::Directory::lock(world.directory.path()).unwrap().unwrap();
    world.deny.add("192.0.2.1");
    assert_eq!((world.later(GATHERED_BY), world.later(GATHERED_BY)), (vec![], vec![]));
    drop(lock);
    assert_eq!(world.later(MINUTE), [denied("192.0.2.1", "ALL: 192.0.2.1")]);
    let lock = crate::sys::replace::Directory::lock(world.directory.path()).unwrap().unwrap();
    world.deny.add("192.0.2.2");
    let messages: Vec<_> = (0..10).flat_map(|_| world.later(MINUTE)).collect();
    assert!(error_of(&messages).contains("keeps the lock"), "{messages:?}");
    drop(lock);
    assert_eq!(world.later(MINUTE).len(), 2);
}

#[test]
fn lines_are_bounded_with_one_error() {
    let mut world = World::with(None);
    for n in 0..LINES_MAX as u32 + 7 {
        world.deny.add(&std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string());
    }
    let mut messages = world.later(GATHERED_BY);
    assert!(matches!(messages.pop(), Some(Message::Error(text)) if text.contains("10000 lines")));
    assert_eq!(
        (messages.len(), world.ours().len(), world.deny.left_out),
        (LINES_MAX, LINES_MAX, 7)
    );
    world.deny.add("192.0.2.1");
    assert_eq!(world.later(GATHERED_BY), []);
}

#[test]
fn only_addresses_are_written() {
    let mut world = World::with(None);
    world.deny.add("x : spawn /bin/rm");
    assert!(error_of(&world.later(GATHERED_BY)).contains("no line"));
    assert!(!world.path().exists());
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    Remove(u8),
    Replace(Vec<u8>),
    Append(Vec<u8>),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let others = proptest::collection::vec(
        prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'\\'), Just(b'#'), any::<u8>()],
        1..20,
    );
    prop_oneof![
        4 => (0u8..6).prop_map(Step::Add),
        2 => (0u8..6).prop_map(Step::Remove),
        1 => proptest::collection::vec(0u8..6, 0..4).prop_map(Step::Replace),
        2 => others.prop_map(Step::Append),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Lines of others stay, whatever they write and when; our section has the wanted lines.
    // P21
    #[test]
    fn foreign_bytes_stay_and_the_section_has_the_wanted_lines(first in proptest::collection::vec(any::<u8>(), 0..40), steps in proptest::collection::vec(step(), 1..12)) {
        let mut world = World::with(Some(&first));
        let mut theirs = first;
        let mut wanted = BTreeSet::new();
        let name = |n: u8| format!("192.0.2.{n}");
        for step in steps {
            match step {
                Step::Add(n) => { wanted.insert(name(n)); world.deny.add(&name(n)); }
                Step::Remove(n) => { wanted.remove(&name(n)); world.deny.remove(&name(n)); }
                Step::Replace(list) => { wanted = list.iter().copied().map(name).collect(); world.deny.replace(wanted.clone().into_iter()); }
                Step::Append(bytes) => {
                    theirs.extend_from_slice(&bytes);
                    let now = [&std::fs::read(world.path()).unwrap()[..], &bytes[..]].concat();
                    std::fs::write(world.path(), now).unwrap();
                }
                Step::Restart => {
                    world.deny = HostsDeny::new(world.path(), LINE.into());
                    world.deny.replace(wanted.clone().into_iter());
                }
            }
            let messages = world.later(MINUTE);
            prop_assert!(!messages.iter().any(|message| matches!(message, Message::Error(_))), "{messages:?}");
            let lines: Vec<_> = wanted.iter().map(|target| format!("ALL: {target}")).collect();
            prop_assert_eq!(world.ours(), lines);
            let bytes = std::fs::read(world.path()).unwrap();
            let parts = Parts::of(&bytes).unwrap();
            // A line end of ours may separate two parts of theirs.
            let left: Vec<u8> = [parts.before, parts.after].concat();
            let plain = |bytes: &[u8]| bytes.iter().copied().filter(|&byte| byte != b'\n').collect::<Vec<_>>();
            prop_assert_eq!(plain(&left), plain(&theirs));
            prop_assert!(left.len() >= theirs.len());
        }
    }
}
