//! zlib@openssh.com with clients that ask for it.

use std::process::Command;
use std::time::Duration;

use crate::accounts::User;
use crate::clients::{self, Ran, Running};
use crate::harness::{Case, World};
use crate::server::Server;
use crate::session::run_python;

pub const CASES: &[Case] = &[
    Case::new("compression::both_ways_with_new_keys", both_ways).long(),
    Case::new("compression::not_offered", not_offered),
    Case::new("compression::asyncssh", asyncssh),
    Case::new("compression::paramiko", paramiko),
];

/// Generous, for debug builds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// Lines as of a log, with noise among them: what compresses and what does not.
fn mixture(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 70_000);
    for line in 0_u64.. {
        if bytes.len() >= length {
            break;
        }
        if line % 1500 == 0 {
            for _ in 0..8000 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.extend_from_slice(&state.to_le_bytes());
            }
        }
        bytes.extend_from_slice(format!("{line} something happened again\n").as_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// `ssh -C`, telling how much it compressed; with a cheap key exchange, since there will be many.
fn ssh(server: &Server, user: &User) -> Command {
    let mut ssh = clients::ssh(server, user);
    ssh.args(["-v", "-C", "-o", "KexAlgorithms=curve25519-sha256"]);
    ssh
}

/// What the client says of one direction: bytes before and after.
fn ratio(ran: &Ran, direction: &str) -> (u64, u64) {
    let text = ran.err();
    let start = format!("compress {direction}: raw data ");
    let line = text.lines().find_map(|line| line.split_once(&start));
    let numbers: Vec<u64> = line
        .unwrap_or_else(|| panic!("no word of compression: {text}"))
        .1
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    (numbers[0], numbers[1])
}

fn both_ways(world: &World) {
    let user = world.user();
    let bytes = mixture(20 << 20);
    for (line, options) in [
        ("RekeyLimit 1M", &[][..]),
        ("RekeyLimit default none", &["-o", "RekeyLimit=1M"]),
        ("RekeyLimit 1M", &["-o", "RekeyLimit=1500K"]),
    ] {
        let server = world.server(&[line]);
        let mut ssh = ssh(&server, &user);
        ssh.args(options).arg("cat");
        let ran = Running::start(&mut ssh, bytes.clone()).wait_within(PATIENCE);
        assert!(ran.status.success(), "{}", ran.err());
        assert!(ran.stdout == bytes, "{} bytes came back", ran.stdout.len());
        let exchanges = ran.err().matches("SSH2_MSG_NEWKEYS received").count();
        assert!(exchanges > 5, "{exchanges} exchanges");
        let (inside, packed) = ratio(&ran, "incoming");
        // The last stream's, or all of them: ssh's versions differ.
        assert!(packed * 10 < inside * 9, "{packed} of {inside}");
    }
}

fn not_offered(world: &World) {
    let user = world.user();
    let server = world.server(&["Compression no"]);
    let ran = clients::run(ssh(&server, &user).arg("echo fine"));
    assert_eq!(ran.out(), "fine\n");
    assert!(ran.err().contains("compression: none"), "{}", ran.err());
    let server = world.server(&["Compression delayed"]);
    let ran = clients::run(ssh(&server, &user).arg("echo fine"));
    assert_eq!(ran.out(), "fine\n");
    assert!(
        ran.err().contains("compression: zlib@openssh.com"),
        "{}",
        ran.err()
    );
}

fn asyncssh(world: &World) {
    let program = r#"
import asyncio, sys, asyncssh
async def main():
    name, key, port = sys.argv[1:4]
    async with asyncssh.connect("127.0.0.1", int(port), username=name, client_keys=[key],
                                known_hosts=None, config=None, agent_path=None,
                                rekey_bytes=300000,
                                compression_algs=["zlib@openssh.com"]) as connection:
        data = b"".join(b"line %d\n" % number for number in range(200000))
        result = await connection.run("cat", input=data, encoding=None, check=True)
        print(connection.get_extra_info("recv_compression"), result.stdout == data)
asyncio.run(main())
"#;
    let user = world.user();
    let server = world.server(&[]);
    assert_eq!(
        run_python(&server, &user, program),
        "zlib@openssh.com True\n"
    );
}

fn paramiko(world: &World) {
    let program = r#"
import sys, threading, paramiko
name, key, port = sys.argv[1:4]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", int(port), name, key_filename=key, compress=True,
               look_for_keys=False, allow_agent=False, timeout=30)
data = b"".join(b"line %d\n" % number for number in range(200000))
stdin, stdout, _ = client.exec_command("cat", timeout=60)
def send():
    stdin.write(data)
    stdin.channel.shutdown_write()
threading.Thread(target=send).start()
print(stdout.read() == data, client.get_transport().remote_compression)
client.close()
"#;
    let user = world.user();
    let server = world.server(&[]);
    assert_eq!(
        run_python(&server, &user, program),
        "True zlib@openssh.com\n"
    );
}
