//! Flood detection for held sources.

use super::MonoTime;

/// More holds without a free block than this within a second are a flood.
const FLOOD_PER_SECOND: u32 = 100;
/// Length of the counting interval. A flood ends after one interval below the limit.
const FLOOD_SPAN_MS: u64 = 1000;

/// Counts events per second and remembers the last second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FloodDetector {
    second: u64,
    count: u32,
    before: u32,
}

impl FloodDetector {
    /// Counts an event and returns whether there is a flood.
    pub(super) fn is_flood(&mut self, now: MonoTime) -> bool {
        let second = now.millis() / FLOOD_SPAN_MS;
        if second != self.second {
            self.before = if second == self.second + 1 { self.count } else { 0 };
            (self.second, self.count) = (second, 0);
        }
        self.count = self.count.saturating_add(1);
        self.count.max(self.before) > FLOOD_PER_SECOND
    }
}
