//! Connections to a server over TCP: ordinary requests, and the openings of WebSockets.
//!
//! One [`Http2`] carries any number of requests and WebSockets; an [`Http1`] carries requests one after the other, or becomes
//! one WebSocket.

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use futures_util::stream::FuturesUnordered;
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Download;
use super::download::whole;
use super::websocket::{Carrier, WebSocket, gathered};
use super::websocket_h2::Asked;
use super::webtransport::PATIENCE;
use crate::protocol::PROTOCOL;

/// The most that a response's body may have; signaling's are small.
pub(super) const BODY_BYTES: usize = 1024 * 1024;

/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;
/// What each has before the next (RFC 8305, 8).
const ADDRESS_DELAY: Duration = Duration::from_millis(250);

/// Why a connection, a request or an opening failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Below HTTP: the name, TCP or TLS.
    #[error("cannot connect")]
    Io(#[from] io::Error),
    /// The URL cannot be used.
    #[error("{0}")]
    Url(String),
    /// QUIC or HTTP/3 failed.
    #[error("HTTP/3: {0}")]
    Http3(String),
    /// HTTP/2 failed.
    #[error("HTTP/2 failed")]
    Http2(#[from] h2::Error),
    /// HTTP/1.1 failed.
    #[error("HTTP/1.1 failed")]
    Http1(#[from] hyper::Error),
    /// The server answered, but not as asked; the body of a refusal is problem+json.
    #[error("the server answered {}: {}", .0.status(), String::from_utf8_lossy(.0.body()))]
    Refused(Box<Response<Bytes>>),
    /// The response has more than a client wants to read.
    #[error("the response's body is too large or broken: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

/// Where a server is, read from an `http`, `https`, `ws` or `wss` URL.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Whether to speak TLS.
    pub encrypted: bool,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// Takes scheme, host and port from `url`.
    ///
    /// # Errors
    /// [`Error::Url`] if it is not absolute or its scheme is another one.
    pub fn of(url: &Uri) -> Result<Self, Error> {
        let (encrypted, default_port) = match url.scheme_str() {
            Some("https" | "wss") => (true, 443),
            Some("http" | "ws") => (false, 80),
            _ => return Err(Error::Url(format!("{url} is not an http, https, ws or wss URL"))),
        };
        let host = url.host().ok_or_else(|| Error::Url(format!("{url} names no host")))?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
            None if !host.is_empty() && !host.contains(['[', ']', ':']) => host,
            _ => return Err(Error::Url(format!("{url} names neither a host nor an address"))),
        };
        Ok(Endpoint { encrypted, host: host.to_owned(), port: url.port_u16().unwrap_or(default_port) })
    }

    async fn connect(&self) -> Result<TcpStream, Error> {
        let connect = |address| TcpStream::connect(address).map_err(Error::Io).boxed();
        let stream = self.first_to_answer(connect).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Connects to whichever address of the name answers first.
    pub(super) async fn first_to_answer<T>(
        &self,
        connect: impl Fn(SocketAddr) -> BoxFuture<'static, Result<T, Error>>,
    ) -> Result<T, Error> {
        let addresses = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        first_to_answer(addresses, connect).await
    }

    async fn connect_tls(&self, tls: &rustls::ClientConfig, alpn: &[u8]) -> Result<TlsStream<TcpStream>, Error> {
        let mut config = tls.clone();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from(self.host.clone()).map_err(|error| Error::Url(error.to_string()))?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, self.connect().await?).await?;
        Ok(stream)
    }

    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Tries addresses side by side, each a little after the one before (RFC 8305, 5).
async fn first_to_answer<T>(
    addresses: impl Iterator<Item = SocketAddr>,
    connect: impl Fn(SocketAddr) -> BoxFuture<'static, Result<T, Error>>,
) -> Result<T, Error> {
    let tries = addresses.take(ADDRESSES).enumerate().map(|(place, address)| {
        // It begins when it is polled.
        let connecting = connect(address);
        sleep(ADDRESS_DELAY * place as u32).then(|()| connecting)
    });
    let mut tries: FuturesUnordered<_> = tries.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address").into();
    while let Some(tried) = tries.next().await {
        match tried {
            Ok(connected) => return Ok(connected),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The headers of every WebSocket's opening, over either version; `extra` go along (`Origin`, `Authorization`) and replace
/// those of the same name.
pub(super) fn opening_headers(extra: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    headers.extend(extra.clone());
    headers
}

/// An HTTP/2 connection (RFC 9113) over TLS. Cheap to clone; it is closed when the last clone and all that it opened are gone.
#[derive(Clone)]
pub struct Http2 {
    requests: h2::client::SendRequest<Bytes>,
    /// Whether the server takes WebSockets, once it has said so or has not.
    takes_websockets: watch::Receiver<Option<bool>>,
    endpoint: Endpoint,
}

impl Http2 {
    /// Connects. Ordinary requests need not wait for the server's SETTINGS, and do not.
    ///
    /// # Errors
    /// Whatever went wrong below HTTP or in the handshake; a server that does not speak HTTP/2 over TLS is [`Error::Url`].
    pub async fn connect(endpoint: &Endpoint, tls: &rustls::ClientConfig) -> Result<Self, Error> {
        let stream = endpoint.connect_tls(tls, b"h2").await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(Error::Url(format!("{} does not speak HTTP/2", endpoint.authority())));
        }
        let (requests, connection) = h2::client::Builder::new()
            .initial_connection_window_size(16 * 1024 * 1024)
            .initial_window_size(256 * 1024)
            .enable_push(false)
            .handshake(stream)
            .await?;
        let (tell, takes_websockets) = watch::channel(None);
        let driving = drive(connection, requests.clone(), tell);
        tokio::spawn(async move {
            if let Err(error) = driving.await {
                tracing::debug!(%error, "HTTP/2 connection ended");
            }
        });
        Ok(Http2 { requests, takes_websockets, endpoint: endpoint.clone() })
    }

    /// Sends one request without a body and reads the whole response.
    ///
    /// # Errors
    /// [`Error::Http2`], or [`Error::Body`] for a body of more than 1 MiB.
    pub async fn request(&self, method: Method, path: &str, headers: &HeaderMap) -> Result<Response<Bytes>, Error> {
        let mut request = self.head("https", path)?;
        *request.method_mut() = method;
        request.headers_mut().extend(headers.clone());
        let (response, _) = self.requests.clone().ready().await?.send_request(request, true)?;
        read(response.await?).await
    }

    /// Asks for something large; the body is read as it comes.
    ///
    /// # Errors
    /// [`Error::Http2`].
    pub async fn download(&self, path: &str, headers: &HeaderMap) -> Result<Response<Download>, Error> {
        let mut request = self.head("https", path)?;
        request.headers_mut().extend(headers.clone());
        let (response, _) = self.requests.clone().ready().await?.send_request(request, true)?;
        Ok(response.await?.map(Download::http2))
    }

    /// Posts `body`; the answer's body is read as it comes.
    ///
    /// # Errors
    /// [`Error::Http2`].
    pub(super) async fn post(&self, path: &str, headers: &HeaderMap, body: Bytes) -> Result<Response<Download>, Error> {
        let mut request = self.head("https", path)?;
        *request.method_mut() = Method::POST;
        request.headers_mut().extend(headers.clone());
        let (response, mut send) = self.requests.clone().ready().await?.send_request(request, false)?;
        send.send_data(body, true)?;
        Ok(response.await?.map(Download::http2))
    }

    /// Opens a WebSocket by extended CONNECT (RFC 8441).
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's answer if that is not 200.
    pub async fn websocket(&self, path: &str, headers: &HeaderMap) -> Result<WebSocket, Error> {
        self.begin_websocket(path, headers).await?.opened().await
    }

    /// Asks for a WebSocket; it takes what is said at once, and brings the server's answer when it is there.
    ///
    /// # Errors
    /// Whatever kept it from being asked for.
    pub async fn begin_websocket(&self, path: &str, headers: &HeaderMap) -> Result<WebSocket, Error> {
        self.wait_for_websockets().await?;
        let mut request = self.head("https", path)?;
        *request.method_mut() = Method::CONNECT;
        *request.headers_mut() = opening_headers(headers);
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (response, send) = self.requests.clone().ready().await?.send_request(request, false)?;
        Ok(WebSocket::new(gathered(Asked::new(response, send))))
    }

    /// CONNECT with :protocol may only follow the server's SETTINGS (RFC 8441, 3).
    async fn wait_for_websockets(&self) -> Result<(), Error> {
        let mut takes_websockets = self.takes_websockets.clone();
        let told = timeout(PATIENCE, takes_websockets.wait_for(Option::is_some)).await;
        match told.map(|told| told.map(|takes| *takes)) {
            Ok(Ok(Some(true))) => Ok(()),
            Ok(Ok(_)) => {
                Err(Error::Url(format!("{} takes no WebSockets over HTTP/2 (RFC 8441)", self.endpoint.authority())))
            }
            Ok(Err(_)) => {
                // It knows why it ended.
                self.requests.clone().ready().await?;
                Err(Error::Io(io::ErrorKind::ConnectionReset.into()))
            }
            Err(_) => Err(Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the server sent no SETTINGS"))),
        }
    }

    fn head(&self, scheme: &str, path: &str) -> Result<Request<()>, Error> {
        let uri = Uri::builder().scheme(scheme).authority(self.endpoint.authority()).path_and_query(path).build();
        let uri = uri.map_err(|error| Error::Url(error.to_string()))?;
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        Ok(request)
    }
}

/// Runs a connection to its end, telling on the way whether the server takes WebSockets.
async fn drive(
    mut connection: h2::client::Connection<TlsStream<TcpStream>, Bytes>,
    requests: h2::client::SendRequest<Bytes>,
    takes_websockets: watch::Sender<Option<bool>>,
) -> Result<(), h2::Error> {
    let mut pings = connection.ping_pong().expect("taken once");
    // Its answer comes behind the server's SETTINGS, so that what they do not say then they never will.
    pings.send_ping(h2::Ping::opaque())?;
    let told = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(Some(ended));
        }
        let takes = requests.is_extended_connect_protocol_enabled();
        if takes || pings.poll_pong(cx).is_ready() {
            takes_websockets.send_replace(Some(takes));
            return Poll::Ready(None);
        }
        Poll::Pending
    });
    tokio::select! {
        ended = told => if let Some(ended) = ended { return ended },
        () = takes_websockets.closed() => {}
    }
    // It would keep the connection open.
    drop(requests);
    connection.await
}

pub(super) async fn read(response: Response<h2::RecvStream>) -> Result<Response<Bytes>, Error> {
    Ok(whole(response.map(Download::http2), BODY_BYTES).await?.0)
}

/// An upgraded connection. Nothing is said on it before the server's 101: what it refuses to upgrade it would read as the next request.
impl Carrier for TokioIo<hyper::upgrade::Upgraded> {}

/// An HTTP/1.1 connection (RFC 9112), with or without TLS.
pub struct Http1 {
    requests: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    authority: HeaderValue,
    _connection: JoinHandle<()>,
}

impl Http1 {
    /// Connects; `tls` is not used where the endpoint is in plain text.
    ///
    /// # Errors
    /// Whatever went wrong below HTTP.
    pub async fn connect(endpoint: &Endpoint, tls: &rustls::ClientConfig) -> Result<Self, Error> {
        let authority = HeaderValue::try_from(endpoint.authority()).map_err(|error| Error::Url(error.to_string()))?;
        if endpoint.encrypted {
            Self::over(endpoint.connect_tls(tls, b"http/1.1").await?, authority).await
        } else {
            Self::over(endpoint.connect().await?, authority).await
        }
    }

    async fn over<S>(stream: S, authority: HeaderValue) -> Result<Self, Error>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "HTTP/1.1 connection ended");
            }
        });
        Ok(Http1 { requests, authority, _connection: connection })
    }

    /// Sends one request without a body and reads the whole response.
    ///
    /// # Errors
    /// [`Error::Http1`], or [`Error::Body`] for a body of more than 1 MiB.
    pub async fn request(&mut self, method: Method, path: &str, headers: &HeaderMap) -> Result<Response<Bytes>, Error> {
        let response = self.send(method, path, headers.clone(), Bytes::new()).await?;
        collect(response).await
    }

    /// Posts a body and reads the whole response.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn post(&mut self, path: &str, headers: &HeaderMap, body: Bytes) -> Result<Response<Bytes>, Error> {
        let response = self.send(Method::POST, path, headers.clone(), body).await?;
        collect(response).await
    }

    /// Turns the connection into a WebSocket (RFC 6455).
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's answer if that is not 101.
    pub async fn websocket(mut self, path: &str, headers: &HeaderMap) -> Result<WebSocket, Error> {
        let mut headers = opening_headers(headers);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_KEY, key()?);
        let response = self.send(Method::GET, path, headers, Bytes::new()).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Refused(Box::new(collect(response).await?)));
        }
        Ok(WebSocket::new(TokioIo::new(hyper::upgrade::on(response).await?)))
    }

    /// Whether another request may be sent on it.
    pub fn is_open(&self) -> bool {
        !self.requests.is_closed()
    }

    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<hyper::body::Incoming>, Error> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error| Error::Url(format!("{path}: {error}")))?;
        *request.headers_mut() = headers;
        request.headers_mut().entry(HOST).or_insert_with(|| self.authority.clone());
        self.requests.ready().await?;
        Ok(self.requests.send_request(request).await?)
    }
}

