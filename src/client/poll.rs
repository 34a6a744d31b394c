//! Event stream and long poll, seen from the client: sessions over plain requests, here over HTTP/1.1.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::http::collect;
use super::{Endpoint, Error, Event, Http1, Trust};

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// How long the server is asked to wait when nothing is there, in seconds.
const WAIT: HeaderValue = HeaderValue::from_static("wait=25");

/// One session over plain requests. The first message that is sent opens it; a refusal by HTTP status is told as the
/// `closed` that the other transports would bring.
pub(super) struct Polling {
    endpoint: Endpoint,
    trust: Trust,
    path: String,
    headers: HeaderMap,
    /// The open event stream; `None` on a long poll, and before the first message.
    stream: Option<(hyper::body::Incoming, Http1)>,
    is_stream: bool,
    received: BytesMut,
    events: VecDeque<Event>,
    ticket: Option<HeaderValue>,
    seq: u64,
    left: bool,
}

impl Polling {
    pub(super) fn new(endpoint: &Endpoint, path: String, is_stream: bool, trust: &Trust, headers: &HeaderMap) -> Self {
        Polling {
            endpoint: endpoint.clone(),
            trust: trust.clone(),
            path,
            headers: headers.clone(),
            stream: None,
            is_stream,
            received: BytesMut::new(),
            events: VecDeque::new(),
            ticket: None,
            seq: 0,
            left: false,
        }
    }

    /// Sends one message: by the request that opens the session, or by one beside it.
    pub(super) async fn send(&mut self, message: &str) -> Result<(), Error> {
        if self.ticket.is_none() {
            return self.open(message.to_owned()).await;
        }
        if !self.is_stream && message.contains(r#""type":"leave""#) {
            // With the next poll: a seat that was left between two polls has nobody to tell `ok`.
            self.left = true;
            return self.poll(message).await;
        }
        let mut connection = Http1::connect(&self.endpoint, &self.trust.tls).await?;
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, NDJSON);
        headers.extend(self.ticket.clone().map(|ticket| (HeaderName::from_static("wigwag-ticket"), ticket)));
        let body = Bytes::from(message.to_owned());
        let response = connection.send(Method::POST, &format!("{}/messages", self.path), headers, body).await?;
        match response.status() {
            StatusCode::ACCEPTED => Ok(()),
            _ => Err(Error::Refused(Box::new(collect(response).await?))),
        }
    }

    /// Waits for the next message. Cancel safe on an event stream; a poll that is given up may have been answered.
    pub(super) async fn recv(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if self.left && !self.is_stream {
                return Ok(Event::Closed { code: None, reason: "left".into() });
            }
            if self.is_stream { self.read_stream().await? } else { self.poll("").await? }
        }
    }

    async fn open(&mut self, message: String) -> Result<(), Error> {
        let response = self.post(message).await?;
        match response {
            Ok(response) if self.is_stream => self.stream = Some(response),
            Ok((body, _connection)) => {
                let whole = body.collect().await?.to_bytes();
                self.lines(&whole, true);
            }
            Err(refusal) if refusal.status() == StatusCode::FORBIDDEN => return Err(Error::Refused(Box::new(refusal))),
            Err(refusal) => self.closed(&refusal),
        }
        Ok(())
    }

    /// One poll, which may bring a line of its own.
    async fn poll(&mut self, line: &str) -> Result<(), Error> {
        let ticket = self.ticket.as_ref().and_then(|ticket| ticket.to_str().ok()).unwrap_or_default();
        let resume = json!({"type": "resume", "ticket": ticket, "seq": self.seq});
        match self.post(format!("{resume}\n{line}")).await? {
            Ok((body, _connection)) => {
                let whole = body.collect().await?.to_bytes();
                self.lines(&whole, false);
            }
            Err(refusal) => self.closed(&refusal),
        }
        Ok(())
    }

    /// Posts to the room; the answer's body, or the refusal. The connection must live as long as the body.
    async fn post(&self, message: String) -> Result<Result<(hyper::body::Incoming, Http1), Response<Bytes>>, Error> {
        let mut connection = Http1::connect(&self.endpoint, &self.trust.tls).await?;
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, NDJSON);
        headers.insert(ACCEPT, if self.is_stream { HeaderValue::from_static("text/event-stream") } else { NDJSON });
        headers.entry(HeaderName::from_static("prefer")).or_insert(WAIT);
        let response = connection.send(Method::POST, &self.path, headers, Bytes::from(message)).await?;
        if response.status() != StatusCode::OK {
            return Ok(Err(collect(response).await?));
        }
        Ok(Ok((response.into_body(), connection)))
    }

    async fn read_stream(&mut self) -> Result<(), Error> {
        let Some((body, _)) = &mut self.stream else {
            self.events.push_back(Event::Closed { code: None, reason: String::new() });
            return Ok(());
        };
        match body.frame().await {
            None => self.stream = None,
            Some(frame) => {
                self.received.extend_from_slice(&frame?.into_data().unwrap_or_default());
                while let Some(end) = self.received.windows(2).position(|pair| pair == b"\n\n") {
                    let event = self.received.split_to(end + 2);
                    let data =
                        event.as_ref().split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data: "));
                    let data: Vec<u8> = data.collect::<Vec<_>>().concat();
                    self.message(&data, true);
                }
            }
        }
        Ok(())
    }

    fn lines(&mut self, whole: &[u8], opened: bool) {
        for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.message(line, opened);
        }
    }

    /// Takes one message in. The `resumed` of a poll that only continues the session is nobody's business.
    fn message(&mut self, text: &[u8], opened: bool) {
        let text = String::from_utf8_lossy(text).into_owned();
        let message: Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(ticket) = message["ticket"].as_str() {
            self.ticket = HeaderValue::try_from(ticket).ok();
            self.seq = self.seq.max(message["replayFrom"].as_u64().unwrap_or(1).saturating_sub(1));
        }
        self.seq = self.seq.max(message["seq"].as_u64().unwrap_or(0));
        let close_code = message["closeCode"].as_u64().and_then(|code| code.try_into().ok());
        if opened || message["type"] != "resumed" {
            self.events.push_back(Event::Message(text));
        }
        if message["type"] == "closed" {
            self.events.push_back(Event::Closed { code: close_code, reason: String::new() });
        }
    }

    /// A refusal by status, told as other transports tell it.
    fn closed(&mut self, refusal: &Response<Bytes>) {
        let mut problem: Value = serde_json::from_slice(refusal.body()).unwrap_or_default();
        let mut closed = json!({"type": "closed", "message": problem["detail"].take()});
        for member in ["code", "closeCode", "retryAfterMs"] {
            if !problem[member].is_null() {
                closed[member] = problem[member].take();
            }
        }
        self.message(closed.to_string().as_bytes(), true);
    }
}
