//! Frames: one message's bytes, cheap to hold, to share and to cut.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    collections::{BTreeSet, HashMap, hash_map::RandomState},
    hash::BuildHasher,
    thread,
};

use bytes::Bytes;
use framewire::{
    Frame,
    buffer::{BufferManager, Window},
};
use proptest::prelude::*;

fn window(manager: &BufferManager, bytes: &[u8]) -> Window {
    let mut window = manager.try_window(bytes.len()).unwrap();
    assert!(window.extend(bytes));
    window
}

/// A frame on a pooled block that nobody else holds.
fn pooled(bytes: &[u8]) -> Frame {
    Frame::cut(&mut window(BufferManager::shared(), bytes), 0..bytes.len(), bytes.len())
}

/// The same bytes in every form a frame has.
fn forms(bytes: &[u8]) -> Vec<Frame> {
    let shared = pooled(bytes);
    vec![
        pooled(bytes),
        shared.clone(),
        pooled(&[b"<", bytes, b">"].concat()).slice(1..bytes.len() + 1),
        Frame::copy_from_slice(bytes),
        Frame::from(bytes.to_vec()),
        Frame::from(Bytes::copy_from_slice(bytes)),
    ]
}

#[test]
fn bytes_and_back_do_not_copy() {
    for frame in forms(b"some bytes") {
        let place = frame.as_ptr();
        let bytes = Bytes::from(frame);
        assert_eq!(bytes.as_ptr(), place);
        let frame = Frame::from(bytes);
        assert_eq!(frame.as_ptr(), place);
        assert_eq!(Bytes::from(frame).as_ptr(), place);
    }
}

#[test]
fn a_block_goes_home_when_the_last_slice_or_bytes_drops() {
    let manager = BufferManager::default();
    let mut window = window(&manager, b"hello world");
    let frame = Frame::cut(&mut window, 0..5, 6);
    let rest = Frame::cut(&mut window, 0..5, 5);
    drop(window);
    let bytes = Bytes::from(frame.clone()).slice(1..3);
    drop(frame);
    assert_eq!(rest, "world");
    assert_eq!(rest.pinned(), 4096);
    let detached = rest.detach();
    assert_eq!((detached.pinned(), &detached), (0, &rest));
    drop(rest);
    assert!(manager.metrics().lent_bytes() > 0);
    assert_eq!(&bytes[..], b"el");
    thread::spawn(move || drop(bytes)).join().unwrap();
    assert_eq!(manager.metrics().lent_bytes(), 0);
}

#[test]
fn compares_orders_and_hashes_as_its_bytes() {
    let state = RandomState::new();
    for one in forms(b"abc") {
        for other in forms(b"abc") {
            assert_eq!(one, other);
            assert_eq!(state.hash_one(&one), state.hash_one(&other));
            assert_eq!(one.cmp(&other), std::cmp::Ordering::Equal);
        }
        assert_eq!(state.hash_one(&one), state.hash_one(&b"abc"[..]));
        assert_eq!(one, "abc");
        assert_eq!(one, *b"abc");
        assert_eq!(one, b"abc");
        assert_eq!(one, vec![b'a', b'b', b'c']);
        assert_eq!(one, Bytes::from_static(b"abc"));
        assert_eq!("abc", one);
        assert_eq!(*b"abc", one);
        assert_eq!(b"abc".to_vec(), one);
        assert_ne!(one, "abd");
        assert!(one < pooled(b"abd") && one > pooled(b"ab"));
        let map = HashMap::from([(one.clone(), 1)]);
        assert_eq!(map.get(&b"abc"[..]), Some(&1));
        assert!(BTreeSet::from([one]).contains(&b"abc"[..]));
    }
    assert_eq!(Frame::new(), "");
    assert_eq!(format!("{:?}", pooled(b"a\n")), r#"Frame(2 bytes: "a\n")"#);
}

#[test]
fn is_written_in_place_only_when_nobody_else_holds_it() {
    let frame = pooled(b"abc");
    let place = frame.as_ptr();
    let other = frame.clone();
    let frame = frame.try_into_mut().unwrap_err();
    drop(other);
    let mut bytes = frame.try_into_mut().unwrap();
    bytes[0] = b'x';
    let frame = bytes.freeze();
    assert_eq!((frame.as_ptr(), &frame[..]), (place, &b"xbc"[..]));

    let mut window = window(BufferManager::shared(), b"abcdef");
    let frame = Frame::cut(&mut window, 0..3, 3);
    let frame = frame.try_into_mut().unwrap_err();
    drop(window);
    assert!(frame.try_into_mut().is_ok(), "the window has gone");

    assert!(Frame::from_static(b"abc").try_into_mut().is_err());
    let mut owned = Frame::from(vec![1, 2, 3]).try_into_mut().unwrap();
    owned[1] = 9;
    assert_eq!(Frame::from(owned), [1, 9, 3]);
}

#[test]
fn a_part_that_a_parser_found_becomes_a_frame() {
    for frame in forms(b"{\"id\":12}") {
        let id = frame.slice_ref(&frame[6..8]).unwrap();
        assert_eq!(id, "12");
        assert_eq!(id.as_ptr(), frame[6..].as_ptr());
        assert_eq!(frame.slice_ref(&frame[9..]).unwrap(), "");
        assert!(frame.slice_ref(b"12").is_none());
        assert!(id.slice_ref(&frame).is_none());
    }
}

#[test]
#[should_panic(expected = "the frame")]
fn a_slice_beyond_the_end_panics() {
    let _ = pooled(b"abc").slice(1..4);
}

#[test]
#[should_panic(expected = "the frame")]
fn an_advance_beyond_the_end_panics() {
    pooled(b"abc").advance(4);
}

proptest! {
    #[test]
    fn cuts_as_a_slice_does(bytes in prop::collection::vec(any::<u8>(), 0..200), one in 0.0..=1.0, two in 0.0..=1.0) {
        let at = |part: f64, len: usize| (part * len as f64) as usize;
        for frame in forms(&bytes) {
            let cut = at(one, bytes.len());
            let mut head = frame.clone();
            let mut tail = head.split_off(cut);
            prop_assert_eq!(&head[..], &bytes[..cut]);
            prop_assert_eq!(&tail[..], &bytes[cut..]);
            let second = at(two, tail.len());
            let middle = tail.split_to(second);
            prop_assert_eq!(&middle[..], &bytes[cut..cut + second]);
            prop_assert_eq!(&tail[..], &bytes[cut + second..]);
            head.truncate(1000);
            prop_assert_eq!(head.len(), cut);
            let mut whole = frame;
            whole.advance(cut);
            whole.truncate(second);
            prop_assert_eq!(&whole[..], &bytes[cut..cut + second]);
        }
    }
}
