//! How the authority is asked.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::time::timeout;

use crate::client::{self, Endpoint, Http1, Trust, authorities};
use crate::error::StartError;

/// For one request, connecting included.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks by HTTP/1.1 over TLS, each time on a new connection: an order is a dozen requests, once in months.
#[derive(Clone)]
pub(super) struct Http {
    trust: Trust,
}

impl Http {
    /// Trusts the system's authorities, and the one in the file `ca`.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, StartError> {
        let roots = authorities(ca).map_err(|error| StartError::new(format_args!("--acme-ca {error}")))?;
        Ok(Http { trust: Trust::new(roots, Vec::new()).map_err(StartError::new)? })
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let trust = self.trust.clone();
        Box::pin(async move {
            let host = request.uri().host().unwrap_or_default().to_owned();
            let failed = |why: String| Error::Other(format!("asking {host}: {why}").into());
            match timeout(PATIENCE, send(&trust, request)).await {
                Ok(Ok(response)) => Ok(response.map(Full::new).into()),
                Ok(Err(error)) => Err(failed(format!("{:#}", anyhow::Error::from(error)))),
                Err(_) => Err(failed("no answer within 30 s".to_owned())),
            }
        })
    }
}

async fn send(trust: &Trust, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, client::Error> {
    let (head, body) = request.into_parts();
    let endpoint = Endpoint::of(&head.uri)?;
    if !endpoint.encrypted {
        return Err(client::Error::Url(format!("{} is not an https URL", head.uri)));
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut connection = Http1::connect(&endpoint, &trust.tls).await?;
    if head.method != Method::POST {
        return connection.request(head.method, path, &head.headers).await;
    }
    let Ok(body) = body.collect().await;
    connection.post(path, &head.headers, body.to_bytes()).await
}
