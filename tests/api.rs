//! The OpenAPI documents held to the running server, and the server to them: every operation and status is asked for, and every
//! response checked for what is declared of it.

use std::collections::BTreeSet;
use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jsonschema::Validator;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use wigwag::client::{Connection, Endpoint, Http2, Http3};
use wigwag::http::api::{ADMIN_OPENAPI, MESSAGES, OPENAPI};

use crate::metrics::hear;
use crate::schema::forbid_undeclared;
use crate::support::{TestServer, config, within};

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const POLL: (&str, &str) = ("accept", "application/x-ndjson");
const STREAM: (&str, &str) = ("accept", "text/event-stream");
const AT_ONCE: (&str, &str) = ("prefer", "wait=0");
const FOREIGN: (&str, &str) = ("origin", "https://evil.example");
const UPGRADE: [(&str, &str); 5] = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-protocol", "wigwag.v1"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];
const ROOM: &str = "/v1/rooms/{room}";
const LOG_OF_ROOM: &str = "/v1/rooms/{room}/log";
const MESSAGES_OF_ROOM: &str = "/v1/rooms/{room}/messages";

/// Statuses that no request alone brings about: a locked room needs a moderator, 500 a fault, 409 of messages a takeover at that
/// moment and 503 a session of another node, and 503 of an upgrade a server that began to drain after the connection was there.
const NOT_AT_WILL: [(&str, &str, &str); 6] = [
    (ROOM, "get", "503"),
    (ROOM, "post", "423"),
    (ROOM, "post", "500"),
    (MESSAGES_OF_ROOM, "post", "409"),
    (MESSAGES_OF_ROOM, "post", "500"),
    (MESSAGES_OF_ROOM, "post", "503"),
];

/// An OpenAPI document, and what of it has been met.
struct Description {
    document: Value,
    met: BTreeSet<(String, String, String)>,
}

impl Description {
    fn new(text: &str) -> Self {
        let mut document: Value = serde_json::from_str(text).expect("JSON");
        document["messages"] = serde_json::from_str(MESSAGES).expect("JSON");
        resolve_elsewhere(&mut document["messages"], "#/$defs/");
        resolve_elsewhere(&mut document["paths"], "messages.schema.json#/$defs/");
        forbid_undeclared(&mut document);
        Description { document, met: BTreeSet::new() }
    }

