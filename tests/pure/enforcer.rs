//! The enforcer over a model of the kernel: whatever administrators, scanners, other programs and the kernel do, exactly what should be dropped is.

use proptest::prelude::*;

use self::enforcer_world::{SOURCES, Step, World};

#[path = "../support/enforcer_world.rs"]
mod enforcer_world;

fn seconds() -> impl Strategy<Value = Option<u16>> {
    prop::option::of(prop_oneof![10u16..300, 3000u16..9000])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..SOURCES, seconds()).prop_map(|(what, seconds)| Step::Block { what, seconds }),
        4 => (0..SOURCES).prop_map(|what| Step::Unblock { what }),
        1 => Just(Step::UnblockAll),
        2 => (0u8..16).prop_map(|list| Step::Protect { list }),
        2 => any::<u8>().prop_map(|from| Step::Scan { from }),
        3 => (0u32..100_000).prop_map(|millis| Step::Pass { millis }),
        2 => (any::<u8>(), seconds()).prop_map(|(what, seconds)| Step::AddHost { what, seconds }),
        3 => (0u8..128, any::<u8>(), seconds()).prop_map(|(first, more, seconds)| Step::AddInterval { first, more, seconds }),
        3 => (0u8..4, any::<u8>()).prop_map(|(set, which)| Step::Delete { set, which }),
        1 => (0u8..2, any::<u8>(), seconds()).prop_map(|(set, which, seconds)| Step::Retime { set, which, seconds }),
        1 => (0u8..4).prop_map(|set| Step::FlushSet { set }),
        1 => Just(Step::DeleteTable),
        1 => Just(Step::DeleteRules),
        1 => Just(Step::Lose),
        3 => (0u8..6, 1u8..6, 0u8..3).prop_map(|(set, writes, how)| Step::Refuse { set, writes, how }),
        1 => (0u8..3, 0u8..4).prop_map(|(prefix, total)| Step::Reconfigure { prefix, total }),
        1 => any::<bool>().prop_map(|reboot| Step::Restart { reboot }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    // P14
    #[test]
    fn exactly_what_should_be_dropped_is_and_the_rules_are_there(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
    }
}
