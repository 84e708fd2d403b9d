//! The model as text that `nft -f` loads (nft(8)). Pure; the other rendering of the same model is
//! [`super::lower`].

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::element::DisplayRange;
use super::model::{
    Chain, Hook, LOOPBACK_INDEX, NFPROTO_IPV4, NFPROTO_IPV6, Op, Operand, Owner, PACKET_HOST,
    QueueBy, RTN_ANYCAST, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST, RTN_UNICAST, Rate, Rule,
    Ruleset, Selector, Set, Statement, Verdict, ct_state, prefix_mask, prefix_mask4, protocol,
    tcp_flag,
};
use super::schema::Table;

/// How the text is meant to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The table alone.
    Table,
    /// A file that replaces the table when it is loaded: its elements are lost.
    Replace,
}

/// Elements a line: `nft list` writes two, port lists are short.
const ELEMENTS_PER_LINE: usize = 8;

impl Ruleset {
    /// The text that creates `table` with this content.
    pub fn render(&self, table: Table, form: Form) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text, table, form);
        text
    }

    fn write(&self, out: &mut String, table: Table, form: Form) -> fmt::Result {
        let name = table.name;
        if form == Form::Replace {
            writeln!(out, "#!/usr/sbin/nft -f")?;
            writeln!(out, "table inet {name} {{ }}")?;
            writeln!(out, "delete table inet {name}")?;
        }
        writeln!(out, "table inet {name} {{")?;
        let mut first = true;
        for set in &self.sets {
            separate(out, &mut first);
            write_set(out, set)?;
        }
        for chain in &self.chains {
            separate(out, &mut first);
            write_chain(out, chain)?;
        }
        writeln!(out, "}}")
    }
}

fn separate(out: &mut String, first: &mut bool) {
    if !std::mem::take(first) {
        out.push('\n');
    }
}

fn write_set(out: &mut String, set: &Set) -> fmt::Result {
    writeln!(out, "\tset {} {{", set.id.name)?;
    let types: Vec<_> = set.id.key.iter().map(|kind| kind.name()).collect();
    writeln!(out, "\t\ttype {}", types.join(" . "))?;
    let flags: Vec<_> = [
        ("interval", set.id.interval),
        ("dynamic", set.owner == Owner::Rules),
        ("timeout", set.timeouts),
    ]
    .into_iter()
    .filter_map(|(flag, is_set)| is_set.then_some(flag))
    .collect();
    if let Some(size) = set.size {
        writeln!(out, "\t\tsize {size}")?;
    }
    if !flags.is_empty() {
        writeln!(out, "\t\tflags {}", flags.join(","))?;
    }
    if let Some(timeout) = set.timeout {
        writeln!(out, "\t\ttimeout {}", Span(timeout))?;
    }
    if set.counter {
        writeln!(out, "\t\tcounter")?;
    }
    if let Some(comment) = set.comment {
        writeln!(out, "\t\tcomment \"{comment}\"")?;
    }
    for (row, elements) in set.elements.chunks(ELEMENTS_PER_LINE).enumerate() {
        let start = if row == 0 { "\t\telements = { " } else { ",\n\t\t\t" };
        let list: Vec<_> = elements
            .iter()
            .map(|range| DisplayRange(*range.start(), *range.end()).to_string())
            .collect();
        write!(out, "{start}{}", list.join(", "))?;
    }
    if !set.elements.is_empty() {
        writeln!(out, " }}")?;
    }
    writeln!(out, "\t}}")
}

fn write_chain(out: &mut String, chain: &Chain) -> fmt::Result {
    writeln!(out, "\tchain {} {{", chain.name)?;
    if let Some(base) = chain.base {
        let hook = match base.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
        };
        writeln!(out, "\t\ttype filter hook {hook} priority {}; policy accept;", base.priority)?;
    }
    for rule in &chain.rules {
        write_rule(out, rule)?;
    }
    writeln!(out, "\t}}")
}

fn write_rule(out: &mut String, rule: &Rule) -> fmt::Result {
    if !rule.why.is_empty() {
        writeln!(out, "\t\t# {}", rule.why)?;
    }
    let is_xt = |statement: &_| matches!(statement, Statement::Queue { by: QueueBy::Xt, .. });
    if rule.statements.iter().any(is_xt) {
        writeln!(
            out,
            "\t\t# this kernel has no nft_queue: in force is the xt target NFQUEUE, which does the same and which nft cannot load"
        )?;
    }
    out.push_str("\t\t");
    for (position, statement) in rule.statements.iter().enumerate() {
        if position > 0 {
            out.push(' ');
        }
        write_statement(out, statement)?;
    }
    out.push('\n');
    Ok(())
}

