//! Frames: their content, and that large ones are not copied.

use pollux::Frames;
use pollux::socket::{Frame, SendError, pair};
use proptest::prelude::*;

use crate::receive;

/// Well above what fits into a frame itself.
const LARGE: usize = 1 << 20;

fn assert_send<T: Send>() {}

#[test]
fn what_may_move_to_another_thread() {
    assert_send::<Frame>();
    assert_send::<pollux::socket::Socket>();
    assert_send::<pollux::socket::PollSet>();
    let frame = Frame::copy_from(&vec![9; LARGE]);
    let length = std::thread::spawn(move || frame.len()).join().unwrap();
    assert_eq!(length, LARGE);
}

#[test]
fn content_of_every_size() {
    // 33 bytes is the last length that lies inside the frame.
    for length in [0, 1, 32, 33, 34, 35, 1000, LARGE] {
        let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let frame = Frame::copy_from(&bytes);
        assert_eq!(&*frame, &bytes[..]);
        assert_eq!((frame.len(), frame.is_empty(), frame.more()), (length, length == 0, false));
        let moved = frame;
        assert_eq!(moved.as_ref(), &bytes[..]);
        assert_eq!(moved.frame_count(), 1);
        assert_eq!(moved.frame(0), &bytes[..]);
        assert_eq!(moved, Frame::from(&bytes[..]));
    }
    assert_eq!(format!("{:?}", Frame::copy_from(b"a\0b")), r#"b"a\0b""#);
    assert!(Frame::default().is_empty());
}

#[test]
fn a_large_frame_is_moved_and_not_copied() {
    let context = zmq::Context::new();
    let (left, right) = pair(&context).unwrap();
    let mut frames: Vec<Frame> =
        (0..3).map(|index| Frame::copy_from(&vec![index; LARGE])).collect();
    let places: Vec<*const u8> = frames.iter().map(|frame| frame.as_ptr()).collect();
    left.send_frames(&mut frames).unwrap();
    assert!(frames.is_empty() && frames.capacity() >= 3);

    // Over inproc the receiver sees the very memory.
    assert!(right.receive_frames(&mut frames).unwrap());
    assert_eq!(frames.iter().map(|frame| frame.as_ptr()).collect::<Vec<_>>(), places);
    for (index, frame) in frames.iter().enumerate() {
        assert_eq!(**frame, vec![index as u8; LARGE][..]);
        assert_eq!(frame.more(), index < 2);
    }
    // And forwarding them is a move, too, with the MORE flags made anew.
    frames.remove(2);
    right.send_frames(&mut frames).unwrap();
    assert!(left.receive_frames(&mut frames).unwrap());
    assert_eq!(frames.iter().map(|frame| frame.as_ptr()).collect::<Vec<_>>(), places[..2]);
    assert!(!frames[1].more());
}

#[test]
fn frames_that_are_refused_stay_where_they_are() {
    let context = zmq::Context::new();
    let alone = pollux::socket::Socket::new(&context, pollux::socket::SocketType::Push).unwrap();
    let mut frames: Vec<Frame> =
        (0..3).map(|index| Frame::copy_from(&vec![index; LARGE])).collect();
    let places: Vec<*const u8> = frames.iter().map(|frame| frame.as_ptr()).collect();
    assert_eq!(alone.send_frames(&mut frames), Err(SendError::WouldBlock));
    assert_eq!(frames.iter().map(|frame| frame.as_ptr()).collect::<Vec<_>>(), places);
    assert!(frames.iter().all(|frame| frame.len() == LARGE));
}

#[test]
fn sending_copies_and_keeps_the_original() {
    let context = zmq::Context::new();
    let (left, right) = pair(&context).unwrap();
    let frames = [Frame::copy_from(b"id"), Frame::copy_from(&vec![1; LARGE])];
    left.send(&frames[..]).unwrap();
    let received = receive(&right);
    assert_eq!(received.get(1).unwrap(), &frames[1][..]);
    assert_ne!(received.get(1).unwrap().as_ptr(), frames[1].as_ptr());
}

proptest! {
    /// Whatever the frames are, however many, they arrive as they were sent.
    #[test]
    fn messages_arrive_as_they_were_sent(
        message in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..20),
    ) {
        let context = zmq::Context::new();
        let (left, right) = pair(&context).unwrap();
        left.send(&message[..]).unwrap();
        left.send_frames(&mut message.iter().map(|bytes| Frame::copy_from(bytes)).collect()).unwrap();
        for _ in 0..2 {
            let received = receive(&right);
            prop_assert_eq!(received.len(), message.len());
            for (got, sent) in received.iter().zip(&message) {
                prop_assert_eq!(&got[..], &sent[..]);
            }
        }
        prop_assert_eq!(right.receive_message(), Ok(None));
    }
}
