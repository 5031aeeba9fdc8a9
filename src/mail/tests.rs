//! Letters on every road, to cores that read, sleep, are full or have ended.

use super::*;

fn bells(post: &mut Post<u32>) -> Vec<usize> {
    let mut rung = Vec::new();
    post.bells(|core| rung.push(core));
    rung
}

#[test]
fn a_bell_rings_once_and_only_for_a_sleeper() {
    let mut office = PostOffice::new(2, 8);
    let (mut post, _own) = office.take(0);
    let (_, mut mailbox) = office.take(1);
    post.send(1, 1);
    assert!(bells(&mut post).is_empty(), "it is awake");
    assert_eq!(mailbox.next(), Some(1));
    assert!(mailbox.park());
    post.send(1, 2);
    post.send(1, 3);
    assert_eq!(bells(&mut post), [1], "once for the batch");
    post.send(1, 4);
    assert!(bells(&mut post).is_empty(), "it has been woken already");
}

#[test]
fn nobody_parks_on_a_letter() {
    let mut office = PostOffice::new(2, 8);
    let (mut post, _own) = office.take(0);
    let (_, mut mailbox) = office.take(1);
    post.send(1, 1);
    assert!(!mailbox.park());
}

/// Kills: a letter that found no room and is put behind those that wait; letters that are lost while they wait.
#[test]
fn a_full_mailbox_delays_and_keeps_the_order() {
    for depth in [1, 2, 3] {
        let mut office = PostOffice::new(2, depth);
        let (mut post, _own) = office.take(0);
        let (_, mut mailbox) = office.take(1);
        for letter in 0..20 {
            post.send(1, letter);
        }
        assert_eq!((post.is_congested(), post.waiting()), (true, 20 - depth));
        let mut seen = Vec::new();
        for _ in 0..20 {
            seen.extend(mailbox.next());
            post.retry();
        }
        assert_eq!(seen, Vec::from_iter(0..20), "depth {depth}");
        assert!(!post.is_congested());
    }
}

/// Kills: letters that overtake those that wait; those that wait without anybody being held up for them.
#[test]
fn what_is_offered_overtakes_nothing_and_never_waits() {
    let mut office = PostOffice::new(3, 1);
    let (mut post, _own) = office.take(0);
    let (_, mut mailbox) = office.take(1);
    drop(office.take(2));
    assert_eq!(post.offer(1, 0), Ok(()));
    assert!(bells(&mut post).is_empty(), "it is awake");
    assert_eq!(post.offer(1, 1), Err((MailError::Full, 1)));
    post.send(1, 2);
    assert_eq!(mailbox.next(), Some(0));
    assert_eq!(post.offer(1, 3), Err((MailError::Full, 3)), "there is room, for the one that waits");
    post.retry();
    assert_eq!(mailbox.next(), Some(2));
    assert!(mailbox.park());
    assert_eq!((post.offer(1, 4), mailbox.next()), (Ok(()), Some(4)));
    assert_eq!(bells(&mut post), [1]);
    assert_eq!(post.offer(2, 5), Err((MailError::Ended, 5)));
    assert_eq!(post.offer(3, 6), Err((MailError::Ended, 6)));
}

#[test]
fn urgent_letters_overtake_and_never_wait() {
    let mut office = PostOffice::new(2, 1);
    let (mut post, _own) = office.take(0);
    let (_, mut mailbox) = office.take(1);
    (0..3).for_each(|letter| post.send(1, letter));
    (10..13).for_each(|letter| post.send_urgent(1, letter));
    let urgent: Vec<u32> = std::iter::from_fn(|| mailbox.next_urgent()).collect();
    assert_eq!((urgent, mailbox.next()), (vec![10, 11, 12], Some(0)));
    assert!(mailbox.is_empty() && mailbox.park());
    assert_eq!(bells(&mut post), [1]);
    assert!(mailbox.park());
    post.send_urgent(1, 13);
    assert_eq!(bells(&mut post), [1], "it wakes a sleeper");
    assert!(!mailbox.park(), "nobody parks on an urgent letter");
}

#[test]
fn urgent_letters_that_nobody_reads_are_a_congestion() {
    let mut office = PostOffice::new(2, 2);
    let (mut post, _own) = office.take(0);
    let (_, mut mailbox) = office.take(1);
    (0..2).for_each(|letter| post.send_urgent(1, letter));
    assert!(!post.is_congested());
    post.send_urgent(1, 2);
    post.retry();
    assert!(post.is_congested());
    assert_eq!(mailbox.next_urgent(), Some(0));
    post.retry();
    assert!(!post.is_congested());
}

