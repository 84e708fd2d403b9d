//! Differences between kernels: each feature is tried as the daemon uses it, and must match
//! portsentry-rules(7) for the running kernel. The same tests run on this machine and, by
//! tests/vm/run, on Debian's kernels in an emulator; so they are short and need only ip, nft and
//! ping.

use crate::support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use portsentry::config::Config;
use portsentry::netlink::conntrack::{Conntrack, Ends};
use portsentry::nft::{Connection, Element, Key, Order, Ruleset, TableOwner};
use portsentry::ruleset::{self, SCHEMA, SetId};
use support::daemon::{AT_DEFAULTS, Daemon, program};
use support::netns::Namespace;
use support::scene::{DEVICE, Scene};
use support::{eventually, linux, missing};

/// Linux 6.9: a table can be owned by a process, and persist when that ends.
const PERSIST: (u32, u32) = (6, 9);
/// Linux 6.12: adding an existing element changes its timeout.
const UPDATE: (u32, u32) = (6, 12);
const HOUR: Duration = Duration::from_secs(3600);
const HOST: &str = "10.71.1.1";
const SCANNER: &str = "10.71.1.2";

macro_rules! need {
    ($($tool:literal),*) => {
        if missing(&["ip", $($tool),*]).is_some() {
            return;
        }
    };
}

fn default_ruleset() -> Ruleset {
    ruleset::for_config(&Config::default(), 32768..=60999)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn scene() -> Scene {
    Scene::new(&["10.71.1.1/24"], &["10.71.1.2/24"])
}

/// Tries to connect to `ports`, one after the other, with a short time limit.
fn knock(scene: &Scene, ports: impl IntoIterator<Item = u16> + Send) {
    scene.scanner.enter(|| {
        for port in ports {
            let _ = TcpStream::connect_timeout(
                &SocketAddr::from((address(HOST), port)),
                Duration::from_millis(20),
            );
        }
    });
}

fn wait_for_block(daemon: &Daemon<'_>, address: &str) {
    let blocked = eventually(Duration::from_secs(20), || {
        daemon.blocked().iter().any(|found| found == address)
    });
    assert!(blocked, "{address} is not blocked: {:?}\n{}", daemon.blocked(), daemon.log());
}

#[test]
fn an_existing_element_takes_a_new_timeout_by_renewal_on_every_kernel() {
    need!("ping");
    let scene = scene();
    let read = |connection: &mut Connection| {
        connection.get_element(SetId::Blocked4, Key::from(address(SCANNER))).unwrap().unwrap()
    };
    let first = Element::new(address(SCANNER)).timeout(Some(HOUR));
    scene.host.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        connection.install(&default_ruleset()).unwrap();
        connection.add_element(SetId::Blocked4, &first).unwrap();
    });
    assert!(!scene.reaches());
    scene.host.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let count = |connection: &mut Connection| {
            let found = connection.get_element(SetId::BlockedPackets4, first.key).unwrap();
            found.unwrap().packets
        };
        let counted = count(&mut connection);
        assert!(counted > 0);
        // Without the flag that requests an error: the kernel's default.
        connection.add_elements(SetId::Blocked4, &[first.timeout(Some(2 * HOUR))]).unwrap();
        let left = read(&mut connection).expires.unwrap();
        assert_eq!(left > HOUR, linux() >= UPDATE, "{left:?} left on Linux {:?}", linux());
        // As the daemon does it.
        assert!(
            connection
                .renew_element(SetId::Blocked4, &first.timeout(Some(3 * HOUR)).comment("again"))
                .unwrap()
        );
        let renewed = read(&mut connection);
        assert!(renewed.expires.unwrap() > 2 * HOUR, "{renewed:?}");
        assert_eq!((renewed.timeout, renewed.comment.as_deref()), (Some(3 * HOUR), Some("again")));
        assert!(count(&mut connection) >= counted, "forgot the {counted} packets from before");
        // And to a shorter one, which a kernel that only extends would get wrong.
        connection
            .renew_element(SetId::Blocked4, &first.timeout(Some(Duration::from_secs(60))))
            .unwrap();
        assert!(read(&mut connection).expires.unwrap() <= Duration::from_secs(60));
    });
    assert!(!scene.reaches());
}

