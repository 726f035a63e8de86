#!/usr/bin/env python3
"""What runs beside each other on one connection, side by side for several servers: server CPU of bulk
data through `ssh -L` and `ssh -R`, and the echo of a terminal while another session moves bulk data.

    tests/benchmarks/connection.py --server agent=target/dist/agent-x86_64-linux --server openssh=/usr/sbin/sshd

Run it as root, with OpenSSH's client and a cgroup2 hierarchy mounted (the server's whole process tree
is one group), and with nothing else running. Servers and forwards listen on 127.0.0.1 only and end with
the script. Prints medians, and ratios to the last server.
"""

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time

CHUNK = bytes(1 << 20)
PATIENCE_S = 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve_bytes(listener):
    """Each connection says in one line what it wants: `send N`, or `take N` and an answer at the end."""

    def one(connection):
        with connection, connection.makefile("rb", buffering=0) as lines:
            words = lines.readline().split()
            if len(words) != 2:
                return  # only somebody who looked whether the port is open
            word, rest = words[0], int(words[1])
            if word == b"send":
                while rest > 0:
                    rest -= connection.send(CHUNK[: min(rest, len(CHUNK))])
            else:
                while rest > 0 and (piece := connection.recv(len(CHUNK))):
                    rest -= len(piece)
                connection.sendall(b"done")

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=one, args=(connection,), daemon=True).start()


