//! What a running server tells of itself, and what can be done to its connections.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpStream;

use crate::login::Logins;
use crate::packages::{need, python};
use crate::profiles::pipe_through;
use crate::server::{Answer, LIMIT, Server, wait};

/// A connection that goes no further than the greeting.
fn stranger(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    stream
}

fn ask_for(server: &Server, target: &str, accept: &str) -> Answer {
    server
        .raw(format!("GET {target} HTTP/1.1\r\nHost: agent\r\nAccept: {accept}\r\n\r\n").as_bytes())
}

#[test]
fn readiness_says_what_the_server_works_with() {
    let server = Server::start(&[]);
    let answer = server.get("/readyz");
    assert_eq!(answer.status, 200);
    let text = answer.text();
    for part in [
        "\"ready\":true".to_owned(),
        format!("\"pid\":{}", server.pid().as_raw_nonzero()),
        format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION")),
        "\"mode\":\"sealed memfd\"".to_owned(),
        "\"persisted\":true".to_owned(),
        format!("\"listeners\":[\"127.0.0.1:{}\"]", server.port),
    ] {
        assert!(text.contains(&part), "{part} in {text}");
    }
    let table = ask_for(&server, "/readyz", "text/plain").text();
    assert!(table.starts_with("ready        yes\n"), "{table}");
}

#[test]
fn a_connection_is_listed_and_can_be_ended() {
    let server = Server::start(&[]);
    let mut client = stranger(&server);
    let port = client.local_addr().unwrap().port();
    let text = server.get("/sessions").text();
    assert!(text.contains(&format!("\"port\":{port}")), "{text}");
    assert!(text.contains("\"phase\":\"greeting\""), "{text}");
    let id = text
        .split("\"id\":")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    let sent = text.split("\"sent_bytes\":").nth(1).unwrap();
    let sent: u64 = sent.split(',').next().unwrap().parse().unwrap();
    assert!(sent > 0, "{text}");
    assert_eq!(
        server
            .with_body("POST", &format!("/sessions/{id}/close"), "")
            .status,
        200
    );
    assert!(
        server.log().contains("is ended by order of"),
        "{}",
        server.log()
    );
    client.read_to_end(&mut Vec::new()).unwrap();
    wait("no connection", || server.get("/sessions").text() == "[]\n");
    assert_eq!(
        server.with_body("POST", "/sessions/999/close", "").status,
        404
    );
    assert_eq!(
        server.with_body("POST", "/sessions/x/close", "").status,
        400
    );
}

#[test]
fn draining_lets_those_stay_who_are_there() {
    let server = Server::start(&[]);
    let client = stranger(&server);
    assert_eq!(server.with_body("POST", "/drain", "").text(), "1\n");
    wait("no more connections", || !server.greets());
    let answer = server.get("/readyz");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("\"draining\":true"));
    assert!(server.get("/sessions").text().contains("\"id\":"));
    drop(client);
    wait("the end of the server", || !server.socket().exists());
}

/// A strict reader of OpenMetrics: families are announced once and not mixed, names and labels have
/// the right form, and the text has an end. Gives samples by name and labels.
fn parse_open_metrics(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("an end");
    let mut samples = BTreeMap::new();
    let mut family = ("", "");
    let mut announced = Vec::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split_once(' ').unwrap();
            assert!(!announced.contains(&family.0), "{line} twice");
            assert!(
                ["counter", "gauge", "info", "histogram"].contains(&family.1),
                "{line}"
            );
            announced.push(family.0);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(
                name == family.0 && name.ends_with(&format!("_{unit}")),
                "{line}"
            );
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            assert_eq!(rest.split_once(' ').unwrap().0, family.0, "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let bare = name.split('{').next().unwrap();
        let suffix = bare
            .strip_prefix(family.0)
            .unwrap_or_else(|| panic!("{line} is astray"));
        let permitted: &[&str] = match family.1 {
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_count", "_sum"],
            _ => &[""],
        };
        assert!(permitted.contains(&suffix), "{line}");
        assert!(
            bare.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{line}"
        );
        if let Some(labels) = name.strip_prefix(bare).filter(|labels| !labels.is_empty()) {
            let labels = labels.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
            for label in labels.split("\",") {
                let (key, value) = label.split_once("=\"").unwrap();
                assert!(
                    key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                    "{line}"
                );
                assert!(!value.contains('\n'));
            }
        }
        let value: f64 = value.parse().unwrap();
        assert!(
            samples.insert(name.to_owned(), value).is_none(),
            "{line} twice"
        );
    }
    samples
}

