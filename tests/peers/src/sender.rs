//! Single TCP SYN packets from any source address, through a raw socket (raw(7)). Only ever used
//! inside a network namespace of this program.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A raw socket that writes its own IP headers.
pub struct Sender(OwnedFd);

impl Sender {
    /// Opens it; needs CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        // SAFETY: plain system call; the descriptor is owned at once.
        let fd = unsafe {
            libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and belongs to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends one SYN.
    pub fn syn(&self, source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> io::Result<()> {
        let mut packet = [0u8; 40];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&40u16.to_be_bytes());
        packet[8] = 64;
        packet[9] = 6;
        packet[12..16].copy_from_slice(&source.octets());
        packet[16..20].copy_from_slice(&destination.octets());
        packet[20..22].copy_from_slice(&40_000u16.to_be_bytes());
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet[32] = 0x50;
        packet[33] = 0x02;
        packet[34..36].copy_from_slice(&1024u16.to_be_bytes());
        let mut sum = 6u32 + 20;
        for pair in packet[12..40].chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        packet[36..38].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(destination.octets()) },
            sin_zero: [0; 8],
        };
        // SAFETY: both pointers and lengths describe live values.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_in>() as u32,
            )
        };
        if sent == 40 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
