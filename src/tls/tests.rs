//! Sessions of either role against rustls' own buffered connections.

use std::sync::Arc;

use super::test_kit::{Pair, Pki, With};
use super::{Acceptor, Connector, Failure, RECORD_BYTES_MAX, RECORD_OVERHEAD_MAX, Session, TlsVersion};
use crate::proto::Spares;

fn failure_of(pair: &mut Pair, bytes: &[u8]) -> Failure {
    let failure = pair.feed(bytes, usize::MAX).expect_err("a failure").failure();
    assert!(pair.session.has_failed() && pair.got.is_empty());
    failure
}

/// What the session says of its end, which the peer understands.
fn alert_of(pair: &mut Pair) -> rustls::Error {
    let mut out = Vec::new();
    pair.session.take_output(&mut out);
    pair.tell_peer(&out).expect_err("an alert")
}

#[test]
fn both_versions_with_all_ciphers_in_both_roles_both_ways() {
    let long: Vec<u8> = (0..100_000_u32).map(|byte| (byte * 7) as u8).collect();
    for with in With::all() {
        for is_server in [true, false] {
            let mut pair = Pair::with(&with, is_server);
            pair.settle(usize::MAX).unwrap();
            assert!(pair.is_ready && !pair.session.is_handshaking(), "{with:?}");
            let info = pair.session.info().unwrap().clone();
            let is_13 = with.version == &rustls::version::TLS13;
            assert_eq!(info.version() == TlsVersion::Tls13, is_13);
            assert!(with.suite.as_str().unwrap().ends_with(&info.cipher_suite()[4..]), "{}", info.cipher_suite());
            assert_eq!(info.server_name(), is_server.then_some("localhost"));
            assert_eq!(info.key_exchange(), Some(if is_13 { "X25519MLKEM768" } else { "X25519" }));
            for bytes in [&b"a"[..], &long, &long[..RECORD_BYTES_MAX], b"end"] {
                assert_eq!(pair.receive(bytes, usize::MAX).unwrap(), bytes);
                assert_eq!(pair.send(&[bytes]), bytes);
                let (first, second) = bytes.split_at(bytes.len() / 3);
                assert_eq!(pair.send(&[first, b"", second]), bytes);
            }
            let mut end = Vec::new();
            pair.session.seal_close(&mut end);
            pair.tell_peer(&end).unwrap();
            assert!(pair.peer.process_new_packets().unwrap().peer_has_closed());
            assert!(pair.session.end_of_file().is_err(), "the peer has not closed");
            pair.peer.send_close_notify();
            pair.settle(usize::MAX).unwrap();
            assert!(pair.is_closed && pair.session.end_of_file().is_ok());
        }
    }
}

#[test]
fn whatever_was_queued_is_one_record_up_to_its_limit() {
    for with in [With::TLS13, With::TLS12] {
        let mut pair = Pair::with(&with, true);
        pair.settle(usize::MAX).unwrap();
        let piece = [7; 1000];
        for (pieces, records) in [(1, 1), (16, 1), (17, 2), (0, 0)] {
            let mut sealed = Vec::new();
            pair.session.seal(std::iter::repeat_n(&piece[..], pieces), &mut sealed).unwrap();
            let mut seen = 0;
            let mut rest = &sealed[..];
            while let [23, 3, 3, a, b, ..] = *rest {
                rest = &rest[5 + usize::from(u16::from_be_bytes([a, b]))..];
                seen += 1;
            }
            assert_eq!((seen, rest.len()), (records, 0), "{pieces}");
            assert!(sealed.len() <= pieces * 1000 + records * RECORD_OVERHEAD_MAX);
            pair.tell_peer(&sealed).unwrap();
            assert_eq!(pair.read_by_peer().len(), pieces * 1000);
        }
    }
}

/// Kills: a header that is forgotten where a receive ends within it; a split record's bytes taken twice.
#[test]
fn records_may_come_in_any_pieces() {
    for with in [With::TLS13, With::TLS12] {
        for is_server in [true, false] {
            for at_once in [1, 2, 3, 4, 5, 6, 7, 22, 23, 64, 1000] {
                let mut pair = Pair::with(&with, is_server);
                pair.settle(at_once).unwrap();
                assert!(pair.is_ready);
                for bytes in [&b"x"[..], &[1; 50], &[2; 40_000], b"y"] {
                    assert_eq!(pair.receive(bytes, at_once).unwrap(), bytes);
                }
                assert_eq!(pair.send(&[b"answer"]), b"answer");
            }
        }
    }
}