#[test]
fn metrics_are_open_metrics_and_count() {
    let server = Server::start(&[]);
    let before = parse_open_metrics(
        &ask_for(
            &server,
            "/metrics",
            "application/openmetrics-text;version=1.0.0",
        )
        .text(),
    );
    let client = stranger(&server);
    let answer = ask_for(&server, "/metrics", "application/openmetrics-text");
    assert!(
        answer
            .head
            .contains("application/openmetrics-text; version=1.0.0"),
        "{}",
        answer.head
    );
    let now = parse_open_metrics(&answer.text());
    let total = "agent_connections_accepted_total";
    assert!((now[total] - before[total] - 1.0).abs() < 0.1);
    assert!((now["agent_connections{phase=\"preauth\"}"] - 1.0).abs() < 0.1);
    assert!(now["agent_connection_bytes_total{direction=\"sent\"}"] > 0.0);
    assert!(now["process_open_fds"] > 3.0);
    assert!(now["process_resident_memory_bytes"] > 100_000.0);
    assert!(now.contains_key("agent_helper_mode_info{mode=\"sealed memfd\"}"));
    drop(client);
    let plain = server.get("/metrics");
    assert!(
        plain.head.contains("text/plain; version=0.0.4"),
        "{}",
        plain.head
    );
    assert!(
        plain
            .text()
            .contains("# TYPE agent_connections_accepted_total counter\n")
    );
}

#[test]
fn prometheus_own_parsers_read_them() {
    need(
        "python3-prometheus-client",
        python().args(["-c", "import prometheus_client.openmetrics.parser"]),
    );
    let logins = Logins::start(&[]);
    logins.visit();
    let held = stranger(&logins.server);
    for (accept, module) in [
        (
            "application/openmetrics-text",
            "prometheus_client.openmetrics.parser",
        ),
        ("text/plain", "prometheus_client.parser"),
    ] {
        let text = ask_for(&logins.server, "/metrics", accept).body;
        let program = format!(
            "import sys\n\
             from {module} import text_string_to_metric_families as parse\n\
             families = list(parse(sys.stdin.read()))\n\
             names = {{sample.name for family in families for sample in family.samples}}\n\
             print(len(families), 'agent_handshake_duration_seconds_bucket' in names, \
                 'agent_build_info' in names, 'agent_connections_accepted_total' in names)"
        );
        let output = pipe_through("/usr/bin/python3", &["-c", &program], &text);
        let output = String::from_utf8(output).unwrap();
        let (count, found) = output.trim().split_once(' ').unwrap();
        assert!(count.parse::<u32>().unwrap() > 20, "{output}");
        assert_eq!(found, "True True True", "{accept}");
    }
    drop(held);
}

#[test]
fn commands_print_the_same() {
    let server = Server::start(&[]);
    let _client = stranger(&server);
    let run = |words: &[&str]| {
        let output = server.command(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["readyz"]).starts_with("ready        yes"));
    assert!(run(&["readyz", "--json"]).starts_with("{\"ready\":true"));
    assert!(run(&["sessions"]).starts_with("ID"));
    assert!(run(&["sessions", "--json"]).starts_with("[{\"id\":"));
    assert!(run(&["metrics"]).contains("agent_build_info{"));
    assert!(run(&["why"]).starts_with("WHEN"));
    assert_eq!(run(&["why", "nobody-at-all", "--json"]), "[]\n");
    assert_eq!(run(&["penalties", "--json"]), "[]\n");
    run(&["penalties", "set", "192.0.2.7", "60"]);
    let listed = run(&["penalties"]);
    assert!(
        listed.contains("192.0.2.7") && listed.contains("refused"),
        "{listed}"
    );
    assert_eq!(
        run(&["penalties", "clear", "192.0.2.7"]),
        "1 penalties are cleared\n"
    );
    assert_eq!(server.command(&["close", "999"]).status.code(), Some(1));
    assert_eq!(
        server
            .command(&["penalties", "clear", "nowhere"])
            .status
            .code(),
        Some(1)
    );
    run(&["drain"]);
    assert_eq!(server.command(&["readyz"]).status.code(), Some(1));
}