    /// What a reference stands for; anything else stands for itself.
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(path) = value["$ref"].as_str() else { return value };
        let pointer = path.strip_prefix('#').expect("a reference within the document");
        self.document.pointer(pointer).unwrap_or_else(|| panic!("{path} leads nowhere"))
    }

    fn validator(&self, schema: &Value) -> Validator {
        let root = json!({
            "allOf": [schema],
            "components": self.document["components"],
            "messages": self.document["messages"],
        });
        jsonschema::draft202012::new(&root).expect("a schema")
    }

    /// Holds a response to what is declared of it, status, headers and body.
    fn check(&mut self, path: &str, method: &str, response: &Response<Bytes>) -> Result<(), String> {
        let status = response.status().as_str().to_owned();
        let operations = self.document["paths"][path].as_object().ok_or("the path is not declared")?;
        // A method that is not declared is answered 405, which each of the others declares.
        let operation = operations.get(method).or_else(|| operations.values().find(|value| value.is_object()));
        let operation = operation.ok_or("nothing is declared")?;
        let declared = &operation["responses"][&status];
        if declared.is_null() {
            return Err(format!("{status} is not declared"));
        }
        let declared = self.resolve(declared);
        self.check_headers(&declared["headers"], response.headers())?;
        self.check_body(&declared["content"], response)?;
        let methods: Vec<String> = match operations.contains_key(method) {
            true => vec![method.to_owned()],
            false => operations.keys().cloned().collect(),
        };
        self.met.extend(methods.into_iter().map(|method| (path.to_owned(), method, status.clone())));
        Ok(())
    }

    fn check_headers(&self, declared: &Value, headers: &HeaderMap) -> Result<(), String> {
        for (name, header) in declared.as_object().into_iter().flatten() {
            let header = self.resolve(header);
            let Some(value) = headers.get(name) else {
                if header["required"] == true {
                    return Err(format!("{name} is missing"));
                } else {
                    continue;
                };
            };
            let text = value.to_str().map_err(|error| format!("{name}: {error}"))?;
            let value = match header["schema"]["type"].as_str() {
                Some("integer") => json!(text.parse::<u64>().map_err(|error| format!("{name}: {error}"))?),
                _ => json!(text),
            };
            self.validator(&header["schema"]).validate(&value).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }

    fn check_body(&self, declared: &Value, response: &Response<Bytes>) -> Result<(), String> {
        let Some(declared) = declared.as_object() else {
            let empty = response.body().is_empty();
            return if empty { Ok(()) } else { Err("a body is not declared".to_owned()) };
        };
        let content_type = response.headers().get(CONTENT_TYPE).ok_or("no Content-Type")?;
        let media_type = content_type.to_str().expect("ASCII").split(';').next().expect("one part").to_owned();
        let schema = &declared.get(&media_type).ok_or_else(|| format!("{media_type} is not declared"))?["schema"];
        let validator = self.validator(schema);
        for value in values(&media_type, response.body())? {
            validator.validate(&value).map_err(|error| format!("{}: {error}\n{value}", error.instance_path()))?;
            // What an event's data holds is described beside it, as the text it is in is.
            let content = &schema["properties"]["data"]["contentSchema"];
            if let (Some(data), false) = (value["data"].as_str(), content.is_null()) {
                let data = serde_json::from_str(data).map_err(|error| format!("data: {error}"))?;
                self.validator(content).validate(&data).map_err(|error| format!("data: {error}"))?;
            }
        }
        Ok(())
    }

    /// Everything that is declared has been met, but for `exceptions`.
    fn was_met(&self, exceptions: &[(&str, &str, &str)]) {
        for (path, operations) in self.document["paths"].as_object().expect("paths") {
            let operations = operations.as_object().expect("operations").iter().filter(|(_, value)| value.is_object());
            for (method, operation) in operations {
                for status in operation["responses"].as_object().expect("responses").keys() {
                    let known = (path.clone(), method.clone(), status.clone());
                    let excepted = exceptions.contains(&(path.as_str(), method.as_str(), status.as_str()));
                    assert_ne!(self.met.contains(&known), excepted, "{method} {path}: {status}");
                }
            }
        }
    }
}

/// References to the messages, written from where they stand in the whole.
fn resolve_elsewhere(value: &mut Value, from: &str) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(path)) = members.get_mut("$ref")
                && let Some(name) = path.strip_prefix(from)
            {
                *path = format!("#/messages/$defs/{name}");
            }
            members.values_mut().for_each(|member| resolve_elsewhere(member, from));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| resolve_elsewhere(item, from)),
        _ => {}
    }
}

/// What a body is for its schema: a JSON value, all lines as one array, one value for each event.
fn values(media_type: &str, body: &[u8]) -> Result<Vec<Value>, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let parse = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| format!("not JSON: {error}"));
    match media_type {
        "application/x-ndjson" => Ok(vec![text.lines().map(parse).collect::<Result<_, _>>()?]),
        "text/event-stream" => Ok(text.split_terminator("\n\n").map(event).collect()),
        "application/openmetrics-text" => Ok(vec![json!(text)]),
        text_type if text_type.starts_with("text/") => Ok(vec![json!(text)]),
        _ => Ok(vec![parse(text)?]),
    }
}

fn event(text: &str) -> Value {
    let fields = text.lines().filter_map(|line| line.split_once(": "));
    Value::Object(fields.map(|(name, value)| (name.to_owned(), json!(value))).collect())
}

/// Sends a request on a connection of its own; `None` is a body that never comes.
async fn send(
    endpoint: &Endpoint,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Response<Incoming> {
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.expect("a connection");
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header(HOST, "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = match body {
        Some(text) => Body::from(text.to_owned()),
        None => Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>()),
    };
    let request = request.body(body).expect("a request");
    requests.send_request(request).await.expect("a response")
}

