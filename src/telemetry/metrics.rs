//! Metrics: their names, the text that Prometheus reads, and the recorder of process-level series. Owns the table and
//! the format; who counts and who serves is elsewhere.

pub mod table;
pub mod text;

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use table::Kind;

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Takes what the macros of the `metrics` facade record from now on. Only the first call of a process does anything.
pub fn install() {
    RECORDER.get_or_init(|| {
        let network: Vec<f64> = table::network_programming_buckets().collect();
        let sync: Vec<f64> = table::sync_buckets().collect();
        let of = |name: &str| Matcher::Full(name.to_owned());
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(of(table::NETWORK_PROGRAMMING), &network)
            .and_then(|builder| builder.set_buckets_for_metric(of(table::SYNC), &sync));
        let handle = match builder.map(PrometheusBuilder::install_recorder) {
            Ok(Ok(handle)) => handle,
            Ok(Err(error)) | Err(error) => {
                tracing::warn!(%error, "process-level metrics are not recorded");
                return None;
            }
        };
        for metric in table::TABLE {
            match metric.kind {
                Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
                Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
            }
        }
        Some(handle)
    });
}

/// What the facade recorded, as text: families and their series in the order of their names.
pub fn render() -> String {
    let handle = RECORDER.get().and_then(Option::as_ref);
    handle.map_or_else(String::new, |handle| sorted(&handle.render()))
}

/// Lets histograms take in their samples: to be called every few seconds, or they grow until the next scrape.
pub fn upkeep() {
    if let Some(handle) = RECORDER.get().and_then(Option::as_ref) {
        handle.run_upkeep();
    }
}

/// The recorder's order is that of hash tables; an empty line ends each of its families.
fn sorted(text: &str) -> String {
    let families = text.split("\n\n").map(str::trim);
    let mut families: Vec<String> = families
        .filter(|family| !family.is_empty())
        .map(|family| {
            let mut lines: Vec<&str> = family.lines().collect();
            // Buckets of a histogram are in order already, and must stay so.
            if !family.contains(" histogram\n") {
                lines.sort_by_key(|line| (!line.starts_with('#'), *line));
            }
            lines.join("\n") + "\n"
        })
        .collect();
    families.sort_unstable();
    families.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_orders_families_and_series_but_not_buckets() {
        let text = "# HELP b x\n# TYPE b counter\nb{a=\"2\"} 1\nb{a=\"1\"} 1\n\n# TYPE a histogram\na_bucket{le=\"9\"} 1\na_bucket{le=\"+Inf\"} 1\n\n";
        assert_eq!(
            sorted(text),
            "# HELP b x\n# TYPE b counter\nb{a=\"1\"} 1\nb{a=\"2\"} 1\n# TYPE a histogram\na_bucket{le=\"9\"} 1\na_bucket{le=\"+Inf\"} 1\n"
        );
    }
}
