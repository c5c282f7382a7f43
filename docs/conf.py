"""The handbook, built by Sphinx: `make docs`. Its reference is generated from the code."""

from __future__ import annotations

import importlib

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hpc_vsr import __version__
from hpc_vsr.__main__ import STAGES

project, version, release = "hpc-vsr", __version__, __version__
copyright = "the authors of hpc-vsr, MIT"  # noqa: A001 - the name that Sphinx reads
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "hpc-vsr"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give types with shapes and units
napoleon_numpy_docstring, napoleon_google_docstring = True, False
napoleon_use_ivar = True
HELP_WIDTH = "100"


class StageHelp(SphinxDirective):
    """`.. stage-help::` puts the `--help` of every stage, a section each."""

    def run(self) -> list[nodes.Node]:
        sections = []
        for stage, (module, purpose) in STAGES.items():
            section = nodes.section(ids=[stage.replace("_", "-")])
            section += nodes.title(text=stage)
            section += nodes.paragraph(text=f"{purpose[0].upper()}{purpose[1:]}.")
            text = importlib.import_module(module).build_parser().format_help()
            section += nodes.literal_block(text=text, language="text")
            sections.append(section)
        return sections


def setup(app: Sphinx) -> None:
    import os

    os.environ["COLUMNS"] = HELP_WIDTH  # of argparse
    app.add_directive("stage-help", StageHelp)
