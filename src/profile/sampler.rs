//! Samples of stacks, taken in a signal handler by the thread that they are of.
//!
//! A CPU timer for each thread that registered sends SIGPROF to that thread; the handler follows frame
//! pointers and puts addresses into a buffer that was mapped before. Assembly uses the frame pointer for
//! anything, so a pointer is followed only inside the thread's own stack: at or above the stack pointer
//! of the signal, below where the thread began, aligned, and each above the one before.
//!
//! Nothing here is in the way before the first profile: registering is a few words for each thread.
//!
//! Sources: timer_create(2), sigevent(7), sigaction(2), signal-safety(7); the kernel's
//! include/linux/posix-timers.h for clocks of threads.
#![allow(unsafe_code)] // a signal handler, timers by system call, frames of our own stack

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_void};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

use crate::limits::{PROFILE_DEPTH, PROFILE_WORDS, THREAD_STACKS_WORDS};

thread_local! {
    /// Where the calling thread's stack begins, seen from its first function; 0: it is not sampled.
    static STACK_TOP: Cell<usize> = const { Cell::new(0) };
}

/// Threads that may be sampled.
static THREADS: Mutex<Threads> = Mutex::new(Threads {
    all: Vec::new(),
    interval: None,
});

struct Threads {
    all: Vec<Thread>,
    /// A CPU profile is under way: threads that start have a timer too.
    interval: Option<Duration>,
}

struct Thread {
    id: c_int,
    timer: Option<c_int>,
}

/// Samples one after the other: how many addresses, what it stands for, then the addresses, innermost
/// first.
#[derive(Debug)]
struct Buffer {
    words: &'static [AtomicUsize],
    used: AtomicUsize,
    /// How many samples are complete, and how many found no room.
    taken: AtomicUsize,
    lost: AtomicUsize,
    /// Handlers write.
    open: AtomicBool,
    /// Handlers that are at work.
    writing: AtomicUsize,
    /// Somebody has it.
    busy: AtomicBool,
}

/// Words of a sample before its addresses.
const HEAD_WORDS: usize = 2;

static CPU_WORDS: [AtomicUsize; PROFILE_WORDS] = [const { AtomicUsize::new(0) }; PROFILE_WORDS];
static STACK_WORDS: [AtomicUsize; THREAD_STACKS_WORDS] =
    [const { AtomicUsize::new(0) }; THREAD_STACKS_WORDS];
static HANDLER: Once = Once::new();
/// Of timers.
static CPU: Buffer = Buffer::new(&CPU_WORDS);
/// Of threads that were asked where they are.
static STACKS: Buffer = Buffer::new(&STACK_WORDS);

/// As long as it lives, its thread may be sampled.
#[derive(Debug)]
pub struct Registered(c_int);

/// Lets the calling thread be sampled. To be called from its first function.
#[inline(never)]
pub fn register() -> Registered {
    let here = 0_usize;
    STACK_TOP.with(|top| top.set((&raw const here).addr()));
    // SAFETY: asks for a number.
    let id = unsafe { libc::syscall(libc::SYS_gettid) };
    let id = c_int::try_from(id).unwrap_or(0);
    let mut threads = threads();
    let timer = threads
        .interval
        .and_then(|interval| start_timer(id, interval));
    threads.all.push(Thread { id, timer });
    Registered(id)
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut threads = threads();
        if let Some(index) = threads.all.iter().position(|thread| thread.id == self.0) {
            let thread = threads.all.swap_remove(index);
            if let Some(timer) = thread.timer {
                stop_timer(timer);
            }
        }
    }
}

