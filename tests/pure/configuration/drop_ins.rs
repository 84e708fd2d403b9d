//! The files `conf.d/*.yaml` beside the configuration: their order, what they replace and add to, and
//! the place of a fault in them.

use std::path::{Path, PathBuf};

use portsentry::config::{self, Config, Loaded, Mode};

use super::files::{mode, refusal};

/// A configuration file with drop-ins.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(main: &str, drop_ins: &[(&str, &str)]) -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        write(&files.main(), main);
        for (name, text) in drop_ins {
            write(&files.drop_in(name), text);
        }
        files
    }

    fn main(&self) -> PathBuf {
        self.directory.path().join("portsentry.yaml")
    }

    fn drop_in(&self, name: &str) -> PathBuf {
        self.directory.path().join("conf.d").join(name)
    }

    fn load(&self) -> Loaded {
        config::load(&self.main()).unwrap_or_else(|refused| panic!("{refused}"))
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    mode(path.parent().unwrap(), 0o755);
    std::fs::write(path, text).unwrap();
    mode(path, 0o644);
}

fn allowed(loaded: &Loaded) -> Vec<String> {
    loaded.config.allowed_networks().map(|network| network.to_string()).collect()
}

#[test]
fn drop_ins_replace_values_in_order_of_their_names() {
    let files = Files::new(
        "mode: observe\nscan_trigger: 3\ntcp: { mode: stealth, ports: [1, 7] }\n",
        &[
            ("20-role.yaml", "scan_trigger: 5\ntcp:\n  ports: [11]\n"),
            ("10-site.yaml", "scan_trigger: 4\nresolve: true\n"),
            (".hidden.yaml", "scan_trigger: 6\n"),
            ("30-none.yaml.dpkg-old", "scan_trigger: 7\n"),
            ("40-empty.yaml", "# nothing\n"),
        ],
    );
    let loaded = files.load();
    assert_eq!((loaded.config.mode, loaded.config.scan_trigger), (Mode::Observe, 5));
    assert!(loaded.config.resolve);
    assert_eq!(loaded.config.tcp.ports.to_string(), "11");
    assert_eq!(loaded.config.tcp.mode, config::PortMode::Stealth);
    assert_eq!(loaded.warnings, []);
    let (site, role) = (files.drop_in("10-site.yaml"), files.drop_in("20-role.yaml"));
    let replaced = [
        format!(
            "{}:1: `scan_trigger` replaces that of {}:2",
            site.display(),
            files.main().display()
        ),
        format!("{}:1: `scan_trigger` replaces that of {}:1", role.display(), site.display()),
        format!("{}:3: `tcp.ports` replaces that of {}:3", role.display(), files.main().display()),
    ];
    assert_eq!(loaded.replaced, replaced);
    let names = ["10-site.yaml", "20-role.yaml", "40-empty.yaml"].map(|name| files.drop_in(name));
    assert_eq!(loaded.drop_ins, names);
}

#[test]
fn every_printed_value_says_where_it_comes_from() {
    let files = Files::new(
        "mode: observe\nblock: { ipv6_prefix: 64 }\n",
        &[("a.yaml", "\nscan_trigger: 5\n"), ("b.yaml", "allow: [192.0.2.1]\n")],
    );
    let loaded = files.load();
    let printed = loaded.to_yaml();
    let (main, a, b) = (files.main(), files.drop_in("a.yaml"), files.drop_in("b.yaml"));
    for line in [
        format!("mode: observe  # {}:1", main.display()),
        format!("scan_trigger: 5  # {}:2", a.display()),
        format!("allow: [\"192.0.2.1\"]  # {}:1", b.display()),
        format!("    first: 64  # {}:2", main.display()),
        "resolve: false  # default".to_owned(),
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
    }
    let values = printed.lines().filter(|line| !line.ends_with(':'));
    assert!(values.clone().count() > 50 && values.clone().all(|line| line.contains("  # ")));
    assert_eq!(config::parse(&printed, "printed").unwrap().config, loaded.config);
    let worded = loaded.changed(|config| config.scan_trigger = 9, None).unwrap();
    assert!(worded.to_yaml().contains("scan_trigger: 9  # the command line"), "{worded:?}");
}

