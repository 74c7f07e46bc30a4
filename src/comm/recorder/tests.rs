use super::record::State;
use super::{KEPT, Recorded, Recorder};
use crate::comm::local::group;
use crate::comm::{Call, Collective, Operation, Stage};
use std::sync::Arc;
use tch::Tensor;

/// A rank alone in its group, recorded.
fn alone() -> (Arc<Recorder>, Recorded) {
    let recorder = Recorder::new(3);
    let transport = group(&[3]).pop().unwrap();
    let recorded = Recorded::new(Box::new(transport), &recorder, "model", &[3]);
    (recorder, recorded)
}

fn call(layer: &str) -> Call {
    Call::new(layer, Stage::Forward)
}

#[test]
fn a_call_is_travelling_until_it_is_finished_and_blocks_who_waits_for_it() {
    let recorder = Recorder::new(0);
    let ends = group(&[0, 1]);
    let mut ends = ends.into_iter();
    let mut own = Recorded::new(Box::new(ends.next().unwrap()), &recorder, "model", &[0, 1]);
    let mut peer = ends.next().unwrap();
    let values = Tensor::from_slice(&[1.0f32, 2.0, 3.0]);
    let ticket = own.start_all_gather(&call("conv3"), &values).unwrap();
    let flight = recorder.flight();
    let record = &flight.records[0];
    assert_eq!((record.operation, record.layer.as_str(), record.bytes), (Operation::AllGather, "conv3", 12));
    assert_eq!((record.state, record.blocked_seconds, record.sequence), (State::Travelling, None, 1));
    assert_eq!(recorder.blocked_since(), None);
    let waiting = std::thread::spawn(move || own.finish(ticket).map(|_| ()));
    while recorder.blocked_since().is_none() {
        std::thread::yield_now();
    }
    assert!(recorder.flight().records[0].blocked_seconds.is_some());
    peer.all_gather(&call("conv3"), &values).unwrap();
    waiting.join().unwrap().unwrap();
    assert_eq!((recorder.flight().records[0].state, recorder.blocked_since()), (State::Done, None));
}

#[test]
fn a_call_that_fails_is_recorded_as_failed() {
    let (recorder, mut recorded) = alone();
    assert!(!recorder.has_failed());
    recorded.reduce_scatter(&call("fc6"), &[]).unwrap_err();
    assert!(recorder.has_failed());
    assert_eq!(recorder.flight().records[0].state, State::Failed);
}

#[test]
fn the_last_calls_are_kept_and_all_are_counted() {
    let (recorder, mut recorded) = alone();
    let own = Tensor::from_slice(&[1.0f32]);
    for number in 1..=KEPT + 44 {
        let _ = recorded.all_reduce(&call(&number.to_string()), &own).unwrap();
    }
    let flight = recorder.flight();
    assert_eq!(flight.records.len(), KEPT);
    assert_eq!((flight.records[0].layer.as_str(), flight.records[0].sequence), ("45", 45));
    assert_eq!(flight.groups[0].calls, KEPT as u64 + 44);
    assert!(flight.records.iter().all(|record| record.state == State::Done && record.blocked_seconds.is_none()));
}

#[test]
fn what_a_probe_denies_is_under_way_though_the_rank_went_on() {
    let (recorder, mut recorded) = alone();
    let _ = recorded.all_reduce(&call("fc6"), &Tensor::from_slice(&[1.0f32])).unwrap();
    let arrived = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = Arc::clone(&arrived);
    recorder.note(0, |call| {
        call.probe = Some(Arc::new(move || asked.load(std::sync::atomic::Ordering::Relaxed)));
    });
    recorder.look();
    assert_eq!(recorder.flight().records[0].state, State::Travelling);
    assert!(recorder.blocked_since().is_some());
    arrived.store(true, std::sync::atomic::Ordering::Relaxed);
    recorder.look();
    assert_eq!((recorder.flight().records[0].state, recorder.blocked_since()), (State::Done, None));
}

#[test]
fn the_log_is_free_while_it_is_asked_whether_a_call_that_ends_has_travelled() {
    let (recorder, mut recorded) = alone();
    let _ = recorded.all_reduce(&call("fc6"), &Tensor::from_slice(&[1.0f32])).unwrap();
    let (asked, free) = (Arc::clone(&recorder), Arc::new(std::sync::Mutex::new(Vec::new())));
    let found = Arc::clone(&free);
    recorder.note(0, |call| {
        call.probe = Some(Arc::new(move || {
            found.lock().unwrap().push(asked.log.try_lock().is_ok());
            true
        }));
    });
    recorder.end(0, &Ok(()));
    assert_eq!(*free.lock().unwrap(), [true]);
    assert_eq!((recorder.flight().records[0].state, recorder.blocked_since()), (State::Done, None));
}
