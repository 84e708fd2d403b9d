//! Costs of element operations.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portsentry::nft::Connection;
use portsentry::nft::element::Element;
use portsentry::ruleset::{SCHEMA, SetId};

use super::installed;

/// A measurement: `cargo test --release --test kernel measure -- --ignored --nocapture`.
#[test]
#[ignore = "measures, and needs a quiet machine"]
fn one_element_takes_about_two_microseconds() {
    let (namespace, _) = installed();
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let mut times: Vec<Duration> = (0..20_000u32)
            .map(|number| {
                let element = Element::new(IpAddr::from((0x0a00_0000 + number).to_be_bytes()))
                    .timeout(Some(Duration::from_secs(600)))
                    .comment("scan syn");
                let start = Instant::now();
                connection.add_element(SetId::Blocked4, &element).unwrap();
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        eprintln!("add and acknowledgement: median {:?}, 99 % {:?}", times[10_000], times[19_800]);
        let elements: Vec<_> = (0..100_000u32)
            .map(|number| {
                Element::new(IpAddr::from((0x0b00_0000 + number).to_be_bytes()))
                    .timeout(Some(Duration::from_secs(600)))
            })
            .collect();
        let start = Instant::now();
        connection.add_elements(SetId::Blocked4, &elements).unwrap();
        let added = start.elapsed();
        let count = connection.dump_set(SetId::Blocked4).unwrap().len();
        eprintln!("100,000 in bulk: {added:?}; dump of {count}: {:?}", start.elapsed() - added);
    });
}