def move(port, word, size):
    """Seconds for `size` bytes through the forward at `port`; word: `send` (to us) or `take`."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall(b"%s %d\n" % (word, size))
        if word == b"take":
            rest = size
            while rest > 0:
                rest -= stream.send(CHUNK[: min(rest, len(CHUNK))])
            if stream.recv(4) != b"done":
                raise SystemExit("the forward ended early")
        else:
            rest = size
            while rest > 0:
                piece = stream.recv(len(CHUNK))
                if not piece:
                    raise SystemExit("the forward ended early")
                rest -= len(piece)
    return time.monotonic() - began


def wait_for_port(port):
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def cgroup(name):
    with open("/proc/mounts") as mounts:
        places = [line.split()[1] for line in mounts if line.split()[2] == "cgroup2"]
    if not places:
        raise SystemExit("no cgroup2 hierarchy: mount -t cgroup2 none /sys/fs/cgroup")
    group = os.path.join(places[0], f"forward-{os.getpid()}-{name}")
    os.mkdir(group)
    return group


def cpu_s(group):
    with open(os.path.join(group, "cpu.stat")) as stat:
        return int(stat.readline().split()[1]) / 1e6


class Server:
    def __init__(self, name, program, directory, key):
        self.name, self.directory, self.key = name, directory, key
        self.port = free_port()
        self.group = cgroup(name)
        config = os.path.join(directory, f"{name}.conf")
        host_key = os.path.join(directory, f"{name}_host_key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key], check=True)
        with open(config, "w") as file:
            file.write(
                f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nPidFile none\n"
                f"AuthorizedKeysFile {key}.pub\nStrictModes no\nPermitRootLogin yes\nUsePAM no\n"
            )
        if name == "agent":
            with open(config, "a") as file:
                file.write(f"DataDir {directory}/data\n")
            command = [program, "-c", config, "serve"]
        else:
            command = [program, "-D", "-e", "-f", config]
        self.log = open(os.path.join(directory, f"{name}.log"), "w")
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=self.log, preexec_fn=self.enter
        )
        wait_for_port(self.port)

    def enter(self):
        with open(os.path.join(self.group, "cgroup.procs"), "w") as procs:
            procs.write("0")

    def ssh(self, *options):
        return ["ssh", "-F", "none", "-p", str(self.port), "-i", self.key, "-o", "LogLevel=ERROR",
                "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                "-o", "ExitOnForwardFailure=yes", *options, "root@127.0.0.1"]

    def echo_ms(self, bulk, count=300):
        """Median time from a key to its echo; bulk: a command beside it, and what it reads."""
        control = os.path.join(self.directory, f"{self.name}.sock")
        master = subprocess.Popen(self.ssh("-M", "-S", control, "-N"))
        until = time.monotonic() + PATIENCE_S
        while not os.path.exists(control) and time.monotonic() < until:
            time.sleep(0.05)
        over = self.ssh("-S", control)
        with open("/dev/zero") as zeroes, open("/dev/null", "w") as nowhere:
            beside = bulk and subprocess.Popen(
                over + [bulk[0]], stdin=zeroes if bulk[1] else subprocess.DEVNULL, stdout=nowhere
            )
            terminal = subprocess.Popen(
                self.ssh("-S", control, "-tt") + ["stty raw echo; echo ready; exec sleep 1000"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=nowhere, bufsize=0,
            )
            seen = b""
            while b"ready" not in seen:
                seen += terminal.stdout.read(100)
            time.sleep(0.5)
            times = []
            for _ in range(count):
                began = time.monotonic()
                terminal.stdin.write(b"x")
                terminal.stdout.read(1)
                times.append(time.monotonic() - began)
                time.sleep(0.002)
            for process in filter(None, [terminal, beside, master]):
                process.kill()
                process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(control)
        return statistics.median(times) * 1000

    @contextlib.contextmanager
    def forward(self, kind, service):
        port = free_port()
        ssh = subprocess.Popen(
            self.ssh("-N", kind, f"127.0.0.1:{port}:127.0.0.1:{service}")
        )
        try:
            wait_for_port(port)
            time.sleep(0.5)
            yield port
        finally:
            ssh.terminate()
            ssh.wait()

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                return os.rmdir(self.group)
            except OSError:
                time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--server", action="append", required=True, metavar="agent|openssh=PROGRAM")
    parser.add_argument("--size", type=int, default=512, help="MiB each time")
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    size = arguments.size << 20
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    threading.Thread(target=serve_bytes, args=(listener,), daemon=True).start()
    service = listener.getsockname()[1]
    rows = [("-L", b"send"), ("-L", b"take"), ("-R", b"send"), ("-R", b"take")]
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        key = os.path.join(directory, "key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        servers = [
            Server(*given.split("=", 1), directory, key) for given in arguments.server
        ]
        for _ in range(arguments.times):
            for server in servers:
                for kind, word in rows:
                    with server.forward(kind, service) as port:
                        before = cpu_s(server.group)
                        seconds = move(port, word, size)
                        used = cpu_s(server.group) - before
                    row = found.setdefault((kind, word), {}).setdefault(server.name, [])
                    row.append((used * (1 << 30) / size, size / 1e6 / seconds))
        loads = {"alone": None, "download": ("cat /dev/zero", False), "upload": ("cat >/dev/null", True)}
        echoes = {load: {server.name: [] for server in servers} for load in loads}
        for _ in range(arguments.times):
            for load, bulk in loads.items():
                for server in servers:
                    echoes[load][server.name].append(server.echo_ms(bulk))
        for server in servers:
            server.close()
    names = [given.split("=", 1)[0] for given in arguments.server]
    print("| | " + " | ".join(f"{name}, CPU s/GiB | {name}, MB/s" for name in names) + " | ratio of CPU |")
    print("|---" * (2 * len(names) + 2) + "|")
    for (kind, word), row in found.items():
        # What is sent to us through -L leaves the server; through -R it comes from the client.
        way = "down" if (kind == "-L") == (word == b"send") else "up"
        medians = [[statistics.median(column) for column in zip(*row[name])] for name in names]
        cells = [f"{cpu:.2f} | {speed:.0f}" for cpu, speed in medians]
        ratio = medians[0][0] / medians[-1][0]
        print(f"| `{kind}`, {way} | " + " | ".join(cells) + f" | {ratio:.2f} |")
    print("\n| echo of a key, ms | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for load, row in echoes.items():
        cells = [f"{statistics.median(row[name]):.2f}" for name in names]
        print(f"| {load} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