#[test]
fn the_table_is_owned_where_the_kernel_has_persistent_owners() {
    need!("nft");
    let namespace = Namespace::new();
    let order = || Order { owner: TableOwner::Owned, ..Order::default() };
    let installed = namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let installed = connection.install_with(&default_ruleset(), order());
        if installed.is_ok() {
            let flush = namespace.output(
                "nft",
                &["delete", "table", "inet", "portsentry"],
                Duration::from_secs(10),
            );
            assert!(String::from_utf8_lossy(&flush.stderr).contains("not permitted"), "{flush:?}");
        }
        installed
    });
    match installed {
        Ok(_) => {
            assert!(linux() >= PERSIST, "Linux {:?} has the flag persist", linux());
            assert_eq!(
                namespace.enter(|| Connection::open(SCHEMA)
                    .unwrap()
                    .verify(&default_ruleset())
                    .unwrap()),
                None,
                "it outlives its owner"
            );
        }
        Err(error) => {
            assert!(linux() < PERSIST && error.is_unsupported(), "Linux {:?}: {error}", linux());
            assert_eq!(namespace.run("nft", &["list", "ruleset"]), "", "a refusal leaves nothing");
        }
    }
}

// P14, P28
#[test]
fn scans_and_flushes_are_handled_with_and_without_an_owned_table() {
    need!("nft", "ping");
    let scene = scene();
    for yaml in ["", "own_table: true"] {
        let daemon = Daemon::start(&scene.host, &format!("{yaml}\non_exit: remove"));
        let (asked, has) = (!yaml.is_empty(), linux() >= PERSIST);
        assert_eq!(
            daemon.log().contains("own_table: this kernel"),
            asked && !has,
            "{}",
            daemon.log()
        );
        knock(&scene, 1..=5);
        wait_for_block(&daemon, SCANNER);
        assert!(!scene.reaches());
        let status = daemon.json(&["status"]);
        assert!(status["probes"].as_u64().unwrap() >= 3, "{status}");
        assert_eq!(status["lost"], 0, "{status}");
        scene.host.run("nft", &["flush", "ruleset"]);
        let repairs = || daemon.json(&["status"])["repairs"]["count"].as_u64().unwrap();
        if asked && has {
            assert_eq!(repairs(), 0, "the flush skips the table");
        } else {
            assert!(eventually(Duration::from_secs(20), || repairs() == 1), "{}", daemon.log());
            daemon.wait_for_log("nft (process ");
        }
        assert!(!scene.reaches());
        assert_eq!(daemon.blocked(), [SCANNER]);
        let listed = scene.host.run("nft", &["list", "set", "inet", "portsentry", "unproven4"]);
        assert!(listed.contains(SCANNER), "{listed}");
        // The next round sees no traces of this one.
        drop(stopped(daemon));
        assert_eq!(scene.host.run("nft", &["list", "ruleset"]), "");
    }
}

