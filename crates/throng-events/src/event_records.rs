//! Events as records of the log, by which they are named when they are rejected later. Pure.

use crate::encode::append_event;
use crate::record::{EVENT_BYTES, EVENTS_PER_RECORD, EventRef, RecordEvents};

/// Events of one partition, as records of the log. Nothing else is kept of them but their numbers.
#[derive(Debug)]
pub struct EventRecords {
    numbers: Vec<usize>,
    /// Of [`EVENTS_PER_RECORD`] each.
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
}

impl EventRecords {
    /// None, and room for so many events.
    pub fn with_capacity(events: usize) -> Self {
        let bytes = events.min(EVENTS_PER_RECORD) * EVENT_BYTES;
        let (numbers, last) = (Vec::with_capacity(events), Vec::with_capacity(bytes));
        Self { numbers, full: Vec::new(), last }
    }

    /// Whether it has no event.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Appends an event, with the number that it has for the caller.
    pub fn push(&mut self, number: usize, event: &EventRef<'_>) {
        if self.numbers.len() == (self.full.len() + 1) * EVENTS_PER_RECORD {
            let next = Vec::with_capacity(self.last.len());
            self.full.push(std::mem::replace(&mut self.last, next));
        }
        self.numbers.push(number);
        append_event(&mut self.last, event);
    }

    /// The events, as they are read back from the records.
    pub fn events(&self) -> impl Iterator<Item = EventRef<'_>> {
        let records = self.full.iter().chain(std::iter::once(&self.last));
        records.flat_map(|record| RecordEvents::new(record).map_while(Result::ok))
    }

    /// The numbers of the events, and their records: of [`EVENTS_PER_RECORD`] each, except the last one.
    pub fn finish(mut self) -> (Vec<usize>, Vec<Vec<u8>>) {
        if !self.last.is_empty() {
            self.full.push(self.last);
        }
        (self.numbers, self.full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_record;

    #[test]
    fn events_are_cut_into_records_and_keep_their_numbers() {
        let mut events = EventRecords::with_capacity(100);
        assert!(events.is_empty());
        for number in 0..25_000 {
            let id = number.to_string();
            let event = EventRef { id: id.as_str().into(), ..EventRef::default() };
            events.push(2 * number, &event);
        }
        assert!(!events.is_empty());
        let ids = events.events().map(|event| event.id.as_str().to_owned());
        assert!(ids.eq((0..25_000).map(|number| number.to_string())));
        let (numbers, records) = events.finish();
        assert_eq!(records.len(), 3);
        for (numbers, record) in numbers.chunks(EVENTS_PER_RECORD).zip(&records) {
            let mut read = Vec::new();
            let result = read_record(record, |event| read.push(event.id.as_str().to_owned()));
            let wanted: Vec<String> = numbers.iter().map(|it| (it / 2).to_string()).collect();
            assert_eq!((result, read), (Ok(()), wanted));
        }
        let (numbers, records) = EventRecords::with_capacity(0).finish();
        assert_eq!((numbers.len(), records.len()), (0, 0));
    }
}
