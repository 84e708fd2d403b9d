//! Kernel expressions printed as `nft --debug=netlink` prints them (libnftnl), to compare ours with
//! nft's.

use std::fmt::Write as _;

use portsentry::nft::Expr;
use portsentry::nft::expr::{CtKey, MetaKey, PayloadBase, QUEUE_BYPASS, VerdictCode};
use portsentry::nft::model::{NFPROTO_IPV4, Op};

/// One expression, in brackets.
pub fn print(expr: &Expr) -> String {
    format!("[ {} ]", content(expr))
}

fn content(expr: &Expr) -> String {
    match expr {
        Expr::Meta { key, dreg } => {
            let key = match key {
                MetaKey::Iif => "iif",
                MetaKey::IifName => "iifname",
                MetaKey::OifName => "oifname",
                MetaKey::NfProto => "nfproto",
                MetaKey::L4Proto => "l4proto",
                MetaKey::PktType => "pkttype",
            };
            format!("meta load {key} => reg {dreg}")
        }
        Expr::Payload { base, offset, len, dreg } => {
            let base = match base {
                PayloadBase::Network => "network",
                PayloadBase::Transport => "transport",
            };
            format!("payload load {len}b @ {base} header + {offset} => reg {dreg}")
        }
        Expr::Ct { key, dreg } => match key {
            CtKey::State => format!("ct load state => reg {dreg}"),
            CtKey::Direction => format!("ct load direction => reg {dreg}"),
            CtKey::Status => format!("ct load status => reg {dreg}"),
            CtKey::OriginalDport => format!("ct load proto_dst => reg {dreg} , dir original"),
        },
        Expr::FibType { saddr, dreg } => {
            format!("fib {} type => reg {dreg}", if *saddr { "saddr" } else { "daddr" })
        }
        Expr::Random { modulus, dreg } => format!("numgen reg {dreg} = random mod {modulus}"),
        Expr::RejectTcp => "reject type 1 code 0".to_owned(),
        Expr::SocketTransparent { dreg } => format!("socket load transparent => reg {dreg}"),
        Expr::Bitwise { sreg, dreg, mask, xor } => {
            format!("bitwise reg {dreg} = ( reg {sreg} & {} ) ^ {}", words(mask), words(xor))
        }
        Expr::Cmp { sreg, op, data } => {
            let op = match op {
                Op::Eq => "eq",
                Op::Ne => "neq",
                Op::Lt => "lt",
                Op::Le => "lte",
                Op::Gt => "gt",
                Op::Ge => "gte",
            };
            format!("cmp {op} reg {sreg} {}", words(data))
        }
        Expr::Lookup { set, sreg, invert } => {
            format!("lookup reg {sreg} set {set}{}", if *invert { " 0x1" } else { "" })
        }
        Expr::Dynset { update, set, sreg_key, timeout, each } => {
            let verb = if *update { "update" } else { "add" };
            let mut text = format!("dynset {verb} reg_key {sreg_key} set {set}");
            if let Some(timeout) = timeout {
                write!(text, " timeout {}ms", timeout.as_millis()).unwrap();
            }
            if let Some(each) = each {
                write!(text, " expr {}", print(each)).unwrap();
            }
            text
        }
        Expr::Counter { packets, bytes } => format!("counter pkts {packets} bytes {bytes}"),
        Expr::Log { prefix, group, snaplen, qthreshold } => {
            format!("log prefix {prefix} group {group} snaplen {snaplen} qthreshold {qthreshold}")
        }
        Expr::Queue { number, total, flags } => {
            let mut text = format!("queue num {number}");
            if *total > 1 {
                write!(text, "-{}", u32::from(*number) + u32::from(*total) - 1).unwrap();
            }
            if flags & QUEUE_BYPASS != 0 {
                text.push_str(" bypass");
            }
            text
        }
        Expr::Target { name, revision, info: _ } => format!("target name {name} rev {revision}"),
        Expr::LimitOver { rate, per, burst } => {
            format!("limit rate {rate}/{} burst {burst} type packets flags 0x1", per.name())
        }
        Expr::Immediate { dreg, data } => format!("immediate reg {dreg} {}", words(data)),
        Expr::Tproxy { family, address, port } => {
            let family = if *family == NFPROTO_IPV4 { "ip" } else { "ip6" };
            format!("tproxy {family} addr reg {address} port reg {port}")
        }
        Expr::Verdict(code) => match code {
            VerdictCode::Drop => "immediate reg 0 drop".to_owned(),
            VerdictCode::Accept => "immediate reg 0 accept".to_owned(),
            VerdictCode::Return => "immediate reg 0 return".to_owned(),
            VerdictCode::Jump(chain) => format!("immediate reg 0 jump -> {chain}"),
            VerdictCode::Goto(chain) => format!("immediate reg 0 goto -> {chain}"),
        },
        Expr::Foreign { name, data } => format!("{name} {}", words(data)),
    }
}

/// Bytes as libnftnl shows a register: words of 4 bytes in host order.
fn words(bytes: &[u8]) -> String {
    let words = bytes.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        format!("0x{:08x}", u32::from_ne_bytes(word))
    });
    words.collect::<Vec<_>>().join(" ")
}
