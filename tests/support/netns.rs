//! Network namespaces as ip-netns(8) makes them, joined by veth pairs.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Pid, Signal, kill_process};

use super::{NMAP, output, run, unique};

/// A network namespace; dropping it ends all processes in it.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    /// A new namespace with loopback up.
    pub fn new() -> Self {
        let namespace = Self { name: unique("ps") };
        run("ip", &["netns", "add", &namespace.name]);
        namespace.run("ip", &["link", "set", "lo", "up"]);
        // Without a usable link-local address, which duplicate address detection delays by a
        // second or two, the kernel solicits no neighbour for packets of other sources: they would
        // be lost (ndisc_send_ns in net/ipv6/ndisc.c).
        namespace.enter(|| {
            for devices in ["all", "default"] {
                let file = format!("/proc/sys/net/ipv6/conf/{devices}/accept_dad");
                std::fs::write(&file, "0").unwrap_or_else(|error| panic!("{file}: {error}"));
            }
        });
        namespace
    }

    /// Runs a command inside, which must succeed; returns its standard output. Its /sys is that of
    /// the machine, unlike that of ip-netns(8).
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.enter(|| run(program, arguments))
    }

    /// Runs a command inside, whatever its exit status.
    pub fn output(&self, program: &str, arguments: &[&str], limit: Duration) -> Output {
        self.enter(|| output(program, arguments, limit))
    }

    /// Whether a ping(8) with these options and destination is answered. It sends several, as a
    /// machine that tests flood drops packets of other namespaces too (`net.core.netdev_max_backlog`).
    pub fn pings(&self, arguments: &[&str]) -> bool {
        self.output(
            "ping",
            &[&["-n", "-q", "-c", "1", "-i", "0.3", "-w", "2"], arguments].concat(),
            Duration::from_secs(5),
        )
        .status
        .success()
    }

    /// Runs many lines of ip(8) at once.
    pub fn ip_batch(&self, lines: &str) {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), lines).expect("temporary file");
        self.run("ip", &["-batch", file.path().to_str().expect("path")]);
    }

    /// Starts a command inside; the caller ends it.
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Running {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(arguments);
        command.env("NMAPDIR", NMAP);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}")))
    }

    /// Runs `inside` on a thread that lives in this namespace.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file =
                        File::open(format!("/run/netns/{}", self.name)).expect("namespace file");
                    rustix::thread::move_into_link_name_space(
                        file.as_fd(),
                        Some(rustix::thread::LinkNameSpaceType::Network),
                    )
                    .expect("setns");
                    inside()
                })
                .join()
                .expect("the thread in the namespace")
        })
    }

    /// Joins `self` and `other` by a veth pair with these addresses (CIDR form); the devices are
    /// named `device` on both sides.
    pub fn join(&self, other: &Namespace, device: &str, own: &[&str], others: &[&str]) {
        run(
            "ip",
            &[
                "link",
                "add",
                device,
                "netns",
                &self.name,
                "type",
                "veth",
                "peer",
                "name",
                device,
                "netns",
                &other.name,
            ],
        );
        for (namespace, addresses) in [(self, own), (other, others)] {
            let mut lines = String::new();
            for address in addresses {
                let without_detection = if address.contains(':') { " nodad" } else { "" };
                lines += &format!("addr add {address} dev {device}{without_detection}\n");
            }
            namespace.ip_batch(&format!("{lines}link set {device} up\n"));
        }
    }

    /// The number of a device inside.
    pub fn interface_index(&self, device: &str) -> u32 {
        self.enter(|| {
            let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).expect("socket");
            name_to_index(socket, device).expect("device")
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let pids = output("ip", &["netns", "pids", &self.name], Duration::from_secs(5));
        for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
            let pid = pid.parse().ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
        let _ = output("ip", &["netns", "del", &self.name], Duration::from_secs(5));
    }
}

/// A process that is killed when it is dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
