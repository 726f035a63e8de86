//! Clients that ask for more than there is, or in an order that no stock client has: their messages
//! are put together by hand. Memory stays bounded, and who asks for little is served all the while.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::clients;
use crate::harness::{Case, World};
use crate::processes::wait_until;
use crate::server::{self, LIMIT, Server, free_port};

pub const CASES: &[Case] = &[
    Case::new("overload::cancelled_before_it_is_there", cancelled_early),
    Case::new("overload::ten_thousand_opens", ten_thousand_opens).only_agent(),
    Case::new("overload::thousand_listeners", thousand_listeners).only_agent(),
    Case::new("overload::no_descriptors_left", no_descriptors_left).only_agent(),
    Case::new("overload::windows_that_stay_shut", windows_that_stay_shut),
    Case::new("overload::the_widest_window", the_widest_window),
    Case::new("overload::an_adjustment_too_many", an_adjustment_too_many),
    Case::new("overload::data_nobody_reads", data_nobody_reads),
];

/// What a connection may cost, whatever it asks for: windows of 1024 channels, and as much again.
const MEMORY_KIB: u64 = 200 * 1024;

/// A client that sends what it is told. `say` sends a message, `hear` gives the next one of the
/// connection protocol, `echo` asks a well-behaved session, channel 0, for a sign of life.
const CLIENT: &str = r#"
import queue, sys, time, paramiko
from paramiko.message import Message
inbox, echoes = queue.Queue(), queue.Queue()
def keep(number):
    def handler(message):
        body = message.asbytes()
        if 91 <= number <= 100 and body[:4] == bytes(4):
            echoes.put((number, body))
        else:
            inbox.put((number, body))
    return handler
name, key, port = sys.argv[1:4]
client = paramiko.Transport(("127.0.0.1", int(port)))
client._handler_table.update({n: keep(n) for n in range(81, 101)})
client._handler_table[80] = lambda message: None
client.start_client(timeout=30)
client.auth_publickey(name, paramiko.Ed25519Key.from_private_key_file(key))
def say(number, *fields):
    message = Message()
    message.add_byte(bytes([number]))
    for field in fields:
        if isinstance(field, bool): message.add_boolean(field)
        elif isinstance(field, int): message.add_int(field)
        else: message.add_string(field)
    client._send_user_message(message)
def hear(source=inbox, limit=30):
    return source.get(timeout=limit)
def hear_no(number, source=inbox):
    while True:
        got = hear(source)
        if got[0] == number: return got[1]
def word(body, index):
    return int.from_bytes(body[4 * index:4 * index + 4], "big")
def begin_echo():
    global peer
    say(90, "session", 0, 1 << 20, 1 << 15)
    peer = word(hear_no(91, echoes), 1)
    say(98, peer, "exec", True, "cat")
    hear_no(99, echoes)
def echo():
    say(94, peer, b"alive")
    assert hear_no(94, echoes)[8:] == b"alive"
"#;

fn run(server: &Server, user: &crate::accounts::User, program: &str) -> String {
    run_as(server, &user.name, &user.key, program)
}

/// Runs a client with `program` behind what it can do; gives what it says.
pub fn run_as(server: &Server, name: &str, key: &Path, program: &str) -> String {
    let mut python = std::process::Command::new(clients::python());
    python
        .args(["-c", &format!("{CLIENT}{program}"), name])
        .arg(key)
        .arg(server.port.to_string());
    clients::run(&mut python).success()
}

