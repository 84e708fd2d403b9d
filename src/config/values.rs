//! Parsers of single values: times, ports, addresses, names, paths, macros. Pure; errors are
//! message and remedy.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::diagnostic::{is_plain, shown};
use super::nearest::nearest;
use super::{Size, written};

/// Message and remedy of an error.
pub(super) type Wrong = (String, String);

/// An error with this message and remedy.
pub(super) fn wrong<T>(message: impl Into<String>, remedy: impl Into<String>) -> Result<T, Wrong> {
    Err((message.into(), remedy.into()))
}

/// Longest interface name: IFNAMSIZ less its NUL (linux/if.h).
const INTERFACE_MAX: usize = 15;

/// Longest group name (groupadd(8)).
const GROUP_MAX: usize = 32;

/// Macros of commands and hosts.deny lines.
pub(crate) const MACROS: &[&str] =
    &["target", "port", "mode", "protocol", "scan", "reason", "state"];

/// A time: `0`, or numbers with units.
pub(super) fn time(text: &str) -> Result<Duration, Wrong> {
    const REMEDY: &str = "write a number and its unit: 30s, 10m, 1h, 7d";
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return wrong(
            format!("the time `{}` has no unit", shown(text)),
            format!("write {}s for seconds, {}m for minutes", shown(text), shown(text)),
        );
    }
    let Ok(time) = humantime::parse_duration(text) else {
        return wrong(format!("`{}` is not a time", shown(text)), REMEDY);
    };
    // The kernel's timeouts are in milliseconds.
    if time.subsec_nanos() % 1_000_000 != 0 {
        wrong(format!("`{}` is finer than a millisecond", shown(text)), REMEDY)
    } else {
        Ok(time)
    }
}

/// A size: a number and its unit, which is a power of 1024.
pub(super) fn size(text: &str) -> Result<Size, Wrong> {
    const REMEDY: &str = "write a number and its unit: 512K, 64M, 1G";
    let text = text.trim();
    let not_a_size = || wrong(format!("`{}` is not a size", shown(text)), REMEDY);
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text.get(digits.len()..).unwrap_or_default().trim();
    let Ok(number) = digits.parse::<u64>() else { return not_a_size() };
    if unit.is_empty() {
        return wrong(format!("the size `{}` has no unit", shown(text)), REMEDY);
    }
    let known = written::UNITS.into_iter().find(|(name, _)| {
        let name = name.to_string();
        [name.clone(), format!("{name}B"), format!("{name}iB")].iter().any(|name| name == unit)
    });
    let Some((_, bytes)) = known else { return not_a_size() };
    Ok(Size(number.saturating_mul(bytes)))
}

/// A port number that was written as a number.
pub(super) fn port(number: i128, min: u16) -> Result<RangeInclusive<u16>, Wrong> {
    match u16::try_from(number) {
        Ok(port) if port >= min => Ok(port..=port),
        _ => wrong(format!("{number} is not a port"), format!("ports are {min} to 65535")),
    }
}

/// A port or a range of ports that was written as text.
pub(super) fn ports(text: &str, min: u16) -> Result<RangeInclusive<u16>, Wrong> {
    let text = text.trim();
    if text.contains(',') {
        return wrong(
            format!("`{}` is one text, not a list of ports", shown(text)),
            format!("put the list into brackets: [{}]", shown(text)),
        );
    }
    // A leading zero may mean octal, and a sign has no meaning here.
    let number = |part: &str| {
        let part = part.trim();
        let odd = part.starts_with('+') || (part.len() > 1 && part.starts_with('0'));
        part.parse::<u64>().ok().filter(|_| !odd).map(i128::from)
    };
    let (first, last) = text.split_once(['-', ':']).unwrap_or((text, text));
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        return wrong(
            format!("`{}` is neither a port nor a range of ports", shown(text)),
            "write a number, 80, or a range, 6000-6063; names of services are not looked up",
        );
    };
    if text.contains(':') {
        return wrong(
            format!("`{}` is not a range of ports", shown(text)),
            format!("write {first}-{last}"),
        );
    }
    let (low, high) = (port(first, min)?, port(last, min)?);
    if first > last {
        return wrong(
            format!("the range {first}-{last} runs backwards"),
            format!("write {last}-{first}"),
        );
    }
    Ok(*low.start()..=*high.end())
}