fn stopped(mut daemon: Daemon<'_>) -> Daemon<'_> {
    assert!(daemon.stop().success(), "{}", daemon.log());
    daemon
}

// P5
#[test]
fn traffic_to_listening_services_is_not_a_probe() {
    need!();
    let scene = scene();
    // The socket expression looks into the kernel's own table.
    let (listener, socket) = scene
        .host
        .enter(|| (TcpListener::bind((HOST, 700)).unwrap(), UdpSocket::bind((HOST, 701)).unwrap()));
    let daemon = Daemon::start(&scene.host, "scan_trigger: 0");
    scene.scanner.enter(|| {
        TcpStream::connect_timeout(
            &SocketAddr::from((address(HOST), 700)),
            Duration::from_secs(10),
        )
        .expect("served");
        UdpSocket::bind((SCANNER, 0)).unwrap().send_to(b"question", (HOST, 701)).unwrap();
    });
    let mut bytes = [0; 16];
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(socket.recv(&mut bytes).unwrap(), 8);
    assert_eq!(
        (daemon.blocked(), daemon.json(&["status"])["probes"].as_u64()),
        (Vec::new(), Some(0))
    );
    drop((listener, socket));
    // A recently closed service does not report its clients; on another port the first connection
    // exceeds the trigger.
    knock(&scene, [700, 702]);
    wait_for_block(&daemon, SCANNER);
    let reason = daemon.json(&["list"])[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("tcp/702") && !reason.contains("700"), "{reason}");
}

#[test]
fn tracked_connections_of_an_address_are_deleted_and_others_stay() {
    need!("nft");
    let scene = Scene::new(&["10.71.1.1/24"], &["10.71.1.2/24", "10.71.1.3/24"]);
    scene.host.run("nft", &["add table inet track; add chain inet track c { type filter hook input priority 0; }; add rule inet track c ct state new accept"]);
    let socket = scene.host.enter(|| UdpSocket::bind((HOST, 700)).unwrap());
    scene.scanner.enter(|| {
        for from in ["10.71.1.2", "10.71.1.3"] {
            // All at once: a closed socket's port may be the next one's.
            let clients = [(); 20].map(|()| UdpSocket::bind((from, 0)).unwrap());
            for client in &clients {
                client.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
            }
        }
    });
    let ends = |network: &str, exempt: &[&str]| Ends {
        network: network.parse().unwrap(),
        exempt: exempt.iter().map(|text| text.parse().unwrap()).collect(),
    };
    scene.host.enter(|| {
        let mut conntrack = Conntrack::open().unwrap();
        assert!(!conntrack.has_flowtables().unwrap());
        assert_eq!(conntrack.delete(&[ends("10.71.1.2/32", &[])]).unwrap(), 20);
        assert_eq!(
            conntrack.delete(&[ends("10.71.1.0/24", &["10.71.1.3/32", "10.71.1.1/32"])]).unwrap(),
            0
        );
        assert_eq!(conntrack.delete(&[ends("10.71.1.3/32", &[])]).unwrap(), 20);
        // Our own address is an end of all.
        assert_eq!(conntrack.delete(&[ends("10.71.1.1/32", &[])]).unwrap(), 0);
    });
}

/// Echoes through a forwarding host, until `stop`; counts them.
fn echo(client: &Namespace, server: &Namespace, stop: &AtomicBool, echoes: &AtomicU32) {
    let listener = server.enter(|| TcpListener::bind("10.71.2.2:700").unwrap());
    let served = "10.71.2.2:700".parse().unwrap();
    let connect = || TcpStream::connect_timeout(&served, Duration::from_secs(10)).unwrap();
    let mut stream = client.enter(connect);
    let (mut accepted, _) = listener.accept().unwrap();
    for stream in [&stream, &accepted] {
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut byte = [0];
            while !stop.load(Ordering::Relaxed) {
                let _ = accepted.read_exact(&mut byte).and_then(|()| accepted.write_all(&byte));
            }
        });
        while !stop.load(Ordering::Relaxed) {
            let is_echoed = stream.write_all(&[1]).is_ok() && stream.read_exact(&mut [0]).is_ok();
            echoes.fetch_add(u32::from(is_echoed), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn an_offloaded_connection_of_a_blocked_host_ends() {
    need!("nft");
    let scene = scene();
    let server = Namespace::new();
    scene.host.join(&server, "inner0", &["10.71.2.1/24"], &["10.71.2.2/24"]);
    server.run("ip", &["route", "add", "default", "via", "10.71.2.1"]);
    scene.scanner.run("ip", &["route", "add", "10.71.2.0/24", "via", HOST]);
    scene.host.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    let links = scene.host.run("ip", &["-o", "link", "show", "type", "veth"]);
    let devices: Vec<&str> =
        links.lines().filter_map(|line| line.split(' ').nth(1)?.split(['@', ':']).next()).collect();
    let offload = format!(
        "table inet fast {{
            flowtable f {{ hook ingress priority 0; devices = {{ {} }}; }}
            chain c {{ type filter hook forward priority 0; ct state established flow add @f; counter; }}
        }}",
        devices.join(", ")
    );
    let made = scene.host.output("nft", &[&offload], Duration::from_secs(20));
    let has_flowtables = made.status.success();
    if !has_flowtables {
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(said.contains("not supported") || said.contains("No such file"), "{said}");
        eprintln!("this kernel has no flowtables: the rules alone end the connection");
    }
    let daemon = Daemon::start(&scene.host, "");
    let (stop, echoes) = (AtomicBool::new(false), AtomicU32::new(0));
    let count = || echoes.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| echo(&scene.scanner, &server, &stop, &echoes));
        let is_going = eventually(Duration::from_secs(30), || count() >= 50);
        let forwarded = scene.host.run("nft", &["list", "ruleset"]);
        let blocked = daemon.ctl(&["block", SCANNER]);
        let at_block = count();
        std::thread::sleep(Duration::from_secs(3));
        let after = count();
        std::thread::sleep(Duration::from_secs(3));
        let later = count();
        stop.store(true, Ordering::Relaxed);
        assert!(is_going && blocked.status.success(), "{at_block} echoes\n{}", daemon.log());
        assert_eq!(after, later, "{at_block} echoes before the block\n{}", daemon.log());
        if has_flowtables {
            let packets: u32 = forwarded
                .split("counter packets ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next()?.parse().ok())
                .unwrap();
            assert!(packets < 30, "{packets} packets passed the chain: not offloaded\n{forwarded}");
            daemon.wait_for_log("connections of blocked sources deleted");
        }
    });
}