pub(super) async fn collect(response: Response<hyper::body::Incoming>) -> Result<Response<Bytes>, Error> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, BODY_BYTES).collect().await.map_err(Error::Body)?.to_bytes();
    Ok(Response::from_parts(head, body))
}

/// A key for one opening: 16 random bytes (RFC 6455, 4.1).
fn key() -> Result<HeaderValue, Error> {
    use base64::Engine as _;
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let text = base64::engine::general_purpose::STANDARD.encode(nonce);
    Ok(HeaderValue::try_from(text).expect("base64 is a header value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_address_that_does_not_answer_is_no_obstacle_to_another() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let connect = |address: SocketAddr| match address.port() {
            1 => std::future::pending().boxed(),
            2 => std::future::ready(Err(io::Error::from(io::ErrorKind::ConnectionRefused).into())).boxed(),
            port => std::future::ready(Ok(port)).boxed(),
        };
        let began = tokio::time::Instant::now();
        let first = first_to_answer([1, 2, 3, 4].map(address).into_iter(), connect).await;
        assert_eq!(first.expect("the third answers"), 3);
        assert_eq!(began.elapsed().as_millis(), 500);
        assert!(matches!(first_to_answer([address(2)].into_iter(), connect).await, Err(Error::Io(_))));
        assert!(first_to_answer(std::iter::empty(), connect).await.is_err());
    }
}
