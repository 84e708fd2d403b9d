//! Lines in hosts.deny (hosts_access(5)): added when a block begins, removed when it ends.
//!
//! Our lines are between two comment lines; the rest of the file is kept byte for byte. A line that
//! exists outside our section is not added again. A change is reported after it is on the disk, and
//! kept while the file cannot be written.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};

use super::mirror::{Error, Fault, Mirror, MirrorFile};
use super::protocol::{Message, TEST_TARGET};
use super::section::Parts;
use crate::journal::Response;

/// Lines that are written at most: libwrap reads the whole file for each connection, which takes
/// some milliseconds.
pub(super) const LINES_MAX: usize = 10_000;

/// How long changes are gathered: a scan of a network blocks many at once, and the file is written
/// as a whole. The block in the kernel, which is what counts, is there already.
const GATHER_TIME: Duration = Duration::from_millis(200);

/// Bytes outside our section that are read at most: some thirty thousand lines.
const OTHERS_MAX: usize = 1 << 20;

/// Bytes of the file that are read at most: other lines, and the maximum of ours at the longest
/// permitted form.
const SIZE_MAX: u64 = 16 << 20;

/// All users may read hosts.deny: servers that do not run as root use it too.
const MODE: u32 = 0o644;

/// The placeholder of the denied host or network.
const TARGET: &str = "{target}";

/// The file and its wanted content.
#[derive(Debug)]
pub(super) struct HostsDeny {
    mirror: Mirror,
    template: String,
    /// Hosts and networks that our lines should deny.
    wanted: BTreeSet<String>,
    /// Hosts and networks whose lines were reported.
    denied: BTreeSet<String>,
    /// The first [`HostsDeny::replace`] has come: until then lines of an earlier run are kept,
    /// since they may still be wanted.
    complete: bool,
    /// The file was read once, so that lines that were there before are not reported as new.
    compared: bool,
    /// Additions past [`LINES_MAX`] since the start.
    left_out: u64,
    left_out_told: bool,
    /// An added target that is not an address.
    unreadable: Option<String>,
}

impl HostsDeny {
    /// Lines of the form `line_template` in the file at `path`; `{target}` is replaced. Nothing is
    /// read or written yet.
    pub(super) fn new(path: PathBuf, line_template: String) -> Self {
        Self {
            mirror: Mirror::new(path, MODE, SIZE_MAX, GATHER_TIME),
            template: line_template,
            wanted: BTreeSet::new(),
            denied: BTreeSet::new(),
            complete: false,
            compared: false,
            left_out: 0,
            left_out_told: false,
            unreadable: None,
        }
    }

    /// Adds the line of an address or network.
    pub(super) fn add(&mut self, target: &str) {
        if pattern(target).is_none() {
            // One is enough to report a fault that only a defect can cause.
            self.unreadable = Some(target.to_owned());
        } else if self.wanted.len() < LINES_MAX {
            if !self.wanted.insert(target.to_owned()) {
                return;
            }
        } else if !self.wanted.contains(target) {
            self.left_out += 1;
        }
        self.mirror.on_change();
    }

    /// Removes the line.
    pub(super) fn remove(&mut self, target: &str) {
        if self.wanted.remove(target) {
            self.mirror.on_change();
        }
    }

    /// Sets the whole list. Must come once before anything is written: lines of an earlier run stay
    /// until then.
    pub(super) fn replace(&mut self, targets: impl Iterator<Item = String>) {
        // No list has the target of a trial, whose line may wait to be written.
        self.wanted.retain(|target| target == TEST_TARGET && !self.denied.contains(target));
        self.complete = true;
        self.mirror.on_change();
        targets.for_each(|target| self.add(&target));
    }

