//! Where the metrics server listens: an address and port, or a unix socket.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::client::Stream;

/// The mode of a unix socket: its group may be a web server's.
const SOCKET_MODE: u32 = 0o660;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An address and port: `127.0.0.1:9477`, `[::1]:9477`.
    Address(SocketAddr),
    /// A unix socket: `unix:/run/portsentry-exporter/metrics.sock`.
    Unix(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_whole = path.starts_with('/');
            return if is_whole {
                Ok(Self::Unix(path.into()))
            } else {
                Err("write the whole path of the socket, unix:/run/...".to_owned())
            };
        }
        let address = text.parse().map_err(|_| {
            "write an address and a port, 127.0.0.1:9477 or [::1]:9477, or unix:/PATH".to_owned()
        })?;
        Ok(Self::Address(address))
    }
}

/// As a client names it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "http://{address}/metrics"),
            Self::Unix(path) => write!(f, "/metrics on unix:{}", path.display()),
        }
    }
}

impl Place {
    /// Whether other hosts can reach it.
    pub(in crate::ctl) fn is_open(&self) -> bool {
        matches!(self, Self::Address(address) if !address.ip().to_canonical().is_loopback())
    }
}

/// A listening socket.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn bind(place: &Place) -> io::Result<Self> {
        match place {
            Place::Address(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
            Place::Unix(path) => {
                let listener = match UnixListener::bind(path) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
                        std::fs::remove_file(path)?;
                        UnixListener::bind(path)
                    }
                    other => other,
                }?;
                std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener))
            }
        }
    }

    /// Where it listens, with the port that the kernel chose for 0.
    pub(super) fn place(&self, asked: &Place) -> Place {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| asked.clone(), Place::Address)
            }
            Self::Unix(_) => asked.clone(),
        }
    }

    /// The next client; `WouldBlock`: there is none.
    pub(super) fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Unix(stream))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Whether a path is a socket without a listening process, as a killed server leaves behind.
fn is_stale(path: &Path) -> bool {
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    let refused = || {
        UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    is_socket && refused()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_unix_sockets_alone_are_closed_to_others() {
        for (text, is_open) in [
            ("127.0.0.1:9477", false),
            ("127.9.9.9:1", false),
            ("[::1]:9477", false),
            ("[::ffff:127.0.0.1]:9477", false),
            ("unix:/run/x", false),
            ("0.0.0.0:9477", true),
            ("[::]:9477", true),
            ("192.0.2.1:9477", true),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().is_open(), is_open, "{text}");
        }
        for wrong in ["9477", "localhost:9477", "unix:x", "127.0.0.1", "unix:"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_socket_that_a_killed_server_left_is_replaced_and_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.sock");
        let place = Place::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&place).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        assert_eq!(Listener::bind(&place).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "kept").unwrap();
        assert!(Listener::bind(&place).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    }
}
