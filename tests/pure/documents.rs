//! The documents are right: every promise has tests; numbers, commands and exit statuses are those
//! of the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use portsentry::engine::{CAPACITY, NEWCOMER_BYTES, suspect_bytes};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Texts between backquotes, line by line: code blocks have none.
fn quoted(text: &str) -> Vec<String> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Every Rust file below `directory`, with its path in the repository and its text. Build
/// directories are skipped.
fn rust_files(directory: &str) -> Vec<(String, String)> {
    fn walk(root: &Path, directory: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    walk(root, &path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(root, &root.join(directory), &mut found);
    found.sort();
    found
}

/// `P7` is promise 7 of SECURITY.md, `D4` the predecessors' defect 4.
fn is_mark(word: &str) -> bool {
    word.strip_prefix(['P', 'D'])
        .is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

/// The marks of a comment line such as `// P3, D7`; none for any other line.
fn marks_of(line: &str) -> Vec<&str> {
    let words: Vec<&str> =
        line.trim().strip_prefix("// ").map(|text| text.split(", ").collect()).unwrap_or_default();
    if words.iter().all(|word| is_mark(word)) { words } else { Vec::new() }
}

/// The tests of each promise and defect: a comment `// P3, D7` above a test names what it holds.
fn marked_tests() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in rust_files("tests").into_iter().chain(rust_files("src")) {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let marks = marks_of(line);
            if marks.is_empty() {
                // A misspelt mark must not pass as an ordinary comment.
                let first = line
                    .strip_prefix("// ")
                    .and_then(|text| text.split([',', ' ', ':', ';']).next())
                    .unwrap_or_default();
                assert!(
                    !is_mark(first),
                    "{path}:{}: marks are written as `// P3, P7`: {line}",
                    at + 1
                );
                continue;
            }
            let below = &lines[at + 1..];
            let length = below
                .iter()
                .take_while(|line| line.starts_with('#') || line.starts_with("//"))
                .count();
            let name =
                below.get(length).and_then(|line| line.strip_prefix("fn ")?.split('(').next());
            let name = name
                .filter(|_| below[..length].contains(&"#[test]"))
                .unwrap_or_else(|| panic!("{path}:{}: no test follows {line}", at + 1));
            for mark in marks {
                found.entry(mark.to_owned()).or_default().push(format!("{path}::{name}"));
            }
        }
    }
    found
}

/// The section of `text` with the heading `## title`.
fn section<'t>(text: &'t str, title: &str) -> &'t str {
    text.split("\n## ")
        .find(|section| section.starts_with(title))
        .unwrap_or_else(|| panic!("no section {title}"))
}

/// The numbers of the promises in SECURITY.md, as `P1`.
fn promises(text: &str) -> Vec<String> {
    let items = section(text, "Promises")
        .lines()
        .filter_map(|line| line.strip_prefix("- **")?.split_once(".**"));
    items.map(|(mark, _)| mark.to_owned()).collect()
}

/// The rows of the predecessors' defects, as `D1`.
fn defects(text: &str) -> Vec<String> {
    let rows = section(text, "The predecessors' defects")
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    rows.filter_map(|(number, _)| Some(format!("D{}", number.parse::<u32>().ok()?))).collect()
}

#[test]
fn every_promise_and_every_defect_has_its_tests_and_no_test_names_another() {
    let (text, tests) = (read("SECURITY.md"), marked_tests());
    let (promises, defects) = (promises(&text), defects(&text));
    assert!(promises.len() >= 28 && defects.len() == 18, "{promises:?}, {defects:?}");
    for (items, letter) in [(&promises, "P"), (&defects, "D")] {
        for (number, item) in (1..).zip(items) {
            assert_eq!(*item, format!("{letter}{number}"), "they are numbered in their order");
            let held_by = tests
                .get(item)
                .unwrap_or_else(|| panic!("SECURITY.md has {item}, and no test is marked with it"));
            println!("{item}");
            held_by.iter().for_each(|test| println!("    {test}"));
        }
    }
    let unknown: Vec<_> = tests
        .iter()
        .filter(|(mark, _)| !promises.contains(mark) && !defects.contains(mark))
        .collect();
    assert!(unknown.is_empty(), "marks of what SECURITY.md does not have: {unknown:?}");
}

