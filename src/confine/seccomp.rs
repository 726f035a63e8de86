//! The system calls that remain: what the connection loop and the threads of std need, and nothing
//! that opens, executes, connects, signals or asks about the system.
//!
//! Any other call ends the process, which the monitor then starts anew: none of ours makes one. A
//! few that libraries try and can do without are answered with ENOSYS instead.

use std::ffi::c_long;

use rustix::process::Pid;

use super::{ConfineError, Confinement};

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
#[path = "seccomp_seccompiler.rs"]
mod compile;
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
#[path = "seccomp_own.rs"]
mod compile;
#[cfg(all(
    test,
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    )
))]
#[path = "seccomp_own.rs"]
mod own;

/// Numbers that libc lacks with musl (arch/arm/tools/syscall.tbl of the kernel).
#[cfg(target_arch = "arm")]
mod arm {
    use std::ffi::c_long;

    pub(super) const RSEQ: c_long = 398;
    pub(super) const CLOCK_GETTIME64: c_long = 403;
    pub(super) const PPOLL_TIME64: c_long = 414;
    pub(super) const FUTEX_TIME64: c_long = 422;
}

/// Installs the filters; gives what is missing for them.
pub(super) fn install(confinement: &Confinement) -> Result<Option<&'static str>, ConfineError> {
    let signals = signals_of(rustix::process::getpid());
    install_rules(&rules(confinement, &signals))
}

/// The same for a process that looks for others and signals them.
pub(super) fn install_for_signals() -> Result<Option<&'static str>, ConfineError> {
    let signals = signals_of(rustix::process::getpid());
    install_rules(&rules_for_signals(&signals))
}

fn install_rules(rules: &Rules<'_>) -> Result<Option<&'static str>, ConfineError> {
    let Rules { refused, allowed } = rules;
    if !available() {
        return Ok(Some("seccomp"));
    }
    // rustix asks the kernel once, by prctl, and remembers: it must not be the first time later.
    let _ = rustix::param::page_size();
    compile::install(refused, compile::Otherwise::AllowAndRefuseThese)?;
    compile::install(allowed, compile::Otherwise::EndTheProcess)?;
    Ok(None)
}

/// The rules of both filters. The kernel takes the stricter of their answers, so what is refused
/// by one is among what the other allows.
struct Rules<'a> {
    refused: Vec<Rule<'a>>,
    allowed: Vec<Rule<'a>>,
}

fn rules<'a>(confinement: &Confinement, signals: &'a [Condition]) -> Rules<'a> {
    let refused: Vec<Rule<'a>> = REFUSED.iter().copied().map(always).collect();
    let mut allowed = [ALWAYS, &refused].concat();
    allowed.push(when(libc::SYS_tgkill, signals));
    if confinement.accepts {
        allowed.push(always(libc::SYS_accept4));
    }
    if confinement.serves_http {
        allowed.extend_from_slice(HTTP);
    }
    if confinement.has_files {
        allowed.extend(FILES.iter().copied());
    }
    Rules { refused, allowed }
}

fn rules_for_signals<'a>(signals: &'a [Condition]) -> Rules<'a> {
    let refused = REFUSED.iter().copied();
    let refused: Vec<Rule<'a>> = refused
        .filter(|call| SIGNALS.iter().all(|rule| rule.call != *call))
        .map(always)
        .collect();
    let mut allowed = [ALWAYS, SIGNALS, &refused].concat();
    allowed.push(when(libc::SYS_tgkill, signals));
    Rules { refused, allowed }
}

/// Looking through /proc, and signals to what was opened there.
const SIGNALS: &[Rule<'_>] = &[
    when(libc::SYS_openat, &[READ_ONLY[1]]),
    // musl's open(3).
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    when(libc::SYS_open, &[READ_ONLY[0]]),
    always(libc::SYS_getdents64),
    always(libc::SYS_pidfd_open),
    always(libc::SYS_pidfd_send_signal),
];

