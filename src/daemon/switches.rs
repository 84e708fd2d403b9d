//! What an administrator has switched over the configuration, until the next start: the mode, and
//! whether anything is watched.
//!
//! Pure: time is an argument. The files are never changed.

use std::time::Duration;

use crate::config::{Config, Keyword, Mode, PortMode, UnprovenAction};
use crate::time::MonoTime;

/// What to switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    /// Block scans; with a time, observe again after it unless that is confirmed before.
    Enforce(Option<Duration>),
    /// Block nothing.
    Observe,
    /// Watch nothing, for a time or until it is switched on.
    Off(Option<Duration>),
    /// Watch again.
    On,
}

/// The switches. None is set at the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Switches {
    /// The mode, if not that of the configuration.
    mode: Option<Mode>,
    /// When it observes again unless enforcing is confirmed.
    pub confirm_by: Option<MonoTime>,
    /// Nothing is watched.
    pub is_off: bool,
    /// When it is on again by itself.
    pub on_at: Option<MonoTime>,
}

impl Switches {
    /// The mode in force.
    pub(super) fn mode(&self, written: &Config) -> Mode {
        self.mode.unwrap_or(written.mode)
    }

    /// The configuration as the files have it, in the mode in force.
    pub(super) fn with_mode(&self, written: &Config) -> Config {
        Config { mode: self.mode(written), ..written.clone() }
    }

    /// The configuration in force.
    pub(super) fn over(&self, written: &Config) -> Config {
        let mut config = self.with_mode(written);
        if self.is_off {
            config.tcp.mode = PortMode::Off;
            config.udp.mode = PortMode::Off;
            // No rule slows a source while detection is off, so none may be listed as slowed.
            config.block.unproven.action = UnprovenAction::Report;
        }
        config
    }

