"""What a job asks of SLURM on a site, and what its partition allows: as text, without a SLURM."""

from __future__ import annotations

import math

import pytest

from hpc_vsr.cluster.limits import check_slices, find_excess
from hpc_vsr.cluster.parameters import format_job, stage_options
from hpc_vsr.cluster.site import read_site
from hpc_vsr.experiment.resources import Resources
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.partitions import parse_minutes, parse_partitions
from hpc_vsr.system.sbatch import parse_options

# as SLURM 22.05 answers; the nodes of gpu are of two kinds
PARTITIONS = """\
PartitionName=cpu AllowGroups=ALL Default=YES MaxNodes=UNLIMITED MaxTime=2-00:00:00 MaxCPUsPerNode=UNLIMITED \
MaxMemPerNode=UNLIMITED State=UP TotalNodes=3
PartitionName=gpu AllowGroups=ALL Default=NO MaxNodes=2 MaxTime=04:00:00 MaxCPUsPerNode=32 \
MaxMemPerNode=UNLIMITED State=UP
PartitionName=old AllowGroups=ALL Default=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED MaxCPUsPerNode=UNLIMITED \
MaxMemPerNode=4096 State=UP
"""
NODES = """\
cpu|3|16|64000|(null)|(null)
gpu|4|64|256000|gpu:a100:4(S:0-1)|a100,scratch
gpu|1|64|2000000|gpu:h200:8(S:0-1)|h200
old|2|8|1|gpu:2|(null)
"""
CLUSTER = parse_partitions(PARTITIONS, NODES)


def site_of(tmp_path, text: str):
    (tmp_path / "site.toml").write_text(text)
    return read_site(tmp_path / "site.toml")


@pytest.mark.parametrize("text, minutes", [
    ("30:00", 30), ("04:00:00", 240), ("2-00:00:00", 2880), ("1-12", 2160), ("00:00:30", 0.5), ("UNLIMITED", math.inf),
])
def test_a_time_of_slurm_in_minutes(text, minutes):
    assert parse_minutes(text) == minutes


def test_the_answers_of_slurm_are_understood():
    gpu = CLUSTER["gpu"]
    assert (gpu.minutes, gpu.max_nodes, gpu.max_cpus, gpu.is_default) == (240, 2, 32, False)
    assert [(kind.count, kind.cpus, kind.memory_mb, kind.gpus) for kind in gpu.kinds] == [
        (4, 64, 256000, {"a100": 4}), (1, 64, 2000000, {"h200": 8})]
    assert CLUSTER["cpu"].is_default and CLUSTER["old"].kinds[0].memory_mb == math.inf  # 1 MB: nobody configured it


@pytest.mark.parametrize("stage, asked, site, told", [
    ("preprocessing", {"preprocess_ranks": 17}, "",
     ["preprocess_ranks (17): 17 cores on a node, and no node of partition cpu has more than 16"]),
    ("preprocessing", {"preprocess_ranks": 16}, "", []),
    ("preprocessing", {"preprocess_ranks": 4, "preprocess_cpus": 5}, "",
     ["preprocess_ranks (4) x preprocess_cpus (5): 20"]),
    ("preprocessing", {"preprocess_nodes": 4}, "", ["preprocess_nodes (4): partition cpu has 3 nodes for"]),
    ("preprocessing", {"preprocess_memory_gb": 100}, "",
     ["preprocess_memory_gb (100): 100 GB on a node, and no node of partition cpu has more than 62.5"]),
    ("preprocessing", {"preprocess_hours": 49}, "", ["preprocess_hours (49): partition cpu allows 48 h"]),
    ("report", {"report_hours": 48, "report_cpus": 2, "cpus_per_rank": 99}, "", []),
    ("report", {"cpus_per_rank": 99}, "", ["cpus_per_rank (99): 99 cores"]),
    ("training", {"gpus_per_node": 4, "hours": 4}, "[gpu]\npartition = 'gpu'", []),
    ("training", {"gpus_per_node": 4, "hours": 5}, "[gpu]\npartition = 'gpu'",
     ["hours (5): partition gpu allows 4 h"]),
    ("training", {"gpus_per_node": 4, "nodes": 3}, "[gpu]\npartition = 'gpu'",
     ["nodes (3): partition gpu allows 2 a job"]),
    ("training", {"gpus_per_node": 4, "ranks_per_node": 4, "cpus_per_rank": 9}, "[gpu]\npartition = 'gpu'",
     ["ranks_per_node (4) x cpus_per_rank (9): 36 cores on a node, and no node of partition gpu has more than 32"]),
    ("training", {"gpus_per_node": 9}, "[gpu]\npartition = 'gpu'", ["gpus_per_node (9): 9 GPUs on a node"]),
    ("training", {"gpus_per_node": 5}, "gpu_type = 'a100'\n[gpu]\npartition = 'gpu'",
     ["5 GPUs of type a100 on a node"]),
    ("training", {"gpus_per_node": 5}, "gpu_option = 'gres'\ngpu_type = 'a100'\n[gpu]\npartition = 'gpu'",
     ["5 GPUs of type a100 on a node"]),
    # each can be had, and not both on one node
    ("training", {"gpus_per_node": 4, "memory_gb": 1000, "nodes": 2}, "[gpu]\npartition = 'gpu'",
     ["nodes (2): partition gpu has 1 node for cpus_per_rank (1), memory_gb (1000), gpus_per_node (4) together"]),
    ("training", {"gpus_per_node": 4, "memory_gb": 1000}, "[gpu]\npartition = 'gpu'", []),
    ("training", {"gpus_per_node": 8}, "[gpu]\npartition = 'gpu'\nconstraint = 'a100'",
     ["no node of partition gpu has more than 4"]),
    ("training", {"gpus_per_node": 4}, "[gpu]\npartition = 'gpu'\nconstraint = 'v100'", ["has 'v100'"]),
    ("training", {"gpus_per_node": 8}, "[gpu]\npartition = 'gpu'\nconstraint = 'a100|h200'", []),  # not understood
    ("training", {"gpus_per_node": 1}, "[gpu]\npartition = 'cpu'", ['write gpu_option = "none" into the site file']),
    ("training", {"gpus_per_node": 1}, "gpu_type = 'a100'\n[gpu]\npartition = 'old'",
     ["no node of partition old has GPUs of type a100; its GPUs have no type; leave gpu_type out of the site file"]),
    ("training", {"gpus_per_node": 1}, "gpu_type = 'v100'\n[gpu]\npartition = 'gpu'",
     ["no node of partition gpu has GPUs of type v100; it has a100, h200; name that as gpu_type in the site file"]),
    ("training", {"gpus_per_node": 1}, "gpu_option = 'none'\n[gpu]\npartition = 'cpu'", []),
    ("training", {"gpus_per_node": 2, "memory_gb": 5}, "[gpu]\npartition = 'old'", ["has more than 4"]),
    ("training", {"gpus_per_node": 2, "memory_gb": 5}, "memory_option = 'none'\n[gpu]\npartition = 'old'", []),
    ("training", {"gpus_per_node": 2, "hours": 9}, "[gpu]\npartition = 'gpu,old'", []),  # one of them is enough
    ("training", {"gpus_per_node": 2}, "[gpu]\npartition = 'gpus'",
     ["'gpus' is not on this cluster, which has cpu, gpu"]),
])
def test_what_a_partition_does_not_allow_is_named_with_its_key(tmp_path, stage, asked, site, told):
    resources, place = Resources(**asked), site_of(tmp_path, site)
    found = find_excess(stage, stage_options(stage, resources, place), resources, CLUSTER)
    assert len(found) == len(told) and all(words in line for words, line in zip(told, found, strict=True)), found


