//! Generated configurations, the same ones each time.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use portsentry::config::{
    Allowance, Allowed, CampaignAction, ClosedPorts, Config, Ipv6Accounts, Mode, PortMode, PortSet,
    ProtocolAction,
};
use portsentry::nft::Ruleset;
use portsentry::ruleset;

use super::default_ruleset;

/// A small random number generator (Knuth, MMIX): the same configurations on every machine.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }

    fn port(&mut self) -> u16 {
        [0, 1, 1023, 32768, 60999, 65534, 65535]
            .get(self.below(40) as usize)
            .copied()
            .unwrap_or_else(|| self.below(65_536) as u16)
    }

    fn ports(&mut self) -> PortSet {
        (0..self.below(9))
            .map(|_| {
                let first = self.port();
                first..=first.saturating_add(if self.below(2) == 0 {
                    0
                } else {
                    self.below(3000) as u16
                })
            })
            .collect()
    }

    fn mode(&mut self) -> PortMode {
        [PortMode::Off, PortMode::Connect, PortMode::Stealth, PortMode::Advanced]
            [self.below(4) as usize]
    }

    fn network(&mut self) -> IpNet {
        let bits = u128::from(self.below(u32::MAX)) << 96
            | u128::from(self.below(u32::MAX)) << 48
            | u128::from(self.below(u32::MAX));
        let network = if self.below(2) == 0 {
            IpNet::new(
                IpAddr::V4(
                    ((bits >> 96) as u32 | if self.below(4) == 0 { 0xff00_0000 } else { 0 }).into(),
                ),
                self.below(33) as u8,
            )
        } else {
            IpNet::new(IpAddr::V6(bits.into()), self.below(129) as u8)
        };
        network.unwrap().trunc()
    }

    fn config(&mut self) -> (Config, RangeInclusive<u16>) {
        let mut config = Config::default();
        config.mode = if self.below(3) == 0 { Mode::Observe } else { Mode::Enforce };
        config.closed_ports =
            [ClosedPorts::Answer, ClosedPorts::Drop, ClosedPorts::Pass][self.below(3) as usize];
        config.interfaces = ["eth0", "wlan0", "enp0s31f6", "br-0123456789ab", "eth0"]
            .map(String::from)[..self.below(6) as usize]
            .to_vec();
        config.capture.group = self.below(65_536) as u16;
        config.capture.decoy_port = self.port().max(1);
        config.capture.reflex = self.below(4) > 0;
        config.scan_trigger = [0, 1, 2, 10, 500, 65_535][self.below(6) as usize];
        config.scan_window = Duration::from_millis(u64::from(
            [1u32, 1500, 60_000, 600_000, 86_400_000, 2_592_000_000][self.below(6) as usize],
        ));
        config.udp.action = [ProtocolAction::Log, ProtocolAction::Block][self.below(2) as usize];
        config.block.unproven.timeout = Duration::from_secs(u64::from(1 + self.below(90)));
        for protocol in [&mut config.tcp, &mut config.udp] {
            protocol.mode = self.mode();
            protocol.ports = self.ports();
            protocol.exclude = self.ports();
            protocol.advanced_ports =
                if self.below(3) == 0 { PortSet::range(0, 65535) } else { self.ports() };
        }
        config.block.total = 1 + self.below(2_000_000);
        let first = 48 + self.below(81) as u8;
        let then = (48 + self.below(73) as u8).min(first);
        config.block.ipv6 = Ipv6Accounts { first, then };
        config.campaign.action =
            [CampaignAction::Report, CampaignAction::Slow, CampaignAction::Block]
                [self.below(3) as usize];
        config.allow = (0..self.below(12))
            .map(|_| Allowed { silent: self.below(4) == 0, ..self.network().into() })
            .collect();
        let interfaces = ["wg0", "tun-0123456789a", "wg0"].into_iter().take(self.below(4) as usize);
        for name in interfaces {
            let what = Allowance::Interface(name.to_owned());
            config.allow.push(Allowed { what, silent: self.below(4) == 0 });
        }
        let (a, b) = (self.port().max(1), self.port().max(1));
        (config, a.min(b)..=a.max(b))
    }
}

/// The default and 80 generated ones, or as many as PORTSENTRY_RULESETS says: an emulated machine
/// is too slow for all.
pub fn rulesets() -> Vec<Ruleset> {
    let mut numbers = Numbers(20_260_731);
    let count = std::env::var("PORTSENTRY_RULESETS")
        .map_or(80, |count| count.parse().expect("PORTSENTRY_RULESETS is a number"));
    let generated = (0..count).map(|_| {
        let (config, ephemeral) = numbers.config();
        ruleset::for_config(&config, ephemeral)
    });
    std::iter::once(default_ruleset()).chain(generated).collect()
}
