use super::*;
use crate::config::{self, Config, KEYS, Kind, Severity};

/// The unit of the package with a drop-in, as an installed one.
fn unit(drop_in: &str) -> Unit {
    let mut unit =
        Unit { file: Some("/etc/systemd/system/portsentry.service".into()), ..Unit::shipped() };
    unit.add(drop_in);
    unit
}

/// The findings about a configuration under a unit, without their lines.
fn told(yaml: &str, unit: &Unit) -> Vec<String> {
    let findings = match config::parse_under(yaml, "x", unit) {
        Ok(loaded) => loaded.warnings,
        Err(refused) => refused.findings,
    };
    findings.iter().map(|finding| format!("{} {}", finding.severity, finding.message)).collect()
}

#[test]
fn the_units_paths_are_those_of_systemd() {
    let shipped = Unit::shipped();
    for (path, access) in [
        ("/var/lib/portsentry", Access::Write),
        ("/var/lib/portsentry/x/y", Access::Write),
        ("/var/lib/portsentryx", Access::Read),
        ("/var/log/portsentry.log", Access::Read),
        ("/etc/portsentry", Access::Read),
        ("/usr/local/psionic", Access::Read),
        ("/home/x/y", Access::Hidden("ProtectHome=yes")),
        ("/root", Access::Hidden("ProtectHome=yes")),
    ] {
        assert_eq!(shipped.access(Path::new(path)), access, "{path}");
    }
    for path in ["/run/portsentry/x", "/tmp/x", "/var/tmp/x"] {
        assert!(matches!(shipped.access(Path::new(path)), Access::Volatile(_)), "{path}");
    }
    let open = unit(
        "[Service]\nReadWritePaths=-/etc \"/srv/a\" \\\n# more\n  +%L\nLogsDirectory=portsentry\n",
    );
    for path in ["/etc", "/etc/x", "/srv/a/b", "/var/log/x", "/var/log/portsentry/x"] {
        assert_eq!(open.access(Path::new(path)), Access::Write, "{path}");
    }
    let reset =
        unit("[Service]\nReadWritePaths=/etc\nReadWritePaths=\n[Install]\nReadWritePaths=/etc\n");
    assert_eq!(reset.access(Path::new("/etc/x")), Access::Read);
    assert_eq!(unit("[Service]\nProtectSystem=no\n").access(Path::new("/etc/x")), Access::Write);
    assert_eq!(unit("[Service]\nProtectSystem=full\n").access(Path::new("/etc/x")), Access::Read);
    assert_eq!(unit("[Service]\nProtectSystem=full\n").access(Path::new("/srv/x")), Access::Write);
    let home = unit("[Service]\nProtectHome=read-only\n");
    assert_eq!(home.access(Path::new("/root/x")), Access::Read);
    let hidden = unit("[Service]\nInaccessiblePaths=/srv\nReadWritePaths=/srv/a\n");
    assert!(matches!(hidden.access(Path::new("/srv/a/b")), Access::Hidden(_)));
}

#[test]
fn lists_of_what_is_allowed_are_read_as_systemd_reads_them() {
    let allows = |text: &str, name| {
        unit(&format!("[Service]\n{text}")).allows("CapabilityBoundingSet", name)
    };
    // The unit has a list already, to which a further one adds.
    assert!(allows("", "CAP_NET_ADMIN") && !allows("", "CAP_NET_RAW"));
    let more = "CapabilityBoundingSet=cap_net_raw\n";
    assert!(allows(more, "CAP_NET_RAW") && allows(more, "CAP_NET_ADMIN"));
    let other = "CapabilityBoundingSet=\nCapabilityBoundingSet=CAP_NET_RAW\n";
    assert!(allows(other, "CAP_NET_RAW") && !allows(other, "CAP_NET_ADMIN"));
    let all_but = "CapabilityBoundingSet=CAP_CHOWN\nCapabilityBoundingSet=~CAP_NET_ADMIN\n";
    assert!(!allows(all_but, "CAP_NET_ADMIN") && allows(all_but, "CAP_CHOWN"));
    assert!(!allows("CapabilityBoundingSet=\n", "CAP_NET_ADMIN"));
    let mut bare = Unit::default();
    assert!(bare.allows("CapabilityBoundingSet", "CAP_NET_RAW"));
    bare.add("[Service]\nCapabilityBoundingSet=~CAP_NET_RAW\n");
    assert!(!bare.allows("CapabilityBoundingSet", "CAP_NET_RAW"));
    assert!(bare.allows("CapabilityBoundingSet", "CAP_CHOWN"));
}

