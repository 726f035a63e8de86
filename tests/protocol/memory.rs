//! What a connection costs: heap while idle, allocations while data flows.

#![allow(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use agent::ssh::crypto::Random;
use agent::ssh::{ChannelId, Core};

use crate::client::Habits;
use crate::dialogue::{Dialogue, channel_data, setup};
use crate::login::{PROTECTIONS, protected};

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { bytes: 0, allocations: 0 }) };
}

#[derive(Debug, Clone, Copy)]
struct Counts {
    bytes: isize,
    allocations: usize,
}

/// Counts by thread, so that tests beside this one do not disturb it.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize, allocations: usize) {
    let _ = COUNTS.try_with(|counts| {
        let before = counts.get();
        counts.set(Counts {
            bytes: before.bytes + bytes,
            allocations: before.allocations + allocations,
        });
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing, since the
// thread-local is const-initialised and needs no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed(), 1);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed(), 0);
        // SAFETY: `pointer` came from `System` with this layout, through `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn counts() -> Counts {
    COUNTS.with(Cell::get)
}

/// An open connection with one channel, in this core alone.
fn idle_core(dialogue: &mut Dialogue) -> (Core, isize) {
    let frozen = {
        let other = Core::new(&setup(), [0; 16], Random::system());
        std::mem::replace(&mut dialogue.core, other)
            .freeze()
            .unwrap()
    };
    let setup = setup();
    let before = counts().bytes;
    let mut core = Core::thaw(&frozen, &setup, Random::system()).unwrap();
    core.auth_success();
    let len = core.outbox().len();
    core.sent(len);
    core.release_buffers();
    let after = counts().bytes;
    (core, after - before)
}

#[test]
fn an_idle_connection_is_small() {
    for (cipher, mac) in PROTECTIONS {
        let mut dialogue = Dialogue::in_auth(protected(cipher, mac));
        dialogue.client.send(&crate::dialogue::auth_request());
        dialogue.run();
        let (core, heap_bytes) = idle_core(&mut dialogue);
        let whole = heap_bytes + size_of::<Core>().cast_signed();
        assert!(
            whole < 8 * 1024,
            "{cipher} {mac}: {whole} bytes, {heap_bytes} of them heap"
        );
        assert_eq!(core.outbox(), b"");
    }
}

#[test]
fn released_buffers_are_gone_and_come_back() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    for _ in 0..100 {
        dialogue.client.send(&channel_data(0, &[b'x'; 32_768]));
    }
    dialogue.send_data(ChannelId(0), &vec![b'x'; 1 << 20]);
    dialogue.run();
    assert!(dialogue.core.buffer_bytes() > 100_000);
    dialogue.core.release_buffers();
    assert!(
        dialogue.core.buffer_bytes() < 1024,
        "{}",
        dialogue.core.buffer_bytes()
    );
    dialogue.forget();
    dialogue.client.send(&channel_data(0, b"again"));
    dialogue.run();
    assert_eq!(dialogue.events.len(), 1);
    assert!(dialogue.core.buffer_bytes() < 16 * 1024);
}

#[test]
fn a_packet_costs_no_allocation() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    let mut packets = Vec::new();
    for _ in 0..200 {
        packets.extend_from_slice(&dialogue.client.packet(&channel_data(0, &[b'x'; 32_768])));
    }
    let core = &mut dialogue.core;
    let mut sent = 0;
    let mut worst = 0;
    let mut handled = 0;
    while sent < packets.len() {
        let before = counts().allocations;
        let room = core.inbox();
        let len = room.len().min(packets.len() - sent);
        room[..len].copy_from_slice(&packets[sent..sent + len]);
        core.received(len);
        sent += len;
        while core.next_event().unwrap().is_some() {
            core.consumed(ChannelId(0), 32_768);
            handled += 1;
        }
        if let Some(slot) = core.send_slot(ChannelId(0), agent::ssh::Stream::Data) {
            slot[0] = b'x';
            core.send_commit(1);
        }
        let len = core.outbox().len();
        core.sent(len);
        // The first reads find their size.
        if handled > 20 {
            worst = worst.max(counts().allocations - before);
        }
    }
    assert_eq!(handled, 200);
    assert_eq!(worst, 0, "allocations in one turn of the loop");
}

#[test]
fn a_stranger_costs_little_before_and_after_the_exchange() {
    let setup = setup();
    let before = counts().bytes;
    let core = Core::new(&setup, [0; 16], Random::system());
    let fresh = counts().bytes - before;
    assert!(fresh < 8 * 1024, "{fresh} bytes before the first byte came");
    drop(core);
}
