"""What a job in SLURM's queue waits for, in words, and the reasons for which it never starts."""

from __future__ import annotations

import re

# SLURM keeps these jobs in its queue, and only a change of the job or of the cluster starts them.
NEVER = {
    "PartitionTimeLimit": "asks for more time than its partition gives",
    "PartitionNodeLimit": "asks for more nodes than its partition gives, or fewer than it wants",
    "DependencyNeverSatisfied": "the job that it waits for has failed",
    "BadConstraints": "no node has what it asks for",
    "InvalidAccount": "its account is not valid",
    "InvalidQOS": "its QOS is not valid",
    "PartitionConfig": "its partition does not take such jobs",
    "AccountNotAllowed": "its partition does not take its account",
    "QOSNotAllowed": "its partition does not take its QOS",
    "JobHeldAdmin": "an administrator holds it",
    "JobHoldMaxRequeue": "it was requeued too often",
}
NEVER_PATTERN = re.compile(r"\w*(PerJob|PerNode|NotSatisfied)\w*|QOSMin\w+|MaxMemPerLimit|\w*MaxWall\w*"
                           r"|launch_failed_requeued_held|.*launch failed requeued held")
WAITING = {
    "Resources": "for free nodes",
    "Priority": "for jobs with a higher priority",
    "Dependency": "for other jobs",
    "JobArrayTaskLimit": "for other runs of its array (max_parallel)",
    "BeginTime": "for its begin time, which SLURM sets after a requeue",
    "JobHeldUser": "until you release it: scontrol release {job}",
    "PartitionDown": "until its partition is up",
    "PartitionInactive": "until its partition is up",
    "ReqNodeNotAvail": "for nodes that are reserved or down",
    "Reservation": "for its reservation",
    "Licenses": "for licences",
    "None": "for SLURM to look at it",
}


def plain_reason(reason: str) -> str:
    """Return SLURM's word for a reason: 'Resources' for '(Resources)'."""
    inside = reason.strip().removeprefix("(").removesuffix(")")
    return inside.partition(",")[0]  # ReqNodeNotAvail, UnavailableNodes:node1


def why_never(reason: str) -> str | None:
    """Return why a waiting job never starts; None if it may start."""
    word = plain_reason(reason)
    if word in NEVER:
        return f"{NEVER[word]} ({word})"
    return f"it is beyond a limit of the cluster ({word})" if NEVER_PATTERN.fullmatch(word) else None


def waits_for(reason: str, job: str) -> str:
    """Return what a waiting job waits for."""
    word = plain_reason(reason)
    if word in WAITING:
        return f"{WAITING[word].format(job=job)} ({word})"
    if re.match(r"(QOS|Assoc)\w+", word):
        return f"for a limit of your account ({word})"
    return f"for: {word}" if word else "for SLURM"
