//! The checked configuration as types. Fields are named as the file's keys; units are in the types.
//!
//! [`super::load()`] reads and checks it.

use std::path::PathBuf;
use std::time::Duration;

use super::{Allowed, Notify, PortSet};

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Enforce or observe.
    pub mode: Mode,
    /// Watch only these interfaces; empty: all but loopback.
    pub interfaces: Vec<String>,
    /// Whether a closed port answers a probe.
    pub closed_ports: ClosedPorts,
    /// What happens to a source that is refused on many ports that are not watched.
    pub unwatched: Unwatched,
    /// How packets reach the daemon.
    pub capture: Capture,
    /// TCP (and SCTP, which shares its ports).
    pub tcp: Protocol,
    /// UDP.
    pub udp: Protocol,
    /// Distinct ports that a source may touch without consequences.
    pub scan_trigger: u16,
    /// Addresses of this host at which a source may probe the same port, or that it may ping,
    /// without a reaction.
    pub sweep_trigger: u16,
    /// The sliding window in which they count.
    pub scan_window: Duration,
    /// Duration and number of blocks.
    pub block: Block,
    /// What happens to several sources that share a scan.
    pub campaign: Campaign,
    /// Hosts that are never blocked.
    pub never_block: NeverBlock,
    /// What is never blocked: addresses, names, files, interfaces.
    pub allow: Vec<Allowed>,
    /// How often its DNS names are looked up.
    pub allow_refresh: Duration,
    /// Classic ignore file; its networks are in [`super::Loaded::ignored`].
    pub ignore_file: Option<PathBuf>,
    /// Responses beside the block.
    pub respond: Respond,
    /// Messages to the administrator.
    pub notify: Notify,
    /// Whether reports have reverse names.
    pub resolve: bool,
    /// Databases of countries and autonomous systems.
    pub geo: Geo,
    /// Target and format of the log.
    pub log: Log,
    /// The classic history file.
    pub history_file: Option<PathBuf>,
    /// Classic files of current blocks: this name with the mode appended (`.atcp`).
    pub blocked_file: Option<PathBuf>,
    /// The event store.
    pub events: Events,
    /// Directory of the daemon's state.
    pub state_dir: PathBuf,
    /// The control socket.
    pub control: Control,
    /// What happens to the blocks when the daemon ends.
    pub on_exit: OnExit,
    /// Whether other programs may change the table.
    pub own_table: OwnTable,
}

impl Config {
    /// Whether decoys answer on the ports of `protocol`, which is `tcp` or `udp` of this
    /// configuration. Never in observe mode, which changes nothing: the ports are then watched as
    /// in stealth mode.
    pub fn has_decoys(&self, protocol: &Protocol) -> bool {
        self.mode == Mode::Enforce
            && protocol.mode == PortMode::Connect
            && !protocol.ports.is_empty()
    }

    /// Whether packets wait in the kernel for a decision.
    pub fn has_queue(&self) -> bool {
        let watches = !self.tcp.watched().is_empty() || !self.udp.watched().is_empty();
        self.capture.method == Method::Nfqueue && watches
    }

    /// Whether a scan over this transport may lead to a block.
    pub fn may_block(&self, protocol: &Protocol) -> bool {
        self.mode == Mode::Enforce
            && protocol.action == ProtocolAction::Block
            && self.block.total > 0
            && !protocol.watched().is_empty()
    }

    /// Whether new connections of suspects wait too: only if a suspect can be blocked.
    pub fn queues_connections(&self) -> bool {
        self.has_queue() && (self.may_block(&self.tcp) || self.may_block(&self.udp))
    }

    /// Whether a probe without a decision is dropped.
    pub fn drops_probes(&self) -> bool {
        self.mode == Mode::Enforce && self.closed_ports == ClosedPorts::Drop
    }

    /// Whether unproven sources that pass the trigger are slowed.
    pub fn slows(&self) -> bool {
        self.block.unproven.action == UnprovenAction::Slow
            && (self.may_block(&self.tcp) || self.may_block(&self.udp))
    }

    /// Whether the networks of campaigns are treated so.
    pub fn campaigns_are(&self, action: CampaignAction) -> bool {
        self.campaign.action == action && (self.may_block(&self.tcp) || self.may_block(&self.udp))
    }

