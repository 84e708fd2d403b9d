//! A store that cannot be used, for whatever reason: blocking continues, it is reported, and it is
//! repaired if possible.

use std::path::PathBuf;
use std::time::Duration;

use portsentry::store;

use super::{SCANNER, TOOLS, database, done, drop_table, kill, scene};
use crate::support;
use crate::support::daemon::Daemon;
use crate::support::scene::Scene;
use crate::support::{eventually, missing, run};

/// A small file system in place of the state directory, for the daemon and its observers.
struct Disk(PathBuf);

impl Disk {
    fn new(path: PathBuf) -> Self {
        run("mount", &["-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", path.to_str().unwrap()]);
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), self.path()]);
    }

    fn fill(&self) {
        let _ = support::output(
            "dd",
            &["if=/dev/zero", &format!("of={}/filler", self.path()), "bs=4096"],
            Duration::from_secs(20),
        );
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = support::output("umount", &["-l", self.path()], Duration::from_secs(5));
    }
}

/// A daemon whose state directory is a separate file system.
fn on_a_disk<'a>(scene: &'a Scene) -> (Daemon<'a>, Disk, String) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.keep());
    // A duplicate key is refused, so the state directory is given by a file of the test's own.
    let daemon = Daemon::start_with(&scene.host, "", Some(&disk.0));
    let path = disk.path().to_owned();
    (daemon, disk, path)
}

fn store_state(daemon: &Daemon<'_>) -> String {
    daemon.json(&["status"])["store"]["state"].as_str().unwrap().to_owned()
}

// P25
#[test]
fn a_full_disk_is_reported_once_and_all_is_written_later() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let (mut daemon, disk, _) = on_a_disk(&scene);
    done(&daemon.ctl(&["block", "192.0.2.1"]));
    disk.fill();
    let mut said = String::new();
    for n in 0..200 {
        said = done(&daemon.ctl(&[
            "block",
            &format!("198.51.100.{n}"),
            "--reason",
            &"a long reason ".repeat(7),
        ]));
        if said.contains("a reboot would forget that") {
            break;
        }
    }
    assert!(
        said.contains("a reboot would forget that, the state store cannot be written"),
        "{said}"
    );
    assert_eq!(store_state(&daemon), "failing");
    assert!(
        daemon.json(&["status"])["warnings"].to_string().contains("state store"),
        "{}",
        daemon.json(&["status"])
    );
    done(&daemon.ctl(&["block", "203.0.113.1"]));
    done(&daemon.ctl(&["unblock", "192.0.2.1"]));
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
    assert_eq!(
        daemon.log().matches("the state store cannot be used").count(),
        1,
        "{}",
        daemon.log()
    );
    let wanted = daemon.blocked();
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    daemon.wait_within_for_log(Duration::from_secs(20), "is written again");
    assert_eq!(store_state(&daemon), "ok");
    done(&daemon.ctl(&["block", "203.0.113.2"]));
    done(&daemon.ctl(&["unblock", "203.0.113.2"]));
    kill(&mut daemon);
    drop_table(&scene);
    daemon.restart("");
    assert_eq!(daemon.blocked(), wanted);
}

// P25
#[test]
fn a_read_only_store_restores_blocks_and_writes_new_ones_later() {
    if missing(TOOLS).is_some() {
        return;
    }
    for in_order in [true, false] {
        let scene = scene();
        let (mut daemon, disk, _) = on_a_disk(&scene);
        done(&daemon.ctl(&["block", "192.0.2.1", "--for", "3h"]));
        if in_order {
            daemon.stop();
        } else {
            kill(&mut daemon);
        }
        drop_table(&scene);
        disk.remount("ro");
        daemon.restart("");
        assert_eq!(daemon.blocked(), ["192.0.2.1"], "{in_order}");
        assert_eq!(store_state(&daemon), "failing");
        let said = done(&daemon.ctl(&["block", "192.0.2.2"]));
        assert!(said.contains("a reboot would forget that"), "{said}");
        disk.remount("rw");
        // ip-netns(8) gives the daemon a copy of the mount, with its own flags.
        run(
            "nsenter",
            &["-t", &daemon.child.id().to_string(), "-m", "mount", "-o", "remount,rw", disk.path()],
        );
        daemon.wait_within_for_log(Duration::from_secs(20), "is written again");
        let settled = || daemon.json(&["status"])["store"]["blocks"] == 2;
        assert!(eventually(Duration::from_secs(10), settled), "{}", daemon.json(&["status"]));
        kill(&mut daemon);
        drop_table(&scene);
        daemon.restart("");
        assert_eq!(daemon.blocked(), ["192.0.2.1", "192.0.2.2"]);
    }
}

// P25
#[test]
fn a_damaged_store_is_set_aside_and_the_daemon_starts() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    done(&daemon.ctl(&["block", "192.0.2.1"]));
    daemon.stop();
    let noise: Vec<u8> =
        (0..30_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let whole = std::fs::read(database(&daemon)).unwrap();
    for damage in [noise, whole[..whole.len() / 2].to_vec(), b"x".to_vec()] {
        std::fs::write(database(&daemon), &damage).unwrap();
        daemon.restart("");
        // The kernel still has it.
        assert_eq!(daemon.blocked(), ["192.0.2.1"]);
        let settled = || daemon.json(&["status"])["store"]["blocks"] == 1;
        assert!(
            store_state(&daemon) == "ok" && eventually(Duration::from_secs(10), settled),
            "{}",
            daemon.log()
        );
        let kept = std::fs::read_dir(daemon.directory.path()).unwrap().flatten().any(|entry| {
            entry.file_name().to_str().unwrap().contains(".damaged-")
                && std::fs::read(entry.path()).unwrap() == damage
        });
        assert!(kept, "{}", daemon.log());
        daemon.stop();
    }
}

// P25
#[test]
fn a_newer_store_is_left_alone_and_the_daemon_runs() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    daemon.stop();
    let mut bytes = std::fs::read(database(&daemon)).unwrap();
    // user_version (sqlite.org/fileformat.html, 1.3).
    bytes[60..64].copy_from_slice(&7u32.to_be_bytes());
    std::fs::write(database(&daemon), &bytes).unwrap();
    daemon.restart("");
    let said = done(&daemon.ctl(&["block", "192.0.2.1"]));
    assert!(said.contains("its version is 7, a newer portsentry has written it"), "{said}");
    assert_eq!(
        (store_state(&daemon).as_str(), daemon.blocked()),
        ("failing", vec!["192.0.2.1".to_owned()])
    );
    daemon.stop();
    assert_eq!(std::fs::read(database(&daemon)).unwrap(), bytes);
    let names: Vec<_> = std::fs::read_dir(daemon.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.iter().filter(|name| name.starts_with(store::FILE)).count(), 1, "{names:?}");
}

// P25
#[test]
fn a_second_daemon_with_the_same_state_directory_blocks_and_leaves_the_store_alone() {
    if missing(TOOLS).is_some() {
        return;
    }
    let (first, second) = (scene(), scene());
    let one = Daemon::start(&first.host, "");
    done(&one.ctl(&["block", "192.0.2.1"]));
    let other = Daemon::start_with(&second.host, "", Some(one.directory.path()));
    let said = done(&other.ctl(&["block", "192.0.2.2"]));
    assert!(said.contains("another process has it open"), "{said}");
    assert_eq!((store_state(&one), store_state(&other)), ("ok".to_owned(), "failing".to_owned()));
    assert_eq!(
        (one.blocked(), other.blocked()),
        (vec!["192.0.2.1".to_owned()], vec!["192.0.2.2".to_owned()])
    );
}
