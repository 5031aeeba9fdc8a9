//! The field Sec-WebSocket-Extensions, read by both ends (RFC 6455 9.1, RFC 7692 7.1).
//!
//! Input: the server's terms, then the field's values, one a line.

use ringwire::proto::extensions::{Offer, Terms, accept, check_answer};

use super::take;

pub fn run(mut data: &[u8]) {
    let flags = take(&mut data);
    let terms =
        Terms { server_context: flags & 1 != 0, client_context: flags & 2 != 0, window_bits: 10 + (flags >> 2) % 6 };
    let text = String::from_utf8_lossy(data);
    let values: Vec<&str> = text.split('\n').collect();
    if let Ok(Some((agreed, answer))) = accept(values.iter().copied(), terms) {
        assert!(agreed.server_context <= terms.server_context && agreed.client_context <= terms.client_context);
        assert!((10..=15).contains(&agreed.server_window_bits) && (8..=15).contains(&agreed.client_window_bits));
        assert!(text.to_ascii_lowercase().contains("permessage-deflate"), "nothing of it was offered");
        let says_window = answer.contains("client_max_window_bits");
        assert!(!says_window || text.to_ascii_lowercase().contains("client_max_window_bits"), "not asked for");
        // A client that offers as much takes the answer for what was agreed.
        let understood = check_answer([answer.as_str()], Some(Offer { context: true }));
        assert_eq!(understood, Some(Some(agreed)), "{answer}");
    }
    for offer in [None, Some(Offer { context: true }), Some(Offer { context: false })] {
        if let Some(Some(agreed)) = check_answer(values.iter().copied(), offer) {
            let offer = offer.expect("nothing that was not offered");
            assert!(offer.context || !(agreed.server_context || agreed.client_context));
        }
    }
}
