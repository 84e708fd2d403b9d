//! Values with types beside those in words: `port: "tcp/22"` gets `target_port: {"transport":
//! "tcp", "number": 22}`, a reason gets an object with a code.
//!
//! The keys in words stay, since programs rely on them. Only JSON output has the others: log lines,
//! the event store and the control protocol do without.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::format::printable_json;
use crate::engine::{COMMENT_MAX, NotBlocked, Reason};

/// The transports that ports are named with.
const TRANSPORTS: [&str; 4] = ["tcp", "udp", "sctp", "ip"];

/// JSON with its keys in their order.
enum Node {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Plain(Value),
}

/// A value as a JSON document of several lines, with typed values beside those in words.
///
/// # Errors
/// It cannot be serialized.
pub(crate) fn document(value: &impl Serialize) -> serde_json::Result<String> {
    let mut node: Node = serde_json::from_str(&serde_json::to_string(value)?)?;
    node.complete();
    serde_json::to_string_pretty(&node).map(|text| printable_json(&text))
}

/// The same in one line.
///
/// # Errors
/// It cannot be serialized.
pub(crate) fn line(value: &impl Serialize) -> serde_json::Result<String> {
    let mut node: Node = serde_json::from_str(&serde_json::to_string(value)?)?;
    node.complete();
    serde_json::to_string(&node).map(|text| printable_json(&text))
}

/// What stands beside a key of an event.
pub(super) fn beside_fact(key: &str, value: &Value) -> Option<(&'static str, Value)> {
    let typed = |of: fn(&str) -> Option<Value>| match value {
        Value::Null => Some(Value::Null),
        Value::String(text) => of(text),
        _ => None,
    };
    match key {
        "port" => Some(("target_port", typed(port)?)),
        "reason" => Some(("explanation", typed(|text| Some(explanation(text, None)))?)),
        "not_blocked" => Some(("not_blocked_because", typed(not_blocked)?)),
        _ => None,
    }
}

/// Why a source is blocked, slowed or reported. `code`: what its neighbours say beyond the text.
pub(crate) fn explanation(text: &str, code: Option<&str>) -> Value {
    let reason: Reason = match text.parse() {
        Ok(reason) => reason,
        Err(never) => match never {},
    };
    let (code, reason) = match (code, &reason) {
        (Some(code), _) => (code, None),
        (None, Reason::Scan { .. }) => ("scan", Some(&reason)),
        (None, Reason::Manual(_) | Reason::Listed(_)) => ("order", None),
        (None, Reason::Foreign(_)) => ("foreign", None),
    };
    let detail = match reason {
        Some(Reason::Scan { detail, .. }) => detail.to_string(),
        _ => String::new(),
    };
    let mut ports: Vec<Value> = detail.split_whitespace().filter_map(port).collect();
    // The comment of an element is cut there, perhaps within a number.
    if text.len() + 1 >= COMMENT_MAX && !text.ends_with("...") {
        ports.pop();
    }
    json!({
        "code": code,
        "text": text,
        "scan": reason.and_then(Reason::scan).map(|scan| scan.name()),
        "proven": reason.map(Reason::proven),
        "ports": ports,
    })
}

fn not_blocked(text: &str) -> Option<Value> {
    let why = NotBlocked::ALL.into_iter().find(|why| why.text() == text)?;
    Some(json!({ "code": why.code(), "text": text }))
}

/// `tcp/22` as an object.
fn port(text: &str) -> Option<Value> {
    let (transport, number) = text.split_once('/')?;
    let number: u16 = number.parse().ok()?;
    TRANSPORTS.contains(&transport).then(|| json!({ "transport": transport, "number": number }))
}

/// `1-112, 114` as objects.
fn ranges(text: &str) -> Option<Value> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        Some(json!({ "first": first, "last": last }))
    };
    text.split(", ").filter(|text| !text.is_empty()).map(range).collect()
}

impl Node {
    fn text(&self) -> Option<&str> {
        if let Self::Plain(Value::String(text)) = self { Some(text) } else { None }
    }

    /// Adds what is missing, everywhere in it.
    fn complete(&mut self) {
        match self {
            Self::Plain(_) => {}
            Self::Array(items) => items.iter_mut().for_each(Self::complete),
            Self::Object(pairs) => {
                pairs.iter_mut().for_each(|(_, value)| value.complete());
                let mut new: Vec<(usize, &str, Value)> = Vec::new();
                for (at, (key, value)) in pairs.iter().enumerate() {
                    let found = Self::beside(pairs, key, value)
                        .filter(|(key, _)| find(pairs, key).is_none());
                    new.extend(found.map(|(key, value)| (at + 1, key, value)));
                }
                for (at, key, value) in new.into_iter().rev() {
                    pairs.insert(at, (key.to_owned(), Self::Plain(value)));
                }
            }
        }
    }

