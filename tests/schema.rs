//! The served JSON Schema, as the other tests hold the server and themselves to it; and the schema held to the code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Map, Value, json};
use wigwag::client::Via;
use wigwag::http::api::MESSAGES;
use wigwag::protocol::{Code, Limits, Request, RoomName};

/// Validators for each type of message.
pub(crate) struct Messages {
    client: BTreeMap<String, Validator>,
    server: BTreeMap<String, Validator>,
}

impl Messages {
    /// The same for all tests.
    pub(crate) fn get() -> &'static Self {
        static MESSAGES: OnceLock<Messages> = OnceLock::new();
        MESSAGES.get_or_init(Self::new)
    }

    /// What a client may send, as it is served; what the server sends, without anything that is not declared.
    fn new() -> Self {
        let document: Value = serde_json::from_str(MESSAGES).expect("JSON");
        let mut strict = document.clone();
        forbid_undeclared(&mut strict);
        Messages { client: validators(&document, "clientMessage"), server: validators(&strict, "serverMessage") }
    }

    /// Holds a server's message to the schema.
    pub(crate) fn check_server(&self, message: &Value) -> Result<(), String> {
        check(&self.server, message)
    }

    /// Reads a server's message, which must be as the schema has it.
    pub(crate) fn read(text: &str) -> Value {
        let message: Value = serde_json::from_str(text).expect("JSON");
        Self::get().check_server(&message).unwrap_or_else(|why| panic!("{why}: {text}"));
        message
    }

    /// Holds a client's message to the schema.
    pub(crate) fn check_client(&self, message: &Value) -> Result<(), String> {
        check(&self.client, message)
    }

    /// The types of the messages that the server sends.
    pub(crate) fn server_types(&self) -> BTreeSet<&str> {
        self.server.keys().map(String::as_str).collect()
    }

    /// The types of the messages that a client sends.
    pub(crate) fn client_types(&self) -> BTreeSet<&str> {
        self.client.keys().map(String::as_str).collect()
    }
}