    /// Whether the rules count probes of this transport and slow or hold sources: only if the daemon
    /// would slow or block an unproven source at once.
    pub fn has_reflex(&self, protocol: &Protocol) -> bool {
        let acts = match self.block.unproven.action {
            UnprovenAction::Block => self.block.unproven.per_minute > 0,
            UnprovenAction::Slow => true,
            UnprovenAction::Report => false,
        };
        self.capture.reflex && self.may_block(protocol) && acts
    }
}

/// `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Decide and block.
    Enforce,
    /// Decide and report everything, block nothing.
    Observe,
}

/// `closed_ports`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosedPorts {
    /// Probes get no answer.
    Drop,
    /// The kernel answers with a reset or port-unreachable.
    Answer,
    /// The same, and what a slowed source gets no answer to goes on to other firewalls as well:
    /// they drop it, and log it.
    Pass,
}

/// `campaign`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Campaign {
    /// What happens to the network of its sources.
    pub action: CampaignAction,
}

/// `campaign.action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CampaignAction {
    /// It is reported.
    Report,
    /// It is slowed, as an unproven source is.
    Slow,
    /// It is blocked, as an unproven source is.
    Block,
}

/// `unwatched`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwatched {
    /// It is reported.
    Report,
    /// It is slowed as one that probes watched ports.
    Slow,
    /// Nothing; the packets are not looked at.
    Ignore,
}

/// `capture`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// NFLOG or NFQUEUE.
    pub method: Method,
    /// The rules hold a source when it exceeds the trigger.
    pub reflex: bool,
    /// NFLOG group or NFQUEUE number.
    pub group: u16,
    /// Loopback port on which the decoy of connect mode listens.
    pub decoy_port: u16,
}

/// `capture.method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Copies of probes.
    Nflog,
    /// Probes wait for the verdict.
    Nfqueue,
}

/// `tcp` and `udp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// How ports are watched.
    pub mode: PortMode,
    /// Ports of connect and stealth mode.
    pub ports: PortSet,
    /// Ports of advanced mode.
    pub advanced_ports: PortSet,
    /// Ports never watched in advanced mode.
    pub exclude: PortSet,
    /// What a scan triggers.
    pub action: ProtocolAction,
}

/// `tcp.mode`, `udp.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortMode {
    /// Not watched.
    Off,
    /// The listed ports answer.
    Connect,
    /// The listed ports, silently.
    Stealth,
    /// Every closed port of the range except the excluded ones.
    Advanced,
}

/// `tcp.action`, `udp.action` (classic BLOCK_TCP, BLOCK_UDP: 1, 2, 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolAction {
    /// Block, and run the other responses.
    Block,
    /// Run the command only.
    Command,
    /// Report only.
    Log,
}

impl Protocol {
    /// The ports that the rules watch in this mode.
    pub fn watched(&self) -> PortSet {
        match self.mode {
            PortMode::Off => PortSet::default(),
            PortMode::Connect | PortMode::Stealth => self.ports.clone(),
            PortMode::Advanced => self.advanced_ports.without(&self.exclude),
        }
    }
}

/// `block`.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Duration of a block of a verified source; `None`: permanent (`0` in the file).
    pub timeout: Option<Duration>,
    /// Longer blocks for repeat offenders.
    pub escalate: Escalate,
    /// How IPv6 sources are counted and blocked.
    pub ipv6: Ipv6Accounts,
    /// Treatment of unverified sources, whose address may be forged.
    pub unproven: Unproven,
    /// Maximum number of elements.
    pub total: u32,
}

/// `block.ipv6`: an address first, then its prefix when several addresses in it scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Accounts {
    /// Prefix length of an account, bits, 48..=128.
    pub first: u8,
    /// Prefix length of the account that several of those share, bits: [`Self::THEN_MAX`] at most,
    /// or the same as `first`, which means that there are none.
    pub then: u8,
}

impl Ipv6Accounts {
    /// The longest prefix of several accounts, bits: a longer one holds hardly more addresses than
    /// a host may have.
    pub const THEN_MAX: u8 = 120;

    /// Every account has this prefix length, bits.
    pub fn of_one_length(bits: u8) -> Self {
        Self { first: bits, then: bits }
    }

    /// The length of the prefixes of several accounts, bits; `None` if there are none.
    pub fn prefix(self) -> Option<u8> {
        (self.then < self.first).then_some(self.then)
    }
}

/// `block.escalate`.
#[derive(Debug, Clone, PartialEq)]
pub struct Escalate {
    /// Factor of each further block, 1..=100.
    pub factor: u32,
    /// Maximum duration.
    pub max: Duration,
    /// After this long without a block a source starts from the beginning.
    pub memory: Duration,
}

