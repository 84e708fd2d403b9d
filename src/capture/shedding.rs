//! Sheds packets of unknown sources when the receive buffer fills up.
//!
//! When the receive buffer is full, the kernel drops a scanner's packets as well as a flood's. So
//! before that, packets of unknown sources are shed: a flood of spoofed sources consists of nothing
//! else. One in [`SAMPLE_ONE_IN`] of them is evaluated. Its source is known from then on, so a
//! scanner that first appears during the flood is noticed after [`SAMPLE_ONE_IN`] packets on
//! average.

/// Shedding starts at this fill level of the receive buffer, percent: what arrives until the daemon
/// notices must still fit.
pub(crate) const START_PERCENT: u8 = 50;

/// Shedding stops at this fill level, percent.
pub(crate) const STOP_PERCENT: u8 = 20;

/// One in this many packets from unknown sources is evaluated. With the lookups, the rest costs
/// less than half of evaluating all.
pub(crate) const SAMPLE_ONE_IN: u64 = 16;

/// Whether packets are shed, and how many were.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shedding {
    on: bool,
    unknown: u64,
    shed: u64,
}

impl Shedding {
    /// Updates the state with the fill level of the receive buffer, percent.
    pub(crate) fn on_backlog(&mut self, percent: u8) {
        self.on = percent >= if self.on { STOP_PERCENT.saturating_add(1) } else { START_PERCENT };
    }

    /// Whether packets are being shed.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Whether to shed a packet; counts it if so. Calls `is_known` (whether its source has an
    /// account) only while shedding.
    pub(crate) fn should_shed(&mut self, is_known: impl FnOnce() -> bool) -> bool {
        if !self.on || is_known() {
            return false;
        }
        self.unknown = self.unknown.wrapping_add(1);
        let should_shed = !self.unknown.is_multiple_of(SAMPLE_ONE_IN);
        self.shed += u64::from(should_shed);
        should_shed
    }

    /// Packets shed so far.
    pub(crate) fn shed(&self) -> u64 {
        self.shed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shed_or_looked_up_while_there_is_room() {
        let mut shedding = Shedding::default();
        shedding.on_backlog(START_PERCENT - 1);
        assert!(!shedding.should_shed(|| panic!("asked")));
        assert_eq!(shedding.shed(), 0);
    }

    #[test]
    fn shedding_starts_at_half_and_stops_at_a_fifth() {
        let mut shedding = Shedding::default();
        for (percent, on) in [
            (49, false),
            (50, true),
            (30, true),
            (21, true),
            (20, false),
            (49, false),
            (100, true),
            (0, false),
        ] {
            shedding.on_backlog(percent);
            assert_eq!(shedding.is_on(), on, "at {percent}");
        }
    }

    // P6
    #[test]
    fn known_sources_and_one_in_sixteen_others_are_evaluated() {
        let mut shedding = Shedding::default();
        shedding.on_backlog(90);
        assert!((0..1000).all(|_| !shedding.should_shed(|| true)));
        let evaluated = (0..1600).filter(|_| !shedding.should_shed(|| false)).count();
        assert_eq!((evaluated, shedding.shed()), (100, 1500));
    }
}
