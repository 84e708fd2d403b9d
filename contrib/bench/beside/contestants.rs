//! Who takes part: ours in its variants, and each directory of `contestants/`, which says all there
//! is to say about one of the others.
//!
//! | file | is |
//! |---|---|
//! | `about` | one line: what it is and how it is set up |
//! | `rules.nft` | static rules, loaded before it starts and again after a flush, as nftables.service does |
//! | `packages` | Debian packages that are unpacked for it, `name/sid` for the newest one; `predecessor`: PortSentry 1.2, which newer Debians do not have |
//! | `root/` | files laid over the packages |
//! | `start` | script that starts it, and returns when it is ready |
//! | `many` | script after `start` that stops it, gives it the blocks of /beside/addresses, writes /beside/go, and starts it again |

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::scene::Scene;
use super::support::daemon::{AT_DEFAULTS, Daemon};
use super::support::jail::{self, Jail};
use super::support::{output, run};

/// As PortSentry 1.2 with `-atcp`, so that the figures can be compared: every closed port of
/// 1-1023, the first probe, and the port answers until then.
const AS_1_2: &str =
    "tcp: { mode: advanced, exclude: [] }\nscan_trigger: 0\nclosed_ports: answer\n";

/// Where all that is said of the others lies.
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/bench/beside/contestants");

/// A contestant.
pub struct Contestant {
    pub name: String,
    pub about: String,
    kind: Kind,
}

enum Kind {
    Ours { yaml: String },
    Other,
}

/// What runs of it; ends when it is dropped.
pub struct Running<'a> {
    pub contestant: &'a Contestant,
    pub scene: &'a Scene,
    ours: Option<Daemon<'a>>,
    jail: Option<Jail>,
}

/// All of them, in the order of the table.
pub fn all() -> Vec<Contestant> {
    let mut all = Vec::new();
    for method in ["nflog", "nfqueue"] {
        for reflex in [false, true] {
            all.push(Contestant {
                name: format!("ours-{method}{}", if reflex { "-reflex" } else { "" }),
                about: format!(
                    "ours, capture {method}, reflex {}, trigger 0, closed ports answer, unproven sources are blocked",
                    if reflex { "on" } else { "off" }
                ),
                kind: Kind::Ours {
                    yaml: format!("{AS_1_2}capture: {{ method: {method}, reflex: {reflex} }}\n"),
                },
            });
        }
    }
    let about = "ours without a configuration: trigger 2, closed ports do not answer, unproven sources are slowed".to_owned();
    all.push(Contestant {
        name: "ours-default".to_owned(),
        about,
        kind: Kind::Ours { yaml: AT_DEFAULTS.to_owned() },
    });
    for name in [
        "nft-trap",
        "nft-distinct",
        "portsentry-1.2",
        "portsentry-2",
        "fail2ban",
        "scanlogd",
        "psad",
        "crowdsec",
        "nothing",
    ] {
        let about = fs::read_to_string(place(name).join("about")).unwrap();
        all.push(Contestant {
            name: name.to_owned(),
            about: about.trim().to_owned(),
            kind: Kind::Other,
        });
    }
    all
}

fn place(name: &str) -> PathBuf {
    Path::new(HERE).join(name)
}

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("beside").join(name)
}

