//! The command line: a subcommand for each request.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::exporter::Place;
use crate::config::classic::Modes;
use crate::config::{Config, DEFAULT_PATH};
use crate::control::protocol::{REASON_MAX, Target};
use crate::engine::ListName;
use crate::journal::record::{Effect, KINDS};
use crate::probe::{Port, ScanKind};

/// Show and change what the PortSentry daemon blocks.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(name = "portsentryctl", version, after_help = EXIT_STATUSES)]
pub struct Arguments {
    /// Print JSON: one document with stable keys.
    #[arg(long, global = true)]
    pub json: bool,
    /// The daemon's control socket.
    #[arg(long, global = true, value_name = "PATH", default_value_os_t = Config::default().control.socket)]
    pub socket: PathBuf,
    /// Print long output on a terminal without a pager.
    #[arg(long, global = true)]
    pub no_pager: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUSES: &str = "\
Exit status: 0 done, 1 no (not blocked, nothing known), 64 wrong command line, 69 the daemon cannot be reached,
70 something failed, 77 not permitted, 78 the configuration is wrong.";

/// The subcommands.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Command {
    /// Show the daemon's status.
    Status {
        /// Say in one line whether all is well, as a plugin of Nagios or Icinga does: exit status 0
        /// is OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
        #[arg(long, conflicts_with = "json")]
        check: bool,
    },
    /// Print the daemon's figures as metrics, in OpenMetrics.
    Metrics {
        /// Replace this file by them instead, in the format that node_exporter's textfile collector
        /// reads. A daemon that does not answer is not up there.
        #[arg(long, value_name = "PATH")]
        textfile: Option<PathBuf>,
        /// Serve them over HTTP at /metrics instead, until it is ended: 127.0.0.1:9477 or
        /// unix:/PATH.
        #[arg(long, value_name = "ADDR", conflicts_with = "textfile")]
        listen: Option<Place>,
        /// Listen where other hosts can connect, too.
        #[arg(long, requires = "listen")]
        anywhere: bool,
    },
    /// List the blocks.
    List(List),
    /// Show the state of an address and its past: what it probed, what counted, what was decided,
    /// and what it may still do.
    Show {
        /// The address.
        #[arg(value_name = "ADDR")]
        address: Target,
    },
    /// Say what would happen to packets of an address: whether it is blocked, slowed or never
    /// blocked, and what each port would answer.
    Test {
        /// The address.
        #[arg(value_name = "ADDR")]
        address: IpAddr,
        /// Ports of this host: 22 or tcp/22, udp/53.
        #[arg(value_name = "PORT")]
        ports: Vec<Port>,
    },
    /// Block addresses or networks.
    Block {
        /// The addresses, or networks in CIDR form. For an IPv6 address the whole prefix is
        /// blocked.
        #[arg(value_name = "ADDR|NET", required_unless_present = "from")]
        addresses: Vec<Target>,
        /// Also those in a file, one a line; `-`: standard input. What follows # or ; is a comment.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// Put them on this list: what was on it and is in FILE no longer is unblocked, the others
        /// get the new end.
        #[arg(long, value_name = "LIST", requires = "from")]
        list: Option<ListName>,
        /// Let what is on the list and not in FILE stay on it.
        #[arg(long, requires = "list")]
        add: bool,
        /// Duration: 30s, 2h, "1day 12h"; 0: permanent. Without it, the configured duration.
        #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
        time: Option<Duration>,
        /// The reason, shown in lists and in the log.
        #[arg(long, value_name = "TEXT", default_value = "", value_parser = parse_reason, hide_default_value = true)]
        reason: String,
        /// Even if that may cut off an administrator's session, or this one.
        #[arg(long)]
        force: bool,
    },
    /// Unblock addresses or networks, what is on a list, or everything.
    Unblock {
        /// The addresses or networks.
        #[arg(value_name = "ADDR|NET", required_unless_present = "many", conflicts_with = "many")]
        addresses: Vec<Target>,
        /// Unblock everything; asks first on a terminal.
        #[arg(long, group = "many")]
        all: bool,
        /// Unblock what is on this list; asks first on a terminal.
        #[arg(long, value_name = "LIST", group = "many")]
        list: Option<ListName>,
        /// Do not ask.
        #[arg(long, requires = "many")]
        yes: bool,
    },
    /// List the lists that `block --list` blocked: their names, blocks and ends.
    Lists,
    /// List or change the addresses and networks that are never blocked.
    Allow {
        /// What to do with them.
        #[command(subcommand)]
        command: AllowCommand,
    },
    /// List what happened: scans, slowed and blocked sources and their ends, an administrator's
    /// orders.
    History(History),
    /// Sum up what happened: scans over time, their ports, kinds, networks and sources, and what was
    /// slowed, proven and blocked.
    Report(Report),
    /// Print the ruleset in force, as nft(8) reads it.
    Rules,
    /// Check a configuration file. The daemon need not run.
    Check {
        /// The file; without it, the daemon's.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Convert the files of PortSentry 1.2 or 2.x into a configuration. The daemon need not run.
    ///
    /// Each value gets its origin as a comment. Settings that cannot be converted are reported, and
    /// listed at the head of the new file with their replacement. A damaged file is refused with
    /// all its faults, and nothing is written.
    Import(Import),
    /// Run the responses to a scan once, as the daemon runs them, for 192.0.2.1: respond.command, and a
    /// line of hosts.deny, which is taken out again.
    TestResponse,
    /// Reload the daemon's configuration.
    Reload,
    /// Block scans from now on, or confirm that they stay blocked.
    Enforce {
        /// Observe again after this time, unless it is confirmed by then: `enforce` without it.
        #[arg(long, value_name = "TIME", value_parser = parse_period)]
        confirm: Option<Duration>,
    },
    /// Block nothing from now on, only report; or say what would have been blocked.
    Observe {
        /// What else to do.
        #[command(subcommand)]
        command: Option<ObserveCommand>,
    },
    /// Watch nothing until `on`; blocks stay in force.
    Off,
    /// Watch nothing for a time; blocks stay in force.
    Pause {
        /// For how long: 10m, 1h.
        #[arg(value_name = "TIME", value_parser = parse_period)]
        time: Duration,
    },
    /// Watch again.
    On,
    /// Show events as they happen.
    Watch,
    /// Show on the whole terminal whether this host is protected, what is happening, and which sources
    /// are blocked and why; with keys to explain, unblock and allow them.
    Top,
}

/// The options of `list`. Without any, everything, in the order of addresses.
#[derive(Debug, Clone, PartialEq, Default, Args)]
pub struct List {
    /// What observe mode would have blocked or slowed, instead.
    #[arg(long, conflicts_with_all = ["proven", "slowed", "since", "net", "list", "sort", "limit"])]
    pub would_be: bool,
    /// Only sources of scans whose address is proven.
    #[arg(long)]
    pub proven: bool,
    /// Only slowed sources.
    #[arg(long)]
    pub slowed: bool,
    /// Only what began since then: 1h, 7d, a date (2026-11-20), or a time (2026-11-20T15:00).
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Timestamp>,
    /// Only in this network, or around this address.
    #[arg(long, value_name = "ADDR|NET")]
    pub net: Option<Target>,
    /// Only in these countries, by their codes: DE,CN. Needs a database (geo in the configuration).
    #[arg(long, value_name = "CODE", value_delimiter = ',', value_parser = parse_country)]
    pub country: Vec<String>,
    /// Only in these autonomous systems: 64496,AS64497. Needs a database, too.
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', value_parser = parse_asn)]
    pub asn: Vec<u32>,
    /// The most packets first, the newest, the next to end, or by address.
    #[arg(long, value_name = "KEY")]
    pub sort: Option<Sort>,
    /// Only what `block --list` blocked with this list.
    #[arg(long, value_name = "LIST")]
    pub list: Option<ListName>,
    /// The first N only.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// What `list` is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Dropped packets, the most first.
    Packets,
    /// The beginning, the newest first.
    Since,
    /// The end, the next first.
    Until,
    /// The address.
    Address,
}

/// The options of `history`. Without any, everything that is about a source.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct History {
    /// Only since then: 1h, 7d, a date (2026-11-20), or a time (2026-11-20T15:00,
    /// 2026-11-20T15:00:00Z).
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Timestamp>,
    /// Only until then; a date includes its whole day.
    #[arg(long, value_name = "TIME", value_parser = parse_until)]
    pub until: Option<Timestamp>,
    /// Only of this address or network.
    #[arg(long, value_name = "ADDR|NET")]
    pub source: Option<Target>,
    /// Only of this port: tcp/22, udp/53, 22.
    #[arg(long, value_name = "PORT")]
    pub port: Option<Port>,
    /// Only these kinds of events, separated by commas: scan, blocked, unblocked, order and others.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = PossibleValuesParser::new(KINDS), hide_possible_values = true)]
    pub kind: Vec<String>,
    /// Only with this result: blocked, slowed, reported, ended, done or failed.
    #[arg(long, value_name = "RESULT", value_parser = parse_effect)]
    pub result: Option<Effect>,
    /// Only of this kind of scan: syn, udp, sweep and others.
    #[arg(long, value_name = "SCAN", value_parser = PossibleValuesParser::new(ScanKind::ALL.map(ScanKind::name)), hide_possible_values = true)]
    pub scan: Option<String>,
    /// Only in these countries, by their codes: DE,CN. Needs a database (geo in the configuration).
    #[arg(long, value_name = "CODE", value_delimiter = ',', value_parser = parse_country)]
    pub country: Vec<String>,
    /// Only in these autonomous systems: 64496,AS64497. Needs a database, too.
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', value_parser = parse_asn)]
    pub asn: Vec<u32>,
    /// Also what is about no source: starts, reloads, lost packets.
    #[arg(long)]
    pub all: bool,
    /// Print comma-separated values (RFC 4180), with a header.
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
}

