//! A refusal as an HTTP answer: `application/problem+json` (RFC 9457).

use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::protocol::Refusal;

/// When to try again where a refusal does not say it, but its status promises to: 429 and 503.
const RETRY: Duration = Duration::from_secs(5);

/// Renders `refusal` with its own status.
pub fn problem<B: From<String>>(refusal: &Refusal) -> Response<B> {
    let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    problem_with_status(status, refusal)
}

/// Renders `refusal` with a status that HTTP knows better than the protocol does (405, 406, 415, 426 …).
pub fn problem_with_status<B: From<String>>(status: StatusCode, refusal: &Refusal) -> Response<B> {
    let mut body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Refused"),
        "status": status.as_u16(),
        "detail": refusal.message,
        "code": refusal.code.name(),
        "closeCode": refusal.code.close_code(),
    });
    let mut response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/problem+json")
        .header(CACHE_CONTROL, "no-store");
    if status == StatusCode::UNAUTHORIZED {
        // RFC 9110, 15.5.2 wants a challenge with it.
        response = response.header(WWW_AUTHENTICATE, "Bearer");
    }
    let passes = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if let Some(wait) = refusal.retry_after.or(passes.then_some(RETRY)) {
        body["retryAfterMs"] = json!(wait.as_millis() as u64);
        // Retry-After counts whole seconds (RFC 9110, 10.2.3); rounding down would invite a second refusal.
        let seconds = wait.as_millis().div_ceil(1000).max(1) as u64;
        response = response.header(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response.body(B::from(body.to_string())).expect("a status and constant headers make a response")
}
