use super::*;
use crate::netlink::message::{Messages, Writer};
use crate::nft::decode::{self, RuleInfo};
use crate::nft::encode::Batch;
use crate::nft::lower::lower;

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
