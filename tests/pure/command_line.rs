//! The daemon's command line: output and exit status.

use crate::support;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use support::{copy_program, missing, output};

const PORTSENTRY: &str = env!("CARGO_BIN_EXE_portsentry");

fn portsentry(arguments: &[&str]) -> Output {
    output(PORTSENTRY, arguments, Duration::from_secs(10))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A configuration file in a directory that only this user can write.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("portsentry.yaml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn every_broken_configuration_ends_with_78_its_place_and_a_remedy() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configuration/broken");
    let mut count = 0;
    for entry in fs::read_dir(fixtures).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read(&path).unwrap();
        let first = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
        let Some(expected) = first.strip_prefix("# expect: ") else {
            panic!("{}: no \"# expect:\" line", path.display())
        };
        let (place, rest) = expected.split_once(' ').expect("place and words");
        let (words, remedy) = rest.split_once(" | ").expect("words | remedy");
        let (_directory, copy) = file("");
        fs::write(&copy, &text).unwrap();
        for option in ["--check", "--print-config"] {
            let told = portsentry(&["--config", &copy, option]);
            let error = stderr(&told);
            assert_eq!(told.status.code(), Some(78), "{}: {error}", path.display());
            assert!(
                error.contains(&format!("portsentry.yaml:{place}:")),
                "{}: {error}",
                path.display()
            );
            assert!(error.contains(words) && error.contains(remedy), "{}: {error}", path.display());
        }
        count += 1;
    }
    assert!(count >= 16, "only {count} kinds of broken configuration");
}

#[test]
fn a_good_configuration_passes_the_check() {
    let (_directory, path) = file("scan_trigger: 5\n");
    let told = portsentry(&["--config", &path, "--check"]);
    assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));
}

#[test]
fn the_printed_configuration_is_a_configuration_and_means_the_same() {
    let (_directory, path) = file("scan_trigger: 5\ntcp: { mode: stealth, ports: [1, 5-9] }\n");
    let first = stdout(&portsentry(&["--config", &path, "--print-config"]));
    assert!(first.contains("scan_trigger: 5"), "{first}");
    let (_directory, path) = file(&first);
    let again = stdout(&portsentry(&["--config", &path, "--print-config"]));
    // Each value has its origin behind it, which is another file now.
    let values = |printed: &str| -> Vec<String> {
        printed.lines().filter_map(|line| line.split("  # ").next()).map(str::to_owned).collect()
    };
    assert_eq!(values(&again), values(&first));
    assert!(again.contains(&format!("resolve: false  # {path}:")), "{again}");
}

#[test]
fn classic_mode_words_select_what_is_watched() {
    let (_directory, path) = file("tcp: { ports: [1, 11] }\n");
    let rules = stdout(&portsentry(&["--config", &path, "-stcp", "--print-rules"]));
    assert!(rules.contains("set tcp_ports") && !rules.contains("set udp_ports"), "{rules}");
    let conflict = portsentry(&["-stcp", "-atcp"]);
    assert_eq!(conflict.status.code(), Some(64), "{}", stderr(&conflict));
}

#[test]
fn a_wrong_command_line_is_64_and_help_is_0() {
    assert_eq!(portsentry(&["--frobnicate"]).status.code(), Some(64));
    let help = portsentry(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("--print-rules"), "{}", stdout(&help));
    assert_eq!(portsentry(&["--version"]).status.code(), Some(0));
}

#[test]
fn a_named_file_that_is_missing_is_78() {
    let told = portsentry(&["--config", "/nonexistent/portsentry.yaml", "--check"]);
    assert_eq!(told.status.code(), Some(78));
    assert!(stderr(&told).contains("/nonexistent/portsentry.yaml"), "{}", stderr(&told));
}

#[test]
fn without_privilege_it_says_so_and_ends_with_77() {
    if missing(&["setpriv"]).is_some() {
        return;
    }
    let (directory, path) = file("history_file: \"\"\n");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The binary may be in a directory closed to other users: copy it.
    let copy = directory.path().join("portsentry");
    copy_program(PORTSENTRY, &copy);
    let words = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        copy.to_str().unwrap(),
        "--config",
        &path,
    ];
    let told = output("setpriv", &words, Duration::from_secs(10));
    assert_eq!(told.status.code(), Some(77), "{}", stderr(&told));
    assert!(stderr(&told).contains("CAP_NET_ADMIN"), "{}", stderr(&told));
}

#[test]
fn mode_words_that_do_not_fit_the_file_are_refused_as_the_file_itself_would_be() {
    // Valid as written, since advanced mode uses other ports.
    let (_directory, path) = file("tcp: {ports: [0, 7]}\n");
    assert!(portsentry(&["--config", &path, "--check"]).status.success());
    let told = portsentry(&["--config", &path, "--check", "-tcp"]);
    assert_eq!(told.status.code(), Some(78), "{}", stdout(&told));
    assert!(
        stderr(&told).contains("the command line: error: `tcp.ports` has port 0"),
        "{}",
        stderr(&told)
    );
    let (_directory, path) = file("udp: {ports: []}\nscan_trigger: 30\n");
    assert_eq!(portsentry(&["--config", &path, "--check", "-sudp"]).status.code(), Some(78));
    // A warning that only the command line causes.
    let told = portsentry(&["--config", &path, "--check", "-stcp"]);
    assert!(
        told.status.success() && stderr(&told).contains("a scan of all of them is not noticed"),
        "{}",
        stderr(&told)
    );
}
