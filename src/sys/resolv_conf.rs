//! Which nameservers this host asks (resolv.conf(5)).
//!
//! The parser is pure and takes any text; the reader takes files that are missing for what they are: no nameservers.

use std::fmt;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The resolver's configuration, and the servers behind systemd-resolved's stub 127.0.0.53 (systemd-resolved.service(8)).
pub const PATHS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// What is read of a file, bytes. A real one has a few hundred.
const SIZE_MAX: u64 = 64 * 1024;

/// Nameservers taken from one text. glibc asks 3, systemd-resolved lists what all interfaces have; nobody has this many.
const SERVERS_MAX: usize = 64;

/// A file that is there and could not be read.
#[derive(Debug)]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What was wrong.
    pub error: io::Error,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}", self.path.display())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// The nameservers of a resolv.conf(5), each once, in order, without the scope of scoped addresses (`fe80::1%eth0`).
///
/// Lines that say nothing, or nothing that can be understood, are passed over, as the resolver does.
pub fn parse(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    // The keyword must start the line (resolv.conf(5)); what follows the address is ignored, as are `;` and `#` in it, as glibc does.
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("nameserver") else { continue };
        if !rest.starts_with([' ', '\t']) {
            continue;
        }
        let word = rest.trim_start().split([' ', '\t', '\r', ';', '#']).next().unwrap_or_default();
        let address = word.split_once('%').map_or(word, |(address, _scope)| address);
        if let Ok(address) = address.parse::<IpAddr>()
            && !servers.contains(&address)
        {
            servers.push(address);
            if servers.len() == SERVERS_MAX {
                break;
            }
        }
    }
    servers
}

/// The nameservers of all `paths` together, each once, and the files that are there and could not be read.
pub fn read<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> (Vec<IpAddr>, Vec<Error>) {
    let (mut servers, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        let path = path.as_ref();
        match read_text(path) {
            Ok(text) => {
                for server in parse(&text) {
                    if !servers.contains(&server) {
                        servers.push(server);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => errors.push(Error { path: path.to_owned(), error }),
        }
    }
    (servers, errors)
}

/// The first [`SIZE_MAX`] bytes of a regular file, as text; bytes that are none become signs that no line needs.
fn read_text(path: &Path) -> io::Result<String> {
    // Somebody's named pipe in this place must not hold the daemon up: opened for reading without waiting, and looked at first.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(SIZE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn nameservers_are_taken_in_order_and_once() {
        let text = "# by hand\nsearch example.org\nnameserver 192.0.2.53\nnameserver\t2001:db8::53\r\noptions edns0\nnameserver 192.0.2.53 # again\n";
        assert_eq!(parse(text), addresses(&["192.0.2.53", "2001:db8::53"]));
    }

    #[test]
    fn a_scoped_address_is_taken_without_its_scope() {
        assert_eq!(parse("nameserver fe80::1%eth0\n"), addresses(&["fe80::1"]));
    }

    #[test]
    fn lines_that_glibc_ignores_are_ignored() {
        let text = " nameserver 192.0.2.1\n;nameserver 192.0.2.2\n#nameserver 192.0.2.3\nnameservers 192.0.2.4\nnameserver192.0.2.5\nnameserver\n\
                    nameserver example.org\nNameserver 192.0.2.6\nnameserver 192.0.2.256\nnameserver fe80::%\n";
        // `fe80::%` has an empty scope: the address stands.
        assert_eq!(parse(text), addresses(&["fe80::"]));
    }

    #[test]
    fn a_comment_that_touches_the_address_ends_it() {
        assert_eq!(parse("nameserver 192.0.2.1#home\nnameserver 192.0.2.2;x"), addresses(&["192.0.2.1", "192.0.2.2"]));
    }

    #[test]
    fn more_servers_than_anybody_has_are_not_kept() {
        let text: String = (0..200).map(|host| format!("nameserver 192.0.2.{host}\n")).collect();
        assert_eq!(parse(&text).len(), SERVERS_MAX);
    }

    #[test]
    fn files_are_read_together_and_missing_ones_are_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        std::fs::write(&one, b"nameserver 192.0.2.1\nnameserver \xff\xfe\n").unwrap();
        std::fs::write(&two, "nameserver 192.0.2.2\nnameserver 192.0.2.1\n").unwrap();
        let (servers, errors) = read([&one, &directory.path().join("missing"), &two]);
        assert_eq!(servers, addresses(&["192.0.2.1", "192.0.2.2"]));
        assert!(errors.is_empty());
    }

    #[test]
    fn what_is_no_file_is_told_and_does_not_hold_anybody_up() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let (servers, errors) = read([directory.path(), &pipe]);
        assert!(servers.is_empty());
        assert_eq!(errors.iter().map(|error| error.path.as_path()).collect::<Vec<_>>(), [directory.path(), &pipe]);
    }

    #[test]
    fn a_huge_file_is_read_up_to_the_cap() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("huge");
        let filler = "#".repeat(usize::try_from(SIZE_MAX).unwrap());
        std::fs::write(&path, format!("nameserver 192.0.2.1\n{filler}\nnameserver 192.0.2.2\n")).unwrap();
        assert_eq!(read([&path]).0, addresses(&["192.0.2.1"]));
    }

    proptest! {
        // P8
        #[test]
        fn any_text_is_parsed(text in "(nameserver[ \t]?|[ -~]|\n|\\PC){0,60}") {
            prop_assert!(parse(&text).len() <= SERVERS_MAX);
        }

        #[test]
        fn every_address_is_understood(address: IpAddr, scope in "(%[a-z0-9]{1,15})?") {
            prop_assert_eq!(parse(&format!("nameserver {address}{scope}")), vec![address]);
        }
    }
}
