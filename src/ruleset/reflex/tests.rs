use super::*;
use proptest::prelude::*;

#[test]
fn bucket_refills_within_the_window() {
    let rate = |trigger, window| {
        let Rate { packets, per, burst } = refill(trigger, window);
        (packets, per.name(), burst)
    };
    assert_eq!(rate(2, 600), (12, "hour", 2));
    assert_eq!(rate(1, 1), (1, "second", 1));
    assert_eq!(rate(500, 60), (500, "minute", 500));
    assert_eq!(rate(10, 600), (1, "minute", 10));
    assert_eq!(rate(1, 2_592_000), (1, "week", 1));
}

proptest! {
    /// Compares the bucket with the sliding window that it approximates: a held source has probed
    /// more ports than allowed within some window.
    // P26
    #[test]
    fn bucket_holds_only_sources_that_exceed_the_window(
        trigger in 1u16..6,
        window in 1u64..2000,
        steps in proptest::collection::vec((0u64..3000, 0u8..9), 1..80),
    ) {
        let rate = refill(trigger, window);
        // As net/netfilter/nft_limit.c has it: tokens are nanoseconds.
        let cost = rate.per.seconds() * 1_000_000_000 / rate.packets;
        let most = cost * u64::from(rate.burst);
        let (mut tokens, mut last, mut now) = (most, 0u64, 0u64);
        let mut seen: Vec<(u8, u64)> = Vec::new();
        let mut touched: Vec<(u8, u64)> = Vec::new();
        let mut passed = false;
        for (wait, port) in steps {
            now += wait * 100_000_000;
            touched.push((port, now));
            let horizon = now.saturating_sub(window * 1_000_000_000);
            let distinct: std::collections::BTreeSet<u8> = touched.iter().filter(|(_, at)| *at >= horizon).map(|(port, _)| *port).collect();
            passed |= distinct.len() > usize::from(trigger);
            seen.retain(|(_, at)| now < at + window * 1_000_000_000);
            if seen.iter().any(|(known, _)| *known == port) {
                continue;
            }
            seen.push((port, now));
            tokens = (tokens + (now - last)).min(most);
            last = now;
            if tokens >= cost {
                tokens -= cost;
            } else {
                prop_assert!(passed, "held, and the window has never had more than {} ports", trigger);
            }
        }
    }

    /// A fast scan is held with the first port over the trigger.
    #[test]
    fn fast_scan_is_held_at_the_first_port_over_the_trigger(trigger in 1u16..3000, window in 1u64..1_000_000) {
        let rate = refill(trigger, window);
        let cost = rate.per.seconds() * 1_000_000_000 / rate.packets;
        prop_assert!(cost > 0);
        prop_assert_eq!(cost * u64::from(rate.burst) / cost, u64::from(trigger));
    }
}
