//! The model lowered to kernel expressions, as nft does it: the other rendering of the same model
//! is [`super::text`].
//!
//! nft adds what a match depends on (which IP version, which transport) unless an earlier match of
//! the same rule has made sure of it.

use std::net::IpAddr;
use std::time::Duration;

use super::expr::{
    CtKey, Expr, IP_CT_DIR_ORIGINAL, IPS_ASSURED, IPS_DST_NAT, MetaKey, PayloadBase, QUEUE_BYPASS,
    REG_1, REG_2, REG32_00, Register, VerdictCode,
};
use super::model::{
    NFPROTO_IPV4, NFPROTO_IPV6, Op, Operand, QueueBy, Rate, Rule, Selector, Statement, Unit,
    Verdict, prefix_mask, prefix_mask4, protocol,
};
use super::schema::SetSpec;

/// The expressions of a rule.
pub fn lower(rule: &Rule) -> Vec<Expr> {
    let mut lowering = Lowering { out: Vec::new(), nfproto: None, l4proto: None };
    for statement in &rule.statements {
        lowering.statement(statement);
    }
    lowering.out
}

/// The target NFQUEUE of revision 3: `struct xt_NFQ_info_v3` (linux/netfilter/xt_NFQUEUE.h) has the
/// first queue, how many, and flags, in host order; netlink carries it padded to 8 bytes
/// (`XT_ALIGN`).
fn xt_queue(number: u16, flags: u16) -> Expr {
    let mut info = Vec::with_capacity(8);
    for part in [number, 1, flags, 0] {
        info.extend_from_slice(&part.to_ne_bytes());
    }
    Expr::Target { name: "NFQUEUE".to_owned(), revision: 3, info }
}

struct Lowering {
    out: Vec<Expr>,
    /// What earlier matches have made sure of.
    nfproto: Option<u8>,
    l4proto: Option<u8>,
}