#[test]
fn a_listing_with_blocked_slowed_and_counted_hosts_loads_again() {
    need!("nft", "nmap");
    let addresses = (["10.71.1.1/24", "2001:db8:71::1/64"], ["10.71.1.2/24", "2001:db8:71::2/64"]);
    let scene = Scene::new(&addresses.0, &addresses.1);
    let listener = scene.host.enter(|| TcpListener::bind((HOST, 700)).unwrap());
    // Slowed and held hosts, then blocked ones.
    for yaml in [AT_DEFAULTS, ""] {
        let daemon = Daemon::start(&scene.host, &format!("{yaml}\non_exit: remove"));
        knock(&scene, 1..=8);
        scene.nmap(&["-6", "-sS", "-p1-8", "2001:db8:71::1"]);
        knock(&scene, [700]);
        for network in ["203.0.113.9", "198.51.100.0/24", "2001:db8::7", "2001:db8:1::/48"] {
            assert!(daemon.ctl(&["block", network]).status.success(), "{}", daemon.log());
        }
        let listed = scene.host.run("nft", &["list", "ruleset"]);
        for text in ["203.0.113.9", "198.51.100.0/24", "2001:db8::7", "2001:db8:1::/48", SCANNER] {
            assert!(listed.contains(text), "{text}: {listed}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &listed).unwrap();
        let other = Namespace::new();
        let path = file.path().to_str().unwrap();
        let loaded = other.output("nft", &["-f", path], Duration::from_secs(60));
        let said = String::from_utf8_lossy(&loaded.stderr);
        assert!(loaded.status.success(), "{said}\n{listed}");
        assert!(other.run("nft", &["list", "ruleset"]).contains("203.0.113.9"));
        drop(stopped(daemon));
    }
    drop(listener);
}

/// Whether the kernel made what was asked for. One that cannot says so.
fn is_made(what: &str, made: &std::process::Output) -> bool {
    let said = String::from_utf8_lossy(&made.stderr);
    let known = ["not supported", "Unknown device type", "Protocol not available"];
    assert!(made.status.success() || known.iter().any(|text| said.contains(text)), "{said}");
    if !made.status.success() {
        eprintln!("this kernel has no {what}: nothing to try");
    }
    made.status.success()
}

#[test]
fn a_scan_over_a_vrf_is_seen() {
    need!("nft", "nmap");
    let addresses = (["10.71.1.1/24", "2001:db8:71::1/64"], ["10.71.1.2/24", "2001:db8:71::2/64"]);
    let scene = Scene::new(&addresses.0, &addresses.1);
    let make = ["link", "add", "blue", "type", "vrf", "table", "10"];
    if !is_made("VRF", &scene.host.output("ip", &make, Duration::from_secs(10))) {
        return;
    }
    scene.host.run("ip", &["link", "set", "blue", "up"]);
    scene.host.run("ip", &["link", "set", DEVICE, "master", "blue"]);
    // The kernel takes IPv6 addresses away with it.
    let again = ["-6", "addr", "replace", addresses.0[1], "dev", DEVICE, "nodad"];
    scene.host.run("ip", &again);
    let daemon = Daemon::start(&scene.host, "");
    for (target, scanner) in [(HOST, SCANNER), ("2001:db8:71::1", "2001:db8:71::2")] {
        let family = if target.contains(':') { "-6" } else { "-4" };
        scene.nmap(&[family, "-sS", "-p1-20", target]);
        wait_for_block(&daemon, scanner);
    }
    // Broadcasts and a forged address of this host are still no probes.
    let probes = || daemon.json(&["status"])["probes"].as_u64().unwrap();
    let before = probes();
    scene.nmap(&["-sS", "-p30-40", "-S", HOST, "-e", DEVICE, HOST]);
    assert_eq!(probes(), before, "{}", daemon.log());
}

// P5
#[test]
fn a_virtual_service_of_ipvs_is_a_service() {
    need!("nft", "ipvsadm");
    let scene = scene();
    let behind = Namespace::new();
    scene.host.join(&behind, "inner0", &["10.71.2.1/24"], &["10.71.2.2/24"]);
    behind.run("ip", &["route", "add", "default", "via", "10.71.2.1"]);
    scene.host.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    let make = ["-A", "-t", "10.71.1.1:700", "-s", "rr"];
    if !is_made("IPVS", &scene.host.output("ipvsadm", &make, Duration::from_secs(20))) {
        return;
    }
    let real = ["-a", "-t", "10.71.1.1:700", "-r", "10.71.2.2:700", "-m"];
    scene.host.run("ipvsadm", &real);
    let _listener = behind.enter(|| TcpListener::bind("0.0.0.0:700").unwrap());
    let is_served = |port| {
        let to = SocketAddr::from((address(HOST), port));
        scene.scanner.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).is_ok())
    };
    assert!(is_served(700), "without the daemon");
    let daemon = Daemon::start(&scene.host, "scan_trigger: 0");
    assert!(is_served(700), "{}", daemon.log());
    // One that is added later, and one that is taken away.
    scene.host.run("ipvsadm", &["-A", "-t", "10.71.1.1:701", "-s", "rr"]);
    scene.host.run("ipvsadm", &["-a", "-t", "10.71.1.1:701", "-r", "10.71.2.2:700", "-m"]);
    scene.host.run("ipvsadm", &["-D", "-t", "10.71.1.1:700"]);
    let services = || scene.host.run("nft", &["list", "set", "inet", "portsentry", "services"]);
    let expires = |port: u16| {
        let listed = services();
        let element = listed.split(&format!(" . {port} ")).nth(1)?;
        element.split("expires ").nth(1)?.split(['d', 'h']).next()?.parse::<u32>().ok()
    };
    let is_learned = || expires(701).is_some_and(|days| days > 3000);
    assert!(eventually(Duration::from_secs(20), is_learned), "{}\n{}", services(), daemon.log());
    assert!(is_served(701));
    // It is remembered as any other service that has ended.
    assert!(expires(700).is_some_and(|hours| hours < 24), "{}", services());
    assert_eq!(daemon.blocked(), Vec::<String>::new(), "{}", daemon.log());
    scene.host.run("ipvsadm", &["-A", "-f", "1", "-s", "rr"]);
    assert!(daemon.ctl(&["reload"]).status.success());
    daemon.wait_for_log("services by firewall mark");
    knock(&scene, [702]);
    wait_for_block(&daemon, SCANNER);
}

