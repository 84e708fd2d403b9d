//! The documents say what is so: tests that they name exist, numbers are those of the sources, commands and exit statuses those of the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use portsentry::engine::{CAPACITY, NEWCOMER_BYTES, suspect_bytes};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between backquotes, line by line: a block of code has none.
fn quoted(text: &str) -> Vec<String> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// `file::name` in backquotes: the tests and constants that SECURITY.md leans on.
fn references() -> Vec<(String, String)> {
    let all: Vec<_> = quoted(&read("SECURITY.md"))
        .iter()
        .filter_map(|word| word.split_once(".rs::"))
        .map(|(file, name)| (format!("{file}.rs"), name.to_owned()))
        .collect();
    assert!(all.len() > 60, "{all:?}");
    all
}

/// Whether `source` has the function `name`, and an attribute that makes a test of it directly above.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines
        .iter()
        .position(|line| line.starts_with(&format!("fn {name}(")))
        .is_some_and(|at| lines[..at].iter().rev().take_while(|line| line.starts_with('#') || line.starts_with("//")).any(|line| *line == "#[test]"))
}

/// The value of `const name: type = value;`: a number, a shift of two, or seconds.
fn constant(source: &str, name: &str) -> Option<u64> {
    let number = |text: &str| text.replace('_', "").trim().parse::<u64>().ok();
    let line = source.lines().find(|line| line.contains(&format!("const {name}:")))?;
    let value = line.split_once('=')?.1.trim().trim_end_matches(';');
    let value = value.strip_prefix("Duration::from_secs(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(value);
    match (value.split_once("<<"), value.split_once('*')) {
        (Some((base, shift)), _) => Some(number(base)? << number(shift)?),
        (_, Some((one, other))) => Some(number(one)? * number(other)?),
        _ => number(value),
    }
}

#[test]
fn every_test_that_the_security_policy_names_exists() {
    for (file, name) in references().iter().filter(|(_, name)| name.chars().any(char::is_lowercase)) {
        assert!(is_test(&read(file), name), "SECURITY.md names {file}::{name}, and there is no such test");
    }
}

#[test]
fn every_bound_that_the_security_policy_states_is_the_one_in_the_sources() {
    let text = read("SECURITY.md");
    let mut seen = 0;
    for line in text.lines().filter(|line| line.starts_with('|')) {
        for (file, name) in quoted(line).iter().filter_map(|word| word.split_once(".rs::")) {
            if name.chars().any(char::is_lowercase) {
                continue;
            }
            let value = constant(&read(&format!("{file}.rs")), name).unwrap_or_else(|| panic!("{file}.rs has no constant {name} that can be read"));
            let stated: Vec<String> = line.split('|').filter_map(|cell| cell.split_whitespace().next()).map(|word| word.replace(',', "")).collect();
            assert!(stated.contains(&value.to_string()), "{name} is {value}; SECURITY.md says: {line}");
            seen += 1;
        }
    }
    assert!(seen >= 15, "{seen} bounds");
    // The ledger: a third are suspects, two thirds newcomers, at the default trigger.
    let most = CAPACITY as usize / 3 * (suspect_bytes(2) + 2 * NEWCOMER_BYTES);
    assert!(text.contains(&format!("{} MB", most.div_ceil(1_000_000))), "the ledger takes {most} bytes at most");
    assert!(text.contains(&format!("{NEWCOMER_BYTES} bytes")) && text.contains(&format!("{} bytes", suspect_bytes(2))));
}

/// Bounds that say how much of a text is taken, or how often something is tried: nothing piles up by them.
const NO_STORE: [&str; 5] = ["NAME_MAX", "LABEL_MAX", "TOLD_MAX", "RETRY_MAX", "MEMORY_MAX"];

#[test]
fn every_bound_of_decoys_names_and_the_helper_is_in_the_security_policy() {
    let text = read("SECURITY.md");
    let mut seen = 0;
    for (path, source) in sources() {
        let path = path.rsplit("/src/").next().unwrap();
        let is_meant = ["decoy/", "helper/", "daemon/errands", "journal/names"].iter().any(|start| path.starts_with(start));
        for line in source.lines().filter(|_| is_meant) {
            let Some((_, name)) = line.trim_start().split_once("const ").filter(|(before, _)| before.is_empty() || before.starts_with("pub")) else {
                continue;
            };
            let name = name.split(':').next().unwrap();
            if (name.ends_with("_MAX") || ["QUEUE", "WORKERS", "AT_ONCE", "BACKLOG", "ANSWERS_A_SECOND"].contains(&name)) && !NO_STORE.contains(&name)
            {
                assert!(text.contains(&format!("`src/{path}::{name}`")), "SECURITY.md has no bound src/{path}::{name}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 15, "{seen}");
}

#[test]
fn the_properties_are_numbered_and_each_has_its_test() {
    let text = read("SECURITY.md");
    let section = text.split("\n## ").find(|section| section.starts_with("Properties")).expect("a section of properties");
    let items: Vec<&str> = section.split("\n\n").filter(|part| part.starts_with("**P")).collect();
    assert!(items.len() >= 10, "{}", items.len());
    for (number, item) in (1..).zip(items) {
        assert!(item.starts_with(&format!("**P{number}.")), "{item}");
        assert!(item.contains(".rs::"), "no test: {item}");
    }
}

#[test]
fn each_of_the_predecessors_defects_has_its_test() {
    let text = read("SECURITY.md");
    let section = text.split("\n## ").find(|section| section.starts_with("The predecessors' defects")).expect("a section of defects");
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")).collect();
    assert_eq!(rows.len(), 18);
    for (number, row) in (1..).zip(rows) {
        assert!(row.starts_with(&format!("| {number} |")), "{row}");
        let held_by = row.split(" | ").last().unwrap();
        assert!(quoted(held_by).iter().any(|word| word.contains(".rs::")), "no test: {row}");
    }
    // And the other way: a test that is named after a row stands in that row.
    let tests = read("tests/kernel/defects.rs");
    let names: Vec<&str> = tests.lines().filter_map(|line| line.strip_prefix("fn defect_")?.split('(').next()).collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        let number: u32 = name.split('_').next().unwrap().parse().unwrap();
        let row = section.lines().find(|line| line.starts_with(&format!("| {number} |"))).unwrap_or_else(|| panic!("no row for defect_{name}"));
        assert!(row.contains(&format!("`tests/kernel/defects.rs::defect_{name}`")), "row {number} does not name defect_{name}");
    }
}

fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_portsentryctl")).arg("--help").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_readme_shows_the_commands_of_portsentryctl_and_no_others() {
    let help = help();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let known: BTreeSet<&str> = commands.lines().filter(|line| line.starts_with("  ")).filter_map(|line| line.split_whitespace().next()).collect();
    let known: BTreeSet<&str> = known.into_iter().filter(|name| *name != "help").collect();
    let readme = read("README.md");
    let shown: BTreeSet<&str> = readme.lines().filter_map(|line| line.strip_prefix("    portsentryctl ")?.split_whitespace().next()).collect();
    assert_eq!(shown, known);
}

#[test]
fn the_readme_has_the_exit_statuses_of_portsentryctl() {
    // The numbers are what is alike: each text has its own words for them.
    let numbers = |text: &str| -> Vec<u8> {
        let from = text.split("Exit status:").nth(1).expect("exit statuses");
        let sentence = from.split(".\n").next().unwrap();
        sentence.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
    };
    let wanted = numbers(&help());
    assert_eq!(wanted, [0, 1, 64, 69, 70, 77, 78]);
    assert_eq!(numbers(&read("README.md")), wanted);
}

/// The blocks of YAML in README.md.
fn configurations(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(code) => *found.last_mut().unwrap() += &format!("{code}\n"),
            None => found.push(String::new()),
        }
    }
    let is_yaml = |block: &str| {
        let key = block.trim_start().split(':').next().unwrap_or_default();
        portsentry::config::KEYS.iter().any(|known| known.path.split('.').next() == Some(key))
    };
    found.into_iter().filter(|block| is_yaml(block)).collect()
}

#[test]
fn the_configurations_in_the_readme_are_good() {
    let blocks = configurations(&read("README.md"));
    assert!(blocks.len() >= 3, "{blocks:?}");
    for block in blocks {
        let margin = block.len() - block.trim_start().len();
        let text: String = block.lines().map(|line| format!("{}\n", line.get(margin..).unwrap_or_default())).collect();
        if let Err(refused) = portsentry::config::parse(&text, "README.md") {
            panic!("{text}\n{refused}");
        }
    }
}

#[test]
fn the_readme_maps_every_module_and_imports_lead_down_the_map() {
    let text = read("README.md");
    let section = text.split("\n## ").find(|section| section.starts_with("The source")).expect("a section with the map");
    let rows: Vec<Vec<String>> = section
        .lines()
        .filter(|line| line.starts_with("| `src/"))
        .map(|line| quoted(line.split('|').nth(1).unwrap()).iter().map(|path| path["src/".len()..].trim_end_matches(".rs").to_owned()).collect())
        .collect();
    let row_of = |module: &str| rows.iter().position(|row| row.iter().any(|name| name == module));
    for (path, source) in sources() {
        let path = path.rsplit("/src/").next().unwrap();
        let module = path.split('/').next().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let own = row_of(module).unwrap_or_else(|| panic!("the map has no src/{module}"));
        for line in source.lines().filter(|line| line.trim_start().starts_with("use crate::") || line.trim_start().starts_with("pub use crate::")) {
            let name = line.split("crate::").nth(1).unwrap().split([':', ';', ' ', '{']).next().unwrap();
            // The reader of manual pages belongs to the tests.
            if !name.is_empty() && name != "mdoc" {
                assert!(row_of(name).is_some_and(|row| row >= own), "src/{path} imports {name}, which lies above it");
            }
        }
    }
}

#[test]
fn files_that_the_documents_name_are_there() {
    for document in ["README.md", "SECURITY.md", "contrib/README.md"] {
        let base = Path::new(env!("CARGO_MANIFEST_DIR"));
        for word in quoted(&read(document)) {
            // `tests/run quick` is a file and an argument, `file.rs::name` a file and what is in it.
            let path = word.split("::").next().and_then(|path| path.split_whitespace().next()).unwrap_or_default();
            let is_ours = ["src/", "tests/", "contrib/", "rules/", "man/", "benches/"].iter().any(|top| path.starts_with(top));
            assert!(!is_ours || path.contains('*') || base.join(path).exists(), "{document} names {word}");
        }
    }
}

#[test]
fn every_fuzz_target_is_built() {
    let manifest = read("tests/fuzz/Cargo.toml");
    let listed: BTreeSet<String> =
        manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\"")).map(str::to_owned).collect();
    let there: BTreeSet<String> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, there);
}

