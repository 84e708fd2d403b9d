//! Every dependency complies with deny.toml: licences, duplicate versions, banned crates, sources.
//! The same checks as `cargo deny check bans licenses sources`, without installing it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use spdx::{Expression, ParseMode};

/// deny.toml. Unknown keys are refused, so that every key has an effect.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Policy {
    graph: Graph,
    /// Needs the advisory database: only `cargo deny` uses it.
    #[serde(rename = "advisories")]
    _advisories: toml::Table,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Graph {
    targets: Vec<String>,
    all_features: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Licenses {
    allow: Vec<String>,
    include_dev: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    multiple_versions: Level,
    wildcards: Level,
    skip: Vec<Spec>,
    deny: Vec<Spec>,
}

/// A range of versions of a crate.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    name: String,
    /// `^` and a major version; all versions without it.
    version: Option<String>,
    reason: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    unknown_registry: Level,
    unknown_git: Level,
    allow_registry: Vec<String>,
    allow_git: Vec<String>,
}

/// Other forms are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Deny,
}

/// The needed part of `cargo metadata`.
#[derive(Clone, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Clone, Deserialize)]
struct Package {
    name: String,
    version: String,
    id: String,
    license: Option<String>,
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Clone, Deserialize)]
struct Dependency {
    name: String,
    req: String,
}

#[derive(Clone, Deserialize)]
struct Resolve {
    root: String,
    nodes: Vec<Node>,
}

#[derive(Clone, Deserialize)]
struct Node {
    id: String,
}

impl Spec {
    fn matches(&self, package: &Package) -> bool {
        let version = self
            .version
            .as_deref()
            .map(|version| version.strip_prefix('^').expect("a version such as ^2 or ^0.2"));
        let is_of = |version: &str| {
            version.split('.').zip(package.version.split('.')).all(|(wanted, part)| wanted == part)
        };
        self.name == package.name && version.is_none_or(is_of)
    }
}

/// All violations of the policy, a sentence each.
fn findings(metadata: &Metadata, policy: &Policy) -> Vec<String> {
    let resolved: BTreeSet<&str> =
        metadata.resolve.nodes.iter().map(|node| node.id.as_str()).collect();
    let packages: Vec<&Package> =
        metadata.packages.iter().filter(|package| resolved.contains(package.id.as_str())).collect();
    let mut findings = Vec::new();
    for package in &packages {
        let Package { name, version, .. } = package;
        let mut find = |what: String| findings.push(format!("{name} {version}: {what}"));
        if let Some(why) = license_fault(package.license.as_deref(), &policy.licenses.allow) {
            find(why);
        }
        if package.id != metadata.resolve.root
            && !is_known(package.source.as_deref(), &policy.sources)
        {
            find(format!("comes from {}", package.source.as_deref().unwrap_or("a directory")));
        }
        if let Some(spec) = policy.bans.deny.iter().find(|spec| spec.matches(package)) {
            find(format!("is banned: {}", spec.reason));
        }
    }
    let root = packages
        .iter()
        .find(|package| package.id == metadata.resolve.root)
        .expect("the root package");
    findings.extend(
        root.dependencies
            .iter()
            .filter(|dependency| dependency.req == "*")
            .map(|dependency| format!("{}: any version", dependency.name)),
    );
    findings.extend(duplicates(&packages, &policy.bans.skip));
    findings
}

fn license_fault(license: Option<&str>, allowed: &[String]) -> Option<String> {
    let Some(license) = license else { return Some("names no licence".to_owned()) };
    match Expression::parse_mode(license, ParseMode::LAX) {
        Ok(expression)
            if expression.evaluate(|required| allowed.contains(&required.to_string())) =>
        {
            None
        }
        Ok(_) => Some(format!("has the licence {license}")),
        Err(error) => {
            Some(format!("has the licence {license:?}, which is no SPDX expression: {error}"))
        }
    }
}

fn is_known(source: Option<&str>, sources: &Sources) -> bool {
    let among = |list: &[String], kind: &str| {
        source
            .and_then(|source| source.strip_prefix(kind))
            .is_some_and(|url| list.iter().any(|known| known == url))
    };
    among(&sources.allow_registry, "registry+") || among(&sources.allow_git, "git+")
}