const TRACKING_MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

#[test]
fn connection_tracking_is_told_of_when_it_begins_and_when_its_table_fills() {
    need!();
    let scene = scene();
    let listener = scene.host.enter(|| TcpListener::bind((HOST, 700)).unwrap());
    let begins = "no connection was tracked before the start";
    let mut daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    daemon.wait_for_log(begins);
    let connect = || TcpStream::connect((HOST, 700)).unwrap();
    let connections: Vec<TcpStream> = scene.scanner.enter(|| (0..8).map(|_| connect()).collect());
    let tracked = |daemon: &Daemon<'_>| daemon.json(&["status"])["tracked"].clone();
    let now = tracked(&daemon);
    assert!(now["connections"].as_u64().unwrap() >= 8 && now["most"].as_u64().unwrap() > 8);
    let shown = String::from_utf8(daemon.ctl(&["status"]).stdout).unwrap();
    assert!(
        shown.lines().any(|line| line.trim().starts_with("tracked") && line.contains(" of ")),
        "{shown}"
    );
    // A further start changes nothing.
    assert!(daemon.stop().success());
    let told = daemon.log().matches(begins).count();
    daemon.restart(AT_DEFAULTS);
    assert_eq!((told, daemon.log().matches(begins).count()), (1, 1), "{}", daemon.log());
    // The bound is one for all namespaces.
    if std::env::var_os("PORTSENTRY_GUEST").is_some() {
        let before = std::fs::read_to_string(TRACKING_MAX).unwrap();
        std::fs::write(TRACKING_MAX, "9").unwrap();
        daemon.wait_for_log("four fifths full");
        let warnings = daemon.json(&["status"])["warnings"].to_string();
        std::fs::write(TRACKING_MAX, before.trim()).unwrap();
        assert!(warnings.contains("four fifths full"), "{warnings}");
    }
    drop((listener, connections));
}

