//! Any hosts.deny: our section is found or its damage has a line, and writing it keeps the lines of
//! others.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::helper::section::Parts;

fn lines<'b>(lines: impl Iterator<Item = &'b [u8]>) -> Vec<&'b [u8]> {
    lines.filter(|line| !line.is_empty()).collect()
}

fuzz_target!(|bytes: &[u8]| {
    // What the marks begin with is hard to guess: a NUL stands for it.
    let file: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| if *byte == 0 { b"# portsentry: ".to_vec() } else { vec![*byte] })
        .collect();
    let parts = match Parts::of(&file) {
        Ok(parts) => parts,
        Err((what, line)) => {
            return assert!(
                !what.is_empty() && (1..=file.split(|byte| *byte == b'\n').count()).contains(&line)
            );
        }
    };
    for count in [0, 1, 3] {
        let wanted: Vec<String> = (0..count).map(|n| format!("ALL: 192.0.2.{n}")).collect();
        let written = parts.with(&wanted);
        let again = Parts::of(&written).expect("what we write can be read");
        assert_eq!(lines(again.own()), wanted.iter().map(String::as_bytes).collect::<Vec<_>>());
        assert_eq!(lines(again.others()), lines(parts.others()), "lines of others stay");
        assert_eq!(again.with(&wanted), written, "writing the same again changes nothing");
    }
});
