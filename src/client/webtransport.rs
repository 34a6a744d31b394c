//! Connections to a server over QUIC: ordinary requests over HTTP/3, and WebTransport sessions beside them.
//!
//! HTTP/3 is h3's on its stock adapter, not on the server's own: a server opens no streams in a session, so that nothing has
//! to be told apart here but datagrams, and each end is a check of the other.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use h3::ConnectionState as _;
use h3::client::{RequestStream, SendRequest};
use h3::error::{Code, ConnectionError, StreamError};
use h3::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Trust;
use super::datagrams::{Datagrams, Inbox};
use super::download::{Download, Http3Response};
use super::http::{BODY_BYTES, Endpoint, Error};
use crate::protocol::PROTOCOL;
use crate::transport::quic::stream::poll_chunk;
use crate::transport::quic::varint;
use crate::transport::webtransport::capsule;
use crate::transport::webtransport::lines::Lines;

const AVAILABLE_PROTOCOLS: HeaderName = HeaderName::from_static("wt-available-protocols");

/// What a bidirectional stream of a session begins with (draft-ietf-webtrans-http3, 4.3).
const SESSION_STREAM: u64 = 0x41;

/// The most that a server's message may have: the whole picture of a large room is larger than any client's message.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a response's header list.
const HEADER_BYTES: u32 = 64 * 1024;
/// How long the server may take for what belongs to opening a connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// A server that is silent for so long is gone; asked for a sign of life three times as often.
const IDLE: Duration = Duration::from_secs(15);
/// What a session may send to us and nobody has read: several datagrams.
const DATAGRAM_BUFFER: usize = 256 * 1024;

/// An HTTP/3 connection (RFC 9114). Cheap to clone; it is closed when the last clone and all that it opened are gone.
#[derive(Clone)]
pub struct Http3 {
    requests: SendRequest<h3_quinn::OpenStreams, Bytes>,
    quic: quinn::Connection,
    datagrams: Arc<Datagrams>,
    settings: watch::Receiver<Option<Settings>>,
    authority: String,
}

type Driver = h3::client::Connection<h3_quinn::Connection, Bytes>;

/// What a server's SETTINGS say, as far as sessions need it.
#[derive(Debug, Clone, Copy)]
struct Settings {
    /// RFC 9220, 3.
    extended_connect: bool,
    /// RFC 9297, 2.1.1.
    datagrams: bool,
    /// SETTINGS_ENABLE_WEBTRANSPORT of draft-ietf-webtrans-http3-02, which h3 reads, and servers send for browsers.
    webtransport: bool,
}

impl Http3 {
    /// Connects, trusting the certificates whose hashes are in `trust`, or without hashes its authorities.
    ///
    /// # Errors
    /// Whatever went wrong below HTTP or in the handshake.
    pub async fn connect(endpoint: &Endpoint, trust: &Trust) -> Result<Self, Error> {
        Self::over(dial(endpoint, trust).await?, endpoint.authority()).await
    }

    /// Speaks HTTP/3 on a connection that was opened with a [`client_config`]; `authority` is the server's name and port.
    ///
    /// # Errors
    /// If the connection is lost meanwhile.
    pub async fn over(quic: quinn::Connection, authority: String) -> Result<Self, Error> {
        // Of WebTransport a client need not say anything, and h3's cannot.
        let mut builder = h3::client::builder();
        builder.send_grease(false).enable_datagram(true).max_field_section_size(HEADER_BYTES.into());
        let (driver, requests) = builder.build(h3_quinn::Connection::new(quic.clone())).await.map_err(http3)?;
        let datagrams = Arc::new(Datagrams::default());
        let (tell, settings) = watch::channel(None);
        // Both end with the connection, which h3 closes when the last that sends requests is gone.
        tokio::spawn(receive_datagrams(quic.clone(), Arc::clone(&datagrams)));
        tokio::spawn(async move {
            let ended = drive(driver, tell).await;
            tracing::debug!(error = %ended, "HTTP/3 connection ended");
        });
        Ok(Http3 { requests, quic, datagrams, settings, authority })
    }

    /// Sends one request without a body and reads the whole response.
    ///
    /// # Errors
    /// [`Error::Http3`], or [`Error::Body`] for a body of more than 1 MiB.
    pub async fn request(&self, method: Method, path: &str, headers: &HeaderMap) -> Result<Response<Bytes>, Error> {
        let mut request = self.head(method, path)?;
        request.headers_mut().extend(headers.clone());
        let (response, mut stream) = self.answer_to(request).await?;
        read(response, &mut stream).await
    }