    fn apply(&mut self) -> Result<(), Error> {
        let (template, wanted) = (&self.template, &self.wanted);
        let line_of = |target: &str| Some(template.replace(TARGET, &pattern(target)?));
        let wanted_lines: Vec<(&String, String)> =
            wanted.iter().filter_map(|target| Some((target, line_of(target)?))).collect();
        let (others, own, stale) = self.mirror.update(|bytes| {
            let bytes = bytes.unwrap_or_default();
            let parts = Parts::of(bytes).map_err(|(what, line)| Fault::Damaged(what, line))?;
            if parts.before.len() + parts.after.len() > OTHERS_MAX {
                return Err(Fault::TooLarge(OTHERS_MAX as u64));
            }
            let others: HashSet<Vec<u8>> = parts.others().map(plain).collect();
            let own: HashSet<Vec<u8>> = parts.own().map(plain).collect();
            let lines: Vec<String> = wanted_lines
                .iter()
                .map(|(_, line)| line)
                .filter(|line| !others.contains(&plain(line.as_bytes())))
                .cloned()
                .collect();
            let new = parts.with(&lines);
            let stale: Vec<String> =
                parts.own().filter_map(|line| target_of(template, line)).collect();
            Ok(((new != bytes).then_some(new), (others, own, stale)))
        })?;
        let is_others = |line: &String| others.contains(&plain(line.as_bytes()));
        if !self.compared {
            self.compared = true;
            // Targets that an earlier run or 1.2 denied are not reported as new. Targets that are
            // no longer wanted are reported.
            self.denied = wanted_lines
                .iter()
                .filter(|(_, line)| own.contains(&plain(line.as_bytes())) || is_others(line))
                .map(|(target, _)| (*target).clone())
                .collect();
            self.denied.extend(stale);
        }
        let mut theirs = Vec::new();
        for target in std::mem::take(&mut self.denied) {
            if wanted.contains(&target) {
                self.denied.insert(target);
            } else if line_of(&target).as_ref().is_some_and(is_others) {
                theirs.push(target);
            } else {
                self.mirror.messages.push(Message::Response(Response::NoLongerDenied { target }));
            }
        }
        if let Some(first) = theirs.first() {
            let more = if theirs.len() > 1 {
                format!(" and {} more", theirs.len() - 1)
            } else {
                String::new()
            };
            let path = self.mirror.path().display();
            self.mirror.warn(format!("{path} has a line of others for {first}{more}, which stays"));
        }
        for (target, line) in wanted_lines {
            if self.denied.insert(target.clone()) {
                let target = target.clone();
                self.mirror.messages.push(Message::Response(Response::Denied { target, line }));
            }
        }
        Ok(())
    }
}

impl MirrorFile for HostsDeny {
    fn is_idle(&self) -> bool {
        self.mirror.is_idle()
    }

    fn next_due(&mut self, now: Instant) -> Option<Duration> {
        self.complete.then(|| self.mirror.next_due(now))
    }

    fn write(&mut self, now: Instant) -> Vec<Message> {
        if !self.complete || !self.mirror.must_write(now) {
            return Vec::new();
        }
        let result = self.apply();
        self.mirror.on_result(now, result);
        let mut messages = std::mem::take(&mut self.mirror.messages);
        if self.left_out > 0 && !self.left_out_told {
            self.left_out_told = true;
            messages.push(Message::Error(format!(
                "{} gets no more than {LINES_MAX} lines; whoever is blocked beyond that is blocked by nftables alone",
                self.mirror.path().display()
            )));
        }
        messages.extend(self.unreadable.take().map(|target| {
            Message::Error(format!("no line of hosts.deny can be made for {target:?}"))
        }));
        messages
    }

    fn remove_all(&mut self, now: Instant) -> Vec<Message> {
        self.replace(std::iter::empty());
        self.mirror.on_last_change(now);
        self.write(now)
    }
}

/// A line for comparison: hosts_access(5) allows any blanks between words, and around `:` and `,`.
fn plain(line: &[u8]) -> Vec<u8> {
    let mut plain: Vec<u8> = Vec::with_capacity(line.len());
    let is_mark = |byte: u8| byte == b':' || byte == b',';
    for word in line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        let joined = plain.last().is_none_or(|&last| is_mark(last))
            || word.first().is_some_and(|&first| is_mark(first));
        if !joined {
            plain.push(b' ');
        }
        plain.extend_from_slice(word);
    }
    plain
}

/// The target of one of our lines.
fn target_of(template: &str, line: &[u8]) -> Option<String> {
    let (before, after) = template.split_once(TARGET)?;
    let inner = std::str::from_utf8(line)
        .ok()?
        .trim_end()
        .strip_prefix(before)?
        .strip_suffix(after.trim_end())?;
    let network = match inner.strip_prefix('[') {
        Some(inner) => {
            let (address, rest) = inner.split_once(']')?;
            format!("{address}{rest}")
        }
        None => match inner.split_once('/') {
            Some((address, mask)) => {
                Ipv4Net::with_netmask(address.parse().ok()?, mask.parse().ok()?).ok()?.to_string()
            }
            None => inner.to_owned(),
        },
    };
    // The line is in our section, but may have been edited.
    pattern(&network).map(|_| network)
}

/// An address or network in CIDR form in the notation of hosts_access(5): `192.0.2.1`,
/// `192.0.2.0/255.255.255.0`, `[2001:db8::1]`, `[2001:db8::]/64`. `None`: it is neither.
///
/// 255.255.255.255 is not a valid mask there, so a network of one address is written as that
/// address. Not every libwrap knows prefix lengths for IPv4; all know the mask.
pub(super) fn pattern(target: &str) -> Option<String> {
    let network = target.parse().map(|address: IpAddr| IpNet::from(address));
    let network = network.or_else(|_| target.parse::<IpNet>()).ok()?.trunc();
    let whole = network.prefix_len() == network.max_prefix_len();
    Some(match network {
        IpNet::V4(network) if whole => network.addr().to_string(),
        IpNet::V4(network) => format!("{}/{}", network.addr(), network.netmask()),
        IpNet::V6(network) if whole => format!("[{}]", network.addr()),
        IpNet::V6(network) => format!("[{}]/{}", network.addr(), network.prefix_len()),
    })
}

#[cfg(test)]
mod tests;
