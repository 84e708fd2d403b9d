//! Tests that requests and replies survive encoding and parsing.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

#[test]
fn the_client_may_name_its_login_with_any_request() {
    let request = Request::Reload {};
    for login in [Some(0), Some(1000), Some(u32::MAX - 1), None] {
        let line = request.line(login).unwrap();
        assert_eq!(Request::login(line.as_bytes()), login, "{line}");
        assert_eq!(Request::parse(line.trim_end().as_bytes()).unwrap(), request, "{line}");
    }
    for line in [r#"{"v":1,"login":-1}"#, r#"{"v":1,"login":"ada"}"#, "x"] {
        assert_eq!(Request::login(line.as_bytes()), None, "{line}");
    }
}

#[test]
fn every_request_survives_the_line() {
    let address: Target = "192.0.2.1".parse().unwrap();
    let requests = [
        Request::Status {},
        Request::List(Box::default()),
        Request::Geo {},
        Request::Show { address },
        Request::Block {
            address: "10.0.0.5/24".parse().unwrap(),
            seconds: Some(60),
            reason: "ä".into(),
            force: false,
        },
        Request::Block { address, seconds: None, reason: String::new(), force: false },
        Request::Unblock { address },
        Request::UnblockAll {},
        Request::AllowList {},
        Request::AllowAdd { address },
        Request::AllowRemove { address },
        Request::Rules {},
        Request::Reload {},
        Request::History(Box::new(Past {
            since: Some(Stamp(Timestamp::from_second(5).unwrap())),
            until: Some(Stamp(Timestamp::from_second(9).unwrap())),
            source: Some(address),
            port: Some(PortName("udp/53".parse().unwrap())),
            kinds: vec!["scan".into(), "blocked".into()],
            result: Some(crate::journal::record::Effect::Slowed),
            scan: Some("syn".into()),
            all: true,
        })),
        Request::History(Box::default()),
        Request::Watch {},
    ];
    for request in requests {
        assert_eq!(Request::parse(line(&request).unwrap().as_bytes()).unwrap(), request);
    }
}

#[test]
fn a_block_request_has_this_line() {
    let request = Request::Block {
        address: "10.0.0.5/24".parse().unwrap(),
        seconds: Some(60),
        reason: "x".into(),
        force: false,
    };
    assert_eq!(
        line(&request).unwrap(),
        "{\"v\":1,\"do\":\"block\",\"address\":\"10.0.0.0/24\",\"seconds\":60,\"reason\":\"x\"}\n"
    );
}

#[test]
fn unknown_requests_are_refused_with_the_reason() {
    let refusal = |text: &str| Request::parse(text.as_bytes()).unwrap_err().message;
    assert!(refusal("hello").contains("no JSON"));
    assert!(refusal("[1]").contains("no JSON object"));
    assert!(refusal(r#"{"do":"status"}"#).contains("\"v\" is missing"));
    assert!(refusal(r#"{"v":2,"do":"status"}"#).contains("version 2"));
    assert!(refusal(r#"{"v":1,"do":"fly"}"#).contains("fly"));
    assert!(refusal(r#"{"v":1,"do":"status","x":1}"#).contains('x'));
    assert!(refusal(r#"{"v":1,"do":"history","sinse":1}"#).contains("sinse"));
    let kinds = vec!["\"scan\""; KINDS_MAX + 1].join(",");
    assert!(
        refusal(&format!(r#"{{"v":1,"do":"history","kinds":[{kinds}]}}"#)).contains("51 kinds")
    );
    assert!(
        refusal(r#"{"v":1,"do":"block","address":"example.org"}"#).contains("neither an address")
    );
    assert!(
        refusal(r#"{"v":1,"do":"block","address":"192.0.2.1","reason":"a\nb"}"#)
            .contains("control characters")
    );
    assert!(refusal(&"[".repeat(60_000)).contains("no JSON"));
}

#[test]
fn a_target_knows_what_it_blocks() {
    let source = |text: &str| text.parse::<Target>().unwrap().source(64).to_string();
    assert_eq!(source("192.0.2.1"), "192.0.2.1");
    assert_eq!(source("::ffff:192.0.2.1"), "192.0.2.1");
    assert_eq!(source("192.0.2.1/24"), "192.0.2.0/24");
    assert_eq!(source("2001:db8::1"), "2001:db8::/64");
    assert_eq!(source("2001:db8::/64"), source("2001:db8::7"));
    assert_eq!(source("2001:db8::1/128"), "2001:db8::1");
}

#[test]
fn a_kind_of_a_later_version_is_understood_as_unknown() {
    let refusal: Refusal = serde_json::from_str(r#"{"kind":"tired","message":"m"}"#).unwrap();
    assert_eq!(refusal.kind, Kind::Unknown);
}

proptest! {
    // P8
    #[test]
    fn no_bytes_make_the_parser_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::parse(&bytes);
    }
}