/// Flags of open(2) and openat(2) without any that writes or makes something.
const READ_ONLY: [Condition; 2] = [Bits(1, WRITING, 0), Bits(2, WRITING, 0)];
const WRITING: u32 =
    (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND).cast_unsigned();

/// For files that others opened.
const FILES: &[Rule<'_>] = &[
    always(libc::SYS_pread64),
    always(libc::SYS_pwrite64),
    always(libc::SYS_writev),
    #[cfg(target_pointer_width = "64")]
    always(libc::SYS_fstatfs),
    #[cfg(target_pointer_width = "32")]
    always(libc::SYS_fstatfs64),
];

/// Whether this kernel has seccomp filters at all (CONFIG_SECCOMP_FILTER).
fn available() -> bool {
    // PR_GET_SECCOMP is EINVAL without CONFIG_SECCOMP, and 0 where no filter is installed yet.
    rustix::thread::secure_computing_mode().is_ok()
}

/// A system call that may be made, if one of `when` holds; always where there are none.
#[derive(Debug, Clone, Copy)]
struct Rule<'a> {
    call: c_long,
    when: &'a [Condition],
}

/// What an argument must be; the lower 32 bits, which is all that the kernel looks at in these.
#[derive(Debug, Clone, Copy)]
enum Condition {
    /// Argument `.0` is `.1`.
    Is(u8, u32),
    /// Arguments `.0` and `.2` are `.1` and `.3`.
    Are(u8, u32, u8, u32),
    /// Of argument `.0`, the bits `.1` are `.2`.
    Bits(u8, u32, u32),
}

const fn always<'a>(call: c_long) -> Rule<'a> {
    Rule { call, when: &[] }
}

const fn when(call: c_long, when: &[Condition]) -> Rule<'_> {
    Rule { call, when }
}

use Condition::{Are, Bits, Is};

/// Memory that can be executed is never needed: neither mapped nor made.
const NOT_EXECUTABLE: &[Condition] = &[Bits(2, libc::PROT_EXEC.cast_unsigned(), 0)];

/// A thread of this process, not a process.
const THREAD: &[Condition] = &[Bits(0, THREAD_FLAGS, THREAD_FLAGS)];
const THREAD_FLAGS: u32 =
    (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_FILES).cast_unsigned();

const OPTIONS: &[Condition] = &[
    Are(
        1,
        libc::IPPROTO_TCP.cast_unsigned(),
        2,
        libc::TCP_NODELAY.cast_unsigned(),
    ),
    Are(
        1,
        libc::IPPROTO_TCP.cast_unsigned(),
        2,
        libc::TCP_QUICKACK.cast_unsigned(),
    ),
    Are(
        1,
        libc::SOL_SOCKET.cast_unsigned(),
        2,
        libc::SO_KEEPALIVE.cast_unsigned(),
    ),
    Are(
        1,
        libc::IPPROTO_IP.cast_unsigned(),
        2,
        libc::IP_TOS.cast_unsigned(),
    ),
    Are(
        1,
        libc::IPPROTO_IPV6.cast_unsigned(),
        2,
        libc::IPV6_TCLASS.cast_unsigned(),
    ),
];

/// What a socket is: a helper's is not believed.
const QUESTIONS: &[Condition] = &[
    Are(
        1,
        libc::SOL_SOCKET.cast_unsigned(),
        2,
        libc::SO_DOMAIN.cast_unsigned(),
    ),
    Are(
        1,
        libc::SOL_SOCKET.cast_unsigned(),
        2,
        libc::SO_TYPE.cast_unsigned(),
    ),
    Are(
        1,
        libc::SOL_SOCKET.cast_unsigned(),
        2,
        libc::SO_ACCEPTCONN.cast_unsigned(),
    ),
];

const FILE_CONTROLS: &[Condition] = &[
    // Builds with debug assertions ask before each close whether the descriptor is open.
    Is(1, libc::F_GETFD.cast_unsigned()),
    Is(1, libc::F_GETFL.cast_unsigned()),
    Is(1, libc::F_DUPFD_CLOEXEC.cast_unsigned()),
    // musl sets the flag again after a duplication, for kernels that ignored it.
    Is(1, libc::F_SETFD.cast_unsigned()),
    Is(1, libc::F_SETPIPE_SZ.cast_unsigned()),
];

