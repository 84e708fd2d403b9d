use super::*;
use crate::netlink::message::{HEADER_LEN, Header, Messages, Writer};
use crate::nft::element::Element;
use crate::nft::encode::{Batch, Past};
use crate::nft::lower::lower;
use crate::nft::sample::{HOSTS, NETWORKS, SCHEMA, ruleset as sample_ruleset};
use proptest::prelude::*;

const TABLE: Table = SCHEMA.table;

#[test]
fn every_rule_decodes_as_it_was_encoded() {
    let ruleset = sample_ruleset();
    for chain in &ruleset.chains {
        for wanted in &chain.rules {
            let mut out = Writer::default();
            let expressions = lower(wanted);
            Batch::new(&mut out, TABLE.name, 1).new_rule(chain.name, &expressions);
            let message = Messages(out.bytes()).next().unwrap();
            assert_eq!(
                rule(&message, TABLE),
                Some(RuleInfo { chain: chain.name.to_owned(), expressions })
            );
        }
    }
}

// P13
#[test]
fn element_decodes_with_counter_and_time_left() {
    let mut out = Writer::default();
    let key = Key::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    let element = Element::new(std::net::IpAddr::from([192, 0, 2, 1]))
        .timeout(Some(Duration::from_secs(60)))
        .comment("a \"scan\"\n");
    let past = Past { counter: Some((3, 180)), expires: Some(Duration::from_secs(5)) };
    let mut batch = Batch::new(&mut out, TABLE.name, 1);
    batch.elements((message::NEWSETELEM, 0), HOSTS, [(element, past)]);
    let mut found = Vec::new();
    elements(&Messages(out.bytes()).next().unwrap(), TABLE, HOSTS, |element| {
        found.push(element.info)
    });
    let wanted = ElementInfo {
        key,
        end: None,
        timeout: Some(Duration::from_secs(60)),
        expires: Some(Duration::from_secs(5)),
        packets: 3,
        bytes: 180,
        comment: Some("a ?scan??".into()),
    };
    assert_eq!(found, [wanted]);
}

#[test]
fn too_long_comment_is_cut_between_characters() {
    let mut out = Writer::default();
    let long = "ä".repeat(100);
    let element = Element::network("128.0.0.0/1".parse().unwrap()).comment(&long);
    let mut batch = Batch::new(&mut out, TABLE.name, 1);
    batch.elements((message::NEWSETELEM, 0), NETWORKS, [(element, Past::default())]);
    let mut found = Vec::new();
    elements(&Messages(out.bytes()).next().unwrap(), TABLE, NETWORKS, |element| {
        found.push(element.info.comment)
    });
    assert_eq!(found, [Some("ä".repeat(64).into())]);
}

fn read_all(message: &Message<'_>) {
    let _ = (
        table(message, TABLE),
        chain(message, TABLE),
        set(message, TABLE),
        rule(message, TABLE),
        generation(message),
    );
    let _ = (notification(message, SCHEMA), describe(message, SCHEMA));
    for id in SCHEMA.sets.iter().copied() {
        elements(message, TABLE, id, drop);
    }
}

proptest! {
    // P8
    #[test]
    fn no_bytes_make_the_decoders_panic(kind in 0u16..24, bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let header = Header { kind: (SUBSYSTEM << 8) | kind, flags: 0, sequence: 0, portid: 0 };
        read_all(&Message { header, payload: &bytes });
    }

    // P8
    #[test]
    fn no_damage_to_real_messages_makes_the_decoders_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(), which in any::<prop::sample::Index>()) {
        let ruleset = sample_ruleset();
        let mut out = Writer::default();
        let mut batch = Batch::new(&mut out, TABLE.name, 1);
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
        let messages: Vec<_> = Messages(out.bytes()).collect();
        let message = messages[which.index(messages.len())];
        let mut payload = message.payload.to_vec();
        let place = at.index(payload.len());
        payload[place] = byte;
        payload.truncate(cut.index(payload.len()) + 1);
        read_all(&Message { header: message.header, payload: &payload });
        prop_assert!(out.bytes().len() > HEADER_LEN);
    }
}
