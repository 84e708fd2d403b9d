//! The daemon.

fn main() -> std::process::ExitCode {
    portsentry::daemon::main(std::env::args_os())
}