/// Requests are answered in order, as if each had been done before the next came.
fn cancelled_early(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let (first, second) = (free_port(), free_port());
    let path = user.home.join("socket");
    let program = format!(
        r#"
def ask(name, *fields):
    say(80, name, True, *fields)
for port in (b"", b"cancel-"):
    ask(port + b"tcpip-forward", "localhost", {first})
for port in (b"", b"cancel-"):
    ask(port + b"streamlocal-forward@openssh.com", "{path}")
for prefix in (b"", b"cancel-", b"", b"cancel-", b"cancel-", b""):
    ask(prefix + b"tcpip-forward", "127.0.0.1", {second})
print([hear()[0] for _ in range(10)])
import os, socket
until = time.monotonic() + {patience}
while os.path.exists("{path}") and time.monotonic() < until: time.sleep(0.01)
print(os.path.exists("{path}"))
try:
    socket.create_connection(("127.0.0.1", {first}))
    print("it listens")
except ConnectionRefusedError:
    print("it does not listen")
socket.create_connection(("127.0.0.1", {second}))
print(hear()[0])
"#,
        path = path.display(),
        patience = if world.is_agent() { 20 } else { 0 },
    );
    // What a listener leaves in the file system, sshd leaves there.
    let left = if world.is_agent() { "False" } else { "True" };
    assert_eq!(
        run(&server, &user, &program),
        format!("[81, 81, 81, 81, 81, 81, 81, 81, 82, 81]\n{left}\nit does not listen\n90\n")
    );
}

fn ten_thousand_opens(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().collect::<Vec<TcpStream>>());
    let before = server.memory_kib();
    let program = format!(
        r#"
begin_echo()
for number in range(1, 10001):
    kind = number % 3
    if kind == 0: say(90, "session", number, 1 << 21, 1 << 15)
    elif kind == 1: say(90, "direct-tcpip", number, 1 << 21, 1 << 15, "127.0.0.1", {to}, "127.0.0.1", 1)
    else: say(90, "no-such-type", number, 1 << 21, 1 << 15)
answers = [0] * 256
seen = set()
for _ in range(10000):
    number, body = hear(limit=60)
    answers[number] += 1
    seen.add(word(body, 0))
assert len(seen) == 10000 and answers[91] + answers[92] == 10000
assert 9 <= answers[91] <= 1024, answers[91]
echo()
print("echo", flush=True)
sys.stdin.read()
"#
    );
    let running = start(&server, &user, &program);
    let memory = server.memory_kib();
    assert!(memory < before + MEMORY_KIB, "{memory} KiB");
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
    assert_eq!(running.wait().success(), "echo\n");
}

/// Runs the program until it has said that it goes on well.
fn start(server: &Server, user: &crate::accounts::User, program: &str) -> clients::Running {
    let mut python = std::process::Command::new(clients::python());
    let marker = user.home.join("went-well");
    let program = format!("{CLIENT}{program}").replace(
        "sys.stdin.read()",
        &format!("open({:?}, 'w').close(); sys.stdin.read()", marker),
    );
    python
        .args(["-c", &program, &user.name])
        .arg(&user.key)
        .arg(server.port.to_string());
    let mut running = clients::Running::start_open(&mut python);
    wait_until("the client to be done", LIMIT * 2, || {
        marker.exists() || running.child.try_wait().unwrap().is_some()
    });
    running
}

fn thousand_listeners(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let program = r#"
begin_echo()
for _ in range(1000): say(80, "tcpip-forward", True, "localhost", 0)
answers = [hear() for _ in range(1000)]
good = [body for number, body in answers if number == 81]
print(len(good), all(len(body) == 4 for body in good))
echo()
"#;
    assert_eq!(run(&server, &user, program), "128 True\n");
}

/// Who has used up what a process may have open gets no more, and keeps what there is; so do others
/// of the same user, of whom one comes then.
fn no_descriptors_left(world: &World) {
    let user = world.user();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "ulimit -n 200; exec \"$0\" \"$@\""])
        .arg(server::agent_file());
    let lines = ["MaxSessions 100"];
    let server = Server::start_by(command, world, free_port(), &lines, &world.log());
    server.wait_until_ready();
    let program = r#"
begin_echo()
for number in range(1, 91): say(90, "session", number, 1 << 20, 1 << 15)
peers = [word(hear_no(91), 1) for _ in range(90)]
for number in peers: say(98, number, "exec", True, "exec sleep 100")
answers = [hear()[0] for _ in peers]
print(answers.count(99) > 40, answers.count(100) > 10, len(answers))
echo()
print("echo", flush=True)
sys.stdin.read()
echo()
"#;
    let running = start(&server, &user, program);
    assert_eq!(clients::ssh_run(&server, &user, "true").code(), Some(255));
    assert_eq!(running.wait().success(), "True True 90\necho\n");
}

