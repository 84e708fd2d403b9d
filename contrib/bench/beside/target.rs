//! What is scanned: the host's address, its services, and the order in which a scanner asks for its
//! ports.

use std::net::Ipv4Addr;

/// The host's address.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The services that a scan finds, within the ports 1-1000.
pub const SERVICES: [u16; 10] = [21, 22, 25, 53, 80, 110, 143, 443, 587, 993];
/// One more, outside of what is scanned and watched: answered as long as a source is not blocked.
pub const KNOCK: u16 = 9000;
/// Another, which customers use.
pub const ECHO: u16 = 9001;
/// Closed ports that are asked in the name of a customer.
pub const FORGED: [u16; 4] = [23, 111, 135, 199];
/// The ports that nmap asks first, in random order, where it chooses the order (measured with
/// 7.93); those up to 1000.
const POPULAR: [u16; 20] =
    [22, 80, 443, 21, 23, 25, 53, 110, 111, 113, 135, 139, 143, 199, 256, 445, 554, 587, 993, 995];

/// The ports 1-1000 in an order as nmap has it, the `seed`'s own; the first is closed, since time
/// counts from there.
pub fn order(seed: u32) -> Vec<u16> {
    let mut state = u64::from(seed) << 1 | 1;
    let mut random = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut shuffle = |ports: &mut [u16]| {
        (1..ports.len()).rev().for_each(|last| ports.swap(last, random(last + 1)))
    };
    let (mut popular, mut rest) =
        (POPULAR.to_vec(), (1..=1000).filter(|port| !POPULAR.contains(port)).collect::<Vec<_>>());
    shuffle(&mut popular);
    shuffle(&mut rest);
    let closed = popular.iter().position(|port| !SERVICES.contains(port)).unwrap();
    popular.swap(0, closed);
    popular.extend(rest);
    popular
}