impl Lowering {
    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Match { selector, op, operand } => {
                self.depend(*selector);
                self.load(*selector, REG_1);
                self.compare(*selector, *op, *operand);
            }
            Statement::CtState(states) => {
                self.ct_bits(CtKey::State, *states);
            }
            Statement::CtStatusDnat => self.ct_bits(CtKey::Status, IPS_DST_NAT),
            Statement::CtAssured => self.ct_bits(CtKey::Status, IPS_ASSURED),
            Statement::CtOriginal => {
                self.out.push(Expr::Ct { key: CtKey::Direction, dreg: REG_1 });
                self.cmp(Op::Eq, vec![IP_CT_DIR_ORIGINAL]);
            }
            Statement::TcpFlags { mask, value } => {
                self.depend(Selector::TcpDport);
                // Flags are the 14th byte of the TCP header (RFC 9293, 3.1).
                self.out.push(Expr::Payload {
                    base: PayloadBase::Transport,
                    offset: 13,
                    len: 1,
                    dreg: REG_1,
                });
                self.mask(vec![*mask]);
                self.cmp(Op::Eq, vec![*value]);
            }
            Statement::Lookup { set, key } => {
                self.concat(*set, key);
                self.out.push(Expr::Lookup {
                    set: set.name.to_owned(),
                    sreg: REG_1,
                    invert: false,
                });
            }
            Statement::Counter => self.out.push(Expr::Counter { packets: 0, bytes: 0 }),
            Statement::Add { set, key, timeout } => self.dynset(false, *set, key, *timeout, None),
            Statement::Update { set, key, timeout, over } => {
                self.dynset(true, *set, key, *timeout, *over)
            }
            Statement::Log { prefix, group, snaplen, queue_threshold } => {
                self.out.push(Expr::Log {
                    prefix: (*prefix).to_owned(),
                    group: *group,
                    snaplen: *snaplen,
                    qthreshold: *queue_threshold,
                });
            }
            Statement::Queue { number, bypass, by } => {
                let flags = if *bypass { QUEUE_BYPASS } else { 0 };
                self.out.push(match by {
                    QueueBy::Native => Expr::Queue { number: *number, total: 1, flags },
                    QueueBy::Xt => xt_queue(*number, flags),
                });
            }
            Statement::LimitOver { rate, burst } => self.out.push(Expr::LimitOver {
                rate: u64::from(*rate),
                per: Unit::Second,
                burst: *burst,
            }),
            Statement::Tproxy(to) => {
                let (family, address) = match to.ip() {
                    IpAddr::V4(address) => (NFPROTO_IPV4, address.octets().to_vec()),
                    IpAddr::V6(address) => (NFPROTO_IPV6, address.octets().to_vec()),
                };
                self.out.push(Expr::Immediate { dreg: REG_1, data: address });
                self.out
                    .push(Expr::Immediate { dreg: REG_2, data: to.port().to_be_bytes().to_vec() });
                self.out.push(Expr::Tproxy { family, address: REG_1, port: REG_2 });
            }
            Statement::RejectTcp => {
                self.depend(Selector::TcpDport);
                self.out.push(Expr::RejectTcp);
            }
            Statement::Verdict(verdict) => self.out.push(Expr::Verdict(match verdict {
                Verdict::Drop => VerdictCode::Drop,
                Verdict::Accept => VerdictCode::Accept,
                Verdict::Return => VerdictCode::Return,
                Verdict::Jump(chain) => VerdictCode::Jump((*chain).to_owned()),
                Verdict::Goto(chain) => VerdictCode::Goto((*chain).to_owned()),
            })),
        }
    }

    /// Goes on only if one of these bits is set.
    fn ct_bits(&mut self, key: CtKey, bits: u32) {
        self.out.push(Expr::Ct { key, dreg: REG_1 });
        self.mask(bits.to_ne_bytes().to_vec());
        self.cmp(Op::Ne, vec![0; 4]);
    }

    fn dynset(
        &mut self,
        update: bool,
        set: SetSpec,
        key: &[Selector],
        timeout: Option<Duration>,
        over: Option<Rate>,
    ) {
        self.concat(set, key);
        let each = over.map(|Rate { packets, per, burst }| {
            Box::new(Expr::LimitOver { rate: packets, per, burst })
        });
        let set = set.name.to_owned();
        self.out.push(Expr::Dynset { update, set, sreg_key: REG_1, timeout, each });
    }

    /// Makes sure that the selector has a meaning.
    fn depend(&mut self, selector: Selector) {
        let (key, known, value) = match selector {
            Selector::Ip4Id
            | Selector::Ip4Saddr
            | Selector::Ip4SaddrPrefix(_)
            | Selector::Ip4Daddr
            | Selector::Ip4DaddrPrefix(_) => (MetaKey::NfProto, &mut self.nfproto, NFPROTO_IPV4),
            Selector::Ip6Saddr
            | Selector::Ip6SaddrPrefix(_)
            | Selector::Ip6Daddr
            | Selector::Ip6DaddrPrefix(_) => (MetaKey::NfProto, &mut self.nfproto, NFPROTO_IPV6),
            Selector::TcpSport | Selector::TcpDport => {
                (MetaKey::L4Proto, &mut self.l4proto, protocol::TCP)
            }
            Selector::UdpDport | Selector::UdpSport => {
                (MetaKey::L4Proto, &mut self.l4proto, protocol::UDP)
            }
            Selector::SctpDport => (MetaKey::L4Proto, &mut self.l4proto, protocol::SCTP),
            _ => return,
        };
        if known.replace(value) != Some(value) {
            self.out.push(Expr::Meta { key, dreg: REG_1 });
            self.cmp(Op::Eq, vec![value]);
        }
    }

    fn load(&mut self, selector: Selector, dreg: Register) {
        let transport =
            |offset, len| Expr::Payload { base: PayloadBase::Transport, offset, len, dreg };
        let network = |offset, len| Expr::Payload { base: PayloadBase::Network, offset, len, dreg };
        self.out.push(match selector {
            Selector::Iif => Expr::Meta { key: MetaKey::Iif, dreg },
            Selector::IifName => Expr::Meta { key: MetaKey::IifName, dreg },
            Selector::OifName => Expr::Meta { key: MetaKey::OifName, dreg },
            Selector::PktType => Expr::Meta { key: MetaKey::PktType, dreg },
            Selector::NfProto => Expr::Meta { key: MetaKey::NfProto, dreg },
            Selector::L4Proto => Expr::Meta { key: MetaKey::L4Proto, dreg },
            Selector::FibSaddrType => Expr::FibType { saddr: true, dreg },
            Selector::FibDaddrType => Expr::FibType { saddr: false, dreg },
            // RFC 791, 3.1 and RFC 8200, 3.
            Selector::Ip4Id => network(4, 2),
            Selector::Ip4Saddr | Selector::Ip4SaddrPrefix(_) => network(12, 4),
            Selector::Ip4Daddr | Selector::Ip4DaddrPrefix(_) => network(16, 4),
            Selector::Ip6Saddr | Selector::Ip6SaddrPrefix(_) => network(8, 16),
            Selector::Ip6Daddr | Selector::Ip6DaddrPrefix(_) => network(24, 16),
            // TCP, UDP and SCTP alike have the destination port there.
            Selector::TcpDport | Selector::UdpDport | Selector::SctpDport | Selector::ThDport => {
                transport(2, 2)
            }
            Selector::CtOriginalDport => Expr::Ct { key: CtKey::OriginalDport, dreg },
            // The source port comes first.
            Selector::TcpSport | Selector::UdpSport | Selector::ThSport => transport(0, 2),
            // RFC 792; RFC 4443, 2.1.
            Selector::IcmpType => transport(0, 1),
            Selector::Random(modulus) => Expr::Random { modulus, dreg },
            // The first chunk follows the common header of 12 bytes (RFC 9260, 3).
            Selector::SctpChunk => transport(12, 1),
            Selector::SocketTransparent => Expr::SocketTransparent { dreg },
        });
        match selector {
            Selector::Ip4SaddrPrefix(bits @ ..32) | Selector::Ip4DaddrPrefix(bits @ ..32) => {
                self.mask(prefix_mask4(bits).octets().to_vec());
            }
            Selector::Ip6SaddrPrefix(bits @ ..128) | Selector::Ip6DaddrPrefix(bits @ ..128) => {
                self.mask(prefix_mask(bits).octets().to_vec());
            }
            _ => {}
        }
    }

    /// Loads a concatenation into the registers from the first on: each field fills whole registers
    /// of 4 bytes.
    fn concat(&mut self, set: SetSpec, key: &[Selector]) {
        let mut word = 0;
        // Before the first field is loaded: a dependency is compared in the first register.
        key.iter().for_each(|selector| self.depend(*selector));
        for (selector, kind) in key.iter().zip(set.key) {
            // nft names a register that starts a block of 16 bytes by the block.
            let dreg = if word % 4 == 0 { REG_1 + word / 4 } else { REG32_00 + word };
            self.load(*selector, dreg);
            word += kind.len().div_ceil(4);
        }
    }

    /// Compares the selector, which was loaded last.
    fn compare(&mut self, selector: Selector, op: Op, operand: Operand) {
        match operand {
            Operand::Set(set) => self.out.push(Expr::Lookup {
                set: set.name.to_owned(),
                sreg: REG_1,
                invert: op == Op::Ne,
            }),
            Operand::Ports(first, last) => {
                self.cmp(Op::Ge, first.to_be_bytes().to_vec());
                self.cmp(Op::Le, last.to_be_bytes().to_vec());
            }
            Operand::Address(IpAddr::V4(address)) => self.cmp(op, address.octets().to_vec()),
            Operand::Address(IpAddr::V6(address)) => self.cmp(op, address.octets().to_vec()),
            Operand::Number(number) => {
                let [_, _, high, low] = number.to_be_bytes();
                let data = match self.out.last() {
                    // The kernel's own numbers, in its own order.
                    Some(
                        Expr::Meta { key: MetaKey::Iif, .. }
                        | Expr::FibType { .. }
                        | Expr::Random { .. },
                    ) => number.to_ne_bytes().to_vec(),
                    Some(Expr::Payload { len: 2, .. }) => vec![high, low],
                    // Not compared with numbers; as wide as they are, so that the kernel would
                    // refuse it loudly.
                    Some(
                        Expr::Meta { key: MetaKey::IifName | MetaKey::OifName, .. }
                        | Expr::Payload { base: PayloadBase::Network, .. }
                        | Expr::Bitwise { .. },
                    ) => number.to_be_bytes().to_vec(),
                    _ => vec![low],
                };
                self.cmp(op, data);
                match (selector, op) {
                    (Selector::NfProto, Op::Eq) => self.nfproto = Some(low),
                    (Selector::L4Proto, Op::Eq) => self.l4proto = Some(low),
                    _ => {}
                }
            }
        }
    }

    fn mask(&mut self, mask: Vec<u8>) {
        let xor = vec![0; mask.len()];
        self.out.push(Expr::Bitwise { sreg: REG_1, dreg: REG_1, mask, xor });
    }

    fn cmp(&mut self, op: Op, data: Vec<u8>) {
        self.out.push(Expr::Cmp { sreg: REG_1, op, data });
    }
}
