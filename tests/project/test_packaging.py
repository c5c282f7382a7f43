"""Things that a newcomer relies on: the README's commands and links, the TOML files, the environment, the help."""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from repository import ROOT
from stages import run_stage

from hpc_vsr.__main__ import STAGES
from hpc_vsr.cluster.site import read_site
from hpc_vsr.data.recipe import Recipe, read_recipe
from hpc_vsr.experiment.jobfile import add_job_file, read_job
from hpc_vsr.system.parser import Parser

CONDA_NAMES = {"docstring-parser": "docstring_parser", "matplotlib": "matplotlib-base", "torch": "pytorch",
               "opencv-python-headless": "py-opencv"}
TOML = sorted([*ROOT.glob("preprocess/*.toml"), *ROOT.glob("jobs/*.toml")])
MARKDOWN = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/*/*.md")]
                  if ".venv" not in path.parts)


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements() -> dict[str, str]:
    """{package: specifier} of setup.cfg, all extras that environment.yml has."""
    config = setup_cfg()
    lines = config["options"]["install_requires"].split()
    for extra in ("mpi", "fields", "export", "docs", "dev"):
        lines += config["options.extras_require"][extra].split()
    return {re.match(r"[\w-]+", line)[0]: re.sub(r"^[\w-]+", "", line) for line in lines}


def test_environment_yml_has_the_packages_of_setup_cfg():
    conda = {}
    for line in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]:
        if isinstance(line, str) and " " in line:
            name, specifier = line.split(" ", 1)
            conda[name] = specifier
    assert conda.pop("python") == setup_cfg()["options"]["python_requires"]
    assert conda == {CONDA_NAMES.get(name, name): specifier for name, specifier in requirements().items()}


def test_constraints_pin_every_requirement_within_its_range():
    from packaging.requirements import Requirement

    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pinned[name.lower().replace("_", "-")] = version
    for name, specifier in requirements().items():
        assert name in pinned, f"{name} is not pinned"
        assert Requirement(f"{name}{specifier}").specifier.contains(pinned[name]), f"{name} {pinned[name]}"


def test_hashes_and_licences_are_of_the_packages_that_are_pinned():
    pinned = {line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")}
    hashed = (ROOT / "constraints-hashed.txt").read_text().splitlines()
    versions = {line.split(" ")[0]: line for line in hashed if not line.startswith("#")}
    assert versions.keys() == {line for line in pinned if not line.startswith("torch==")}
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in versions.values())
    listed = re.findall(r"^\| ([\w.-]+) \| ([^ ]+) \| .+ \|$", (ROOT / "docs" / "licences.md").read_text(), re.M)
    assert {f"{name}=={version}" for name, version in listed if name not in ("package", "---")} == pinned


@pytest.mark.parametrize("path", TOML, ids=lambda path: path.stem)
def test_every_toml_loads_and_opens_with_its_purpose_cost_and_command(path):
    parser = Parser("test", "")
    if path.parent.name == "preprocess":
        parser.add_settings(Recipe, "--recipe")
        assert parser.parse(["--recipe", str(path)])[0] == read_recipe(path)
    else:
        add_job_file(parser)
        assert read_job(parser, ["--config", str(path)])[1]
    head = [line for line in path.read_text().split("\n\n")[0].splitlines() if line.startswith("#")]
    assert any("Cost: " in line for line in head) and any("python -m hpc_vsr." in line for line in head)


@pytest.mark.parametrize("path", sorted(ROOT.glob("slurm/sites/*.toml")), ids=lambda path: path.stem)
def test_every_site_loads(path):
    assert read_site(path, "abc").setup


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_the_docs_lead_somewhere(path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_the_docs_exist_with_their_flags_and_files(path):
    """The stage and each flag of `python -m hpc_vsr.STAGE ...` exist, and so do the TOML files it names."""
    for line in re.findall(r"^\s*(?:\$ |#\s+)?((?:mpiexec|srun|python -m hpc_vsr)[^\n]*)", path.read_text(), re.M):
        words = shlex.split(line.replace("...", ""), comments=True)
        stage = next((word.removeprefix("hpc_vsr.") for word in words if word.startswith("hpc_vsr.")), None)
        if stage is None or "|" in line:
            continue
        assert stage in STAGES, f"{path.name}: {line}"
        helped = run_help(stage)
        for flag in (word.split("=")[0] for word in words[words.index(f"hpc_vsr.{stage}") :] if word.startswith("--")):
            option = re.sub(r"^(--(?:\w+\.)?)no-", r"\1", flag.replace("_", "-"))  # --no-x says no to --x
            assert flag in helped or option in helped, f"{path.name}: {line}: {flag}"
        for word in words:
            if word.endswith(".toml"):
                assert (ROOT / word).exists(), f"{path.name}: {line}: {word}"


_HELP: dict[str, str] = {}


def run_help(stage: str) -> str:
    if stage not in _HELP:
        done = run_stage(stage, "--help")
        assert done.returncode == 0, done.stderr
        _HELP[stage] = done.stdout
    return _HELP[stage]


@pytest.mark.parametrize("stage", STAGES)
def test_the_help_of_a_stage_is_a_manual(stage):
    text = run_help(stage)
    assert len(text) > 500 and f"python -m hpc_vsr.{stage}" in text
    for option in re.findall(r"^  (--[\w.]+)", text, re.M):
        described = re.search(rf"^  {re.escape(option)}\b.*(?:\n {{6,}}.*)*", text, re.M)[0].split("(type")[0]
        assert re.search(r"[a-z]{2,} [a-z]{2,}", described.lower()), f"{stage} {option} is not described"


def test_the_command_lists_its_stages():
    done, wrong = run_stage("__main__", "--help"), run_stage("__main__", "trian")
    for stage in STAGES:
        assert f"  {stage} " in done.stdout
    assert wrong.returncode == 2 and "unknown stage 'trian'" in wrong.stderr


def test_the_bundled_clip_is_small_and_whole():
    clip = ROOT / "preprocess" / "sample" / "diamond.mp4"
    assert clip.stat().st_size <= 2_000_000


def test_pyproject_is_short_and_setup_cfg_has_the_metadata():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "project" not in project and setup_cfg()["metadata"]["license"] == "MIT"


def test_the_readme_shows_the_two_commands_on_its_first_screen():
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert "make demo" in first_screen and "make test" in first_screen and "](docs/" in first_screen


def test_ci_runs_the_test_command_of_the_readme():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert Path(ROOT / ".ci" / "run").stat().st_mode & 0o111