    /// Asks for something large; the body is read as it comes.
    ///
    /// # Errors
    /// [`Error::Http3`].
    pub async fn download(&self, path: &str, headers: &HeaderMap) -> Result<Response<Download>, Error> {
        let mut request = self.head(Method::GET, path)?;
        request.headers_mut().extend(headers.clone());
        let (response, stream) = self.answer_to(request).await?;
        Ok(response.map(|()| Download::http3(stream, self.clone())))
    }

    /// Posts `body`; the answer's body is read as it comes.
    ///
    /// # Errors
    /// [`Error::Http3`].
    pub(super) async fn post(&self, path: &str, headers: &HeaderMap, body: Bytes) -> Result<Response<Download>, Error> {
        let mut request = self.head(Method::POST, path)?;
        request.headers_mut().extend(headers.clone());
        let (response, stream) = self.answer(request, body).await?;
        Ok(response.map(|()| Download::http3(stream, self.clone())))
    }

    /// Sends a request without a body and waits for the head of the answer.
    async fn answer_to(&self, request: Request<()>) -> Result<(Response<()>, Http3Response), Error> {
        self.answer(request, Bytes::new()).await
    }

    async fn answer(&self, request: Request<()>, body: Bytes) -> Result<(Response<()>, Http3Response), Error> {
        let mut stream = self.requests.clone().send_request(request).await.map_err(http3)?;
        if !body.is_empty() {
            stream.send_data(body).await.map_err(http3)?;
        }
        stream.finish().await.map_err(http3)?;
        let mut response = stream.recv_response().await.map_err(http3)?;
        // Early hints and their like (RFC 9114, 4.1).
        while response.status().is_informational() {
            response = stream.recv_response().await.map_err(http3)?;
        }
        Ok((response, stream))
    }

    /// Opens a WebTransport session. `headers` go along (`Origin`, `Authorization`) and replace those of the same name.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's answer if that is not 200.
    pub async fn webtransport(&self, path: &str, headers: &HeaderMap) -> Result<WebTransport, Error> {
        let mut session = self.begin_webtransport(path, headers).await?;
        poll_fn(|cx| session.poll_opened(cx)).await?;
        Ok(session)
    }

    /// Asks for a WebTransport session and opens its stream; it takes what is said at once (draft-ietf-webtrans-http3, 4.6), and
    /// brings the server's answer when it is there.
    ///
    /// # Errors
    /// Whatever kept it from being asked for.
    pub async fn begin_webtransport(&self, path: &str, headers: &HeaderMap) -> Result<WebTransport, Error> {
        self.wait_for_webtransport().await?;
        let mut request = self.head(Method::CONNECT, path)?;
        request.extensions_mut().insert(Protocol::WEB_TRANSPORT);
        let offer = HeaderValue::try_from(format!("\"{PROTOCOL}\"")).expect("the protocol's name is ASCII");
        request.headers_mut().insert(AVAILABLE_PROTOCOLS, offer);
        request.headers_mut().extend(headers.clone());
        let connect = self.requests.clone().send_request(request).await.map_err(http3)?;
        // The adapter knows the id only while it does not read.
        let id = connect.id().into_inner();
        let inbox = self.datagrams.open(id);
        WebTransport::open(self.clone(), ConnectStream { stream: connect, finished: false }, inbox).await
    }

    /// CONNECT with `:protocol` may only follow the server's SETTINGS (RFC 9220, 3).
    async fn wait_for_webtransport(&self) -> Result<(), Error> {
        let mut settings = self.settings.clone();
        let told = timeout(PATIENCE, settings.wait_for(Option::is_some)).await;
        match told.map(|told| told.map(|settings| *settings)) {
            Ok(Ok(Some(Settings { extended_connect: true, datagrams: true, webtransport: true }))) => Ok(()),
            Ok(Ok(_)) => Err(Error::Http3("the server does not offer WebTransport".into())),
            _ => Err(Error::Http3("the server sent no SETTINGS".into())),
        }
    }

    /// Waits until the connection is closed by the server or lost; says why.
    pub async fn closed(&self) -> String {
        self.quic.closed().await.to_string()
    }

    fn head(&self, method: Method, path: &str) -> Result<Request<()>, Error> {
        let uri = Uri::builder().scheme("https").authority(self.authority.as_str()).path_and_query(path).build();
        let mut request = Request::new(());
        *request.uri_mut() = uri.map_err(|error| Error::Url(error.to_string()))?;
        *request.method_mut() = method;
        *request.version_mut() = Version::HTTP_3;
        Ok(request)
    }
}

