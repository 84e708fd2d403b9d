//! The built-in defaults, used without a file. A test checks that `contrib/portsentry.yaml` has the
//! same values.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{
    AbuseIpDb, Admins, Block, Campaign, CampaignAction, Capture, ClosedPorts, CommandOn,
    CommandWhen, Config, Control, Endpoint, Escalate, Events, Facility, Geo, HostsDeny,
    Ipv6Accounts, Log, LogFormat, LogTarget, Method, Mode, NeverBlock, Notify, NotifyOn, OnExit,
    OwnTable, PortMode, PortSet, Protocol, ProtocolAction, Respond, Sendmail, Size, Unproven,
    UnprovenAction, Unwatched,
};

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            interfaces: Vec::new(),
            closed_ports: ClosedPorts::Drop,
            // A report harms no one, and a scan of high ports would leave no trace otherwise.
            unwatched: Unwatched::Report,
            capture: Capture { method: Method::Nflog, reflex: true, group: 77, decoy_port: 61000 },
            tcp: Protocol {
                mode: PortMode::Advanced,
                // PortSentry 1.2's default list.
                ports: PortSet::of(&[
                    1, 11, 15, 79, 111, 119, 143, 540, 635, 1080, 1524, 2000, 5742, 6667, 12345,
                    12346, 20034, 27665, 31337, 32771, 32772, 32773, 32774, 40421, 49724, 54320,
                ]),
                advanced_ports: PortSet::range(1, 1023),
                exclude: PortSet::of(&[113, 139]),
                action: ProtocolAction::Block,
            },
            udp: Protocol {
                mode: PortMode::Advanced,
                ports: PortSet::of(&[
                    1, 7, 9, 69, 161, 162, 513, 635, 640, 641, 700, 37444, 34555, 31335, 32770,
                    32771, 32772, 32773, 32774, 31337, 54321,
                ]),
                advanced_ports: PortSet::range(1, 1023),
                exclude: PortSet::of(&[67, 68, 137, 138, 520]),
                action: ProtocolAction::Log,
            },
            scan_trigger: 2,
            // A name of a service that is down may have a handful of our addresses, over IPv4 and
            // IPv6, and a client tries them all.
            sweep_trigger: 10,
            scan_window: Duration::from_secs(600),
            block: Block {
                timeout: Some(Duration::from_secs(3600)),
                escalate: Escalate {
                    factor: 4,
                    max: Duration::from_secs(7 * 86_400),
                    memory: Duration::from_secs(30 * 86_400),
                },
                // A forged address harms no neighbour; a scanner has a /64 to take addresses from.
                ipv6: Ipv6Accounts { first: 128, then: 64 },
                unproven: Unproven {
                    action: UnprovenAction::Slow,
                    timeout: Duration::from_secs(60),
                    per_minute: 600,
                },
                total: 1_000_000,
            },
            // Anyone can forge the addresses of a whole network.
            campaign: Campaign { action: CampaignAction::Report },
            never_block: NeverBlock {
                own_addresses: true,
                gateways: true,
                resolvers: true,
                ssh_peers: true,
                admin_ports: PortSet::of(&[22]),
                // An administrator who logs in once a week.
                admins: Admins { memory: Some(Duration::from_secs(7 * 86_400)) },
            },
            allow: [
                IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8)),
                IpNet::from(std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)),
            ]
            .map(Into::into)
            .to_vec(),
            // The usual lifetime of a dynamic name's record.
            allow_refresh: Duration::from_secs(300),
            ignore_file: Some(PathBuf::from("/etc/portsentry/portsentry.ignore")),
            respond: Respond {
                command: Vec::new(),
                // Not of slowed sources: their addresses may be forged, and a command that cuts
                // them off elsewhere would do the forger's work.
                command_on: vec![CommandOn::Blocked],
                command_when: CommandWhen::After,
                command_timeout: Duration::from_secs(10),
                hosts_deny: HostsDeny {
                    enabled: false,
                    path: PathBuf::from("/etc/hosts.deny"),
                    line: "ALL: {target}".to_owned(),
                },
                banner: String::new(),
            },
            notify: Notify {
                digest: Duration::from_secs(600),
                on: vec![NotifyOn::Slowed, NotifyOn::Blocked, NotifyOn::Trouble],
                sendmail: Sendmail {
                    to: String::new(),
                    from: String::new(),
                    program: PathBuf::from("/usr/sbin/sendmail"),
                },
                webhook: endpoint(),
                ntfy: endpoint(),
                abuseipdb: AbuseIpDb {
                    key_file: None,
                    url: "https://api.abuseipdb.com/api/v2/report".to_owned(),
                },
            },
            resolve: false,
            geo: Geo { country: None, asn: None },
            log: Log {
                target: LogTarget::Auto,
                format: LogFormat::Classic,
                level: log::LevelFilter::Info,
                facility: Facility::Daemon,
            },
            history_file: Some(PathBuf::from("/var/lib/portsentry/portsentry.history")),
            blocked_file: None,
            events: Events { keep: Some(Duration::from_secs(90 * 86_400)), max: Size(64 << 20) },
            state_dir: PathBuf::from("/var/lib/portsentry"),
            control: Control {
                socket: PathBuf::from("/run/portsentry/control.sock"),
                group: String::new(),
            },
            on_exit: OnExit::Keep,
            own_table: OwnTable::Auto,
        }
    }
}

/// Nothing leaves the host unless the administrator wants it.
fn endpoint() -> Endpoint {
    Endpoint { url: String::new(), url_file: None, token_file: None }
}