/// Clients ignore members that they do not know; the server's own messages have none.
pub(crate) fn forbid_undeclared(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(forbid_undeclared);
            let is_closed = members.get("type") == Some(&json!("object"))
                && members.contains_key("properties")
                && !members.contains_key("additionalProperties");
            if is_closed {
                members.insert("unevaluatedProperties".to_owned(), json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(forbid_undeclared),
        _ => {}
    }
}

fn validators(document: &Value, union: &str) -> BTreeMap<String, Validator> {
    let definitions = &document["$defs"];
    let members = definitions[union]["oneOf"].as_array().expect("a list");
    let validator = |member: &Value| {
        let name = member["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")).expect("a reference");
        let r#type = definitions[name]["properties"]["type"]["const"].as_str().expect("a type").to_owned();
        let schema = json!({"$schema": document["$schema"], "$ref": member["$ref"], "$defs": definitions});
        (r#type, jsonschema::validator_for(&schema).expect("a schema"))
    };
    members.iter().map(validator).collect()
}

fn check(validators: &BTreeMap<String, Validator>, message: &Value) -> Result<(), String> {
    let r#type = message["type"].as_str().ok_or("no type")?;
    let validator = validators.get(r#type).ok_or_else(|| format!("the schema has no \"{type}\""))?;
    let errors: Vec<String> =
        validator.iter_errors(message).map(|error| format!("{}: {error}", error.instance_path())).collect();
    if errors.is_empty() { Ok(()) } else { Err(format!("not as the schema has it: {}", errors.join("; "))) }
}

fn definition(name: &str) -> Value {
    serde_json::from_str::<Value>(MESSAGES).expect("JSON")["$defs"][name].clone()
}

/// The document as a whole, to catch what no reference reaches.
#[test]
fn the_schema_is_one() {
    let document: Value = serde_json::from_str(MESSAGES).expect("JSON");
    jsonschema::meta::validate(&document).expect("JSON Schema 2020-12");
    let validator = jsonschema::validator_for(&document).expect("every reference leads somewhere");
    assert!(validator.is_valid(&json!({"type": "ping"})));
    assert!(!validator.is_valid(&json!({"type": "carrier-pigeon"})));
}

#[test]
fn codes_limits_and_transports_are_those_of_the_code() {
    let names = |codes: &[Code]| json!(codes.iter().map(|code| code.name()).collect::<Vec<_>>());
    let closing: Vec<Code> = Code::ALL.into_iter().filter(|code| code.closes()).collect();
    assert_eq!(definition("errorCode")["enum"], names(&Code::ALL));
    assert_eq!(definition("closeCodeName")["enum"], names(&closing));
    let close_codes: Vec<u16> = closing.iter().map(|code| code.close_code()).collect();
    assert_eq!(definition("closeCode")["enum"], json!(close_codes));

    let limits = serde_json::to_value(Limits::default()).expect("JSON");
    let declared = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(declared(&definition("limits")["properties"]), declared(&limits));
    let required: BTreeSet<String> = serde_json::from_value(definition("limits")["required"].clone()).expect("a list");
    assert_eq!(required, declared(&limits));

    let mut transports = Via::ALL.map(|via| via.transport().name()).to_vec();
    transports.dedup();
    assert_eq!(definition("transport")["enum"], json!(transports));
}

#[test]
fn a_room_name_is_one_for_the_schema_if_it_is_one_for_the_server() {
    let schema = jsonschema::validator_for(&definition("roomName")).expect("a schema");
    let agree = |name: &str| {
        assert_eq!(schema.is_valid(&json!(name)), RoomName::parse(name).is_ok(), "{name:?}");
    };
    for name in ["", ".", "..", "...", "a\n", "\u{e4}", "a b", "a/b", "a%20", &"x".repeat(128), &"x".repeat(129)] {
        agree(name);
    }
    for character in '\0'..='\u{17f}' {
        agree(&character.to_string());
        agree(&format!("a{character}b"));
    }
}

/// One good message of each type, with every member that it may have.
fn examples() -> Vec<Value> {
    let peer = "0197a000-0000-7000-8000-000000000001";
    vec![
        json!({"type": "join", "id": 1, "token": "t", "metadata": {"name": "x"}, "key": "00112233445566778899aabbccddeeff"}),
        json!({"type": "resume", "id": 1, "ticket": "t", "seq": 1, "token": "t"}),
        json!({"type": "description", "id": 1, "to": peer, "description": {"type": "offer", "sdp": "v=0"}}),
        json!({"type": "description", "id": 1, "to": peer, "description": {"type": "rollback"}}),
        json!({"type": "candidate", "id": 1, "to": peer, "candidate":
            {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "u"}}),
        json!({"type": "message", "id": 1, "to": peer, "data": 1, "ephemeral": true}),
        json!({"type": "metadata", "id": 1, "metadata": {}}),
        json!({"type": "iceServers", "id": 1}),
        json!({"type": "kick", "id": 1, "peer": peer, "reason": "r"}),
        json!({"type": "lock", "id": 1, "locked": true}),
        json!({"type": "admit", "id": 1, "peer": peer}),
        json!({"type": "refuse", "id": 1, "peer": peer}),
        json!({"type": "invite", "id": 1, "expiresInMs": 60000, "uses": 5, "grants": ["join", "message"]}),
        json!({"type": "token", "id": 1, "token": "t"}),
        json!({"type": "milestone", "id": 1, "peer": peer, "milestone": "media", "candidateType": "relay", "afterMs": 800}),
        json!({"type": "ack", "id": 1, "seq": 1}),
        json!({"type": "ping", "id": 1}),
        json!({"type": "leave", "id": 1, "reason": "r"}),
    ]
}

/// The message as it is, without each of its members, and with another value in place of each.
fn variations(example: &Value) -> Vec<Value> {
    let others = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!((1u64 << 53) - 1),
        json!(1u64 << 53),
        json!(""),
        json!("x"),
        json!("x".repeat(128)),
        json!("\u{e4}".repeat(128)),
        json!("x".repeat(129)),
        json!([]),
        json!({}),
        json!({"type": "answer"}),
        json!({"candidate": ""}),
    ];
    let mut variations = vec![example.clone()];
    let members = example.as_object().expect("an object");
    for (name, value) in members {
        let with = |value: Option<Value>| {
            let mut members: Map<String, Value> = members.clone();
            match value {
                Some(value) => members.insert(name.clone(), value),
                None => members.remove(name),
            };
            Value::Object(members)
        };
        variations.push(with(None));
        variations.extend(others.iter().map(|other| with(Some(other.clone()))));
        if value.is_object() {
            variations.extend(self::variations(value).into_iter().map(|inner| with(Some(inner))));
        }
    }
    let mut further = members.clone();
    further.insert("further".to_owned(), json!(null));
    variations.push(Value::Object(further));
    variations
}

#[test]
fn a_message_is_good_for_the_schema_if_it_is_good_for_the_server() {
    let messages = Messages::get();
    let types: BTreeSet<String> =
        examples().iter().map(|example| example["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(types.iter().map(String::as_str).collect::<BTreeSet<_>>(), messages.client_types());
    for example in examples() {
        messages.check_client(&example).expect("an example is good");
        for message in variations(&example) {
            let text = message.to_string();
            let parsed = Request::parse(text.as_bytes(), &Limits::default()).map_err(|invalid| invalid.refusal);
            let checked = messages.check_client(&message);
            assert_eq!(parsed.is_ok(), checked.is_ok(), "{text}: the server says {parsed:?}, the schema {checked:?}");
        }
    }
}
