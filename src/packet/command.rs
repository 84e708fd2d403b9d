//! What other threads ask of the packet thread, and what they are answered.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{CampaignAction, Config};
use crate::control::Queues;
use crate::enforce::{
    BlockError, InForce, LiftedPart, ManyReason, Repairs, Services, Several, UnblockedAll,
};
use crate::engine::{
    self, AllowList, CampaignView, ListName, Listed, MonoTime, ObservedView, Offender, Reason,
    Refusal, SlowedView, Source, Unblocked,
};
use crate::helper::client::BlockInForce;
use crate::nft::Ruleset;
use crate::ruleset::reflex::Tally;
use crate::store::{Block, EngineReader, Stored};
use crate::sys::mailbox::{Answer, Link};
use crate::{capture, decoy};

/// What came of a reload: what the administrator has to know beside that the new configuration is
/// in force, or why nothing has changed.
pub type Reload = Result<Vec<String>, String>;

/// All that the thread needs to start or to change its ways.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// What it puts in force.
    pub in_force: InForce,
    /// Where this host's own connections start: `net.ipv4.ip_local_port_range`.
    pub ephemeral: RangeInclusive<u16>,
}

/// What other threads ask for.
pub enum Command {
    /// Current figures.
    Status(Answer<Figures>),
    /// What is known of an address.
    Account(IpAddr, Answer<Known>),
    /// Block by order of the administrator.
    Block {
        /// What.
        source: Source,
        /// For how long; `None`: until unblocked.
        timeout: Option<Duration>,
        /// The administrator's words.
        text: String,
        /// Done in the kernel, or why not.
        answer: Answer<Result<(), BlockError>>,
    },
    /// Block many by order of the administrator, in one transaction.
    BlockSeveral {
        /// What.
        sources: Vec<Source>,
        /// For how long; `None`: until unblocked.
        timeout: Option<Duration>,
        /// Why.
        reason: ManyReason,
        /// Done in the kernel, but for the refused.
        answer: Answer<Several>,
    },
    /// Begin to load a list.
    BeginList {
        /// Its name.
        name: ListName,
        /// The administrator's words.
        text: String,
        /// It is added to, not replaced.
        add: bool,
        /// The loading.
        answer: Answer<Result<Arc<Listed>, Refusal>>,
    },
    /// Unblock what is on a list, or everything.
    UnblockPart {
        /// The list; `None`: everything.
        list: Option<ListName>,
        /// Only what this loading did not name.
        loading: Option<Arc<Listed>>,
        /// The first place of all blocks.
        from: usize,
        /// So many places from there on.
        places: usize,
        /// Done in the kernel, or why not.
        answer: Answer<Result<LiftedPart, String>>,
    },
    /// Lift what lies in a network, exempt it from blocks around it, and lift the account that an
    /// address belongs to.
    Unblock(Source, Answer<Result<Unblocked, String>>),
    /// Unblock everything.
    UnblockAll(Answer<Result<UnblockedAll, String>>),
    /// A new list of what is never blocked.
    Protect(AllowList, Answer<Result<(), String>>),
    /// Services listen on other ports than before, or it is time to look for their clients again.
    Services(Services, Answer<()>),
    /// A new configuration.
    Reconfigure(Box<Setup>, Answer<Reload>),
    /// What the engine knows of the blocks of these; `None` where it has none.
    Details(Vec<Source>, Answer<Vec<Option<BlockDetails>>>),
    /// So many of the blocks in force, the first that come.
    Blocks(usize, Answer<Vec<BlockInForce>>),
    /// The networks that are blocked.
    Networks(Answer<Vec<Block>>),
    /// The blocks in force in so many places from one on, and where to go on; `None`: these were
    /// the last.
    Page(usize, usize, Answer<(Vec<Block>, Option<usize>)>),
    /// The sources of those, for a list.
    Sources(usize, usize, Answer<Sources>),
    /// The slowed sources after this one, and why they are slowed; a page of them.
    Slowed(Option<Source>, Answer<Vec<(SlowedView, Reason)>>),
    /// What observe mode would have slowed or blocked, when observing began, and for how many
    /// sources there was no room.
    Observed(Answer<Observed>),
    /// The campaigns, each with what is done about it.
    Campaigns(Answer<Vec<(CampaignView, CampaignAction)>>),
    /// All proven sources that were blocked.
    Offenders(Answer<Vec<Offender>>),
    /// What is known of sources that were touched since then, of so many at most.
    Evidence(MonoTime, usize, Answer<Vec<engine::Evidence>>),
    /// Take over what could not be read at the start.
    Restore(Box<Stored>, Answer<()>),
    /// Add what the rules remember of an earlier run.
    Seen(Vec<engine::Seen>, Answer<()>),
    /// Liveness check.
    Ping(Answer<()>),
    /// End, and leave these rules; `None`: take the table out of the kernel. Answers how many blocks
    /// stay.
    Stop(Option<Box<Ruleset>>, Answer<u64>),
}