/// The program's own sources, without the tests in them.
fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
                let above = [directory.join("mod.rs"), directory.with_extension("rs"), directory.join("lib.rs")];
                if above.iter().any(|above| fs::read_to_string(above).unwrap_or_default().contains(&format!("#[cfg(test)]\nmod {stem};"))) {
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                found.push((path.to_str().unwrap().replace('\\', "/"), program));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 80);
    found
}

#[test]
fn programs_are_started_in_two_places_the_helper_by_the_daemon_and_the_command_by_the_helper() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        for word in ["libc::exec", "libc::system", "libc::fork", "libc::posix_spawn"] {
            assert!(!text.contains(word), "{path} has {word}");
        }
        found.extend(text.matches("Command::new(").map(|_| path.rsplit("/src/").next().unwrap().to_owned()));
    }
    found.sort();
    assert_eq!(found, ["helper/commands.rs", "helper/process.rs"]);
}

#[test]
fn the_unit_lets_the_helper_do_what_the_defaults_need() {
    let unit = read("contrib/systemd/portsentry.service");
    assert!(unit.contains("AF_INET AF_INET6") && unit.contains("KillMode=mixed"));
    // Where README sends whoever wants hosts.deny.
    assert!(read("contrib/systemd/responses.conf").contains("\n#ReadWritePaths=/etc\n"));
    let drop_in = read("contrib/systemd/responses.conf");
    // A list that takes the place of the unit's has all of the unit's.
    let capabilities = |text: &str| {
        let lists = text.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix("CapabilityBoundingSet="));
        lists.flat_map(str::split_whitespace).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert!(capabilities(&unit).len() == 3 && capabilities(&drop_in).is_superset(&capabilities(&unit)));
    assert!(drop_in.lines().all(|line| line.is_empty() || line.starts_with('#') || line == "[Service]"), "copied as it is, it changes nothing");
}

#[test]
fn unsafe_code_stands_in_one_place() {
    for (path, text) in sources() {
        let code = text.lines().map(|line| line.split("//").next().unwrap());
        let has = code.into_iter().any(|line| line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"));
        assert!(!has || path.contains("/src/sys/"), "{path}");
    }
}
