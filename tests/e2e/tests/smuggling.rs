//! Requests whose length can be read in two ways: refused however the bytes are cut and whatever stands before them.

use aisix_e2e::{chat_body, check_error_object, idle, started};
use aisix_testkit::gateway::builder::CALLER_KEY;
use aisix_testkit::{FakeProvider, Gateway, RawConnection, RawReply, Request};
use serde_json::json;

const PATH: &str = "/v1/chat/completions";
/// What an attacker would like to be taken as the next request.
const SMUGGLED: &str = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

/// A request head that contradicts itself, and bytes that are a good request for each way to read it.
struct Ambiguous {
    what: &'static str,
    head: String,
    payload: String,
}

fn ambiguous(start: &str) -> Vec<Ambiguous> {
    let body = chat_body(json!({})).to_string();
    let length = body.len();
    let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let with = |what, framing: String, payload: String| Ambiguous {
        what,
        head: format!(
            "{start}\r\nhost: x\r\nauthorization: Bearer {CALLER_KEY}\r\ncontent-type: application/json\r\n{framing}\r\n"
        ),
        payload,
    };
    vec![
        with(
            "length, then coding",
            format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", chunked.len() + SMUGGLED.len()),
            format!("{chunked}{SMUGGLED}"),
        ),
        with(
            "coding, then length",
            format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", chunked.len() + SMUGGLED.len()),
            format!("{chunked}{SMUGGLED}"),
        ),
        with(
            "two different lengths",
            format!("Content-Length: {length}\r\ncontent-length: {}\r\n", length + SMUGGLED.len()),
            format!("{body}{SMUGGLED}"),
        ),
        with(
            "one length twice",
            format!("content-length: {length}\r\nContent-Length: {length}\r\n"),
            format!("{body}{SMUGGLED}"),
        ),
        with(
            "one coding twice",
            "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n".to_owned(),
            format!("{chunked}{SMUGGLED}"),
        ),
        with(
            "another coding before",
            "Transfer-Encoding: gzip, chunked\r\n".to_owned(),
            format!("{chunked}{SMUGGLED}"),
        ),
    ]
}

/// Sends the pieces so that each is a read of its own at the gateway, and returns the only reply there may be: a
/// refusal in an envelope, after which the gateway closes the connection.
async fn refused(gateway: &Gateway, what: &str, pieces: &[&[u8]]) -> RawReply {
    let mut raw = RawConnection::open(gateway.proxy).await;
    for piece in pieces {
        // A gateway that has refused and left by now is right too; its answer is still there to read.
        if raw.send(piece).await.is_err() {
            break;
        }
        raw.taken().await;
    }
    let reply = raw.reply().await.unwrap_or_else(|| panic!("{what}: closed without an answer"));
    assert!((400..500).contains(&reply.status), "{what}: {}: {}", reply.status, reply.text());
    check_error_object(&reply.json(), "invalid_request_error");
    let rest = String::from_utf8_lossy(&raw.until_closed().await).into_owned();
    assert!(rest.is_empty(), "{what}: more than one answer: {rest}");
    reply
}

/// The same, and the refusal is a 400.
async fn bad_request(gateway: &Gateway, what: &str, pieces: &[&[u8]]) -> RawReply {
    let reply = refused(gateway, what, pieces).await;
    assert_eq!(reply.status, 400, "{what}: {}", reply.text());
    reply
}

/// Nothing came through, and the gateway goes on.
async fn unharmed(upstream: &FakeProvider, gateway: &Gateway) {
    assert!(upstream.requests().is_empty(), "{:#?}", upstream.requests());
    idle(gateway).await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    assert_eq!(upstream.requests().len(), 1);
    let log = gateway.log();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:#?}");
}

#[tokio::test]
async fn in_one_write() {
    let (upstream, gateway) = started().await;
    for case in ambiguous(&format!("POST {PATH} HTTP/1.1")) {
        let request = format!("{}{}", case.head, case.payload);
        let reply = bad_request(&gateway, case.what, &[request.as_bytes()]).await;
        let text = match case.what.contains("coding") && !case.what.contains("length") {
            true => "Transfer-Encoding has to be `chunked`, once",
            false => "conflicting Content-Length headers",
        };
        assert!(reply.text().contains(text), "{}: {reply:?}", case.what);
        assert!(reply.header("x-aisix-request-id").is_some(), "{}: {reply:?}", case.what);
    }
    unharmed(&upstream, &gateway).await;
}

