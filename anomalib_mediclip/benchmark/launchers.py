# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Jobs on a cluster: the job that runs on this machine, sent to nodes that share its folders.

The file of a job's result says that it is finished, as on one machine. A benchmark may therefore begin with one
launcher and go on with another.
"""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from anomalib.pipelines.components.base import JobGenerator, Runner

from anomalib_mediclip.benchmark.job import FewShotJob
from anomalib_mediclip.cluster.agreement import check_all_nodes, check_this_node, facts_of_this_node
from anomalib_mediclip.cluster.options import ClusterError, ClusterOptions, require_cluster
from anomalib_mediclip.cluster.progress import Progress
from anomalib_mediclip.cluster.ray_session import available_slots, check_room, ray_session
from anomalib_mediclip.folder_lock import LOCK  # a node that does not see it does not share the folder

SECONDS_BETWEEN_LOOKS = 2.0
REQUEUES = 3  # of a job that Slurm ended at its time limit
RUNNING = ("RUNNING", "COMPLETING")
LOOKS = 5  # without a job and its result, after which it is given up: a shared folder may show files late


class ClusterRunner(Runner):
    """Runner of anomalib that sends its jobs elsewhere.

    Args:
        generator (JobGenerator): Makes the jobs.
        options (ClusterOptions): What a job gets.
    """

    def __init__(self, generator: JobGenerator, options: ClusterOptions) -> None:
        super().__init__(generator)
        self.options = options

    def run(self, args: dict, prev_stage_results: Any = None) -> list[Path]:
        """Run the jobs that are not finished, and write the table of all.

        Returns:
            list[Path]: Files of the results.
        """
        jobs: list[FewShotJob] = list(cast("Sequence[FewShotJob]", self.generator(args, prev_stage_results)))
        unfinished = [job for job in jobs if not job.is_finished]
        if unfinished:
            with Progress(FewShotJob.name, len(jobs), len(jobs) - len(unfinished), "jobs") as progress:
                self.run_jobs(unfinished, progress)
        results = FewShotJob.collect([(job.position, list(job.records.values())) for job in jobs])
        FewShotJob.save(results)
        return results

    def run_jobs(self, jobs: Sequence[FewShotJob], progress: Progress) -> None:
        """Run jobs, and record those whose node or process died too often.

        Args:
            jobs (Sequence[FewShotJob]): Jobs that are not finished.
            progress (Progress): To be told what happens.
        """
        raise NotImplementedError


def note_end(job: FewShotJob, lines: Sequence[str], progress: Progress) -> None:
    """Print what came of a job, and count it.

    Args:
        job (FewShotJob): Job that has ended.
        lines (Sequence[str]): A line for each of its results.
        progress (Progress): To be told.
    """
    for line in lines:
        progress.write(line)
    progress.finish(failed=not job.is_finished)


class RayRunner(ClusterRunner):
    """Runs every job as a task of Ray; tasks of a node that dies run again on others."""

    def run_jobs(self, jobs: Sequence[FewShotJob], progress: Progress) -> None:
        """Send all jobs at once; Ray holds back those for which no node has room."""
        options = self.options
        shared = [jobs[0].folder.absolute() / LOCK]
        facts = facts_of_this_node(shared)
        with ray_session(options.address) as ray:
            check_room(ray, options.cpus, options.gpus)
            check_all_nodes(ray, facts, shared)
            send = ray.remote(num_cpus=options.cpus, num_gpus=options.gpus, max_retries=options.retries)(run_on_node)
            pending = {send.remote(job, Path.cwd(), facts, shared): job for job in jobs}
            while pending:
                progress.show(running=min(len(pending), available_slots(ray, options.cpus, options.gpus)))
                for ended in ray.wait(list(pending), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)[0]:
                    job = pending.pop(ended)
                    try:
                        lines = ray.get(ended)
                    except ray.exceptions.RayError as error:
                        lines = job.record_failure(getattr(error, "cause", None) or error)
                    note_end(job, lines, progress)


def run_on_node(job: FewShotJob, directory: Path, facts: dict[str, str], files: Sequence[Path]) -> list[str]:
    """Run a job on a node of a cluster.

    Args:
        job (FewShotJob): Job.
        directory (Path): Working directory of the command, to which the paths of the job are relative.
        facts (dict[str, str]): What must be equal on this node, see :mod:`anomalib_mediclip.cluster.agreement`.
        files (Sequence[Path]): Files that this node must see.

    Returns:
        list[str]: A line for each of its results.

    Raises:
        ClusterError: If the node differs.
    """
    check_this_node(facts, files)
    os.chdir(directory)
    return job.record_results()


class SlurmRunner(ClusterRunner):
    """Runs every job as a job of Slurm, or of another executor of submitit.

    Args:
        generator (JobGenerator): Makes the jobs.
        options (ClusterOptions): What a job gets.
        executor (Any, optional): Executor of submitit. Defaults to ``None``: Slurm's, with its files in the folder
            ``slurm`` of the results.
    """

    def __init__(self, generator: JobGenerator, options: ClusterOptions, executor: Any = None) -> None:
        super().__init__(generator, options)
        self.executor = executor

    def run_jobs(self, jobs: Sequence[FewShotJob], progress: Progress) -> None:
        """Send all jobs as one array, and look again and again which have ended."""
        folder = jobs[0].folder.absolute()
        executor = self.executor or slurm_executor(folder / "slurm", self.options)
        function = RequeuedJob(facts_of_this_node([folder / LOCK]), folder / LOCK)
        pending = dict(zip(executor.map_array(function, jobs), jobs, strict=True))
        first = next(iter(pending)).job_id.partition("_")[0]
        progress.write(f"{executor.name()} job {first}; its logs are in {executor.folder}")
        unseen = Counter[str]()
        while pending:
            states = states_of(list(pending))
            progress.show(running=sum(state in RUNNING for state in states.values()))
            for sent in list(pending):
                unseen[sent.job_id] = 0 if sent.job_id in states else unseen[sent.job_id] + 1
                if sent.paths.result_pickle.exists():
                    job, error = pending.pop(sent), sent.exception()
                    note_end(job, sent.result() if error is None else job.record_failure(error), progress)
                elif unseen[sent.job_id] > LOOKS:
                    job = pending.pop(sent)
                    lost = RuntimeError(f"the job {sent.job_id} has ended without a result; see {sent.paths.stderr}")
                    note_end(job, job.record_failure(lost), progress)
            time.sleep(SECONDS_BETWEEN_LOOKS if pending else 0)


def states_of(jobs: Sequence[Any]) -> dict[str, str]:
    """Ask which jobs wait or run. Slurm's queue answers at once, and needs no accounting as ``sacct`` does.

    Args:
        jobs (Sequence[Any]): Jobs of submitit.

    Returns:
        dict[str, str]: State by number; jobs that have ended have none.
    """
    import submitit

    if not isinstance(jobs[0], submitit.SlurmJob):
        return {job.job_id: job.state for job in jobs if not job.done()}
    number = jobs[0].job_id.partition("_")[0]
    ask = ["squeue", "--noheader", "--array", "--format=%i %T", "--jobs", number]
    answer = subprocess.run(ask, capture_output=True, text=True, check=False)  # noqa: S603  # a number of our own
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return {job.job_id: "UNKNOWN" for job in jobs}  # Slurm does not answer; its jobs go on
    return dict(line.split(maxsplit=1) for line in answer.stdout.splitlines())


class RequeuedJob:
    """Runs a job; when Slurm ends it at the time limit, or for a more urgent job, it is queued again.

    Args:
        facts (dict[str, str]): What must be equal on the node, see :mod:`anomalib_mediclip.cluster.agreement`.
        lock (Path): File that the node must see.
    """

    def __init__(self, facts: dict[str, str], lock: Path) -> None:
        self.facts = facts
        self.lock = lock

    def __call__(self, job: FewShotJob) -> list[str]:
        """Run a job.

        Args:
            job (FewShotJob): Job.

        Returns:
            list[str]: A line for each of its results.
        """
        if job.is_finished:
            return []
        try:
            check_this_node(self.facts, [self.lock])
        except ClusterError as error:
            return job.record_failure(error)
        return job.record_results()

    def checkpoint(self, job: FewShotJob) -> Any:
        """Return what is queued instead: the same job.

        Args:
            job (FewShotJob): Job that was interrupted.

        Returns:
            Any: Submission of submitit.
        """
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


def slurm_executor(folder: Path, options: ClusterOptions) -> Any:
    """Return the executor that sends jobs to Slurm.

    Args:
        folder (Path): Folder for the scripts, pickled jobs and logs of submitit; all nodes must see it.
        options (ClusterOptions): What a job gets.

    Returns:
        Any: Executor of submitit.

    Raises:
        ModuleNotFoundError: If submitit is not installed.
        ConnectionError: If this machine has no Slurm.
    """
    require_cluster("submitit", purpose="The launcher slurm")
    import submitit

    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES)
    except RuntimeError as error:
        msg = "this machine has no Slurm (no command srun): run on a login node of the cluster, or use another launcher"
        raise ConnectionError(msg) from error
    gpus = {"gpus_per_node": int(options.gpus)} if options.gpus else {}
    executor.update_parameters(
        job_name=FewShotJob.name,
        time=options.time_limit,
        cpus_per_task=options.cpus,
        additional_parameters=options.slurm,
        setup=[f"export OMP_NUM_THREADS={options.cpus} SRUN_CPUS_PER_TASK={options.cpus}"],
        **gpus,
    )
    return executor
