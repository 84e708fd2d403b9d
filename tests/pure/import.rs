//! Import of PortSentry 1.2 and 2.x files: the result loads and means the same, settings without an
//! equivalent are reported, and damaged files are refused with every fault.
//!
//! `tests/classic` has files with the keys and values of the old packages.

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use portsentry::config::classic::{self, Modes, Source};
use portsentry::config::{self, CommandWhen, Config, PortMode, PortSet, ProtocolAction, Refused};
use portsentry::ctl::{self, Zone};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

/// A directory with a classic configuration, as on a host.
struct Host(tempfile::TempDir);

struct Ran {
    status: u8,
    out: String,
    err: String,
}

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The host with a fixture as its portsentry.conf; paths of the fixture's directories lead into
    /// this one.
    fn with(fixture: &str) -> Self {
        let host = Self::new();
        let text = std::fs::read_to_string(fixture_path(fixture)).unwrap();
        let text = text
            .replace("/etc/portsentry/", &format!("{}/", host.path().display()))
            .replace("/usr/local/psionic/portsentry/", &format!("{}/", host.path().display()));
        host.write("portsentry.conf", &text);
        host.write("default", "");
        host
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), text).unwrap();
        std::fs::set_permissions(self.file(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn import(&self, options: &[&str]) -> Ran {
        let mut arguments: Vec<OsString> = ["portsentryctl", "import"].map(OsString::from).to_vec();
        arguments.push(self.file("portsentry.conf").into());
        arguments.extend(["--default".into(), self.file("default").into()]);
        arguments.extend(options.iter().map(OsString::from));
        run(arguments)
    }

    /// Imports into a file and loads that as the daemon does.
    fn taken_over(&self, options: &[&str]) -> (Config, String, String) {
        let to = self.file("portsentry.yaml");
        let mut all = vec!["--output", to.to_str().unwrap()];
        all.extend(options);
        let ran = self.import(&all);
        assert_eq!(ran.status, 0, "{}", ran.err);
        let loaded = config::load(&to).unwrap_or_else(|refused| panic!("{refused}"));
        (loaded.config, std::fs::read_to_string(&to).unwrap(), ran.err)
    }
}

fn fixture_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/classic").join(name)
}

fn run(arguments: Vec<OsString>) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = ctl::run(arguments, &mut out, &mut err, &Zone::utc());
    Ran { status, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// A configuration without a host.
fn translate(text: &str, modes: Modes) -> Result<classic::Import, Refused> {
    let config = Source { name: "portsentry.conf".into(), bytes: text.as_bytes().to_vec() };
    classic::import(&classic::Request {
        config: &config,
        defaults: None,
        modes,
        ignore: &|_| Ok(Vec::new()),
    })
}

/// The imported configuration, and the findings as text.
fn becomes(text: &str) -> (Config, String) {
    let import = translate(text, Modes::default()).unwrap_or_else(|refused| panic!("{refused}"));
    let told = import.findings.iter().map(|finding| format!("{finding}\n")).collect();
    (
        config::parse(&import.yaml, "x")
            .unwrap_or_else(|refused| panic!("{refused}\n{}", import.yaml))
            .config,
        told,
    )
}

/// Lines and columns of the faults for which a text is refused.
fn faults(text: &str) -> Vec<(u32, u32)> {
    let refused = translate(text, Modes::default()).unwrap_err();
    refused
        .findings
        .iter()
        .filter(|finding| finding.severity == config::Severity::Error)
        .map(|finding| (finding.line, finding.column))
        .collect()
}

/// Each value line of the new file has a comment right above it, or in the line of its list.
fn every_value_has_its_origin(yaml: &str) {
    let lines: Vec<_> = yaml.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let is_value = !line.trim_start().starts_with('#')
            && (line.contains(": ") || line.trim_start().starts_with("- "));
        assert!(
            !is_value || lines[at - 1].trim_start().starts_with('#'),
            "line {} has no origin: {line}\n{yaml}",
            at + 1
        );
    }
}