/// Runs a connection to its end, telling the server's SETTINGS once they are there.
async fn drive(mut driver: Driver, settings: watch::Sender<Option<Settings>>) -> ConnectionError {
    poll_fn(|cx| {
        let polled = driver.poll_close(cx);
        // h3 borrows those that have come, and makes up owned ones as long as none have.
        if settings.borrow().is_none()
            && let Cow::Borrowed(said) = driver.settings()
        {
            settings.send_replace(Some(Settings {
                extended_connect: said.enable_extended_connect(),
                datagrams: said.enable_datagram(),
                webtransport: said.enable_webtransport(),
            }));
        }
        polled
    })
    .await
}

async fn receive_datagrams(quic: quinn::Connection, datagrams: Arc<Datagrams>) {
    while let Ok(datagram) = quic.read_datagram().await {
        datagrams.deliver(datagram);
    }
}

type Connect = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

async fn read(head: Response<()>, stream: &mut Connect) -> Result<Response<Bytes>, Error> {
    let mut body = BytesMut::new();
    while let Some(mut data) = stream.recv_data().await.map_err(http3)? {
        if body.len() + data.remaining() > BODY_BYTES {
            return Err(Error::Body("more than 1 MiB".into()));
        }
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    Ok(head.map(|()| body.freeze()))
}

pub(super) fn http3(error: impl std::fmt::Display) -> Error {
    Error::Http3(error.to_string())
}

fn lost(error: StreamError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error.to_string())
}

/// Opens a QUIC connection to the first address of `endpoint` that answers.
pub(super) async fn dial(endpoint: &Endpoint, trust: &Trust) -> Result<quinn::Connection, Error> {
    let config = client_config(trust)?;
    let connect = |address| connect(address, endpoint.host.clone(), config.clone()).boxed();
    endpoint.first_to_answer(connect).await
}

async fn connect(address: SocketAddr, name: String, config: quinn::ClientConfig) -> Result<quinn::Connection, Error> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = quinn::Endpoint::client(local)?;
    let connecting = socket.connect_with(config, address, &name).map_err(|error| Error::Url(error.to_string()))?;
    timeout(PATIENCE, connecting).await.map_err(|_| Error::Http3("no answer in time".into()))?.map_err(http3)
}

/// How to connect by QUIC, trusting the certificates whose hashes are in `trust`, or without hashes its authorities.
///
/// # Errors
/// If the cipher suites of `trust` are not enough for QUIC.
pub fn client_config(trust: &Trust) -> Result<quinn::ClientConfig, Error> {
    let mut tls = trust.tls.clone();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    if !trust.hashes.is_empty() {
        let provider = Arc::clone(tls.crypto_provider());
        tls.dangerous().set_certificate_verifier(Arc::new(Pinned { hashes: trust.hashes.clone(), provider }));
    }
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| Error::Io(io::Error::other(error)))?;
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(0u32.into())
        .max_concurrent_uni_streams(8u32.into())
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .max_idle_timeout(IDLE.try_into().ok())
        .keep_alive_interval(Some(IDLE / 3));
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Trusts a certificate by its hash, and nothing else of it: what `serverCertificateHashes` is in a browser.
#[derive(Debug)]
struct Pinned {
    hashes: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let hash = ring::digest::digest(&ring::digest::SHA256, end_entity);
        if self.hashes.iter().any(|pinned| pinned == hash.as_ref()) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// One line of the stream.
    Message(Bytes),
    /// One datagram.
    Datagram(Bytes),
    /// The server closed the session; nothing follows.
    Closed {
        /// The close code; 0 when nothing was wrong, or none was given.
        code: u32,
        /// What a developer may want to read.
        reason: String,
    },
}

/// The CONNECT stream of a session.
struct ConnectStream {
    stream: Connect,
    /// Our side has ended as it should.
    finished: bool,
}

