//! A network namespace for a thread of this process.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A namespace with a name of ip-netns(8), deleted when dropped.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    /// A new one, with loopback up.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("peer{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self { name }
    }

    /// Runs `inside` on a thread that lives in the namespace.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = std::fs::File::open(format!("/run/netns/{}", self.name))
                        .expect("namespace");
                    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                    rustix::thread::move_into_link_name_space(
                        std::os::fd::AsFd::as_fd(&file),
                        kind,
                    )
                    .expect("setns (needs root)");
                    inside()
                })
                .join()
                .expect("the thread in the namespace")
        })
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.name]);
    }
}

/// ip(8), which must succeed.
pub fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status().expect("ip");
    assert!(status.success(), "ip {words:?}");
}
