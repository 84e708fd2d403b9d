use super::*;
use crate::netlink::message::{Messages, Writer};
use crate::nft::decode::{self, RuleInfo};
use crate::nft::encode::Batch;
use crate::nft::lower::lower;

/// A slowed source's packets meet the rules that slow it before any queue: they would wait for a
/// verdict that knows nothing of the retransmission.
// P3, P27
#[test]
fn with_queues_the_rules_for_slowed_sources_come_first() {
    let mut config = Config::default();
    config.capture.method = crate::config::Method::Nfqueue;
    for reflex in [true, false] {
        config.capture.reflex = reflex;
        let ruleset = for_config(&config, 32768..=60999);
        let place = |chain: &str, is: &dyn Fn(&Statement) -> bool| {
            let chain = ruleset.chains.iter().find(|of| of.name == chain).unwrap();
            chain.rules.iter().position(|rule| rule.statements.iter().any(is))
        };
        let goes = |to: &'static str| move |statement: &Statement| *statement == goto(to);
        let queues = |statement: &Statement| matches!(statement, Statement::Queue { .. });
        assert!(place(OPEN, &goes(slow::SLOW)) < place(OPEN, &queues), "{reflex}");
        assert!(place(OPEN, &goes(slow::SLOW)).is_some());
        let to_probe = if reflex { REFLEX } else { PROBE };
        let slows = place(TCP_PROBE, &goes(SLOW_PROBE));
        assert!(slows.is_some() && slows < place(TCP_PROBE, &goes(to_probe)));
        assert!(place(PROBE, &queues).is_some());
    }
}

#[test]
fn every_rule_reads_back_as_written() {
    let table = SCHEMA.table;
    for chain in for_config(&Config::default(), 32768..=60999).chains {
        for wanted in &chain.rules {
            let mut out = Writer::default();
            let expressions = lower(wanted);
            Batch::new(&mut out, table.name, 1).new_rule(chain.name, &expressions);
            let message = Messages(out.bytes()).next().unwrap();
            assert_eq!(
                decode::rule(&message, table),
                Some(RuleInfo { chain: chain.name.to_owned(), expressions })
            );
        }
    }
}
