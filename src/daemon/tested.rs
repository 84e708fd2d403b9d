//! What the rules do with a packet that opens a connection, for `portsentryctl test`.

use crate::config::{ClosedPorts, Config, Mode, Unwatched};
use crate::control::{Outcome, PortName, PortUse, Standing, TestedPort};
use crate::probe::{Port, Transport};

/// What happens to a packet to `port` of a source of this standing; `is_service`: the rules know the
/// port as a service's. `is_silent`: the source is on the allow list as one that is not reported.
pub(super) fn tested(
    config: &Config,
    (standing, is_silent): (Standing, bool),
    port: Port,
    is_service: bool,
) -> TestedPort {
    let protocol = if port.transport == Transport::Udp { &config.udp } else { &config.tcp };
    let use_of = match is_service {
        true => PortUse::Service,
        false if !protocol.watched().contains(port.number) => PortUse::Unwatched,
        false if config.has_decoys(protocol) => PortUse::Decoy,
        false => PortUse::Watched,
    };
    let is_closed = match use_of {
        PortUse::Service => false,
        PortUse::Decoy | PortUse::Watched => true,
        PortUse::Unwatched => slows_unwatched(config, standing),
    };
    TestedPort {
        port: PortName(port),
        use_of,
        outcome: outcome(config, standing, port.transport, use_of),
        is_probe: is_closed && standing != Standing::Blocked && !is_silent,
    }
}

fn outcome(config: &Config, standing: Standing, transport: Transport, use_of: PortUse) -> Outcome {
    use {Outcome as To, PortUse as Of, Standing as By};
    if config.mode == Mode::Observe {
        return To::Passes;
    }
    match (standing, use_of) {
        (By::Blocked | By::Unproven, _) => To::Dropped,
        (By::Slowed, Of::Service) => To::Waits,
        (By::Slowed, Of::Unwatched) if !slows_unwatched(config, standing) => To::Passes,
        (By::Allowed, _) | (_, Of::Service) | (By::Counted, Of::Unwatched) => To::Passes,
        (_, Of::Decoy) => To::Decoy,
        (By::Slowed, Of::Watched | Of::Unwatched) => match (config.closed_ports, transport) {
            (ClosedPorts::Pass, _) => To::Passes,
            (_, Transport::Tcp) => To::EitherWay,
            _ => To::Dropped,
        },
        (By::Counted, Of::Watched) if config.drops_probes() => To::Dropped,
        (By::Counted, Of::Watched) => To::Passes,
    }
}

/// Whether a source's connections to ports that are not watched are treated as probes of watched ones.
fn slows_unwatched(config: &Config, standing: Standing) -> bool {
    config.unwatched == Unwatched::Slow && standing == Standing::Slowed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PortMode, PortSet};

    fn at(config: &Config, standing: Standing, port: &str, is_service: bool) -> TestedPort {
        tested(config, (standing, false), port.parse().unwrap(), is_service)
    }

    #[test]
    fn each_standing_and_use_has_its_outcome() {
        let config = Config::default();
        let cases = [
            (Standing::Counted, "23", false, PortUse::Watched, Outcome::Dropped, true),
            (Standing::Counted, "udp/7", false, PortUse::Watched, Outcome::Dropped, true),
            (Standing::Counted, "22", true, PortUse::Service, Outcome::Passes, false),
            (Standing::Counted, "8080", false, PortUse::Unwatched, Outcome::Passes, false),
            (Standing::Allowed, "23", false, PortUse::Watched, Outcome::Passes, true),
            (Standing::Slowed, "23", false, PortUse::Watched, Outcome::EitherWay, true),
            (Standing::Slowed, "udp/7", false, PortUse::Watched, Outcome::Dropped, true),
            (Standing::Slowed, "22", true, PortUse::Service, Outcome::Waits, false),
            (Standing::Slowed, "8080", false, PortUse::Unwatched, Outcome::Passes, false),
            (Standing::Unproven, "22", true, PortUse::Service, Outcome::Dropped, false),
            (Standing::Unproven, "23", false, PortUse::Watched, Outcome::Dropped, true),
            (Standing::Blocked, "23", false, PortUse::Watched, Outcome::Dropped, false),
        ];
        for (standing, port, is_service, use_of, outcome, is_probe) in cases {
            let found = at(&config, standing, port, is_service);
            assert_eq!(
                (found.use_of, found.outcome, found.is_probe),
                (use_of, outcome, is_probe),
                "{standing:?} {port}"
            );
        }
        let config = Config { unwatched: Unwatched::Slow, ..config };
        let refused = at(&config, Standing::Slowed, "8080", false);
        assert_eq!((refused.outcome, refused.is_probe), (Outcome::EitherWay, true));
        assert!(!at(&config, Standing::Counted, "8080", false).is_probe);
        let silent = tested(&config, (Standing::Allowed, true), "23".parse().unwrap(), false);
        assert!(!silent.is_probe);
    }

    #[test]
    fn the_configuration_decides_what_a_closed_port_answers() {
        let mut config = Config::default();
        for closed_ports in [ClosedPorts::Answer, ClosedPorts::Pass] {
            config.closed_ports = closed_ports;
            assert_eq!(at(&config, Standing::Counted, "23", false).outcome, Outcome::Passes);
        }
        assert_eq!(at(&config, Standing::Slowed, "23", false).outcome, Outcome::Passes);
        config.tcp.mode = PortMode::Connect;
        config.tcp.ports = PortSet::of(&[23]);
        let decoy = at(&config, Standing::Counted, "23", false);
        assert_eq!((decoy.use_of, decoy.outcome), (PortUse::Decoy, Outcome::Decoy));
        config.mode = Mode::Observe;
        let observed = at(&config, Standing::Counted, "23", false);
        assert_eq!((observed.use_of, observed.outcome), (PortUse::Watched, Outcome::Passes));
    }
}