fn write_statement(out: &mut String, statement: &Statement) -> fmt::Result {
    match statement {
        Statement::Match { selector, op, operand } => write_match(out, *selector, *op, *operand),
        Statement::CtState(states) => {
            let names = names(
                *states,
                &[
                    (ct_state::INVALID, "invalid"),
                    (ct_state::ESTABLISHED, "established"),
                    (ct_state::RELATED, "related"),
                    (ct_state::NEW, "new"),
                ],
            );
            write!(out, "ct state {}", names.join(","))
        }
        Statement::CtStatusDnat => out.write_str("ct status dnat"),
        Statement::CtAssured => out.write_str("ct status assured"),
        Statement::CtOriginal => out.write_str("ct direction original"),
        Statement::TcpFlags { mask, value } => {
            write!(out, "tcp flags & {} == {}", in_brackets(*mask), flags(*value))
        }
        Statement::Lookup { set, key } => write!(out, "{} @{}", concat(key), set.name),
        Statement::Counter => out.write_str("counter"),
        Statement::Add { set, key, timeout } => {
            write!(out, "add @{} {{ {}{} }}", set.name, concat(key), Timeout(*timeout))
        }
        Statement::Update { set, key, timeout, over } => {
            write!(out, "update @{} {{ {}{}", set.name, concat(key), Timeout(*timeout))?;
            if let Some(Rate { packets, per, burst }) = over {
                write!(out, " limit rate over {packets}/{} burst {burst} packets", per.name())?;
            }
            out.write_str(" }")
        }
        Statement::Log { prefix, group, snaplen, queue_threshold } => {
            write!(
                out,
                "log prefix \"{prefix}\" group {group} snaplen {snaplen} queue-threshold {queue_threshold}"
            )
        }
        Statement::Queue { number, bypass, by: QueueBy::Native | QueueBy::Xt } => {
            write!(out, "queue {}to {number}", if *bypass { "flags bypass " } else { "" })
        }
        Statement::LimitOver { rate, burst } => {
            write!(out, "limit rate over {rate}/second burst {burst} packets")
        }
        Statement::Tproxy(to) => {
            write!(out, "tproxy {} to {to}", if to.is_ipv4() { "ip" } else { "ip6" })
        }
        Statement::RejectTcp => out.write_str("reject with tcp reset"),
        Statement::Verdict(Verdict::Drop) => out.write_str("drop"),
        Statement::Verdict(Verdict::Accept) => out.write_str("accept"),
        Statement::Verdict(Verdict::Return) => out.write_str("return"),
        Statement::Verdict(Verdict::Jump(chain)) => write!(out, "jump {chain}"),
        Statement::Verdict(Verdict::Goto(chain)) => write!(out, "goto {chain}"),
    }
}

fn write_match(out: &mut String, selector: Selector, op: Op, operand: Operand) -> fmt::Result {
    out.push_str(&name(selector));
    out.push_str(match op {
        Op::Eq => " ",
        Op::Ne => " != ",
        Op::Lt => " < ",
        Op::Le => " <= ",
        Op::Gt => " > ",
        Op::Ge => " >= ",
    });
    match operand {
        Operand::Number(number) => {
            let is_this = |(of, value, _): &&(_, _, _)| (*of, *value) == (selector, number);
            match SYMBOLS.iter().find(is_this) {
                Some((.., symbol)) => out.write_str(symbol),
                None => write!(out, "{number}"),
            }
        }
        Operand::Ports(first, last) => write!(out, "{first}-{last}"),
        Operand::Address(address) => write!(out, "{address}"),
        Operand::Set(set) => write!(out, "@{}", set.name),
    }
}

