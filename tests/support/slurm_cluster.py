"""A real SLURM cluster on one machine: munge, slurmctld, virtual nodes with pretended GPUs, accounting if wanted.

Needs root and Debian's packages (PACKAGES), no systemd; every daemon listens only on loopback. A node is a set of
namespaces: its own host name, processes and shared memory, so that it can lose its power while the machine goes on.

    apt-get install --no-install-recommends $(python3 tests/support/slurm_cluster.py packages)
    python tests/support/slurm_cluster.py up [--accounting]     prints the line that makes sbatch and squeue find it
    python tests/support/slurm_cluster.py up --strict           limits are enforced, and SLURM knows of no GPUs
    python tests/support/slurm_cluster.py crash node2           loses all its processes; booked2 with accounting
    python tests/support/slurm_cluster.py boot node2            comes back
    python tests/support/slurm_cluster.py down
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from processes import LISTEN, answers, find_process, free_ports, kill
from slurm_configuration import (
    ACCOUNTING,
    CGROUP_CONF,
    DATABASE_USER,
    NO_ACCOUNTING,
    PARTITIONS,
    SLURM_CONF,
    SLURMDBD_CONF,
    STRICT_PARTITIONS,
)
from waiting import wait_until

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "libpmix2", "slurmdbd", "slurm-wlm-mysql-plugin",
            "mariadb-server-core", "mariadb-client-core", "libopenmpi3", "shellcheck")
PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mungekey", "sbatch", "mariadbd", "mariadb-install-db",
            "unshare", "nsenter", "shellcheck")
FOLDERS = {kind: Path(tempfile.gettempdir()) / f"hpc-vsr-slurm{f'-{kind}' * (kind != 'no-accounting')}"
           for kind in ("no-accounting", "accounting", "strict")}
NODES = {"no-accounting": "node", "accounting": "booked", "strict": "strict"}  # names of nodes begin so
FIRST_JOBS = {"no-accounting": 1, "accounting": 5001, "strict": 10001}
NUM_NODES, CPUS, MEMORY_MB, GPUS = 2, 4, 8000, 2

# The first process of a node. It reaps what is left of steps; killing it kills all that runs on the node.
NODE_INIT = """\
hostname "$1"; mount --bind "$2" /etc/hosts; mount -t tmpfs -o mode=1777 shm /dev/shm
touch "$3"; trap 'exit 0' TERM; sleep infinity & wait $!
"""


def missing() -> str | None:
    """Why this machine cannot have the cluster; None if it can."""
    if os.geteuid() != 0:
        return "not root, which a test cluster of SLURM needs"
    lacking = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if lacking:
        return f"no {', '.join(lacking)}; apt-get install --no-install-recommends {' '.join(PACKAGES)}"
    return None


class Cluster:
    """Starts, harms and stops the cluster; every command of SLURM finds it through `environment`.

    The three kinds may be up together: their nodes and jobs, whose names are also those of control groups and ports of
    this machine, differ. The strict one has accounting that enforces limits, and SLURM knows nothing of its GPUs.
    """

    def __init__(self, kind: str = "no-accounting"):
        self.folder = folder = FOLDERS[kind]
        self.kind, self.accounting, self.strict = kind, kind != "no-accounting", kind == "strict"
        self.run_folder, self.log, self.etc = folder / "run", folder / "log", folder / "etc"
        self.conf = self.etc / "slurm.conf"
        self.nodes = [f"{NODES[kind]}{number + 1}" for number in range(NUM_NODES)]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.conf), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}

    def ask(self, *command: str, check: bool = True) -> str:
        """The output of a command of SLURM."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def start(self) -> None:
        """Bring it up, with idle nodes; what an earlier, killed session left is stopped first."""
        self.stop()
        for name in ("run", "log", "etc", "state", "dev", *(f"{kind}.{node}" for node in self.nodes
                                                            for kind in ("spool", "tmp"))):
            (self.folder / name).mkdir(parents=True)
        _link_pmix()
        self._write_configuration()
        self._daemon("munged", f"--key-file={self.etc}/munge.key", f"--socket={self.run_folder}/munge.socket",
                     f"--pid-file={self.run_folder}/munged.pid", f"--log-file={self.log}/munged.log",
                     f"--seed-file={self.run_folder}/munged.seed")
        if self.accounting:
            self._start_database()
            self._as_controller("slurmdbd")
            wait_until(lambda: answers(self.ports["database_daemon_port"]), "slurmdbd")
            if self.strict:  # a controller that enforces limits does not register itself
                self.ask("sacctmgr", "--immediate", "add", "cluster", "test")
        self._as_controller("slurmctld", "-i")
        for node in self.nodes:
            self.boot(node)
        self.wait_for_nodes()

    def wait_for_nodes(self) -> None:
        wait_until(lambda: self._states() == {node: "idle" for node in self.nodes}, "the nodes", self._tell)

    def stop(self) -> None:
        """End every process of the cluster and delete its folder."""
        if not self.folder.exists():
            return
        if self.conf.exists() and find_process(self.run_folder / "slurmctld.pid", "slurmctld"):
            self.ask("scancel", "--user=root", check=False)
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: not self.ask("squeue", "--noheader", check=False), "the queue to empty", seconds=15)
        for node in self.nodes:
            self.crash(node)
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            process = find_process(self.run_folder / f"{name}.pid", name)
            if process:
                kill(process, signal.SIGTERM)
        if os.path.ismount(self.folder / "database"):
            subprocess.run(["umount", self.folder / "database"], check=True)
        for controller in (path for node in self.nodes for path in Path("/sys/fs/cgroup").glob(f"*/slurm_{node}")):
            for folder in sorted(controller.rglob("*/"), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            with contextlib.suppress(OSError):
                controller.rmdir()
        shutil.rmtree(self.folder)

    def boot(self, node: str) -> None:
        """Start a node and its slurmd."""
        ready = self.run_folder / f"{node}.up"
        ready.unlink(missing_ok=True)
        with (self.log / f"{node}.log").open("ab") as log:
            parent = subprocess.Popen(
                ["unshare", "--uts", "--ipc", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c", NODE_INIT,
                 "node", node, self.etc / "hosts", ready],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        wait_until(ready.exists, node, self._tell)
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        (self.run_folder / f"{node}.pid").write_text(children[0])
        self.start_slurmd(node)

    def crash(self, node: str) -> None:
        """The node loses its power: all its processes are gone at once."""
        process = find_process(self.run_folder / f"{node}.pid", "bash")
        if process:
            kill(process, signal.SIGKILL)
        (self.run_folder / f"{node}.pid").unlink(missing_ok=True)

    def start_slurmd(self, node: str) -> None:
        self._on(node, "slurmd", "-N", node)

    def kill_slurmd(self, node: str) -> None:
        """SLURM loses sight of the node, whose jobs go on."""
        self._on(node, "pkill", "-KILL", "-x", "slurmd")

    def _on(self, node: str, *command: str) -> None:
        process = find_process(self.run_folder / f"{node}.pid", "bash")
        assert process, f"{node} is down"
        self._daemon("nsenter", "-t", str(process), "-u", "-i", "-m", "-p", "--", *command)

    def _daemon(self, *command: str) -> None:
        # not through a pipe: a daemon keeps it open
        with (self.log / "start.log").open("ab") as log:
            done = subprocess.run(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                  timeout=300, check=False)
        assert done.returncode == 0, f"{command}: status {done.returncode}; {self._tell()}"

    def _as_controller(self, *command: str) -> None:
        names = 'hostname controller; mount --bind "$0" /etc/hosts; exec "$@"'
        self._daemon("unshare", "--uts", "--mount", "sh", "-c", names, str(self.etc / "hosts"), *command)

    def _states(self) -> dict[str, str]:
        text = self.ask("sinfo", "--noheader", "-N", "-p", "debug", "-o", "%N %t", check=False)
        return dict(line.split() for line in text.splitlines())

    def _tell(self) -> str:
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')[-1500:]}" for path in self.log.glob("*.log"))

    def _write_configuration(self) -> None:
        ports = free_ports(3 + NUM_NODES)
        self.ports = dict(zip(("controller_port", "database_daemon_port", "database_port"), ports, strict=False))
        with_cgroups = os.access("/sys/fs/cgroup/memory/cgroup.procs", os.W_OK) and \
            os.access("/sys/fs/cgroup/freezer/cgroup.procs", os.W_OK)
        values = {
            "folder": self.folder, "run": self.run_folder, "log": self.log, "listen": LISTEN, **self.ports,
            "nodes": ",".join(self.nodes), "first_job": FIRST_JOBS[self.kind],
            "node_ports": ",".join(map(str, ports[3:])), "cpus": CPUS, "memory": MEMORY_MB,
            "gres_types": "" if self.strict else "GresTypes=gpu", "gres": "" if self.strict else f"Gres=gpu:{GPUS} ",
            "partitions": STRICT_PARTITIONS if self.strict else PARTITIONS,
            "tracked": "AccountingStorageEnforce=limits" if self.strict else "AccountingStorageTRES=gres/gpu",
            "proctrack": "cgroup" if with_cgroups else "linuxproc",
            "task": "cgroup" if with_cgroups else "none",
            "gather": "" if with_cgroups else "JobAcctGatherParams=OverMemoryKill",
        }
        accounting = ACCOUNTING.format(**values) if self.accounting else NO_ACCOUNTING
        self.conf.write_text(SLURM_CONF.format(accounting=accounting, **values))
        if with_cgroups:
            (self.etc / "cgroup.conf").write_text(CGROUP_CONF)
        # a GPU must be a character device: these have the numbers of /dev/null
        for number in range(0 if self.strict else GPUS):
            os.mknod(self.folder / "dev" / f"gpu{number}", 0o666 | 0o020000, os.makedev(1, 3))
        if not self.strict:
            (self.etc / "gres.conf").write_text(f"NodeName={','.join(self.nodes)} Name=gpu "
                                                f"File={self.folder}/dev/gpu[0-{GPUS - 1}]\n")
        # only inside the nodes: every name is one address, the ports differ
        names = "".join(f"{LISTEN} {name}\n" for name in (*self.nodes, "controller", "localhost"))
        (self.etc / "hosts").write_text(names)
        subprocess.run(["mungekey", "--create", f"--keyfile={self.etc}/munge.key"], env=self.environment, check=True)
        if self.accounting:
            conf = self.etc / "slurmdbd.conf"
            conf.write_text(SLURMDBD_CONF.format(**values))
            conf.chmod(0o600)
            (self.etc / "database.sql").write_text(DATABASE_USER)

    def _start_database(self) -> None:
        data = self.folder / "database"
        data.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "hpc-vsr-database", data], check=True)
        with (self.log / "database.log").open("ab") as log:
            subprocess.run(["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}",
                            "--auth-root-authentication-method=normal", "--skip-test-db"], stdout=log, stderr=log,
                           env=self.environment, check=True)
            subprocess.Popen(
                ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--bind-address={LISTEN}",
                 f"--port={self.ports['database_port']}", f"--socket={self.run_folder}/database.socket",
                 f"--pid-file={self.run_folder}/mariadbd.pid", f"--init-file={self.etc}/database.sql",
                 "--skip-name-resolve", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0",
                 "--innodb-lock-wait-timeout=900", "--skip-log-bin"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, start_new_session=True)
        wait_until(lambda: answers(self.ports["database_port"]), "mariadbd", self._tell)