fn threads() -> MutexGuard<'static, Threads> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Samples being taken, of one kind.
#[derive(Debug)]
pub(super) struct Sampler(&'static Buffer);

/// A sample: what it stands for, and addresses, innermost first.
pub(super) type Sample = (u64, Vec<usize>);

impl Sampler {
    /// Samples every thread each time it has used so much CPU time. `None`: somebody has that.
    pub(super) fn every(interval: Duration) -> Option<Self> {
        let sampler = Self::start(&CPU)?;
        let mut threads = threads();
        threads.interval = Some(interval);
        for thread in &mut threads.all {
            thread.timer = start_timer(thread.id, interval);
        }
        Some(sampler)
    }

    /// Samples every thread once, and waits for them. `None`: somebody has that.
    pub(super) fn everybody(patience: Duration) -> Option<Self> {
        let sampler = Self::start(&STACKS)?;
        let ids: Vec<c_int> = threads().all.iter().map(|thread| thread.id).collect();
        for id in &ids {
            // SAFETY: a signal with a handler, to a thread of this process or to none.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), *id, libc::SIGPROF) };
        }
        let until = Instant::now() + patience;
        while STACKS.seen() < ids.len() && Instant::now() < until {
            let timeout = Timespec::try_from(Duration::from_millis(1)).ok();
            let _ = poll(&mut [], timeout.as_ref());
        }
        Some(sampler)
    }

    fn start(buffer: &'static Buffer) -> Option<Self> {
        if buffer.busy.swap(true, Ordering::Acquire) {
            return None;
        }
        HANDLER.call_once(install_handler);
        for count in [&buffer.used, &buffer.taken, &buffer.lost] {
            count.store(0, Ordering::Relaxed);
        }
        buffer.open.store(true, Ordering::SeqCst);
        Some(Self(buffer))
    }

    /// Ends it; gives the samples, and how many found no room.
    pub(super) fn stop(self) -> (Vec<Sample>, usize) {
        let buffer = self.0;
        if std::ptr::eq(buffer, &raw const CPU) {
            let mut threads = threads();
            threads.interval = None;
            for thread in &mut threads.all {
                if let Some(timer) = thread.timer.take() {
                    stop_timer(timer);
                }
            }
        }
        buffer.open.store(false, Ordering::SeqCst);
        while buffer.writing.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        let taken = (buffer.samples(), buffer.lost.load(Ordering::Relaxed));
        buffer.give_back();
        buffer.busy.store(false, Ordering::Release);
        taken
    }
}

impl Buffer {
    const fn new(words: &'static [AtomicUsize]) -> Self {
        Self {
            words,
            used: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            open: AtomicBool::new(false),
            writing: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
        }
    }

    fn put(&self, addresses: &[usize], weight: usize) {
        let len = addresses.len() + HEAD_WORDS;
        let at = self.used.fetch_add(len, Ordering::AcqRel);
        // One that does not fit leaves its place, and all behind it, unread.
        let Some(slots) = self.words.get(at..at.saturating_add(len)) else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let head = [addresses.len(), weight];
        for (slot, word) in slots.iter().zip(head.iter().chain(addresses)) {
            slot.store(*word, Ordering::Relaxed);
        }
        self.taken.fetch_add(1, Ordering::Release);
    }

    fn seen(&self) -> usize {
        self.taken.load(Ordering::Acquire) + self.lost.load(Ordering::Relaxed)
    }

    fn used(&self) -> usize {
        self.used.load(Ordering::Acquire).min(self.words.len())
    }

    fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let mut left = self.taken.load(Ordering::Acquire);
        let words = self.words.get(..self.used()).unwrap_or_default();
        let mut words = words.iter().map(|word| word.load(Ordering::Relaxed));
        while left > 0
            && let (Some(len), Some(weight)) = (words.next(), words.next())
        {
            let addresses: Vec<usize> = words.by_ref().take(len).collect();
            if addresses.is_empty() || addresses.len() < len {
                break;
            }
            left -= 1;
            samples.push((weight as u64, addresses)); // widens
        }
        samples
    }

    /// Nothing of a profile stays in memory.
    fn give_back(&self) {
        const PAGE_BYTES: usize = 64 * 1024; // of any machine
        let start = self.words.as_ptr().addr();
        let end = start + self.used() * size_of::<usize>();
        let (first, end) = (
            start.next_multiple_of(PAGE_BYTES),
            end / PAGE_BYTES * PAGE_BYTES,
        );
        if first < end {
            // SAFETY: whole pages inside the words, which are zero-filled memory without a file behind
            // it and which nobody reads or writes now: the buffer is closed.
            unsafe {
                libc::madvise(
                    std::ptr::with_exposed_provenance_mut(first),
                    end - first,
                    libc::MADV_DONTNEED,
                )
            };
        }
    }
}

