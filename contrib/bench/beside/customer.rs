//! A customer of the scanned host: an established connection on which a byte goes there and back,
//! and new connections, while others send in its name.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::target::{ECHO, HOST};

/// How long a new connection is tried: past the second retransmission of its SYN, which comes after
/// three seconds (RFC 6298).
const TRY: Duration = Duration::from_secs(4);
/// Between two new connections, and before the first of them.
const EVERY: Duration = Duration::from_millis(500);
/// Between two bytes on the established one.
const BYTE_EVERY: Duration = Duration::from_millis(20);

/// What a customer experiences.
pub struct Customer {
    /// New connections that were tried.
    pub tried: usize,
    /// Of these, those that failed.
    pub failed: usize,
    /// The longest that a byte took on the established connection.
    pub stalled: Duration,
}

/// A service that gives back what it gets, in the namespace of the thread that calls this.
pub fn service() -> TcpListener {
    TcpListener::bind(("0.0.0.0", ECHO)).unwrap()
}

/// Serves until a connection comes after `over`.
pub fn serve(listener: &TcpListener, over: &AtomicBool) {
    std::thread::scope(|scope| {
        while let Ok((mut peer, _)) = listener.accept()
            && !over.load(Ordering::Relaxed)
        {
            scope.spawn(move || {
                peer.set_read_timeout(Some(TRY)).unwrap();
                let mut byte = [0];
                while peer.read_exact(&mut byte).and_then(|()| peer.write_all(&byte)).is_ok() {}
            });
        }
    });
}

/// Ends [`serve`]; in the service's namespace.
pub fn end(over: &AtomicBool) {
    over.store(true, Ordering::Relaxed);
    let _ = TcpStream::connect(("127.0.0.1", ECHO));
}

/// Uses the service for so long, in the namespace of the thread that calls this.
pub fn use_service(source: Ipv4Addr, lasting: Duration) -> Customer {
    let begun = Instant::now();
    let starts = || (1..).map(|n| EVERY * n).take_while(|start| *start + TRY <= lasting);
    std::thread::scope(|scope| {
        let tries: Vec<_> = starts()
            .map(|start| {
                scope.spawn(move || {
                    std::thread::sleep(start);
                    open(source).and_then(|mut new| exchange(&mut new)).is_ok()
                })
            })
            .collect();
        let mut old = open(source).unwrap();
        old.set_read_timeout(Some(lasting)).unwrap();
        let mut stalled = Duration::ZERO;
        while begun.elapsed() < lasting {
            let at = Instant::now();
            let is_back = exchange(&mut old).is_ok();
            stalled = stalled.max(at.elapsed());
            if !is_back {
                break;
            }
            std::thread::sleep(BYTE_EVERY);
        }
        let done: Vec<bool> = tries.into_iter().map(|one| one.join().unwrap()).collect();
        let failed = done.iter().filter(|done| !**done).count();
        Customer { tried: done.len(), failed, stalled }
    })
}

fn open(source: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::from((source, 0)))?;
    // connect(2) honours it (socket(7)).
    set_socket_timeout(&socket, Timeout::Send, Some(TRY))?;
    connect(&socket, &SocketAddrV4::new(HOST, ECHO))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TRY))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}