#[test]
fn a_test_that_is_named_after_a_defect_is_marked_with_it() {
    let tests = marked_tests();
    let mut seen = 0;
    for (path, text) in rust_files("tests") {
        for name in text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("fn defect_")?.split('(').next())
        {
            let number: u32 = name.split('_').next().unwrap().parse().unwrap();
            let marked = tests
                .get(&format!("D{number}"))
                .is_some_and(|tests| tests.contains(&format!("{path}::defect_{name}")));
            assert!(marked, "{path}: defect_{name} is not marked with D{number}");
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

/// The value of `const name: type = value;`: a number, a shift of two, or seconds.
fn constant(source: &str, name: &str) -> Option<u64> {
    let number = |text: &str| text.replace('_', "").trim().parse::<u64>().ok();
    let line = source.lines().find(|line| line.contains(&format!("const {name}:")))?;
    let value = line.split_once('=')?.1.trim().trim_end_matches(';');
    let value = value
        .strip_prefix("Duration::from_secs(")
        .and_then(|rest| rest.strip_suffix(')'))
        .unwrap_or(value);
    match (value.split_once("<<"), value.split_once('*')) {
        (Some((base, shift)), _) => Some(number(base)? << number(shift)?),
        (_, Some((one, other))) => Some(number(one)? * number(other)?),
        _ => number(value),
    }
}

/// The module of a file: `helper::files` for `src/helper/files.rs`, `helper` for
/// `src/helper/mod.rs`.
fn module(path: &str) -> String {
    let path = path.split_once('/').map_or(path, |(_, rest)| rest).trim_end_matches(".rs");
    path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
}

/// The bounds in contrib/bounds.md: module, constant, and the row.
fn bounds() -> Vec<(String, String, String)> {
    let text = read("contrib/bounds.md");
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let named =
        rows.flat_map(|line| quoted(line).into_iter().map(move |word| (word, line.to_owned())));
    named
        .filter_map(|(word, line)| {
            word.rsplit_once("::")
                .map(|(module, name)| (module.to_owned(), name.to_owned(), line.clone()))
        })
        .collect()
}

#[test]
fn every_bound_that_is_stated_is_the_one_in_the_sources() {
    let files: Vec<(String, String)> = rust_files("src")
        .into_iter()
        .chain(rust_files("tests"))
        .map(|(path, text)| (module(&path), text))
        .collect();
    let stated = bounds();
    assert!(stated.len() >= 75, "{} bounds", stated.len());
    for (end, name, row) in stated {
        let is_meant = |module: &str| module == end || module.ends_with(&format!("::{end}"));
        let found: Vec<u64> = files
            .iter()
            .filter(|(module, _)| is_meant(module))
            .filter_map(|(_, text)| constant(text, &name))
            .collect();
        let [value] = found[..] else {
            panic!("{end}::{name} is the constant of one module, not of {}: {row}", found.len())
        };
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().replace(',', "")).collect();
        assert!(
            cells.contains(&value.to_string()),
            "{name} is {value}; contrib/bounds.md says: {row}"
        );
    }
    // The ledger: a third are suspects, two thirds newcomers, at the default trigger.
    let text = read("contrib/bounds.md");
    let most = CAPACITY as usize / 3 * (suspect_bytes(2) + 2 * NEWCOMER_BYTES);
    assert!(
        text.contains(&format!("{} MB", most.div_ceil(1_000_000))),
        "the ledger takes {most} bytes at most"
    );
    assert!(
        text.contains(&format!("{NEWCOMER_BYTES} bytes"))
            && text.contains(&format!("{} bytes", suspect_bytes(2)))
    );
}

/// Bounds on the length of a text or the number of attempts: they limit no memory.
const NO_STORE: [&str; 5] =
    ["NAME_MAX", "LABEL_MAX", "REPORTED_ONCE_MAX", "RETRY_MAX", "MEMORY_MAX"];

#[test]
fn every_bound_of_decoys_names_and_the_helper_is_stated() {
    let stated = bounds();
    let mut seen = 0;
    for (path, source) in sources() {
        let path = path.rsplit("/src/").next().unwrap();
        let is_meant = ["decoy/", "helper/", "daemon/errands", "journal/names"]
            .iter()
            .any(|start| path.starts_with(start));
        for line in source.lines().filter(|_| is_meant) {
            let Some((_, name)) = line
                .trim_start()
                .split_once("const ")
                .filter(|(before, _)| before.is_empty() || before.starts_with("pub"))
            else {
                continue;
            };
            let name = name.split(':').next().unwrap();
            if (name.ends_with("_MAX")
                || ["QUEUE", "WORKERS", "AT_ONCE", "BACKLOG", "ANSWERS_PER_SECOND"].contains(&name))
                && !NO_STORE.contains(&name)
            {
                let module = module(&format!("src/{path}"));
                let is_stated = stated.iter().any(|(end, stated, _)| {
                    stated == name && (module == *end || module.ends_with(&format!("::{end}")))
                });
                assert!(is_stated, "contrib/bounds.md has no bound {module}::{name}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 15, "{seen}");
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
    let known: BTreeSet<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let known: BTreeSet<&str> = known.into_iter().filter(|name| *name != "help").collect();
    let readme = read("README.md");
    let shown: BTreeSet<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("    portsentryctl ")?.split_whitespace().next())
        .collect();
    assert_eq!(shown, known);
}

#[test]
fn the_readme_has_the_exit_statuses_of_portsentryctl() {
    // Only the numbers are compared: each text has its own wording.
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
        let text: String = block
            .lines()
            .map(|line| format!("{}\n", line.get(margin..).unwrap_or_default()))
            .collect();
        if let Err(refused) = portsentry::config::parse(&text, "README.md") {
            panic!("{text}\n{refused}");
        }
    }
}

fn is_there(path: &str) -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists()
}

#[test]
fn contributing_maps_every_module_and_imports_lead_down_the_map() {
    let text = read("CONTRIBUTING.md");
    let rows: Vec<Vec<String>> = section(&text, "Where things are")
        .lines()
        .filter(|line| line.starts_with("| `src/"))
        .map(|line| {
            quoted(line.split('|').nth(1).unwrap())
                .iter()
                .map(|path| path["src/".len()..].trim_end_matches(".rs").to_owned())
                .collect()
        })
        .collect();
    let row_of = |module: &str| rows.iter().position(|row| row.iter().any(|name| name == module));
    for (path, source) in sources() {
        let path = path.rsplit("/src/").next().unwrap();
        let module = path.split('/').next().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let own = row_of(module).unwrap_or_else(|| panic!("the map has no src/{module}"));
        for line in source.lines().filter(|line| {
            line.trim_start().starts_with("use crate::")
                || line.trim_start().starts_with("pub use crate::")
        }) {
            let name =
                line.split("crate::").nth(1).unwrap().split([':', ';', ' ', '{']).next().unwrap();
            // The parser of manual pages belongs to the tests.
            if !name.is_empty() && name != "mdoc" {
                assert!(
                    row_of(name).is_some_and(|row| row >= own),
                    "src/{path} imports {name}, which lies above it"
                );
            }
        }
    }
}

#[test]
fn files_that_the_documents_name_are_there() {
    let mut seen = 0;
    for document in [
        "README.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "contrib/README.md",
        "contrib/bounds.md",
        "contrib/bench/README.md",
        "contrib/detection.md",
    ] {
        let text = read(document);
        for word in quoted(&text) {
            // `tests/run quick` is a file and an argument, `file.rs::name` a file and an item in
            // it.
            let path = word
                .split("::")
                .next()
                .and_then(|path| path.split_whitespace().next())
                .unwrap_or_default();
            let is_ours = ["src/", "tests/", "contrib/", "rules/", "man/"]
                .iter()
                .any(|top| path.starts_with(top));
            if is_ours && !path.contains('*') {
                assert!(is_there(path), "{document} names {word}");
                seen += 1;
            }
        }
        // A module of tests, by the name that cargo and tests/run use.
        for word in quoted(&text) {
            let Some((part, name)) =
                word.split_once("::").filter(|(part, _)| ["kernel", "pure"].contains(part))
            else {
                continue;
            };
            let name = name.split("::").next().unwrap();
            assert!(is_there(&format!("tests/{part}/{name}.rs")), "{document} names {word}");
        }
        // Links are relative to the document.
        let base = Path::new(document).parent().unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap();
            assert!(
                target.contains("://") || is_there(base.join(path).to_str().unwrap()),
                "{document} links to {target}"
            );
        }
    }
    assert!(seen >= 60, "{seen}");
}

#[test]
fn the_readme_is_short() {
    assert!(read("README.md").lines().count() <= 150);
}

#[test]
fn every_fuzz_target_is_built() {
    let manifest = read("tests/fuzz/Cargo.toml");
    let listed: BTreeSet<String> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""))
        .map(str::to_owned)
        .collect();
    let there: BTreeSet<String> =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
    assert_eq!(listed, there);
}

