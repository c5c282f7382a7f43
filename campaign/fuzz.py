"""Coverage-guided fuzzing of a parser with Atheris: `python campaign/fuzz.py settings -max_total_time=600 corpus/`.

Wants `pip install atheris`. What stands behind the name of a parser goes to libFuzzer; a folder keeps what it found. A
parser may answer or raise `InputError`; anything else ends the fuzzing and leaves its input as crash-*.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
with atheris.instrument_imports(include=["hpc_vsr", "tomllib", "jsonargparse"]):
    from hpc_vsr.cluster import site
    from hpc_vsr.data import manifest, recipe, shards
    from hpc_vsr.experiment import jobfile, sweep
    from hpc_vsr.runs import history
    from hpc_vsr.runs import state as checkpoint
    from hpc_vsr.runs.checkpoints import read_facts
    from hpc_vsr.system import config, files
    from hpc_vsr.system.errors import InputError
    from hpc_vsr.system.parser import Parser

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))


def write(name: str, content: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(content)
    return path


def settings(content: bytes) -> None:
    """A job file, a recipe and a sweep."""
    path = write("any.toml", content)
    for kind, option in ((jobfile.JobFile, "--config"), (recipe.Recipe, "--recipe")):
        parser = Parser("fuzz", "")
        parser.add_settings(kind, option, also=("sweep",))
        with contextlib.suppress(InputError):
            parser.parse([option, str(path)])
    sweep.read_sweep(config.read_toml(path), str(path))


def sites(content: bytes) -> None:
    site.read_site(write("site.toml", content), "abc")


def manifests(content: bytes) -> None:
    """As a stranger would write one: whatever it says, its checksum is right."""
    path = write("dataset.json", content)
    with contextlib.suppress(InputError):
        value = files.read_json(path, "")
        if isinstance(value, dict):
            value.pop(files.SEAL, None)
            with contextlib.suppress(ValueError):  # NaN
                files.write_sealed(path, value)
    manifest.read_manifest(FOLDER)


def histories(content: bytes) -> None:
    history.read_history(write("metrics.jsonl", content))


def checkpoints(content: bytes) -> None:
    path = write("step-00000001.pt", content)
    with contextlib.suppress(InputError):
        read_facts(path)
    checkpoint.load_checkpoint(path)


def frames(content: bytes) -> None:
    """The layout of a shard."""
    shards.locate_planes(write("shard.h5", content))


PARSERS = {function.__name__: function for function in (settings, sites, manifests, histories, checkpoints, frames)}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in PARSERS:
        raise SystemExit(f"{__doc__}\nparsers: {', '.join(PARSERS)}")
    parse = PARSERS[sys.argv.pop(1)]

    def one(content: bytes) -> None:
        with contextlib.suppress(InputError):
            parse(content)
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
