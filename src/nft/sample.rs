//! A small ruleset for the tests of this module: each kind of set, a base chain and one that it
//! leads to, and statements that look into sets.

use std::time::Duration;

use super::element::Key;
use super::model::{
    Base, Chain, Hook, Op, Operand, Owner, Rate, Rule, Ruleset, Selector, Set, Statement, Unit,
    Verdict,
};
use super::schema::{DataType, Schema, SetSpec, Table};

/// Filled at run time, each element with its own counter.
pub(super) const HOSTS: SetSpec = SetSpec::new("hosts", &[DataType::Ipv4Addr]);
/// Filled at run time.
pub(super) const NETWORKS: SetSpec = SetSpec::new("networks", &[DataType::Ipv4Addr]).interval();
/// Filled from the configuration.
pub(super) const PORTS: SetSpec = SetSpec::new("ports", &[DataType::InetService]).interval();
/// Filled from the configuration.
pub(super) const PROTOCOLS: SetSpec = SetSpec::new("numbers", &[DataType::InetProto]);
/// Filled from the configuration.
pub(super) const INTERFACES: SetSpec = SetSpec::new("interfaces", &[DataType::IfName]);
/// Filled by rules, and kept.
pub(super) const PAIRS: SetSpec =
    SetSpec::new("pairs", &[DataType::InetProto, DataType::InetService]);
/// Filled by rules, and not kept.
pub(super) const RECENT: SetSpec =
    SetSpec::new("recent", &[DataType::Ipv6Addr, DataType::InetProto, DataType::InetService])
        .transient();

/// The table and its sets.
pub(super) const SCHEMA: Schema = Schema {
    table: Table { name: "sample" },
    sets: &[HOSTS, NETWORKS, PORTS, PROTOCOLS, INTERFACES, PAIRS, RECENT],
};

/// A ruleset with all of them.
pub(super) fn ruleset() -> Ruleset {
    let rule = |statements: Vec<Statement>| Rule { why: "", statements };
    let is_in =
        |selector, set| Statement::Match { selector, op: Op::Eq, operand: Operand::Set(set) };
    let dynamic = |id| Set {
        timeouts: true,
        timeout: Some(Duration::from_secs(60)),
        size: Some(100),
        ..Set::plain(id, Owner::Rules)
    };
    let prefix = Selector::Ip6SaddrPrefix(64);
    let end = vec![
        rule(vec![Statement::Log {
            prefix: "sample: ",
            group: 7,
            snaplen: 64,
            queue_threshold: 8,
        }]),
        rule(vec![
            Statement::LimitOver { rate: 10, burst: 20 },
            Statement::Counter,
            Statement::Verdict(Verdict::Drop),
        ]),
    ];
    let input = vec![
        rule(vec![
            is_in(Selector::Ip4Saddr, HOSTS),
            Statement::Counter,
            Statement::Verdict(Verdict::Drop),
        ]),
        rule(vec![is_in(Selector::Ip4Saddr, NETWORKS), Statement::Verdict(Verdict::Return)]),
        rule(vec![
            is_in(Selector::IifName, INTERFACES),
            is_in(Selector::L4Proto, PROTOCOLS),
            Statement::Verdict(Verdict::Accept),
        ]),
        rule(vec![
            Statement::TcpFlags { mask: 0x12, value: 0x02 },
            is_in(Selector::TcpDport, PORTS),
            Statement::Add {
                set: PAIRS,
                key: vec![Selector::L4Proto, Selector::ThDport],
                timeout: None,
            },
        ]),
        rule(vec![
            Statement::Update {
                set: RECENT,
                key: vec![prefix, Selector::L4Proto, Selector::ThDport],
                timeout: Some(Duration::from_secs(5)),
                over: Some(Rate { packets: 3, per: Unit::Minute, burst: 3 }),
            },
            Statement::Verdict(Verdict::Goto("end")),
        ]),
        rule(vec![Statement::Verdict(Verdict::Jump("end"))]),
    ];
    Ruleset {
        sets: vec![
            Set {
                timeouts: true,
                size: Some(50),
                comment: Some("some hosts"),
                ..Set::plain(HOSTS, Owner::Daemon)
            },
            Set { timeouts: true, counter: true, ..Set::plain(NETWORKS, Owner::Daemon) },
            Set {
                elements: vec![Key::Port(22)..=Key::Port(22), Key::Port(80)..=Key::Port(90)],
                ..Set::plain(PORTS, Owner::Config)
            },
            Set {
                elements: vec![Key::Protocol(1)..=Key::Protocol(1)],
                ..Set::plain(PROTOCOLS, Owner::Config)
            },
            Set {
                elements: vec![Key::interface("eth0")..=Key::interface("eth0")],
                ..Set::plain(INTERFACES, Owner::Config)
            },
            dynamic(PAIRS),
            dynamic(RECENT),
        ],
        chains: vec![
            Chain { name: "end", base: None, rules: end },
            Chain {
                name: "input",
                base: Some(Base { hook: Hook::Input, priority: -10 }),
                rules: input,
            },
        ],
    }
}
