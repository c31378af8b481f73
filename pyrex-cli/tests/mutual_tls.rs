//! Certificates on both sides, from one binary to the other: `pyrex canary` asks `pyrex serve`.

mod support;

use support::certificates::{Authority, Identity};
use support::served::Served;
use support::{pyrex, stdout};

/// One round against the server: how it ends, and what is logged.
fn ask(served: &Served, ca: &str, who: Option<&Identity>) -> (Option<i32>, String) {
    let url = served.url.replace("127.0.0.1", "localhost");
    let mut arguments = vec!["canary", "--url", &url, "--ca", ca];
    if let Some(who) = who {
        arguments.extend(["--cert", &who.cert, "--key", &who.key]);
    }
    let output = pyrex(&arguments);
    (output.status.code(), stdout(&output).to_owned())
}

#[test]
fn only_who_shows_the_right_certificate_gets_an_answer() {
    let (ours, theirs) = (Authority::new("mtls-ours"), Authority::new("mtls-theirs"));
    let server = ours.sign("server", (2020, 2120));
    let ca = ours.file();
    let tls = ["--tls-cert", &server.cert, "--tls-key", &server.key, "--client-ca", &ca];
    let served = Served::start(&tls);
    assert!(served.url.starts_with("https://"), "{}", served.url);
    let (code, line) = ask(&served, &ca, Some(&ours.sign("alice", (2020, 2120))));
    assert_eq!(code, Some(0), "{line}");
    assert!(line.contains("solid red circle on a white background"), "{line}");
    for (who, client) in [
        ("nobody", None),
        ("of another authority", Some(theirs.sign("mallory", (2020, 2120)))),
        ("expired", Some(ours.sign("old", (2020, 2021)))),
    ] {
        let (code, line) = ask(&served, &ca, client.as_ref());
        assert_eq!(code, Some(1), "{who}: {line}");
        assert!(line.contains("\"text\":null"), "{who}: {line}");
    }
    let (code, line) = ask(&served, &theirs.file(), Some(&ours.sign("bob", (2020, 2120))));
    assert_eq!(code, Some(1), "a client does not talk to a server that somebody else vouches for: {line}");
}