impl ConnectStream {
    /// Waits for the server to accept the session.
    async fn accepted(mut self) -> Result<Self, Error> {
        let response = self.stream.recv_response().await.map_err(http3)?;
        if response.status() != StatusCode::OK {
            return Err(Error::Refused(Box::new(read(response, &mut self.stream).await?)));
        }
        Ok(self)
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        self.stream.finish().await?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for ConnectStream {
    fn drop(&mut self) {
        // The adapter would end the stream as if the session had been closed.
        if !self.finished {
            self.stream.stop_stream(Code::H3_REQUEST_CANCELLED);
        }
    }
}

/// One WebTransport session with its one stream.
pub struct WebTransport {
    /// `None` until the server has accepted it.
    connect: Option<ConnectStream>,
    /// Until it is there.
    answer: Option<BoxFuture<'static, Result<ConnectStream, Error>>>,
    capsules: capsule::Decoder,
    inbox: Inbox,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    lines: Lines,
    stream_ended: bool,
    fed: BytesMut,
    connection: Http3,
}

impl WebTransport {
    async fn open(connection: Http3, connect: ConnectStream, inbox: Inbox) -> Result<Self, Error> {
        let (mut send, recv) = connection.quic.open_bi().await.map_err(http3)?;
        // The server hears of a stream by its first bytes.
        let mut header = BytesMut::new();
        varint::put(&mut header, SESSION_STREAM);
        varint::put(&mut header, inbox.session());
        send.write_chunk(header.freeze()).await.map_err(http3)?;
        Ok(WebTransport {
            connect: None,
            answer: Some(connect.accepted().boxed()),
            capsules: capsule::Decoder::default(),
            inbox,
            send,
            recv,
            lines: Lines::new(MESSAGE_BYTES),
            stream_ended: false,
            fed: BytesMut::new(),
            connection,
        })
    }

    pub(super) fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(answer) = &mut self.answer {
            let answer = ready!(answer.as_mut().poll(cx));
            self.answer = None;
            self.connect = Some(answer?);
        }
        Poll::Ready(Ok(()))
    }

    /// The CONNECT stream of a session that was accepted.
    fn connect(&mut self) -> io::Result<&mut ConnectStream> {
        self.connect.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Waits for the server's next message, or the end. Cancel safe.
    ///
    /// # Errors
    /// If the connection or the session ends without a word.
    pub async fn recv(&mut self) -> io::Result<Incoming> {
        let incoming = poll_fn(|cx| self.poll_recv(cx)).await?;
        if matches!(incoming, Incoming::Closed { .. }) {
            self.answer_close().await;
        }
        Ok(incoming)
    }

    /// Ends our side after the server has closed: it waits for that. Should it be gone, nothing is lost.
    pub(super) async fn answer_close(&mut self) {
        if let Some(connect) = &mut self.connect {
            let _ = connect.finish().await;
        }
    }

    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Incoming>> {
        ready!(self.poll_opened(cx)).map_err(io::Error::other)?;
        if let Poll::Ready(datagram) = self.inbox.poll_recv(cx) {
            return Poll::Ready(Ok(Incoming::Datagram(datagram)));
        }
        if !self.stream_ended {
            match self.poll_line(cx) {
                Poll::Ready(Ok(Some(line))) => return Poll::Ready(Ok(Incoming::Message(line))),
                // The other stream says why.
                Poll::Ready(Ok(None) | Err(_)) => self.stream_ended = true,
                Poll::Pending => {}
            }
        }
        loop {
            let Some(mut data) = ready!(self.connect()?.stream.poll_recv_data(cx)).map_err(lost)? else {
                return Poll::Ready(Ok(Incoming::Closed { code: 0, reason: String::new() }));
            };
            let data = data.copy_to_bytes(data.remaining());
            if let Some(closed) = self.capsules.push(&data).map_err(invalid)? {
                return Poll::Ready(Ok(Incoming::Closed { code: closed.code, reason: closed.reason }));
            }
        }
    }

    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if let Some(line) = self.lines.next().map_err(|_| invalid("a line is too long"))? {
                return Poll::Ready(Ok(Some(line)));
            }
            match ready!(poll_chunk(&mut self.recv, usize::MAX, cx))? {
                Some(chunk) => self.lines.push(chunk),
                None => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// Sends one message, waiting while the connection takes no more.
    ///
    /// # Errors
    /// If the session is closed.
    pub async fn send(&mut self, text: &str) -> io::Result<()> {
        self.feed(text);
        self.flush().await
    }

    /// Queues one message; [`flush`](Self::flush) sends all that are queued at once.
    pub fn feed(&mut self, text: &str) {
        self.fed.extend_from_slice(text.as_bytes());
        self.fed.extend_from_slice(b"\n");
    }

    /// Sends what was queued. Cancel safe: what is not sent stays queued.
    ///
    /// # Errors
    /// If the session is closed.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.fed.is_empty() {
            let written = ready!(Pin::new(&mut self.send).poll_write(cx, &self.fed))?;
            self.fed.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends one message as a datagram, which may be lost.
    ///
    /// # Errors
    /// If it does not fit one, or the session is closed.
    pub fn send_datagram(&self, text: &str) -> io::Result<()> {
        self.connection.quic.send_datagram(self.inbox.datagram(text.as_bytes())).map_err(io::Error::other)
    }

    /// Closes the session with `code` and waits for the server to end its side, dropping what it still sends.
    ///
    /// # Errors
    /// If the connection ends before.
    pub async fn close(mut self, code: u32, reason: &str) -> io::Result<()> {
        poll_fn(|cx| self.poll_opened(cx)).await.map_err(io::Error::other)?;
        let connect = self.connect()?;
        connect.stream.send_data(capsule::close(code, reason)).await.map_err(lost)?;
        connect.finish().await.map_err(lost)?;
        while connect.stream.recv_data().await.map_err(lost)?.is_some() {}
        Ok(())
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