#[test]
fn the_installed_unit_counts_with_its_drop_ins() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    assert_eq!(Unit::installed(root.path()), None);
    write("usr/lib/systemd/system/portsentry.service", "[Service]\nProtectSystem=full\n");
    let found = |key: &str| Unit::installed(root.path()).unwrap().value(key).to_owned();
    assert_eq!(found("ProtectSystem"), "full");
    write("etc/systemd/system/portsentry.service", SHIPPED);
    assert_eq!(found("ProtectSystem"), "strict");
    // By name, whatever the directory; the one in /etc replaces one of the same name.
    write("usr/lib/systemd/system/portsentry.service.d/50.conf", "[Service]\nUMask=50\n");
    write("etc/systemd/system/portsentry.service.d/40.conf", "[Service]\nUMask=40\n");
    assert_eq!(found("UMask"), "50");
    write("etc/systemd/system/portsentry.service.d/50.conf", "[Service]\nPrivateTmp=no\n");
    assert_eq!((&*found("UMask"), &*found("PrivateTmp")), ("40", "no"));
    write("etc/systemd/system/service.d/60.conf", "[Service]\nUMask=60\n");
    assert_eq!(found("UMask"), "60");
    fs::remove_file(root.path().join("etc/systemd/system/portsentry.service")).unwrap();
    std::os::unix::fs::symlink(
        "/dev/null",
        root.path().join("etc/systemd/system/portsentry.service"),
    )
    .unwrap();
    assert_eq!(Unit::installed(root.path()), None, "masked");
}

#[test]
fn the_unit_of_this_package_suits_the_defaults() {
    assert_eq!(told("", &Unit::shipped()), [""; 0]);
    assert_eq!(told(&Config::default().to_yaml(), &unit("")), [""; 0]);
    // Every mode, and what the unit grants.
    let yaml = "tcp: { mode: connect }\nudp: { mode: connect, ports: [1024-2000] }\nresolve: true\nblocked_file: /var/lib/portsentry/b\nrespond: { command: [/usr/bin/logger, x] }\n";
    assert_eq!(told(yaml, &unit("")), [""; 0]);
}

/// contrib/systemd/connect.conf.
const CONNECT: &str =
    "AmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE";

