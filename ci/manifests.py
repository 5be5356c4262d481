"""Renders the kustomizations of this folder without kustomize, strictly: a key that it does not know is an error.

Usage: manifests.py KUSTOMIZATION > RENDERED

It knows what the manifests here use: resources, namespace, images, configMapGenerator, and JSON patches that replace.
"""

import pathlib
import sys

import yaml

KNOWN = {
    "apiVersion", "kind", "resources", "namespace", "images", "configMapGenerator", "generatorOptions", "patches",
}


def fail(path, why):
    sys.exit(f"{path}: {why}")


def only(path, what, mapping, known):
    unknown = set(mapping) - known
    if unknown:
        fail(path, f"{what} has the unknown key {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")


def literals(path, generator):
    only(path, "configMapGenerator", generator, {"name", "behavior", "files", "literals"})
    data = {}
    for name in generator.get("files", []):
        data[name] = (path.parent / name).read_text(encoding="utf-8")
    for literal in generator.get("literals", []):
        key, found, value = literal.partition("=")
        if not found:
            fail(path, f"the literal {literal} is not KEY=VALUE")
        data[key] = value
    return data


def patch(path, resources, entry):
    only(path, "patches", entry, {"target", "patch"})
    target = entry["target"]
    matched = [r for r in resources if r["kind"] == target["kind"] and r["metadata"]["name"] == target["name"]]
    if not matched:
        fail(path, f"no resource is {target['kind']} {target['name']}")
    for operation in yaml.safe_load(entry["patch"]):
        if operation["op"] != "replace":
            fail(path, f"the operation {operation['op']} is not known; known is replace")
        *parents, last = operation["path"].strip("/").split("/")
        for resource in matched:
            at = resource
            for key in parents:
                at = at[key]
            if last not in at:
                fail(path, f"there is nothing to replace at {operation['path']}")
            at[last] = operation["value"]


def set_images(path, resource, images):
    pod = resource.get("spec", {}).get("template", {}).get("spec", {})
    for container in pod.get("containers", []):
        for image in images:
            only(path, "images", image, {"name", "newName", "newTag"})
            if container["image"] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image.get('newTag', 'latest')}"


def render(folder):
    path = folder / "kustomization.yaml"
    kustomization = yaml.safe_load(path.read_text(encoding="utf-8"))
    only(path, "the file", kustomization, KNOWN)
    if (kustomization.get("apiVersion"), kustomization.get("kind")) != (
        "kustomize.config.k8s.io/v1beta1",
        "Kustomization",
    ):
        fail(path, "it is no Kustomization of kustomize.config.k8s.io/v1beta1")
    resources = []
    for name in kustomization["resources"]:
        found = folder / name
        if found.is_dir():
            resources += render(found)
        elif found.is_file():
            resources += [r for r in yaml.safe_load_all(found.read_text(encoding="utf-8")) if r]
        else:
            fail(path, f"the resource {name} does not exist")
    for generator in kustomization.get("configMapGenerator", []):
        data = literals(path, generator)
        maps = [r for r in resources if r["kind"] == "ConfigMap" and r["metadata"]["name"] == generator["name"]]
        if generator.get("behavior", "create") == "merge":
            if not maps:
                fail(path, f"there is no ConfigMap {generator['name']} to merge into")
            maps[0]["data"].update(data)
        else:
            metadata = {"name": generator["name"]}
            resources.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    for entry in kustomization.get("patches", []):
        patch(path, resources, entry)
    for resource in resources:
        set_images(path, resource, kustomization.get("images", []))
        if "namespace" in kustomization:
            resource["metadata"]["namespace"] = kustomization["namespace"]
    return resources


def same_number_of_shards(folder, resources):
    """A Job with more pods than shards, or fewer, would be a run with a gap, or with pods that are refused."""
    told = [r["data"]["shards"] for r in resources if r["kind"] == "ConfigMap" and "shards" in r["data"]]
    for job in (r["spec"] for r in resources if r["kind"] == "Job" and r["spec"].get("completionMode") == "Indexed"):
        numbers = {*told, str(job["completions"]), str(job["parallelism"])}
        if len(numbers) != 1:
            fail(folder, f"shards, completions and parallelism are one number, not {', '.join(sorted(numbers))}")


if __name__ == "__main__":
    where = pathlib.Path(sys.argv[1])
    rendered = render(where)
    same_number_of_shards(where, rendered)
    yaml.safe_dump_all(rendered, sys.stdout, allow_unicode=True, sort_keys=False)