/// Asks, and reads the response to its end, or of one without an end the first part.
async fn ask(
    endpoint: &Endpoint,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Response<Bytes> {
    let (head, mut incoming) = within(send(endpoint, method, path, headers, body)).await.into_parts();
    let endless = head.headers.get(CONTENT_TYPE).is_some_and(|value| value == "text/event-stream");
    let body = if endless {
        within(incoming.frame()).await.expect("an event").expect("readable").into_data().expect("data")
    } else {
        within(incoming.collect()).await.expect("readable").to_bytes()
    };
    Response::from_parts(head, body)
}

fn path_of(template: &str, room: &str) -> String {
    template.replace("{room}", room)
}

/// A request by its template, and the status that it must get.
#[derive(Clone, Copy)]
struct Ask<'a> {
    template: &'a str,
    method: &'a str,
    room: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: Option<&'a str>,
    status: u16,
}

async fn hold(description: &mut Description, endpoint: &Endpoint, asked: Ask<'_>) -> Response<Bytes> {
    let Ask { template, method, room, headers, body, status } = asked;
    let response = ask(endpoint, method, &path_of(template, room), headers, body).await;
    let told = format!("{method} {template} with {headers:?} {body:?}");
    assert_eq!(response.status(), status, "{told}: {:?}", response.body());
    let checked = description.check(template, &method.to_ascii_lowercase(), &response);
    checked.unwrap_or_else(|why| panic!("{told}: {status}: {why}"));
    response
}

const JOIN: &str = r#"{"type":"join"}"#;

fn first_message(response: &Response<Bytes>) -> Value {
    let text = std::str::from_utf8(response.body()).expect("UTF-8");
    serde_json::from_str(text.lines().next().expect("a line")).expect("JSON")
}

#[tokio::test]
async fn what_can_be_asked_of_everybody_is_as_described() {
    let server = TestServer::start().await;
    let mut description = Description::new(OPENAPI);
    for template in ["/v1/discovery", "/v1/openapi.json", "/v1/messages.schema.json"] {
        let ask = |method, status| Ask { template, method, room: "", headers: &[FOREIGN], body: Some(""), status };
        hold(&mut description, &server.plain(), ask("GET", 200)).await;
        hold(&mut description, &server.plain(), ask("POST", 405)).await;
    }
    let (none, path) = (HeaderMap::new(), "/v1/openapi.json");
    let http2 = within(Http2::connect(&server.secure(), &server.trust.tls)).await.expect("HTTP/2");
    let http3 = within(Http3::connect(&server.secure(), &server.trust)).await.expect("HTTP/3");
    for served in [
        ask(&server.plain(), "GET", path, &[], Some("")).await,
        within(http2.request(Method::GET, path, &none)).await.expect("a response"),
        within(http3.request(Method::GET, path, &none)).await.expect("a response"),
    ] {
        assert_eq!(served.body(), OPENAPI);
        description.check(path, "get", &served).expect("as described");
    }
    description.document["paths"].as_object_mut().expect("paths").retain(|path, _| !path.contains("rooms"));
    description.was_met(&[]);
    server.stop().await;
}

/// A server that lets one bad ticket pass, and then nobody of this machine.
async fn strict() -> TestServer {
    let mut config = config();
    config.clients.exempt.clear();
    config.clients.limits.failures.amount = 1;
    TestServer::start_with(config).await
}