#[test]
fn what_the_unit_refuses_is_found_and_what_a_drop_in_grants_is_not() {
    // Configuration, what is found, and a drop-in that grants it.
    let rows = [
        (
            "history_file: /var/log/portsentry.log",
            "error",
            "`history_file`",
            "ReadWritePaths=/var/log",
        ),
        (
            "history_file: /home/x/history",
            "error",
            "is hidden: ProtectHome=yes",
            "ProtectHome=no\nReadWritePaths=/home",
        ),
        (
            "history_file: /run/portsentry/history",
            "warning",
            "does not last",
            "RuntimeDirectoryPreserve=yes",
        ),
        (
            "blocked_file: /tmp/portsentry.blocked",
            "warning",
            "does not last",
            "PrivateTmp=no\nReadWritePaths=/tmp",
        ),
        (
            "blocked_file: /etc/portsentry/blocked",
            "warning",
            "into /etc/portsentry (`blocked_file`)",
            "ReadWritePaths=/etc/portsentry",
        ),
        ("state_dir: /srv/portsentry", "warning", "`state_dir`", "ReadWritePaths=/srv"),
        (
            "control: { socket: /srv/portsentry/socket }",
            "error",
            "`control.socket`",
            "ReadWritePaths=/srv",
        ),
        ("ignore_file: /root/ignore", "error", "exempts no host", "ProtectHome=read-only"),
        ("allow: [{file: /root/allow}]", "error", "(`allow`) is not seen", "ProtectHome=read-only"),
        (
            "respond: { hosts_deny: { enabled: true } }",
            "warning",
            "responses run as the user portsentry",
            "User=root\nReadWritePaths=/etc",
        ),
        (
            "respond: { command: [/root/alert] }",
            "warning",
            "/root/alert is not found",
            "ProtectHome=read-only",
        ),
        (
            "respond: { command: [/tmp/alert] }",
            "warning",
            "/tmp/alert is not found",
            "PrivateTmp=no",
        ),
        (
            "respond: { command: [/usr/bin/mail, root] }",
            "warning",
            "mail cannot give mail",
            "NoNewPrivileges=no",
        ),
        (
            "respond: { command: [/bin/sh, -c, 'echo x | /usr/bin/mail root'] }",
            "warning",
            "mail cannot give mail",
            "NoNewPrivileges=no",
        ),
        (
            "respond: { command: [/bin/sh, -c, 'echo x >>/var/log/x.log'] }",
            "warning",
            "cannot write to /var/log/x.log",
            "ReadWritePaths=/var/log",
        ),
        (
            "respond: { command: [/usr/bin/node, /x.js] }",
            "warning",
            "node cannot generate code",
            "MemoryDenyWriteExecute=no",
        ),
        (
            "respond: { command: [/bin/ping, '{target}'] }",
            "warning",
            "ping lacks CAP_NET_RAW",
            "User=root\nCapabilityBoundingSet=CAP_NET_RAW",
        ),
        (
            "respond: { command: [/usr/sbin/ip, route, add, unreachable, '{target}'] }",
            "warning",
            "ip lacks CAP_NET_ADMIN",
            "User=root",
        ),
        ("udp: { mode: connect }", "warning", "CAP_NET_BIND_SERVICE is missing", CONNECT),
        (
            "control: { group: adm }",
            "error",
            "the user portsentry is not in that group",
            "SupplementaryGroups=adm",
        ),
    ];
    for (yaml, severity, found, grant) in rows {
        let findings = told(yaml, &unit(""));
        assert_eq!(findings.len(), 1, "{yaml}: {findings:?}");
        let start = format!("{severity} under /etc/systemd/system/portsentry.service, ");
        assert!(findings[0].starts_with(&start) && findings[0].contains(found), "{findings:?}");
        let granted = told(yaml, &unit(&format!("[Service]\n{grant}\n")));
        assert_eq!(granted, [""; 0], "{yaml} with {grant}");
        // The unit of the package is only assumed, so it is a warning.
        let shipped = told(yaml, &Unit::shipped());
        assert!(
            shipped.len() == 1 && shipped[0].starts_with("warning under the unit of this package"),
            "{shipped:?}"
        );
    }
}

#[test]
fn every_path_of_the_configuration_is_compared() {
    let paths = KEYS.iter().filter(|key| matches!(key.kind, Kind::Path { .. }));
    let mut count = 0;
    for key in paths {
        let yaml = key.path.rsplit('.').fold("/home/x/y".to_owned(), |value, name| {
            let enabled = if name == "path" { "enabled: true, " } else { "" };
            format!("{{ {enabled}{name}: {value} }}")
        });
        let findings = told(&yaml, &unit(""));
        // Under the unit nothing opens these.
        if key.path.starts_with("geo.") {
            assert_eq!(findings, [""; 0], "{yaml}");
            continue;
        }
        let is_found = findings.iter().any(|told| {
            told.contains(&format!("`{}`", key.path)) && told.contains("ProtectHome=yes")
        });
        assert!(is_found, "{yaml}: {findings:?}");
        count += 1;
    }
    assert_eq!(count, 12);
}

/// Settings of the unit that take nothing from the daemon or a command that a configuration could
/// ask for, beside those that the check reads.
const WITHOUT_EFFECT: &[&str] = &[
    "Type",
    "ExecStart",
    "ExecReload",
    "WatchdogSec",
    "Restart",
    "RestartSec",
    "RestartPreventExitStatus",
    "KillMode",
    "UMask",
    // systemd creates it, and it stays read-only.
    "ConfigurationDirectory",
    // Devices, clocks, modules, settings of the kernel: no command that reports or blocks needs them.
    "PrivateDevices",
    "PrivateMounts",
    "ProtectProc",
    "RemoveIPC",
    "SystemCallErrorNumber",
    "ProtectClock",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectControlGroups",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "LockPersonality",
    "SystemCallArchitectures",
    "SystemCallFilter",
];

