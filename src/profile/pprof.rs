//! Profiles as pprof reads them: protocol buffers, written by hand.
//!
//! Source: google/pprof proto/profile.proto.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Kind;
use super::image::Image;
use crate::limits::HEAP_SAMPLE_BYTES;

pub(super) struct Profile<'a> {
    pub kind: Kind,
    /// Stacks, innermost address first, with their values.
    pub samples: &'a [(Vec<usize>, Vec<u64>)],
    pub image: &'a Image,
    pub begun: SystemTime,
    pub lasted: Duration,
    /// CPU time between two samples.
    pub period_ns: u64,
    /// Samples that found no room.
    pub lost: usize,
}

impl Profile<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut strings = Strings(vec![String::new()]);
        let mut out = Message::default();
        // Fields 1, 11 and 12: what a sample's values are.
        let types: &[(&str, &str)] = match self.kind {
            Kind::Cpu => &[("samples", "count"), ("cpu", "nanoseconds")],
            Kind::Threads => &[("goroutine", "count")],
            Kind::ThreadCreate => &[("threadcreate", "count")],
            Kind::Mutex | Kind::Block => &[("contentions", "count"), ("delay", "nanoseconds")],
            Kind::Heap | Kind::Allocs => &[
                ("alloc_objects", "count"),
                ("alloc_space", "bytes"),
                ("inuse_objects", "count"),
                ("inuse_space", "bytes"),
            ],
        };
        for kind in types {
            out.message(1, &strings.value_type(*kind));
        }
        let mut locations: BTreeMap<usize, u64> = BTreeMap::new();
        for (stack, values) in self.samples {
            let mut ids = Vec::with_capacity(stack.len());
            for (depth, address) in stack.iter().enumerate() {
                // A return address lies behind the call that it belongs to.
                let interrupted = depth == 0 && matches!(self.kind, Kind::Cpu | Kind::Threads);
                let address = if interrupted { *address } else { address - 1 };
                let next = locations.len() as u64 + 1; // widens
                ids.push(*locations.entry(address).or_insert(next));
            }
            let mut sample = Message::default();
            sample.packed(1, &ids);
            sample.packed(2, values);
            out.message(2, &sample);
        }
        out.message(3, &self.mapping(&mut strings));
        for (address, id) in &locations {
            let mut location = Message::default();
            location.number(1, *id);
            let inside = (self.image.start..self.image.end).contains(&(*address as u64)); // widens
            if inside {
                location.number(2, 1);
            }
            location.number(3, *address as u64); // widens
            out.message(4, &location);
        }
        let period = match self.kind {
            Kind::Cpu => Some((("cpu", "nanoseconds"), self.period_ns)),
            Kind::Mutex | Kind::Block => Some((("contentions", "count"), 1)),
            Kind::Heap | Kind::Allocs => Some((("space", "bytes"), HEAP_SAMPLE_BYTES as u64)), // widens
            Kind::Threads | Kind::ThreadCreate => None,
        };
        let shown = match self.kind {
            Kind::Heap => "inuse_space",
            Kind::Allocs => "alloc_space",
            _ => types.last().map_or("", |(name, _)| name),
        };
        out.number(14, strings.index(shown));
        if self.lost > 0 {
            let comment = format!("{} samples found no room: this is the beginning", self.lost);
            out.number(13, strings.index(&comment));
        }
        if let Some((kind, period)) = period {
            out.message(11, &strings.value_type(kind));
            out.number(12, period);
        }
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let begun = self.begun.duration_since(UNIX_EPOCH).unwrap_or_default();
        for text in &strings.0 {
            out.bytes(6, text.as_bytes());
        }
        out.number(9, nanos(begun));
        out.number(10, nanos(self.lasted));
        out.0
    }

    fn mapping(&self, strings: &mut Strings) -> Message {
        let mut mapping = Message::default();
        mapping.number(1, 1);
        mapping.number(2, self.image.start);
        mapping.number(3, self.image.end);
        mapping.number(4, self.image.file_offset);
        mapping.number(5, strings.index("agent"));
        mapping.number(6, strings.index(&self.image.build_id));
        mapping
    }
}

/// The string table, whose first entry is empty.
struct Strings(Vec<String>);

impl Strings {
    fn index(&mut self, text: &str) -> u64 {
        let found = self.0.iter().position(|known| known == text);
        let index = found.unwrap_or_else(|| {
            self.0.push(text.to_owned());
            self.0.len() - 1
        });
        index as u64 // widens
    }

    fn value_type(&mut self, (kind, unit): (&str, &str)) -> Message {
        let mut message = Message::default();
        message.number(1, self.index(kind));
        message.number(2, self.index(unit));
        message
    }
}

#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80); // seven bits
            value >>= 7;
        }
        self.0.push((value & 0x7f) as u8); // it is below 128
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, content: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(content.len() as u64); // widens
        self.0.extend_from_slice(content);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn packed(&mut self, field: u64, values: &[u64]) {
        let mut content = Self::default();
        for value in values {
            content.varint(*value);
        }
        self.bytes(field, &content.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_little_end_first() {
        let mut message = Message::default();
        message.number(1, 300);
        assert_eq!(message.0, [0x08, 0xac, 0x02]);
    }
}
