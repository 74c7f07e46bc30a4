"""The files in cluster/, against the schemas and linters that `scripts/check-cluster` brings; nothing else has them."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any, Callable, Iterator

import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator
from kubeflow_trainer_api import models as kubeflow

CLUSTER = Path(__file__).resolve().parent.parent.parent / "cluster"
KUBERNETES = "1.37"
RESUMABLE, REFUSED = 75, 2

Manifest = dict[str, Any]


def core(manifest: Manifest) -> None:
    """Kubernetes's own kinds, by the schemas of its release, without fields that these do not know."""
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def of_kubeflow(model: type) -> Callable[[Manifest], None]:
    """Kinds of Kubeflow's Trainer and of JobSet: a field that the model does not know is lost on the way through it."""
    return lambda manifest: unchanged(manifest, model.from_dict(manifest).to_dict())


def of_prometheus(manifest: Manifest) -> None:
    read = prometheus_operator.PodMonitor.model_validate(manifest)
    unchanged(manifest, read.model_dump(mode="json", by_alias=True, exclude_none=True))


def unchanged(manifest: Manifest, read: Manifest) -> None:
    if manifest != read:
        raise ValueError(f"{manifest}\nis read as\n{read}")


FORMS: dict[tuple[str, str], Callable[[Manifest], None]] = {
    ("v1", "PersistentVolumeClaim"): core,
    ("batch/v1", "Job"): core,
    ("networking.k8s.io/v1", "NetworkPolicy"): core,
    ("jobset.x-k8s.io/v1alpha2", "JobSet"): of_kubeflow(kubeflow.JobsetV1alpha2JobSet),
    ("trainer.kubeflow.org/v1alpha1", "TrainingRuntime"): of_kubeflow(kubeflow.TrainerV1alpha1TrainingRuntime),
    ("trainer.kubeflow.org/v1alpha1", "TrainJob"): of_kubeflow(kubeflow.TrainerV1alpha1TrainJob),
    ("monitoring.coreos.com/v1", "PodMonitor"): of_prometheus,
}


def manifests() -> Iterator[tuple[str, Manifest]]:
    """Every object, and the name of its file and kind."""
    for file in sorted((CLUSTER / "kubernetes").glob("*.yaml")):
        for manifest in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            yield f"{file.name}: {manifest['kind']}", manifest