/// Only in the guest: other programs need the modules of this machine.
#[test]
fn a_missing_kernel_module_is_named_with_its_expression() {
    if std::env::var_os("PORTSENTRY_GUEST").is_none() {
        eprintln!("the modules of this kernel stay: nothing to try");
        return;
    }
    let run = |program: &str, words: &[&str]| {
        std::process::Command::new(program).args(words).status().unwrap().success()
    };
    let directory = tempfile::tempdir().unwrap();
    for (module, expression) in [
        ("nft_socket", "socket"),
        ("nft_fib_inet", "fib"),
        ("nft_ct", "ct"),
        ("nft_limit", "limit"),
        ("nft_log", "log"),
        ("nft_numgen", "numgen"),
        ("nft_reject_inet", "reject"),
    ] {
        // Rules of an earlier test may still be there: the kernel removes a namespace later.
        let is_gone = || {
            let modules = std::fs::read_to_string("/proc/modules").unwrap();
            let is_loaded = modules.lines().any(|line| line.starts_with(&format!("{module} ")));
            !is_loaded || run("rmmod", &[module])
        };
        assert!(eventually(Duration::from_secs(20), is_gone), "{module} is in use");
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let file = format!("/lib/modules/{}/kernel/net/netfilter/{module}.ko", release.trim());
        std::fs::rename(&file, format!("{file}.away")).unwrap();
        let namespace = Namespace::new();
        let path = directory.path().display();
        let yaml = format!(
            "state_dir: {path}/state\nhistory_file: {path}/history\ncontrol: {{ socket: {path}/s }}\n"
        );
        let file_of = directory.path().join("portsentry.yaml");
        std::fs::write(&file_of, yaml).unwrap();
        let words = ["--config", file_of.to_str().unwrap()];
        let ended = namespace.output(&program(), &words, Duration::from_secs(30));
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "{module}: {said}");
        std::fs::rename(format!("{file}.away"), &file).unwrap();
        assert!(said.contains(&format!("{expression} ({module}")), "{module}: {said}");
        assert!(said.contains("linux-modules-extra"), "{said}");
    }
}