/// What is known of an address.
#[derive(Debug, Clone)]
pub struct Known {
    /// The account that it belongs to.
    pub account: Option<engine::AccountView>,
    /// What that account touched, and what it means.
    pub trace: Option<engine::Trace>,
    /// How often it was blocked as proven.
    pub blocks_before: u32,
    /// It is slowed, and why.
    pub slowed: Option<(SlowedView, Reason)>,
    /// The campaign of a network around it.
    pub campaign: Option<(CampaignView, CampaignAction)>,
}

/// A page of the sources that are blocked.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Each with whether it is an unproven scan's.
    pub sources: Vec<(Source, bool)>,
    /// Where to go on; `None`: these were the last.
    pub next: Option<usize>,
    /// As far as is known, the kernel has each of them.
    pub is_settled: bool,
}

/// What the engine knows of a block and its element does not say.
#[derive(Debug, Clone)]
pub struct BlockDetails {
    /// Why: an element has no comment yet after a repair or a start.
    pub reason: Reason,
    /// When it began: the kernel knows only when its timeout was set last.
    pub since: MonoTime,
    /// How often it got a new timeout.
    pub renewals: u32,
    /// When it ends, as far as the kernel was asked; `None`: when it is unblocked.
    pub expires: Option<MonoTime>,
}

/// What observe mode would have slowed or blocked.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The sources, in order.
    pub sources: Vec<ObservedView>,
    /// When observing began; `None`: with the daemon.
    pub since: Option<MonoTime>,
    /// How many were forgotten: there was no room for more.
    pub forgotten: u64,
}

/// What the reflex did, and how full its sets are.
#[derive(Debug, Clone, Default)]
pub struct Reflex {
    /// Its counters.
    pub tally: Tally,
    /// Elements and size of the fullest of its sets, where the kernel tells (Linux 6.16).
    pub fullest: Option<(u32, u32)>,
}

/// Figures for the status.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The engine's.
    pub engine: engine::Status,
    /// The capture's.
    pub capture: capture::Statistics,
    /// What became of the packets that came in.
    pub taken: Taken,
    /// The decoys'.
    pub decoy: decoy::Figures,
    /// The counters of the reflex's rules; `None` if the rules have none, or cannot be read.
    pub reflex: Option<Reflex>,
    /// What was done about other programs in our table.
    pub repairs: Repairs,
    /// Blocks that are wanted and that the kernel refused.
    pub refused: usize,
    /// The queues', where packets wait.
    pub queues: Option<Queues>,
}

/// What became of the packets that came in, and how they are taken now.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Logged packets that were evaluated, or wait at the decoys for the end of their handshake.
    pub evaluated: u64,
    /// Logged packets that are no probes (late answers and the like).
    pub no_probe: u64,
    /// Logged packets that no parser could read.
    pub unreadable: u64,
    /// Packets of unknown sources that were given up, so that those of known ones could be judged.
    pub shed: u64,
    /// Packets are being given up now.
    pub is_shedding: bool,
    /// Packets that the kernel collects before it wakes the daemon.
    pub batch: u32,
    /// The receive buffer in force, bytes; `None` if the kernel does not say.
    pub receive_buffer: Option<usize>,
}

/// The packet thread answers the store's thread at once, unless it takes over a large table.
const STORE_TIMEOUT: Duration = Duration::from_secs(60);

impl EngineReader for Link<Command> {
    fn page(&self, from: usize, places: usize) -> Option<(Vec<Block>, Option<usize>)> {
        self.ask_within(STORE_TIMEOUT, |answer| Command::Page(from, places, answer)).ok()
    }

    fn offenders(&self) -> Option<Vec<Offender>> {
        self.ask(Command::Offenders).ok()
    }

    fn evidence(&self, since: MonoTime, most: usize) -> Option<Vec<engine::Evidence>> {
        self.ask_within(STORE_TIMEOUT, |answer| Command::Evidence(since, most, answer)).ok()
    }

    fn restore(&self, stored: Stored) -> Option<()> {
        self.ask_within(STORE_TIMEOUT, |answer| Command::Restore(Box::new(stored), answer)).ok()
    }
}