#[test]
fn the_upstream_file_of_1_2_is_taken_over() {
    let host = Host::with("upstream.conf");
    host.write("portsentry.ignore", "127.0.0.1/32\n10.0.0.5/24 # the office\r\n2001:db8::7");
    let (config, yaml, err) = host.taken_over(&["--mode", "-atcp", "--mode", "sudp"]);
    every_value_has_its_origin(&yaml);
    assert_eq!((config.tcp.mode, config.udp.mode), (PortMode::Advanced, PortMode::Stealth));
    assert_eq!(
        (&config.tcp.ports, &config.udp.ports),
        (&Config::default().tcp.ports, &Config::default().udp.ports)
    );
    assert_eq!(config.tcp.advanced_ports, PortSet::range(0, 1023));
    assert_eq!(config.tcp.exclude, PortSet::of(&[113, 139]));
    assert_eq!(config.udp.exclude, PortSet::of(&[67, 137, 138, 520]));
    assert_eq!(
        (config.tcp.action, config.udp.action),
        (ProtocolAction::Block, ProtocolAction::Block)
    );
    assert_eq!(config.scan_trigger, 0);
    assert!(config.resolve);
    assert!(config.respond.hosts_deny.enabled);
    assert_eq!(config.respond.hosts_deny.line, "ALL: {target}");
    assert_eq!(config.ignore_file, Some(host.file("portsentry.ignore")));
    assert_eq!(config.history_file, Config::default().history_file);
    assert_eq!(
        config.blocked_file.as_deref(),
        Some(Path::new("/var/lib/portsentry/portsentry.blocked"))
    );
    assert!(
        err.contains(&format!("cp -p '{}' ", host.file("portsentry.history").display())),
        "{err}"
    );
    assert_eq!(config.allow, Config::default().allow, "the ignore file is read where it lies");
    let ignored = config::load(&host.file("portsentry.yaml")).unwrap().ignored;
    assert_eq!(
        ignored.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["127.0.0.1/32", "10.0.0.0/24", "2001:db8::7/128"]
    );
    assert!(yaml.contains("portsentry.conf:5 TCP_PORTS=\"1,11,15,79,"), "{yaml}");
    assert!(
        err.contains("portsentry.ignore:2:1: warning:") && err.contains("10.0.0.5/24"),
        "{err}"
    );
}

#[test]
fn debians_files_are_taken_over_with_the_modes_of_the_init_script() {
    let host = Host::with("debian.conf");
    host.write("default", std::fs::read(fixture_path("debian.default")).unwrap());
    host.write("portsentry.ignore", std::fs::read(fixture_path("debian.ignore")).unwrap());
    host.write("portsentry.ignore.static", "127.0.0.1/32\n192.0.2.1\n");
    let (config, yaml, err) = host.taken_over(&[]);
    every_value_has_its_origin(&yaml);
    assert_eq!((config.tcp.mode, config.udp.mode), (PortMode::Connect, PortMode::Connect));
    assert_eq!((config.tcp.action, config.udp.action), (ProtocolAction::Log, ProtocolAction::Log));
    assert_eq!(config.respond.hosts_deny.line, "ALL: {target} : DENY");
    assert_eq!(
        config.history_file.as_deref(),
        Some(Path::new("/var/lib/portsentry/portsentry.history"))
    );
    assert!(!config.resolve);
    assert_eq!(
        config.blocked_file.as_deref(),
        Some(Path::new("/var/lib/portsentry/portsentry.blocked"))
    );
    // The static file is no longer merged into the ignore file, so its other entries are copied.
    let allow: Vec<_> = config.allowed_networks().map(|network| network.to_string()).collect();
    assert_eq!(allow, ["127.0.0.0/8", "::1/128", "192.0.2.1/32"]);
    let ignored = config::load(&host.file("portsentry.yaml")).unwrap().ignored;
    assert_eq!(
        ignored.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["127.0.0.1/32", "0.0.0.0/32"]
    );
    assert!(
        err.contains("portsentry.ignore.static, of which the old init script made")
            && err.contains("edit"),
        "{err}"
    );
    assert!(
        yaml.contains("default:2 TCP_MODE=\"tcp\"")
            && yaml.contains("portsentry.ignore.static:2 192.0.2.1"),
        "{yaml}"
    );
    for place in [&err, &yaml] {
        assert!(
            place.contains("KILL_ROUTE, a route for each source, is not taken over")
                && place.contains("ip route show"),
            "{place}"
        );
        assert!(place.contains("KILL_ROUTE=\"/sbin/route add -host $TARGET$ reject\""), "{place}");
    }
    // The same with a mode on the command line, which overrides the init script's.
    let other = host.file("other.yaml");
    assert_eq!(host.import(&["--output", other.to_str().unwrap(), "--mode", "atcp"]).status, 0);
    let config = config::load(&other).unwrap().config;
    assert_eq!((config.tcp.mode, config.udp.mode), (PortMode::Advanced, PortMode::Connect));
}

