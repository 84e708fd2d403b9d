//! Any history of orders, scans, edits of other programs, losses and refusals of the kernel: what
//! `tests/pure/enforcer.rs` holds after each step.
#![no_main]

#[path = "../../support/enforcer_world.rs"]
mod enforcer_world;

use enforcer_world::{Meanwhile, SOURCES, Step, World};
use libfuzzer_sys::fuzz_target;

/// Steps of one history: each is checked in full.
const STEPS_MAX: usize = 60;

fn meanwhile(a: u8, b: u8) -> Meanwhile {
    match a % 6 {
        0 => Meanwhile::Nothing,
        1 => Meanwhile::Delete { set: a / 6, which: b },
        2 => Meanwhile::FlushSet { set: b },
        3 => Meanwhile::DeleteTable,
        4 => Meanwhile::AddHost { what: b },
        _ => Meanwhile::AddInterval { first: b, more: a / 6 },
    }
}

/// Four bytes are a step: which, and three for its arguments.
fn step(bytes: &[u8; 4]) -> Step {
    let [what, a, b, c] = *bytes;
    // Long enough to be told from moments, and rarely without an end.
    let seconds = (c & 3 != 3).then(|| 10 + u16::from(b) * u16::from(c & 0x1f));
    match what % 24 {
        0..5 => Step::Block { what: a % SOURCES, seconds },
        5..8 => Step::Unblock { what: a % SOURCES },
        8 => Step::UnblockAll,
        9 => Step::Protect { list: a % 16 },
        10 => Step::Scan { from: a },
        11 | 12 => Step::Pass { millis: u32::from_le_bytes([a, b, 0, 0]) * 3 },
        13 => Step::AddHost { what: a, seconds },
        14 | 15 => Step::AddInterval { first: a, more: b, seconds },
        16 | 17 => Step::Delete { set: a, which: b },
        18 => Step::Retime { set: a, which: a >> 1, seconds },
        19 => Step::FlushSet { set: a },
        20 => {
            if a & 1 == 0 {
                Step::DeleteTable
            } else {
                Step::DeleteRules
            }
        }
        21 => Step::Lose,
        22 => Step::Refuse { set: a, writes: b, how: c },
        _ if a & 1 == 0 => Step::Reconfigure { prefix: b, total: c },
        _ if a & 2 == 0 => Step::Sends { from: b },
        _ => Step::Restart { reboot: a & 4 == 0, meanwhile: meanwhile(b, c) },
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut world = World::new();
    for chunk in bytes.as_chunks::<4>().0.iter().take(STEPS_MAX) {
        world.run(step(chunk));
    }
});