/// Crates with several versions, except those that `skip` tolerates, and entries of `skip` without
/// effect.
fn duplicates(packages: &[&Package], skip: &[Spec]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(package);
    }
    let counted = |all: &Vec<&Package>| {
        all.iter().filter(|package| !skip.iter().any(|spec| spec.matches(package))).count()
    };
    let several = versions
        .iter()
        .filter(|(_, all)| counted(all) > 1)
        .map(|(name, all)| format!("{name}: {} versions", all.len()));
    let idle = |spec: &&Spec| {
        let all = versions.get(spec.name.as_str());
        !all.is_some_and(|all| all.len() > 1 && all.iter().any(|package| spec.matches(package)))
    };
    several
        .chain(
            skip.iter()
                .filter(idle)
                .map(|spec| format!("deny.toml skips {}, which is no duplicate", spec.name)),
        )
        .collect()
}

fn read<T: DeserializeOwned>(path: &str) -> T {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    toml::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn policy() -> Policy {
    read("deny.toml")
}

/// The locked dependencies; they were downloaded to build this test, so no network is needed.
fn metadata(policy: &Policy) -> Metadata {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
    ]);
    command.args(policy.graph.all_features.then_some("--all-features"));
    for target in &policy.graph.targets {
        command.args(["--filter-platform", target]);
    }
    let output = command.output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("metadata")
}

#[test]
fn the_dependencies_keep_to_the_policy() {
    let policy = policy();
    let metadata = metadata(&policy);
    assert!(metadata.resolve.nodes.len() > 50, "those of the programs are among them");
    assert_eq!(findings(&metadata, &policy), Vec::<String>::new());
}

#[test]
fn contributing_says_what_each_dependency_is_for() {
    let manifest: toml::Table = read("Cargo.toml");
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("CONTRIBUTING.md"))
            .expect("CONTRIBUTING.md");
    let (_, section) = page.split_once("\n## Dependencies\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("its end");
    let named: BTreeSet<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split('|').next())
        .flat_map(|cell| cell.split(", "))
        .map(str::trim)
        .collect();
    for name in manifest["dependencies"].as_table().expect("a table").keys() {
        assert!(named.contains(name.as_str()), "{name}");
    }
}

#[test]
fn no_licence_is_allowed_that_nothing_needs() {
    let policy = policy();
    let metadata = metadata(&policy);
    for license in &policy.licenses.allow {
        let mut stricter = policy.clone();
        stricter.licenses.allow.retain(|other| other != license);
        assert!(!findings(&metadata, &stricter).is_empty(), "{license} is not needed");
    }
}

/// A package that depends on another, both without violations.
fn made_up() -> Metadata {
    let package = |name: &str, source: Option<&str>| Package {
        name: name.to_owned(),
        version: "1.2.3".to_owned(),
        id: format!("{name}@1.2.3"),
        license: Some("MIT OR Apache-2.0".to_owned()),
        source: source.map(str::to_owned),
        dependencies: Vec::new(),
    };
    let registry = policy().sources.allow_registry[0].clone();
    let packages =
        vec![package("root", None), package("crate", Some(&format!("registry+{registry}")))];
    let nodes = packages.iter().map(|package| Node { id: package.id.clone() }).collect();
    Metadata { packages, resolve: Resolve { root: "root@1.2.3".to_owned(), nodes } }
}

/// The policy without exceptions.
fn strict() -> Policy {
    let mut policy = policy();
    policy.bans.skip.clear();
    policy
}

fn findings_with(change: impl Fn(&mut Package)) -> Vec<String> {
    let mut metadata = made_up();
    change(&mut metadata.packages[1]);
    findings(&metadata, &strict())
}

#[test]
fn a_crate_under_the_gpl_is_refused() {
    for refused in [
        Some("GPL-3.0-or-later"),
        Some("GPL-2.0-only"),
        Some("MIT AND GPL-2.0-or-later"),
        Some("GPL-3.0 OR LGPL-3.0"),
        Some("AGPL-3.0-only"),
        Some("MIT-ish"),
        Some(""),
        None,
    ] {
        assert_eq!(
            findings_with(|package| package.license = refused.map(str::to_owned)).len(),
            1,
            "{refused:?}"
        );
    }
    for taken in
        ["MIT", "MIT OR GPL-3.0-or-later", "MIT/Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0"]
    {
        assert_eq!(
            findings_with(|package| package.license = Some(taken.to_owned())),
            Vec::<String>::new(),
            "{taken}"
        );
    }
}

