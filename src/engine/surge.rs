//! When so many come that it can only be a flood, in virtual time.

use super::MonoTime;

/// More holds than this within a second that the budget stands against are a flood's.
const SURGE: u32 = 100;
/// A flood is over when a second has passed with fewer.
const SURGE_SPAN: u64 = 1000;

/// Whether so many come that it can only be a flood. Seconds are counted one by one, and the last one is remembered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FloodDetector {
    second: u64,
    count: u32,
    before: u32,
}

impl FloodDetector {
    /// Counts one more.
    pub(super) fn floods(&mut self, now: MonoTime) -> bool {
        let second = now.millis() / SURGE_SPAN;
        if second != self.second {
            self.before = if second == self.second + 1 { self.count } else { 0 };
            (self.second, self.count) = (second, 0);
        }
        self.count = self.count.saturating_add(1);
        self.count.max(self.before) > SURGE
    }
}