#[tokio::test]
async fn codings_that_are_not_exactly_chunked() {
    let (upstream, gateway) = started().await;
    let body = chat_body(json!({})).to_string();
    let payload = format!("{:x}\r\n{body}\r\n0\r\n\r\n{SMUGGLED}", body.len());
    for coding in
        ["chunked, chunked", "gzip", "gzip, chunked", "chunked, gzip", "chunked;q=1", "identity", ""]
    {
        for start in [format!("POST {PATH} HTTP/1.1"), "GET /livez HTTP/1.1".to_owned()] {
            let head = format!(
                "{start}\r\nhost: x\r\nauthorization: Bearer {CALLER_KEY}\r\n\
                 content-type: application/json\r\ntransfer-encoding: {coding}\r\n\r\n"
            );
            let reply = bad_request(&gateway, coding, &[format!("{head}{payload}").as_bytes()]).await;
            assert!(reply.text().contains("Transfer-Encoding has to be"), "{coding}: {reply:?}");
        }
    }
    unharmed(&upstream, &gateway).await;
}

#[tokio::test]
async fn cut_anywhere_into_two_reads() {
    let (upstream, gateway) = started().await;
    for case in ambiguous(&format!("POST {PATH} HTTP/1.1")) {
        let request = format!("{}{}", case.head, case.payload);
        for cut in (1..case.head.len()).step_by(7) {
            let (first, second) = request.as_bytes().split_at(cut);
            bad_request(&gateway, &format!("{}, cut at {cut}", case.what), &[first, second]).await;
        }
    }
    unharmed(&upstream, &gateway).await;
}

#[tokio::test]
async fn cut_within_the_names_that_matter() {
    let (upstream, gateway) = started().await;
    for case in ambiguous(&format!("POST {PATH} HTTP/1.1")) {
        let request = format!("{}{}", case.head, case.payload);
        let framing = case.head.find("application/json").expect("the header before") + 16;
        for cut in framing..case.head.len() {
            let (first, second) = request.as_bytes().split_at(cut);
            bad_request(&gateway, &format!("{}, cut at {cut}", case.what), &[first, second]).await;
        }
    }
    unharmed(&upstream, &gateway).await;
}

#[tokio::test]
async fn behind_blank_lines() {
    let (upstream, gateway) = started().await;
    for blank in ["\r\n", "\r\n\r\n", "\n"] {
        for case in ambiguous(&format!("POST {PATH} HTTP/1.1")) {
            let what = format!("{} behind {blank:?}", case.what);
            let request = format!("{blank}{}{}", case.head, case.payload);
            bad_request(&gateway, &what, &[request.as_bytes()]).await;
            let (first, second) = request.as_bytes().split_at(blank.len());
            bad_request(&gateway, &format!("{what}, cut"), &[first, second]).await;
        }
    }
    unharmed(&upstream, &gateway).await;
}

#[tokio::test]
async fn with_a_method_that_looks_like_the_start_of_http2() {
    let (upstream, gateway) = started().await;
    // No endpoint takes these methods, so the refusal may be about that; what matters is that nothing else is answered.
    for start in
        ["PRI / HTTP/1.1", "PRI /v1/chat/completions HTTP/1.1", "PRIVATE /livez HTTP/1.1", "PRI * HTTP/1.1"]
    {
        for case in ambiguous(start) {
            let what = format!("{start}: {}", case.what);
            let request = format!("{}{}", case.head, case.payload);
            refused(&gateway, &what, &[request.as_bytes()]).await;
            for cut in [1, 3, 4, 5, 6, 20] {
                let (first, second) = request.as_bytes().split_at(cut);
                refused(&gateway, &format!("{what}, cut at {cut}"), &[first, second]).await;
            }
        }
    }
    unharmed(&upstream, &gateway).await;
}

#[tokio::test]
async fn on_paths_and_methods_that_nobody_serves() {
    let (upstream, gateway) = started().await;
    for (start, status) in [
        ("POST /nope HTTP/1.1", 404),
        ("DELETE /v1/chat/completions HTTP/1.1", 405),
        ("GET /livez HTTP/1.1", 400),
        ("GET /v1/models HTTP/1.1", 400),
    ] {
        for case in ambiguous(start) {
            let request = format!("{}{}", case.head, case.payload);
            let reply = refused(&gateway, &format!("{start}: {}", case.what), &[request.as_bytes()]).await;
            assert!([400, status].contains(&reply.status), "{start}: {}: {reply:?}", case.what);
        }
    }
    unharmed(&upstream, &gateway).await;
}

