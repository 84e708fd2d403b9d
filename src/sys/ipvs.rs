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

/// Protocol and port of each virtual service; none where the kernel has no IPVS. Services by
/// firewall mark have neither.
///
/// # Errors
/// That of reading the table.
pub(crate) fn services() -> io::Result<Vec<(Protocol, u16)>> {
    match std::fs::File::open(TABLE) {
        Ok(table) => parse(BufReader::new(table.take(SIZE_MAX))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn parse(table: impl BufRead) -> io::Result<Vec<(Protocol, u16)>> {
    let mut services = Vec::new();
    for line in table.lines() {
        services.extend(service(&line?));
    }
    Ok(services)
}

/// `TCP  CB007109:0050 rr`, `UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0035 wlc`: a port is in
/// hexadecimal, and 0 stands for all ports of a persistent service, which nothing can be made of.
fn service(line: &str) -> Option<(Protocol, u16)> {
    let mut words = line.split_ascii_whitespace();
    let protocol = match words.next()? {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => return None,
    };
    let port = u16::from_str_radix(words.next()?.rsplit_once(':')?.1, 16).ok()?;
    (port != 0).then_some((protocol, port))
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
        let services = parse(table.as_bytes()).unwrap();
        assert_eq!(services, [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Sctp, 999)]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed(text in "(TCP|UDP|FWM|->)? *[0-9A-F:\\[\\]]{0,20}\\PC{0,20}") {
            let _ = parse(text.as_bytes()).unwrap();
        }
    }
}