#[test]
fn the_file_of_2_x_is_taken_over() {
    let host = Host::with("two.conf");
    let (config, yaml, err) = host.taken_over(&[]);
    every_value_has_its_origin(&yaml);
    assert_eq!((config.tcp.mode, config.udp.mode), (PortMode::Stealth, PortMode::Stealth));
    assert!(
        config.tcp.ports.contains(513)
            && config.tcp.ports.contains(544)
            && !config.tcp.ports.contains(516)
    );
    assert_eq!(config.udp.ports.to_string(), "7, 9, 13, 19, 111, 389, 513, 517-518");
    assert_eq!((config.tcp.action, config.udp.action), (ProtocolAction::Log, ProtocolAction::Log));
    assert_eq!((config.scan_trigger, config.respond.hosts_deny.enabled), (0, false));
    assert_eq!(config.history_file, Config::default().history_file);
    assert!(
        err.contains("HISTORY_FILE lies outside") && err.contains("/var/log/portsentry.log"),
        "{err}"
    );
    assert!(
        err.contains("`Scan from:`") && err.contains("contrib/fail2ban/portsentry.local"),
        "{err}"
    );
    assert!(err.contains("control: {group: nagios}"), "{err}");
    assert!(err.contains("ignore file") && err.contains("is not there"), "{err}");
    assert_eq!(
        config.blocked_file.as_deref(),
        Some(Path::new("/var/lib/portsentry/portsentry.blocked"))
    );
    assert!(
        err.contains("BLOCKED_FILE lies in /tmp") && yaml.contains("not in /tmp, where everybody"),
        "{err}"
    );
}

#[test]
fn of_a_key_that_stands_twice_1_2_takes_the_first_and_2_x_the_last() {
    let twice = "TCP_PORTS=\"1,2\"\nBLOCK_TCP=\"0\"\nTCP_PORTS=\"3\"\nBLOCK_TCP=\"1\"\n";
    let (config, told) = becomes(twice);
    assert_eq!((config.tcp.ports, config.tcp.action), (PortSet::of(&[3]), ProtocolAction::Block));
    assert!(told.contains(":4:1: warning: BLOCK_TCP is there already") && told.contains("2.x"));
    let (config, told) = becomes(&format!("{twice}ADVANCED_PORTS_TCP=\"1024\"\n"));
    assert_eq!((config.tcp.ports, config.tcp.action), (PortSet::range(1, 2), ProtocolAction::Log));
    assert!(told.contains("the first one, in line 2, counts"), "{told}");
}

#[test]
fn a_line_with_a_leading_blank_is_not_taken_over_and_reported() {
    let (config, told) = becomes("TCP_PORTS=\"1\"\n BLOCK_TCP=\"1\"\n\tPORT_BANNER=\"x\"\n");
    assert_eq!((config.tcp.action, config.respond.banner.as_str()), (ProtocolAction::Log, ""));
    for line in ["portsentry.conf:2:1: warning:", "portsentry.conf:3:1: warning:"] {
        assert!(told.contains(line) && told.contains("does not read it"), "{told}");
    }
}

