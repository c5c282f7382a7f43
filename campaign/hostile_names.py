"""Names, units and settings from strangers, on their way to a page, a shell and memory."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import numpy as np
from faults import REFUSED, Kind
from hostile import case, refused
from sandbox import call, run
from trainings import TINY
from world import World

KINDS: list[Kind] = []
MARKUP = "<img src=x onerror=alert(1)>"
METACHARACTERS = "a b$(touch pwned);`touch pwned`'&&touch pwned|touch pwned"


@case(KINDS, "names with markup reach the report's page as text")
def _(world: World, folder: Path) -> str | None:
    out = folder / f"r{MARKUP.replace('/', '')}"
    shutil.copytree(world.runs / "unmeasured", out)
    done = [run("evaluate", ["--run", out], folder), run("report", [out, "--out", folder / "report"], folder)]
    page = (folder / "report" / "index.html").read_text()
    return None if done[1].status == 0 and "<img src=x" not in page and "&lt;img" in page else "markup in the page"


@case(KINDS, "units and names with markup in a field reach the report's page as text")
def _(world: World, folder: Path) -> str | None:
    def write() -> None:
        import xarray as xr

        with xr.open_dataset(world.field) as dataset:
            dataset["speed"].attrs["units"] = f"{MARKUP} $\\frac{{"
            dataset["speed"].attrs["long_name"] = "</script><script>alert(1)</script>"
            dataset.load().to_netcdf(folder / "f.nc")

    call(write, folder)
    for stage, arguments in (
        (
            "preprocess",
            [
                "--field",
                folder / "f.nc",
                "--variable",
                "speed",
                "--out",
                folder / "d",
                "--shards",
                3,
                "--degradation.sigma",
                1,
            ],
        ),
        ("train", ["--data", folder / "d", "--out", folder / "run", *TINY]),
        ("evaluate", ["--run", folder / "run"]),
        ("report", [folder / "run", "--out", folder / "report"]),
    ):
        done = run(stage, arguments, folder)
        if done.status != 0:
            return f"{stage}: {done.status}: {done.last_line()}"
    page = (folder / "report" / "index.html").read_text()
    return None if "<img src=x" not in page and "<script>alert" not in page else "markup in the page"


@case(KINDS, "names with formulas reach the report's figures as text")
def _(world: World, folder: Path) -> str | None:
    out = folder / "a $\\frac{ $ b"
    shutil.copytree(world.runs / "unmeasured", out)
    for stage, arguments in (("evaluate", ["--run", out]), ("report", [out, "--out", folder / "report"])):
        done = run(stage, arguments, folder)
        if done.status != 0 or not done.is_tidy:
            return f"{stage}: {done.status}: {done.last_line()}"
    return None if "$\\frac{ $" in (folder / "report" / "index.html").read_text() else "the name is not in the page"


@case(KINDS, "shell metacharacters in paths that reach sbatch")
def _(world: World, folder: Path) -> str | None:
    """The scripts that `launch` would submit are run with stand-ins for srun and python that only note their words."""
    stand_ins = folder / "bin"
    stand_ins.mkdir()
    for name in ("srun", "python", "scontrol", "mpiexec"):
        program = stand_ins / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{folder}/words"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    data = folder / METACHARACTERS
    shutil.copytree(world.data, data)
    job = folder / "job.toml"
    job.write_text("[train]\nsteps = 2\nbatch_size = 2\npatch_size = 12\n")
    done = run("launch",
               ["--config", job, "--data", data, "--out", folder / f"o {METACHARACTERS}", "--cluster", "slurm",
                "--dry-run"], folder)
    if done.status not in (0, 2):
        return f"status {done.status}: {done.last_line()}"
    scripts = [f"#!/bin/bash{part}" for part in done.text.split("#!/bin/bash")[1:]]
    for number, script in enumerate(scripts):
        path = folder / f"script{number}.sh"
        path.write_text(script)
        subprocess.run(["bash", str(path)], cwd=folder, env={"PATH": f"{stand_ins}:/usr/bin:/bin"}, capture_output=True,
                       timeout=60, check=False)
    return REFUSED if done.status == 2 else None if scripts else "no scripts"


@case(KINDS, "a site file with metacharacters in its names")
def _(world: World, folder: Path) -> str | None:
    (folder / "site.toml").write_text(
        '[gpu]\npartition = "x; touch pwned; $(touch pwned)"\naccount = "`touch pwned`"\n'
    )
    from hpc_vsr import site

    done = call(lambda: site.main(["--site", str(folder / "site.toml"), "--project", "$(touch pwned)"]), folder)
    if done.status == 2:
        return REFUSED
    subprocess.run(["bash", "-c", f"eval {json.dumps(done.text)}; echo $HPC_VSR_GPU"], cwd=folder, capture_output=True,
                   check=False)
    subprocess.run(["bash", "-c", done.text], cwd=folder, capture_output=True, check=False)
    return None


ABSURD = {
    "a million layers": "[model]\nn_3d = 1000000\n",
    "10^18 shards": None,
    "10^9 loaders": "[train]\nnum_workers = 1000000000\n",
    "a batch of 10^12": "[train]\nbatch_size = 1000000000000\n",
    "patches of 10^9": "[train]\npatch_size = 1000000000\n",
    "a sweep of 10^10 points": "[sweep]\n"
    + "\n".join(
        f'"train.{name}" = [{", ".join(map(str, range(1, 101)))}]'
        for name in ("steps", "seed", "log_every", "checkpoint_every", "keep_checkpoints")
    ),
    "10^9 nodes": "[resources]\nnodes = 1000000000\n",
    "recursion 10^9": "[model]\nnum_recursive_blocks = 1000000000\n",
    "10^15 hours": "[resources]\nhours = 1e15\n",
    "a depth of brackets": "x = " + "[" * 50_000 + "]" * 50_000 + "\n",
    "nested tables": "\n".join(f"[{'.'.join('a' * (depth + 1))}]" for depth in range(2000)),
}
for _name, _text in ABSURD.items():

    @case(KINDS, f"TOML: {_name}")
    def _(world: World, folder: Path, name: str = _name, text: str | None = _text) -> str | None:
        (folder / "job.toml").write_text(text or "")
        if text is None:
            done = run("preprocess", ["--video", world.clip, "--shards", 10**18, "--out", folder / "d"], folder,
                       limit=60)
        else:
            done = run("launch",
                       ["--config", folder / "job.toml", "--data", world.data, "--cluster", "slurm", "--dry-run"],
                       folder, limit=240)
        if done.status == 0 and done.is_tidy:
            return None
        return refused(done)


@case(KINDS, "an archive of pictures that unpacks to 30 GB")
def _(world: World, folder: Path) -> str | None:
    out = folder / "tiny"
    shutil.copytree(world.runs / "tiny", out)

    def write() -> None:
        path = out / "pictures-test.npz"
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    if name == "hr":
                        np.lib.format.write_array_header_1_0(
                            stream, {"descr": "<f4", "fortran_order": False, "shape": (30000, 1, 500, 500)}
                        )
                        for _ in range(300):
                            stream.write(bytes(1 << 20))
                    else:
                        np.lib.format.write_array(stream, array)

    call(write, folder)
    done = run("report", [out, "--out", folder / "report"], folder)
    return None if done.status == 0 and done.is_tidy else f"status {done.status}: {done.last_line()}"


@case(KINDS, "a path with spaces, quotes and Unicode through every stage")
def _(world: World, folder: Path) -> str | None:
    place = folder / "日本語 übung \"q\" 'r' %s {x} \\n"
    for stage in world.stages.values():
        done = stage.run(place / stage.title)
        if done.status == 2 and "cannot write to a path with a backslash" in done.text:
            continue
        if done.status != 0 or (faults := stage.faults_of(place / stage.title)):
            return f"{stage.title}: {done.status}: {done.last_line()} {faults if done.status == 0 else ''}"
    return None