def _link_pmix() -> None:
    """SLURM's plugin opens PMIx by a name that only the development package has."""
    for library in Path("/usr/lib").glob("*/pmix2/lib/libpmix.so.2"):
        with contextlib.suppress(FileExistsError):
            library.with_name("libpmix.so").symlink_to(library.name)


@contextlib.contextmanager
def running_cluster(kind: str):
    """A cluster for the time of some tests; two sessions on one machine wait for each other."""
    with FOLDERS[kind].with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cluster = Cluster(kind)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["packages", "up", "down", "boot", "crash", "kill_slurmd", "start_slurmd"])
    parser.add_argument("node", nargs="?")
    parser.add_argument("--accounting", dest="kind", action="store_const", const="accounting", default="no-accounting")
    parser.add_argument("--strict", dest="kind", action="store_const", const="strict")
    arguments = parser.parse_args(argv)
    if arguments.action == "packages":
        print(*PACKAGES)
    elif arguments.action == "up":
        with _alone(arguments.kind):
            cluster = Cluster(arguments.kind)
            cluster.start()
            print(f"export SLURM_CONF={cluster.conf}")
    elif arguments.action == "down":
        for kind in FOLDERS:
            with _alone(kind):
                Cluster(kind).stop()
    else:
        cluster = next(cluster for cluster in map(Cluster, FOLDERS) if arguments.node in cluster.nodes)
        getattr(cluster, arguments.action)(arguments.node)


@contextlib.contextmanager
def _alone(kind: str) -> Iterator[None]:
    with FOLDERS[kind].with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("a test session is using its cluster on this machine; wait for its end")
        yield


if __name__ == "__main__":
    main()