#[test]
fn the_modes_in_the_files_of_init_scripts_are_taken_over() {
    use PortMode::{Advanced, Connect, Off, Stealth};
    // File beside the configuration or given, modes, and what is reported.
    let rows: &[(&str, (PortMode, PortMode), &str)] = &[
        ("TCP_MODE=\"stcp\"\nUDP_MODE=\"audp\"\n", (Stealth, Advanced), ""),
        // Gentoo's of 1.2.
        ("PORTSENTRY_MODES=\"tcp sudp\"\n", (Connect, Stealth), ""),
        (
            "PORTSENTRY_MODES=\"udp tcp stcp atcp sudp audp\"\n",
            (Advanced, Advanced),
            "more than one",
        ),
        ("PORTSENTRY_MODES=\"atcp\"\n", (Advanced, Off), ""),
        // Gentoo's of 2.x.
        (
            "PORTSENTRY_OPTS=\"--connect -i eth0\"\n",
            (Connect, Connect),
            "`-i eth0` of PORTSENTRY_OPTS",
        ),
        ("PORTSENTRY_OPTS=\"--logoutput syslog\"\n", (Stealth, Stealth), "log: {target: syslog}"),
        // PLD's: an advanced mode turns the others of its protocol off.
        (
            "PORTSENTRY_TCP=\"true\"\nPORTSENTRY_UDP=\"false\"\nPORTSENTRY_STCP=\"no\"\nPORTSENTRY_SUDP=\"yes\"\nPORTSENTRY_ATCP=\"true\"\nPORTSENTRY_AUDP=\"false\"\n",
            (Advanced, Stealth),
            "",
        ),
        // RPM packages': words.
        ("# the modes\ntcp # connect\nudp\n", (Connect, Connect), ""),
        ("stcp audp\n", (Stealth, Advanced), ""),
    ];
    let ports = "TCP_PORTS=\"1\"\nUDP_PORTS=\"1\"\nBLOCKED_FILE=\"/var/lib/portsentry/b\"\n";
    for (settings, modes, told) in rows {
        let host = Host::new();
        host.write("portsentry.conf", ports);
        host.write("default", settings);
        let (config, yaml, err) = host.taken_over(&[]);
        assert_eq!((config.tcp.mode, config.udp.mode), *modes, "{settings}\n{err}");
        assert!(err.contains(told) && (!told.is_empty() || !err.contains("default:")), "{err}");
        assert!(yaml.contains("default:"), "{yaml}");
    }
    // Without --default, the file beside the configuration, where this machine has no other.
    let others = ["/etc/default", "/etc/conf.d", "/etc/sysconfig"];
    if others.iter().all(|directory| !Path::new(directory).join("portsentry").exists()) {
        let host = Host::new();
        host.write("portsentry.conf", ports);
        host.write("portsentry.modes", "atcp\n");
        let words = ["portsentryctl", "import", "--print"].map(OsString::from);
        let ran = run(words.into_iter().chain([host.file("portsentry.conf").into()]).collect());
        assert!(ran.status == 0 && ran.out.contains("portsentry.modes:1 atcp"), "{}", ran.out);
        assert!(ran.out.contains("mode: advanced"), "{}", ran.out);
    }
    let host = Host::new();
    host.write("portsentry.conf", ports);
    host.write("default", "PORTSENTRY_MODES=\"xtcp\"\n");
    let ran = host.import(&["--print"]);
    assert!(ran.status == 78 && ran.err.contains("`xtcp`, which is no mode"), "{}", ran.err);
}

#[test]
fn a_manuals_listing_is_imported_and_its_misspelt_key_reported() {
    let host = Host::with("manual.conf");
    let (config, yaml, err) = host.taken_over(&["--mode", "stcp", "--mode", "sudp"]);
    every_value_has_its_origin(&yaml);
    assert_eq!(config.respond.command, ["/some/path/here/script", "{target}", "{port}"]);
    assert_eq!(config.respond.command_when, CommandWhen::After);
    assert_eq!(config.history_file, Config::default().history_file);
    for place in [&err, &yaml] {
        assert!(
            place.contains("unknown key `HISTROY_FILE`")
                && place.contains("did you mean HISTORY_FILE?"),
            "{place}"
        );
        assert!(
            place.contains("HISTROY_FILE=\"/usr/lcal/psionic/portsentry/portsentry.history\""),
            "{place}"
        );
        assert!(
            place.contains("HISTORY_FILE is missing")
                && place.contains("KILL_ROUTE, a firewall rule for each source"),
            "{place}"
        );
    }
}

