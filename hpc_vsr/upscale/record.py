"""The record that the first task of an upscaling writes, for tasks that join it or continue it later."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hpc_vsr.models.precision import warn_of_other_device
from hpc_vsr.models.settings import Choice
from hpc_vsr.system.config import as_dict, from_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import read_json, write_json_once
from hpc_vsr.upscale.upscaler import Upscaler


def join_upscaling(record: Path, fingerprint: str, facts: dict[str, Any], upscaler: Upscaler, differs: str) -> Choice:
    """Write the record if there is none, else check that it is of this upscaling; return its choice of precision.

    Parameters
    ----------
    record : Path
    fingerprint : str
        Fingerprint of the input, the network and the settings.
    facts : dict
        Further content of the record.
    upscaler : Upscaler
    differs : str
        The message if the record is of another upscaling.

    Returns
    -------
    Choice
        The precision for this process, chosen by the first one, so that all frames have the same precision.

    Raises
    ------
    InputError
        If the record is damaged or of another upscaling, or this device cannot compute in its precision.
    """
    if not record.exists():
        write_json_once(record, {"fingerprint": fingerprint, **facts, "chosen": as_dict(upscaler.choice)})
    mend = f"delete {record.parent} or choose another --output"
    content = read_json(record, mend)
    if not isinstance(content, dict) or content.get("fingerprint") != fingerprint:
        raise InputError(differs)
    if not isinstance(content.get("chosen"), dict):
        raise InputError(f"{record}: does not say in which precision it was begun; {mend}")
    begun = from_dict(Choice, content["chosen"], str(record))
    warning = warn_of_other_device(begun, upscaler.choice, upscaler.device, str(record.parent))
    if warning:
        print(warning, file=sys.stderr)
    return begun
