//! The virtual services of IPVS, the kernel's load balancer (ipvsadm(8)). It takes their packets
//! after the rules have seen them, without a socket.

use std::io::{self, BufRead, BufReader, Read};

/// The table of virtual services in the calling thread's network namespace
/// (net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_info_seq_show()).
const TABLE: &str = "/proc/thread-self/net/ip_vs";

/// Bytes read of the table: some 100,000 lines.
const SIZE_MAX: u64 = 8 << 20;

/// A transport that IPVS balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// What the table says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Table {
    /// Protocol and port of each virtual service.
    pub(crate) services: Vec<(Protocol, u16)>,
    /// There are services without a port: by firewall mark, or for all ports of an address.
    pub(crate) has_others: bool,
}

/// The table; empty where the kernel has no IPVS.
///
/// # Errors
/// That of reading it.
pub(crate) fn table() -> io::Result<Table> {
    match std::fs::File::open(TABLE) {
        Ok(table) => parse(BufReader::new(table.take(SIZE_MAX))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Table::default()),
        Err(error) => Err(error),
    }
}

/// `TCP  CB007109:0050 rr`, `UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0035 wlc`: a port is in
/// hexadecimal, and 0 stands for all ports. `FWM  00000001 rr` is a service by firewall mark.
fn parse(lines: impl BufRead) -> io::Result<Table> {
    let mut table = Table::default();
    for line in lines.lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        let protocol = match words.next() {
            Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some("FWM") => {
                table.has_others = true;
                continue;
            }
            _ => continue,
        };
        let port = words.next().and_then(|place| place.rsplit_once(':'));
        match port.and_then(|(_, port)| u16::from_str_radix(port, 16).ok()) {
            Some(0) => table.has_others = true,
            Some(port) => table.services.push((protocol, port)),
            None => {}
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_virtual_service_has_protocol_and_port() {
        let table = "IP Virtual Server version 1.2.1 (size=4096)\n\
             Prot LocalAddress:Port Scheduler Flags\n  \
               -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
             TCP  CB007109:0050 rr \n  \
               -> 0A000002:1F90      Masq    1      0          0         \n\
             UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0035 wlc persistent 300\n\
             SCTP CB007109:03E7 rr \n\
             TCP  CB007109:0000 rr persistent 360\n\
             FWM  00000001 rr \n";
        let Table { services, has_others } = parse(table.as_bytes()).unwrap();
        assert_eq!(services, [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Sctp, 999)]);
        assert!(has_others);
        let plain: Vec<&str> = table
            .lines()
            .filter(|line| !line.starts_with("FWM") && !line.contains(":0000 "))
            .collect();
        assert!(!parse(plain.join("\n").as_bytes()).unwrap().has_others);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed(text in "(TCP|UDP|FWM|->)? *[0-9A-F:\\[\\]]{0,20}\\PC{0,20}") {
            let _ = parse(text.as_bytes()).unwrap();
        }
    }
}