#[tokio::test]
async fn sessions_over_plain_requests_are_as_described() {
    let mut config = config();
    config.limits.first_message_ms = 300;
    config.limits.peers = 2;
    config.limits.queue_bytes = config.limits.frame_bytes;
    config.limits.messages_per_second = 1;
    config.limits.burst = 5;
    let server = TestServer::start_with(config).await;
    let plain = server.plain();
    let mut description = Description::new(OPENAPI);
    let poll = [NDJSON, POLL, AT_ONCE];

    let upgrade = |more: &[(&'static str, &'static str)]| [&UPGRADE[..], more].concat();
    let basic = ("authorization", "Basic eA==");
    for (method, room, headers, status) in [
        ("GET", "demo", vec![], 426),
        ("GET", "a%20b", vec![], 400),
        ("GET", "demo", upgrade(&[basic]), 401),
        ("GET", "demo", upgrade(&[FOREIGN]), 403),
        ("GET", "demo", upgrade(&[]), 101),
        ("PUT", "demo", vec![], 405),
    ] {
        let asked = Ask { template: ROOM, method, room, headers: &headers, body: Some(""), status };
        hold(&mut description, &plain, asked).await;
    }

    let large = "x".repeat(200_000);
    let flood = format!("{JOIN}\n{}", "{\"type\":\"message\",\"data\":1}\n".repeat(50));
    let resume = json!({"type": "resume", "ticket": "forged", "seq": 0}).to_string();
    for (room, headers, body, status) in [
        ("demo", &[NDJSON, POLL, AT_ONCE][..], JOIN, 200),
        ("demo", &[NDJSON, STREAM], JOIN, 200),
        ("demo", &poll, JOIN, 503),
        ("a%20b", &poll, JOIN, 400),
        ("other", &poll, "not JSON", 400),
        ("other", &poll, "", 400),
        ("other", &[NDJSON, POLL, basic], JOIN, 401),
        ("other", &[NDJSON, POLL, FOREIGN], JOIN, 403),
        ("other", &[NDJSON, ("accept", "*/*")], JOIN, 406),
        ("other", &poll, &resume, 410),
        ("other", &poll, &large, 413),
        ("other", &[POLL], JOIN, 415),
        ("other", &poll, &flood, 429),
    ] {
        let body = Some(body);
        hold(&mut description, &plain, Ask { template: ROOM, method: "POST", room, headers, body, status }).await;
    }

    let late = Ask { template: ROOM, method: "POST", room: "other", headers: &poll, body: None, status: 408 };
    hold(&mut description, &plain, late).await;

    let keyed = r#"{"type":"join","key":"00112233445566778899aabbccddeeff"}"#;
    let mut responses = Vec::new();
    let mut text = keyed.to_owned();
    for status in [200, 200, 409] {
        let body = Some(text.as_str());
        let asked = Ask { template: ROOM, method: "POST", room: "keyed", headers: &poll, body, status };
        let response = hold(&mut description, &plain, asked).await;
        // The first ticket takes the seat up; the key that it was joined with is dead from then on.
        text = match responses.is_empty() {
            true => json!({"type": "resume", "ticket": first_message(&response)["ticket"], "seq": 0}).to_string(),
            false => keyed.to_owned(),
        };
        responses.push(response);
    }
    let resumed = first_message(&responses[1]);
    let ticket = ("wigwag-ticket", resumed["ticket"].as_str().expect("a ticket"));
    let message = r#"{"type":"message","data":1}"#;
    for (method, room, headers, body, status) in [
        ("POST", "keyed", &[NDJSON, ticket][..], message, 202),
        ("POST", "keyed", &[NDJSON, ticket], "not JSON", 202),
        ("POST", "a%20b", &[NDJSON, ticket], message, 400),
        ("POST", "keyed", &[NDJSON], message, 401),
        ("POST", "keyed", &[NDJSON, ticket, FOREIGN], message, 403),
        ("GET", "keyed", &[], "", 405),
        ("POST", "keyed", &[NDJSON, ticket], &large, 413),
        ("POST", "keyed", &[ticket], message, 415),
    ] {
        let body = Some(body);
        let asked = Ask { template: MESSAGES_OF_ROOM, method, room, headers, body, status };
        hold(&mut description, &plain, asked).await;
    }
    let headers = [NDJSON, ticket];
    let late =
        Ask { template: MESSAGES_OF_ROOM, method: "POST", room: "keyed", headers: &headers, body: None, status: 408 };
    hold(&mut description, &plain, late).await;

    for (method, room, headers, status) in [
        ("GET", "keyed", &[ticket][..], 200),
        ("GET", "a%20b", &[ticket], 400),
        ("GET", "keyed", &[], 401),
        ("GET", "other", &[ticket], 401),
        ("GET", "keyed", &[ticket, FOREIGN], 403),
        ("POST", "keyed", &[ticket], 405),
    ] {
        let asked = Ask { template: LOG_OF_ROOM, method, room, headers, body: Some(""), status };
        hold(&mut description, &plain, asked).await;
    }

    let strict = strict().await;
    for (template, method, headers, status) in [
        (MESSAGES_OF_ROOM, "POST", &[NDJSON][..], 401),
        (MESSAGES_OF_ROOM, "POST", &[NDJSON], 429),
        (LOG_OF_ROOM, "GET", &[], 429),
        (ROOM, "GET", &UPGRADE, 429),
    ] {
        let asked = Ask { template, method, room: "demo", headers, body: Some(""), status };
        hold(&mut description, &strict.plain(), asked).await;
    }
    strict.stop().await;

    description.document["paths"].as_object_mut().expect("paths").retain(|path, _| path.contains("rooms"));
    description.was_met(&NOT_AT_WILL);
    server.stop().await;
}