#[expect(
    clippy::cast_possible_truncation,
    reason = "request numbers have 32 bits"
)]
const DEVICE_CONTROLS: &[Condition] =
    &[Is(1, libc::FIONBIO as u32), Is(1, libc::TIOCSWINSZ as u32)];

/// What every confined process may do.
const ALWAYS: &[Rule<'_>] = &[
    // The connection loop.
    always(libc::SYS_read),
    always(libc::SYS_write),
    always(libc::SYS_recvmsg),
    always(libc::SYS_sendmsg),
    always(libc::SYS_ppoll),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_poll),
    always(libc::SYS_close),
    always(libc::SYS_shutdown),
    always(libc::SYS_eventfd2),
    always(libc::SYS_getrandom),
    always(libc::SYS_clock_gettime),
    #[cfg(target_pointer_width = "64")]
    always(libc::SYS_fstat),
    #[cfg(target_pointer_width = "32")]
    always(libc::SYS_fstat64),
    #[cfg(target_pointer_width = "64")]
    when(libc::SYS_fcntl, FILE_CONTROLS),
    #[cfg(target_pointer_width = "32")]
    when(libc::SYS_fcntl64, FILE_CONTROLS),
    when(libc::SYS_ioctl, DEVICE_CONTROLS),
    when(libc::SYS_setsockopt, OPTIONS),
    when(libc::SYS_getsockopt, QUESTIONS),
    // Memory.
    always(libc::SYS_brk),
    #[cfg(target_pointer_width = "64")]
    when(libc::SYS_mmap, NOT_EXECUTABLE),
    #[cfg(target_pointer_width = "32")]
    when(libc::SYS_mmap2, NOT_EXECUTABLE),
    when(libc::SYS_mprotect, NOT_EXECUTABLE),
    always(libc::SYS_munmap),
    always(libc::SYS_mremap),
    always(libc::SYS_madvise),
    // Threads, their locks and their signal stacks.
    when(libc::SYS_clone, THREAD),
    always(libc::SYS_futex),
    always(libc::SYS_set_robust_list),
    #[cfg(not(target_arch = "arm"))]
    always(libc::SYS_rseq),
    #[cfg(target_arch = "arm")]
    always(arm::RSEQ),
    always(libc::SYS_sigaltstack),
    always(libc::SYS_rt_sigprocmask),
    always(libc::SYS_rt_sigreturn),
    always(libc::SYS_sched_getaffinity),
    always(libc::SYS_sched_yield),
    always(libc::SYS_gettid),
    always(libc::SYS_restart_syscall),
    always(libc::SYS_exit),
    // The end, also by abort(3) with one of `signals_of`.
    always(libc::SYS_getpid),
    always(libc::SYS_rt_sigaction),
    // Profiles of CPU time.
    always(libc::SYS_timer_create),
    always(libc::SYS_timer_settime),
    always(libc::SYS_timer_delete),
    always(libc::SYS_exit_group),
    #[cfg(target_arch = "arm")]
    always(arm::CLOCK_GETTIME64),
    #[cfg(target_arch = "arm")]
    always(arm::FUTEX_TIME64),
    #[cfg(target_arch = "arm")]
    always(arm::PPOLL_TIME64),
];

/// Signals to threads of process `own`. Others share its uid: the `net`s of all users.
fn signals_of(own: Pid) -> [Condition; 2] {
    let own = own.as_raw_nonzero().get().cast_unsigned();
    // abort(3), and a profile of threads.
    [libc::SIGABRT, libc::SIGPROF].map(|signal| Are(0, own, 2, signal.cast_unsigned()))
}

/// What std and tiny_http do with sockets that they were given.
const HTTP: &[Rule<'_>] = &[
    always(libc::SYS_recvfrom),
    always(libc::SYS_getsockname),
    // To nowhere else than where the socket is connected.
    when(libc::SYS_sendto, &[Is(4, 0)]),
];

