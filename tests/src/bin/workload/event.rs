//! Reading an event from a record of the log.

use std::hint::black_box;

use usher_proto::{Event, Record};

use crate::{Work, samples};

pub(crate) fn work(times: usize) -> Work {
    let mut records: Vec<Record> = (0..times).map(|number| samples::event(number).into_record()).collect();
    Box::new(move || {
        let record = records.pop().expect("one for each time");
        black_box(Event::from_record(&record).expect("an event"));
    })
}