#[tokio::test]
async fn the_operators_side_is_as_described() {
    let mut config = config();
    config.admin = Some("127.0.0.1:0".parse().expect("an address"));
    config.drain = std::time::Duration::from_millis(500);
    let server = TestServer::start_with(config).await;
    let admin = server.addresses.admin.expect("an admin listener");
    let admin = Endpoint { encrypted: false, host: admin.ip().to_string(), port: admin.port() };
    let mut description = Description::new(ADMIN_OPENAPI);
    let get = |template, status| Ask { template, method: "GET", room: "", headers: &[], body: Some(""), status };
    let told =
        ["/healthz", "/readyz", "/metrics", "/openapi.json", "/admin", "/api/overview", "/api/rooms", "/api/ended"];
    for template in told.into_iter().chain(["/api/live"]) {
        hold(&mut description, &admin, get(template, 200)).await;
        hold(&mut description, &admin, Ask { method: "DELETE", ..get(template, 405) }).await;
    }
    hold(&mut description, &admin, get("/", 303)).await;
    hold(&mut description, &admin, Ask { method: "DELETE", ..get("/", 405) }).await;
    let open_metrics = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")];
    hold(&mut description, &admin, Ask { headers: &open_metrics, ..get("/metrics", 200) }).await;
    let (guarded, guarded_admin) = guarded().await;
    hold(&mut description, &guarded_admin, get("/metrics", 401)).await;
    for (template, method) in operations(&description, "401") {
        let path = template.replace("{room}", "demo").replace("{peer}", PEER);
        let refused = ask(&guarded_admin, &method, &path, &[OWN], Some("")).await;
        assert_eq!(refused.status(), 401, "{method} {template}");
        description.check(&template, &method, &refused).unwrap_or_else(|why| panic!("{method} {template}: {why}"));
    }
    guarded.stop().await;
    what_the_operator_asks_of_rooms(&server, &mut description, &admin).await;
    // Somebody is still there, so that the server waits.
    let _stays = server.connect(wigwag::client::Via::WebSocketH1, "demo").await;
    server.context.drain.raise();
    hold(&mut description, &admin, get("/readyz", 503)).await;
    let elsewhere = ask(&admin, "GET", "/elsewhere", &[], Some("")).await;
    assert_eq!(elsewhere.status(), 404);
    assert_eq!(elsewhere.headers()[CONTENT_TYPE], "application/problem+json");
    let drain = Ask { method: "POST", ..get("/api/drain", 202) };
    hold(&mut description, &admin, Ask { headers: &[], status: 403, ..drain }).await;
    hold(&mut description, &admin, Ask { method: "GET", status: 405, ..drain }).await;
    hold(&mut description, &admin, Ask { headers: &[OWN], ..drain }).await;
    description.was_met(&[]);
    server.stop().await;
}

/// Shows that nobody else's page is asking.
const OWN: (&str, &str) = ("wigwag-admin", "1");
const PEER: &str = "0197a000-0000-7000-8000-000000000001";

/// Operations for which this status is declared, in capitals.
fn operations(description: &Description, status: &str) -> Vec<(String, String)> {
    let paths = description.document["paths"].as_object().expect("paths").iter();
    let all =
        paths.flat_map(|(path, operations)| operations.as_object().expect("operations").iter().map(move |o| (path, o)));
    let declared = all.filter(|(_, (_, operation))| !operation["responses"][status].is_null());
    declared.map(|(path, (method, _))| (path.clone(), method.to_ascii_uppercase())).collect()
}

