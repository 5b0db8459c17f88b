# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The benchmark as a pipeline of anomalib, which makes it a subcommand of ``anomalib``."""

import inspect
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from anomalib.pipelines.components.base import JobGenerator, Runner
from anomalib.pipelines.components.runners import ParallelRunner, SerialRunner
from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm

from anomalib_mediclip.benchmark.checks import find_problems
from anomalib_mediclip.benchmark.configuration import SECTION, BenchmarkConfiguration, add_arguments, make_configuration
from anomalib_mediclip.benchmark.factory import support_sizes
from anomalib_mediclip.benchmark.fingerprint import hash_data
from anomalib_mediclip.benchmark.job import LOG, FewShotJob
from anomalib_mediclip.benchmark.launchers import RayRunner, SlurmRunner
from anomalib_mediclip.benchmark.report import write_report
from anomalib_mediclip.benchmark.results import NOTE, TRIVIAL
from anomalib_mediclip.cluster.options import ClusterError
from anomalib_mediclip.folder_lock import only_process
from anomalib_mediclip.host.added_commands import RunnerPipeline


class FewShotJobGenerator(JobGenerator):
    """Makes the jobs of a benchmark, those that are finished first.

    Args:
        configuration (BenchmarkConfiguration): Configuration of the benchmark.
        with_progress (bool, optional): Whether to show a progress bar; the serial runner has its own. Defaults to
            ``False``.
    """

    def __init__(self, configuration: BenchmarkConfiguration, with_progress: bool = False) -> None:
        self.configuration = configuration
        self.with_progress = with_progress
        self._hashes: dict[str, str] = {}

    @property
    def job_class(self) -> type[FewShotJob]:
        """Class of the jobs."""
        return FewShotJob

    def generate_jobs(  # type: ignore[override]  # a list has a length, which a progress bar needs
        self, args: dict | None = None, prev_stage_result: Any = None
    ) -> Sequence[FewShotJob]:
        """Return the jobs: for every data set the trivial baseline, then k by k and seed by seed every model."""
        del args, prev_stage_result
        jobs = sorted(self.all_jobs(), key=lambda job: not job.is_finished)
        return tqdm(jobs, desc=FewShotJob.name) if self.with_progress else jobs

    def all_jobs(self) -> list[FewShotJob]:
        """Return all jobs in the order of the configuration."""
        plan = self.configuration
        tested = list(dict.fromkeys(name for data in plan.trained_on for name in plan.tested_on(data)))
        jobs: list[FewShotJob] = []
        for data in plan.trained_on:
            jobs += self._trainings(data)
            jobs += [self._job(data, [data])] if data in tested else []
        jobs += [self._job(data, [data]) for data in tested if data not in plan.trained_on]
        return [replace(job, position=position) for position, job in enumerate(jobs)]

    def _trainings(self, data: str) -> list[FewShotJob]:
        """Return the jobs that train on a data set: k by k and seed by seed every model."""
        plan = self.configuration
        sizes = support_sizes(plan.data[data], plan.k_shot)
        return [
            replace(
                self._job(data, plan.tested_on(data)),
                model_name=name,
                model=model,
                k_shot=k_shot,
                takes_all=takes_all,
                seed=seed,
                with_examples=k_shot == max(sizes) and seed == plan.seeds[0],
            )
            for k_shot, takes_all in sizes.items()
            for name, model in plan.models.items()
            for seed in plan.seeds
        ]

    def _job(self, data: str, tests: Sequence[str]) -> FewShotJob:
        """Return a job on a data set: that of the trivial baseline, unless it is given a model to train."""
        plan = self.configuration
        return FewShotJob(
            model_name=TRIVIAL,
            model=None,
            trained_on=data,
            data=plan.data[data],
            k_shot=None,
            seed=None,
            device=plan.device,
            folder=plan.folder,
            position=0,
            tests={name: plan.data[name] for name in tests},
            data_hash=" ".join(self._hash_of(name) for name in dict.fromkeys((data, *tests))),
        )

    def _hash_of(self, data: str) -> str:
        """Return the hash of the files of a data set, which are read once."""
        if data not in self._hashes:
            self._hashes[data] = hash_data(self.configuration.data[data], self.configuration.folder)
        return self._hashes[data]