/// The program's sources, without their tests.
fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
                let above = [
                    directory.join("mod.rs"),
                    directory.with_extension("rs"),
                    directory.join("lib.rs"),
                ];
                if above.iter().any(|above| {
                    fs::read_to_string(above)
                        .unwrap_or_default()
                        .contains(&format!("#[cfg(test)]\nmod {stem};"))
                }) {
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

// P17
#[test]
fn programs_are_started_by_the_helper_the_daemon_and_the_pager_of_portsentryctl() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        for word in ["libc::exec", "libc::system", "libc::fork", "libc::posix_spawn"] {
            assert!(!text.contains(word), "{path} has {word}");
        }
        found.extend(
            text.matches("Command::new(").map(|_| path.rsplit("/src/").next().unwrap().to_owned()),
        );
    }
    found.sort();
    found.dedup();
    let places =
        ["ctl/pager.rs", "helper/commands.rs", "helper/notify/channel.rs", "helper/process.rs"];
    assert_eq!(found, places);
}

#[test]
fn the_unit_lets_the_helper_do_what_the_defaults_need() {
    let unit = read("contrib/systemd/portsentry.service");
    assert!(unit.contains("AF_INET AF_INET6") && unit.contains("KillMode=mixed"));
    // README points administrators who want hosts.deny to this unit, and those who want more there.
    let responses = read("contrib/systemd/portsentry-responses@.service");
    assert!(responses.contains("\nReadWritePaths=/etc "));
    let drop_in = read("contrib/systemd/responses.conf");
    // A list that is empty first replaces the unit's.
    assert!(!drop_in.contains("CapabilityBoundingSet=\n"));
    let capabilities = |text: &str, key: &str| {
        let lists = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        lists.flat_map(str::split_whitespace).map(str::to_owned).collect::<Vec<_>>()
    };
    let connect = read("contrib/systemd/connect.conf");
    for key in ["CapabilityBoundingSet", "AmbientCapabilities"] {
        assert_eq!(capabilities(&unit, key), ["CAP_NET_ADMIN"], "{key}");
        assert_eq!(capabilities(&connect, key), ["CAP_NET_BIND_SERVICE"], "{key}");
    }
    assert!(
        drop_in.lines().all(|line| line.is_empty() || line.starts_with('#') || line == "[Service]"),
        "copied as it is, it changes nothing"
    );
}

// P17
#[test]
fn unsafe_code_stands_in_one_place() {
    for (path, text) in sources() {
        let code = text.lines().map(|line| line.split("//").next().unwrap());
        let has = code.into_iter().any(|line| {
            line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl")
        });
        assert!(!has || path.contains("/src/sys/"), "{path}");
    }
}
