//! The kernel's answers, and time.

use super::*;

// P3
#[test]
fn an_unproven_block_is_renewed_while_packets_come_and_expires_when_they_end() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.told();
    bench.packets = Some(10);
    bench.wait(SECOND * 50);
    assert_eq!(bench.told(), ["blocked 203.0.113.9 60s renewed"]);
    // Renewed at 45 s, asked again at 90 s; not one more packet since.
    bench.wait(SECOND * 54);
    assert!(bench.told().is_empty());
    assert_eq!(bench.blocked(), [THEM]);
    bench.wait(SECOND * 2);
    assert_eq!(bench.told(), ["unblocked 203.0.113.9 Expired"]);
    assert_eq!(bench.engine.status().blocked, 0);
}

#[test]
fn renewals_are_told_ever_more_seldom() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.told();
    for packets in 1..=99 {
        bench.packets = Some(packets);
        bench.wait(SECOND * 45);
    }
    assert_eq!(bench.engine.status().renewals, 99);
    assert_eq!(bench.told().len(), 7);
}

// P7, D1
#[test]
fn a_refused_block_is_told_and_tried_again_ever_later() {
    let mut bench = Bench::new(|_| {});
    bench.refuse = true;
    for millis in 0..20_000 {
        bench.now = millis;
        bench.syn(THEM, [millis as u16]);
    }
    // At 0, 1, 3, 7 and 15 seconds.
    assert_eq!(bench.orders(), 5);
    let told = bench.told();
    assert_eq!(told.iter().filter(|line| *line == "failed 203.0.113.9 set is full").count(), 5);
    assert_eq!(told.iter().filter(|line| line.starts_with("scan")).count(), 1);
    assert!(bench.blocked().is_empty());
    assert_eq!(bench.engine.status().ordered, 1);
    bench.wait(SECOND * 120);
    assert_eq!(bench.engine.status().ordered, 0);
    bench.refuse = false;
    bench.syn(THEM, [1, 2, 3]);
    assert_eq!(bench.blocked(), [THEM]);
}

#[test]
fn commands_wait_for_the_order_in_flight() {
    let mut bench = Bench::new(|_| {});
    bench.answers = false;
    bench.syn(THEM, 1..=3);
    bench.command(|engine, now, actions| engine.unblock(now, host(THEM), actions).unwrap());
    assert_eq!(bench.orders(), 1);
    bench.answer(Outcome::Blocked { source: host(THEM), result: Ok(()) });
    assert_eq!(bench.orders, [Action::Unblock { source: host(THEM) }]);
    bench.command(|engine, now, actions| engine.block(now, host(THEM), None, "still", actions).unwrap());
    assert_eq!(bench.orders(), 1);
    bench.answer(Outcome::Unblocked { source: host(THEM), result: Ok(()) });
    assert!(matches!(bench.orders.as_slice(), [Action::Block { renew: false, timeout: None, .. }]));
    bench.answer(Outcome::Blocked { source: host(THEM), result: Ok(()) });
    let told = bench.told();
    assert_eq!(told[1..], ["blocked 203.0.113.9 60s", "unblocked 203.0.113.9 ByHand", "blocked 203.0.113.9 0ns"]);
}

#[test]
fn a_block_that_ends_while_its_count_is_asked_for_is_told_with_the_answer() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.answers = false;
    bench.wait(SECOND * 70);
    bench.told();
    assert_eq!(bench.orders.last(), Some(&Action::Count { source: host(THEM) }));
    bench.answer(Outcome::Counted { source: host(THEM), packets: Some(0) });
    assert_eq!(bench.told(), ["unblocked 203.0.113.9 Expired"]);
}

#[test]
fn what_was_never_blocked_is_not_told_as_unblocked() {
    let mut bench = Bench::new(|_| {});
    bench.answers = false;
    bench.syn(THEM, 1..=3);
    bench.command(|engine, now, actions| engine.unblock(now, host(THEM), actions).unwrap());
    bench.answer(Outcome::Blocked { source: host(THEM), result: Err("no".to_owned()) });
    bench.answer(Outcome::Unblocked { source: host(THEM), result: Ok(()) });
    assert_eq!(bench.told()[1..], ["failed 203.0.113.9 no"]);
    assert_eq!(bench.orders.last(), Some(&Action::Unblock { source: host(THEM) }));
}

#[test]
fn what_must_not_be_blocked_and_will_not_go_is_tried_again() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.refuse = true;
    bench.packets = Some(99);
    let list: AllowList = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
    bench.set_never_block(list);
    bench.orders();
    bench.wait(SECOND * 21);
    assert_eq!(bench.orders, [Action::Unblock { source: host(THEM) }, Action::Unblock { source: host(THEM) }]);
    bench.refuse = false;
    bench.wait(SECOND * 10);
    assert_eq!(bench.told().last().unwrap(), "unblocked 203.0.113.9 NeverBlock");
}
