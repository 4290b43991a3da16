//! Answers as they go over the wire, and by which `Accept`.

use super::*;
use crate::object::{AppProtocol, AppReason, Protocol};

fn service() -> ServicePortName {
    ServicePortName {
        namespace: "shop".into(),
        service: "web".into(),
        port: "http".into(),
        protocol: Protocol::Tcp,
    }
}

fn attempt(last: u8, fault: Fault) -> Attempt {
    let addr = SocketAddr::from(([127, 120, 0, last], 8080));
    Attempt { addr, fault }
}

fn answered(cause: Cause, attempts: &[Attempt], format: Format) -> Response<String> {
    let service = service();
    let app = Application {
        protocol: AppProtocol::H2c,
        why: AppReason::AppProtocol("h2c".into()),
        ..Application::default()
    };
    let failure = Failure {
        service: Some(&service),
        app: Some(&app),
        cause,
        attempts,
        endpoints: 3,
    };
    answer(&failure, format)
}

#[test]
fn answer_in_text_names_service_endpoints_and_what_to_type() {
    let tried = [
        attempt(1, Fault::ConnectTimeout),
        attempt(2, Fault::Refused),
    ];
    let response = answered(Cause::Endpoint(Fault::Refused), &tried, Format::Text);
    assert_eq!(response.status(), 502);
    assert_eq!(
        response.body(),
        "502 Bad Gateway: no endpoint of Service shop/web:http could be reached\n  \
         127.120.0.1:8080 did not accept the connection in time\n  \
         127.120.0.2:8080 refused the connection\n\
         2 of 3 endpoints were tried.\n\
         `portico explain service/web -n shop` says more.\n"
    );
    assert_eq!(
        response.headers()["proxy-status"],
        "portico; error=connection_refused; next-hop=\"127.120.0.2:8080\"; \
         details=\"no endpoint of Service shop/web:http could be reached\""
    );
    assert!(!response.headers().contains_key(RETRY_AFTER));
}

#[test]
fn answer_in_json_says_the_same() {
    let response = answered(Cause::NoEndpoint, &[], Format::Json);
    assert_eq!(
        response.body(),
        "{\"status\":503,\"error\":\"destination_unavailable\",\
         \"message\":\"Service shop/web:http has no endpoint that is ready\",\"service\":\"shop/web:http\",\"endpoints\":3,\
         \"tried\":[],\"try\":\"portico explain service/web -n shop\"}\n"
    );
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    let tried = [attempt(1, Fault::Closed), attempt(2, Fault::Closed)];
    let response = answered(Cause::Endpoint(Fault::Closed), &tried, Format::Json);
    let listed = "\"tried\":[{\"endpoint\":\"127.120.0.1:8080\",\"reason\":\"closed\"},\
                  {\"endpoint\":\"127.120.0.2:8080\",\"reason\":\"closed\"}]";
    assert!(response.body().contains(listed), "{}", response.body());
    let spoken = "\"speaks\":\"HTTP/2: appProtocol: h2c\"";
    assert!(response.body().contains(spoken), "{}", response.body());
}

#[test]
fn answer_says_what_was_spoken_to_who_does_not_answer_as_it_should() {
    for fault in [Fault::Closed, Fault::NoHttp, Fault::NoHttp2] {
        let tried = [attempt(1, fault)];
        let response = answered(Cause::Endpoint(fault), &tried, Format::Text);
        let words = fault.as_str();
        assert_eq!(
            *response.body(),
            format!(
                "502 Bad Gateway: the endpoint of Service shop/web:http {words}\n  127.120.0.1:8080 {words}\n\
                 Spoken to as HTTP/2: appProtocol: h2c.\n1 of 3 endpoints were tried.\n\
                 `portico explain service/web -n shop` says more.\n"
            )
        );
        let response = answered(Cause::Endpoint(fault), &tried, Format::Grpc);
        let message = response.headers()["grpc-message"].to_str().unwrap();
        let end = "; spoken to as HTTP/2: appProtocol: h2c";
        assert!(message.ends_with(end), "{message}");
    }
}

