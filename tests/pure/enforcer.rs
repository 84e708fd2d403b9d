//! The enforcer over a model of the kernel: whatever administrators, scanners, other programs and
//! the kernel do, exactly what should be dropped is.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use self::enforcer_world::{Meanwhile, SOURCES, Step, World};

#[path = "../support/enforcer_world.rs"]
mod enforcer_world;

fn seconds() -> impl Strategy<Value = Option<u16>> {
    prop::option::of(prop_oneof![10u16..300, 3000u16..9000])
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    prop_oneof![
        Just(Meanwhile::Nothing),
        (0u8..4, any::<u8>()).prop_map(|(set, which)| Meanwhile::Delete { set, which }),
        (0u8..4).prop_map(|set| Meanwhile::FlushSet { set }),
        Just(Meanwhile::DeleteTable),
        any::<u8>().prop_map(|what| Meanwhile::AddHost { what }),
        (0u8..128, any::<u8>()).prop_map(|(first, more)| Meanwhile::AddInterval { first, more }),
    ]
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
        2 => (any::<bool>(), meanwhile()).prop_map(|(reboot, meanwhile)| Step::Restart { reboot, meanwhile }),
        1 => any::<u8>().prop_map(|from| Step::Sends { from }),
    ]
}

fn run(steps: impl IntoIterator<Item = Step>) {
    let mut world = World::new();
    steps.into_iter().for_each(|step| world.run(step));
}

#[test]
fn what_another_program_blocks_is_adopted_though_its_block_was_refused_before() {
    let refused = [Step::Refuse { set: 0, writes: 2, how: 0 }, Step::Scan { from: 30 }];
    run(refused.clone().into_iter().chain([Step::AddInterval {
        first: 26,
        more: 20,
        seconds: None,
    }]));
    run(refused.into_iter().chain([Step::AddHost { what: 30, seconds: None }]));
}

#[test]
fn an_interval_of_another_program_blocks_the_hosts_in_it() {
    run([
        Step::AddInterval { first: 3, more: 0, seconds: None },
        Step::AddInterval { first: 5, more: 4, seconds: Some(600) },
    ]);
}

/// 2001:db8::/56 without 2001:db8::/63, while accounts are of another length, of the same, and of
/// another again.
#[test]
fn what_a_network_leaves_out_stays_so_whatever_the_length_of_accounts_is() {
    let block = [Step::Block { what: 42, seconds: None }, Step::Unblock { what: 43 }];
    run(block.clone().into_iter().chain([
        Step::Reconfigure { prefix: 1, total: 0 },
        Step::Reconfigure { prefix: 2, total: 0 },
    ]));
    run([Step::Reconfigure { prefix: 1, total: 0 }].into_iter().chain(block));
}

#[test]
fn an_element_beside_a_blocked_prefix_ends_no_block() {
    // 2001:db8::1 within 2001:db8::/64.
    run([
        Step::Block { what: 48, seconds: None },
        Step::AddHost { what: 32, seconds: None },
        Step::Delete { set: 1, which: 1 },
    ]);
}

#[test]
fn a_source_that_goes_on_sending_while_its_element_waits_to_be_restored_stays_blocked() {
    run([
        Step::Scan { from: 7 },
        Step::Pass { millis: 5000 },
        Step::Sends { from: 7 },
        Step::Refuse { set: 0, writes: 3, how: 1 },
        Step::DeleteTable,
    ]);
}

#[test]
fn an_element_added_as_another_expires_is_adopted_though_its_notification_was_lost() {
    run([
        Step::Sends { from: 1 },
        Step::Pass { millis: 50_000 },
        Step::Lose,
        Step::AddHost { what: 2, seconds: None },
        Step::Lose,
        Step::AddHost { what: 0, seconds: None },
    ]);
}

#[test]
fn a_refused_deletion_of_an_element_is_tried_again() {
    run([
        Step::Protect { list: 8 },
        Step::Refuse { set: 1, writes: 1, how: 0 },
        Step::AddHost { what: 241, seconds: None },
        Step::Protect { list: 0 },
        Step::Reconfigure { prefix: 0, total: 0 },
    ]);
}

#[test]
fn an_element_without_effect_that_the_kernel_keeps_brings_no_block_back() {
    run([
        Step::Refuse { set: 1, writes: 1, how: 0 },
        Step::AddHost { what: 32, seconds: None },
        Step::Delete { set: 1, which: 74 },
        Step::Lose,
        Step::AddHost { what: 0, seconds: None },
    ]);
}

#[test]
fn an_element_without_effect_goes_with_its_block() {
    run([
        Step::Sends { from: 114 },
        Step::Refuse { set: 1, writes: 1, how: 0 },
        Step::AddHost { what: 34, seconds: None },
        Step::Refuse { set: 3, writes: 1, how: 0 },
        Step::UnblockAll,
        Step::Restart { reboot: false, meanwhile: Meanwhile::Nothing },
    ]);
}

#[test]
fn an_unblock_ends_what_the_kernel_kept_of_a_block_that_was_proven() {
    run([
        Step::Sends { from: 114 },
        Step::Refuse { set: 3, writes: 1, how: 0 },
        Step::Block { what: 48, seconds: None },
        Step::Unblock { what: 41 },
    ]);
}

#[test]
fn a_network_whose_parts_are_all_unblocked_is_not_blocked_and_may_be_again() {
    run([
        Step::AddInterval { first: 118, more: 5, seconds: None },
        Step::Unblock { what: 51 },
        Step::Unblock { what: 47 },
        Step::AddInterval { first: 94, more: 5, seconds: None },
    ]);
}

/// The same histories in each run, so that a change is judged by what it changes. ENFORCER_CASES gives
/// the number of random ones instead.
fn config() -> ProptestConfig {
    let random = std::env::var("ENFORCER_CASES").ok();
    ProptestConfig {
        cases: random.as_ref().map_or(300, |cases| cases.parse().expect("a number")),
        rng_seed: random.map_or(RngSeed::Fixed(20_261_129), |_| RngSeed::Random),
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    // P14
    #[test]
    fn exactly_what_should_be_dropped_is_and_the_rules_are_there(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
    }
}