/// `block.unproven`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unproven {
    /// What such a source triggers.
    pub action: UnprovenAction,
    /// Duration of the short block, which is renewed while the scan goes on.
    pub timeout: Duration,
    /// Maximum of new blocks of unverified sources in a minute.
    pub per_minute: u32,
}

/// `block.unproven.action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnprovenAction {
    /// A short block.
    Block,
    /// Its connections to real services pass only when the identical SYN is repeated.
    Slow,
    /// Report only.
    Report,
}

/// `never_block`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeverBlock {
    /// This host's own addresses.
    pub own_addresses: bool,
    /// Next hops of its routes.
    pub gateways: bool,
    /// Its name servers.
    pub resolvers: bool,
    /// Peers of `admin_ports` that have logged in.
    pub ssh_peers: bool,
    /// TCP ports of administrators' logins.
    pub admin_ports: PortSet,
    /// Administrators who are not connected.
    pub admins: Admins,
}

/// `never_block.admins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admins {
    /// How long after its last session an administrator's address is remembered; `None`: not at all
    /// (`0` in the file).
    pub memory: Option<Duration>,
}

/// `respond`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// Argument list, run without a shell; empty: none.
    pub command: Vec<String>,
    /// What it is run for.
    pub command_on: Vec<CommandOn>,
    /// Before or after the block.
    pub command_when: CommandWhen,
    /// Time after which the command is killed.
    pub command_timeout: Duration,
    /// Lines in hosts.deny.
    pub hosts_deny: HostsDeny,
    /// Text that a decoy sends once the trigger is exceeded.
    pub banner: String,
}

/// An item of `respond.command_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandOn {
    /// A source that is slowed.
    Slowed,
    /// A source that is blocked.
    Blocked,
}

/// `respond.command_when` (classic KILL_RUN_CMD_FIRST).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandWhen {
    /// Before the block.
    Before,
    /// After the block.
    After,
}

/// `respond.hosts_deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsDeny {
    /// Whether lines are written.
    pub enabled: bool,
    /// Path of the file.
    pub path: PathBuf,
    /// Line template with `{target}`.
    pub line: String,
}

/// `geo`: files in MaxMind's format, which portsentryctl alone opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geo {
    /// Has the country of an address; `None`: not shown.
    pub country: Option<PathBuf>,
    /// Has the autonomous system of an address; `None`: not shown.
    pub asn: Option<PathBuf>,
}

/// `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Target of the log.
    pub target: LogTarget,
    /// Format of the lines.
    pub format: LogFormat,
    /// Least severe level that is logged.
    pub level: log::LevelFilter,
    /// syslog(3) facility, by name.
    pub facility: Facility,
}

/// `log.target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTarget {
    /// The journal when stderr is connected to it, else stderr.
    Auto,
    /// Standard error.
    Stderr,
    /// systemd's journal.
    Journal,
    /// /dev/log.
    Syslog,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// PortSentry 1.2's lines.
    Classic,
    /// One line of `key=value` an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// `log.facility`: the number is syslog's (RFC 5424, 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Facility {
    /// User-level messages (kern is for the kernel).
    User = 1,
    /// System daemons.
    Daemon = 3,
    /// Security.
    Auth = 4,
    /// Security, private.
    Authpriv = 10,
    /// Local use 0.
    Local0 = 16,
    /// Local use 1.
    Local1 = 17,
    /// Local use 2.
    Local2 = 18,
    /// Local use 3.
    Local3 = 19,
    /// Local use 4.
    Local4 = 20,
    /// Local use 5.
    Local5 = 21,
    /// Local use 6.
    Local6 = 22,
    /// Local use 7.
    Local7 = 23,
}

/// `events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    /// How long an event is kept; `None`: none is stored (`0` in the file).
    pub keep: Option<Duration>,
    /// The most that their database takes of the disk.
    pub max: Size,
}

/// Bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl std::fmt::Debug for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// `control`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Path of the socket.
    pub socket: PathBuf,
    /// Group that may read; empty: root only.
    pub group: String,
}

/// `on_exit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// The table stays, with all blocks.
    Keep,
    /// The table is removed.
    Remove,
}

/// `own_table`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnTable {
    /// They may, until one does so repeatedly.
    Auto,
    /// They may not, if the kernel has table owners.
    Yes,
    /// They may; their changes are repaired.
    No,
}