/// Sessions that print, to a client that takes nothing.
fn windows_that_stay_shut(world: &World) {
    let user = world.user();
    let server = world.server(&["MaxSessions 50"]);
    let before = server.memory_kib();
    let program = r#"
begin_echo()
for number in range(1, 31):
    say(90, "session", number, 0 if number % 2 else 1000, 1 << 15)
peers = sorted(hear_no(91) for _ in range(30))
for number, body in enumerate(peers):
    say(98, word(body, 1), "exec", False, "yes" if number % 4 else "yes >&2")
time.sleep(2)
echo()
taken = {}
while not inbox.empty():
    number, body = hear()
    if number in (94, 95):
        length = word(body, 1) if number == 94 else word(body, 2)
        taken[word(body, 0)] = taken.get(word(body, 0), 0) + length
print(sorted(set(taken.values())), len(taken), flush=True)
sys.stdin.read()
"#;
    let running = start(&server, &user, program);
    let memory = server.memory_kib();
    assert!(memory < before + MEMORY_KIB, "{memory} KiB");
    assert_eq!(running.wait().success(), "[1000] 15\n");
}

fn the_widest_window(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let program = r#"
begin_echo()
say(90, "session", 1, 0xffffffff, 0xffffffff)
say(98, word(hear_no(91), 1), "exec", False, "head -c 50000000 /dev/zero")
total = 0
while True:
    number, body = hear()
    if number == 94:
        assert word(body, 1) == len(body) - 8
        total += len(body) - 8
    elif number == 97:
        break
echo()
print(total)
"#;
    assert_eq!(run(&server, &user, program), "50000000\n");
}

/// RFC 4254 section 5.2: a window has at most 2^32 - 1 bytes.
fn an_adjustment_too_many(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let program = r#"
begin_echo()
say(90, "session", 1, 1, 1 << 15)
to = word(hear_no(91), 1)
say(93, to, 0xfffffffe)
echo()
say(93, to, 1)
client.join(30)
print("ended" if not client.is_active() else "goes on")
"#;
    assert_eq!(run(&server, &user, program), "ended\n");
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
}

/// A far end that takes nothing stops who sends to it, and nobody else.
fn data_nobody_reads(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().port();
    let accepting = std::thread::spawn(move || -> Vec<TcpStream> {
        (0..20).map(|_| listener.accept().unwrap().0).collect()
    });
    let before = server.memory_kib();
    let program = format!(
        r#"
begin_echo()
for number in range(1, 21):
    say(90, "direct-tcpip", number, 1 << 21, 1 << 15, "127.0.0.1", {to}, "127.0.0.1", 1)
peers = {{}}
for _ in range(20):
    body = hear_no(91)
    peers[word(body, 0)] = (word(body, 1), word(body, 2))
block = bytes(1 << 15)
windows = {{number: window for number, (_, window) in peers.items()}}
until = time.monotonic() + 2
while time.monotonic() < until:
    moved = False
    for number, (peer_number, _) in peers.items():
        if windows[number] >= len(block):
            say(94, peer_number, block)
            windows[number] -= len(block)
            moved = True
    while not inbox.empty():
        kind, body = hear()
        assert kind == 93, kind
        windows[word(body, 0)] += word(body, 1)
    if moved: until = time.monotonic() + 2
    else: time.sleep(0.05)
assert all(window < len(block) for window in windows.values()), windows
echo()
print("echo", flush=True)
sys.stdin.read()
"#
    );
    let running = start(&server, &user, &program);
    let memory = server.memory_kib();
    assert!(memory < before + MEMORY_KIB, "{memory} KiB");
    assert_eq!(running.wait().success(), "echo\n");
    let streams = accepting.join().unwrap();
    std::thread::sleep(Duration::from_millis(10));
    drop(streams);
}