fn install_handler() {
    // SAFETY: an all-zero sigaction is a valid one: no flags, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the action is complete, and its handler does only what a handler may.
    unsafe { libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut()) };
}

/// A timer of the thread's CPU time.
fn start_timer(thread: c_int, interval: Duration) -> Option<c_int> {
    // The kernel's name for the CPU time of a thread: ~id, then "of a thread" and "as scheduled".
    let clock = c_long::from(!thread) << 3 | 6;
    // SAFETY: an all-zero sigevent is a valid one.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_signo = libc::SIGPROF;
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_notify_thread_id = thread;
    let mut timer: c_int = 0;
    // SAFETY: both pointers are to locals of the types that the call wants.
    let made = unsafe {
        libc::syscall(
            libc::SYS_timer_create,
            clock,
            &raw const event,
            &raw mut timer,
        )
    };
    if made != 0 {
        return None;
    }
    let part = |it: u64| c_long::try_from(it).unwrap_or(c_long::MAX);
    let time = [
        part(interval.as_secs()),
        part(interval.subsec_nanos().into()),
    ];
    // struct itimerspec: the interval, and the first time.
    let times = [time, time];
    // SAFETY: the structure is four longs for this call on every architecture, and lives through it.
    unsafe {
        libc::syscall(
            libc::SYS_timer_settime,
            timer,
            0,
            &raw const times,
            std::ptr::null_mut::<c_void>(),
        )
    };
    Some(timer)
}

fn stop_timer(timer: c_int) {
    // SAFETY: takes a number; the timer is ours, and nobody uses it any more.
    unsafe { libc::syscall(libc::SYS_timer_delete, timer) };
}

/// Takes one sample. Only atomic operations and reads of the thread's own stack: no lock, no
/// allocation, no call that could.
extern "C" fn handler(_signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid description.
    let is_timer = unsafe { (*info).si_code } == libc::SI_TIMER;
    let (buffer, weight) = if is_timer {
        // SAFETY: as above, and a timer's.
        (&CPU, unsafe { expirations(info) })
    } else {
        (&STACKS, 1)
    };
    buffer.writing.fetch_add(1, Ordering::SeqCst);
    if buffer.open.load(Ordering::SeqCst) {
        let top = STACK_TOP.with(Cell::get);
        // SAFETY: with SA_SIGINFO the kernel passes the interrupted thread's context.
        let place = place(unsafe { &*context.cast::<libc::ucontext_t>() });
        let mut addresses = [0; PROFILE_DEPTH];
        let count = walk(place, top, &mut addresses);
        buffer.put(addresses.get(..count).unwrap_or_default(), weight);
    }
    buffer.writing.fetch_sub(1, Ordering::SeqCst);
}

/// How often a timer expired for this one signal: the kernel looks at CPU time once in a tick only,
/// which may be several intervals.
///
/// # Safety
///
/// The description is valid and that of a timer.
unsafe fn expirations(info: *const libc::siginfo_t) -> usize {
    // Three integers, padded to where a pointer may stand; then si_tid and si_overrun (sigaction(2)).
    const OVERRUN: usize = if size_of::<usize>() == 8 { 5 } else { 4 };
    // SAFETY: siginfo_t has 128 bytes on every architecture.
    let overrun = unsafe { info.cast::<c_int>().add(OVERRUN).read() };
    usize::try_from(overrun).unwrap_or(0).saturating_add(1)
}

