//! Value rules of the API server, in its words. Owns the checks of one object by itself; what depends on other
//! objects (allocation, claims) belongs to the world.

pub(crate) mod address;
pub(crate) mod app_protocol;
pub(crate) mod balancing;
pub(crate) mod draining;
pub(crate) mod endpoints;
pub(crate) mod leaf;
pub(crate) mod limits;
pub(crate) mod meta;
pub(crate) mod pod;
pub(crate) mod proxy_protocol;
pub(crate) mod service;
pub(crate) mod source_address;
pub(crate) mod syntax;
pub(crate) mod workload;

/// Why a label (or an annotation) with this key and, for a label, this value is not acceptable: what is wrong, and the
/// API server's explanation of it.
pub fn pair_fault<'t>(key: &'t str, value: Option<&'t str>) -> Option<(&'t str, &'static str)> {
    let lower = key.to_lowercase();
    let of_key = syntax::qualified_name(if value.is_some() { key } else { &lower });
    let of_value = value.map(syntax::label_value).unwrap_or_default();
    let key_fault = of_key.first().map(|why| (key, *why));
    key_fault.or_else(|| Some((value?, *of_value.first()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pair_fault_tells_keys_and_values_of_labels_from_keys_of_annotations() {
        let text = |key, value| pair_fault(key, value).map(|(text, _)| text);
        assert_eq!(text("app", Some("web")), None);
        assert_eq!(text("app", Some("")), None);
        assert_eq!(text("bad key", Some("1")), Some("bad key"));
        assert_eq!(text("a", Some("b c")), Some("b c"));
        assert_eq!(text("Example.com/a", Some("b")), Some("Example.com/a"));
        assert_eq!(text("Example.com/a", None), None);
        assert_eq!(text("bad key", None), Some("bad key"));
    }
}
