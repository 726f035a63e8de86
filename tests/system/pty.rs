//! A client on a real terminal: what a person at a keyboard would do and see.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::processes::wait_for;

/// A program with a terminal of its own as its controlling terminal.
pub struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

const LIMIT: Duration = Duration::from_secs(30);

impl Terminal {
    pub fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let name = name.to_str().unwrap();
        let line = File::options().read(true).write(true).open(name).unwrap();
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&line, size).unwrap();

        // setsid(1) makes the terminal the controlling one without unsafe code here.
        let mut with_terminal = Command::new("setsid");
        with_terminal
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => with_terminal.env(key, value),
                None => with_terminal.env_remove(key),
            };
        }
        with_terminal.stdin(line.try_clone().unwrap());
        with_terminal.stdout(line.try_clone().unwrap()).stderr(line);
        let child = with_terminal.spawn().unwrap();
        drop(with_terminal);

        let keyboard = File::from(master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let mut output = keyboard.try_clone().unwrap();
        let shared = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                shared.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            keyboard,
            screen,
            child,
        }
    }

    /// Types.
    pub fn send(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Everything shown so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until `text` is shown.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        let deadline = std::time::Instant::now() + LIMIT;
        while !self.screen().contains(text) {
            assert!(
                std::time::Instant::now() < deadline,
                "{text:?} is not shown, but:\n{}",
                self.screen()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.keyboard, size).unwrap();
    }

    /// Exit status of the program.
    pub fn wait(&mut self) -> Option<i32> {
        let child = &mut self.child;
        wait_for("the terminal's program to end", LIMIT, || {
            child.try_wait().unwrap()
        })
        .code()
    }

    /// Takes the terminal away, as closing a window does.
    pub fn close(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