/// Where a thread was interrupted.
#[derive(Clone, Copy)]
struct Place {
    pc: usize,
    sp: usize,
    fp: usize,
}

/// Fills in addresses, innermost first; gives how many.
fn walk(place: Place, top: usize, addresses: &mut [usize]) -> usize {
    const WORD: usize = size_of::<usize>();
    let Place { pc, sp, mut fp } = place;
    let depth = addresses.len();
    let mut count = 0;
    let mut note = |address: usize| {
        if let Some(slot) = addresses.get_mut(count) {
            *slot = address;
            count += 1;
        }
        count < depth
    };
    let mut lowest = sp;
    let mut goes_on = note(pc);
    while goes_on && fp >= lowest && fp % WORD == 0 && fp < top.saturating_sub(2 * WORD) {
        // SAFETY: both words lie between the stack pointer of the interrupted thread, which is the one
        // that runs this, and where its stack began: mapped, and written by nobody meanwhile.
        let (next, back) = unsafe {
            let frame = std::ptr::with_exposed_provenance::<usize>(fp);
            (frame.read(), frame.add(1).read())
        };
        if back < 4096 {
            break;
        }
        goes_on = note(back);
        lowest = fp + WORD;
        fp = next;
    }
    count
}

/// The calling function's callers, innermost first; gives how many. None in a thread that is not
/// registered.
#[inline(never)]
pub(super) fn here(addresses: &mut [usize]) -> usize {
    let Ok(top) = STACK_TOP.try_with(Cell::get) else {
        return 0;
    };
    let fp: usize;
    // SAFETY: copies a register.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!("mov {}, rbp", out(reg) fp, options(nomem, nostack));
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("mov {}, x29", out(reg) fp, options(nomem, nostack));
        #[cfg(target_arch = "arm")]
        std::arch::asm!("mov {}, r11", out(reg) fp, options(nomem, nostack));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm")))]
    {
        fp = 0;
    }
    let place = Place {
        pc: 0,
        // The frame pointer lies above this function's locals.
        sp: (&raw const fp).addr(),
        fp,
    };
    let count = walk(place, top, addresses);
    // The first is this function itself.
    addresses.copy_within(1.min(count)..count, 0);
    count.saturating_sub(1)
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // addresses
fn place(context: &libc::ucontext_t) -> Place {
    let registers = &context.uc_mcontext.gregs;
    Place {
        pc: registers[libc::REG_RIP as usize] as usize,
        sp: registers[libc::REG_RSP as usize] as usize,
        fp: registers[libc::REG_RBP as usize] as usize,
    }
}

#[cfg(target_arch = "aarch64")]
#[allow(clippy::cast_possible_truncation)] // addresses
fn place(context: &libc::ucontext_t) -> Place {
    let registers = &context.uc_mcontext;
    Place {
        pc: registers.pc as usize,
        sp: registers.sp as usize,
        fp: registers.regs[29] as usize,
    }
}

#[cfg(target_arch = "arm")]
fn place(context: &libc::ucontext_t) -> Place {
    let registers = &context.uc_mcontext;
    // Thumb code, bit 5 of the status, has its frame pointer elsewhere (AAPCS).
    let thumb = registers.arm_cpsr & 0x20 != 0;
    Place {
        pc: registers.arm_pc as usize,
        sp: registers.arm_sp as usize,
        fp: if thumb {
            registers.arm_r7 as usize
        } else {
            registers.arm_fp as usize
        },
    }
}

/// The place alone is known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm")))]
fn place(_context: &libc::ucontext_t) -> Place {
    Place {
        pc: 0,
        sp: 0,
        fp: 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_frame_pointer_that_is_none_is_not_followed() {
        let top = 0x8000;
        for fp in [
            0,
            1,
            0x1001,
            0x7fff,
            0x8000,
            usize::MAX,
            usize::MAX & !7,
            0xfff,
        ] {
            let mut addresses = [0; PROFILE_DEPTH];
            let place = Place {
                pc: 0x4000,
                sp: 0x1000_0000,
                fp,
            };
            assert_eq!(walk(place, top, &mut addresses), 1, "{fp:x}");
        }
    }

    #[test]
    fn frames_are_followed_upwards_and_loops_end() {
        let mut stack = [0_usize; 16];
        let base = stack.as_ptr().expose_provenance();
        let word = size_of::<usize>();
        let top = base + 16 * word;
        stack[0] = base + 4 * word;
        stack[1] = 0x5001;
        stack[4] = base;
        stack[5] = 0x5002;
        std::hint::black_box(&mut stack);
        let mut addresses = [0; PROFILE_DEPTH];
        let place = Place {
            pc: 0x5000,
            sp: base,
            fp: base,
        };
        let count = walk(place, top, &mut addresses);
        assert_eq!(addresses[..count], [0x5000, 0x5001, 0x5002]);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        static WORDS: [AtomicUsize; 10] = [const { AtomicUsize::new(0) }; 10];
        let buffer = Buffer::new(&WORDS);
        buffer.put(&[1, 2], 3);
        buffer.put(&[4], 1);
        buffer.put(&[5, 6], 1);
        buffer.put(&[7], 1);
        let expected = [(3, vec![1, 2]), (1, vec![4])];
        assert_eq!(buffer.samples(), expected);
        assert_eq!(buffer.lost.load(Ordering::Relaxed), 2);
    }

    /// Signals of one test are no samples of another.
    static TURN: Mutex<()> = Mutex::new(());

    /// Of the signal, the walk over a stack as deep as is ever kept, and the way back.
    #[test]
    fn a_hundred_samples_take_less_than_a_hundredth_of_a_second() {
        fn deep(depth: usize) -> usize {
            const SAMPLES: u32 = 20_000;
            if depth > 0 {
                return std::hint::black_box(deep(depth - 1)) + 1;
            }
            // SAFETY: asks for numbers.
            let (process, thread) = unsafe { (libc::getpid(), libc::syscall(libc::SYS_gettid)) };
            let cpu = || {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                Duration::try_from(time).unwrap()
            };
            let before = cpu();
            for _ in 0..SAMPLES {
                // SAFETY: a signal with a handler, to this thread.
                unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGPROF) };
            }
            let each = (cpu() - before) / SAMPLES;
            println!("a sample takes {each:?}");
            assert!(each * 100 < Duration::from_millis(10), "{each:?}");
            0
        }
        let work = || {
            let _registered = register();
            deep(PROFILE_DEPTH)
        };
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        HANDLER.call_once(install_handler);
        std::thread::spawn(work).join().unwrap();
    }

    #[test]
    fn a_busy_thread_is_sampled_and_a_waiting_one_is_found() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let busy = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let _registered = register();
            let mut sum = 0_u64;
            while !busy.load(Ordering::Relaxed) {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
            }
        });
        while threads().all.is_empty() {
            std::thread::yield_now();
        }
        let sampler = Sampler::every(Duration::from_millis(1)).unwrap();
        assert!(Sampler::every(Duration::from_millis(1)).is_none());
        let until = Instant::now() + Duration::from_secs(20);
        while CPU.seen() < 10 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let stacks = Sampler::everybody(Duration::from_secs(20)).unwrap();
        assert_eq!(stacks.stop().0.len(), 1, "along with the other");
        let (samples, lost) = sampler.stop();
        assert!(samples.len() >= 10, "{}", samples.len());
        assert!(
            samples
                .iter()
                .all(|(weight, stack)| *weight > 0 && !stack.is_empty())
        );
        assert_eq!(lost, 0);
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }
}