@pytest.mark.parametrize("site, resources, options", [
    ("", {}, {"gpus-per-node": 4, "mem": "8192M"}),
    ("gpu_option = 'gres'", {}, {"gres": "gpu:4", "mem": "8192M"}),
    ("gpu_option = 'gres'\ngpu_type = 'a100'", {}, {"gres": "gpu:a100:4", "mem": "8192M"}),
    ("gpu_option = 'none'", {}, {"mem": "8192M"}),
    ("memory_option = 'none'", {}, {"gpus-per-node": 4}),
    ("memory_option = 'mem-per-cpu'", {}, {"gpus-per-node": 4, "mem-per-cpu": "1024M"}),  # 8 GB on 4 x 2 cores
    ("options = ['--mail-user=a@b.c']\n[gpu]\noptions = ['--exclusive']", {"options": ["--reservation=course"]},
     {"gpus-per-node": 4, "mem": "8192M", "mail-user": "a@b.c", "exclusive": True, "reservation": "course"}),
    ("[gpu]\nqos = 'normal'", {"options": ["--qos=high"]}, {"gpus-per-node": 4, "mem": "8192M", "qos": "high"}),
    ("gpu_option = 'gres'\n[gpu]\noptions = ['--gres=tmpfs:9G']", {}, {"gres": "gpu:4,tmpfs:9G", "mem": "8192M"}),
])
def test_a_site_says_how_gpus_and_memory_are_asked_for(tmp_path, site, resources, options):
    asked = Resources(gpus_per_node=4, ranks_per_node=4, cpus_per_rank=2, memory_gb=8, hours=2, **resources)
    shape = {"nodes": 1, "ntasks-per-node": 4, "cpus-per-task": 2, "time": 120, "signal": "USR2@120"}
    assert stage_options("training", asked, site_of(tmp_path, site)) == {**shape, **options}


def test_the_words_for_sbatch_begin_with_what_the_shell_has(tmp_path, monkeypatch):
    monkeypatch.setenv("HPC_VSR_CPU", "--partition=mine")
    text = format_job("preprocessing", Resources(preprocess_nodes=2, preprocess_ranks=3, preprocess_memory_gb=0.5),
                      site_of(tmp_path, ""))
    assert text == ("--partition=mine --nodes=2 --ntasks-per-node=3 --cpus-per-task=1 --time=60 --mem=512M --ntasks=6")


@pytest.mark.parametrize("option, words", [
    ("--time=3:00", "set hours instead"), ("--output=x", "is set for each job"), ("exclusive", "expected '--name'"),
    ("--comment=a b", "without spaces"), ("--mem=3G", "set memory_gb instead"), ("-p x", "expected '--name'"),
])
def test_an_option_that_would_break_a_job_is_refused(option, words):
    with pytest.raises(InputError, match=words):
        parse_options([option], "options")
    with pytest.raises(InputError, match=words):
        Resources(report_options=[option])


def test_several_ranks_on_slices_are_refused_before_submission(tmp_path):
    site = site_of(tmp_path, "gpu_type = '1g.10gb'")
    with pytest.raises(InputError, match="1g.10gb is a slice of a GPU .MIG., and NCCL cannot join the 2 ranks"):
        check_slices(Resources(ranks_per_node=2, gpus_per_node=2), site)
    check_slices(Resources(gpus_per_node=1), site)


def test_a_site_fills_in_what_a_job_file_leaves_out(tmp_path):
    site = site_of(tmp_path, "[resources]\nreport_cpus = 2\nhours = 3")
    assert site.resources == {"report_cpus": 2, "hours": 3.0}
    with pytest.raises(InputError, match="unknown setting 'report_cpu'; did you mean 'report_cpus'"):
        site_of(tmp_path, "[resources]\nreport_cpu = 2")
