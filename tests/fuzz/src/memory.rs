//! Bounded memory as a property: how much a call had allocated at its highest.

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Runs `work`, and panics if it ever had more than `bytes_max` of heap beyond what was there before.
pub fn within<T>(bytes_max: usize, work: impl FnOnce() -> T) -> T {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = work();
    let peak = HEAP.peak_usage().saturating_sub(before);
    assert!(peak <= bytes_max, "{peak} bytes of heap, at most {bytes_max} expected");
    result
}