/// A network, with a warning if it was written oddly.
pub(super) fn network(text: &str) -> Result<(IpNet, Option<Wrong>), Wrong> {
    let text = text.trim();
    let network = match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
        Ok(network) => network,
        Err(_) => return Err(no_network(text)),
    };
    let masked = network.trunc();
    let plain = display(&masked);
    let (network, message, remedy) = if network.prefix_len() == 0 {
        (
            masked,
            format!("`{}` is every address: nothing can be blocked", shown(text)),
            "name the networks that you trust; to block nothing, write mode: observe".to_owned(),
        )
    } else if masked != network {
        (
            masked,
            format!("`{}` has bits below its prefix; it is taken as {plain}", shown(text)),
            format!("write {plain}, or the address alone"),
        )
    } else if let Some(mapped) = unmapped(network) {
        (
            mapped,
            format!("`{}` is an IPv4 address in IPv6 form, which no packet carries", shown(text)),
            format!("write {}", display(&mapped)),
        )
    } else {
        return Ok((network, None));
    };
    Ok((network, Some((message, remedy))))
}

/// A network as text; an address without its prefix length.
pub(super) fn display(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// The IPv4 network behind `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
fn unmapped(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(network) = network else { return None };
    let bits = network.prefix_len().checked_sub(96)?;
    Some(IpNet::V4(Ipv4Net::new(network.addr().to_ipv4_mapped()?, bits).ok()?))
}

fn no_network(text: &str) -> Wrong {
    let message = format!("`{}` is neither an address nor a network", shown(text));
    if let Some((address, bits)) = text.split_once('/') {
        if let (Ok(address), Ok(mask)) =
            (address.parse::<std::net::Ipv4Addr>(), bits.parse::<std::net::Ipv4Addr>())
            && let Ok(network) = Ipv4Net::with_netmask(address, mask)
        {
            return (message, format!("write the mask as a number of bits: {}", network.trunc()));
        }
        if let Ok(address) = address.parse::<IpAddr>() {
            let (family, most) = if address.is_ipv4() { ("IPv4", 32) } else { ("IPv6", 128) };
            return (message, format!("the bits of {family} go from 0 to {most}"));
        }
    }
    if let Some((address, _)) = text.split_once('%')
        && address.parse::<Ipv6Addr>().is_ok()
    {
        return (message, format!("write the address without its interface: {address}"));
    }
    (message, "write an address, 192.0.2.7 or 2001:db8::7, or a network, 192.0.2.0/24; names are not looked up".to_owned())
}

/// Longest DNS name, without the dot at its end, and longest label of it, in bytes (RFC 1035, 2.3.4).
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// A DNS name as hosts have it (RFC 1123, 2.1), with underscores, in lower case and without the dot
/// at its end.
pub(crate) fn dns_name(text: &str) -> Result<String, Wrong> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() <= NAME_MAX && name.split('.').all(is_label) {
        return Ok(name);
    }
    wrong(
        format!("`{}` is not a DNS name", shown(text)),
        format!(
            "letters, digits and `-` between dots, at most {NAME_MAX}; write others as xn-- (IDNA)"
        ),
    )
}

/// A valid interface name: the kernel's `dev_valid_name` (net/core/dev.c), without characters that
/// have a meaning in a ruleset.
pub(super) fn interface(name: &str) -> Result<(), Wrong> {
    if name.len() > INTERFACE_MAX {
        return wrong(
            format!("`{}` is longer than an interface's name can be", shown(name)),
            format!("at most {INTERFACE_MAX} bytes; `ip link` lists the names"),
        );
    }
    let bad = name.chars().find(|c| {
        !is_plain(*c)
            || c.is_whitespace()
            || matches!(c, '/' | ':' | '*' | '"' | '\\' | '{' | '}' | ';')
    });
    match (name, bad) {
        ("" | "." | "..", _) => wrong(
            format!("`{name}` is not the name of an interface"),
            "`ip link` lists the names; [] is all of them",
        ),
        (_, Some('*')) => wrong(
            format!("`{}`: patterns of interfaces are not supported", shown(name)),
            "write each name; [] is all but loopback",
        ),
        (_, Some(bad)) => wrong(
            format!(
                "`{}` cannot be the name of an interface: it has `{}` in it",
                shown(name),
                shown(&bad.to_string())
            ),
            "`ip link` lists the names",
        ),
        (_, None) => Ok(()),
    }
}

/// An absolute path within the system's limits.
pub(super) fn path(text: &str, max: usize) -> Result<(), Wrong> {
    if text.is_empty() {
        return wrong("the path is empty", "write an absolute path");
    }
    if !text.starts_with('/') {
        return wrong(
            format!("the path `{}` is relative", shown(text)),
            "write it from the root: the daemon has no directory of its own",
        );
    }
    if text.contains(|c: char| c.is_control()) {
        return wrong(
            format!("the path `{}` has a control character in it", shown(text)),
            "leave it out",
        );
    }
    if text.len() > max {
        return wrong(format!("the path has {} bytes", text.len()), format!("at most {max} bytes"));
    }
    Ok(())
}