#[tokio::test]
async fn as_a_later_request_on_the_connection() {
    let (upstream, gateway) = started().await;
    for case in ambiguous(&format!("POST {PATH} HTTP/1.1")) {
        let mut raw = RawConnection::open(gateway.proxy).await;
        raw.send(SMUGGLED.as_bytes()).await.expect("a good request");
        assert_eq!(raw.reply().await.map(|reply| reply.status), Some(200));
        let _ = raw.send(format!("{}{}", case.head, case.payload).as_bytes()).await;
        let reply = raw.reply().await.unwrap_or_else(|| panic!("{}: no answer", case.what));
        assert_eq!(reply.status, 400, "{}: {}", case.what, reply.text());
        let rest = String::from_utf8_lossy(&raw.until_closed().await).into_owned();
        assert!(rest.is_empty(), "{}: more than one answer: {rest}", case.what);
    }
    unharmed(&upstream, &gateway).await;
}

#[tokio::test]
async fn in_the_same_write_behind_good_requests() {
    let (upstream, gateway) = started().await;
    let body = chat_body(json!({})).to_string();
    let length = body.len();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CALLER_KEY}\r\ncontent-type: application/json\r\n"
    );
    let before = [
        (SMUGGLED.to_owned(), false),
        (format!("{head}Content-Length: {length}\r\n\r\n{body}"), true),
        (
            format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{length:x};ext=1\r\n{body}\r\n0\r\nContent-Length: 1\r\n\r\n"
            ),
            true,
        ),
    ];
    let mut chats = 0;
    for (good, chat) in &before {
        for case in ambiguous(&format!("POST {PATH} HTTP/1.1")) {
            let bad = format!("{}{}", case.head, case.payload);
            for cut in [0, 1, good.len() - 1, good.len(), good.len() + 20, good.len() + case.head.len() - 20]
            {
                let what = format!("{} behind {good:?}, cut at {cut}", case.what);
                let mut raw = RawConnection::open(gateway.proxy).await;
                let bytes = format!("{good}{good}{bad}");
                let (first, second) = bytes.as_bytes().split_at(good.len() + cut);
                raw.send(first).await.expect("an open connection");
                raw.taken().await;
                let _ = raw.send(second).await;
                for _ in 0..2 {
                    let reply = raw.reply().await.unwrap_or_else(|| panic!("{what}: no answer"));
                    assert_eq!(reply.status, 200, "{what}: {}", reply.text());
                }
                chats += 2 * usize::from(*chat);
                let reply = raw.reply().await.unwrap_or_else(|| panic!("{what}: no refusal"));
                assert_eq!(reply.status, 400, "{what}: {}", reply.text());
                check_error_object(&reply.json(), "invalid_request_error");
                let rest = String::from_utf8_lossy(&raw.until_closed().await).into_owned();
                assert!(rest.is_empty(), "{what}: more than one answer: {rest}");
            }
        }
    }
    assert_eq!(upstream.requests().len(), chats);
    idle(&gateway).await;
}

#[tokio::test]
async fn ordinary_requests_pass_however_they_are_cut() {
    let (upstream, gateway) = started().await;
    let body = chat_body(json!({})).to_string();
    let length = body.len();
    let framings = [
        (format!("Content-Length: {length}\r\n"), body.clone()),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{length:x}\r\n{body}\r\n0\r\n\r\n")),
    ];
    let mut sent = 0;
    for (framing, payload) in framings {
        let request = format!(
            "\r\nPOST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CALLER_KEY}\r\ncontent-type: application/json\r\n{framing}\r\n{payload}"
        );
        let mut raw = RawConnection::open(gateway.proxy).await;
        for cut in (1..request.len()).step_by(7) {
            let (first, second) = request.as_bytes().split_at(cut);
            for piece in [first, second] {
                raw.send(piece).await.expect("an open connection");
                raw.taken().await;
            }
            let reply = raw.reply().await.unwrap_or_else(|| panic!("cut at {cut}: no answer"));
            assert_eq!(reply.status, 200, "cut at {cut}: {}", reply.text());
            sent += 1;
        }
    }
    assert_eq!(upstream.requests().len(), sent);
    assert_eq!(gateway.send(Request::get("/livez")).await.status, 200);
}
