//! What a helper that runs as root believes of a daemon that does not.
//!
//! An intruder in the daemon must not become root by its orders: the command and the files come from
//! the configuration file, which the helper reads itself, and what goes into them is checked.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use clap::Parser;
use ipnet::IpNet;

use super::client::orders;
use super::protocol::{Blocked, Incident, Order, Run};
use crate::config;
use crate::sys::{files, peer};

/// The helper's own command line, in its unit.
#[derive(Debug, Parser)]
#[command(name = "portsentry helper", no_binary_name = true)]
struct Options {
    /// The configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// How the helper takes orders.
#[derive(Debug)]
pub(super) enum Orders {
    /// As they are: the daemon has at least the rights of this process.
    Trusted,
    /// With what the configuration file says; `None`: the default one.
    Checked(Option<PathBuf>),
}

impl Orders {
    /// By the user at the other end of the socket.
    ///
    /// # Errors
    /// The kernel does not say who that is, or the command line is wrong.
    pub(super) fn of(socket: &UnixStream, arguments: &[OsString]) -> io::Result<Self> {
        let is_trusted = !files::is_root() || peer::peer(socket.as_fd())?.uid == 0;
        let options = Options::try_parse_from(arguments).map_err(io::Error::other)?;
        Ok(if is_trusted { Self::Trusted } else { Self::Checked(options.config) })
    }

    /// The order to carry out.
    ///
    /// # Errors
    /// Why it is not carried out.
    pub(super) fn checked(&self, order: Order) -> Result<Order, String> {
        let Self::Checked(file) = self else { return Ok(order) };
        Ok(match order {
            Order::Configure(wanted) => {
                let loaded = match file {
                    Some(file) => config::load(file),
                    None => config::load_default(),
                };
                let loaded = loaded.map_err(|refused| {
                    format!("responses go on as before, because the helper refuses the configuration: {refused}")
                })?;
                let mut settings = orders::settings(&loaded.config);
                // Names of modes may come from the daemon's command line.
                settings.modes = wanted.modes.iter().map(|mode| plain(mode)).collect();
                Order::Configure(Box::new(settings))
            }
            Order::Run(run) => Order::Run(Run {
                target: address(&run.target)?,
                port: run.port,
                mode: plain(&run.mode),
                protocol: plain(&run.protocol),
                scan: plain(&run.scan),
                reason: plain(&run.reason),
                state: plain(&run.state),
            }),
            Order::Blocked(block) => Order::Blocked(checked_block(block)?),
            Order::Unblocked(target) => Order::Unblocked(address(&target)?),
            Order::List(mut list) => {
                list.blocks =
                    list.blocks.into_iter().map(checked_block).collect::<Result<_, _>>()?;
                Order::List(list)
            }
            Order::Incident(incident) => Order::Incident(Box::new(Incident {
                at: incident.at,
                kind: plain(&incident.kind),
                class: incident.class,
                target: incident.target.as_deref().map(address).transpose()?,
                name: incident.name.as_deref().map(plain),
                is_proven: incident.is_proven,
                port: incident.port.as_deref().map(plain),
                scan: incident.scan.as_deref().map(plain),
                reason: plain(&incident.reason),
            })),
            Order::LookUp(name) => {
                let name = config::dns_name(&name);
                Order::LookUp(name.map_err(|(message, _)| message)?)
            }
            Order::Resolve(_)
            | Order::Missed(_)
            | Order::TestNotifications
            | Order::Ping
            | Order::End(_) => order,
        })
    }
}

fn checked_block(block: Blocked) -> Result<Blocked, String> {
    Ok(Blocked {
        target: address(&block.target)?,
        mode: block.mode.as_deref().map(plain),
        at: block.at,
        line: block.line.as_deref().map(plain),
    })
}

/// An address or network, in the form in which it was sent.
fn address(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "the daemon sent an order for {text:?}, which is no address; it is not carried out"
        ))
    }
}

/// Text without characters that end a line, or that a shell or hosts_options(5) gives a meaning.
fn plain(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " .,:;/()[]+-=_%#@".contains(c);
    text.chars().map(|c| if is_plain(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::protocol::{HostsDeny, Settings};

    fn run(target: &str, reason: &str) -> Order {
        Order::Run(Run {
            target: target.to_owned(),
            port: 7,
            mode: "atcp".to_owned(),
            protocol: "tcp".to_owned(),
            scan: "syn".to_owned(),
            reason: reason.to_owned(),
            state: "blocked".to_owned(),
        })
    }

    #[test]
    fn the_command_and_files_are_those_of_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("portsentry.yaml");
        std::fs::write(&file, "respond: { command: [/usr/bin/logger, x] }\n").unwrap();
        let orders = Orders::Checked(Some(file.clone()));
        let wanted = Settings {
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), "id".to_owned()],
            hosts_deny: Some(HostsDeny { path: "/etc/passwd".into(), line: "x::0:0".to_owned() }),
            blocked_file: Some("/etc/shadow".into()),
            modes: vec!["atcp".to_owned(), "a\nb".to_owned()],
            notify: Some(Box::default()),
            ..Settings::default()
        };
        let order = Order::Configure(Box::new(wanted.clone()));
        assert_eq!(Orders::Trusted.checked(order.clone()), Ok(order.clone()));
        let Ok(Order::Configure(found)) = orders.checked(order.clone()) else { panic!() };
        assert_eq!(found.command, ["/usr/bin/logger", "x"]);
        assert_eq!((&found.hosts_deny, &found.blocked_file), (&None, &None));
        assert_eq!(found.notify, None);
        assert_eq!(found.modes, ["atcp", "a?b"]);
        std::fs::write(&file, "respond: no\n").unwrap();
        assert!(orders.checked(order).unwrap_err().contains("responses go on as before"));
    }

    #[test]
    fn words_of_the_daemon_have_no_meaning_of_their_own() {
        let orders = Orders::Checked(None);
        for target in ["192.0.2.1", "2001:db8::/64", "2001:db8::1"] {
            assert_eq!(orders.checked(run(target, "3 ports")), Ok(run(target, "3 ports")));
        }
        assert!(orders.checked(run("ALL: spawn x", "")).is_err());
        assert!(orders.checked(Order::Unblocked("192.0.2.1\nALL".to_owned())).is_err());
        let Ok(Order::Run(run)) = orders.checked(run("192.0.2.1", "a`id`$(x)\n'\"&|<")) else {
            panic!()
        };
        assert_eq!(run.reason, "a?id??(x)??????");
    }
}