#[test]
fn a_courier_says_full_and_ended() {
    struct NoWake;
    impl Wake for NoWake {
        fn wake(&self) {}
    }
    let mut office = PostOffice::new(1, 1);
    let (post, mailbox) = office.take(0);
    let courier = office.courier(vec![Arc::new(NoWake)]);
    assert_eq!(courier.send(0, 1), Ok(()));
    assert_eq!(courier.send(0, 2), Err(MailError::Full));
    assert_eq!((post.own_depth(), post.own_refused()), (1, 1));
    assert_eq!(courier.send_urgent(0, 3), Ok(()));
    assert_eq!(courier.send(7, 2), Err(MailError::Ended));
    drop(mailbox);
    assert_eq!(courier.send(0, 2), Err(MailError::Ended));
    assert_eq!(courier.send_urgent(0, 3), Err(MailError::Ended));
}
/// Kills: letters of an ended core that live as long as anybody can write to it, and with them whoever waits for an answer.
#[test]
fn nothing_waits_for_a_core_that_has_ended() {
    struct NoWake;
    impl Wake for NoWake {
        fn wake(&self) {}
    }
    type Roads = [fn(&mut Post<Arc<()>>, &Courier<Arc<()>>, Arc<()>); 4];
    let roads: Roads = [
        |post, _, letter| post.send(1, letter),
        |post, _, letter| post.send_urgent(1, letter),
        |post, _, letter| drop(post.offer(1, letter)),
        |_, courier, letter| drop(courier.offer(1, letter)),
    ];
    for (road, write) in roads.into_iter().enumerate() {
        let mut office = PostOffice::new(2, 2);
        let (mut post, _own) = office.take(0);
        let (_, mailbox) = office.take(1);
        let courier = office.courier(vec![Arc::new(NoWake), Arc::new(NoWake)]);
        let letter = Arc::new(());
        for count in 1..=4 {
            write(&mut post, &courier, Arc::clone(&letter));
            let refused = road > 1 && count > 2;
            assert_eq!(Arc::strong_count(&letter) > count, !refused, "road {road}: it is read, or waits");
        }
        drop(mailbox);
        post.retry();
        post.bells(|_| {});
        assert_eq!(Arc::strong_count(&letter), 1, "road {road}: whoever waits for its end waits no more");
        write(&mut post, &courier, Arc::clone(&letter));
        assert_eq!(Arc::strong_count(&letter), 1, "road {road}: nor after that");
        assert!(!post.is_congested());
    }
}

/// Kills: a sender that looks for the end before it writes only.
#[test]
fn a_letter_written_while_a_core_ends_is_discarded_by_the_sender() {
    let mut office = PostOffice::new(2, 2);
    let (mut post, _own) = office.take(0);
    let (_, mailbox) = office.take(1);
    let letter = Arc::new(());
    post.send(1, Arc::clone(&letter));
    // Says that it ends, and is between the two steps of discarding.
    mailbox.parked.end();
    assert_eq!(Arc::strong_count(&letter), 2);
    drop(post);
    assert_eq!(Arc::strong_count(&letter), 1);
}
/// Kills: a sender that sleeps while there is room; one that is woken although nobody has waited.
#[test]
fn whoever_waits_is_told_of_room_and_woken_if_it_sleeps() {
    for (urgent, sleeps) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut office = PostOffice::new(2, 2);
        let (mut post, mut own) = office.take(0);
        let (reader_post, mut mailbox) = office.take(1);
        let mut woken = Vec::new();
        let send = |post: &mut Post<u32>| if urgent { post.send_urgent(1, 0) } else { post.send(1, 0) };
        send(&mut post);
        post.retry();
        assert!(mailbox.next().or_else(|| mailbox.next_urgent()).is_some());
        mailbox.tell_of_room(|core| woken.push(core));
        assert!(woken.is_empty(), "nobody waits");
        (0..3).for_each(|_| send(&mut post));
        assert!(!post.is_told_of_room(), "nobody was asked yet");
        post.retry();
        assert!(post.is_congested() && !post.is_told_of_room());
        assert!(!sleeps || own.park());
        mailbox.tell_of_room(|core| woken.push(core));
        assert!(woken.is_empty() && !post.is_told_of_room(), "nothing was read");
        assert!(mailbox.next().or_else(|| mailbox.next_urgent()).is_some());
        mailbox.tell_of_room(|core| reader_post.wake(core, |core| woken.push(core)));
        assert_eq!(woken, if sleeps { vec![0] } else { vec![] });
        assert!(post.is_told_of_room());
        post.retry();
        assert!(!post.is_congested() && !post.is_told_of_room());
    }
}