    /// The switches after an administrator's command.
    ///
    /// # Errors
    /// Which state it has already.
    pub(super) fn after(
        &self,
        switch: Switch,
        written: &Config,
        now: MonoTime,
    ) -> Result<Self, &'static str> {
        let to = |mode| (mode != written.mode).then_some(mode);
        let at = |time: Option<Duration>| time.map(|time| now.after(time));
        let is_enforcing = self.mode(written) == Mode::Enforce;
        let mut after = self.clone();
        match switch {
            Switch::Enforce(None) if is_enforcing && self.confirm_by.is_none() => {
                return Err("the mode is enforce already");
            }
            Switch::Enforce(Some(_)) if is_enforcing && self.confirm_by.is_none() => {
                return Err("the mode is enforce already, and needs no confirmation");
            }
            Switch::Enforce(time) => {
                (after.mode, after.confirm_by) = (to(Mode::Enforce), at(time));
            }
            Switch::Observe if !is_enforcing => return Err("the mode is observe already"),
            Switch::Observe => (after.mode, after.confirm_by) = (to(Mode::Observe), None),
            Switch::Off(None) if self.is_off && self.on_at.is_none() => {
                return Err("detection is off already");
            }
            Switch::Off(time) => (after.is_off, after.on_at) = (true, at(time)),
            Switch::On if !self.is_off => return Err("detection is on already"),
            Switch::On => (after.is_off, after.on_at) = (false, None),
        }
        Ok(after)
    }

    /// The switches after a reload. They stay, but for a mode that the files have changed: that is
    /// the administrator's last word, and needs no confirmation.
    pub(super) fn after_reload(&self, before: &Config, written: &Config) -> Self {
        if before.mode == written.mode {
            return self.clone();
        }
        Self { mode: None, confirm_by: None, ..self.clone() }
    }

    /// When something changes by itself next.
    pub(super) fn due(&self) -> Option<MonoTime> {
        [self.confirm_by, self.on_at].into_iter().flatten().min()
    }

    /// The switches after what is due now, and what to report; `None`: nothing is due.
    pub(super) fn expired(
        &self,
        written: &Config,
        now: MonoTime,
    ) -> Option<(Self, Vec<&'static str>)> {
        let is_due = |at: Option<MonoTime>| at.is_some_and(|at| at <= now);
        let (mut after, mut said) = (self.clone(), Vec::new());
        if is_due(self.confirm_by) {
            after.mode = (written.mode != Mode::Observe).then_some(Mode::Observe);
            after.confirm_by = None;
            said.push("enforcing was not confirmed in time: scans are observed again");
        }
        if is_due(self.on_at) {
            (after.is_off, after.on_at) = (false, None);
            said.push("the pause is over: detection is on again");
        }
        (!said.is_empty()).then_some((after, said))
    }

    /// The mode in a word, and `on`, `off` or `paused`.
    pub(super) fn words(&self, written: &Config) -> (&'static str, &'static str) {
        let detection = match (self.is_off, self.on_at) {
            (false, _) => "on",
            (true, None) => "off",
            (true, Some(_)) => "paused",
        };
        (self.mode(written).word(), detection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> MonoTime {
        MonoTime::from_millis(second * 1000)
    }

    fn written(mode: Mode) -> Config {
        Config { mode, ..Config::default() }
    }

    const TIME: Option<Duration> = Some(Duration::from_secs(300));

    #[test]
    fn enforcing_that_is_not_confirmed_ends_in_observing_whatever_the_files_say() {
        for mode in [Mode::Observe, Mode::Enforce] {
            let written = written(mode);
            let none = Switches::default();
            let start = if mode == Mode::Observe {
                none
            } else {
                none.after(Switch::Observe, &written, at(0)).unwrap()
            };
            assert_eq!(start.mode(&written), Mode::Observe);
            let trial = start.after(Switch::Enforce(TIME), &written, at(10)).unwrap();
            assert_eq!((trial.mode(&written), trial.due()), (Mode::Enforce, Some(at(310))));
            assert_eq!(trial.expired(&written, at(309)), None);
            let (over, said) = trial.expired(&written, at(310)).unwrap();
            assert_eq!((over, said.len()), (start, 1));
            // Again, which gives it more time, and then confirmed.
            let trial = trial.after(Switch::Enforce(TIME), &written, at(200)).unwrap();
            assert_eq!(trial.due(), Some(at(500)));
            let confirmed = trial.after(Switch::Enforce(None), &written, at(300)).unwrap();
            assert_eq!((confirmed.mode(&written), confirmed.due()), (Mode::Enforce, None));
            assert!(confirmed.after(Switch::Enforce(TIME), &written, at(301)).is_err());
            assert!(confirmed.after(Switch::Enforce(None), &written, at(301)).is_err());
        }
    }

    #[test]
    fn a_reload_keeps_the_switches_unless_the_files_have_another_mode() {
        let (observe, enforce) = (written(Mode::Observe), written(Mode::Enforce));
        let trial = Switches::default().after(Switch::Enforce(TIME), &observe, at(0)).unwrap();
        let paused = trial.after(Switch::Off(TIME), &observe, at(10)).unwrap();
        assert_eq!(paused.after_reload(&observe, &observe), paused);
        let reloaded = paused.after_reload(&observe, &enforce);
        assert_eq!((reloaded.mode(&enforce), reloaded.confirm_by), (Mode::Enforce, None));
        assert_eq!(reloaded.words(&enforce), ("enforce", "paused"));
    }

    #[test]
    fn a_pause_ends_by_itself_and_off_does_not() {
        let written = written(Mode::Enforce);
        let none = Switches::default();
        let paused = none.after(Switch::Off(TIME), &written, at(0)).unwrap();
        assert!(paused.over(&written).tcp.watched().is_empty() && !paused.over(&written).slows());
        assert_eq!(paused.expired(&written, at(300)).unwrap().0, none);
        let off = paused.after(Switch::Off(None), &written, at(1)).unwrap();
        assert_eq!((off.due(), off.words(&written)), (None, ("enforce", "off")));
        assert!(off.after(Switch::Off(None), &written, at(2)).is_err());
        assert_eq!(off.after(Switch::On, &written, at(2)).unwrap(), none);
        assert!(none.after(Switch::On, &written, at(2)).is_err());
        assert!(none.after(Switch::Observe, &written, at(2)).is_ok());
    }
}
