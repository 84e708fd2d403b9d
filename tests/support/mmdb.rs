//! Writes small files in MaxMind's format, as the MaxMind DB File Format Specification 2.0 says: a
//! binary tree over the bits of addresses, the records, and what the file is.

use std::net::IpAddr;

/// A value of a record.
#[derive(Clone)]
pub enum Value {
    Text(&'static str),
    Number(u32),
    /// An unsigned integer of so many bytes (2, 4, 8).
    Sized(u8, u64),
    Switch(bool),
    Map(Vec<(&'static str, Value)>),
    List(Vec<Value>),
}

/// What a branch of the tree leads to.
#[derive(Clone, Copy)]
enum Child {
    Nothing,
    Node(usize),
    Record(usize),
}

/// A file with records of so many bits (24, 28, 32), for IPv6 (with IPv4 in `::/96`) or IPv4 alone.
pub fn file(bits: u32, ip_version: u32, networks: &[(&str, Value)]) -> Vec<u8> {
    let (mut nodes, mut records) = (vec![[Child::Nothing; 2]], Vec::new());
    for (network, record) in networks {
        let (address, length) = network.split_once('/').unwrap();
        let length: usize = length.parse().unwrap();
        let (bytes, length) = match address.parse().unwrap() {
            IpAddr::V4(address) if ip_version == 4 => (address.octets().to_vec(), length),
            IpAddr::V4(address) => ([[0; 12].as_slice(), &address.octets()].concat(), 96 + length),
            IpAddr::V6(address) => (address.octets().to_vec(), length),
        };
        let mut node = 0;
        for at in 0..length {
            let side = usize::from(bytes[at / 8] >> (7 - at % 8) & 1);
            if at + 1 == length {
                nodes[node][side] = Child::Record(records.len());
            } else if let Child::Node(next) = nodes[node][side] {
                node = next;
            } else {
                nodes[node][side] = Child::Node(nodes.len());
                node = nodes.len();
                nodes.push([Child::Nothing; 2]);
            }
        }
        encode(record, &mut records);
    }
    let number = |child: &Child| match *child {
        Child::Nothing => nodes.len() as u32,
        Child::Node(node) => node as u32,
        Child::Record(place) => (nodes.len() + 16 + place) as u32,
    };
    let mut file = Vec::new();
    for [left, right] in &nodes {
        let [left, right] = [number(left), number(right)].map(u32::to_be_bytes);
        match bits {
            24 => file.extend([&left[1..], &right[1..]].concat()),
            28 => file.extend([&left[1..], &[left[0] << 4 | right[0]], &right[1..]].concat()),
            _ => file.extend([left, right].concat()),
        }
    }
    file.extend([0; 16]);
    file.extend(records);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    let facts = [
        ("binary_format_major_version", Value::Sized(2, 2)),
        ("binary_format_minor_version", Value::Sized(2, 0)),
        ("build_epoch", Value::Sized(8, 1_795_188_400)),
        ("database_type", Value::Text("Test")),
        ("description", Value::Map(vec![("en", Value::Text("a test"))])),
        ("ip_version", Value::Sized(2, ip_version.into())),
        ("languages", Value::List(vec![Value::Text("en")])),
        ("node_count", Value::Number(nodes.len() as u32)),
        ("record_size", Value::Sized(2, bits.into())),
    ];
    encode(&Value::Map(facts.to_vec()), &mut file);
    file
}

fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Text(text) => {
            control(2, text.len(), out);
            out.extend(text.as_bytes());
        }
        Value::Number(number) => encode(&Value::Sized(4, (*number).into()), out),
        Value::Sized(size, number) => {
            let kind = [(2, 5), (4, 6), (8, 9)].into_iter().find(|(of, _)| of == size).unwrap().1;
            control(kind, usize::from(*size), out);
            out.extend(&number.to_be_bytes()[8 - usize::from(*size)..]);
        }
        Value::Switch(on) => control(14, usize::from(*on), out),
        Value::Map(pairs) => {
            control(7, pairs.len(), out);
            for (key, value) in pairs {
                encode(&Value::Text(key), out);
                encode(value, out);
            }
        }
        Value::List(items) => {
            control(11, items.len(), out);
            items.iter().for_each(|item| encode(item, out));
        }
    }
}

/// The byte of type and size, and what does not fit it.
fn control(kind: u8, size: usize, out: &mut Vec<u8>) {
    let (low, more) = if size < 29 { (size as u8, None) } else { (29, Some((size - 29) as u8)) };
    if kind > 7 {
        out.extend([low, kind - 7]);
    } else {
        out.push(kind << 5 | low);
    }
    out.extend(more);
}
