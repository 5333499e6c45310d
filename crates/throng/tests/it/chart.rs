//! The node settings that the Helm chart renders are a valid spec.

use crate::process::output;

#[test]
fn the_node_settings_of_the_chart_are_valid() {
    let Some(folder) = crate::provided("THRONG_CHART_SETTINGS", "what the Helm chart renders")
    else {
        return;
    };
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).expect("listed") {
        let path = entry.expect("read").path();
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(text.contains("ledger: postgres") && text.contains("-lookup"), "{text}");
        let checked_spec = output(&["check", &path.to_string_lossy()]);
        let stderr = String::from_utf8_lossy(&checked_spec.stderr);
        assert!(checked_spec.status.success(), "{}: {stderr}", path.display());
        checked += 1;
    }
    assert!(checked >= 3, "{checked} examples");
}
