//! `portsentryctl`: see [`portsentry::ctl`].
fn main() -> std::process::ExitCode {
    portsentry::ctl::main()
}