#[test]
fn answer_of_grpc_is_a_status_without_a_body() {
    let tried = [attempt(1, Fault::Refused)];
    let response = answered(Cause::Endpoint(Fault::Refused), &tried, Format::Grpc);
    assert_eq!(response.status(), 200);
    assert!(response.body().is_empty());
    let header = |name: &str| response.headers()[name].to_str().unwrap();
    assert_eq!(header("content-type"), "application/grpc");
    assert_eq!(header("grpc-status"), "14");
    assert_eq!(
        header("grpc-message"),
        "no endpoint of Service shop/web:http could be reached; 127.120.0.1:8080 refused the connection"
    );
    assert_eq!(percent_encoded("100 %\nä"), "100 %25%0A%C3%A4");
}

#[test]
fn cause_has_the_status_of_the_table() {
    let of = Cause::Endpoint;
    for (cause, status, error, grpc) in [
        (Cause::NoService, 404, "destination_not_found", "12"),
        (Cause::NoEndpoint, 503, "destination_unavailable", "14"),
        (Cause::NoneLocal, 503, "destination_unavailable", "14"),
        (Cause::Full, 503, "connection_limit_reached", "8"),
        (of(Fault::Refused), 502, "connection_refused", "14"),
        (
            of(Fault::Unreachable),
            502,
            "destination_ip_unroutable",
            "14",
        ),
        (of(Fault::ConnectTimeout), 504, "connection_timeout", "14"),
        (of(Fault::Loop), 502, "proxy_loop_detected", "14"),
        (of(Fault::Exhausted), 503, "connection_limit_reached", "8"),
        (of(Fault::Closed), 502, "connection_terminated", "14"),
        (of(Fault::Gone), 502, "connection_terminated", "14"),
        (of(Fault::NoHttp), 502, "http_protocol_error", "13"),
        (of(Fault::NoHttp2), 502, "http_protocol_error", "13"),
        (
            of(Fault::LargeHead),
            502,
            "http_response_header_section_size",
            "13",
        ),
        (of(Fault::AnswerTimeout), 504, "http_response_timeout", "4"),
        (Cause::SlowHead, 408, "http_request_error", "4"),
        (
            Cause::BadHead(BadHead::NoHost),
            400,
            "http_request_error",
            "13",
        ),
        (
            Cause::BadHead(BadHead::TooLarge),
            431,
            "http_request_error",
            "13",
        ),
        (Cause::Internal, 500, "proxy_internal_error", "13"),
    ] {
        assert_eq!(cause.status(), status, "{cause:?}");
        assert_eq!(cause.error_type(), error, "{cause:?}");
        assert_eq!(cause.grpc_status(), grpc, "{cause:?}");
    }
    let bad = Cause::BadHead(BadHead::TwoHosts);
    assert!(bad.closes(Version::HTTP_11) && !bad.closes(Version::HTTP_2));
    assert!(Cause::NoService.closes(Version::HTTP_11));
    assert!(!Cause::NoEndpoint.closes(Version::HTTP_11));
}

#[test]
fn format_goes_by_grpc_then_by_what_is_most_welcome() {
    use Format::{Grpc, Json, Text};
    let check = |name: &'static str, value: &'static str, expected| {
        let headers = [(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )];
        assert_eq!(
            Format::of(&headers.into_iter().collect()),
            expected,
            "{value}"
        );
    };
    for (accept, expected) in [
        ("", Text),
        ("*/*", Text),
        ("application/json", Json),
        ("Application/JSON;charset=utf-8", Json),
        ("application/json, text/plain, */*", Json),
        ("text/plain, application/json", Text),
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            Text,
        ),
        ("application/json;q=0.4, text/plain;q=0.5", Text),
        ("application/*;q=0.9, text/*;q=0.8", Json),
        ("application/json;q=0, */*", Text),
        ("application/json;q=x, */*;q=0.1", Text),
        ("text/plain;q=0, */*;q=0.1", Json),
    ] {
        check("accept", accept, expected);
    }
    check("content-type", "application/grpc", Grpc);
    check("content-type", "application/grpc+proto", Grpc);
    check("content-type", "application/grpc-web", Text);
}

#[test]
fn json_strings_are_quoted() {
    let mut out = String::new();
    json::string(&mut out, "a\"b\\c\nd\u{7f}ä");
    assert_eq!(out, "\"a\\\"b\\\\c\\u000ad\\u007fä\"");
}
