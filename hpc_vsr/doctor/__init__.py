"""What is checked of a machine before it is trusted with a training, and what to do where it falls short."""

from hpc_vsr.doctor.findings import Finding, format_findings
from hpc_vsr.doctor.runs import run_checks

__all__ = ["Finding", "format_findings", "run_checks"]