/// The options of `report`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Report {
    /// Only since then: 1h, 7d, a date (2026-11-20), or a time (2026-11-20T15:00); without it, seven
    /// days.
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Timestamp>,
    /// Only until then; a date includes its whole day.
    #[arg(long, value_name = "TIME", value_parser = parse_until)]
    pub until: Option<Timestamp>,
    /// Write a page for a browser, in one file without scripts; `-`: to standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub html: Option<PathBuf>,
}

/// The options of `import`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Import {
    /// The classic configuration: /etc/portsentry/portsentry.conf.
    #[arg(value_name = "CLASSIC.conf")]
    pub file: PathBuf,
    /// The file to write. An existing one is never overwritten.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH, conflicts_with = "print")]
    pub output: PathBuf,
    /// Write to standard output instead.
    #[arg(long)]
    pub print: bool,
    /// The settings of the init script, with TCP_MODE, PORTSENTRY_MODES or the like; without it the
    /// first that exists of /etc/default/portsentry, /etc/conf.d/portsentry,
    /// /etc/sysconfig/portsentry, and portsentry.modes beside the configuration.
    #[arg(long = "default", value_name = "FILE")]
    pub defaults: Option<PathBuf>,
    /// A mode of the old program, as on its command line: tcp, stcp, atcp, udp, sudp or audp
    /// (1.2), connect or stealth (2.x). May be given twice.
    #[arg(long, value_name = "WORD", value_parser = parse_mode, allow_hyphen_values = true)]
    pub mode: Vec<Modes>,
}

