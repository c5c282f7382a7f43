"""Puts whole clips of a collection into splits, so that no clip is in two of them."""

from __future__ import annotations

from collections.abc import Mapping

from hpc_vsr.data.splits import SPLITS, SplitFractions
from hpc_vsr.system.errors import InputError


def split_clips(samples: Mapping[str, int], fractions: SplitFractions, known: Mapping[str, str]) -> dict[str, str]:
    """Return {clip: split}, in which each split has a clip and nearly its share of the samples.

    Parameters
    ----------
    samples : mapping
        {clip: number of its samples}; the clips are named by their checksums.
    fractions : SplitFractions
    known : mapping
        {clip: split} of the clips that are in a split already; they stay there.

    Returns
    -------
    dict
        One clip after the other, in the order of the checksums and so in no order of time or name, goes to the split
        that lacks most of its share.

    Raises
    ------
    InputError
        If there are too few clips to give each split one.
    """
    total = sum(samples.values())
    lacking = {split: getattr(fractions, split) * total for split in SPLITS}
    chosen = {clip: known[clip] for clip in samples if clip in known}
    for clip, split in chosen.items():
        lacking[split] -= samples[clip]
    empty = set(SPLITS) - set(chosen.values())
    new = sorted(samples.keys() - chosen.keys())
    if len(new) < len(empty):
        found = f"{len(samples)} clip{'s' * (len(samples) != 1)}"
        raise InputError(f"--split.by clip: {found} cannot fill {', '.join(SPLITS)}, which need one each; give "
                         "more, or split by time")
    for index, clip in enumerate(new):
        # the last clips are kept for the splits that have none
        takers = empty if len(new) - index == len(empty) else SPLITS
        split = max((one for one in SPLITS if one in takers), key=lacking.__getitem__)
        chosen[clip] = split
        lacking[split] -= samples[clip]
        empty.discard(split)
    return chosen
