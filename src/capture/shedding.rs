//! Which packets are judged when not all can be: those of sources that are known, and a sample of the rest.
//!
//! Decides only. The kernel throws packets away blindly when the receive buffer is full, a scanner's as soon as a flood's; so before that,
//! packets of sources nothing is known of are given up: a flood of invented sources consists of nothing else. One in [`SAMPLE`] of them is
//! judged all the same. Whoever goes on is known from then on, and all that follows from him is judged: a scanner that first shows up in the
//! flood is seen after [`SAMPLE`] packets in the mean.

/// Begins when so many percent of the receive buffer are taken: what comes while the daemon notices must still fit.
pub const FROM: u8 = 50;

/// Ends when no more than so many percent are taken.
pub const UNTIL: u8 = 20;

/// Of the packets from unknown sources one in so many is judged. What is left costs a sixteenth and the look-up, less than half of the whole.
pub const SAMPLE: u64 = 16;

/// The decision, and the count of what was given up.
#[derive(Debug, Clone, Default)]
pub struct Shedding {
    on: bool,
    unknown: u64,
    shed: u64,
}

impl Shedding {
    /// Takes note of how full the receive buffer is, percent.
    pub fn on_backlog(&mut self, percent: u8) {
        self.on = percent >= if self.on { UNTIL.saturating_add(1) } else { FROM };
    }

    /// Whether packets are being given up.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Whether a packet is to be given up; counts it then. `is_known` (something is known of its source) is asked only while it matters.
    pub fn sheds(&mut self, is_known: impl FnOnce() -> bool) -> bool {
        if !self.on || is_known() {
            return false;
        }
        self.unknown = self.unknown.wrapping_add(1);
        let sheds = !self.unknown.is_multiple_of(SAMPLE);
        self.shed += u64::from(sheds);
        sheds
    }

    /// Packets given up so far.
    pub fn shed(&self) -> u64 {
        self.shed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_given_up_and_nobody_asked_while_there_is_room() {
        let mut shedding = Shedding::default();
        shedding.on_backlog(FROM - 1);
        assert!(!shedding.sheds(|| panic!("asked")));
        assert_eq!(shedding.shed(), 0);
    }

    #[test]
    fn it_begins_at_half_and_ends_when_there_is_room_again() {
        let mut shedding = Shedding::default();
        for (percent, on) in [(49, false), (50, true), (30, true), (21, true), (20, false), (49, false), (100, true), (0, false)] {
            shedding.on_backlog(percent);
            assert_eq!(shedding.is_on(), on, "at {percent}");
        }
    }

    // P6
    #[test]
    fn known_sources_are_judged_and_of_the_others_one_in_sixteen() {
        let mut shedding = Shedding::default();
        shedding.on_backlog(90);
        assert!((0..1000).all(|_| !shedding.sheds(|| true)));
        let judged = (0..1600).filter(|_| !shedding.sheds(|| false)).count();
        assert_eq!((judged, shedding.shed()), (100, 1500));
    }
}
