//! `portsentry-notify`: see [`portsentry::helper::notify::send`].

fn main() -> std::process::ExitCode {
    portsentry::helper::notify::send::main()
}