impl Contestant {
    /// Gets its packages; their names and versions, for the head of the table.
    ///
    /// # Errors
    /// Why it cannot take part.
    pub fn prepare(&self) -> Result<String, String> {
        let nft = || run("nft", &["--version"]).trim().to_owned();
        match &self.kind {
            Kind::Ours { yaml } => {
                let directory = tempfile::tempdir().unwrap();
                let file = directory.path().join("portsentry.yaml");
                fs::write(&file, yaml).unwrap();
                let checked = output(
                    env!("CARGO_BIN_EXE_portsentry"),
                    &["--check", "--config", file.to_str().unwrap()],
                    Duration::from_secs(20),
                );
                let said = [checked.stdout, checked.stderr].concat();
                if String::from_utf8_lossy(&said).contains("not in force yet") {
                    return Err("not built".to_owned());
                }
                Ok(run(env!("CARGO_BIN_EXE_portsentry"), &["--version"]).trim().to_owned())
            }
            Kind::Other => {
                let Ok(packages) = fs::read_to_string(place(&self.name).join("packages")) else {
                    return Ok(nft());
                };
                let kept = kept(&self.name);
                let path = kept.to_str().unwrap();
                let words: Vec<&str> = packages.split_whitespace().collect();
                if words == ["predecessor"] {
                    let fetch = Path::new(env!("CARGO_MANIFEST_DIR"))
                        .join("tests/support/fetch-predecessor");
                    let file =
                        said(&output(fetch.to_str().unwrap(), &[path], Duration::from_secs(300)))?;
                    run("dpkg-deb", &["-x", &file, kept.join("root").to_str().unwrap()]);
                    return Ok(format!(
                        "portsentry {}",
                        run("dpkg-deb", &["-f", &file, "Version"]).trim()
                    ));
                }
                let versions = jail::fetch(&kept, &words)?;
                Ok(versions.lines().collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Starts it on the host of `scene` and returns when it is ready.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start<'a>(&'a self, scene: &'a Scene) -> Result<Running<'a>, String> {
        let mut running = Running { contestant: self, scene, ours: None, jail: None };
        running.load_static_rules();
        match &self.kind {
            Kind::Ours { yaml } => running.ours = Some(Daemon::start(&scene.host, yaml)),
            Kind::Other => {
                if let Ok(start) = fs::read_to_string(place(&self.name).join("start")) {
                    let layers = ["common", &self.name]
                        .map(|layer| place(layer).join("root"))
                        .into_iter()
                        .filter(|root| root.exists());
                    running.jail = Some(Jail::start(
                        &scene.host,
                        &kept(&self.name).join("root"),
                        &layers.collect::<Vec<_>>(),
                        &start,
                    )?);
                }
            }
        }
        Ok(running)
    }

    /// Our configuration, where it is ours.
    pub fn yaml(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ours { yaml } => Some(yaml),
            Kind::Other => None,
        }
    }

    /// Whether anything runs beside the kernel.
    pub fn is_a_program(&self) -> bool {
        self.yaml().is_some() || self.file("start").is_some()
    }

    /// A file of its directory.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        Some(place(&self.name).join(name)).filter(|path| path.exists())
    }
}

fn said(output: &std::process::Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr).lines().last().unwrap_or("cannot be had").to_owned())
    }
}

/// Processor time and memory of a contestant's processes.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// Seconds, user and system, with children that have ended.
    pub cpu: f64,
    /// Resident memory in MB, each process by itself.
    pub memory: f64,
}

impl Running<'_> {
    /// Loads its static rules, if it has any.
    pub fn load_static_rules(&self) {
        let rules = place(&self.contestant.name).join("rules.nft");
        if rules.exists() {
            self.scene.host.run("nft", &["-f", rules.to_str().unwrap()]);
        }
    }

    /// What its processes have used so far. No process is charged for the rules' work in the
    /// kernel.
    pub fn usage(&self) -> Usage {
        let pids = run("ip", &["netns", "pids", &self.scene.host.name]);
        // USER_HZ, which is 100 on every machine that this runs on.
        let ticks = 100.0;
        let mut usage = Usage::default();
        for pid in pids.split_whitespace() {
            let read =
                |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
            // proc_pid_stat(5): utime, stime, cutime and cstime are the 12th to 15th after the
            // name, which may hold blanks.
            let stat = read("stat");
            let fields = stat
                .rsplit_once(") ")
                .map_or("", |(_, rest)| rest)
                .split_whitespace()
                .skip(11)
                .take(4);
            usage.cpu += fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / ticks;
            // The shell that waits in front of it is the benchmark's.
            if !["sh\n", "sleep\n", "unshare\n"].contains(&read("comm").as_str()) {
                let resident = read("status").lines().find_map(|line| {
                    line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok()
                });
                usage.memory += resident.unwrap_or(0.0) / 1000.0;
            }
        }
        usage
    }

    /// The machine, if it is another program than ours.
    pub fn jail(&self) -> Option<&Jail> {
        self.jail.as_ref()
    }
}
