//! Each metric moves when what it counts happens.

use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use wigwag::client::{Connection, Endpoint, Error, Event, Http1, Via};
use wigwag::config::Config;
use wigwag::protocol::RoomName;
use wigwag::secret::SecretSource;

use crate::relay::{Mode, Network};
use crate::support::{TestServer, config, within};

/// With an admin listener.
pub(crate) fn observed() -> Config {
    Config { admin: Some("127.0.0.1:0".parse().expect("an address")), ..config() }
}

pub(crate) fn header(name: HeaderName, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a value"))])
}

/// What the operator's tools ask.
pub(crate) struct Operator(Http1);

impl Operator {
    pub(crate) async fn of(server: &TestServer) -> Self {
        let port = server.addresses.admin.expect("an admin listener").port();
        let endpoint = Endpoint { encrypted: false, host: "127.0.0.1".into(), port };
        Operator(within(Http1::connect(&endpoint, &server.trust.tls)).await.expect("a connection"))
    }

    pub(crate) async fn get(&mut self, path: &str, headers: &HeaderMap) -> (StatusCode, HeaderMap, String) {
        let response = within(self.0.request(Method::GET, path, headers)).await.expect("an answer");
        let (head, body) = response.into_parts();
        (head.status, head.headers, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    /// Has the server do something.
    pub(crate) async fn post(&mut self, path: &str, headers: &HeaderMap) -> StatusCode {
        within(self.0.request(Method::POST, path, headers)).await.expect("an answer").status()
    }

    /// A sample of the metrics, by its whole name; 0 if it is not there yet.
    async fn sample(&mut self, series: &str) -> f64 {
        let (_, _, text) = self.get("/metrics", &HeaderMap::new()).await;
        sample(&text, series)
    }

    /// Waits until a sample is what it must become.
    pub(crate) async fn becomes(&mut self, series: &str, wanted: impl Fn(f64) -> bool) {
        within(async { while !wanted(self.sample(series).await) {} }).await;
    }
}

fn sample(text: &str, series: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.map_or(0.0, |value| value.parse().expect("a number"))
}

pub(crate) async fn say(session: &mut Connection, line: &str) {
    session.send(line).await.expect("sent");
}

pub(crate) async fn hear(session: &mut Connection, wanted: &str) -> Value {
    loop {
        if let Event::Message(text) = within(session.recv()).await.expect("the session goes on") {
            let message: Value = serde_json::from_str(&text).expect("JSON");
            if message["type"] == wanted {
                return message;
            }
        }
    }
}

/// Joins; returns the ticket as well.
pub(crate) async fn join(server: &TestServer, via: Via, room: &str) -> (Connection, String) {
    let mut session = server.connect(via, room).await;
    say(&mut session, r#"{"type":"join"}"#).await;
    let ticket = hear(&mut session, "joined").await["ticket"].as_str().expect("a ticket").to_owned();
    (session, ticket)
}

async fn resume(server: &TestServer, via: Via, room: &str, ticket: &str) -> (Connection, String) {
    let mut session = server.connect(via, room).await;
    say(&mut session, &format!(r#"{{"type":"resume","ticket":"{ticket}","seq":0}}"#)).await;
    let ticket = hear(&mut session, "resumed").await["ticket"].as_str().expect("a ticket").to_owned();
    (session, ticket)
}

#[tokio::test]
async fn who_joins_moves_and_resumes_is_counted_and_timed() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    let entries =
        |transport: &str, how: &str| format!("wigwag_entries_total{{transport=\"{transport}\",how=\"{how}\"}}");
    for (from, to) in [(Via::WebSocketH2, Via::WebTransport), (Via::EventStreamH2, Via::LongPollH2)] {
        let (first, second) = (from.transport().name(), to.transport().name());
        let (_replaced, ticket) = join(&server, from, "moves").await;
        assert_eq!(operator.sample(&entries(first, "join")).await, 1.0);
        let (moved, ticket) = resume(&server, to, "moves", &ticket).await;
        assert_eq!(operator.sample(&entries(second, "move")).await, 1.0);
        drop(moved);
        // A poller is expected until two heartbeats after its wait.
        if to == Via::WebTransport {
            operator.becomes("wigwag_seats{state=\"away\"}", |away| away == 1.0).await;
            let _resumed = resume(&server, from, "moves", &ticket).await;
            assert_eq!(operator.sample(&entries(first, "resume")).await, 1.0);
        }
        let timed = format!("wigwag_join_duration_seconds_count{{transport=\"{second}\"}}");
        assert_eq!(operator.sample(&timed).await, 1.0);
    }
    let timed = "wigwag_join_duration_seconds_count{transport=\"websocket-h2\"}";
    assert_eq!(operator.sample(timed).await, 2.0, "a join and a resume");
    assert!(operator.sample("wigwag_join_duration_seconds_sum{transport=\"websocket-h2\"}").await > 0.0);
    server.stop().await;
}

#[tokio::test]
async fn openings_refused_by_status_are_counted_by_transport_and_code() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    let foreign = header(ORIGIN, "https://evil.example");
    for via in [Via::WebTransport, Via::WebSocketH3, Via::WebSocketH2, Via::WebSocketH1] {
        let refused = server.try_connect(via, "demo", &foreign).await;
        assert!(matches!(refused, Err(Error::Refused(_))));
        let series =
            format!("wigwag_refused_openings_total{{transport=\"{}\",code=\"forbidden\"}}", via.transport().name());
        assert_eq!(operator.sample(&series).await, 1.0);
    }
    // What the first line shows, after the head was right.
    let mut session = server.connect(Via::EventStreamH2, "demo").await;
    say(&mut session, r#"{"type":"ping"}"#).await;
    assert_eq!(hear(&mut session, "closed").await["code"], "badRequest");
    let series = "wigwag_refused_openings_total{transport=\"event-stream\",code=\"badRequest\"}";
    assert_eq!(operator.sample(series).await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn one_message_in_sixteen_is_timed_from_queue_to_transport() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    for via in [Via::WebTransport, Via::WebSocketH2, Via::EventStreamH2] {
        let (mut alice, _) = join(&server, Via::WebSocketH1, via.name()).await;
        let (mut bob, _) = join(&server, via, via.name()).await;
        for id in 1..=33 {
            say(&mut alice, &format!(r#"{{"type":"message","id":{id},"data":{id}}}"#)).await;
            assert_eq!(hear(&mut bob, "message").await["data"], id);
        }
        let series =
            |what: &str| format!("wigwag_relay_duration_seconds_{what}{{transport=\"{}\"}}", via.transport().name());
        assert_eq!(operator.sample(&series("count")).await, 3.0, "the 1st, the 17th and the 33rd");
        assert!(operator.sample(&series("sum")).await > 0.0);
    }
    let series = "wigwag_relay_duration_seconds_count{transport=\"websocket-h1\"}";
    assert_eq!(operator.sample(series).await, 0.0, "answers are no relayed messages");
    server.stop().await;
}

#[tokio::test]
async fn what_waited_for_a_client_to_come_back_is_not_timed() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    let (mut alice, _) = join(&server, Via::WebSocketH1, "demo").await;
    let (bob, ticket) = join(&server, Via::WebSocketH2, "demo").await;
    drop(bob);
    hear(&mut alice, "peerAway").await;
    for id in 1..=3 {
        say(&mut alice, &format!(r#"{{"type":"message","id":{id},"data":{id}}}"#)).await;
        hear(&mut alice, "ok").await;
    }
    assert_eq!(operator.sample("wigwag_queued_messages").await, 3.0);
    assert!(operator.sample("wigwag_queued_bytes").await > 100.0);
    let (mut bob, _) = resume(&server, Via::WebSocketH2, "demo", &ticket).await;
    for id in 1..=3 {
        assert_eq!(hear(&mut bob, "message").await["data"], id);
    }
    assert_eq!(operator.sample("wigwag_queued_messages").await, 0.0);
    assert_eq!(operator.sample("wigwag_queued_bytes").await, 0.0);
    assert_eq!(operator.sample("wigwag_relay_duration_seconds_count{transport=\"websocket-h2\"}").await, 0.0);
    server.stop().await;
}

#[tokio::test]
async fn rooms_and_seats_are_counted_as_they_are() {
    let mut settings = observed();
    settings.resume_window = Duration::from_millis(200);
    let server = TestServer::start_with(settings).await;
    let mut operator = Operator::of(&server).await;
    assert_eq!(operator.sample("wigwag_rooms").await, 0.0);
    let (mut alice, _) = join(&server, Via::WebSocketH2, "one").await;
    let (bob, _) = join(&server, Via::LongPollH1, "one").await;
    let (carol, _) = join(&server, Via::WebTransport, "two").await;
    assert_eq!(operator.sample("wigwag_rooms").await, 2.0);
    assert_eq!(operator.sample("wigwag_seats{state=\"here\"}").await, 3.0);
    drop(carol);
    operator.becomes("wigwag_rooms", |rooms| rooms == 1.0).await;
    assert_eq!(operator.sample("wigwag_seats{state=\"here\"}").await, 2.0);
    assert_eq!(operator.sample("wigwag_seats{state=\"away\"}").await, 0.0);
    say(&mut alice, r#"{"type":"leave","id":1}"#).await;
    hear(&mut alice, "ok").await;
    drop(bob);
    assert_eq!(operator.sample("wigwag_seats{state=\"here\"}").await, 1.0, "a poller is expected for a while");
    let sessions = |transport: &str| format!("wigwag_open_sessions{{transport=\"{transport}\"}}");
    assert_eq!(operator.sample(&sessions("long-poll")).await, 1.0, "between two polls, too");
    assert_eq!(operator.sample(&sessions("websocket-h2")).await, 0.0);
    server.stop().await;
}

#[tokio::test]
async fn rooms_that_have_ended_are_counted_while_they_are_known_and_what_they_take() {
    let mut settings = observed();
    settings.timelines.keep = Duration::from_millis(300);
    let server = TestServer::start_with(settings).await;
    let mut operator = Operator::of(&server).await;
    assert_eq!(operator.sample("wigwag_timeline_bytes").await, 0.0);
    let (mut alice, _) = join(&server, Via::WebSocketH2, "brief").await;
    let open = operator.sample("wigwag_timeline_bytes").await;
    assert!(open > 0.0, "{open}");
    say(&mut alice, r#"{"type":"leave","id":1}"#).await;
    hear(&mut alice, "ok").await;
    operator.becomes("wigwag_ended_rooms", |rooms| rooms == 1.0).await;
    assert!(operator.sample("wigwag_timeline_bytes").await > open, "the name is kept as well");
    operator.becomes("wigwag_ended_rooms", |rooms| rooms == 0.0).await;
    assert_eq!(operator.sample("wigwag_timeline_bytes").await, 0.0);
    server.stop().await;
}

/// As troubleshooting reads it: on which transports they are at the moment, those who poll between two polls, too.
#[tokio::test]
async fn open_sessions_are_counted_by_transport() {
    let mut settings = observed();
    settings.resume_window = Duration::from_millis(200);
    let server = TestServer::start_with(settings).await;
    let mut operator = Operator::of(&server).await;
    let open = |transport: &str| format!("wigwag_open_sessions{{transport=\"{transport}\"}}");
    for via in [Via::WebTransport, Via::WebSocketH3, Via::WebSocketH2, Via::WebSocketH1, Via::EventStreamH2] {
        let series = open(via.transport().name());
        assert_eq!(operator.sample(&series).await, 0.0);
        let (session, _) = join(&server, via, via.name()).await;
        assert_eq!(operator.sample(&series).await, 1.0, "{}", via.name());
        drop(session);
        operator.becomes(&series, |open| open == 0.0).await;
    }
    // Whoever polls has been answered, and has not asked again.
    let (mut alice, ticket) = join(&server, Via::LongPollH2, "polls").await;
    assert_eq!(operator.sample(&open("long-poll")).await, 1.0, "between two polls");
    say(&mut alice, r#"{"type":"ping","id":1}"#).await;
    hear(&mut alice, "pong").await;
    assert_eq!(operator.sample(&open("long-poll")).await, 1.0, "later ones count the same");
    assert_eq!(operator.sample("wigwag_sessions_total{transport=\"long-poll\"}").await, 1.0);
    let (_moved, _) = resume(&server, Via::WebSocketH2, "polls", &ticket).await;
    assert_eq!(operator.sample(&open("long-poll")).await, 0.0);
    assert_eq!(operator.sample(&open("websocket-h2")).await, 1.0);
    server.stop().await;
}

/// Without a zero to begin with, Prometheus does not see the first burst.
#[tokio::test]
async fn refusals_and_reloads_are_told_before_the_first_one() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    let (_, _, text) = operator.get("/metrics", &HeaderMap::new()).await;
    let has = |line: &str| text.lines().any(|known| known == line);
    for reason in ["connections", "sessions-per-second", "flood", "proxy-header", "address-joins", "address-sessions"] {
        assert!(has(&format!("wigwag_refusals_total{{reason=\"{reason}\"}} 0")), "{reason}\n{text}");
    }
    for what in ["certificates", "token-keys", "settings"] {
        assert!(has(&format!("wigwag_last_reload_successful{{what=\"{what}\"}} 1")), "{what}\n{text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn milestones_are_counted_once_and_first_media_timed_by_transport_and_candidates() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    let count = |milestone: &str, candidate: &str| {
        format!("wigwag_milestones_total{{milestone=\"{milestone}\",candidate_type=\"{candidate}\"}}")
    };
    for via in [Via::WebTransport, Via::EventStreamH2, Via::LongPollH1] {
        let (mut alice, _) = join(&server, via, via.name()).await;
        let (_bob, _) = join(&server, Via::WebSocketH1, via.name()).await;
        let bob = hear(&mut alice, "peerJoined").await["peer"].as_str().expect("a peer").to_owned();
        let told = |id: u32, name: &str, more: &str| {
            format!(r#"{{"type":"milestone","id":{id},"peer":"{bob}","milestone":"{name}","afterMs":1250{more}}}"#)
        };
        // The second is answered, and not counted again.
        for (id, name, more) in [
            (1, "connected", r#","candidateType":"relay""#),
            (2, "media", r#","candidateType":"relay""#),
            (2, "media", ""),
            (3, "failed", ""),
        ] {
            say(&mut alice, &told(id, name, more)).await;
            assert_eq!(hear(&mut alice, "ok").await["id"], id);
        }
        let series = |what: &str| {
            let transport = via.transport().name();
            format!("wigwag_time_to_first_media_seconds_{what}{{transport=\"{transport}\",candidate_type=\"relay\"}}")
        };
        assert_eq!((operator.sample(&series("count")).await, operator.sample(&series("sum")).await), (1.0, 1.25));
        // What is absurd, or of somebody who is not there, does not count.
        say(&mut alice, &told(4, "media", "0000000")).await;
        assert_eq!(hear(&mut alice, "error").await["code"], "badRequest");
        say(&mut alice, &told(5, "media", "").replace(&bob, "0197a000-0000-7000-8000-000000000001")).await;
        assert_eq!(hear(&mut alice, "error").await["code"], "peerGone");
    }
    let counts =
        [("connected", "relay", 3.0), ("media", "relay", 3.0), ("media", "unknown", 0.0), ("failed", "unknown", 3.0)];
    for (milestone, candidate, expected) in counts {
        assert_eq!(operator.sample(&count(milestone, candidate)).await, expected, "{milestone} {candidate}");
    }
    server.stop().await;
}

/// Lost, closed by the client, left or refused: each transport's end is counted once.
#[tokio::test]
async fn transports_that_end_are_counted_by_how_they_did() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    let closes = |code: &str| format!("wigwag_closes_total{{transport=\"websocket-h2\",code=\"{code}\"}}");
    let (cut, _) = join(&server, Via::WebSocketH2, "ends").await;
    assert_eq!(operator.sample(&closes("lost")).await, 0.0);
    // The whole connection goes, without a Close.
    drop(cut);
    operator.becomes(&closes("lost"), |count| count == 1.0).await;

    let (closed, _) = join(&server, Via::WebSocketH2, "ends").await;
    within(closed.close()).await.expect("closed");
    operator.becomes(&closes("client"), |count| count == 1.0).await;
    let (mut left, _) = join(&server, Via::WebSocketH2, "ends").await;
    say(&mut left, r#"{"type":"leave","id":1}"#).await;
    operator.becomes(&closes("left"), |count| count == 1.0).await;
    let mut refused = server.connect(Via::WebSocketH2, "ends").await;
    say(&mut refused, r#"{"type":"ping"}"#).await;
    operator.becomes(&closes("badRequest"), |count| count == 1.0).await;
    assert_eq!(operator.sample(&closes("lost")).await, 1.0);
    assert_eq!(operator.sample(&closes("client")).await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn handshakes_are_timed_by_protocol() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    server.connect(Via::WebSocketH2, "demo").await;
    server.connect(Via::WebSocketH1, "demo").await;
    server.connect(Via::WebTransport, "demo").await;
    for (protocol, count) in [("tls", 2.0), ("h3", 1.0)] {
        let series = |what: &str| format!("wigwag_handshake_duration_seconds_{what}{{protocol=\"{protocol}\"}}");
        assert_eq!(operator.sample(&series("count")).await, count);
        assert!(operator.sample(&series("sum")).await > 0.0);
    }
    server.stop().await;
}

#[tokio::test]
async fn packets_that_a_network_loses_are_counted() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    let network = Network::to(&server).await;
    let room = RoomName::parse("lossy").expect("a name");
    let headers = HeaderMap::new();
    let open = Connection::open(&network.quic, &room, Via::WebTransport, &server.trust, &headers);
    let mut bob = within(open).await.expect("it opens");
    say(&mut bob, r#"{"type":"join"}"#).await;
    hear(&mut bob, "joined").await;
    let (mut alice, _) = join(&server, Via::WebSocketH2, "lossy").await;
    network.udp(Mode::Swallow);
    for id in 1..=8 {
        say(&mut alice, &format!(r#"{{"type":"message","id":{id},"data":{id}}}"#)).await;
        hear(&mut alice, "ok").await;
    }
    // Written, and lost on the way.
    operator.becomes("wigwag_queued_messages", |queued| queued == 0.0).await;
    network.udp(Mode::Open);
    for id in 1..=8 {
        assert_eq!(hear(&mut bob, "message").await["data"], id);
    }
    assert_eq!(operator.sample("wigwag_quic_rtt_seconds_count").await, 0.0, "not looked at yet");
    say(&mut bob, r#"{"type":"leave","id":1}"#).await;
    hear(&mut bob, "ok").await;
    drop(bob);
    operator.becomes("wigwag_quic_rtt_seconds_count", |count| count == 1.0).await;
    let (sent, lost) = (
        operator.sample("wigwag_quic_sent_packets_total").await,
        operator.sample("wigwag_quic_lost_packets_total").await,
    );
    assert!(lost >= 1.0 && sent > lost, "{lost} of {sent}");
    server.stop().await;
}

#[tokio::test]
async fn metrics_come_in_both_formats_and_tell_of_the_process() {
    let server = TestServer::start_with(observed()).await;
    let mut operator = Operator::of(&server).await;
    let open_metrics =
        header(ACCEPT, "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3");
    let (_, headers, newer) = operator.get("/metrics", &open_metrics).await;
    assert_eq!(headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(newer.ends_with("# EOF\n") && newer.contains("# TYPE wigwag_reloads counter\n"), "{newer}");
    let (_, headers, older) = operator.get("/metrics", &HeaderMap::new()).await;
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(!older.contains("# EOF") && older.contains("# TYPE wigwag_reloads_total counter\n"), "{older}");
    let version = format!("wigwag_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(sample(&older, &version), 1.0);
    if cfg!(target_os = "linux") {
        assert!(sample(&older, "process_resident_memory_bytes") > 1_000_000.0);
        assert!(sample(&older, "process_open_fds") > 3.0);
        assert!(sample(&older, "process_max_fds") >= sample(&older, "process_open_fds"));
        assert!(sample(&older, "process_cpu_seconds_total") > 0.0);
        assert!(sample(&older, "process_start_time_seconds") > 1.7e9);
    }
    assert_eq!(sample(&older, "wigwag_draining"), 0.0);
    server.context.drain.raise();
    assert_eq!(operator.sample("wigwag_draining").await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn metrics_are_told_to_who_shows_the_token_and_health_to_everybody() {
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "long-and-random\n").expect("written");
    let admin_token = Some(SecretSource::File(token.path().to_owned()));
    let server = TestServer::start_with(Config { admin_token, ..observed() }).await;
    let mut operator = Operator::of(&server).await;
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(operator.get(path, &HeaderMap::new()).await.0, StatusCode::OK, "{path}");
    }
    for wrong in
        ["Bearer ", "Bearer long-and-rando", "Bearer long-and-random2", "long-and-random", "Basic long-and-random"]
    {
        let (status, headers, body) = operator.get("/metrics", &header(AUTHORIZATION, wrong)).await;
        assert_eq!((status, headers["www-authenticate"].to_str().expect("text")), (StatusCode::UNAUTHORIZED, "Bearer"));
        assert!(!body.contains("wigwag_"), "{body}");
    }
    assert_eq!(operator.get("/metrics", &HeaderMap::new()).await.0, StatusCode::UNAUTHORIZED);
    let (status, _, text) = operator.get("/metrics", &header(AUTHORIZATION, "Bearer long-and-random")).await;
    assert!(status == StatusCode::OK && text.contains("wigwag_build_info"), "{text}");
    server.stop().await;
}

/// What a text asks for: metrics, each with the labels that it is narrowed by and the values that these may have.
fn selectors<'a>(text: &'a str) -> Vec<(&'a str, Vec<(&'a str, &'a str)>)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = |at: &usize| !text[..*at].ends_with(word);
    let starts = ["wigwag_", "process_"].iter().flat_map(|prefix| text.match_indices(prefix).map(|(at, _)| at));
    let selector = |at: usize| {
        let (name, rest) = text[at..].split_at(text[at..].find(|c: char| !word(c)).unwrap_or(text.len() - at));
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
        let pair = |one: &'a str| one.split_once('=').map(|(key, value)| (key, value.trim_matches(['~', '"'])));
        (name, inside.split(',').filter_map(pair).collect())
    };
    starts.filter(begins).map(selector).collect()
}

/// The dashboard and the alerts name metrics, labels and values that are there. Some metrics are there only once what they count
/// has happened.
#[tokio::test]
async fn the_dashboard_and_the_alerts_ask_for_what_there_is() {
    // A node of a cluster that cannot be reached tells of it all the same.
    let cluster = Some(crate::cluster::nats::policy("nats://127.0.0.1:1"));
    let server = TestServer::start_with(Config { cluster, ..observed() }).await;
    let mut operator = Operator::of(&server).await;
    let (mut alice, _) = join(&server, Via::WebTransport, "demo").await;
    let (mut bob, _) = join(&server, Via::WebSocketH2, "demo").await;
    say(&mut alice, r#"{"type":"message","id":1,"data":1}"#).await;
    let from = hear(&mut bob, "message").await["from"].clone();
    say(&mut bob, &format!(r#"{{"type":"milestone","id":1,"peer":{from},"milestone":"media","afterMs":400}}"#)).await;
    hear(&mut bob, "ok").await;
    let (_, _, text) = operator.get("/metrics", &HeaderMap::new()).await;
    // What has not happened yet is not described either.
    let known = |name: &str| {
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        let rarely = ["refusals_total", "handshake_failures_total", "closes_total", "refused_openings_total"];
        text.contains(&format!("# TYPE {base} ")) || rarely.iter().any(|rare| name == format!("wigwag_{rare}"))
    };
    // Those that Prometheus adds, and those of the samples.
    let has = |name: &str, key: &str, value: &str| {
        let samples: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).collect();
        let told = |value: &str| samples.iter().any(|line| line.contains(&format!("{key}=\"{value}\"")));
        ["job", "instance"].contains(&key) || samples.is_empty() || value.split('|').all(told)
    };
    let dashboard: Value = serde_json::from_str(include_str!("../packaging/grafana.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let drawn: Vec<_> = panels
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().expect("an expression"))
        .collect();
    let drawn = drawn.join("\n");
    let alerts = include_str!("../packaging/alerts.yml");
    for (file, asked, least) in [("grafana.json", selectors(&drawn), 35), ("alerts.yml", selectors(alerts), 10)] {
        assert!(asked.len() >= least, "{file}: {}", asked.len());
        for (name, labels) in asked {
            assert!(known(name), "{file} asks for {name}");
            for &(key, value) in &labels {
                assert!(has(name, key, value), "{file} asks for {name} by {key}={value}");
            }
            let variables = [("job", "$job"), ("instance", "$instance")];
            assert!(
                file == "alerts.yml" || variables.iter().all(|variable| labels.contains(variable)),
                "{name} is not narrowed by what is chosen: {labels:?}"
            );
        }
    }
    server.stop().await;
}