#[test]
fn every_setting_of_the_unit_is_compared_or_takes_nothing() {
    const COMPARED: &[&str] = &[
        "StateDirectory",
        "RuntimeDirectory",
        "CapabilityBoundingSet",
        "NoNewPrivileges",
        "ProtectSystem",
        "ProtectHome",
        "PrivateTmp",
        "InaccessiblePaths",
        "User",
        "AmbientCapabilities",
        "RestrictAddressFamilies",
        "MemoryDenyWriteExecute",
    ];
    let mut known: Vec<&str> = WITHOUT_EFFECT.iter().chain(COMPARED).copied().collect();
    known.sort_unstable();
    let shipped = Unit::shipped();
    assert_eq!(shipped.settings.keys().map(String::as_str).collect::<Vec<_>>(), known);
}

#[test]
fn what_a_drop_in_takes_away_is_found() {
    for (yaml, drop_in, found) in [
        ("", "CapabilityBoundingSet=~CAP_NET_ADMIN", "CAP_NET_ADMIN is missing"),
        ("", "AmbientCapabilities=", "CAP_NET_ADMIN is missing"),
        (
            "tcp: { mode: connect }\ncapture: { decoy_port: 99 }",
            "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
            "decoy_port",
        ),
        (
            "control: { group: adm }",
            "User=root\nCapabilityBoundingSet=~CAP_CHOWN",
            "CAP_CHOWN is missing",
        ),
        ("", "RestrictAddressFamilies=~AF_NETLINK", "sockets of AF_NETLINK"),
        ("tcp: { mode: connect }", "RestrictAddressFamilies=~AF_INET AF_INET6", "AF_INET AF_INET6"),
        ("resolve: true", "RestrictAddressFamilies=~AF_INET", "`resolve` needs"),
        ("", "PrivateNetwork=yes", "sees no packet"),
    ] {
        let findings = told(yaml, &unit(&format!("[Service]\n{drop_in}\n")));
        assert!(findings.len() == 1 && findings[0].contains(found), "{drop_in}: {findings:?}");
    }
}

#[test]
fn a_setgid_program_is_found_by_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::Builder::new().tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let program = directory.path().join("alert");
    fs::write(&program, "").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o2755)).unwrap();
    let yaml = format!("respond: {{ command: [{}] }}", program.display());
    let visible = "[Service]\nPrivateTmp=no\nProtectHome=no\n";
    let findings = told(&yaml, &unit(visible));
    assert!(findings.len() == 1 && findings[0].contains("setuid or setgid"), "{findings:?}");
    assert_eq!(told(&yaml, &unit(&format!("{visible}NoNewPrivileges=no\n"))), [""; 0]);
}

#[test]
fn a_finding_has_its_place_in_the_file() {
    let refused =
        config::parse_under("scan_trigger: 1\nhistory_file: /srv/h\n", "x", &unit("")).unwrap_err();
    let finding = &refused.findings[0];
    assert_eq!((finding.line, finding.column, finding.severity), (2, 15, Severity::Error));
    assert!(finding.remedy.contains("ReadWritePaths=/srv"), "{}", finding.remedy);
}

#[test]
fn responses_are_compared_with_the_unit_that_runs_them_as_root() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("etc/systemd/system/portsentry.service", SHIPPED);
    let yaml = "respond: { hosts_deny: { enabled: true }, command: [/usr/sbin/ip, route] }";
    let found = || told(yaml, &Unit::installed(root.path()).unwrap());
    let refused = found();
    assert_eq!(refused.len(), 2, "{refused:?}");
    write(&format!("etc/systemd/system/sockets.target.wants/{RESPONSES_SOCKET}"), "");
    assert_eq!(found(), [""; 0]);
    write("etc/systemd/system/portsentry-responses@.service", "[Service]\nProtectSystem=strict\n");
    assert!(found().len() == 1 && found()[0].contains("into /etc"), "{:?}", found());
    write(
        "etc/systemd/system/portsentry-responses@.service.d/responses.conf",
        "[Service]\nReadWritePaths=/etc\n",
    );
    assert_eq!(found(), [""; 0]);
}