    /// What stands beside a key of an object.
    fn beside(pairs: &[(String, Self)], key: &str, value: &Self) -> Option<(&'static str, Value)> {
        let sibling = |key| find(pairs, key)?.text();
        match (key, value) {
            // In rows of lists and of the history the neighbours say more than the text.
            ("reason", Self::Plain(Value::String(text))) => {
                let code = match (sibling("cause"), sibling("kind")) {
                    (Some("campaign"), _) => Some("campaign"),
                    (_, Some("order")) => Some("order"),
                    _ => None,
                };
                Some(("explanation", explanation(text, code)))
            }
            // A row of the history.
            ("port", Self::Plain(Value::Number(number))) => {
                let protocol = sibling("protocol")?.to_lowercase();
                Some(("target_port", port(&format!("{protocol}/{number}")).unwrap_or_default()))
            }
            ("ranges", Self::Plain(Value::String(text))) => Some(("port_ranges", ranges(text)?)),
            // What `test` has there are objects, whose ports are named in them; only `show` has
            // `scans` beside it.
            ("ports", Self::Array(items))
                if items.is_empty()
                    && find(pairs, "standing").is_some()
                    && find(pairs, "scans").is_none() =>
            {
                None
            }
            ("ports" | "services", Self::Array(items)) => {
                let name = if key == "ports" { "target_ports" } else { "service_ports" };
                let typed: Option<Vec<Value>> =
                    items.iter().map(|item| port(item.text()?)).collect();
                Some((name, typed?.into()))
            }
            (key, Self::Plain(value)) => beside_fact(key, value),
            _ => None,
        }
    }
}

/// The value of a key of an object.
fn find<'n>(pairs: &'n [(String, Node)], key: &str) -> Option<&'n Node> {
    pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value)
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(value) => value.serialize(serializer),
            Self::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Object(pairs) => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                pairs.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Plain(Value::Null))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Node::Array(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Node::Object(pairs))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_words_has_a_typed_value_beside_it_and_keys_keep_their_order() {
        let row = r#"{"b":1,"port":"udp/53","reason":"syn scan, proven: 2 ports in 0.2s: tcp/1 tcp/22 ...","a":[{"port":null,"reason":null}],"ports":["tcp/1"],"ranges":"1-112, 114"}"#;
        let node: Value = serde_json::from_str(row).unwrap();
        assert_eq!(
            line(&serde_json::from_str::<Node>(row).unwrap()).unwrap(),
            r#"{"b":1,"port":"udp/53","target_port":{"number":53,"transport":"udp"},"reason":"syn scan, proven: 2 ports in 0.2s: tcp/1 tcp/22 ...","explanation":{"code":"scan","ports":[{"number":1,"transport":"tcp"},{"number":22,"transport":"tcp"}],"proven":true,"scan":"syn","text":"syn scan, proven: 2 ports in 0.2s: tcp/1 tcp/22 ..."},"a":[{"port":null,"target_port":null,"reason":null,"explanation":null}],"ports":["tcp/1"],"target_ports":[{"number":1,"transport":"tcp"}],"ranges":"1-112, 114","port_ranges":[{"first":1,"last":112},{"first":114,"last":114}]}"#
        );
        assert!(document(&node).unwrap().contains("\n  \"target_ports\": [\n"));
    }

    #[test]
    fn codes_come_from_the_neighbours_where_the_text_says_too_little() {
        for (row, code) in [
            (r#"{"reason":"by hand: abuse"}"#, "order"),
            (r#"{"reason":"added by a script"}"#, "foreign"),
            (r#"{"cause":"campaign","reason":"campaign: 3 sources, 9 ports"}"#, "campaign"),
            (r#"{"kind":"order","reason":"unblock 192.0.2.1"}"#, "order"),
        ] {
            let row: Value = serde_json::from_str(row).unwrap();
            let typed: Value = serde_json::from_str(&line(&row).unwrap()).unwrap();
            assert_eq!(typed["explanation"]["code"], code, "{row}");
            assert_eq!(typed["explanation"]["text"], row["reason"]);
        }
        let row = json!({"port": 22, "protocol": "TCP", "not_blocked": "block.total is reached"});
        let typed: Value = serde_json::from_str(&line(&row).unwrap()).unwrap();
        assert_eq!(typed["target_port"], json!({"transport": "tcp", "number": 22}));
        assert_eq!(typed["not_blocked_because"]["code"], "total");
        for odd in [json!({"port": 0, "protocol": "MANUAL"}), json!({"port": "http"})] {
            let typed: Value = serde_json::from_str(&line(&odd).unwrap()).unwrap();
            assert!(typed.get("target_port").is_none_or(Value::is_null), "{typed}");
        }
    }

    #[test]
    fn a_port_that_a_comment_may_have_cut_is_left_out() {
        let text = format!("syn scan: {} tcp/65", "x".repeat(COMMENT_MAX - 18));
        assert_eq!(text.len(), COMMENT_MAX - 1);
        assert_eq!(explanation(&text, None)["ports"], json!([]));
    }
}
