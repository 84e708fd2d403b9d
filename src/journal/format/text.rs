//! Events as `key=value` pairs; values with blanks, quotes or control characters are quoted and
//! escaped as in JSON.

use log::Level;
use serde_json::Value;

use super::facts::{Fact, facts};
use super::json::escaped;
use crate::journal::Event;

/// The line of an event.
pub(super) fn line(event: &Event) -> String {
    join(&facts(event))
}

/// The line of a log record from another module.
pub(super) fn message(level: Level, module: &str, text: &str) -> String {
    let level = level.as_str().to_ascii_lowercase();
    join(&[
        ("event", "message".into()),
        ("level", level.into()),
        ("module", module.into()),
        ("message", text.into()),
    ])
}

fn join(facts: &[Fact]) -> String {
    // An unknown value has no key.
    let known = facts.iter().filter(|(_, value)| !value.is_null());
    let pairs = known.map(|(key, value)| match value {
        Value::String(text) if is_plain(text) => format!("{key}={text}"),
        other => format!("{key}={}", escaped(other)),
    });
    pairs.collect::<Vec<_>>().join(" ")
}

fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\'))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{all, blocked, command, named, scan};
    use super::*;
    use crate::journal::Ended;
    use crate::probe::{ScanKind, Transport};

    #[test]
    fn every_notice_has_its_line_of_pairs() {
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "\
event=starting version={version}
event=watching transport=tcp mode=advanced ports=1022 ranges=\"0-112, 114-138, 140-1023\" excluded=\"113, 139\" services=\"22, 8080\"
event=watching transport=udp mode=stealth ports=2 ranges=\"1, 7\" excluded=\"\" services=\"\"
event=watching transport=tcp mode=connect ports=1 ranges=1 excluded=\"\" services=\"\"
event=active
event=scan address=10.77.1.1 source=10.77.1.1 destination=192.0.2.1 port=tcp/1 ip_options=false blocking=true scan=syn proven=false reason=\"syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3\"
event=blocked address=10.77.1.1 port=tcp/1 timeout=60 renewed=false renewals=0 scan=syn proven=false reason=\"syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3\"
event=blocked address=10.77.1.1 port=tcp/1 timeout=60 renewed=true renewals=1 scan=syn proven=false reason=\"syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3\"
event=blocked address=2001:db8:1::/64 port=tcp/22 timeout=60 renewed=false renewals=0 scan=syn proven=false reason=\"syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3\"
event=blocked address=192.0.2.0/24 renewed=false renewals=0 proven=true reason=\"by hand: abuse\"
event=slowed address=10.77.1.1 port=tcp/1 timeout=60 blocking=false scan=syn proven=false reason=\"syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3\"
event=continues address=10.77.1.1 port=tcp/11 state=slowed scan=syn proven=false reason=\"syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3\"
event=campaign address=192.0.2.0/24 sources=8 ports=16 port=tcp/22 state=slowed timeout=60
event=campaign address=192.0.2.7 program=masscan sources=8 ports=16 port=tcp/22 state=reported
event=released address=10.77.1.1 ending=expired dropped=34 passed=12
event=block-failed address=10.77.1.1 error=\"no space in set\\nof 10\"
event=unblocked address=10.77.1.1 ending=expired
event=exempted address=10.77.1.1 network=10.0.0.0/8
event=unblock-failed address=10.77.1.1 error=busy
event=reloaded changes=\"scan_trigger: 2 -> 5; resolve: false -> true\"
event=reloaded changes=\"\"
event=switched mode=enforce detection=paused confirm_within=300 on_within=60
event=switched mode=observe detection=on why=\"enforcing was not confirmed in time\"
event=control uid=0 user=root pid=12 login=ada command=\"block 10.77.1.1 --for 0\" done=true result=\"10.77.1.1 is blocked\\nuntil \\u001b[2J\"
event=reload-refused findings=\"a.yaml:1:2: no\\n  remedy: yes\"
event=lost packets=3 total=7
event=shed packets=5 total=9
event=never-block entries=5
event=allowed-name name=office.example.net added=\"192.0.2.7, 2001:db8::7\" removed=192.0.2.9
event=foreign-change pid=12 program=\"n\\u001b[2Jft\" remedy=\"the table was restored\"
event=command address=10.77.1.1 command=\"/bin/page 10.77.1.1 on call\" done=true status=0 ended=done took=0.012 output=paged
event=command address=10.77.1.1 command=\"/bin/page 10.77.1.1 on call\" done=false status=3 ended=\"exit status 3\" took=0.012 output=\"no\\n\\u001b[31mcarrier\"
event=command address=10.77.1.1 command=\"/bin/page 10.77.1.1 on call\" done=false signal=9 ended=\"killed by signal 9\" took=0.012 output=\"\"
event=command address=10.77.1.1 command=\"/bin/page 10.77.1.1 on call\" done=false ended=\"killed, it ran longer than 10s\" took=0.012 output=\"\"
event=command address=10.77.1.1 command=\"/bin/page 10.77.1.1 on call\" done=false ended=\"not started: no such file or directory\" took=0.012 output=\"\"
event=denied address=10.77.1.1 line=\"ALL: 10.77.1.1 : DENY\"
event=no-longer-denied address=10.77.1.1
event=commands-dropped commands=2
event=notified channel=webhook test=false done=true message=\"1 source blocked\"
event=notified channel=webhook test=false done=false message=\"no answer in time\"
event=status message=\"blocked 3\"
event=adopted blocks=2
event=restored blocks=3
event=warning message=\"watch out\"
event=error message=\"it broke\"
event=held-back lines=9 within=60 message=\"9 lines held back\"
event=stopping blocks_left=2"
        );
        assert_eq!(all().iter().map(line).collect::<Vec<_>>().join("\n"), expected);
    }

    #[test]
    fn a_name_has_its_key_behind_the_address() {
        for (notice, start) in [
            (
                scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 1, None),
                "event=scan address=10.77.1.1 name=scanner.example source=",
            ),
            (
                blocked("10.77.1.1", 1, 0),
                "event=blocked address=10.77.1.1 name=scanner.example port=",
            ),
            (
                command(Ended::Success, ""),
                "event=command address=10.77.1.1 name=scanner.example command=",
            ),
        ] {
            let line = line(&named(notice));
            assert!(line.starts_with(start), "{line}");
        }
    }
}
