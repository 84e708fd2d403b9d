//! A program on a terminal: a pseudoterminal of the kernel's, and an emulator that draws on it.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use portsentry::sys::poll;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Longer than any step that does not hang, on a busy machine.
const LONG: Duration = Duration::from_secs(30);

pub struct Terminal {
    keyboard: File,
    /// Kept open: the kernel forgets what was written when the last one closes it.
    program_side: OwnedFd,
    emulator: vt100::Parser,
    /// All that was written.
    pub written: Vec<u8>,
    pub child: Child,
}

impl Terminal {
    /// Starts a program on a terminal of this size, without NO_COLOR unless `command` has it.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let own_side =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&own_side).unwrap();
        unlockpt(&own_side).unwrap();
        let path = ptsname(&own_side, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let program_side = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&own_side, size).unwrap();
        let end = || program_side.try_clone().unwrap();
        if !command.get_envs().any(|(name, _)| name == "NO_COLOR") {
            command.env_remove("NO_COLOR");
        }
        let child = command
            .env("TERM", "xterm-256color")
            .env("TZ", "UTC")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let (rows, columns) = (NonZeroU16::new(rows).unwrap(), NonZeroU16::new(columns).unwrap());
        let emulator = vt100::Parser::new(rows, columns, 0);
        let keyboard = File::from(own_side);
        Self { keyboard, program_side, emulator, written: Vec::new(), child }
    }

    /// Types.
    pub fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// What the terminal shows.
    pub fn screen(&self) -> String {
        self.emulator.screen().contents()
    }

    /// Takes what the program writes within a moment; `false`: nothing came.
    fn read(&mut self) -> bool {
        if !poll::readable(self.keyboard.as_fd(), Duration::from_millis(20)).unwrap() {
            return false;
        }
        let mut bytes = [0; 65_536];
        let count = self.keyboard.read(&mut bytes).unwrap();
        self.written.extend_from_slice(&bytes[..count]);
        self.emulator.process(&bytes[..count]);
        true
    }

    /// Waits until the screen shows what is wanted; returns it.
    pub fn wait(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + LONG;
        loop {
            while self.read() {}
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "{what} is not shown:\n{screen}");
        }
    }

    /// Waits until the screen has a text; returns it.
    pub fn wait_for(&mut self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    /// Waits for the end of the program.
    pub fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + LONG;
        loop {
            while self.read() {}
            if let Some(status) = self.child.try_wait().unwrap() {
                while self.read() {}
                return status;
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.screen());
        }
    }

    /// Closes the terminal; waits for the end of the program.
    pub fn hang_up(&mut self) -> ExitStatus {
        let nothing = File::open("/dev/null").unwrap();
        self.program_side = nothing.try_clone().unwrap().into();
        self.keyboard = nothing;
        let end = Instant::now() + LONG;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the terminal is as programs expect it: lines, echo, cursor, its usual screen.
    pub fn is_usual(&self) -> bool {
        let modes = tcgetattr(&self.program_side).unwrap().local_modes;
        let screen = self.emulator.screen();
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
            && !screen.alternate_screen()
            && !screen.hide_cursor()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