def objects(value: Any) -> Iterator[Manifest]:
    """Every object in an object."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(each)


class ManifestsTest(unittest.TestCase):
    def test_each_has_the_form_of_its_kind(self) -> None:
        kinds = set()
        for name, manifest in manifests():
            with self.subTest(name):
                kind = (manifest["apiVersion"], manifest["kind"])
                FORMS[kind](manifest)
                kinds.add(kind)
        self.assertEqual(kinds, set(FORMS))

    def test_a_field_that_there_is_not_is_found_in_each_kind(self) -> None:
        for name, manifest in manifests():
            for wrong in misspelt(manifest):
                with self.subTest(name), self.assertRaises(Exception):
                    FORMS[(manifest["apiVersion"], manifest["kind"])](wrong)

    def test_jobs_restart_where_a_run_was_stopped_after_a_checkpoint(self) -> None:
        jobs = [(name, each) for name, manifest in manifests() for each in objects(manifest) if "podFailurePolicy" in each]
        self.assertEqual(len(jobs), 3)
        for name, job in jobs:
            with self.subTest(name):
                pod = job["template"]["spec"]
                rules = [rule for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
                codes = {code: rule["action"] for rule in rules for code in rule["onExitCodes"]["values"]}
                # In a set of jobs the failure of the job is what restarts the whole set.
                self.assertEqual(codes[RESUMABLE], "Ignore" if name.endswith(": Job") else "FailJob")
                self.assertEqual(codes[REFUSED], "FailJob")
                self.assertEqual({rule["onExitCodes"]["containerName"] for rule in rules}, {pod["containers"][0]["name"]})
                # A Service called mpt would bring variables that mpt takes for misspelt keys.
                self.assertIs(pod["enableServiceLinks"], False)
                self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], 60)
                self.assertEqual((pod["restartPolicy"], pod["securityContext"]["runAsNonRoot"]), ("Never", True))
                volumes = {volume["name"]: volume for volume in pod["volumes"]}
                mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}
                self.assertEqual(mounts["/dev/shm"]["emptyDir"]["medium"], "Memory")
                self.assertIn("persistentVolumeClaim", mounts["/runs"])

    def test_sets_of_jobs_restart_without_counting_it_unless_the_request_cannot_be_carried_out(self) -> None:
        found = [(name, each["failurePolicy"]) for name, manifest in manifests() for each in objects(manifest) if "failurePolicy" in each]
        self.assertEqual(len(found), 2)
        for name, policy in found:
            with self.subTest(name):
                # The first rule that fits counts.
                refused, resumable = policy["rules"]
                self.assertEqual((refused["action"], resumable["action"]), ("FailJobSet", "RestartJobSetAndIgnoreMaxRestarts"))
                for rule in (refused, resumable):
                    self.assertEqual(rule["onJobFailureReasons"], ["PodFailurePolicy"])
                self.assertNotIn("onJobFailureMessagePatterns", resumable)
                (pattern,) = refused["onJobFailureMessagePatterns"]
                for code in (REFUSED, RESUMABLE, 1, 25):
                    told = f"Container mpt for pod runs/mpt-0 failed with exit code {code} matching FailJob rule at index 0"
                    self.assertEqual(bool(re.search(pattern, told)), code == REFUSED, code)

    def test_kubeflow_starts_one_process_a_pod(self) -> None:
        (job,) = (manifest for _, manifest in manifests() if manifest["kind"] == "TrainJob")
        trainer = job["spec"]["trainer"]
        self.assertEqual((trainer["numProcPerNode"], trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"]), (1, "1"))

    def test_prometheus_takes_each_run_for_a_job_of_its_own(self) -> None:
        (monitor,) = (manifest for _, manifest in manifests() if manifest["kind"] == "PodMonitor")
        self.assertEqual(monitor["spec"]["jobLabel"], "batch.kubernetes.io/job-name")
        # The alerts know a run by that.
        for name, manifest in manifests():
            if manifest["kind"] in ("Job", "JobSet", "TrainJob"):
                self.assertIn("mpt", manifest["metadata"]["name"], name)

    def test_what_is_scraped_is_what_is_labelled(self) -> None:
        wanted = {"app.kubernetes.io/name": "mpt"}
        for name, manifest in manifests():
            selectors = [each["matchLabels"] for each in objects(manifest) if "matchLabels" in each]
            pods = [each["metadata"]["labels"] for each in objects(manifest) if "containers" in each.get("spec", {})]
            with self.subTest(name):
                self.assertTrue(all(labels == wanted for labels in selectors + pods), selectors + pods)


def misspelt(manifest: Manifest) -> Iterator[Manifest]:
    """The manifest with one more field in its spec, and in the innermost object of it that has a container."""
    for place in (lambda each: "spec" in each and "kind" in each, lambda each: "containers" in each.get("spec", {})):
        wrong = copy.deepcopy(manifest)
        found = [each for each in objects(wrong) if place(each)]
        if found:
            found[-1]["spec"]["replicass"] = 2
            yield wrong


class LintersTest(unittest.TestCase):
    def lint(self, program: str, *files: Path) -> str:
        tool = Path(sys.executable).with_name(program)
        return subprocess.run([tool, *files], capture_output=True, text=True).stdout

    def test_shell_scripts(self) -> None:
        scripts = [*(CLUSTER / "slurm").iterdir(), *(CLUSTER / "mpi").iterdir()]
        self.assertEqual(len(scripts), 4)
        self.assertEqual(self.lint("shellcheck", *scripts), "")

    def test_dockerfile(self) -> None:
        self.assertEqual(self.lint("hadolint", CLUSTER / "Dockerfile"), "")
        instructions = (CLUSTER / "Dockerfile").read_text(encoding="utf-8").splitlines()
        last_stage = instructions[max(place for place, line in enumerate(instructions) if line.startswith("FROM")) :]
        self.assertIn("USER 10001", last_stage)


if __name__ == "__main__":
    unittest.main()