/// The name of a group, or its number.
pub(super) fn group(text: &str) -> Result<(), Wrong> {
    let valid = |(at, c): (usize, char)| {
        c.is_ascii_alphanumeric() || c == '_' || (at > 0 && matches!(c, '-' | '.' | '$'))
    };
    if text.len() <= GROUP_MAX && text.chars().enumerate().all(valid) {
        Ok(())
    } else {
        wrong(
            format!("`{}` is not the name of a group", shown(text)),
            format!(
                "letters, digits, `_`, `-` and `.`, at most {GROUP_MAX}; `getent group` lists them"
            ),
        )
    }
}

/// The program of a command: an absolute path of at most `max` bytes.
pub(super) fn program(word: &str, max: usize) -> Result<(), Wrong> {
    if let Err((message, _)) = path(word, max) {
        return wrong(
            format!("the program: {message}"),
            "write its absolute path, then each argument as a text of its own; no shell reads it",
        );
    }
    if word.contains('{') {
        return wrong(
            "the program has a macro in it",
            "what a packet says must not choose the program: macros are for its arguments",
        );
    }
    Ok(())
}

/// A word of a command.
pub(super) fn argument(word: &str) -> Result<(), Wrong> {
    if word.contains('\0') {
        return wrong(
            "a word of the command has a NUL in it",
            "no argument can hold one (execve(2))",
        );
    }
    macros(word)
}

/// Checks that all macros of a text are known.
pub(super) fn macros(text: &str) -> Result<(), Wrong> {
    for (before, after) in [("$TARGET$", "target"), ("$PORT$", "port"), ("$MODE$", "mode")] {
        if text.contains(before) {
            return wrong(format!("`{before}` is not replaced here"), format!("write {{{after}}}"));
        }
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        rest = after;
        let Some((name, _)) = after.split_once('}') else { break };
        let is_word =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if is_word && !MACROS.contains(&name) {
            let known =
                MACROS.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(" ");
            let remedy = nearest(name, MACROS.iter().copied()).map_or_else(
                || format!("known are {known}"),
                |near| format!("did you mean {{{near}}}? known are {known}"),
            );
            return wrong(format!("unknown macro `{{{}}}`", shown(name)), remedy);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in
            [("0", 0), ("10m", 600), ("1h", 3600), ("7d", 604_800), ("1h 30m", 5400), ("90s", 90)]
        {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["10", "", "-1s", "ten", "1us", "99999999999999999999d", "1.5"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(time("10").unwrap_err().1.contains("10s"));
    }

    // D14
    #[test]
    fn ports_are_numbers_and_ranges() {
        assert_eq!(ports("1-1023", 0), Ok(1..=1023));
        assert_eq!(ports(" 80 ", 0), Ok(80..=80));
        assert_eq!(ports("0-0", 0), Ok(0..=0));
        assert_eq!(ports("65535", 0), Ok(65535..=65535));
        for text in [
            "", "-", "1-", "-5", "1-2-3", "http", "65536", "1-65536", "1,2", "9:11", "+1",
            "1 - +2", "022", "1-08", "9-3",
        ] {
            assert!(ports(text, 0).is_err(), "{text}");
        }
        assert!(ports("0-5", 1).is_err());
        assert_eq!(ports("9-3", 0).unwrap_err().1, "write 3-9");
        assert!(port(-1, 0).is_err() && port(65536, 0).is_err() && port(i128::MAX, 0).is_err());
    }

    #[test]
    fn networks_are_masked_and_oddities_warned_about() {
        let net =
            |text: &str| network(text).map(|(network, odd)| (network.to_string(), odd.is_some()));
        assert_eq!(net("192.0.2.7"), Ok(("192.0.2.7/32".into(), false)));
        assert_eq!(net("192.0.2.7/24"), Ok(("192.0.2.0/24".into(), true)));
        assert_eq!(net("::/0"), Ok(("::/0".into(), true)));
        assert_eq!(net("0.0.0.0/0"), Ok(("0.0.0.0/0".into(), true)));
        assert_eq!(net("::ffff:192.0.2.0/120"), Ok(("192.0.2.0/24".into(), true)));
        assert!(network("10.0.0.0/255.0.0.0").unwrap_err().1.contains("10.0.0.0/8"));
        assert!(network("fe80::1%eth0").unwrap_err().1.contains("fe80::1"));
        assert!(network("10.0.0.0/33").unwrap_err().1.contains("32"));
        assert!(network("localhost").unwrap_err().1.contains("not looked up"));
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for name in ["eth0", "wlp3s0", "br-lan", "eth0.100", "fifteen-bytes-x"] {
            assert_eq!(interface(name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "eth*", "sixteen-bytes-xx", "a:1", "a\u{7}"] {
            assert!(interface(name).is_err(), "{name}");
        }
    }

    #[test]
    fn unknown_macros_are_refused() {
        assert_eq!(macros("ALL: {target} : deny { and } {} {a b}"), Ok(()));
        assert!(macros("{taget}").unwrap_err().1.contains("{target}"));
        assert!(macros("x $TARGET$").unwrap_err().1.contains("{target}"));
    }
}
