//! Frames cut anywhere, and floods of each kind against the limits.

use proptest::prelude::*;

use super::*;

const fn head(kind: u8, flags: u8, length: u32) -> Head {
    Head {
        length,
        kind,
        flags,
        stream: 1,
    }
}

/// As it goes over the wire.
fn bytes(head: &Head) -> Vec<u8> {
    let mut bytes = head.length.to_be_bytes()[1..].to_vec();
    bytes.extend([head.kind, head.flags]);
    bytes.extend(head.stream.to_be_bytes());
    bytes.extend(vec![0xff; usize::try_from(head.length).unwrap()]);
    bytes
}

fn heads(follower: &mut Follower, mut bytes: &[u8]) -> Vec<Head> {
    std::iter::from_fn(|| follower.next(&mut bytes)).collect()
}

prop_compose! {
    fn any_head()(length in 0..300_u32, kind in 0..20_u8, flags: u8, stream in 0..1_u32 << 31) -> Head {
        Head { length, kind, flags, stream }
    }
}

proptest! {
    #[test]
    fn follow_any_cut_of_any_frames_gives_the_same_heads(
        preface in 0..30_usize,
        frames in prop::collection::vec(any_head(), 0..20),
        cuts in prop::collection::vec(1..400_usize, 1..40),
    ) {
        let mut stream = vec![0xaa; preface];
        stream.extend(frames.iter().flat_map(bytes));
        let mut follower = Follower::after(preface);
        let (mut found, mut rest) = (Vec::new(), &stream[..]);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (part, others) = rest.split_at(rest.len().min(*cut));
            found.extend(heads(&mut follower, part));
            prop_assert!(follower.missing() <= others.len());
            rest = others;
        }
        prop_assert_eq!(found, frames);
        prop_assert_eq!(follower.missing(), 0);
    }

    #[test]
    fn follow_a_frame_cut_anywhere_says_what_is_missing(frame in any_head(), cut in 0..310_usize) {
        let whole = bytes(&frame);
        let cut = cut.min(whole.len());
        let mut follower = Follower::after(0);
        heads(&mut follower, &whole[..cut]);
        let end = if cut < 9 { 9 } else { whole.len() };
        prop_assert_eq!(follower.missing(), if cut == 0 { 0 } else { end - cut });
    }

    #[test]
    fn count_is_never_too_many_below_the_limit_of_any_second(
        frames in prop::collection::vec((any_head(), 0..200_u64), 0..500),
    ) {
        let mut counter = Counter::default();
        let (mut now, mut recent) = (Duration::ZERO, Vec::new());
        for (frame, wait) in &frames {
            now += Duration::from_millis(*wait);
            recent.push((Kind::of(frame), now));
            let Some(kind) = counter.received(frame, now) else { continue };
            let second = recent.iter().filter(|(it, at)| *it == Some(kind) && now < *at + WINDOW);
            prop_assert!(second.count() > usize::try_from(kind.limit()).unwrap());
        }
    }
}

/// How many of a frame come through in a second, of so many.
fn through(counter: &mut Counter, frame: &Head, now: Duration) -> u32 {
    let sent = (0..20_000).take_while(|_| counter.received(frame, now).is_none());
    u32::try_from(sent.count()).unwrap()
}

#[test]
fn count_of_every_flood_ends_at_its_limit_and_begins_anew_after_a_second() {
    for (kind, flags, length, limit) in [
        (RST_STREAM, 0, 4, 100),
        (PING, 0, 8, 100),
        (PING, 1, 8, 100),
        (SETTINGS, 0, 0, 50),
        (SETTINGS, 1, 0, 50),
        (PRIORITY, 0, 5, 1000),
        (PRIORITY_UPDATE, 0, 10, 1000),
        (WINDOW_UPDATE, 0, 4, 1000),
        (DATA, 0, 0, 100),
        (HEADERS, 0, 0, 20),
        (CONTINUATION, 0, 0, 20),
        (0xfa, 0, 0, 100),
        // Requests are for other limits.
        (DATA, 0, 1, 20_000),
        (DATA, END_STREAM, 0, 20_000),
        (HEADERS, END_HEADERS, 40, 20_000),
        (CONTINUATION, 0, 40, 20_000),
    ] {
        let (mut counter, frame) = (Counter::default(), head(kind, flags, length));
        let name = format!("{frame:?}");
        assert_eq!(
            through(&mut counter, &frame, Duration::ZERO),
            limit,
            "{name}"
        );
        assert_eq!(through(&mut counter, &frame, WINDOW), limit, "{name}");
    }
}

#[test]
fn count_leaves_out_what_answers_pay_for_up_to_a_bound() {
    let now = Duration::ZERO;
    let (answer, data) = (head(HEADERS, END_HEADERS, 20), head(DATA, 0, 16 << 10));
    let (ping, reset) = (head(PING, 0, 8), head(RST_STREAM, 0, 4));
    let mut counter = Counter::default();
    counter.sent(&answer);
    counter.sent(&data);
    assert_eq!(through(&mut counter, &ping, now), 100 + 8 + 8 + 32);
    assert_eq!(through(&mut counter, &reset, now), 100 + 1);
    for _ in 0..5000 {
        counter.sent(&answer);
        counter.sent(&data);
    }
    assert_eq!(through(&mut counter, &ping, WINDOW), 100 + 10_000);
    assert_eq!(through(&mut counter, &reset, WINDOW), 100 + 1000);
    // Nothing pays for SETTINGS.
    assert_eq!(through(&mut counter, &head(SETTINGS, 0, 0), WINDOW), 50);
}

#[test]
fn follow_says_whether_something_is_owed() {
    let owes = |sent: &[u8]| {
        let mut follower = Follower::after(2);
        heads(&mut follower, sent);
        follower.is_amidst()
    };
    let after = |frames: &[Head]| {
        let first = head(SETTINGS, 0, 0);
        let frames = [&first].into_iter().chain(frames).flat_map(bytes);
        b"ab".iter().copied().chain(frames).collect::<Vec<u8>>()
    };
    let cut = |mut bytes: Vec<u8>| {
        bytes.pop();
        bytes
    };
    assert!(owes(b"ab") && owes(&cut(after(&[]))));
    assert!(!owes(&after(&[])));
    let (fields, others) = (head(HEADERS, 0, 5), head(CONTINUATION, 0, 5));
    let last = head(CONTINUATION, END_HEADERS, 5);
    assert!(owes(&after(&[fields])) && owes(&after(&[fields, others])));
    assert!(owes(&cut(after(&[fields, last]))) && !owes(&after(&[fields, last])));
    assert!(owes(&cut(after(&[head(PING, 0, 8)]))));
    // A body comes as it is made.
    assert!(!owes(&cut(after(&[head(DATA, 0, 8)]))));
    assert!(owes(&after(&[])[..8]), "a head");
}
