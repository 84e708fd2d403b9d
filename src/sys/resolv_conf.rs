//! The nameservers of this host (resolv.conf(5)). The parser accepts any text; a missing file has
//! no nameservers.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::files;

/// The resolver's configuration, and the servers behind systemd-resolved's stub 127.0.0.53
/// (systemd-resolved.service(8)).
pub const PATHS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Bytes read of a file. A real one has a few hundred.
const SIZE_MAX: u64 = 64 * 1024;

/// Nameservers taken from one file. glibc uses 3; systemd-resolved lists those of all interfaces.
const SERVERS_MAX: usize = 64;

/// An existing file could not be read.
#[derive(Debug)]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// The error.
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

/// The nameservers of a resolv.conf(5), each once, in order, without scopes (`fe80::1%eth0`). Skips
/// invalid lines, as the resolver does.
pub fn parse(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    // The keyword must start the line (resolv.conf(5)). As glibc does, ignore the rest after the
    // address, and from `;` or `#` on.
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

/// The nameservers of all `paths`, each once, and the existing files that could not be read.
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

/// The first [`SIZE_MAX`] bytes of a regular file; invalid UTF-8 is replaced.
fn read_text(path: &Path) -> io::Result<String> {
    // A named pipe at this path must not block the daemon: open without waiting and check the type.
    let mut file = files::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(String::from_utf8_lossy(&files::read_up_to(&mut file, SIZE_MAX)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn nameservers_are_listed_in_order_and_once() {
        let text = "# by hand\nsearch example.org\nnameserver 192.0.2.53\nnameserver\t2001:db8::53\r\noptions edns0\nnameserver 192.0.2.53 # again\n";
        assert_eq!(parse(text), addresses(&["192.0.2.53", "2001:db8::53"]));
    }

    #[test]
    fn scope_of_an_address_is_dropped() {
        assert_eq!(parse("nameserver fe80::1%eth0\n"), addresses(&["fe80::1"]));
    }

    #[test]
    fn lines_that_glibc_ignores_are_ignored() {
        let text = " nameserver 192.0.2.1\n;nameserver 192.0.2.2\n#nameserver 192.0.2.3\nnameservers 192.0.2.4\nnameserver192.0.2.5\nnameserver\n\
                    nameserver example.org\nNameserver 192.0.2.6\nnameserver 192.0.2.256\nnameserver fe80::%\n";
        // `fe80::%` has an empty scope: the address is valid.
        assert_eq!(parse(text), addresses(&["fe80::"]));
    }

    #[test]
    fn comment_directly_after_the_address_ends_it() {
        assert_eq!(
            parse("nameserver 192.0.2.1#home\nnameserver 192.0.2.2;x"),
            addresses(&["192.0.2.1", "192.0.2.2"])
        );
    }

    #[test]
    fn number_of_servers_is_bounded() {
        let text: String = (0..200).map(|host| format!("nameserver 192.0.2.{host}\n")).collect();
        assert_eq!(parse(&text).len(), SERVERS_MAX);
    }

    #[test]
    fn missing_files_are_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        std::fs::write(&one, b"nameserver 192.0.2.1\nnameserver \xff\xfe\n").unwrap();
        std::fs::write(&two, "nameserver 192.0.2.2\nnameserver 192.0.2.1\n").unwrap();
        let (servers, errors) = read([&one, &directory.path().join("missing"), &two]);
        assert_eq!(servers, addresses(&["192.0.2.1", "192.0.2.2"]));
        assert!(errors.is_empty());
    }

    #[test]
    fn pipe_is_reported_and_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let (servers, errors) = read([directory.path(), &pipe]);
        assert!(servers.is_empty());
        assert_eq!(
            errors.iter().map(|error| error.path.as_path()).collect::<Vec<_>>(),
            [directory.path(), &pipe]
        );
    }

    #[test]
    fn huge_file_is_read_up_to_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("huge");
        let filler = "#".repeat(usize::try_from(SIZE_MAX).unwrap());
        std::fs::write(&path, format!("nameserver 192.0.2.1\n{filler}\nnameserver 192.0.2.2\n"))
            .unwrap();
        assert_eq!(read([&path]).0, addresses(&["192.0.2.1"]));
    }

    proptest! {
        // P8
        #[test]
        fn any_text_is_parsed(text in "(nameserver[ \t]?|[ -~]|\n|\\PC){0,60}") {
            prop_assert!(parse(&text).len() <= SERVERS_MAX);
        }

        #[test]
        fn every_address_is_parsed(address: IpAddr, scope in "(%[a-z0-9]{1,15})?") {
            prop_assert_eq!(parse(&format!("nameserver {address}{scope}")), vec![address]);
        }
    }
}