class FewShotBenchmark(RunnerPipeline):
    """Compare models on k normal images of each data set, over several support sets, and write a report."""

    @staticmethod
    def get_parser(parser: ArgumentParser | None = None) -> ArgumentParser:
        """Return the parser of the subcommand."""
        parser = parser or ArgumentParser()
        add_arguments(parser)
        return parser

    def run(self, args: Namespace | None = None) -> None:
        """Run the jobs that are not finished yet, and write the report.

        Raises:
            SystemExit: With status 1 if the configuration is wrong or a job has failed.
        """
        _refuse_unguarded_script()
        args = args or self.get_parser().parse_args()
        try:
            configuration = make_configuration(args)
        except (OSError, ValueError) as error:
            raise SystemExit(str(error)) from error
        problems = find_problems(configuration)
        if problems:
            listed = "\n".join(f"- {problem}" for problem in problems)
            file = args.config[0] if args.config else SECTION
            msg = f"{file}: nothing was run, because some jobs would fail:\n{listed}"
            raise SystemExit(msg)
        try:
            with only_process(configuration.folder, "runs a benchmark in"):
                self._run_jobs(configuration)
        except (ClusterError, ConnectionError, FileExistsError, ModuleNotFoundError) as error:
            msg = f"error: {error}"
            raise SystemExit(msg) from error
        except OSError as error:  # such as a full disk
            msg = f"{error} Finished jobs are kept: remove the cause and run again."
            raise SystemExit(msg) from error

    def _run_jobs(self, configuration: BenchmarkConfiguration) -> None:
        """Run the jobs that are not finished yet, and write the report."""
        logging.getLogger("anomalib.pipelines").setLevel(logging.WARNING)  # it would say twice that it runs
        jobs = FewShotJobGenerator(configuration).all_jobs()
        finished = sum(job.is_finished for job in jobs)
        log = configuration.folder / LOG
        print(f"{len(jobs)} jobs, {finished} of them finished before; results and {log.name} in {configuration.folder}")
        for runner in self.make_runners({"configuration": configuration}):
            runner.run({})
        (configuration.folder / NOTE).write_text(configuration.note, encoding="utf-8")
        print(f"report: {write_report(configuration.folder, published=configuration.published)}")
        failed = [job for job in jobs if not job.is_finished]
        if failed:
            print(
                f"{len(failed)} of {len(jobs)} jobs failed, see the report and {log}; run again to try only these again"
            )
            raise SystemExit(1)

    def make_runners(self, args: dict) -> list[Runner]:
        """Return the runner of a cluster, anomalib's parallel one where there are several GPUs, or its serial one."""
        configuration: BenchmarkConfiguration = args["configuration"]
        if configuration.launcher != "local":
            runner = RayRunner if configuration.launcher == "ray" else SlurmRunner
            return [runner(FewShotJobGenerator(configuration), configuration.cluster)]
        gpus = torch.cuda.device_count() if configuration.device == "cuda" else 0
        if gpus > 1:
            return [ParallelRunner(FewShotJobGenerator(configuration, with_progress=True), n_jobs=gpus)]
        return [SerialRunner(FewShotJobGenerator(configuration))]


def _refuse_unguarded_script() -> None:
    """End a script that starts the benchmark while a process of a job is reading it."""
    if any(frame.frame.f_globals.get("__name__") == "__mp_main__" for frame in inspect.stack(context=0)):
        msg = 'This script must start the benchmark under if __name__ == "__main__": every job reads it again.'
        raise SystemExit(msg)
