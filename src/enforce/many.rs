//! Orders of the administrator that are about many blocks: several together, and named lists.

use std::sync::Arc;
use std::time::Duration;

use super::enforcer::{BlockError, Enforcer, Observer};
use super::kernel::Kernel;
use crate::engine::{ListName, Listed, MonoTime, OnList, Refusal, Source};

/// Why many are blocked.
#[derive(Debug, Clone)]
pub enum ManyReason {
    /// The administrator's words.
    Text(String),
    /// They are on this list, which is being loaded.
    List(Arc<Listed>),
}

/// What a part of an order came to.
#[derive(Debug, Clone, Default)]
pub struct Several {
    /// The places of those that are not blocked, and why.
    pub refused: Vec<(usize, BlockError)>,
    /// Of a list: those that were not on it before, those that were, and those that stay blocked by
    /// another order or a proven scan.
    pub new: u64,
    /// See [`Several::new`].
    pub kept: u64,
    /// See [`Several::new`].
    pub elsewhere: u64,
}

/// A part of a list, or of all blocks, was lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiftedPart {
    /// Blocks that are lifted.
    pub lifted: u64,
    /// Where to go on; `None`: this was the last part.
    pub next: Option<usize>,
}

impl<K: Kernel, O: Observer> Enforcer<K, O> {
    /// Blocks many for the administrator, together.
    pub fn block_several(
        &mut self,
        now: MonoTime,
        sources: &[Source],
        timeout: Option<Duration>,
        reason: &ManyReason,
    ) -> Several {
        self.settle(now);
        self.refusal = None;
        let mut refused = Vec::new();
        let mut found = Vec::with_capacity(sources.len());
        for (at, source) in sources.iter().enumerate() {
            let (engine, actions) = (&mut self.engine, &mut self.actions);
            let ordered = match reason {
                ManyReason::Text(text) => {
                    engine.block(now, *source, timeout, text, actions).map(|()| OnList::New)
                }
                ManyReason::List(list) => engine.block_listed(now, *source, timeout, list, actions),
            };
            match ordered {
                Ok(ordered) => found.push((at, ordered)),
                Err(why) => refused.push((at, BlockError::Refused(why))),
            }
        }
        self.perform(now);
        // The kernel's last refusal stands for all of them.
        if let Some((last, error)) = self.refusal.take() {
            let stays = |source: &Source| self.engine.blocked(*source).is_some();
            found.retain(|(at, _)| {
                let Some(source) = sources.get(*at) else { return false };
                let stays = stays(source);
                if stays && *source != last {
                    return true;
                }
                refused.push((*at, BlockError::Kernel { error: error.clone(), stays }));
                false
            });
        }
        let count = |wanted| found.iter().filter(|(_, found)| *found == wanted).count() as u64;
        Several {
            new: count(OnList::New),
            kept: count(OnList::Kept),
            elsewhere: count(OnList::Elsewhere),
            refused,
        }
    }

    /// Lifts the blocks on a list, or all, among `places` of all from `from` on. With a loading of it, only
    /// those that this did not name.
    ///
    /// # Errors
    /// The loading is not the latest, or what the kernel says.
    pub fn unblock_part(
        &mut self,
        now: MonoTime,
        list: Option<&ListName>,
        loading: Option<&Arc<Listed>>,
        from: usize,
        places: usize,
    ) -> Result<LiftedPart, String> {
        self.settle(now);
        self.refusal = None;
        if let Some(loading) = loading {
            self.engine.is_loading(loading).map_err(|refusal: Refusal| refusal.to_string())?;
        }
        let (sources, next) = self.engine.on_list(list, loading, from, places);
        let mut lifted = 0;
        for source in sources {
            // One that ended just now is no failure.
            lifted += u64::from(match list {
                Some(_) => self.engine.take_off_list(now, source, &mut self.actions),
                None => self.engine.unblock(now, source, &mut self.actions).is_ok(),
            });
        }
        if lifted > 0 {
            self.perform(now);
        }
        self.refusal.take().map_or(Ok(LiftedPart { lifted, next }), |(_, error)| Err(error))
    }
}
