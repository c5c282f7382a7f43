"""Configuration files of the SLURM that the tests start; `tests/support/slurm_cluster.py` fills them in."""

SLURM_CONF = """\
ClusterName=test
FirstJobId={first_job}
SlurmctldHost=controller({listen})
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire is also how long a requeued job waits before it may start again; 120 s if not given or below 5
AuthInfo=socket={run}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd.%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
# a folder for each node: PMIx makes files of one name on every node
TmpFS={folder}/tmp.%n
SlurmctldLogFile={log}/slurmctld.log
SlurmdLogFile={log}/slurmd.%n.log
MpiDefault=none
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/{task}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
{gather}
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=5,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
# preempted jobs get the signal of --signal at once, as many clusters have it
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=0
KillWait=10
SlurmdTimeout=60
SlurmctldTimeout=10
MinJobAge=600
ReturnToService=2
{gres_types}
NodeName={nodes} NodeAddr={listen} Port=[{node_ports}] CPUs={cpus} Sockets=1 CoresPerSocket={cpus} \
ThreadsPerCore=1 RealMemory={memory} {gres}State=UNKNOWN
{partitions}
{accounting}
"""
PARTITIONS = """\
PartitionName=debug Nodes=ALL Default=YES DefaultTime=00:10:00 MaxTime=12:00:00 PriorityTier=10 State=UP
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 MaxTime=12:00:00 State=UP
PartitionName=high Nodes=ALL PriorityTier=50 PreemptMode=OFF MaxTime=12:00:00 State=UP
"""
# of the strict cluster: jobs that ask for more than this are not refused, and wait for ever
STRICT_PARTITIONS = """\
PartitionName=debug Nodes=ALL Default=YES DefaultTime=00:10:00 MaxTime=12:00:00 State=UP
PartitionName=short Nodes=ALL DefaultTime=00:10:00 MaxTime=01:00:00 MaxNodes=1 State=UP
"""
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={listen}
AccountingStoragePort={database_daemon_port}
AccountingStoragePass={run}/munge.socket
{tracked}
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={run}/munge.socket
DbdHost=controller
DbdAddr={listen}
DbdPort={database_daemon_port}
SlurmUser=root
PidFile={run}/slurmdbd.pid
LogFile={log}/slurmdbd.log
CommunicationParameters=NoInAddrAny
StorageType=accounting_storage/mysql
StorageHost={listen}
StoragePort={database_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CommitDelay=1
"""
DATABASE_USER = """\
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
"""
CGROUP_CONF = """\
CgroupPlugin=cgroup/v1
ConstrainRAMSpace=yes
ConstrainCores=no
ConstrainDevices=no
"""
