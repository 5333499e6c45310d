//! Memory of decoded events that is used again. Pure.

use throng_model::Timestamp;

use crate::record::{EVENT_BYTES, EventRef};

/// Room for more events than this is neither kept nor made in advance: a node may have 256 partitions.
const MAX_EVENTS: usize = 1_024;

/// The memory of decoded events, for the next ones: the allocator would return it to the system each time, and the
/// system would clear it again.
#[derive(Debug, Default)]
pub struct EventBuffer {
    /// Empty.
    events: Vec<(EventRef<'static>, Timestamp)>,
}

impl EventBuffer {
    /// No events, and room for those of records of so many bytes, 1,024 at most.
    pub fn take<'a>(&mut self, bytes: usize) -> Vec<(EventRef<'a>, Timestamp)> {
        let mut events = emptied(std::mem::take(&mut self.events));
        events.reserve_exact((bytes / EVENT_BYTES).min(MAX_EVENTS));
        events
    }

    /// Keeps the memory, of 1,024 events at most.
    pub fn put(&mut self, events: Vec<(EventRef<'_>, Timestamp)>) {
        self.events = emptied(events);
        self.events.shrink_to(MAX_EVENTS);
    }
}

/// Removes the events, so that others may be stored that borrow from something else. The standard library collects into
/// the memory that is iterated over.
fn emptied<'a>(mut events: Vec<(EventRef<'_>, Timestamp)>) -> Vec<(EventRef<'a>, Timestamp)> {
    events.clear();
    events.into_iter().map(|(_, at)| (EventRef::default(), at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_events_is_used_for_the_next_ones() {
        let mut buffer = EventBuffer::default();
        let mut events = buffer.take(100 * EVENT_BYTES);
        assert!(events.is_empty() && events.capacity() >= 100);
        let id = String::from("a");
        events.push((EventRef { id: id.as_str().into(), ..EventRef::default() }, Timestamp(5)));
        let memory = events.as_ptr().cast::<u8>();
        buffer.put(events);
        let mut events = buffer.take(100 * EVENT_BYTES);
        assert!(events.is_empty());
        assert_eq!(events.as_ptr().cast::<u8>(), memory);
        // What a large record has needed is neither made in advance nor kept, but a part of it.
        assert!(buffer.take(1 << 30).capacity() < 2 * MAX_EVENTS);
        for more in [MAX_EVENTS + 1, 10_000] {
            events.reserve(more);
            buffer.put(events);
            let kept = buffer.events.capacity();
            assert!((MAX_EVENTS..2 * MAX_EVENTS).contains(&kept), "{kept}");
            events = buffer.take(0);
        }
    }
}