fn name(selector: Selector) -> String {
    let name = match selector {
        Selector::Iif => "iif",
        Selector::IifName => "iifname",
        Selector::OifName => "oifname",
        Selector::PktType => "meta pkttype",
        Selector::FibSaddrType => "fib saddr type",
        Selector::FibDaddrType => "fib daddr type",
        Selector::Ip4Id => "ip id",
        Selector::Ip4Saddr | Selector::Ip4SaddrPrefix(32..) => "ip saddr",
        Selector::Ip4SaddrPrefix(bits) => return format!("ip saddr & {}", prefix_mask4(bits)),
        Selector::Ip4Daddr | Selector::Ip4DaddrPrefix(32..) => "ip daddr",
        Selector::Ip4DaddrPrefix(bits) => return format!("ip daddr & {}", prefix_mask4(bits)),
        Selector::Ip6Daddr | Selector::Ip6DaddrPrefix(128..) => "ip6 daddr",
        Selector::Ip6DaddrPrefix(bits) => return format!("ip6 daddr & {}", prefix_mask(bits)),
        Selector::Ip6Saddr | Selector::Ip6SaddrPrefix(128..) => "ip6 saddr",
        Selector::Ip6SaddrPrefix(bits) => return format!("ip6 saddr & {}", prefix_mask(bits)),
        Selector::NfProto => "meta nfproto",
        Selector::L4Proto => "meta l4proto",
        Selector::TcpSport => "tcp sport",
        Selector::TcpDport => "tcp dport",
        Selector::UdpDport => "udp dport",
        Selector::UdpSport => "udp sport",
        Selector::SctpDport => "sctp dport",
        Selector::ThDport => "th dport",
        Selector::ThSport => "th sport",
        Selector::CtOriginalDport => "ct original proto-dst",
        Selector::SctpChunk => "@th,96,8",
        Selector::IcmpType => "@th,0,8",
        Selector::Random(modulus) => return format!("numgen random mod {modulus}"),
        Selector::SocketTransparent => "socket transparent",
    };
    name.to_owned()
}

/// nft's words for numbers.
const SYMBOLS: [(Selector, u32, &str); 17] = [
    (Selector::Iif, LOOPBACK_INDEX, "lo"),
    (Selector::PktType, PACKET_HOST, "host"),
    (Selector::FibSaddrType, RTN_UNICAST, "unicast"),
    (Selector::FibSaddrType, RTN_LOCAL, "local"),
    (Selector::FibSaddrType, RTN_BROADCAST, "broadcast"),
    (Selector::FibSaddrType, RTN_ANYCAST, "anycast"),
    (Selector::FibSaddrType, RTN_MULTICAST, "multicast"),
    (Selector::FibDaddrType, RTN_UNICAST, "unicast"),
    (Selector::FibDaddrType, RTN_LOCAL, "local"),
    (Selector::FibDaddrType, RTN_BROADCAST, "broadcast"),
    (Selector::FibDaddrType, RTN_ANYCAST, "anycast"),
    (Selector::FibDaddrType, RTN_MULTICAST, "multicast"),
    (Selector::NfProto, NFPROTO_IPV4 as u32, "ipv4"),
    (Selector::NfProto, NFPROTO_IPV6 as u32, "ipv6"),
    (Selector::L4Proto, protocol::TCP as u32, "tcp"),
    (Selector::L4Proto, protocol::UDP as u32, "udp"),
    (Selector::L4Proto, protocol::SCTP as u32, "sctp"),
];

fn concat(key: &[Selector]) -> String {
    key.iter().map(|selector| name(*selector)).collect::<Vec<_>>().join(" . ")
}

fn names(bits: u32, table: &[(u32, &'static str)]) -> Vec<&'static str> {
    table.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
}

fn flags(bits: u8) -> String {
    const NAMES: [(u32, &str); 6] = [
        (tcp_flag::FIN as u32, "fin"),
        (tcp_flag::SYN as u32, "syn"),
        (tcp_flag::RST as u32, "rst"),
        (tcp_flag::PSH as u32, "psh"),
        (tcp_flag::ACK as u32, "ack"),
        (tcp_flag::URG as u32, "urg"),
    ];
    match names(u32::from(bits), &NAMES).as_slice() {
        [] => "0x0".to_owned(),
        names => names.join("|"),
    }
}

/// `&` binds tighter than `|`.
fn in_brackets(bits: u8) -> String {
    if bits.count_ones() > 1 { format!("({})", flags(bits)) } else { flags(bits) }
}

/// The timeout of an element that a rule adds, if it is not the set's own.
struct Timeout(Option<Duration>);

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |time| write!(f, " timeout {}", Span(time)))
    }
}

/// A duration as nft writes it: `1d2h3m4s5ms`.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 86_400, "d"),
            (seconds / 3600 % 24, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(self.0.subsec_millis()), "ms"),
        ];
        for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
            write!(f, "{number}{unit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_nft_does() {
        assert_eq!(Span(Duration::from_millis(90_061_005)).to_string(), "1d1h1m1s5ms");
        assert_eq!(Span(Duration::from_secs(86_400)).to_string(), "1d");
    }

    #[test]
    fn flags_are_written_in_brackets_if_several() {
        assert_eq!(
            (in_brackets(0x12), in_brackets(0x04)),
            ("(syn|ack)".to_owned(), "rst".to_owned())
        );
        assert_eq!((flags(0x12), flags(0)), ("syn|ack".to_owned(), "0x0".to_owned()));
    }
}
