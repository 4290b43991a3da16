//! Latencies in the log format of `HdrHistogram` (version 1.3), which its tools and plotters read. Owns the units.

use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::{
    Histogram,
    serialization::{V2DeflateSerializer, interval_log::IntervalLogWriterBuilder},
};

/// One interval, `took` long, with the values in milliseconds as the tools expect.
pub fn log(histogram: &Histogram<u64>, took: Duration) -> Vec<u8> {
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .with_max_value_divisor(1e6)
        .with_start_time(UNIX_EPOCH)
        .with_base_time(UNIX_EPOCH);
    // Writing to memory does not fail.
    if let Ok(mut writer) = builder.begin_log_with(&mut text, &mut serializer) {
        let _ = writer.write_histogram(histogram, Duration::ZERO, took, None);
    }
    text
}