/// The subcommands of `observe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum ObserveCommand {
    /// Show what would have been blocked or slowed since observing began, and what of it an
    /// administrator should look at first.
    Report,
}

/// The subcommands of `allow`.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum AllowCommand {
    /// List what is never blocked, and why.
    List,
    /// Never block this from now on, and lift its block.
    Add {
        /// The address or network.
        #[arg(value_name = "ADDR|NET")]
        address: Target,
    },
    /// Undo `allow add`, or forget an administrator.
    Remove {
        /// The address or network.
        #[arg(value_name = "ADDR|NET")]
        address: Target,
    },
}

fn parse_time(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let time = humantime::parse_duration(text)
        .map_err(|error| format!("{error}: write it as 30s, 2h or \"1day 12h\""))?;
    // Less than a second would become 0, which means permanent.
    if time < Duration::from_secs(1) {
        Err("a block lasts a second or more; 0 is until it is unblocked".to_owned())
    } else {
        Ok(time)
    }
}

fn parse_period(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}: write it as 5m or 1h"))
        .and_then(|time| match time.as_secs() {
            0 => Err("write a second or more".to_owned()),
            _ => Ok(time),
        })
}

fn parse_reason(text: &str) -> Result<String, String> {
    if text.len() > REASON_MAX {
        return Err(format!("longer than {REASON_MAX} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("control characters are in it".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_mode(text: &str) -> Result<Modes, String> {
    Modes::of_word(text)
        .ok_or_else(|| "write tcp, stcp, atcp, udp, sudp, audp, connect or stealth".to_owned())
}

fn parse_since(text: &str) -> Result<Timestamp, String> {
    parse_moment(text, date(text))
}

fn parse_until(text: &str) -> Result<Timestamp, String> {
    match date(text) {
        // Its last second.
        Some(day) => parse_moment(text, day.tomorrow().ok())
            .map(|at| at.checked_sub(SignedDuration::from_secs(1)).unwrap_or(at)),
        None => parse_moment(text, None),
    }
}

/// A text that is a date without a time, which the parser of dates would pass over.
fn date(text: &str) -> Option<Date> {
    text.parse().ok().filter(|_| text.len() == "2026-11-20".len())
}

/// A time: the beginning of a day, a time of day, or an age.
fn parse_moment(text: &str, day: Option<Date>) -> Result<Timestamp, String> {
    const FORMS: &str = "write it as 1h, 7d, 2026-11-20, 2026-11-20T15:00 or 2026-11-20T15:00:00Z";
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    if let Some(local) = day.map(DateTime::from).or_else(|| text.parse().ok()) {
        return TimeZone::system().to_timestamp(local).map_err(|error| error.to_string());
    }
    let age = humantime::parse_duration(text).map_err(|error| format!("{error}: {FORMS}"))?;
    // A time before the earliest possible one selects everything.
    Ok(Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN))
}

fn parse_country(text: &str) -> Result<String, String> {
    if text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        Ok(text.to_ascii_uppercase())
    } else {
        Err("write the two letters of a country, DE".to_owned())
    }
}

fn parse_asn(text: &str) -> Result<u32, String> {
    let number = text.get(..2).filter(|start| start.eq_ignore_ascii_case("as")).and(text.get(2..));
    number.unwrap_or(text).parse().map_err(|_| "write a number, 64496 or AS64496".to_owned())
}

fn parse_effect(text: &str) -> Result<Effect, String> {
    Effect::of_word(text).ok_or_else(|| {
        let words: Vec<&str> = Effect::ALL.into_iter().map(Effect::word).collect();
        format!("write one of {}", words.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace()).map(|arguments| arguments.command)
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn blocks_take_a_time_and_a_reason() {
        let Command::Block { time, reason, .. } =
            read("portsentryctl block 192.0.2.0/24 --for 2h --reason abuse").unwrap()
        else {
            panic!()
        };
        assert_eq!((time, reason.as_str()), (Some(Duration::from_secs(7200)), "abuse"));
        assert!(matches!(
            read("portsentryctl block 192.0.2.1 --for 0"),
            Ok(Command::Block { time: Some(Duration::ZERO), .. })
        ));
        for wrong in [
            "--for 500ms",
            "--for soon",
            "--for -1h",
            &format!("--reason {}", "x".repeat(REASON_MAX + 1)),
        ] {
            assert!(read(&format!("portsentryctl block 192.0.2.1 {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn unblock_takes_either_an_address_or_all() {
        assert!(read("portsentryctl unblock 192.0.2.1").is_ok());
        assert!(read("portsentryctl unblock --all").is_ok());
        assert!(read("portsentryctl unblock").is_err());
        assert!(read("portsentryctl unblock --all 192.0.2.1").is_err());
        assert!(read("portsentryctl unblock example.org").is_err());
        assert!(read("portsentryctl unblock --list scanners --yes").is_ok());
        assert!(read("portsentryctl unblock --list scanners --all").is_err());
        assert!(read("portsentryctl unblock --list scanners 192.0.2.1").is_err());
        assert!(read("portsentryctl unblock --list Scanners").is_err());
        assert!(read("portsentryctl unblock --yes").is_err());
    }

    #[test]
    fn a_list_comes_from_a_file() {
        assert!(read("portsentryctl block --from - --list scanners --add").is_ok());
        for wrong in ["192.0.2.1 --list scanners", "--from - --add", "--from - --list a/b"] {
            assert!(read(&format!("portsentryctl block {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn since_is_an_age_or_a_time() {
        let since = |text: &str| match read(&format!("portsentryctl history --since {text}")) {
            Ok(Command::History(History { since, .. })) => since.unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(since("2026-11-20T15:00:00Z").as_second(), 1_795_186_800);
        let age = Timestamp::now().as_second() - since("1d").as_second();
        assert!((86_400..86_410).contains(&age));
        assert_eq!(since("900000y"), Timestamp::MIN);
        assert!(read("portsentryctl history --since 2026-13-01").is_err());
    }

    #[test]
    fn a_date_is_its_day_and_a_time_without_a_zone_is_local() {
        let local = |text: &str| {
            TimeZone::system().to_timestamp(text.parse::<DateTime>().unwrap()).unwrap()
        };
        assert_eq!(parse_since("2026-11-20"), Ok(local("2026-11-20T00:00:00")));
        assert_eq!(parse_until("2026-11-20"), Ok(local("2026-11-20T23:59:59")));
        for parse in [parse_since, parse_until] {
            assert_eq!(parse("2026-11-20T15:00"), Ok(local("2026-11-20T15:00:00")));
            assert_eq!(parse("2026-11-20 15:00:07"), Ok(local("2026-11-20T15:00:07")));
        }
    }

    #[test]
    fn the_history_is_filtered_by_known_words() {
        let line = "portsentryctl history --kind scan,blocked --kind order --result ended --port udp/53 --scan syn --csv";
        let Ok(Command::History(History { kind, result, port, csv, .. })) = read(line) else {
            panic!("{line}")
        };
        assert_eq!(kind, ["scan", "blocked", "order"]);
        assert_eq!((result, csv), (Some(Effect::Ended), true));
        assert_eq!(port.unwrap().to_string(), "udp/53");
        let line = "portsentryctl history --country de,CN --asn 64496,AS64497 --asn as1";
        let Ok(Command::History(History { country, asn, .. })) = read(line) else { panic!() };
        assert_eq!((country, asn), (vec!["DE".into(), "CN".into()], vec![64496, 64497, 1]));
        for wrong in
            ["--country Germany", "--country 12", "--asn ASN1", "--asn as", "--asn -1", "--asn ä1"]
        {
            assert!(read(&format!("portsentryctl list {wrong}")).is_err(), "{wrong}");
        }
        for wrong in ["--kind scans", "--result good", "--scan fast", "--port x", "--csv --json"] {
            assert!(read(&format!("portsentryctl history {wrong}")).is_err(), "{wrong}");
        }
    }
}
