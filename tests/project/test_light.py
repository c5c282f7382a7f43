"""`--help`, a mistyped option and `status` answer at once: they do without torch, which takes seconds to load."""

from __future__ import annotations

import subprocess
import sys

from repository import ROOT

HEAVY = ("torch", "numpy", "cv2", "h5py", "skimage", "scipy", "matplotlib", "submitit", "av", "xarray")
HELP = f"""
import importlib, sys
from hpc_vsr.__main__ import STAGES
for module, _ in STAGES.values():
    importlib.import_module(module).build_parser().format_help()
print([name for name in {HEAVY!r} if name in sys.modules])
"""
STATUS = f"""
import sys
from hpc_vsr.status import main
main(sys.argv[1:])
print([name for name in {HEAVY!r} if name in sys.modules])
"""


def run(code: str, *arguments, cwd=None) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd=cwd,
                          check=False, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_help_loads_nothing_heavy():
    assert run(HELP)[-1] == "[]"


def test_no_help_has_names_of_python_types():
    code = ("import importlib\nfrom hpc_vsr.__main__ import STAGES\nfor module, _ in STAGES.values():\n"
            "    print(importlib.import_module(module).build_parser().format_help())")
    text = "\n".join(run(code))
    assert "usage: python -m hpc_vsr.train" in text
    assert not [word for word in ("<class", "Literal[", "type:", "| null", "default: null") if word in text]


def test_status_of_a_finished_run_loads_nothing_heavy(dataset, trained, tmp_path):
    (tmp_path / "tiny.toml").write_text(f'data = "{dataset}"\nout = "{trained}"\n[model]\nn_2d = 1\nn_3d = 1\n'
                                        'skip = "wiener"\n[train]\nsteps = 6\nbatch_size = 4\npatch_size = 12\n'
                                        'validate_every = 3\nwarmup_steps = 2\nprecision = "fp32"\n')
    lines = run(STATUS, "--config", "tiny.toml", cwd=tmp_path)
    assert lines[-1] == "[]" and any("finished" in line for line in lines)
