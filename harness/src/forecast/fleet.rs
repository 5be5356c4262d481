//! The generators for a rehearsal at the scale of a plan: how many, and the manifests that start them.

use super::Fleet;

/// No more generators than this are planned: beyond it, a rehearsal of a part of the crowd says as much.
pub const MOST: u64 = 1_000;

/// Files of the manifests, by their names in the folder of the forecast; `kubectl apply -k DIR/fleet` starts them.
pub fn files(fleet: &Fleet) -> Vec<(&'static str, Vec<u8>)> {
    let base = [
        ("fleet/base/generators.yaml", include_str!("../../../ci/kubernetes/base/generators.yaml")),
        ("fleet/base/kustomization.yaml", include_str!("../../../ci/kubernetes/base/kustomization.yaml")),
        ("fleet/base/scenario.toml", include_str!("../../../ci/kubernetes/base/scenario.toml")),
        ("fleet/base/volume.yaml", include_str!("../../../ci/kubernetes/base/volume.yaml")),
    ];
    let mut out: Vec<(&str, Vec<u8>)> = base.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect();
    out.push(("fleet/kustomization.yaml", overlay(fleet).into_bytes()));
    out
}

fn overlay(fleet: &Fleet) -> String {
    let Fleet { shards, requests_per_second, requests_per_cpu_s, .. } = fleet;
    let version = env!("CARGO_PKG_VERSION");
    format!(
        r#"# Generators for {requests_per_second:.0} requests per second, of which each makes {requests_per_cpu_s:.0} with a whole processor.
# Put your scenario into base/scenario.toml, your image and the start here, and then: kubectl apply -k .
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: rehearsal
resources:
  - base
images:
  - name: seckill
    newName: registry.example/seckill
    newTag: "{version}"
configMapGenerator:
  - name: seckill-run
    behavior: merge
    literals:
      - start=2026-11-22T22:00:00+08:00
      - shards={shards}
patches:
  - target:
      kind: Job
      name: seckill-generators
    patch: |-
      - op: replace
        path: /spec/completions
        value: {shards}
      - op: replace
        path: /spec/parallelism
        value: {shards}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlay_is_the_example_with_its_own_number_of_shards() {
        let fleet = Fleet { shards: 7, requests_per_second: 12_345.0, requests_per_cpu_s: 5_000.0, cost: 0.0 };
        let files = files(&fleet);
        let (_, text) = files.iter().find(|(name, _)| *name == "fleet/kustomization.yaml").unwrap();
        let text = String::from_utf8_lossy(text);
        assert!(text.contains("- shards=7\n") && text.matches("value: 7\n").count() == 2, "{text}");
        assert_eq!(files.len(), 5);
        // The example is held against the schemas of Kubernetes by ci/manifests.sh.
        let example = include_str!("../../../ci/kubernetes/example/kustomization.yaml").replace("../base", "base");
        let plain = |text: &str| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        assert_eq!(plain(&overlay(&Fleet { shards: 4, ..fleet })), plain(&example));
    }
}