/// Kills: a number of the old key with the new one; a nonce used twice.
#[test]
fn keys_are_renewed_by_either_side() {
    for is_server in [true, false] {
        for with in With::all().into_iter().filter(|with| with.version == &rustls::version::TLS13) {
            let mut pair = Pair::with(&with, is_server);
            pair.settle(usize::MAX).unwrap();
            for round in 0..100_u8 {
                pair.peer.refresh_traffic_keys().unwrap();
                assert_eq!(pair.receive(&[round; 10], 7).unwrap(), [round; 10]);
                assert_eq!(pair.send(&[&[round]]), [round]);
            }
            pair.session.set_records_max(5);
            for round in 0..100_u8 {
                assert_eq!(pair.send(&[&[round; 50]]), [round; 50]);
                assert_eq!(pair.receive(&[round], 100).unwrap(), [round]);
            }
        }
    }
}

#[test]
fn the_keys_of_tls_12_cannot_be_renewed_and_end_the_session() {
    let mut pair = Pair::with(&With::TLS12, true);
    pair.settle(usize::MAX).unwrap();
    pair.session.set_records_max(4);
    assert_eq!(pair.send(&[b"a"]), b"a");
    assert_eq!(pair.send(&[b"b"]), b"b");
    let mut sealed = Vec::new();
    let error = pair.session.seal([&b"c"[..]], &mut sealed).unwrap_err();
    assert_eq!(error.failure(), Failure::Exhausted);
    pair.tell_peer(&sealed).unwrap();
    assert_eq!(pair.read_by_peer(), b"");
    assert!(pair.peer.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn sessions_are_resumed_in_both_roles_and_end_with_their_configuration() {
    let pki = Pki::new();
    for with in [With::TLS13, With::TLS12] {
        let acceptor = Acceptor::new(pki.server(&with, false)).unwrap();
        let client = Arc::new(pki.client(&with, false));
        let resumed = |acceptor: &Acceptor| {
            let mut pair = Pair::server(acceptor, &client);
            pair.settle(usize::MAX).unwrap();
            assert_eq!(pair.send(&[b"hello"]), b"hello");
            pair.session.info().unwrap().is_resumed()
        };
        assert_eq!([resumed(&acceptor), resumed(&acceptor), resumed(&acceptor)], [false, true, true], "{with:?}");
        acceptor.replace(pki.server(&with, false)).unwrap();
        assert_eq!([resumed(&acceptor), resumed(&acceptor)], [false, true]);

        let connector = Connector::new(pki.client(&with, false));
        let config = acceptor.config();
        let resumed = || {
            let mut pair = Pair::client(&connector, &config);
            pair.settle(3).unwrap();
            assert_eq!(pair.receive(b"hello", 2).unwrap(), b"hello");
            pair.session.info().unwrap().is_resumed()
        };
        assert_eq!([resumed(), resumed()], [false, true], "{with:?}");
    }
}

#[test]
fn who_shows_a_certificate_is_known_by_it_and_who_shows_none_is_refused() {
    let pki = Pki::new();
    for with in [With::TLS13, With::TLS12] {
        let acceptor = Acceptor::new(pki.server(&with, true)).unwrap();
        let client = Arc::new(pki.client(&with, true));
        for is_resumed in [false, true] {
            let mut pair = Pair::server(&acceptor, &client);
            pair.settle(usize::MAX).unwrap();
            let info = pair.session.info().unwrap();
            assert_eq!(info.peer_certificate(), Some(pki.certificate()));
            assert_eq!((info.peer_certificates().len(), info.is_resumed()), (1, is_resumed));
        }
        let mut pair = Pair::server(&acceptor, &Arc::new(pki.client(&with, false)));
        let hello = pair.read_peer();
        pair.feed(&hello, 100).unwrap();
        let mut out = Vec::new();
        pair.session.take_output(&mut out);
        pair.tell_peer(&out).unwrap();
        let answer = pair.read_peer();
        assert_eq!(failure_of(&mut pair, &answer), Failure::PeerCertificate);
        assert!(matches!(alert_of(&mut pair), rustls::Error::AlertReceived(_)));
        assert!(pair.session.info().is_none());
    }
}

/// Kills: content handed on before its tag was checked; a failed session that goes on.
#[test]
fn a_record_that_was_tampered_with_ends_the_session_and_nothing_of_it_is_seen() {
    for with in With::all() {
        for at_once in [usize::MAX, 9] {
            let mut pair = Pair::with(&with, true);
            pair.settle(usize::MAX).unwrap();
            std::io::Write::write(&mut pair.peer.writer(), b"secret and sound").unwrap();
            let mut sealed = pair.read_peer();
            let sound = sealed.clone();
            *sealed.last_mut().unwrap() ^= 1;
            let error = pair.feed(&sealed, at_once).unwrap_err();
            assert_eq!((error.failure(), &pair.got[..]), (Failure::BadRecordMac, &b""[..]));
            pair.feed(&sound, usize::MAX).unwrap();
            assert_eq!(pair.got, b"", "nothing is heard any more");
            let received = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
            assert_eq!(alert_of(&mut pair), received);
            let mut out = Vec::new();
            pair.session.seal([&b"too late"[..]], &mut out).unwrap();
            pair.session.seal_close(&mut out);
            assert_eq!(out, b"", "and nothing is said");
        }
    }
}

#[test]
fn replayed_records_and_records_out_of_order_are_refused() {
    for with in With::all() {
        let mut pair = Pair::with(&with, true);
        pair.settle(usize::MAX).unwrap();
        let mut sealed = |bytes: &[u8]| {
            std::io::Write::write(&mut pair.peer.writer(), bytes).unwrap();
            pair.read_peer()
        };
        let (first, _lost, third) = (sealed(b"1"), sealed(b"2"), sealed(b"3"));
        pair.feed(&first, 99).unwrap();
        pair.got.clear();
        assert_eq!(failure_of(&mut pair, &third), Failure::BadRecordMac);
    }
}

#[test]
fn what_is_no_tls_is_known_by_its_first_byte() {
    for (bytes, failure, alert) in [
        (&b"GET / HTTP/1.1\r\n"[..], Failure::PlainHttp, 0),
        (b"P", Failure::PlainHttp, 0),
        (b"\0", Failure::NotTls, 0),
        (b"SSH-2.0", Failure::PlainHttp, 0),
        (&[23, 3, 3, 0, 1, 0], Failure::NotTls, 0),
        (&[22, 2, 0, 0, 1, 0], Failure::NotTls, 0),
        (&[22, 3, 1, 0x41, 1], Failure::RecordOverflow, 22),
        (&[22, 3, 1, 0, 4, 24, 0, 0, 0], Failure::Protocol, 10),
    ] {
        let mut pair = Pair::with(&With::TLS13, true);
        assert_eq!(failure_of(&mut pair, bytes), failure, "{bytes:?}");
        let mut out = Vec::new();
        pair.session.take_output(&mut out);
        match alert {
            0 => assert_eq!(out, b""),
            _ => assert_eq!((out[0], out.len()), (21, 7), "{out:?}"),
        }
    }
    let mut pair = Pair::with(&With::TLS13, false);
    assert_eq!(failure_of(&mut pair, b"HTTP/1.1 400 Bad Request\r\n"), Failure::PlainHttp);
}

/// Kills: a panic of ours, or of rustls' by our hands, over a handshake that is not what it should be.
#[test]
fn no_handshake_that_was_tampered_with_leads_to_a_panic() {
    for with in [With::TLS13, With::TLS12] {
        let pki = Pki::new();
        let acceptor = Acceptor::new(pki.server(&with, true)).unwrap();
        let client = Arc::new(pki.client(&with, true));
        for flight in 0..2 {
            for place in 0..300 {
                let mut pair = Pair::server(&acceptor, &client);
                for _ in 0..flight {
                    let bytes = pair.read_peer();
                    pair.feed(&bytes, usize::MAX).unwrap();
                    let mut out = Vec::new();
                    pair.session.take_output(&mut out);
                    pair.tell_peer(&out).unwrap();
                }
                let mut bytes = pair.read_peer();
                let at = place * bytes.len() / 300;
                bytes[at] = bytes[at].wrapping_add(1 + place as u8 % 3);
                let _ = pair.feed(&bytes, 700);
                let _ = pair.feed(&bytes, usize::MAX);
                assert_eq!(pair.got, b"");
            }
        }
    }
}

/// Seals records of any kind with a session's own keys, as a peer that knows no rules.
fn lawless(with: &With, is_server: bool) -> (Session, Session) {
    let pki = Pki::new();
    let server = Acceptor::new(pki.server(with, false)).unwrap().session();
    let client = Connector::new(pki.client(with, false));
    let client = client.session("localhost").unwrap();
    let (mut lawless, mut judged) = if is_server { (client, server) } else { (server, client) };
    for _ in 0..4 {
        exchange(&mut lawless, &mut judged);
        exchange(&mut judged, &mut lawless);
    }
    assert!(!lawless.is_handshaking() && !judged.is_handshaking());
    (lawless, judged)
}

fn exchange(from: &mut Session, to: &mut Session) {
    let mut out = Vec::new();
    from.take_output(&mut out);
    let mut at = 0;
    while to.next(&mut out, &mut at, &mut Spares::new(0)).unwrap().is_some() {}
}

/// Kills: a record without content that takes no number; floods without a bound.
#[test]
fn what_a_lawless_peer_sends_leads_to_what_it_should() {
    const ANY: &[u8] = b"data";
    let long = vec![1; RECORD_BYTES_MAX + 1];
    let (both, of_13) = (&[With::TLS13, With::TLS12][..], &[With::TLS13][..]);
    type Row<'r> = (&'static str, &'r [With], bool, &'r [(u8, &'r [u8])], usize, Result<(), Failure>);
    let rows: &[Row<'_>] = &[
        ("data", both, true, &[(23, ANY)], 100, Ok(())),
        ("an empty record before each", both, true, &[(23, b""), (23, ANY)], 100, Ok(())),
        ("empty records", both, true, &[(23, b"")], 33, Err(Failure::Flood)),
        ("a few empty records", both, true, &[(23, b""), (23, b""), (23, ANY)], 30, Ok(())),
        ("warnings", both, true, &[(21, &[1, 90])], 33, Err(Failure::Flood)),
        ("an alert", both, true, &[(21, &[2, 40])], 1, Err(Failure::Alert)),
        ("a warning in TLS 1.3", of_13, true, &[(21, &[1, 40])], 1, Err(Failure::Alert)),
        ("a short alert", both, true, &[(21, &[2])], 1, Err(Failure::Protocol)),
        ("an empty alert", both, true, &[(21, b"")], 1, Err(Failure::Protocol)),
        ("a long record", both, true, &[(23, &long)], 1, Err(Failure::RecordOverflow)),
        ("no such type", both, true, &[(99, ANY)], 1, Err(Failure::Protocol)),
        ("change_cipher_spec", both, true, &[(20, &[1])], 1, Err(Failure::Protocol)),
        ("zeros", of_13, true, &[(0, &[0; 9])], 1, Err(Failure::Protocol)),
        ("a ClientHello", both, true, &[(22, &[1, 0, 0, 0])], 1, Err(Failure::Protocol)),
        ("a HelloRequest", both, false, &[(22, &[0, 0, 0, 0])], 1, Err(Failure::Protocol)),
        ("a ticket to a server", of_13, true, &[(22, &[4, 0, 0, 1, 0])], 1, Err(Failure::Protocol)),
        ("a bad ticket", of_13, false, &[(22, &[4, 0, 0, 1, 0])], 1, Err(Failure::Protocol)),
        ("a very long ticket", of_13, false, &[(22, &[4, 1, 0, 0, 0])], 1, Err(Failure::Protocol)),
        ("an empty message", of_13, true, &[(22, b"")], 1, Err(Failure::Protocol)),
        ("KeyUpdate that says nothing", of_13, true, &[(22, &[24, 0, 0, 0])], 1, Err(Failure::Protocol)),
        ("KeyUpdate of 2", of_13, true, &[(22, &[24, 0, 0, 1, 2])], 1, Err(Failure::Protocol)),
        ("KeyUpdate and more", of_13, true, &[(22, &[24, 0, 0, 1, 0, 24])], 1, Err(Failure::Protocol)),
        ("data amid a message", of_13, true, &[(22, &[24]), (23, ANY)], 1, Err(Failure::Protocol)),
    ];
    for (what, withs, is_server, records, times, expected) in rows {
        for with in *withs {
            let (mut lawless, mut judged) = lawless(with, *is_server);
            let mut judge = || {
                for _ in 0..*times {
                    for (content_type, content) in *records {
                        let mut sealed = Vec::new();
                        lawless.put_any(*content_type, content, &mut sealed);
                        let mut at = 0;
                        while judged
                            .next(&mut sealed, &mut at, &mut Spares::new(0))
                            .map_err(|error| error.failure())?
                            .is_some()
                        {}
                    }
                }
                Ok(())
            };
            assert_eq!(judge(), *expected, "{what} {with:?}");
            let is_told = !matches!(expected, Ok(()) | Err(Failure::Alert));
            assert_eq!(judged.has_output(), is_told, "{what}");
        }
    }
}

#[test]
fn wishes_for_new_keys_are_answered_once_and_bounded() {
    let (mut lawless, mut judged) = lawless(&With::TLS13, true);
    let mut ask = || {
        let mut sealed = Vec::new();
        lawless.ask_for_key(&mut sealed);
        let mut at = 0;
        while judged.next(&mut sealed, &mut at, &mut Spares::new(0)).map_err(|error| error.failure())?.is_some() {}
        Ok(judged.memory_bytes())
    };
    for _ in 0..32 {
        assert!(ask().unwrap() < 256, "as long as one answer waits, there is no other");
    }
    assert_eq!(ask(), Err(Failure::Flood));
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() <= 128, "{}", size_of::<Session>());
    let mut pair = Pair::with(&With::TLS13, true);
    pair.settle(usize::MAX).unwrap();
    pair.receive(&[1; 30_000], 999).unwrap();
    pair.feed(&[], 1).unwrap();
    let mut at = 0;
    assert!(pair.session.next(&mut [], &mut at, &mut Spares::new(0)).unwrap().is_none());
    assert_eq!(pair.session.memory_bytes(), 0);
}
