//! The tests of the ring once more, with the process's descriptors, as on kernels that close direct ones late.

use super::{Bench, DESCRIPTORS, Descriptors, LONG, LONG_NS, Op, Read, Ring as _, TcpStream, Wait, small, token};

macro_rules! once_more {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                DESCRIPTORS.set(Some(Descriptors::Plain));
                super::$name();
            }
        )*
    };
}

once_more! {
    accepts_tell_who_it_is
    unix_peers_have_no_address
    mapped_addresses_are_shown_as_what_they_are
    an_end_of_accepting_ends_only_that
    a_multishot_receive_brings_everything_while_buffers_are_recycled
    small_messages_of_several_sockets_do_not_mix
    starved_receives_get_more_buffers
    a_single_receive_fills_the_buffer_it_was_given
    a_receive_of_what_is_there_does_not_wait
    a_bounded_receive_ends_with_data
    a_whole_send_completes_silently
    a_short_send_tells_how_much_and_a_full_socket_says_again
    a_waiting_send_finishes_when_the_reader_reads
    a_waiting_send_that_is_cancelled_tells_what_it_sent
    a_batch_in_several_chunks_sends_each_once
    failures_beyond_the_completion_queue_are_told_within_the_turn
    vectored_sends_keep_their_order
    a_short_vectored_send_counts_over_its_pieces
    a_send_to_a_peer_that_reset_fails
    cancel_and_close_in_one_turn_deliver_the_end
    a_closed_connection_ends_beside_one_that_is_silent
    a_connection_that_is_made_is_like_one_that_is_accepted
    what_was_sent_before_a_close_arrives
    a_ring_can_be_dropped_with_everything_in_flight
}

/// Kills: descriptors of accepts that nobody has heard of, left open when the ring ends.
#[test]
fn nothing_stays_open_when_a_ring_ends() {
    DESCRIPTORS.set(Some(Descriptors::Plain));
    let mut bench = Bench::new(&small());
    let mut closing = bench.connect(4);
    bench.ring.accept(0, token(Op::Accept, 3));
    bench.ring.turn(std::iter::empty(), Wait::No).unwrap();
    let mut unheard = TcpStream::connect(bench.address).unwrap();
    unheard.set_read_timeout(Some(LONG)).unwrap();
    // The accept completes, and nobody looks.
    bench.ring.turn(std::iter::empty(), Wait::Until(bench.ring.now() + LONG_NS)).unwrap();
    bench.ring.close(token(Op::Close, 4));
    drop(bench);
    for client in [&mut unheard, &mut closing] {
        assert_eq!(Read::read(client, &mut [0]).expect("its end"), 0);
    }
}
