//! The command line of `portsentry replay`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ipnet::IpNet;

/// Show which sources of captured packets would have been detected, slowed and blocked.
///
/// Reads pcap and pcapng files, in the order of their first packets, by their own clock. Opens no
/// socket, changes nothing and needs no privilege.
#[derive(Debug, Clone, Parser)]
#[command(name = "portsentry replay", version, after_help = HELP)]
pub struct Options {
    /// The configuration file [default: /etc/portsentry/portsentry.yaml; built-in defaults if that
    /// is missing]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// An address or network of the host that was captured; may be repeated. Without it, the
    /// likeliest address of each IP version is taken, and shown
    #[arg(long, value_name = "ADDR|NET", value_parser = network)]
    pub local: Vec<IpNet>,
    /// A port that has not answered after this time counts as closed
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time)]
    pub answer_within: Duration,
    /// Print JSON: one document with stable keys
    #[arg(long, conflicts_with = "jsonl")]
    pub json: bool,
    /// Print the events that the daemon would have logged, a JSON object on each line
    #[arg(long)]
    pub jsonl: bool,
    /// The capture files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

const HELP: &str = "Exit status: 0 done, 64 usage, 65 a file is no capture file, 66 a file cannot be read, 70 software, 78 configuration";

fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse::<IpNet>()).map_err(|_| "no address and no network".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}