/// What libraries try and can do without: threads by clone3, whose flags a filter cannot see, and
/// paths (std looks for its own executable when it prints a panic).
const REFUSED: &[c_long] = &[
    libc::SYS_clone3,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_statx,
    libc::SYS_getcwd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_pointer_width = "64")]
    libc::SYS_newfstatat,
];

#[cfg(all(
    test,
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    )
))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS};

    const WITH_ALL: Confinement = Confinement {
        identity: None,
        accepts: true,
        serves_http: true,
        has_files: true,
    };
    const WITH_NOTHING: Confinement = Confinement {
        identity: None,
        accepts: false,
        serves_http: false,
        has_files: false,
    };

    const OWN: Pid = Pid::INIT;

    /// One instruction of either program: code, jt, jf, k.
    type Instruction = (u16, u8, u8, u32);

    fn ours(rules: &[Rule<'_>], otherwise: own::Otherwise) -> Vec<Instruction> {
        let program = own::compile(rules, otherwise);
        program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect()
    }

    fn theirs(rules: &[Rule<'_>], otherwise: compile::Otherwise) -> Vec<Instruction> {
        let program = compile::compile(rules, otherwise).unwrap();
        program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect()
    }

    /// Runs a filter over a call; knows the instructions that either compiler uses.
    fn run(program: &[Instruction], call: u32, arguments: [u64; 6]) -> u32 {
        let arch = match std::env::consts::ARCH {
            "x86_64" => 0xc000_003e_u32,
            "aarch64" => 0xc000_00b7,
            _ => 0xc000_00f3,
        };
        let mut data = [call.to_le_bytes(), arch.to_le_bytes()].concat();
        data.extend([0; 8]);
        data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let (mut accumulator, mut at) = (0_u32, 0_usize);
        loop {
            let (code, jt, jf, k) = program[at];
            at += 1;
            let branch = |holds: bool| usize::from(if holds { jt } else { jf });
            match code {
                0x20 => {
                    let offset = usize::try_from(k).unwrap();
                    accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
                }
                0x54 => accumulator &= k,
                0x05 => at += usize::try_from(k).unwrap(),
                0x15 => at += branch(accumulator == k),
                0x06 => return k,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    fn call(number: c_long) -> u32 {
        u32::try_from(number).unwrap()
    }

    #[test]
    fn both_compilers_decide_alike() {
        let signals = signals_of(OWN);
        both_decide_alike(rules(&WITH_ALL, &signals), &signals);
        both_decide_alike(rules_for_signals(&signals), &signals);
    }

    fn both_decide_alike(Rules { refused, allowed }: Rules<'_>, signals: &[Condition]) {
        let pairs = [
            (
                ours(&refused, own::Otherwise::AllowAndRefuseThese),
                theirs(&refused, compile::Otherwise::AllowAndRefuseThese),
            ),
            (
                ours(&allowed, own::Otherwise::EndTheProcess),
                theirs(&allowed, compile::Otherwise::EndTheProcess),
            ),
        ];
        let values: Vec<u64> = [
            OPTIONS,
            QUESTIONS,
            FILE_CONTROLS,
            DEVICE_CONTROLS,
            THREAD,
            NOT_EXECUTABLE,
            &READ_ONLY,
            signals,
        ]
        .concat()
        .iter()
        .flat_map(|condition| match *condition {
            Is(_, value) => vec![value],
            Are(_, value, _, other) => vec![value, other],
            Bits(_, mask, value) => vec![mask, value],
        })
        .map(u64::from)
        .chain([0, 1, 7, u64::MAX])
        .collect();
        let same = |number: u32, arguments: [u64; 6]| {
            for (ours, theirs) in &pairs {
                let verdicts = (run(ours, number, arguments), run(theirs, number, arguments));
                assert_eq!(verdicts.0, verdicts.1, "call {number} {arguments:x?}");
            }
        };
        for number in (0..600).chain([0x4000_0000, u32::MAX]) {
            same(number, [0; 6]);
        }
        for rule in allowed.iter().filter(|rule| !rule.when.is_empty()) {
            for first in &values {
                for second in &values {
                    same(
                        call(rule.call),
                        [*first, *first, *second, *first, *second, *second],
                    );
                }
            }
        }
    }

    #[test]
    fn what_would_be_a_way_out_ends_the_process() {
        let allowed = ours(
            &rules(&WITH_ALL, &signals_of(OWN)).allowed,
            own::Otherwise::EndTheProcess,
        );
        for number in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_kill,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_mount,
            libc::SYS_chroot,
            libc::SYS_setuid,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_memfd_create,
            libc::SYS_prctl,
            libc::SYS_openat2,
        ] {
            assert_eq!(
                run(&allowed, call(number), [0; 6]),
                SECCOMP_RET_KILL_PROCESS,
                "{number}"
            );
        }
    }

    #[test]
    fn who_may_signal_may_not_look_inside() {
        let signals = signals_of(OWN);
        let Rules { refused, allowed } = rules_for_signals(&signals);
        let refused = ours(&refused, own::Otherwise::AllowAndRefuseThese);
        let allowed = ours(&allowed, own::Otherwise::EndTheProcess);
        let verdict = |number: c_long, arguments: [u64; 6]| {
            [&refused, &allowed]
                .iter()
                .all(|program| run(program, call(number), arguments) == SECCOMP_RET_ALLOW)
        };
        let cwd = u64::MAX - 99;
        assert!(verdict(libc::SYS_openat, [cwd, 7, 0o2_000_000, 0, 0, 0]));
        assert!(verdict(libc::SYS_pidfd_send_signal, [3, 9, 0, 0, 0, 0]));
        for flags in [1, 2, 0o100, 0o1000, 0o2000] {
            assert!(!verdict(libc::SYS_openat, [cwd, 7, flags, 0, 0, 0]));
        }
        for number in [
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_kill,
            libc::SYS_execve,
            libc::SYS_socket,
            libc::SYS_setuid,
            libc::SYS_readlinkat,
            libc::SYS_setns,
        ] {
            assert!(!verdict(number, [0; 6]), "{number}");
        }
    }

    #[test]
    fn arguments_decide_where_the_call_alone_does_not() {
        let signals = signals_of(OWN);
        let allowed = ours(
            &rules(&WITH_NOTHING, &signals).allowed,
            own::Otherwise::EndTheProcess,
        );
        let verdict = |number: c_long, arguments: [u64; 6]| {
            run(&allowed, call(number), arguments) == SECCOMP_RET_ALLOW
        };
        assert!(verdict(libc::SYS_mmap, [0, 4096, 3, 0, 0, 0]));
        assert!(!verdict(libc::SYS_mmap, [0, 4096, 5, 0, 0, 0]));
        assert!(!verdict(libc::SYS_mprotect, [0, 4096, 4, 0, 0, 0]));
        assert!(verdict(libc::SYS_clone, [0x3d_0f00, 0, 0, 0, 0, 0]));
        // fork, vfork, and a new user namespace.
        for flags in [17, 0x4111, 0x1000_0000] {
            assert!(!verdict(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]));
        }
        assert!(!verdict(libc::SYS_accept4, [0; 6]));
        // Only to itself, and not every signal.
        assert!(verdict(libc::SYS_tgkill, [1, 7, 6, 0, 0, 0]));
        for (process, signal) in [(2, 6), (0, 6), (u64::from(u32::MAX), 6), (1, 9)] {
            assert!(!verdict(libc::SYS_tgkill, [process, 7, signal, 0, 0, 0]));
        }
        // TIOCSTI would type into a terminal.
        assert!(!verdict(libc::SYS_ioctl, [3, 0x5412, 0, 0, 0, 0]));
        assert!(verdict(libc::SYS_ioctl, [3, 0x5414, 0, 0, 0, 0]));
    }
}