/// Rooms, what has happened in them, and what is done to them.
async fn what_the_operator_asks_of_rooms(server: &TestServer, description: &mut Description, admin: &Endpoint) {
    let mut held =
        async |template: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str, status: u16| {
            let response = ask(admin, method, path, headers, Some(body)).await;
            let told = format!("{method} {path}: {:?}", response.body());
            assert_eq!(response.status(), status, "{told}");
            description
                .check(template, &method.to_ascii_lowercase(), &response)
                .unwrap_or_else(|why| panic!("{told}: {why}"));
            response
        };
    let etag = held("/admin", "GET", "/admin", &[], "", 200).await.headers()["etag"].to_str().expect("text").to_owned();
    held("/admin", "GET", "/admin", &[("if-none-match", &etag)], "", 304).await;
    held("/admin/{file}", "GET", "/admin/main.js", &[], "", 200).await;
    held("/demo/dom.js", "GET", "/demo/dom.js", &[], "", 200).await;
    held("/demo/dom.js", "POST", "/demo/dom.js", &[], "", 405).await;
    held("/admin/{file}", "GET", "/admin/nothing.js", &[], "", 404).await;
    held("/admin/{file}", "POST", "/admin/main.js", &[], "", 405).await;

    for template in ["/api/rooms", "/api/ended", "/api/live"] {
        held(template, "GET", &format!("{template}?limit=0"), &[], "", 400).await;
        held(template, "GET", &format!("{template}?offset=4294967296"), &[], "", 400).await;
        held(template, "GET", &format!("{template}?order=age"), &[], "", 400).await;
    }
    // A room of which one has answered nothing, so that there is something of everything.
    let (mut alice, one) = join(server, "watched").await;
    let (mut bob, two) = join(server, "watched").await;
    let offer = json!({"type": "description", "id": 1, "to": one, "description": {"type": "offer", "sdp": "v=0\r\n"}});
    bob.send(&offer.to_string()).await.expect("sent");
    hear(&mut alice, "description").await;
    held("/api/live", "GET", "/api/live?room=watched&filter=watch", &[], "", 200).await;
    held("/api/rooms", "GET", "/api/rooms?filter=watch&order=members&offset=0&limit=1", &[], "", 200).await;
    for (template, rest) in [("/api/rooms/{room}", ""), ("/api/rooms/{room}/timeline", "/timeline")] {
        held(template, "GET", &format!("/api/rooms/watched{rest}"), &[], "", 200).await;
        held(template, "GET", &format!("/api/rooms/other{rest}"), &[], "", 404).await;
        held(template, "GET", &format!("/api/rooms/a%20b{rest}"), &[], "", 400).await;
        held(template, "PUT", &format!("/api/rooms/watched{rest}"), &[], "", 405).await;
    }
    let large = "x".repeat(5000);
    let because = json!({"reason": "maintenance"}).to_string();
    for (action, status) in [("lock", 204), ("unlock", 204), ("remove", 204), ("close", 200)] {
        let template = match action {
            "remove" => "/api/rooms/{room}/peers/{peer}/remove".to_owned(),
            _ => format!("/api/rooms/{{room}}/{action}"),
        };
        let path = |room: &str| template.replace("{room}", room).replace("{peer}", &two);
        held(&template, "POST", &path("watched"), &[], "", 403).await;
        held(&template, "GET", &path("watched"), &[], "", 405).await;
        held(&template, "POST", &path("a%20b"), &[OWN], "", 400).await;
        held(&template, "POST", &path("other"), &[OWN], "", 404).await;
        if status == 200 || action == "remove" {
            held(&template, "POST", &path("watched"), &[OWN], &large, 413).await;
            held(&template, "POST", &path("watched"), &[OWN], "because", 400).await;
        }
        held(&template, "POST", &path("watched"), &[OWN], if action.len() < 5 { "" } else { &because }, status).await;
    }
    // By a name that could be anybody's, nothing is told.
    for (template, method) in operations(&Description::new(ADMIN_OPENAPI), "403") {
        let path = template.replace("{room}", "demo").replace("{peer}", PEER);
        held(&template, &method, &path, &[OWN, ("host", "evil.example")], "", 403).await;
    }
    held("/api/ended", "GET", "/api/ended?filter=watch", &[], "", 200).await;
    held("/api/rooms/{room}/timeline", "GET", "/api/rooms/watched/timeline", &[], "", 200).await;

    // The server may notice a moment later that those from above are gone.
    let mut views = Vec::new();
    within(async {
        while views.len() < 16 {
            let view = send(admin, "GET", "/api/live", &[], Some("")).await;
            if view.status() == 200 {
                views.push(view);
            }
        }
    })
    .await;
    let refused = within(send(admin, "GET", "/api/live", &[], Some(""))).await;
    assert_eq!(refused.status(), 429, "so many live views, and no more");
    let (head, body) = refused.into_parts();
    let refused = Response::from_parts(head, within(body.collect()).await.expect("readable").to_bytes());
    description.check("/api/live", "get", &refused).expect("as described");
}