#[test]
fn allowed_hosts_of_all_files_are_allowed_until_an_empty_list() {
    let main = "allow: [192.0.2.1, 192.0.2.2]\n";
    let add = ("10.yaml", "allow: [{ network: 192.0.2.2, silent: true }, 192.0.2.3]\n");
    let files = Files::new(main, &[add]);
    let loaded = files.load();
    assert_eq!(allowed(&loaded), ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32"]);
    assert!(loaded.config.allow[1].silent, "the later file says how it is logged");
    let both = format!("{}:1, {}:1", files.main().display(), files.drop_in("10.yaml").display());
    assert_eq!(loaded.origin("allow"), Some(&*both));
    let emptied =
        Files::new(main, &[add, ("20.yaml", "allow: []\n"), ("30.yaml", "allow: [::2]\n")]);
    assert_eq!(allowed(&emptied.load()), ["::2/128"]);
    // The first file that has the key replaces the default, as it did without drop-ins.
    let alone = Files::new("", &[("10.yaml", "allow: [192.0.2.3]\n")]);
    assert_eq!(allowed(&alone.load()), ["192.0.2.3/32"]);
}

#[test]
fn a_fault_of_a_drop_in_names_its_file_and_line() {
    let files = Files::new(
        "scan_trigger: many\n",
        &[("10.yaml", "mode: observe\nmoode: enforce\n"), ("20.yaml", "a: [\n")],
    );
    let told = refusal(&files.main());
    for place in [
        format!("{}:1:15: error", files.main().display()),
        format!("{}:2:1: error: unknown key `moode`", files.drop_in("10.yaml").display()),
        format!("{}:", files.drop_in("20.yaml").display()),
    ] {
        assert!(told.contains(&place), "{place}\n{told}");
    }
    assert!(told.contains("\n    moode: enforce\n    ^"), "{told}");
    // Two files, each without fault, that contradict each other.
    let files = Files::new(
        "block: { timeout: 2h }\n",
        &[("10.yaml", "# short\nblock: { escalate: { max: 1h } }\n")],
    );
    let place = format!("{}:2:27: error", files.drop_in("10.yaml").display());
    assert!(refusal(&files.main()).starts_with(&place), "{}", refusal(&files.main()));
}

#[test]
fn drop_ins_apply_without_a_configuration_file() {
    let files = Files::new("", &[("10.yaml", "scan_trigger: 5\n")]);
    std::fs::remove_file(files.main()).unwrap();
    let loaded = config::load_if_present(&files.main()).unwrap();
    assert_eq!((loaded.config.scan_trigger, &loaded.from), (5, &None));
    let name = files.drop_in("10.yaml");
    assert_eq!(loaded.source(), format!("the built-in defaults with {}", name.display()));
}

#[test]
fn files_that_only_look_like_drop_ins_are_reported() {
    let files = Files::new("", &[("office.yml", "scan_trigger: 5\n")]);
    let loaded = files.load();
    assert_eq!(loaded.config, Config::default());
    let told = loaded.warnings.iter().map(ToString::to_string).collect::<String>();
    assert!(told.contains("office.yml: warning: this file is not read"), "{told}");
    std::fs::remove_dir_all(files.drop_in("")).unwrap();
    std::fs::write(files.directory.path().join("conf.d"), "").unwrap();
    assert!(refusal(&files.main()).contains("conf.d: error: cannot read the drop-ins"));
}

// P12
#[test]
fn a_drop_in_that_others_can_write_is_refused_by_root() {
    let files = Files::new("", &[("10.yaml", "scan_trigger: 5\n")]);
    if !super::files::is_root("a_drop_in_that_others_can_write_is_refused_by_root") {
        return;
    }
    mode(&files.drop_in("10.yaml"), 0o666);
    assert!(refusal(&files.main()).contains("writable by its group and everybody"));
    mode(&files.drop_in("10.yaml"), 0o644);
    mode(&files.drop_in(""), 0o777);
    assert!(refusal(&files.main()).contains("the directory"));
}