#[test]
fn a_crate_from_elsewhere_is_refused() {
    for source in [
        Some("git+https://example.net/crate?rev=1#1"),
        Some("registry+https://example.net/index"),
        None,
    ] {
        assert_eq!(
            findings_with(|package| package.source = source.map(str::to_owned)).len(),
            1,
            "{source:?}"
        );
    }
}

#[test]
fn a_banned_crate_is_refused() {
    assert!(findings_with(|package| package.name = "rustables".to_owned())[0].contains("GPL"));
}

#[test]
fn a_dependency_of_any_version_is_refused() {
    let mut metadata = made_up();
    metadata.packages[0]
        .dependencies
        .push(Dependency { name: "crate".to_owned(), req: "*".to_owned() });
    assert_eq!(findings(&metadata, &strict()), ["crate: any version"]);
}

#[test]
fn a_second_version_is_refused_unless_it_is_tolerated() {
    let mut metadata = made_up();
    let older = Package {
        version: "0.9.0".to_owned(),
        id: "crate@0.9.0".to_owned(),
        ..metadata.packages[1].clone()
    };
    metadata.resolve.nodes.push(Node { id: older.id.clone() });
    metadata.packages.push(older);
    assert_eq!(findings(&metadata, &strict()), ["crate: 2 versions"]);
    let tolerates = |name: &str, version: &str| {
        let mut policy = strict();
        policy.bans.skip.push(Spec {
            name: name.to_owned(),
            version: Some(version.to_owned()),
            reason: String::new(),
        });
        findings(&metadata, &policy)
    };
    assert_eq!(tolerates("crate", "^0"), Vec::<String>::new());
    assert_eq!(
        tolerates("crate", "^2").len(),
        2,
        "it is still there twice, and nothing is tolerated"
    );
    assert_eq!(tolerates("root", "^1").len(), 2);
}

#[test]
fn every_key_of_the_policy_is_checked() {
    let policy = policy();
    let Bans { multiple_versions, wildcards, .. } = policy.bans;
    let Sources { unknown_registry, unknown_git, .. } = policy.sources;
    assert_eq!([multiple_versions, wildcards, unknown_registry, unknown_git], [Level::Deny; 4]);
    assert!(policy.licenses.include_dev, "this test looks at what is needed for tests as well");
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
}

/// The part of a version that must be equal for compatible versions.
fn compatible(version: &str) -> &str {
    let parts = if version.starts_with("0.") { 2 } else { 1 };
    version.match_indices('.').nth(parts - 1).map_or(version, |(at, _)| &version[..at])
}

#[test]
fn the_packages_under_tests_lock_the_same_versions_from_the_same_sources() {
    let policy = policy();
    let own: Lock = read("Cargo.lock");
    let versions: BTreeMap<(&str, &str), &str> = own
        .package
        .iter()
        .map(|locked| {
            ((locked.name.as_str(), compatible(&locked.version)), locked.version.as_str())
        })
        .collect();
    for path in ["tests/peers/Cargo.lock", "tests/fuzz/Cargo.lock"] {
        let lock: Lock = read(path);
        for Locked { name, version, source } in &lock.package {
            let expected = versions
                .get(&(name.as_str(), compatible(version)))
                .unwrap_or(&version.as_str())
                .to_owned();
            assert_eq!(version, expected, "{path}: {name}");
            let is_ours = name.starts_with("portsentry");
            assert!(
                is_ours || is_known(source.as_deref(), &policy.sources),
                "{path}: {name} comes from {source:?}"
            );
        }
    }
}

#[test]
fn what_links_gpl_libraries_is_not_packaged() {
    let manifest: toml::Table = read("Cargo.toml");
    let excluded = manifest["package"]["exclude"].as_array().expect("a list");
    assert!(excluded.iter().any(|path| path.as_str() == Some("tests/peers")), "{excluded:?}");
    let peers: toml::Table = read("tests/peers/Cargo.toml");
    assert_eq!(peers["package"]["publish"].as_bool(), Some(false));
    assert!(
        peers["package"]["license"].as_str().is_some_and(|license| license.starts_with("GPL-3.0"))
    );
}
