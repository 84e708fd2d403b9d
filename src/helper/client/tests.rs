use super::orders::mode_word;
use super::*;
use crate::config::PortMode;
use crate::engine::Source;
use crate::probe::Port;
use crate::probe::{Probe, ScanKind, Signature, Transport};
use crate::sys::mailbox::{self, Inbox};

/// A handle without its thread, and the items that it queues.
fn client(config: &Config) -> (HelperClient, Inbox<Item>) {
    let shared = Arc::new(Shared::default());
    shared.wanted.store(wanted(config), Ordering::Relaxed);
    let (queue, items) = mailbox::with_capacity(4).unwrap();
    let (requests, _) = mailbox::link().unwrap();
    (HelperClient { shared, items: queue, requests }, items)
}

fn config(when: CommandWhen) -> Config {
    let mut config = Config::default();
    config.respond.command = vec!["/bin/true".to_owned()];
    config.respond.command_when = when;
    config
}

const PORT: Port = Port { transport: Transport::Tcp, number: 7 };

fn source() -> Source {
    Source::of("192.0.2.7".parse().unwrap(), 64)
}

fn reason() -> Reason {
    Reason::Scan { scan: ScanKind::Syn, proven: false, detail: "3 ports".into() }
}

fn scan(not_blocked: Option<NotBlocked>) -> Report {
    let address = source().addr();
    let probe = Probe {
        source: address,
        destination: address,
        port: PORT,
        scan: ScanKind::Syn,
        ambiguous: false,
        ip_options: false,
        signature: Signature::None,
    };
    Report::Scan { source: source(), probe, reason: reason(), not_blocked }
}

fn block(renew: bool) -> Action {
    Action::Block { source: source(), timeout: None, reason: reason(), renew }
}

fn blocked_report(port: Option<Port>, reason: Reason, renewals: u32) -> Report {
    Report::Blocked { source: source(), port, scanner: None, timeout: None, reason, renewals }
}

fn runs(items: &Inbox<Item>) -> usize {
    std::iter::from_fn(|| items.next()).filter(|item| matches!(item, Item::Run { .. })).count()
}

#[test]
fn before_is_at_the_decision_and_only_for_a_new_block() {
    let (client, items) = client(&config(CommandWhen::Before));
    client.on_orders(&[Action::Report(scan(None)), block(false)]);
    client.on_report(&scan(None));
    client.on_report(&blocked_report(Some(PORT), reason(), 0));
    assert_eq!(runs(&items), 1);
    client.on_orders(&[Action::Report(scan(None)), block(true)]);
    client.on_orders(&[block(false)]);
    assert_eq!(
        runs(&items),
        0,
        "a proven scan of a source that is blocked as unproven, and a refused block that is tried again"
    );
}

#[test]
fn after_is_at_the_acknowledgement_without_renewals_and_manual_blocks() {
    let (client, items) = client(&config(CommandWhen::After));
    client.on_orders(&[Action::Report(scan(None)), block(false)]);
    client.on_report(&scan(None));
    assert_eq!(runs(&items), 0);
    client.on_report(&blocked_report(Some(PORT), reason(), 0));
    assert_eq!(runs(&items), 1);
    client.on_report(&blocked_report(Some(PORT), reason(), 1));
    client.on_report(&blocked_report(None, Reason::Manual("x".into()), 0));
    client.on_report(&blocked_report(None, reason(), 0));
    assert_eq!(runs(&items), 0);
}

#[test]
fn a_refused_block_cancels_its_command_once() {
    let (client, items) = client(&config(CommandWhen::After));
    client.on_refusal(&[block(false)], source());
    assert!(matches!(items.next(), Some(Item::NotRun(_))));
    client.on_refusal(&[block(true)], source());
    assert!(items.next().is_none());
}

#[test]
fn action_command_runs_it_except_for_exempt_hosts() {
    let mut config = config(CommandWhen::After);
    config.udp.action = ProtocolAction::Command;
    let (client, items) = client(&config);
    client.on_report(&scan(Some(NotBlocked::UdpCommand)));
    assert_eq!(runs(&items), 1);
    for why in NotBlocked::ALL
        .into_iter()
        .filter(|why| !matches!(why, NotBlocked::UdpCommand | NotBlocked::TcpCommand))
    {
        client.on_report(&scan(Some(why)));
    }
    assert_eq!(runs(&items), 0);
}

// P3
#[test]
fn slowed_sources_are_a_choice_and_never_in_files() {
    let slowed = Report::Slowed {
        source: source(),
        port: PORT,
        scanner: source().addr(),
        timeout: std::time::Duration::from_secs(60),
        reason: reason(),
    };
    let states = |items: &Inbox<Item>| -> Vec<&str> {
        let all = std::iter::from_fn(|| items.next());
        all.map(|item| if let Item::Run { state, .. } = item { state } else { "file" }).collect()
    };
    for (on, expected) in [
        (vec![CommandOn::Blocked], vec!["blocked"]),
        (vec![CommandOn::Slowed], vec!["slowed"]),
        (vec![CommandOn::Slowed, CommandOn::Blocked], vec!["slowed", "blocked"]),
    ] {
        let mut config = config(CommandWhen::After);
        config.respond.command_on = on;
        let (client, items) = client(&config);
        client.on_report(&scan(Some(NotBlocked::Slowed)));
        client.on_report(&slowed);
        client.on_report(&blocked_report(Some(PORT), reason(), 0));
        assert_eq!(states(&items), expected);
    }
    let mut config = Config { blocked_file: Some("/x".into()), ..Config::default() };
    config.respond.hosts_deny.enabled = true;
    let (client, items) = client(&config);
    client.on_report(&slowed);
    assert_eq!(states(&items), [""; 0]);
}

#[test]
fn observe_mode_runs_nothing() {
    let mut config = config(CommandWhen::Before);
    config.tcp.action = ProtocolAction::Command;
    config.respond.hosts_deny.enabled = true;
    assert_ne!(wanted(&config), 0);
    config.mode = Mode::Observe;
    assert_eq!(wanted(&config), 0);
}

#[test]
fn items_beyond_the_queue_are_counted_without_waiting() {
    let mut config = config(CommandWhen::After);
    config.respond.hosts_deny.enabled = true;
    let (client, _items) = client(&config);
    for _ in 0..10 {
        client.on_report(&blocked_report(Some(PORT), reason(), 0));
    }
    assert_eq!(client.counts().dropped, 8, "of ten commands and ten lines four fit");
    assert!(client.shared.list_wanted.load(Ordering::Relaxed));
}

#[test]
fn each_mode_has_its_classic_name() {
    let mut config = Config::default();
    let mut word = |mode, transport| {
        (config.tcp.mode, config.udp.mode) = (mode, mode);
        mode_word(&config, transport)
    };
    assert_eq!(word(PortMode::Connect, Transport::Tcp), Some("tcp"));
    assert_eq!(word(PortMode::Stealth, Transport::Sctp), Some("stcp"));
    assert_eq!(word(PortMode::Advanced, Transport::Ip), Some("atcp"));
    assert_eq!(word(PortMode::Connect, Transport::Udp), Some("udp"));
    assert_eq!(word(PortMode::Stealth, Transport::Udp), Some("sudp"));
    assert_eq!(word(PortMode::Advanced, Transport::Udp), Some("audp"));
    assert_eq!(word(PortMode::Off, Transport::Tcp), None);
}
