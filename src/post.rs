//! Posts to a place that the operator has named: on a connection that is kept, and again for a while if it is away.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, Uri};
use rustls::RootCertStore;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Endpoint, Error, Http1, Trust, authorities};
use crate::error::StartError;
use crate::signal::Signal;

/// For one request, connecting included.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Before the second try; each further wait is twice as long as the last.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// No wait is longer.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// For what is left to post when the server ends.
pub const LAST_WORDS: Duration = Duration::from_secs(5);

/// Where to post.
pub struct Place {
    endpoint: Endpoint,
    path: String,
    trust: Trust,
    connection: Option<Http1>,
}

/// Nothing of it but the path, as the rest may lead to secrets.
impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What became of one try.
#[derive(Debug, PartialEq, Eq)]
pub enum Tried<T> {
    /// It was taken.
    Taken(T),
    /// Another try may succeed.
    Failed(String),
    /// None will.
    Refused(StatusCode),
}

impl Place {
    /// `path` at the server of `url`, which is known by the system's authorities and the one in the file `ca`. `setting` is what the
    /// operator calls the two, the latter with `-ca` behind it.
    ///
    /// # Errors
    /// A CA that cannot be read, or a URL that leads nowhere.
    pub fn of(
        url: &Uri,
        path: String,
        ca: Option<&Path>,
        [setting, ca_setting]: [&str; 2],
    ) -> Result<Self, StartError> {
        let endpoint = Endpoint::of(url).map_err(|error| StartError::new(format_args!("{setting}: {error}")))?;
        let roots = match endpoint.encrypted {
            true => authorities(ca).map_err(|error| StartError::new(format_args!("{ca_setting} {error}")))?,
            false => RootCertStore::empty(),
        };
        let trust = Trust::new(roots, Vec::new()).map_err(StartError::new)?;
        Ok(Place { endpoint, path, trust, connection: None })
    }

    /// Posts once.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn post(&mut self, headers: &HeaderMap, body: Bytes) -> Result<Response<Bytes>, String> {
        let answered = timeout(PATIENCE, self.try_post(headers, body)).await;
        let answered =
            answered.map_or_else(|_| Err("no answer in time".to_owned()), |done| done.map_err(|why| why.to_string()));
        answered.inspect_err(|_| self.connection = None)
    }

    async fn try_post(&mut self, headers: &HeaderMap, body: Bytes) -> Result<Response<Bytes>, Error> {
        let connection = match self.connection.take().filter(Http1::is_open) {
            Some(connection) => self.connection.insert(connection),
            None => self.connection.insert(Http1::connect(&self.endpoint, &self.trust.tls).await?),
        };
        connection.post(&self.path, headers, body).await
    }
}

/// Tries one after the other, until it is too late.
#[derive(Debug)]
pub struct Tries<'a> {
    over: &'a Signal,
    begun: Instant,
    latest: Duration,
    pause: Duration,
    is_last: bool,
}

impl<'a> Tries<'a> {
    /// Begins with the first, for at most the time `latest`. When all is `over`, there is no time for more than one.
    pub fn begin(latest: Duration, over: &'a Signal) -> Self {
        Tries { over, begun: Instant::now(), latest, pause: FIRST_PAUSE, is_last: over.is_raised() }
    }

    /// Waits for the next. Returns whether there is one.
    pub async fn wait(&mut self) -> bool {
        if self.is_last || self.begun.elapsed() + self.pause >= self.latest {
            return false;
        }
        tokio::select! {
            () = sleep(self.pause) => {}
            () = self.over.raised() => {}
        }
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        self.is_last = self.over.is_raised();
        true
    }
}
