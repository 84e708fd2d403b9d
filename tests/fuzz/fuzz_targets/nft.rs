//! Any message of nf_tables, from nowhere, about our table, or a real one that was damaged: each
//! decoder, and the intervals put together.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use portsentry::config::Config;
use portsentry::netlink::message::{Header, Message, Messages, Writer};
use portsentry::nft::element::{join, merge};
use portsentry::nft::encode::{Batch, NFPROTO_INET, Past, SUBSYSTEM, message};
use portsentry::nft::lower::lower;
use portsentry::nft::{Element, decode};
use portsentry::ruleset::{self, SCHEMA, SetId};

/// Attribute 1 of every message but those of generations: `NFTA_TABLE_NAME`, `NFTA_SET_TABLE` and
/// so on (linux/netfilter/nf_tables.h).
const TABLE_NAME: u16 = 1;
/// `NFTA_SET_ELEM_LIST_SET`.
const ELEMS_SET: u16 = 2;

/// What installs the default ruleset, and some elements.
static REAL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let ruleset = ruleset::for_config(&Config::default(), 32768..=60999);
    let mut out = Writer::default();
    let mut batch = Batch::new(&mut out, SCHEMA.table.name, 1);
    batch.new_table(0);
    for set in &ruleset.sets {
        batch.new_set(set, 1);
        batch.add_ranges(set);
    }
    for chain in &ruleset.chains {
        batch.new_chain(chain);
        for rule in &chain.rules {
            batch.new_rule(chain.name, &lower(rule));
        }
    }
    let networks = ["10.0.0.0/8", "192.0.2.0/25", "192.0.2.128/25", "255.255.255.255/32"];
    let elements = networks.map(|network| {
        let element = Element::network(network.parse().expect("a network")).comment("by hand: x");
        (element, Past { counter: Some((3, 180)), expires: None })
    });
    batch.elements((message::NEWSETELEM, 0), SetId::BlockedNets4.spec(), elements);
    out.bytes().to_vec()
});

fn read_all(message: &Message<'_>) {
    let table = SCHEMA.table;
    let _ = (
        decode::table(message, table),
        decode::chain(message, table),
        decode::set(message, table),
        decode::rule(message, table),
    );
    let _ = (decode::generation(message), decode::notification(message, SCHEMA));
    let (verb, object) = decode::describe(message, SCHEMA);
    assert!(!verb.is_empty() && !object.is_empty());
    for id in SCHEMA.sets.iter().copied() {
        let mut raw = Vec::new();
        decode::elements(message, table, id, |element| raw.push(element));
        let count = raw.len();
        let joined = join(id, raw);
        assert!(joined.len() <= count);
        for element in &joined {
            assert!(element.key <= element.last(), "{id:?} {element:?}");
        }
        if id.interval {
            assert!(joined.is_sorted_by(|a, b| a.last() < b.key), "{id:?} {joined:?}");
            let merged = merge(joined.iter().map(|element| element.key..=element.last()).collect());
            assert!(
                merged.len() <= joined.len() && merged.is_sorted_by(|a, b| a.end() < b.start())
            );
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let [how, which, rest @ ..] = bytes else { return };
    match how % 3 {
        0 => {
            for message in Messages(rest) {
                read_all(&message);
            }
        }
        1 => {
            let mut out = Writer::default();
            let open = out.begin_message((SUBSYSTEM << 8) | u16::from(which % 32), 0, 1);
            out.nfgenmsg(NFPROTO_INET, 0);
            out.attr_str(TABLE_NAME, SCHEMA.table.name);
            if let Some(id) = SetId::ALL.get(usize::from(which / 32)) {
                out.attr_str(ELEMS_SET, id.name());
            }
            out.raw(rest);
            out.end_message(open);
            for message in Messages(out.bytes()) {
                read_all(&message);
            }
        }
        _ => {
            let messages: Vec<_> = Messages(&REAL).collect();
            let Some(message) =
                messages.get((usize::from(*which) + usize::from(how / 3)) % messages.len())
            else {
                return;
            };
            let mut payload = message.payload.to_vec();
            for [low, high, byte] in rest.as_chunks::<3>().0 {
                let at = usize::from(u16::from_le_bytes([*low, *high])) % payload.len();
                payload[at] = *byte;
            }
            read_all(&Message { header: Header { ..message.header }, payload: &payload });
        }
    }
});
