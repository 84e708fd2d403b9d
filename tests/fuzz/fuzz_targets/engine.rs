//! Any history of probes, commands, answers, reloads and clocks: the invariants of
//! `tests/pure/engine.rs` hold after each step and at the end.
#![no_main]

#[path = "../../support/world.rs"]
mod world;

use libfuzzer_sys::fuzz_target;
use world::{Step, World};

/// Steps of one history: enough for every bound of the small world, and quick.
const STEPS_MAX: usize = 400;

/// Five bytes are a step: which, and four for its arguments.
fn step(bytes: &[u8; 5]) -> Step {
    let [what, a, b, c, d] = *bytes;
    let long = u32::from_le_bytes([a, b, c, d]);
    match what % 16 {
        0..5 => Step::Probe {
            from: usize::from(a % 12),
            port: b % 8,
            transport: c % 4,
            scan: usize::from(d % 12),
            ambiguous: d & 0x80 != 0,
            held: d & 0x40 != 0,
        },
        5 => Step::Block {
            whom: usize::from(a % 16),
            seconds: (b & 1 == 1).then(|| u16::from_le_bytes([c, d]) % 300),
        },
        6 if b & 3 == 3 => Step::Removed { whom: usize::from(a % 16) },
        6 if b & 3 == 2 => Step::UnblockWithin { whom: usize::from(a % 16) },
        6 => Step::Unblock { whom: usize::from(a % 16) },
        7..11 => Step::Answer {
            which: usize::from(a),
            ok: b % 5 != 0,
            is_there: c % 5 != 0,
        },
        11 => Step::NeverBlock { lists: a % 16 },
        12 => Step::Reconfigure { variant: a % 64 },
        13 => Step::Timers,
        14 => Step::Pass { millis: long % 200_000 },
        // Far ahead, or back; rarely to the end of all time, after which nothing is ever new.
        _ if a == 0xff => Step::Jump { to: u64::MAX - u64::from(b) },
        _ => Step::Jump { to: u64::from(long) << (a % 24) },
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut world = World::new();
    for chunk in bytes.as_chunks::<5>().0.iter().take(STEPS_MAX) {
        world.run(step(chunk));
    }
    world.finish();
});
