//! The requests and responses of the metrics server: `GET /metrics` of HTTP/1.1, without a body, and
//! a connection for each.

use httparse::{EMPTY_HEADER, Request, Status};

use crate::ctl::metrics::Form;

/// Longest request, bytes: Prometheus sends some hundred.
pub(super) const REQUEST_MAX: usize = 8192;

/// Header fields of a request that are read: Prometheus sends six.
const FIELDS_MAX: usize = 64;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The rest of the request has not come yet.
    More,
    /// The metrics, in this form.
    Metrics(Form),
    /// Something else: the response says so.
    Refused(Refused),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no HTTP.
    Bad,
    /// There is nothing but /metrics.
    NotFound,
    /// It is not GET.
    Method,
    /// It is longer than [`REQUEST_MAX`], or has more than [`FIELDS_MAX`] fields.
    TooLarge,
}

/// Reads the start of a request.
pub(super) fn read(bytes: &[u8]) -> Wanted {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    let mut request = Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) if bytes.len() < REQUEST_MAX => return Wanted::More,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Wanted::Refused(Refused::TooLarge);
        }
        Err(_) => return Wanted::Refused(Refused::Bad),
    }
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if path != "/metrics" {
        return Wanted::Refused(Refused::NotFound);
    }
    if request.method != Some("GET") {
        return Wanted::Refused(Refused::Method);
    }
    // Prometheus names every format that it reads, and this one if it reads it.
    let takes_open_metrics = request.headers.iter().any(|field| {
        field.name.eq_ignore_ascii_case("accept")
            && String::from_utf8_lossy(field.value).contains("application/openmetrics-text")
    });
    Wanted::Metrics(if takes_open_metrics { Form::OpenMetrics } else { Form::Prometheus })
}

/// The response with these metrics.
pub(super) fn metrics(form: Form, text: &str) -> Vec<u8> {
    response("200 OK", form.content_type(), "", text)
}

/// The response to a request that is refused.
pub(super) fn refusal(refused: Refused) -> Vec<u8> {
    let (status, more) = match refused {
        Refused::Bad => ("400 Bad Request", ""),
        Refused::NotFound => ("404 Not Found", ""),
        Refused::Method => ("405 Method Not Allowed", "Allow: GET\r\n"),
        Refused::TooLarge => ("431 Request Header Fields Too Large", ""),
    };
    let text = format!("{status}: there is GET /metrics alone\n");
    response(status, "text/plain; charset=utf-8", more, &text)
}

/// The response when the metrics cannot be encoded.
pub(super) fn failure() -> Vec<u8> {
    let status = "500 Internal Server Error";
    response(status, "text/plain; charset=utf-8", "", "500: this is a defect\n")
}

fn response(status: &str, kind: &str, more: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_get_of_the_metrics_is_answered_with_them() {
        let metrics = Wanted::Metrics(Form::Prometheus);
        for (text, wanted) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", metrics),
            ("GET /metrics?a=b HTTP/1.0\r\n\r\n", metrics),
            ("GET /metrics HTTP/1.1\r\nAccept: */*\r\n\r\n", metrics),
            (
                "GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1\r\n\r\n",
                Wanted::Metrics(Form::OpenMetrics),
            ),
            ("GET /metrics HTTP/1.1\r\nHost", Wanted::More),
            ("", Wanted::More),
            ("GET / HTTP/1.1\r\n\r\n", Wanted::Refused(Refused::NotFound)),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", Wanted::Refused(Refused::NotFound)),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", Wanted::Refused(Refused::Method)),
            (
                "POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
                Wanted::Refused(Refused::Method),
            ),
            ("\u{16}\u{3}\u{1}", Wanted::Refused(Refused::Bad)),
            ("GET /metrics SMTP\r\n\r\n", Wanted::Refused(Refused::Bad)),
        ] {
            assert_eq!(read(text.as_bytes()), wanted, "{text:?}");
        }
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(REQUEST_MAX));
        assert_eq!(read(long.as_bytes()), Wanted::Refused(Refused::TooLarge));
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(read(many.as_bytes()), Wanted::Refused(Refused::TooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes);
            read(&[b"GET /metrics HTTP/1.1\r\n", bytes.as_slice()].concat());
        }
    }
}
