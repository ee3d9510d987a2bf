//! How much of unfinished frames all streams together hold: pictures come in frames of tens of MiB, and no provider
//! may fill the memory with them.
//!
//! Frames of usual size are not counted: nothing is shared between streams that have no larger ones.
//!
//! Start reading in [`LargeFrame::hold`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest frame, in bytes: as large as the largest whole answer.
pub(super) const MAX_FRAME: usize = 64 * 1024 * 1024;
/// Up to so many bytes a frame is not counted.
const UNCOUNTED: u64 = 1024 * 1024;
/// The most bytes of larger frames that all streams hold together.
const MAX_ALL: u64 = 512 * 1024 * 1024;

/// The bytes of all unfinished large frames.
#[derive(Clone, Default)]
pub(super) struct LargeFrameBytes(Arc<AtomicU64>);

/// The part that one stream has of [`LargeFrameBytes`], given back on drop.
pub(super) struct LargeFrame {
    all: LargeFrameBytes,
    counted: u64,
}

impl LargeFrame {
    /// None yet, of a stream that counts in `all`.
    pub(super) fn none(all: &LargeFrameBytes) -> Self {
        Self { all: all.clone(), counted: 0 }
    }

    /// The stream's unfinished frame has `bytes` now; `false` where all together would be too much.
    #[inline]
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if bytes <= UNCOUNTED && self.counted == 0 {
            return true;
        }
        let counted = if bytes <= UNCOUNTED { 0 } else { bytes };
        let before = std::mem::replace(&mut self.counted, counted);
        let sum = self.all.0.fetch_add(counted.wrapping_sub(before), Ordering::Relaxed);
        counted <= before || sum.wrapping_add(counted.wrapping_sub(before)) <= MAX_ALL
    }
}

impl Drop for LargeFrame {
    fn drop(&mut self) {
        if self.counted > 0 {
            self.all.0.fetch_sub(self.counted, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_frames_are_bounded_in_sum() {
        let all = LargeFrameBytes::default();
        let held = || all.0.load(Ordering::Relaxed);
        let mut small = LargeFrame::none(&all);
        assert!(small.hold(UNCOUNTED as usize));
        assert_eq!(held(), 0);
        let mut large: Vec<LargeFrame> = (0..8).map(|_| LargeFrame::none(&all)).collect();
        assert!(large.iter_mut().all(|frame| frame.hold(MAX_FRAME / 2) && frame.hold(MAX_FRAME)));
        assert_eq!(held(), MAX_ALL);
        assert!(!small.hold(UNCOUNTED as usize + 1), "there is no more");
        assert!(large[0].hold(0), "its frame is complete");
        assert_eq!(held(), MAX_ALL - MAX_FRAME as u64 + UNCOUNTED + 1);
        drop((small, large));
        assert_eq!(held(), 0);
    }
}