#[test]
fn a_damaged_listing_is_refused_with_every_fault_and_its_line() {
    let host = Host::with("damaged.conf");
    let to = host.file("portsentry.yaml");
    let ran = host.import(&["--output", to.to_str().unwrap()]);
    assert_eq!(ran.status, 78);
    assert!(!to.exists() && ran.out.is_empty(), "nothing is written");
    let conf = host.file("portsentry.conf");
    let at = |line: &str| {
        ran.err
            .lines()
            .filter(|told| {
                told.starts_with(&format!("{}:{line}:", conf.display()))
                    && told.contains(" error: ")
            })
            .count()
    };
    for line in ["2:13", "3:1", "4:47", "9:40", "10:41", "11:41", "14:36", "15:25", "17:15"] {
        assert_eq!(at(line), 1, "{line}:\n{}", ran.err);
    }
    assert_eq!(ran.err.matches(" error: ").count(), 9, "{}", ran.err);
    let left: Vec<_> =
        std::fs::read_dir(host.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    // Also as JSON.
    let json = host.import(&["--output", to.to_str().unwrap(), "--json"]);
    assert_eq!(json.status, 78);
    let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert!(document["ok"] == false && document["findings"].as_array().unwrap().len() >= 9);
}

#[test]
fn a_file_that_is_there_is_never_overwritten() {
    let host = Host::with("debian.conf");
    host.write("portsentry.yaml", "mode: observe\n");
    let to = host.file("portsentry.yaml");
    let ran = host.import(&["--output", to.to_str().unwrap()]);
    assert_eq!(ran.status, 64);
    assert!(ran.err.contains("is there already") && ran.err.contains("--output"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "mode: observe\n");
    // A dangling link counts as an existing file.
    let link = host.file("link.yaml");
    std::os::unix::fs::symlink(host.file("nowhere"), &link).unwrap();
    assert_eq!(host.import(&["--output", link.to_str().unwrap()]).status, 64);
    assert!(!host.file("nowhere").exists());
}

#[test]
fn drop_ins_that_replace_imported_values_are_named() {
    let host = Host::with("debian.conf");
    let drop_ins = host.file("conf.d");
    std::fs::create_dir(&drop_ins).unwrap();
    std::fs::write(drop_ins.join("90-site.yaml"), "tcp: { ports: [7] }\n").unwrap();
    let to = host.file("portsentry.yaml");
    let ran = host.import(&["--output", to.to_str().unwrap()]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let told = format!("90-site.yaml:1: `tcp.ports` replaces that of {}:", to.display());
    assert!(ran.err.contains(&told), "{}", ran.err);
}

#[test]
fn the_new_file_is_for_its_owner_only_and_nothing_is_left_beside_it() {
    let host = Host::with("debian.conf");
    host.taken_over(&[]);
    let facts = std::fs::metadata(host.file("portsentry.yaml")).unwrap();
    assert_eq!((facts.mode() & 0o7777, facts.nlink()), (0o600, 1));
    assert_eq!(std::fs::read_dir(host.path()).unwrap().count(), 3);
}

#[test]
fn print_writes_the_same_to_standard_output_and_no_file() {
    let host = Host::with("debian.conf");
    let printed = host.import(&["--print"]);
    assert_eq!(printed.status, 0);
    assert_eq!(std::fs::read_dir(host.path()).unwrap().count(), 2);
    let (_, yaml, _) = host.taken_over(&[]);
    assert_eq!(printed.out, yaml);
    let json = host.import(&["--print", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (document["ok"].as_bool(), document["yaml"].as_str()),
        (Some(true), Some(yaml.as_str()))
    );
}

#[test]
fn unreadable_and_unwritable_files_are_reported() {
    let host = Host::with("debian.conf");
    let run_with = |file: &str, options: &[&str]| {
        let mut arguments: Vec<OsString> =
            vec!["portsentryctl".into(), "import".into(), host.file(file).into()];
        arguments.extend(options.iter().map(OsString::from));
        run(arguments)
    };
    let ran = run_with("nothing.conf", &["--print"]);
    assert!(
        ran.status == 78 && ran.err.contains("nothing.conf") && ran.err.contains("cannot read it"),
        "{}",
        ran.err
    );
    let ran = run_with("portsentry.conf", &["--print", "--default", "/nowhere/default"]);
    assert!(ran.status == 78 && ran.err.contains("/nowhere/default"), "{}", ran.err);
    let ran = run_with("", &["--print"]);
    assert!(ran.status == 78 && ran.err.contains("not a regular file"), "{}", ran.err);
    let ran = host.import(&["--output", "/nowhere/portsentry.yaml"]);
    assert!(ran.status == 70 && ran.err.contains("install -d"), "{}", ran.err);
    for wrong in [&["--mode", "xtcp"][..], &["--print", "--output", "/x"], &["--nonsense"]] {
        assert_eq!(host.import(wrong).status, 64, "{wrong:?}");
    }
}

#[test]
fn a_name_in_the_ignore_file_stops_the_import_with_its_line() {
    let host = Host::with("debian.conf");
    host.write("portsentry.ignore", "127.0.0.1\ngateway.example\n");
    let ran = host.import(&["--print"]);
    assert_eq!(ran.status, 78);
    assert!(
        ran.err.contains("portsentry.ignore:2:1: error:") && ran.err.contains("not looked up"),
        "{}",
        ran.err
    );
}

#[test]
fn an_ignore_file_beside_the_configuration_is_found() {
    let host = Host::new();
    host.write("portsentry.conf", "TCP_PORTS=\"1\"\nUDP_PORTS=\"1\"\nIGNORE_FILE=\"/nowhere/at/all/hosts.ignore\"\nBLOCKED_FILE=\"/x\"\n");
    host.write("hosts.ignore", "192.0.2.77");
    host.write("default", "");
    let (config, yaml, err) = host.taken_over(&[]);
    assert!(
        config.allow.contains(&"192.0.2.77/32".parse::<ipnet::IpNet>().unwrap().into()),
        "{:?}",
        config.allow
    );
    assert_eq!(config.ignore_file.as_deref(), Some(Path::new("/nowhere/at/all/hosts.ignore")));
    assert!(
        yaml.contains("hosts.ignore:1 192.0.2.77")
            && err.contains("/nowhere/at/all/hosts.ignore is not there"),
        "{err}"
    );
}

#[test]
fn an_ignore_file_that_the_daemon_will_refuse_is_reported() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::with("debian.conf");
    host.write("portsentry.ignore", "192.0.2.1\n");
    std::fs::set_permissions(
        host.file("portsentry.ignore"),
        std::fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    let ran = host.import(&["--print"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(
        ran.err.contains("the daemon will not start with such an ignore file")
            && ran.err.contains("chmod go-w"),
        "{}",
        ran.err
    );
}

#[test]
fn a_line_for_hosts_deny_that_could_not_be_taken_out_again_is_left_to_the_administrator() {
    for line in ["ALL: $TARGET$ # port $PORT$", "# $TARGET$", "ALL: $TARGET$ \\"] {
        let (config, told) = becomes(&format!("TCP_PORTS=\"1\"\nKILL_HOSTS_DENY=\"{line}\"\n"));
        assert!(
            !config.respond.hosts_deny.enabled
                && told.contains("KILL_HOSTS_DENY is not taken over"),
            "{line}: {told}"
        );
    }
}

#[test]
fn scan_trigger_n_reacted_to_packet_n() {
    for (old, new) in [(0, 0), (1, 0), (2, 1), (10, 9), (1024, 1023)] {
        assert_eq!(
            becomes(&format!("TCP_PORTS=\"1\"\nSCAN_TRIGGER=\"{old}\"\n")).0.scan_trigger,
            new,
            "{old}"
        );
    }
    assert_eq!(
        faults("SCAN_TRIGGER=\"1025\"\nBLOCK_TCP=\"3\"\nBLOCK_UDP=\"yes\"\nRESOLVE_HOST=\"2\"\n"),
        [(1, 15), (2, 12), (3, 12), (4, 15)]
    );
}

#[test]
fn more_ports_than_the_old_program_held_are_all_taken_over() {
    let ports: Vec<u16> = (0..500).map(|n| 1 + 2 * n).collect();
    let list = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let (config, told) = becomes(&format!("TCP_PORTS=\"{list}\"\n"));
    assert_eq!(config.tcp.ports, PortSet::of(&ports));
    assert!(
        told.contains("500 entries") && told.contains("first 64") && told.contains("1023"),
        "{told}"
    );
}

#[test]
fn odd_ports_are_reported_with_their_place() {
    assert_eq!(
        faults(
            "TCP_PORTS=\"1,,2\"\nUDP_PORTS=\"http,70000,9-3,1 2,-1\"\nADVANCED_PORTS_TCP=\"65537\"\n"
        ),
        [(1, 14), (2, 12), (2, 17), (2, 23), (2, 27), (2, 31), (3, 21)]
    );
    let (config, told) = becomes("TCP_PORTS=\"1, 2, 2, 3\"\nADVANCED_PORTS_TCP=\"65536\"\n");
    assert_eq!(
        (config.tcp.ports, config.tcp.advanced_ports),
        (PortSet::range(1, 3), PortSet::range(0, 65535))
    );
    assert!(told.contains("has blanks in it") && told.contains("twice"), "{told}");
}

#[test]
fn a_command_that_takes_a_shell_is_left_to_the_administrator() {
    let line = "KILL_RUN_CMD=\"/bin/echo $TARGET$ | /usr/bin/mail root && /bin/true a-long-tail-that-must-not-be-cut-off-anywhere-in-the-new-file\"";
    let import =
        translate(&format!("TCP_PORTS=\"1\"\nBLOCK_TCP=\"2\"\n{line}\n"), Modes::default())
            .unwrap();
    let config = config::parse(&import.yaml, "x").unwrap().config;
    assert!(config.respond.command.is_empty());
    assert_eq!(
        config.tcp.action,
        ProtocolAction::Log,
        "a command that is not there cannot be all that happens"
    );
    assert!(import.yaml.contains(line), "{}", import.yaml);
    let told: String = import.findings.iter().map(ToString::to_string).collect();
    assert!(
        told.contains("KILL_RUN_CMD is not taken over")
            && told.contains("into a script")
            && told.contains("BLOCK_TCP is 2"),
        "{told}"
    );
    for not in ["mail root", "$TARGET$ x", "/bin/$MODE$", "/bin/x {target}", "/bin/x $HOME"] {
        let (config, told) = becomes(&format!("TCP_PORTS=\"1\"\nKILL_RUN_CMD=\"{not}\"\n"));
        assert!(
            config.respond.command.is_empty() && told.contains("KILL_RUN_CMD is not taken over"),
            "{not}: {told}"
        );
    }
}

#[test]
fn a_command_without_a_shell_keeps_its_words_and_its_moment() {
    let (config, _) = becomes(
        "TCP_PORTS=\"1\"\nBLOCK_TCP=\"2\"\nKILL_RUN_CMD_FIRST = \"1\"\nKILL_RUN_CMD=\"/bin/x 'two words' --port=$PORT$ $MODE$\"\n",
    );
    assert_eq!(config.respond.command, ["/bin/x", "two words", "--port={port}", "{mode}"]);
    assert_eq!(
        (config.respond.command_when, config.tcp.action),
        (CommandWhen::Before, ProtocolAction::Command)
    );
}

#[test]
fn keys_of_connect_mode_are_imported_too() {
    let (config, _) = becomes("TCP_PORTS=\"1\"\nPORT_BANNER=\"** NO \\ ENTRY {x} # : ä **\"\n");
    assert_eq!(config.respond.banner, "** NO \\ ENTRY {x} # : ä **");
}

#[test]
fn a_mode_without_its_ports_watches_nothing_and_says_so() {
    let (config, _) = becomes("TCP_PORTS=\"1,2\"\n");
    assert_eq!((config.tcp.mode, config.udp.mode), (PortMode::Stealth, PortMode::Off));
    let modes = Modes::of_word("atcp").unwrap();
    let import = translate("ADVANCED_PORTS_UDP=\"9\"\n", modes).unwrap();
    let config = config::parse(&import.yaml, "x").unwrap().config;
    assert_eq!(
        (config.tcp.mode, config.udp.mode),
        (PortMode::Advanced, PortMode::Off),
        "the other protocol ran only if it was given"
    );
    assert_eq!(
        (config.tcp.advanced_ports, config.tcp.exclude),
        (PortSet::range(0, 1023), PortSet::default())
    );
}

#[test]
fn two_keys_for_one_file_are_refused() {
    let refused = translate(
        "TCP_PORTS=\"1\"\nIGNORE_FILE=\"/x/y\"\nHISTORY_FILE=\"/x/y\"\n",
        Modes::default(),
    )
    .unwrap_err();
    assert!(refused.to_string().contains("the same file"), "{refused}");
}

/// Parts of classic files, so that more than the first check is reached.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        proptest::sample::select(vec![
            "TCP_PORTS",
            "UDP_PORTS",
            "ADVANCED_PORTS_TCP",
            "ADVANCED_EXCLUDE_UDP",
            "IGNORE_FILE",
            "HISTORY_FILE",
            "BLOCKED_FILE",
            "BLOCK_TCP",
            "BLOCK_UDP",
            "KILL_ROUTE",
            "KILL_HOSTS_DENY",
            "KILL_RUN_CMD",
            "KILL_RUN_CMD_FIRST",
            "SCAN_TRIGGER",
            "PORT_BANNER",
            "RESOLVE_HOST",
            "TCP_MODE",
            "=\"",
            "\"\n",
            "\"\r\n",
            "=",
            "\"",
            "\n",
            "#",
            "# ",
            ",",
            " ",
            "\t",
            "1",
            "2",
            "0",
            "113",
            "65535",
            "65536",
            "9-3",
            "/x",
            "/y",
            "$TARGET$",
            "$PORT$",
            "$ TARGET $",
            "$",
            "{target}",
            "{",
            "'",
            "\\",
            "ä",
            "\u{202e}",
            "\u{feff}",
            "127.0.0.1/8",
            "::1",
            "atcp",
            "udp",
            "%",
            "|",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

/// Files whose lines have the right form, so that most of them are translated.
fn well_formed() -> impl Strategy<Value = Vec<u8>> {
    let line = |keys: &'static [&'static str], values: &'static str| {
        (proptest::sample::select(keys), values).boxed()
    };
    let lines = prop_oneof![
        line(
            &["TCP_PORTS", "UDP_PORTS", "ADVANCED_EXCLUDE_TCP", "ADVANCED_EXCLUDE_UDP"],
            "[1-9][0-9]{0,3}(,[1-9][0-9]{0,3}|,[1-9]-9[0-9]){0,9}"
        ),
        line(&["ADVANCED_PORTS_TCP", "ADVANCED_PORTS_UDP", "SCAN_TRIGGER"], "[0-9]{1,3}"),
        line(&["BLOCK_TCP", "BLOCK_UDP"], "[0-2]"),
        line(&["RESOLVE_HOST", "KILL_RUN_CMD_FIRST"], "[01]"),
        line(&["IGNORE_FILE", "HISTORY_FILE", "BLOCKED_FILE"], "/[a-zä#:'{}]{1,9}"),
        line(
            &["KILL_RUN_CMD"],
            "/bin/[a-z]{1,4}( |[!#-~äé]|.TARGET.|\\$TARGET\\$|\\$PORT\\$|\\$MODE\\$|'[a-z ]{0,4}'){0,9}"
        ),
        line(
            &["KILL_ROUTE", "KILL_HOSTS_DENY", "PORT_BANNER", "WHAT_IS_THIS"],
            "([ !#-~äé]|\\$TARGET\\$){0,20}"
        ),
    ];
    proptest::collection::vec(lines, 0..14).prop_map(|lines| {
        lines
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\"\n"))
            .collect::<String>()
            .into_bytes()
    })
}

#[test]
fn most_of_the_generated_files_are_translated() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let taken = (0..300).filter(|_| {
        let bytes = well_formed().new_tree(&mut runner).unwrap().current();
        translate(std::str::from_utf8(&bytes).unwrap(), Modes::default()).is_ok()
    });
    let taken = taken.count();
    assert!(taken > 150, "{taken} of 300: the property below would hold for want of cases");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the files contain: no panic, and the result loads.
    #[test]
    fn no_bytes_panic_and_every_result_loads(
        config in prop_oneof![pieces(), well_formed(), proptest::collection::vec(any::<u8>(), 0..300)],
        defaults in proptest::option::of(pieces()),
        ignore in proptest::option::of(pieces()),
    ) {
        let source = |name: &str, bytes: &[u8]| Source { name: name.into(), bytes: bytes.to_vec() };
        let config = source("c\n: x", &config);
        let defaults = defaults.map(|bytes| source("d", &bytes));
        let look = |path: &Path| Ok(ignore.iter().map(|bytes| Source { name: path.to_owned(), bytes: bytes.clone() }).collect());
        let request = classic::Request { config: &config, defaults: defaults.as_ref(), modes: Modes::default(), ignore: &look };
        match classic::import(&request) {
            Ok(import) => {
                config::parse(&import.yaml, "x").unwrap();
                prop_assert!(import.findings.iter().all(|finding| finding.severity == config::Severity::Warning));
            }
            Err(refused) => {
                let errors: Vec<_> = refused.findings.iter().filter(|finding| finding.severity == config::Severity::Error).collect();
                prop_assert!(!errors.is_empty());
                // A finding about the new file alone is a contradiction of the old one, never an
                // error of the translation.
                let slip = errors.iter().find(|finding| finding.file == Path::new("the translation") && !finding.message.contains("the same file"));
                prop_assert!(slip.is_none(), "{slip:?}");
            }
        }
    }

    /// Every list of ports survives, whatever its length and order.
    #[test]
    fn every_list_of_ports_is_taken_over(ports in proptest::collection::vec(1u16.., 1..300)) {
        let list = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let import = translate(&format!("UDP_PORTS=\"{list}\"\n"), Modes::default()).unwrap();
        prop_assert_eq!(config::parse(&import.yaml, "x").unwrap().config.udp.ports, PortSet::of(&ports));
    }
}
