//! The recipes in contrib for a container, Ansible and NixOS: each is read by a parser, and what it names
//! exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::skip;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn yaml(name: &str) -> Value {
    let name = format!("contrib/ansible/portsentry/{name}/main.yml");
    serde_saphyr::from_str(&read(&name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_container_recipe_has_known_instructions_and_files_that_exist() {
    let text = read("contrib/container/Containerfile").replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut stages = BTreeSet::new();
    let mut last = "";
    for line in lines {
        let (instruction, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        let words: Vec<&str> = rest.split_whitespace().collect();
        match instruction {
            "FROM" => {
                assert!(words.len() == 1 || words.len() == 3 && words[1] == "AS", "{line}");
                stages.extend(words.get(2).copied());
            }
            "COPY" => match words[0].strip_prefix("--from=") {
                Some(stage) => assert!(stages.contains(stage), "{line}"),
                None => {
                    let sources = words.split_last().unwrap().1;
                    assert!(sources.iter().all(|source| path(source).exists()), "{line}");
                }
            },
            "ENTRYPOINT" => assert_eq!(
                serde_json::from_str::<Vec<String>>(rest).unwrap(),
                ["/usr/sbin/portsentry"]
            ),
            "HEALTHCHECK" => {
                let (_, command) = rest.split_once("CMD ").unwrap();
                serde_json::from_str::<Vec<String>>(command).unwrap();
            }
            "WORKDIR" | "RUN" | "VOLUME" => {}
            other => panic!("{other} is no instruction that is used here"),
        }
        last = instruction;
    }
    assert_eq!(last, "ENTRYPOINT");
    assert!(stages.len() == 1);
}

#[test]
fn the_ansible_role_is_yaml_whose_names_fit_together() {
    let handlers = yaml("handlers");
    let handlers: Vec<_> =
        handlers.as_array().unwrap().iter().map(|handler| handler["name"].clone()).collect();
    let tasks = yaml("tasks");
    let tasks = tasks.as_array().unwrap();
    assert!(tasks.len() >= 4);
    let defaults = yaml("defaults");
    for task in tasks {
        assert!(task["name"].is_string(), "{task}");
        let modules: Vec<_> = task
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| key.starts_with("ansible.builtin."))
            .collect();
        assert_eq!(modules.len(), 1, "{task}");
        if let Some(handler) = task.get("notify") {
            assert!(handlers.contains(handler), "{task}");
        }
        let text = task.to_string();
        assert_eq!(text.matches("{{").count(), text.matches("}}").count(), "{text}");
        for (at, _) in text.match_indices("portsentry_") {
            let name: String =
                text[at..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            assert!(defaults.get(&name).is_some(), "{name} has no default");
        }
    }
    assert_eq!(yaml("meta")["galaxy_info"]["role_name"], "portsentry");
    let config = defaults["portsentry_config"].to_string();
    portsentry::config::parse(&config, "portsentry_config").unwrap();
}

#[test]
fn the_nixos_module_is_parsed_by_nix() {
    let module = path("contrib/nixos/portsentry.nix");
    let parsed = match Command::new("nix-instantiate").arg("--parse").arg(&module).output() {
        Ok(parsed) => parsed,
        Err(error) => {
            return skip(&format!("the_nixos_module_is_parsed_by_nix: nix-instantiate: {error}"));
        }
    };
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
    let text = read("contrib/nixos/portsentry.nix");
    for name in ["Cargo.toml", "Cargo.lock", "contrib/systemd/portsentry.service"] {
        assert!(text.contains(name) && path(name).exists(), "{name}");
    }
}