async fn join(server: &TestServer, room: &str) -> (Connection, String) {
    let mut session = server.connect(wigwag::client::Via::WebSocketH1, room).await;
    session.send(JOIN).await.expect("sent");
    let joined = hear(&mut session, "joined").await;
    (session, joined["self"]["peer"].as_str().expect("a peer").to_owned())
}

/// A server that asks for a token, and its admin listener.
async fn guarded() -> (TestServer, Endpoint) {
    let mut config = config();
    config.admin = Some("127.0.0.1:0".parse().expect("an address"));
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "long and random\n").expect("written");
    config.admin_token = Some(wigwag::secret::SecretSource::File(token.path().to_owned()));
    let server = TestServer::start_with(config).await;
    let port = server.addresses.admin.expect("an admin listener").port();
    (server, Endpoint { encrypted: false, host: "127.0.0.1".into(), port })
}

/// The routers are built by `route` alone, which the sources show.
#[test]
fn every_route_is_described_and_nothing_else() {
    for (source, document) in
        [(include_str!("../src/http.rs"), OPENAPI), (include_str!("../src/http/admin.rs"), ADMIN_OPENAPI)]
    {
        for other in [".nest(", ".nest_service(", ".route_service("] {
            assert!(!source.contains(other), "this test does not see the routes of {other}…)");
        }
        let compact: String = source.split_whitespace().collect();
        let routes = compact.split(".route(").skip(1);
        let routes = routes.map(|rest| rest.strip_prefix('"').and_then(|rest| rest.split('"').next()));
        let routes: BTreeSet<&str> = routes.map(|path| path.expect("a route is written out")).collect();
        let document: Value = serde_json::from_str(document).expect("JSON");
        let described: BTreeSet<&str> =
            document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
        assert_eq!(routes, described);
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, whole: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(path) = members.get("$ref").and_then(Value::as_str) {
                    let found = path.strip_prefix('#').and_then(|pointer| whole.pointer(pointer));
                    assert!(found.is_some(), "{path} leads nowhere");
                }
                members.values().for_each(|member| walk(member, whole));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, whole)),
            _ => {}
        }
    }
    for text in [OPENAPI, ADMIN_OPENAPI] {
        let document = Description::new(text).document;
        walk(&document, &document);
    }
}

#[test]
fn what_is_described_twice_is_the_same() {
    let [messages, public, admin] =
        [MESSAGES, OPENAPI, ADMIN_OPENAPI].map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
    let problem = &public["components"]["schemas"]["Problem"];
    assert_eq!(&admin["components"]["schemas"]["Problem"], problem);
    assert_eq!(problem["properties"]["code"]["enum"], messages["$defs"]["errorCode"]["enum"]);
    assert_eq!(problem["properties"]["closeCode"]["enum"], messages["$defs"]["closeCode"]["enum"]);
    assert_eq!(public["components"]["schemas"]["RoomName"], messages["$defs"]["roomName"]);
}