/// Whether the daemon does what the key asks for, or reports that it cannot yet.
fn is_in_force(daemon: &Daemon<'_>, key: &str) -> bool {
    let pending = daemon.log().contains(&format!("`{key}` is not in force yet"));
    if pending {
        eprintln!("{key} is not in force yet: nothing to try");
    }
    !pending
}

// P27
#[test]
fn the_rules_hold_a_scanner_until_a_stopped_daemon_continues() {
    need!("nft", "ping");
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "capture: { reflex: true }");
    if !is_in_force(&daemon, "capture.reflex") {
        return;
    }
    let _service = scene.host.enter(|| TcpListener::bind((HOST, 8000)).unwrap());
    let connects = || {
        let service = SocketAddr::from((address(HOST), 8000));
        let soon = Duration::from_millis(500);
        scene.scanner.enter(|| TcpStream::connect_timeout(&service, soon).is_ok())
    };
    daemon.signal("STOP");
    knock(&scene, [5, 6]);
    let before = connects();
    knock(&scene, [7, 8]);
    let after = connects();
    let held = scene.host.run("nft", &["list", "set", "inet", "portsentry", "held4"]);
    daemon.signal("CONT");
    assert!(before, "two ports are no scan");
    assert!(!after && held.contains(SCANNER), "{held}");
    wait_for_block(&daemon, SCANNER);
}

#[test]
fn a_probe_waits_in_the_kernels_queue_and_without_the_daemon_services_go_on() {
    need!("nft", "ping");
    let scene = scene();
    let listener = scene.host.enter(|| TcpListener::bind((HOST, 700)).unwrap());
    let mut daemon = Daemon::start(&scene.host, "capture: { method: nfqueue, reflex: false }");
    if !is_in_force(&daemon, "capture.method") {
        return;
    }
    let rules = scene.host.run("nft", &["-s", "list", "table", "inet", "portsentry"]);
    let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    if modules.lines().any(|line| line.starts_with("nft_queue ")) {
        assert!(
            rules.contains("queue") && !rules.contains("NFQUEUE"),
            "the kernel's own statement, not the xt target: {rules}"
        );
    } else {
        assert!(rules.to_lowercase().contains("queue"), "{rules}");
    }
    let serves = || {
        scene.scanner.enter(|| {
            TcpStream::connect_timeout(
                &SocketAddr::from((address(HOST), 700)),
                Duration::from_secs(5),
            )
            .is_ok()
        })
    };
    assert!(serves());
    knock(&scene, 1..=5);
    wait_for_block(&daemon, SCANNER);
    assert!(!scene.reaches());
    let status = daemon.json(&["status"]);
    assert_eq!(status["lost"], 0, "{status}");
    assert!(daemon.ctl(&["unblock", SCANNER]).status.success());
    // A suspect's connections are queued as well; without a listening program they must not be.
    knock(&scene, [9]);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    assert!(serves(), "a host that hangs because a program died");
    drop(listener);
}
